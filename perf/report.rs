//! Figures for people and for programs: the table, the JSON, and where they are kept.
//!
//! Owns nothing. Called by `main` behind each work. Rule: a figure is a median with its least and
//! greatest, or percentiles of all runs; a comparison is a ratio of such from one run; how many
//! runs there were is said for each subject, and what failed is in the report too.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::Outcome;
use crate::percentiles::SHOWN;
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

/// One column of a table: a metric's median, or one of its percentiles.
#[derive(Clone, Copy)]
struct Column<'a> {
    metric: &'a Metric,
    percentile: Option<(&'static str, f64)>,
}

impl<'a> Column<'a> {
    fn all(metrics: &'a [Metric]) -> Vec<Column<'a>> {
        let of = |metric: &'a Metric| -> Vec<Column<'a>> {
            if !metric.histogram {
                return vec![Column { metric, percentile: None }];
            }
            SHOWN.map(|shown| Column { metric, percentile: Some(shown) }).into()
        };
        metrics.iter().flat_map(of).collect()
    }

    /// The first percentile tells what it is of, the others only which they are.
    fn head(self) -> String {
        match self.percentile {
            None => self.metric.name.to_owned(),
            Some(shown) if shown == SHOWN[0] => format!("{} {}", self.metric.name, shown.0),
            Some((name, _)) => name.to_owned(),
        }
    }

    fn figure(self, of: &Measured) -> Option<f64> {
        match self.percentile {
            None => Some(of.spread(self.metric.name)?.median),
            Some((_, quantile)) => Some(of.percentiles(self.metric.name)?.at(quantile)),
        }
    }

    fn text(self, of: &Measured) -> String {
        match self.percentile {
            None => spread(of.spread(self.metric.name)),
            Some(_) => self.figure(of).map_or("-".to_owned(), number),
        }
    }

    /// How many times better `ours` is than `theirs`; above 1 is better, whatever the metric.
    fn ratio(self, ours: &Measured, theirs: &Measured) -> Option<f64> {
        let (a, b) = (self.figure(ours)?, self.figure(theirs)?);
        let r = if self.metric.more_is_better { a / b } else { b / a };
        r.is_finite().then_some(r)
    }
}

/// Runs that gave figures, of those that were made.
fn runs(of: &Measured) -> String {
    match (of.samples.len(), of.failures.len()) {
        (good, 0) => good.to_string(),
        (good, bad) => format!("{good} of {}", good + bad),
    }
}

/// `20 rounds`, and who was not in all of them.
fn rounds(done: &Finished) -> String {
    let mut text = format!("{} rounds", done.rounds.count());
    for (who, ours) in [("stickring", true), ("each HAProxy", false)] {
        let mut of = done.measured.iter().filter(|m| m.subject.ours == ours);
        if let Some(m) = of.next().filter(|m| done.rounds.of(&m.subject) < done.rounds.count()) {
            let _ = write!(text, ", {who} in {} of them", done.rounds.of(&m.subject));
        }
    }
    text
}

/// The table of one work.
pub fn table(done: &Finished) -> String {
    let columns = Column::all(&done.metrics);
    let row = |name: String, runs: String, cells: &dyn Fn(Column<'_>) -> String| {
        [name, runs].into_iter().chain(columns.iter().map(|c| cells(*c))).collect::<Vec<_>>()
    };
    let mut rows = vec![row(String::new(), "runs".to_owned(), &|c| c.head())];
    for m in &done.measured {
        rows.push(row(m.subject.name.clone(), runs(m), &|c| c.text(m)));
    }
    for ours in done.measured.iter().filter(|m| m.subject.ours) {
        for theirs in done.measured.iter().filter(|m| !m.subject.ours) {
            let name = format!("{} better than {}", ours.subject.name, theirs.subject.name);
            rows.push(row(name, String::new(), &|c| {
                c.ratio(ours, theirs).map_or("-".into(), |r| format!("{} x", number(r)))
            }));
        }
    }
    let mut text = format!("== {}: {}\n", done.id, done.title);
    let (rounds, seconds) = (rounds(done), done.took.as_secs());
    let _ = writeln!(text, "   {rounds}, {seconds} s; median [least .. greatest]");
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

/// Percentiles, and all that was recorded as pairs of a value and its runs.
fn histogram(of: &Measured, metric: &Metric) -> Option<Value> {
    let percentiles = of.percentiles(metric.name)?;
    let mut value = json!({ "runs": percentiles.runs(), "recorded": percentiles.recorded() });
    for (name, quantile) in SHOWN {
        value[name] = json!(percentiles.at(quantile));
    }
    Some(value)
}

/// One work for programs: all samples, medians, histograms.
pub fn json(done: &Finished) -> Value {
    let metric = |m: &Metric| json!({ "name": m.name, "more_is_better": m.more_is_better });
    let measured = |m: &Measured| {
        let medians: serde_json::Map<String, Value> = done
            .metrics
            .iter()
            .filter_map(|metric| Some((metric.name.to_owned(), m.spread(metric.name)?)))
            .map(|(name, s)| (name, json!({ "median": s.median, "min": s.min, "max": s.max })))
            .collect();
        let histograms: serde_json::Map<String, Value> = done
            .metrics
            .iter()
            .filter(|metric| metric.histogram)
            .filter_map(|metric| Some((metric.name.to_owned(), histogram(m, metric)?)))
            .collect();
        json!({
            "subject": m.subject.name,
            "version": m.subject.version,
            "spreads": medians,
            "histograms": histograms,
            "samples": m.samples.iter().map(|s| json!(s.values)).collect::<Vec<_>>(),
            "failures": m.failures,
        })
    };
    json!({
        "id": done.id,
        "title": done.title,
        "notes": done.notes,
        "seconds": done.took.as_secs_f64(),
        "rounds": { "stickring": done.rounds.ours, "haproxy": done.rounds.theirs },
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
    use crate::rounds::reloads;

    #[test]
    fn numbers_keep_three_digits() {
        let texts = [0.01234, 0.5, 3.234, 42.0, 999.0, 12_345.0, 31_000_000.0].map(number);
        assert_eq!(texts, ["0.0123", "0.500", "3.23", "42.0", "999", "12.3 k", "31.0 M"]);
    }

    /// The cells of the line that starts with `name`; they are three blanks apart.
    fn cells(text: &str, name: &str) -> Vec<String> {
        let line = text.lines().find(|l| l.starts_with(name)).expect(name);
        let cells = line.split("   ").map(str::trim).filter(|c| !c.is_empty());
        cells.map(str::to_owned).collect()
    }

    #[test]
    fn a_histogram_has_columns_of_percentiles_and_every_subject_its_runs() {
        let text = table(&reloads());
        assert!(text.contains("   20 rounds, each HAProxy in 2 of them, 80 s;"), "{text}");
        assert!(text.contains("   FAILED reload: haproxy 3.4: not done in 70 s"), "{text}");
        assert_eq!(cells(&text, "     "), ["runs", "s p50", "p90", "p99", "max", "CPU"]);
        assert_eq!(
            cells(&text, "stickring "),
            [
                "stickring",
                "20",
                "0.0100",
                "0.0180",
                "0.0200",
                "0.0200",
                "0.0210 [0.0020 .. 0.0400]"
            ]
        );
        let haproxy = cells(&text, "haproxy 3.4");
        assert_eq!(haproxy[..5], ["haproxy 3.4", "1 of 2", "3.00", "3.00", "3.00"]);
        let ratios = cells(&text, "stickring better");
        assert_eq!(ratios[1..], ["300 x", "167 x", "150 x", "150 x", "286 x"]);
    }

    #[test]
    fn the_json_keeps_the_histogram() {
        let value = json(&reloads());
        let ours = &value["measured"][1]["histograms"];
        assert_eq!(ours.as_object().map(serde_json::Map::len), Some(1), "only what asks for it");
        let recorded = ours["s"]["recorded"].as_array().expect("pairs");
        assert_eq!((recorded.len(), &ours["s"]["runs"]), (20, &json!(20)));
        assert_eq!(recorded[0], json!([0.001, 1]));
        let p99 = ours["s"]["p99"].as_f64().expect("a number");
        assert!((0.0199..0.0201).contains(&p99), "{p99}");
        assert_eq!(value["rounds"], json!({ "stickring": 20, "haproxy": 2 }));
        assert_eq!(value["measured"][0]["failures"], json!(["not done in 70 s"]));
    }

    #[test]
    fn dates_look_like_dates() {
        let today = date();
        assert_eq!(today.len(), 10);
        assert!(today.as_str() > "2026-01-01" && today.as_str() < "2200-01-01", "{today}");
    }
}
