//! `stickring-load`: measures peers nodes, stickring against every HAProxy found, in one run.
//!
//! One subcommand a question (`learn`, `teach`, `latency`, `reload`, `fanout`, `memory`, or `all`).
//! Each starts the daemons itself on loopback, gives all of them the same work in interleaved
//! rounds, checks every table against its model, and prints medians, spreads and ratios; JSON and
//! plots go to `perf/results/`. `perf/README.md` says how to repeat it and what the figures mean.
//!
//! Rule: exit code 0 only when every run of every daemon succeeded and every table was right.

#![allow(clippy::disallowed_methods, reason = "a load tool reads clocks and waits")]

mod daemon;
mod fill;
mod keys;
mod latency;
mod model;
mod options;
mod peer;
mod percentiles;
mod pin;
mod plot;
mod reload;
mod report;
mod rounds;
mod usage;
mod works;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser as _;

/// What may go wrong here is only ever told to a person.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A failure in words.
pub fn fail<T>(what: impl Into<String>) -> Outcome<T> {
    Err(what.into().into())
}

fn run(options: &options::Options) -> Outcome<bool> {
    let lab = works::Lab::new(options)?;
    pin::this_thread(&lab.generator_cpus);
    let mut results = Vec::new();
    let (mut text, mut good) = (String::new(), true);
    let folder = options.keep.then(|| report::folder(&options.results, options.what()));
    let folder = folder.transpose()?;
    // Where things lie on this machine is nobody's business.
    let nowhere = std::path::PathBuf::new;
    let (haproxy_dir, results_dir) = (nowhere(), nowhere());
    let shown = options::Options { stickring: None, haproxy_dir, ..options.clone() };
    let shown = options::Options { results: results_dir, ..shown };
    for work in lab.works(options) {
        let done = rounds::run(work);
        let table = report::table(&done);
        println!("{table}");
        text.push_str(&table);
        text.push('\n');
        good &= done.failures().next().is_none();
        results.push(report::json(&done));
        let Some(folder) = &folder else { continue };
        plot::all(&done, folder)?;
        // Written behind each work, so that a run that is ended early has kept something.
        let all = serde_json::json!({
            "date": report::date(),
            "command": options.what(),
            "options": format!("{shown:?}"),
            "machine": report::machine(&lab.daemon_cpus, &lab.generator_cpus),
            "works": results,
        });
        std::fs::write(folder.join("result.json"), serde_json::to_string_pretty(&all)? + "\n")?;
        std::fs::write(folder.join("table.txt"), &text)?;
    }
    if let Some(folder) = folder {
        println!("kept in {}", folder.display());
    }
    Ok(good)
}

fn main() -> ExitCode {
    match run(&options::Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("stickring-load: some runs FAILED, see above");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("stickring-load: {e}");
            ExitCode::from(2)
        }
    }
}
