//! The load tool's command line.
//!
//! Owns the options. Called by `main`. Rule: the defaults are what the published figures were made
//! with.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::rounds::Rounds;

/// Rounds of most works.
const ROUNDS: usize = 5;
/// Rounds of reloads: a histogram wants many runs, and a HAProxy takes a minute or two for each.
const RELOAD_ROUNDS: Rounds = Rounds { ours: 20, theirs: 3 };

/// A number of rounds.
fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000) => Ok(n),
        _ => Err("a number from 1 to 1000 is expected".to_owned()),
    }
}

/// Measures peers nodes: learn, teach, latency, reload, fan-out and memory, all in one run.
#[derive(Clone, Debug, Parser)]
#[command(name = "stickring-load", args_override_self = true)]
pub struct Options {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
    /// Rounds; in each, every daemon runs once [default: 5; reload: 20].
    #[arg(long, value_name = "N", value_parser = count, global = true)]
    pub rounds: Option<usize>,
    /// Rounds that each HAProxy takes part in, spread over the run [default: as --rounds; reload: 3
    /// at most].
    #[arg(long, value_name = "N", value_parser = count, global = true)]
    pub haproxy_rounds: Option<usize>,
    /// Only subjects whose name has one of these words ("stickring", "3.4"; comma-separated).
    #[arg(long, value_delimiter = ',', global = true)]
    pub only: Vec<String>,
    /// The stickring to measure; default: the one beside this program.
    #[arg(long, global = true)]
    pub stickring: Option<PathBuf>,
    /// Folder of `<version>/haproxy` programs, as tests/setup-haproxy.sh makes it.
    #[arg(long, default_value = "target/haproxy", global = true)]
    pub haproxy_dir: PathBuf,
    /// Threads of each daemon (nbthread).
    #[arg(long, default_value_t = 1, global = true)]
    pub threads: usize,
    /// CPUs of the daemons; default: the first as many as there are threads.
    #[arg(long, value_delimiter = ',', global = true)]
    pub daemon_cpus: Vec<usize>,
    /// CPUs of the generator; default: those the daemons leave free.
    #[arg(long, value_delimiter = ',', global = true)]
    pub generator_cpus: Vec<usize>,
    /// Pin nothing.
    #[arg(long, global = true)]
    pub no_pin: bool,
    /// Keys in ascending order instead of a random one.
    #[arg(long, global = true)]
    pub seq: bool,
    /// Seed of the keys' order.
    #[arg(long, default_value_t = 1, global = true)]
    pub seed: u64,
    /// Seconds after which a single run has failed.
    #[arg(long, default_value_t = 600, global = true)]
    pub limit: u64,
    /// Seconds after which a reload has failed: a HAProxy may never finish one of a large table.
    #[arg(long, default_value_t = 70, global = true)]
    pub reload_limit: u64,
    /// Keep JSON and plots in a dated folder below --results.
    #[arg(long, global = true)]
    pub keep: bool,
    /// Where kept results go.
    #[arg(long, default_value = "perf/results", global = true)]
    pub results: PathBuf,
}

/// How a table is filled.
#[derive(Args, Clone, Debug)]
pub struct Fill {
    /// Updates; default: as many as keys.
    #[arg(long)]
    pub count: Option<u64>,
    /// Distinct keys.
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: u32,
    /// Sessions that push at once.
    #[arg(long, default_value_t = 1)]
    pub sessions: usize,
    /// An explicit update id every so many updates; 1: always.
    #[arg(long, default_value_t = 200)]
    pub batch: u64,
}

