//! The processes that `-sf` and `-st` name, as far as signals go.
//!
//! HAProxy's conventions, which both a HAProxy and a stickring as old process understand: SIGTTOU
//! asks them to stop listening, SIGTTIN to listen again, SIGUSR1 to hand over and leave, SIGTERM to
//! leave at once. Called by `main` at the start. Rule: a process that cannot be signalled is not
//! waited for.
#![forbid(unsafe_code)]

use rustix::process::{Pid, Signal, getpid, kill_process, test_kill_process};

/// Old processes.
#[derive(Clone, Debug)]
pub struct OldProcesses {
    pids: Vec<Pid>,
    end: Signal,
}

impl OldProcesses {
    /// `terminate`: they leave at once (`-st`).
    pub fn new(pids: &[i32], terminate: bool) -> OldProcesses {
        let own = getpid();
        let pids = pids.iter().filter_map(|pid| Pid::from_raw(*pid)).filter(|pid| *pid != own);
        let end = if terminate { Signal::TERM } else { Signal::USR1 };
        OldProcesses { pids: pids.collect(), end }
    }

    /// Some of them are there and may be signalled.
    pub fn any(&self) -> bool {
        self.pids.iter().any(|pid| test_kill_process(*pid).is_ok())
    }

    /// The pids as given.
    pub fn pids(&self) -> &[Pid] {
        &self.pids
    }

    /// Asks them to stop listening; how many were asked.
    pub fn pause(&self) -> usize {
        self.tell(Signal::TTOU)
    }

    /// Asks them to listen again; how many were asked.
    pub fn resume(&self) -> usize {
        self.tell(Signal::TTIN)
    }

    /// Tells them to leave; how many were told.
    pub fn end(&self) -> usize {
        self.tell(self.end)
    }

    fn tell(&self, signal: Signal) -> usize {
        self.pids.iter().filter(|pid| kill_process(**pid, signal).is_ok()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_or_ourselves_is_nobody() {
        let own = std::process::id() as i32;
        assert!(!OldProcesses::new(&[], false).any());
        assert!(!OldProcesses::new(&[own], false).any(), "never ourselves");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let old = OldProcesses::new(&[i32::MAX, child.id() as i32], true);
        assert!(old.any());
        assert_eq!(old.end(), 1);
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        assert!(!old.any());
        assert_eq!(old.pause(), 0);
    }
}
