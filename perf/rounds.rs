//! The same work against every daemon in turn, in rounds: what one round gave is never compared
//! with another day's.
//!
//! Owns the samples. Called by `main` with one [`Work`] after the other. Rule: within a round every
//! subject runs once, each round starting with another subject, so that a slow spell of a shared
//! machine hits all of them; who takes part in some rounds only, does so in rounds all over the
//! run; a failure of one subject is kept and told, and the others go on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Outcome;
use crate::daemon::Subject;
use crate::percentiles::Percentiles;

/// One figure of a work.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name and unit, as the table's head says.
    pub name: &'static str,
    /// More is better.
    pub more_is_better: bool,
    /// It gets a plot of bars.
    pub plotted: bool,
    /// The runs are shown as a histogram: percentiles instead of the median, and their curve.
    pub histogram: bool,
}

impl Metric {
    /// With a plot.
    pub const fn plotted(self) -> Metric {
        Metric { plotted: true, ..self }
    }

    /// Over the rounds as a histogram.
    pub const fn histogram(self) -> Metric {
        Metric { histogram: true, ..self }
    }
}

/// More is better.
pub const fn more(name: &'static str) -> Metric {
    Metric { name, more_is_better: true, plotted: false, histogram: false }
}

/// Less is better.
pub const fn less(name: &'static str) -> Metric {
    Metric { name, more_is_better: false, plotted: false, histogram: false }
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

/// How many rounds, and how many of them a HAProxy takes part in: what takes stickring a moment
/// may take HAProxy a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds {
    /// Of stickring.
    pub ours: usize,
    /// Of each HAProxy.
    pub theirs: usize,
}

impl Rounds {
    /// All of them.
    pub fn count(self) -> usize {
        self.ours.max(self.theirs)
    }

    /// How many a subject takes part in.
    pub fn of(self, subject: &Subject) -> usize {
        if subject.ours { self.ours } else { self.theirs }
    }

    /// Whether a subject takes part in round `round`, from 0: its rounds lie evenly among all.
    fn take(self, subject: &Subject, round: usize) -> bool {
        let before = |round: usize| (round * self.of(subject) + self.count() / 2) / self.count();
        before(round) < before(round + 1)
    }
}

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
    /// How often.
    pub rounds: Rounds,
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
    /// See [`Work`].
    pub rounds: Rounds,
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
    fn values(&self, metric: &str) -> impl Iterator<Item = f64> {
        self.samples.iter().filter_map(|s| s.values.get(metric).copied())
    }

    /// The spread of one metric over the rounds.
    pub fn spread(&self, metric: &str) -> Option<Spread> {
        Spread::of(self.values(metric).collect())
    }

    /// One metric over the rounds as a histogram.
    pub fn percentiles(&self, metric: &str) -> Option<Percentiles> {
        Percentiles::of(self.values(metric))
    }

    /// The curve of that name from the round whose last point is the median one.
    pub fn curve(&self, name: &str) -> Option<Vec<(f64, f64)>> {
        let mut of: Vec<_> = self.samples.iter().filter_map(|s| s.curves.get(name)).collect();
        of.retain(|c| c.len() > 1);
        of.sort_by(|a, b| a[a.len() - 1].1.total_cmp(&b[b.len() - 1].1));
        of.get(of.len() / 2).map(|c| (*c).clone())
    }
}