/// How fast changes are made.
#[derive(Args, Clone, Debug)]
pub struct Pace {
    /// Changes a second, each a work of its own.
    #[arg(long, value_delimiter = ',', default_value = "1000,50000")]
    pub rates: Vec<f64>,
    /// Seconds of each run.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Changes under way when the highest rate is looked for.
    #[arg(long, default_value_t = 4096)]
    pub window: u64,
}

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Push updates, wait for the last ack, take the table back and compare it.
    Learn(Fill),
    /// Fill, ask for a full resync, compare every entry.
    Teach(Fill),
    /// From a change to its arrival at a peer, from an update to its ack, and the highest rate.
    Latency(Pace),
    /// One source of changes and many peers that receive them.
    Fanout {
        /// How many peers receive, each a work of its own.
        #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
        receivers: Vec<usize>,
        /// Seconds of each run.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// A new process takes over (-sf), and a killed one learns from a peer of its own kind.
    Reload {
        /// Entries, each a work of its own.
        #[arg(long, value_delimiter = ',', default_value = "100000,10000000")]
        keys: Vec<u32>,
    },
    /// Everything, as the published figures are made. Takes an hour or more with several HAProxys.
    All {
        /// Entries of the small tables.
        #[arg(long, default_value_t = 1_000_000)]
        small: u32,
        /// Entries of the large tables.
        #[arg(long, default_value_t = 10_000_000)]
        large: u32,
        /// Seconds of each latency run.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// Resident memory by entries.
    Memory {
        /// Entries, each a work of its own.
        #[arg(long, value_delimiter = ',', default_value = "1000000,10000000")]
        keys: Vec<u32>,
    },
}

impl Options {
    /// The subcommand's name.
    pub fn what(&self) -> &'static str {
        match self.command {
            Command::Learn(_) => "learn",
            Command::Teach(_) => "teach",
            Command::Latency(_) => "latency",
            Command::Fanout { .. } => "fanout",
            Command::Reload { .. } => "reload",
            Command::Memory { .. } => "memory",
            Command::All { .. } => "all",
        }
    }

    /// When a single run has failed.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }

    /// When a reload has failed.
    pub fn reload_limit(&self) -> Duration {
        Duration::from_secs(self.reload_limit)
    }

    /// Rounds of every work but reloads.
    pub fn rounds(&self) -> Rounds {
        let ours = self.rounds.unwrap_or(ROUNDS);
        Rounds { ours, theirs: self.haproxy_rounds.unwrap_or(ours) }
    }

    /// Rounds of reloads: enough of ours for a histogram, and no more of HAProxy's than need be.
    pub fn reload_rounds(&self) -> Rounds {
        let ours = self.rounds.unwrap_or(RELOAD_ROUNDS.ours);
        Rounds { ours, theirs: self.haproxy_rounds.unwrap_or(ours.min(RELOAD_ROUNDS.theirs)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(words: &str) -> [(usize, usize); 2] {
        let words = ["stickring-load"].into_iter().chain(words.split_whitespace());
        let options = Options::try_parse_from(words).expect("known options");
        [options.rounds(), options.reload_rounds()].map(|r| (r.ours, r.theirs))
    }

    #[test]
    fn reloads_have_more_rounds_of_ours_and_fewer_of_haproxy() {
        assert_eq!(rounds("all"), [(5, 5), (20, 3)]);
        assert_eq!(rounds("all --rounds 1"), [(1, 1), (1, 1)]);
        assert_eq!(rounds("reload --rounds 8"), [(8, 8), (8, 3)]);
        assert_eq!(rounds("reload --haproxy-rounds 2"), [(5, 2), (20, 2)]);
        assert_eq!(rounds("learn --rounds 4 --haproxy-rounds 6"), [(4, 6), (4, 6)]);
    }

    #[test]
    fn what_is_said_last_counts() {
        assert_eq!(rounds("all --rounds 2 --haproxy-rounds 1 --rounds 7")[0], (7, 1));
        let words = "stickring-load all --small 5 --seconds 1 --small 6 --seconds 2".split(' ');
        let options = Options::try_parse_from(words).expect("known options");
        let Command::All { small, seconds, .. } = options.command else { panic!("all") };
        assert_eq!((small, seconds), (6, 2.0));
    }

    #[test]
    fn no_rounds_are_refused() {
        for words in ["--rounds=0", "--haproxy-rounds=0", "--rounds=x"] {
            assert!(Options::try_parse_from(["stickring-load", "all", words]).is_err(), "{words}");
        }
    }
}
