//! The works by name: what each subcommand measures, with whom, and which figures it shows.
//!
//! Owns the subjects and the CPUs of a run. Called by `main`. Rule: a work's title and notes say
//! all that a reader of the figures must know.

use crate::daemon::{Setup, Subject, Variant};
use crate::fill::{self, Push, metric};
use crate::keys::Keys;
use crate::latency::metric::{MAX, P50, P90, P99, P999};
use crate::latency::{self, Change, Plan};
use crate::model::{Model, Origin};
use crate::options::{Command, Fill, Options, Pace};
use crate::reload;
use crate::report::number;
use crate::rounds::{Metric, Work, less, more};
use crate::{Outcome, fail, pin};

/// Curves by percentile that samples may have, with their unit.
pub const CURVES: [(&str, &str); 1] = [("latency by percentile", "microseconds")];

/// Said of every work, because it is true of every work.
const CHECKED: &str = "Each table was taken back by a full resync and equals the model.";
/// Said of reloads.
const FROM_START: &str = "From the start of the new process on.";

/// What is there to measure with.
pub struct Lab {
    /// HAProxy oldest first, then stickring.
    pub subjects: Vec<Subject>,
    /// CPUs of the daemons; none: not pinned.
    pub daemon_cpus: Vec<usize>,
    /// CPUs of the generator; none: not pinned.
    pub generator_cpus: Vec<usize>,
    /// All CPUs this process might use when it began: later it has pinned itself to some of them.
    allowed: Vec<usize>,
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
        let allowed = pin::allowed();
        let (daemon_cpus, generator_cpus) = cpus(&allowed, options, options.threads);
        let keys = if options.seq { Keys::sequential() } else { Keys::random(options.seed) };
        Ok(Lab { subjects, daemon_cpus, generator_cpus, allowed, keys })
    }

    /// The works of the subcommand.
    pub fn works<'a>(&'a self, options: &'a Options) -> Vec<Work<'a>> {
        let mut works = self.named(options);
        works.retain(|w| !w.subjects.is_empty());
        works
    }

    fn named<'a>(&'a self, options: &'a Options) -> Vec<Work<'a>> {
        match &options.command {
            Command::Learn(fill) => vec![self.learn(options, fill, options.threads)],
            Command::Teach(fill) => vec![self.teach(options, fill)],
            Command::Latency(pace) => self.latency(options, pace),
            Command::Fanout { receivers, seconds } => self.fanout(options, receivers, *seconds),
            Command::Reload { keys } => {
                keys.iter().flat_map(|k| self.reload(options, *k)).collect()
            }
            Command::Memory { keys } => keys.iter().map(|k| self.memory(options, *k)).collect(),
            Command::All { small, large, seconds } => self.all(options, *small, *large, *seconds),
        }
    }

    /// Everything, the quick ones first.
    fn all<'a>(
        &'a self,
        options: &'a Options,
        small: u32,
        large: u32,
        seconds: f64,
    ) -> Vec<Work<'a>> {
        let plain = |keys| Fill { count: None, keys, sessions: 1, batch: 200 };
        let pace = Pace { rates: vec![1_000.0, 50_000.0], seconds, window: 4096 };
        let over = Fill { count: Some(u64::from(small) * 10), ..plain(small) };
        let mut works = vec![
            self.learn(options, &plain(small), 1),
            self.learn(options, &Fill { batch: 1, ..plain(small) }, 1),
            self.learn(options, &over, 1),
        ];
        works.extend(self.latency(options, &pace));
        works.extend(self.fanout(options, &[1, 4, 16], seconds));
        works.extend(self.reload(options, small / 10));
        // Filling large tables is what takes HAProxy long: one filling, all of its figures.
        let mut whole = self.learn(options, &plain(large), 1);
        let more_figures = [more(metric::TEACH), less(metric::TEACH_CPU), less(metric::GROWTH)];
        whole.metrics.extend(more_figures.map(Metric::plotted));
        whole.metrics.push(more(metric::HUGE));
        works.push(whole);
        works.push(self.learn(options, &Fill { sessions: 2, ..plain(large) }, 2));
        let mut teach = self.teach(options, &plain(large));
        let newest = self.subjects.iter().rfind(|s| !s.ours).map(|s| s.name.clone());
        let wanted = |s: &Subject| s.ours || s.variant == Variant::Tuned;
        teach.subjects.retain(|s| wanted(s) || newest.as_ref() == Some(&s.name));
        works.push(teach);
        works.extend(self.reload(options, large));
        works
    }

    fn setup(&self, options: &Options, keys: u32, threads: usize) -> Setup {
        let (daemon, _) = cpus(&self.allowed, options, threads);
        Setup::new(keys, threads, &daemon)
    }

    fn filling<'a>(
        &'a self,
        options: &'a Options,
        fill: &Fill,
        threads: usize,
        id: &str,
    ) -> Work<'a> {
        let updates = fill.count.unwrap_or(u64::from(fill.keys));
        let model = Model { order: self.keys, keys: fill.keys, updates, origin: Origin::Peer };
        let push = Push { sessions: fill.sessions, batch: fill.batch, limit: options.limit() };
        let (each, of) = (fill.batch == 1, format!("1 of {}", fill.batch));
        let ids = if each { "every update" } else { &of };
        let mut name = format!("{id}-{}", short(fill.keys));
        for (when, what) in [
            (updates > u64::from(fill.keys), "-overwrite".to_owned()),
            (each, "-ids".to_owned()),
            (options.seq, "-seq".to_owned()),
            (fill.sessions > 1, format!("-{}s", fill.sessions)),
            (threads > 1, format!("-{threads}t")),
        ] {
            name.push_str(if when { &what } else { "" });
        }
        Work {
            id: name,
            title: format!(
                "{} updates over {} {}, {} session(s), ids in {ids}, {threads} thread(s)",
                number(updates as f64),
                number(f64::from(fill.keys)),
                if options.seq { "keys in order" } else { "random keys" },
                fill.sessions,
            ),
            notes: vec![CHECKED.to_owned()],
            metrics: Vec::new(),
            subjects: self.subjects.clone(),
            rounds: options.rounds(),
            run: Box::new(move |subject| {
                fill::run(subject, &self.setup(options, model.keys, threads), &model, &push)
            }),
        }
    }

    fn learn<'a>(&'a self, options: &'a Options, fill: &Fill, threads: usize) -> Work<'a> {
        let metrics = vec![
            more(metric::LEARN).plotted(),
            less(metric::LEARN_CPU).plotted(),
            less(metric::LEARN_WALL),
            less(metric::RSS),
        ];
        Work { metrics, ..self.filling(options, fill, threads, "learn") }
    }

    fn teach<'a>(&'a self, options: &'a Options, fill: &Fill) -> Work<'a> {
        let metrics = vec![
            more(metric::TEACH).plotted(),
            less(metric::TEACH_CPU).plotted(),
            less(metric::TEACH_WALL),
            less(metric::TEACH_FIRST),
        ];
        let mut work = Work { metrics, ..self.filling(options, fill, options.threads, "teach") };
        if let Some(newest) = self.subjects.iter().rfind(|s| !s.ours) {
            let at = work.subjects.iter().position(|s| s.ours).unwrap_or(work.subjects.len());
            work.subjects.insert(at, newest.with(Variant::Tuned));
        }
        work.notes.push("tuned: tune.bufsize 131072, 10000 updates at once".to_owned());
        work
    }

    fn memory<'a>(&'a self, options: &'a Options, keys: u32) -> Work<'a> {
        let fill = Fill { count: None, keys, sessions: 1, batch: 200 };
        let metrics = vec![less(metric::RSS).plotted(), less(metric::GROWTH), more(metric::HUGE)];
        let mut work = Work { metrics, ..self.filling(options, &fill, options.threads, "memory") };
        work.notes.push("RSS: all of the process; growth: by the entries alone".to_owned());
        work
    }

    fn changes<'a>(&'a self, options: &'a Options, id: String, plan: Plan) -> Work<'a> {
        let pace = match plan.rate {
            Some(rate) => format!("{} a second", number(rate)),
            None => format!("as fast as it goes with {} under way", plan.window),
        };
        let (what, until) = match plan.change {
            Change::Command => ("`set table` on the stats socket", "its arrival"),
            Change::Update => ("an update", "its ack"),
        };
        let receivers = plan.receivers;
        let mut metrics = vec![more(latency::metric::RATE)];
        metrics[0].plotted = plan.rate.is_none();
        metrics.extend((receivers > 1).then_some(more(latency::metric::DELIVERED)));
        // How long one of thousands under way takes says only how many there are.
        let times = [P50, P90, P99, P999, MAX].map(less);
        metrics.extend(times.into_iter().filter(|_| plan.rate.is_some()));
        metrics.push(less(latency::metric::CPU));
        Work {
            id,
            title: format!("{what} to {until} at {receivers} peer(s), {pace}"),
            notes: vec![
                CHECKED.to_owned(),
                format!("Counted from when each was due; {} s a run.", plan.seconds),
            ],
            metrics,
            subjects: self.subjects.clone(),
            rounds: options.rounds(),
            run: Box::new(move |subject| {
                latency::run(subject, &self.setup(options, 0, options.threads), self.keys, &plan)
            }),
        }
    }

    fn latency<'a>(&'a self, options: &'a Options, pace: &Pace) -> Vec<Work<'a>> {
        let Pace { seconds, window, .. } = *pace;
        let mut works = Vec::new();
        for (change, name) in [(Change::Command, "arrival"), (Change::Update, "ack")] {
            for rate in &pace.rates {
                let plan = Plan { change, rate: Some(*rate), seconds, window, receivers: 1 };
                works.push(self.changes(options, format!("{name}-{}", short(*rate as u32)), plan));
            }
        }
        let plan = Plan { change: Change::Command, rate: None, seconds, window, receivers: 1 };
        works.push(self.changes(options, "arrival-highest".to_owned(), plan));
        works
    }

    fn fanout<'a>(
        &'a self,
        options: &'a Options,
        receivers: &[usize],
        seconds: f64,
    ) -> Vec<Work<'a>> {
        let change = Change::Command;
        let of = |receivers: usize| {
            let plan = Plan { change, rate: None, seconds, window: 4096, receivers };
            self.changes(options, format!("fanout-{receivers}"), plan)
        };
        receivers.iter().map(|r| of(*r)).collect()
    }

    fn reload<'a>(&'a self, options: &'a Options, keys: u32) -> [Work<'a>; 2] {
        let (threads, limit) = (options.threads, options.reload_limit());
        let push = Push { sessions: 1, batch: 200, limit: options.limit() };
        let model = Model::once(self.keys, keys, Origin::Peer);
        let entries = number(f64::from(keys));
        let rounds = options.reload_rounds();
        let mut both = self.subjects.clone();
        both.extend(self.subjects.iter().filter(|s| s.ours).map(|s| s.with(Variant::ByProtocol)));
        let handover = Work {
            id: format!("handover-{}", short(keys)),
            title: format!("-sf with {entries} entries, old to new"),
            notes: vec![
                CHECKED.to_owned(),
                format!("{FROM_START} Not done within {} s: failed.", options.reload_limit),
                format!("{} peer sessions are there before.", reload::SESSIONS),
                "by protocol: `instant-reload off`, the old process teaches the new one."
                    .to_owned(),
            ],
            metrics: vec![
                less(reload::WHOLE).plotted().histogram(),
                less(reload::OLD_GONE),
                more(reload::KEPT),
                less(reload::CPU),
            ],
            subjects: both,
            rounds,
            run: Box::new(move |subject| {
                let setup = self.setup(options, keys, threads);
                reload::hand_over(subject, &setup, &model, &push, limit)
            }),
        };
        let relearn = Work {
            id: format!("relearn-{}", short(keys)),
            title: format!(
                "a killed node starts again and learns {entries} entries from a peer of its kind"
            ),
            notes: vec![CHECKED.to_owned(), FROM_START.to_owned()],
            metrics: vec![less(reload::WHOLE).plotted().histogram(), less(reload::CPU)],
            subjects: self.subjects.clone(),
            rounds,
            run: Box::new(move |subject| {
                let setup = self.setup(options, keys, threads);
                reload::relearn(subject, &setup, &self.generator_cpus, &model, &push, limit)
            }),
        };
        [handover, relearn]
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
fn cpus(allowed: &[usize], options: &Options, threads: usize) -> (Vec<usize>, Vec<usize>) {
    if options.no_pin || allowed.len() < 2 {
        return (Vec::new(), Vec::new());
    }
    let mut daemon = options.daemon_cpus.clone();
    if daemon.is_empty() {
        daemon.extend(allowed.iter().take(threads));
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn a_pinned_generator_leaves_the_daemon_its_own_cpu() {
        let options = Options::try_parse_from(["stickring-load", "learn"]).expect("options");
        let allowed = pin::allowed();
        let (daemon_cpus, generator_cpus) = cpus(&allowed, &options, 1);
        let lab = Lab {
            subjects: Vec::new(),
            daemon_cpus: daemon_cpus.clone(),
            generator_cpus: generator_cpus.clone(),
            allowed: allowed.clone(),
            keys: Keys::sequential(),
        };
        let setup = pin::on(&generator_cpus, || lab.setup(&options, 0, 1));
        assert_eq!(setup.cpus, daemon_cpus);
        assert_eq!(setup.cpus.is_empty(), allowed.len() < 2);
        assert!(generator_cpus.iter().all(|c| !setup.cpus.contains(c)));
    }
}