/// Does all rounds of a work.
pub fn run(work: Work<'_>) -> Finished {
    let Work { id, title, notes, metrics, subjects, rounds, mut run } = work;
    let begin = Instant::now();
    let bar = ProgressBar::new(subjects.iter().map(|s| rounds.of(s) as u64).sum());
    let style = "{bar:24} {pos}/{len} {elapsed_precise} {prefix}: {msg}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()));
    bar.set_prefix(id.clone());
    bar.enable_steady_tick(Duration::from_millis(500));
    let mut measured: Vec<Measured> = subjects
        .into_iter()
        .map(|subject| Measured { subject, samples: Vec::new(), failures: Vec::new() })
        .collect();
    let (count, all) = (measured.len(), rounds.count());
    for round in 0..all {
        for turn in 0..count {
            let who = &mut measured[(round + turn) % count];
            if !rounds.take(&who.subject, round) {
                continue;
            }
            bar.set_message(format!("round {} of {all}, {}", round + 1, who.subject.name));
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
    Finished { id, title, notes, metrics, rounds, measured, took: begin.elapsed() }
}

/// For tests: 20 runs of stickring of 1 to 20 ms; of HAProxy's two one of 3 s and one that failed.
#[cfg(test)]
pub fn reloads() -> Finished {
    let of = |ours, seconds: &[f64], failures: &[&str]| Measured {
        subject: Subject::example(if ours { "stickring" } else { "haproxy 3.4" }, ours),
        samples: seconds
            .iter()
            .map(|s| Sample::default().with("s", *s).with("CPU", 2.0 * s))
            .collect(),
        failures: failures.iter().map(|f| (*f).to_owned()).collect(),
    };
    let ms: Vec<f64> = (1..=20).map(|n| f64::from(n) / 1e3).collect();
    Finished {
        id: "reload".to_owned(),
        title: "of a test".to_owned(),
        notes: Vec::new(),
        metrics: vec![less("s").plotted().histogram(), less("CPU")],
        rounds: Rounds { ours: 20, theirs: 2 },
        measured: vec![of(false, &[3.0], &["not done in 70 s"]), of(true, &ms, &[])],
        took: Duration::from_secs(80),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let of = |v: &[f64]| Spread::of(v.to_vec()).map(|s| (s.median, s.min, s.max));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
    }

    /// The rounds, from 0, that each kind of subject takes part in.
    fn taken(ours: usize, theirs: usize) -> (Vec<usize>, Vec<usize>) {
        let rounds = Rounds { ours, theirs };
        let of = |ours| {
            let subject = Subject::example("x", ours);
            (0..rounds.count()).filter(|r| rounds.take(&subject, *r)).collect()
        };
        (of(true), of(false))
    }

    #[test]
    fn fewer_rounds_lie_evenly_among_all() {
        assert_eq!(taken(20, 3), ((0..20).collect(), vec![3, 9, 16]));
        assert_eq!(taken(5, 5), ((0..5).collect(), (0..5).collect()));
        assert_eq!(taken(9, 1), ((0..9).collect(), vec![4]));
        assert_eq!(taken(2, 6), (vec![1, 4], (0..6).collect()));
        for (ours, theirs) in (1..25).flat_map(|a| (1..25).map(move |b| (a, b))) {
            let (a, b) = taken(ours, theirs);
            assert_eq!((a.len(), b.len()), (ours, theirs));
        }
    }

    #[test]
    fn a_failure_is_kept_and_the_others_go_on() {
        let mut order = Vec::new();
        let run = Box::new(|subject: &Subject| {
            order.push(subject.name.clone());
            let second = order.iter().filter(|n| **n == subject.name).count() == 2;
            if subject.name == "b" && second {
                return crate::fail("not done in 70 s");
            }
            Ok(Sample::default().with("s", order.len() as f64))
        });
        let done = super::run(Work {
            id: "id".to_owned(),
            title: String::new(),
            notes: Vec::new(),
            metrics: vec![less("s")],
            subjects: vec![Subject::example("a", true), Subject::example("b", false)],
            rounds: Rounds { ours: 4, theirs: 2 },
            run,
        });
        let [a, b] = &done.measured[..] else { panic!("two subjects") };
        assert_eq!((a.samples.len(), a.failures.len()), (4, 0));
        assert_eq!((b.samples.len(), b.failures.len()), (1, 1));
        assert_eq!(done.failures().collect::<Vec<_>>(), ["id: b: not done in 70 s"]);
        // b takes part in the first and the third of four.
        assert_eq!(order, ["a", "b", "a", "a", "b", "a"]);
    }
}
