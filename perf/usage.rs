//! What a process used, from /proc: CPU time of all its threads, and resident memory.
//!
//! Owns nothing. Called before and behind what is measured. Rule: CPU time is the scheduler's own
//! account in ns (`task/*/schedstat`), since the 10 ms ticks of `stat` are as long as a whole run
//! of a fast daemon; where the kernel has no such account, the ticks are used.

use std::fs;

use crate::{Outcome, fail};

/// Kernel clock ticks a second in /proc/PID/stat; 100 on every Linux there is.
const TICKS_PER_S: f64 = 100.0;

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU seconds since its start, user and system, all threads.
    pub cpu_s: f64,
    /// Resident bytes, shared memory included.
    pub rss: f64,
    /// The part of them in huge pages.
    pub huge: f64,
}

/// CPU seconds of the live threads, to the nanosecond.
fn scheduled(pid: u32) -> Option<f64> {
    let mut ns = 0u64;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end between the listing and the reading; its time is then lost to us.
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        ns += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    (ns > 0).then_some(ns as f64 / 1e9)
}

/// CPU seconds in ticks, ended threads included.
fn ticked(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks; utime and stime are the 12th and 13th behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_S)
}

/// A `Name:   123 kB` line in bytes.
fn kilobytes(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// CPU seconds of a process since its start, user and system, all threads.
///
/// Looking at its memory, as [`Usage::of`] does, would hold up a process that is at work.
pub fn cpu_s(pid: u32) -> Outcome<f64> {
    Ok(match (scheduled(pid), ticked(pid)) {
        // Threads that ended are missing in the finer account: then the coarser one is truer.
        (Some(fine), Some(coarse)) if coarse - fine > 0.05 * coarse + 0.05 => coarse,
        (Some(fine), _) => fine,
        (None, Some(coarse)) => coarse,
        (None, None) => return fail(format!("process {pid} is gone")),
    })
}

impl Usage {
    /// Reads it now.
    pub fn of(pid: u32) -> Outcome<Usage> {
        let cpu_s = cpu_s(pid)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let huge = ["AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"];
        Ok(Usage {
            cpu_s,
            rss: kilobytes(&status, "VmRSS").unwrap_or(0.0),
            huge: huge.iter().filter_map(|n| kilobytes(&rollup, n)).sum(),
        })
    }

    /// What was used since `earlier`; memory is the growth.
    pub fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu_s: self.cpu_s - earlier.cpu_s,
            rss: self.rss - earlier.rss,
            huge: self.huge - earlier.huge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let before = Usage::of(std::process::id()).expect("ourselves");
        let mut x = vec![1u64; 4 << 20];
        for _ in 0..20 {
            x.iter_mut().for_each(|v| *v = std::hint::black_box(v.wrapping_mul(3)));
        }
        let used = Usage::of(std::process::id()).expect("ourselves").since(before);
        assert!(used.cpu_s > 0.0 && used.rss > 16e6, "{used:?}");
        assert!(Usage::of(u32::MAX).is_err());
    }
}
