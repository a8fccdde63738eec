//! The same work against every daemon in turn, in rounds: what one round gave is never compared
//! with another day's.
//!
//! Owns the samples. Called by `main` with one [`Work`] after the other. Rule: within a round every
//! subject runs once, each round starting with another subject, so that a slow spell of a shared
//! machine hits all of them; a failure of one subject is kept and told, and the others go on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Outcome;
use crate::daemon::Subject;

/// One figure of a work.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name and unit, as the table's head says.
    pub name: &'static str,
    /// More is better.
    pub more_is_better: bool,
    /// It gets a plot of bars.
    pub plotted: bool,
}

impl Metric {
    /// With a plot.
    pub const fn plotted(self) -> Metric {
        Metric { plotted: true, ..self }
    }
}

/// More is better.
pub const fn more(name: &'static str) -> Metric {
    Metric { name, more_is_better: true, plotted: false }
}

/// Less is better.
pub const fn less(name: &'static str) -> Metric {
    Metric { name, more_is_better: false, plotted: false }
}

/// What one run gave.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// By the metric's name.
    pub values: BTreeMap<&'static str, f64>,
    /// Points (x, y) of curves, by their name.
    pub curves: BTreeMap<&'static str, Vec<(f64, f64)>>,
}

impl Sample {
    /// With one value more.
    pub fn with(mut self, name: &'static str, value: f64) -> Sample {
        self.values.insert(name, value);
        self
    }
}

/// Runs the work once.
pub type Run<'a> = Box<dyn FnMut(&Subject) -> Outcome<Sample> + 'a>;

/// Something to measure.
pub struct Work<'a> {
    /// Short name, for file names.
    pub id: String,
    /// What is done, in a line.
    pub title: String,
    /// What a reader of the figures must know.
    pub notes: Vec<String>,
    /// Columns.
    pub metrics: Vec<Metric>,
    /// Who does it.
    pub subjects: Vec<Subject>,
    /// Runs it once with one of them.
    pub run: Run<'a>,
}

/// All samples of one subject.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Who.
    pub subject: Subject,
    /// One for each round that succeeded.
    pub samples: Vec<Sample>,
    /// What went wrong in the others.
    pub failures: Vec<String>,
}

/// A work's samples.
pub struct Finished {
    /// See [`Work`].
    pub id: String,
    /// See [`Work`].
    pub title: String,
    /// See [`Work`].
    pub notes: Vec<String>,
    /// See [`Work`].
    pub metrics: Vec<Metric>,
    /// In the order of the subjects.
    pub measured: Vec<Measured>,
    /// Wall clock of all rounds.
    pub took: Duration,
}

impl Finished {
    /// Failures of all subjects.
    pub fn failures(&self) -> impl Iterator<Item = String> + '_ {
        self.measured.iter().flat_map(|m| {
            m.failures.iter().map(|f| format!("{}: {}: {f}", self.id, m.subject.name))
        })
    }
}

/// Median, least and greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// None without values.
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let n = values.len();
        Some(Spread { median: (values[(n - 1) / 2] + values[n / 2]) / 2.0, min, max })
    }
}

impl Measured {
    /// The spread of one metric over the rounds.
    pub fn spread(&self, metric: &str) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(|s| s.values.get(metric).copied()).collect())
    }
}

/// Does all rounds of a work.
pub fn run(work: Work<'_>, rounds: usize) -> Finished {
    let Work { id, title, notes, metrics, subjects, mut run } = work;
    let begin = Instant::now();
    let bar = ProgressBar::new((rounds * subjects.len()) as u64);
    let style = "{bar:24} {pos}/{len} {elapsed_precise} {prefix}: {msg}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()));
    bar.set_prefix(id.clone());
    bar.enable_steady_tick(Duration::from_millis(500));
    let mut measured: Vec<Measured> = subjects
        .into_iter()
        .map(|subject| Measured { subject, samples: Vec::new(), failures: Vec::new() })
        .collect();
    let count = measured.len();
    for round in 0..rounds {
        for turn in 0..count {
            let who = &mut measured[(round + turn) % count];
            bar.set_message(format!("round {} of {rounds}, {}", round + 1, who.subject.name));
            match run(&who.subject) {
                Ok(sample) => who.samples.push(sample),
                Err(e) => {
                    bar.suspend(|| eprintln!("{id}: {}: FAILED: {e}", who.subject.name));
                    who.failures.push(e.to_string());
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Finished { id, title, notes, metrics, measured, took: begin.elapsed() }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn medians() {
        let of = |v: &[f64]| Spread::of(v.to_vec()).map(|s| (s.median, s.min, s.max));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
    }
}
