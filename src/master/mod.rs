//! The master of `-W` and `-Ws`: it starts workers, replaces them on a reload, and holds nothing
//! else.
//!
//! A worker is this program again, with an environment variable that says so and one end of a
//! [`crate::engine::control`] channel as standard input; it reads the configuration, takes over
//! from the workers before it as with `-sf`, and says when it is up or why it is not. A reload
//! that fails leaves the old worker as it was. The master has one thread, reads no configuration
//! and opens nothing but its pid file and its own command line (`-S`), so that there is little to
//! go wrong in the one process that must stay. Called by `main`. Messages, exit codes and
//! datagrams to systemd as HAProxy's (runtime-api.md 4); unlike HAProxy's, the master is not
//! executed anew on a reload: only workers are.
//!
//! | file | what |
//! |---|---|
//! | `workers.rs` | starting them, what they say, how they end |
//! | `cli.rs` | the master's command line: connections, and the way to workers |
//! | `commands.rs` | what the master itself answers there |
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod workers;

use crate::Millis;
use crate::cli::Args;
use crate::cli::load::SystemHost;
use crate::config::{self, CliLevel, StatsSocketSpec};
use crate::engine::Clock;
use crate::engine::notify::Notify;
use crate::engine::process::{Pidfile, Ready};
use crate::observe::log::{Level, stderr_line};
use rustix::process::{Signal, kill_process};
use std::cell::RefCell;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify as Bell, oneshot};
use workers::Worker;

pub use workers::{Configured, Link};

/// What the master needs to know.
pub struct Setup {
    /// The arguments; those of workers are the same words.
    pub args: Args,
    /// Where the arguments were given: workers start there.
    pub directory: PathBuf,
    /// Who waits until we are up.
    pub ready: Option<Ready>,
}

struct Master {
    args: Args,
    directory: PathBuf,
    program: PathBuf,
    started: Millis,
    notify: Notify,
    ready: Option<Ready>,
    pidfile: Option<Pidfile>,
    workers: Vec<Worker>,
    /// Reloads, and those of them that failed since the last good one.
    reloads: u32,
    failed: u32,
    /// Someone asked for a reload during a load; whether a hard one.
    again: Option<bool>,
    /// Who waits for the end of the load, and of the next one.
    waiting: Vec<Waiting>,
    waiting_next: Vec<Waiting>,
    startup_logs: String,
    stopping: bool,
    /// Set when there is nothing left to do.
    exit: Option<i32>,
    code: i32,
    clients: usize,
    /// Where the command line is, for `show cli sockets`.
    sockets: Vec<(String, CliLevel)>,
    /// Rung when `exit` is set.
    over: Rc<Bell>,
}

/// Is told of the success of a load, and what the worker said.
type Waiting = oneshot::Sender<(bool, String)>;
type Shared = Rc<RefCell<Master>>;

/// Runs to the end. Returns the exit code.
pub fn run(setup: Setup) -> u8 {
    let quiet = setup.args.quiet;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.and_then(|runtime| {
        tokio::task::LocalSet::new().block_on(&runtime, async { work(setup).await })
    });
    match ended {
        Ok(code) => code as u8,
        Err(error) => {
            log(quiet, Level::Alert, &format!("Starting the master: {error}."));
            1
        }
    }
}

fn log(quiet: bool, level: Level, text: &str) {
    if !quiet {
        // stderr may be closed; there is nowhere to say so.
        let line = stderr_line(level, std::process::id(), text);
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

async fn work(setup: Setup) -> io::Result<i32> {
    let Setup { args, directory, ready } = setup;
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::hangup(),
        SignalKind::child(),
        SignalKind::quit(),
        SignalKind::from_raw(Signal::TTOU.as_raw()),
        SignalKind::from_raw(Signal::TTIN.as_raw()),
    ];
    let mut signals = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
    let pidfile = args.pidfile.as_deref().map(Pidfile::open).transpose();
    let pidfile = pidfile.map_err(io::Error::other)?;
    let socket = args.master_socket.as_deref().map(master_socket).transpose()?;
    let over = Rc::new(Bell::new());
    let master = Rc::new(RefCell::new(Master {
        directory,
        program: std::env::current_exe()?,
        started: Clock.now(),
        notify: if args.systemd { Notify::from_env() } else { Notify::default() },
        ready,
        pidfile,
        workers: Vec::new(),
        reloads: 0,
        failed: 0,
        again: None,
        waiting: Vec::new(),
        waiting_next: Vec::new(),
        startup_logs: String::new(),
        stopping: false,
        exit: None,
        code: 0,
        clients: 0,
        sockets: Vec::new(),
        over: over.clone(),
        args,
    }));
    if let Some(spec) = socket {
        cli::open(&master, &spec)?;
    }
    workers::load(&master, false);
    let [term, int, usr1, usr2, hup, chld, quit, ttou, ttin] = &mut signals[..] else {
        return Ok(1);
    };
    loop {
        tokio::select! {
            _ = term.recv() => master.borrow_mut().stop(Signal::TERM),
            _ = int.recv() => master.borrow_mut().stop(Signal::INT),
            _ = usr1.recv() => master.borrow_mut().stop(Signal::USR1),
            _ = usr2.recv() => workers::reload(&master, false, None),
            _ = hup.recv() => workers::reload(&master, false, None),
            _ = chld.recv() => workers::reap(&master),
            _ = quit.recv() => {}
            _ = ttou.recv() => master.borrow().tell(Signal::TTOU),
            _ = ttin.recv() => master.borrow().tell(Signal::TTIN),
            () = over.notified() => {}
        }
        let code = master.borrow().exit;
        if let Some(code) = code {
            return Ok(code);
        }
    }
}

/// What `-S` means: an address, and options of a `bind` line behind commas.
fn master_socket(text: &str) -> io::Result<StatsSocketSpec> {
    config::master_socket(text, &SystemHost)
        .map_err(|what| io::Error::other(format!("'-S {text}': {what}")))
}

impl Master {
    fn log(&self, level: Level, text: &str) {
        log(self.args.quiet, level, text);
    }

    /// Sends a signal to all workers.
    fn tell(&self, signal: Signal) {
        for worker in &self.workers {
            // Gone, and not reaped yet.
            let _ = kill_process(worker.pid, signal);
        }
    }

    /// The end: workers first, then we.
    fn stop(&mut self, signal: Signal) {
        if !self.stopping {
            self.stopping = true;
            self.notify.stopping();
            self.log(Level::Warning, "Exiting Master process...");
        }
        self.tell(signal);
        self.leave_when_alone();
    }

    /// Without workers there is nothing left to do.
    fn leave_when_alone(&mut self) {
        if self.workers.is_empty() && self.exit.is_none() {
            // A worker that SIGTERM ended has done as it was told.
            let code = if self.code == 143 { 0 } else { self.code };
            self.log(Level::Warning, &format!("All workers exited. Exiting... ({code})"));
            self.exit = Some(code);
            self.over.notify_one();
        }
    }
}
