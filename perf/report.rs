//! Figures for people and for programs: the table, the JSON, and where they are kept.
//!
//! Owns nothing. Called by `main` behind each work. Rule: a figure is a median with its least and
//! greatest, a comparison is a ratio of medians from one run, and what failed is in the report too.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::Outcome;
use crate::rounds::{Finished, Measured, Metric, Spread};

/// Three digits that count, with a unit prefix from ten thousand up.
pub fn number(v: f64) -> String {
    let (v, prefix) = match v.abs() {
        a if a >= 1e9 => (v / 1e9, " G"),
        a if a >= 1e6 => (v / 1e6, " M"),
        a if a >= 1e4 => (v / 1e3, " k"),
        _ => (v, ""),
    };
    let digits = match v.abs() {
        a if a >= 100.0 => 0,
        a if a >= 10.0 => 1,
        a if a >= 1.0 => 2,
        a if a >= 0.1 => 3,
        _ => 4,
    };
    format!("{v:.digits$}{prefix}")
}

fn spread(s: Option<Spread>) -> String {
    match s {
        Some(s) if s.min == s.max => number(s.median),
        Some(s) => format!("{} [{} .. {}]", number(s.median), number(s.min), number(s.max)),
        None => "-".to_owned(),
    }
}

/// How many times better `ours` is than `theirs`; above 1 is better, whatever the metric.
pub fn ratio(metric: &Metric, ours: &Measured, theirs: &Measured) -> Option<f64> {
    let (a, b) = (ours.spread(metric.name)?.median, theirs.spread(metric.name)?.median);
    let r = if metric.more_is_better { a / b } else { b / a };
    r.is_finite().then_some(r)
}

/// The table of one work.
pub fn table(done: &Finished) -> String {
    let head = done.metrics.iter().map(|m| m.name.to_owned());
    let mut rows: Vec<Vec<String>> =
        vec![std::iter::once(String::new()).chain(head).collect::<Vec<_>>()];
    for m in &done.measured {
        let cells = done.metrics.iter().map(|metric| spread(m.spread(metric.name)));
        rows.push(std::iter::once(m.subject.name.clone()).chain(cells).collect());
    }
    for ours in done.measured.iter().filter(|m| m.subject.ours) {
        for theirs in done.measured.iter().filter(|m| !m.subject.ours) {
            let cells = done.metrics.iter().map(|metric| {
                ratio(metric, ours, theirs).map_or("-".into(), |r| format!("{} x", number(r)))
            });
            let name = format!("{} better than {}", ours.subject.name, theirs.subject.name);
            rows.push(std::iter::once(name).chain(cells).collect());
        }
    }
    let rounds = done.measured.iter().map(|m| m.samples.len()).max().unwrap_or(0);
    let mut text = format!("== {}: {}\n", done.id, done.title);
    let _ =
        writeln!(text, "   {rounds} rounds, {} s; median [least .. greatest]", done.took.as_secs());
    for note in &done.notes {
        let _ = writeln!(text, "   {note}");
    }
    for failure in done.failures() {
        let _ = writeln!(text, "   FAILED {failure}");
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, width))| {
            let fill = " ".repeat(width - cell.chars().count());
            if i == 0 { format!("{cell}{fill}") } else { format!("{fill}{cell}") }
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("   ").trim_end());
    }
    text
}

/// One work for programs: all samples, medians and ratios.
pub fn json(done: &Finished) -> Value {
    let metric = |m: &Metric| json!({ "name": m.name, "more_is_better": m.more_is_better });
    let measured = |m: &Measured| {
        let medians: serde_json::Map<String, Value> = done
            .metrics
            .iter()
            .filter_map(|metric| Some((metric.name.to_owned(), m.spread(metric.name)?)))
            .map(|(name, s)| (name, json!({ "median": s.median, "min": s.min, "max": s.max })))
            .collect();
        json!({
            "subject": m.subject.name,
            "version": m.subject.version,
            "spreads": medians,
            "samples": m.samples.iter().map(|s| json!(s.values)).collect::<Vec<_>>(),
            "failures": m.failures,
        })
    };
    json!({
        "id": done.id,
        "title": done.title,
        "notes": done.notes,
        "seconds": done.took.as_secs_f64(),
        "metrics": done.metrics.iter().map(metric).collect::<Vec<_>>(),
        "measured": done.measured.iter().map(measured).collect::<Vec<_>>(),
    })
}

fn line_of(path: &str, start: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(start))?;
    Some(line.split_once(':').map_or(line, |(_, v)| v).trim().to_owned())
}

/// What the figures depend on: processor, kernel, huge pages, and the CPUs that were used.
pub fn machine(daemon_cpus: &[usize], generator_cpus: &[usize]) -> Value {
    let huge = |file: &str| line_of(&format!("/sys/kernel/mm/transparent_hugepage/{file}"), "");
    json!({
        "processor": line_of("/proc/cpuinfo", "model name"),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": line_of("/proc/meminfo", "MemTotal"),
        "kernel": line_of("/proc/sys/kernel/osrelease", ""),
        "huge_pages_enabled": huge("enabled"),
        "huge_pages_shmem_enabled": huge("shmem_enabled"),
        "daemon_cpus": daemon_cpus,
        "generator_cpus": generator_cpus,
    })
}

/// Today as `2026-11-20`, from the system's clock (UTC).
pub fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    // Days to a civil date: eras of 400 years of 146097 days, years from March on.
    let days = (seconds / 86_400) as i64 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (d, m) =
        (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let y = year + era * 400 + i64::from(m <= 2);
    format!("{y:04}-{m:02}-{d:02}")
}

/// Folder of a run: `<results>/<date>-<what>`, made if need be.
pub fn folder(results: &Path, what: &str) -> Outcome<PathBuf> {
    let folder = results.join(format!("{}-{what}", date()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let texts = [0.01234, 0.5, 3.234, 42.0, 999.0, 12_345.0, 31_000_000.0].map(number);
        assert_eq!(texts, ["0.0123", "0.500", "3.23", "42.0", "999", "12.3 k", "31.0 M"]);
    }

    #[test]
    fn dates_look_like_dates() {
        let today = date();
        assert_eq!(today.len(), 10);
        assert!(today.as_str() > "2026-01-01" && today.as_str() < "2200-01-01", "{today}");
    }
}
