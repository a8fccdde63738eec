//! The works by name: what each subcommand measures, with whom, and which figures it shows.
//!
//! Owns the subjects and the CPUs of a run. Called by `main`. Rule: a work's title and notes say
//! all that a reader of the figures must know.

use crate::daemon::{Setup, Subject};
use crate::fill::{self, Push, metric};
use crate::keys::Keys;
use crate::model::{Model, Origin};
use crate::options::{Command, Fill, Options};
use crate::report::number;
use crate::rounds::{Work, less, more};
use crate::{Outcome, fail, pin};

/// Curves that samples may have, with the names of their axes.
pub const CURVES: &[(&str, (&str, &str))] =
    &[("latency by percentile", ("1 / (1 - percentile)", "microseconds"))];

/// What is there to measure with.
pub struct Lab {
    /// HAProxy oldest first, then stickring.
    pub subjects: Vec<Subject>,
    /// CPUs of the daemons; none: not pinned.
    pub daemon_cpus: Vec<usize>,
    /// CPUs of the generator; none: not pinned.
    pub generator_cpus: Vec<usize>,
    keys: Keys,
}

impl Lab {
    /// Finds programs and CPUs.
    pub fn new(options: &Options) -> Outcome<Lab> {
        let beside = std::env::current_exe()?.with_file_name("stickring");
        let mut subjects = Subject::haproxies(&options.haproxy_dir);
        if subjects.is_empty() {
            eprintln!("stickring-load: no HAProxy found; tests/setup-haproxy.sh sets some up");
        }
        subjects.push(Subject::stickring(options.stickring.as_deref().unwrap_or(&beside))?);
        let wanted = |s: &Subject| {
            options.only.is_empty() || options.only.iter().any(|w| s.name.contains(w.as_str()))
        };
        subjects.retain(wanted);
        if subjects.is_empty() {
            return fail("no daemon is left by --only");
        }
        let names = subjects.iter().map(|s| format!("{} ({})", s.name, s.version));
        println!("measuring: {}", names.collect::<Vec<_>>().join(", "));
        let (daemon_cpus, generator_cpus) = cpus(options);
        let keys = if options.seq { Keys::sequential() } else { Keys::random(options.seed) };
        Ok(Lab { subjects, daemon_cpus, generator_cpus, keys })
    }

    fn setup(&self, options: &Options, keys: u32) -> Setup {
        Setup::new(keys, options.threads, &self.daemon_cpus)
    }

    /// The works of the subcommand.
    pub fn works<'a>(&'a self, options: &'a Options) -> Outcome<Vec<Work<'a>>> {
        Ok(match &options.command {
            Command::Learn(fill) => vec![self.learn(options, fill)],
            Command::Teach(fill) => vec![self.teach(options, fill)],
            Command::Memory { keys } => keys.iter().map(|k| self.memory(options, *k)).collect(),
        })
    }

    fn filling<'a>(&'a self, options: &'a Options, fill: &Fill, id: &str) -> Work<'a> {
        let updates = fill.count.unwrap_or(u64::from(fill.keys));
        let model = Model { order: self.keys, keys: fill.keys, updates, origin: Origin::Peer };
        let push = Push { sessions: fill.sessions, batch: fill.batch, limit: options.limit() };
        let order = if options.seq { "keys in order" } else { "random keys" };
        let ids =
            if fill.batch == 1 { "every update".into() } else { format!("1 of {}", fill.batch) };
        let overwrite = if updates > u64::from(fill.keys) { "-overwrite" } else { "" };
        let sessions =
            if fill.sessions > 1 { format!("-{}s", fill.sessions) } else { String::new() };
        let threads =
            if options.threads > 1 { format!("-{}t", options.threads) } else { String::new() };
        let short = short(fill.keys);
        Work {
            id: format!("{id}-{short}{overwrite}{sessions}{threads}"),
            title: format!(
                "{} updates over {} {order}, {} session(s), ids in {ids}, {} thread(s)",
                number(updates as f64),
                number(f64::from(fill.keys)),
                fill.sessions,
                options.threads
            ),
            notes: vec![
                "Each table was taken back by a full resync and equals the model.".to_owned(),
            ],
            metrics: Vec::new(),
            subjects: self.subjects.clone(),
            run: Box::new(move |subject| {
                fill::run(subject, &self.setup(options, model.keys), &model, &push)
            }),
        }
    }

    fn learn<'a>(&'a self, options: &'a Options, fill: &Fill) -> Work<'a> {
        let metrics = vec![
            more(metric::LEARN),
            less(metric::LEARN_CPU),
            less(metric::LEARN_WALL),
            less(metric::RSS),
        ];
        Work { metrics, ..self.filling(options, fill, "learn") }
    }

    fn teach<'a>(&'a self, options: &'a Options, fill: &Fill) -> Work<'a> {
        let metrics = vec![
            more(metric::TEACH),
            less(metric::TEACH_CPU),
            less(metric::TEACH_WALL),
            less(metric::TEACH_FIRST),
        ];
        let mut work = Work { metrics, ..self.filling(options, fill, "teach") };
        if let Some(newest) = self.subjects.iter().rfind(|s| !s.ours) {
            let at = work.subjects.iter().position(|s| s.ours).unwrap_or(work.subjects.len());
            work.subjects.insert(at, newest.tuned());
        }
        work.notes.push("tuned: tune.bufsize 131072, 10000 updates at once".to_owned());
        work
    }

    fn memory<'a>(&'a self, options: &'a Options, keys: u32) -> Work<'a> {
        let fill = Fill { count: None, keys, sessions: 1, batch: 200 };
        let metrics = vec![less(metric::RSS), less(metric::GROWTH), less(metric::HUGE)];
        let mut work = Work { metrics, ..self.filling(options, &fill, "memory") };
        work.notes.push("RSS: all of the process; growth: by the entries alone".to_owned());
        work
    }
}

/// A count for file names: 10k, 1m, 12345.
fn short(n: u32) -> String {
    match n {
        n if n.is_multiple_of(1_000_000) => format!("{}m", n / 1_000_000),
        n if n.is_multiple_of(1_000) => format!("{}k", n / 1_000),
        n => n.to_string(),
    }
}

/// CPUs of daemons and generator.
fn cpus(options: &Options) -> (Vec<usize>, Vec<usize>) {
    let allowed = pin::allowed();
    if options.no_pin || allowed.len() < 2 {
        return (Vec::new(), Vec::new());
    }
    let mut daemon = options.daemon_cpus.clone();
    if daemon.is_empty() {
        daemon.extend(allowed.iter().take(options.threads));
    }
    let mut generator = options.generator_cpus.clone();
    if generator.is_empty() {
        generator.extend(allowed.iter().filter(|c| !daemon.contains(c)));
    }
    if generator.is_empty() {
        // As many threads as CPUs: the generator shares the last one.
        generator.extend(allowed.last());
    }
    (daemon, generator)
}
