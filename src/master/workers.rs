//! See [`super`]: workers, from their start to their end.

use super::{Master, Shared, Waiting};
use crate::Millis;
use crate::cli::OldProcesses;
use crate::engine::Clock;
use crate::engine::control::{self, Channel};
use crate::engine::process::{self, Pidfile};
use crate::limits::WORKERS_MAX;
use crate::observe::log::Level;
use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;

/// Set in the environment of a worker: [`AS_GIVEN`], or `-sf` or `-st` and the pids of the workers
/// that it takes over from.
const WORKER_MARK: &str = "STICKRING_WORKER";
/// The first worker takes over from whomever the arguments name.
const AS_GIVEN: &str = "as-given";

/// What a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has not said yet that it is up.
    Loading,
    /// It does the work.
    Current,
    /// Another one does the work, and this one hands over and leaves.
    Former,
}

pub(super) struct Worker {
    pub(super) pid: Pid,
    pub(super) state: State,
    pub(super) started: Millis,
    /// Reloads since it was started.
    pub(super) reloads: u32,
    /// Those of them that brought a successor.
    outlived: u32,
    /// Set when it was told to leave because that was more than this many.
    exceeds: Option<u32>,
    pub(super) channel: Rc<Channel>,
    child: Child,
}

/// A worker's end of the channel, and what the master told it.
#[derive(Debug)]
pub struct Link {
    end: OwnedFd,
    /// The processes to take over from, when those are others than the arguments name.
    pub old: Option<OldProcesses>,
}

impl Link {
    /// `Some`: this process is a worker.
    pub fn from_env() -> io::Result<Option<Link>> {
        let Ok(mark) = std::env::var(WORKER_MARK) else { return Ok(None) };
        let end = process::take_stdin()?;
        let mut words = mark.split_whitespace();
        let terminate = match words.next() {
            Some("-sf") => false,
            Some("-st") => true,
            _ => return Ok(Some(Link { end, old: None })),
        };
        let pids = words.filter_map(|pid| pid.parse().ok()).collect();
        Ok(Some(Link { end, old: Some(OldProcesses { pids, terminate }) }))
    }

    /// Tells the master that we are up, and what was said.
    pub fn up(&self, configured: &Configured<'_>, logs: &str) {
        // A master that is gone is noticed by whoever reads the other messages.
        let _ = control::send(&self.end, configured.message(logs).as_bytes(), None);
    }

    /// Tells the master what was said before the end.
    pub fn failed(&self, logs: &str) {
        let _ = control::send(&self.end, format!("failed\n{logs}").as_bytes(), None);
    }

    /// Another descriptor of our end, to listen at.
    pub fn end(&self) -> io::Result<OwnedFd> {
        self.end.try_clone()
    }
}

/// What the configuration says that the master, which does not read it, must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configured<'a> {
    /// Where the pid file is.
    pub pidfile: Option<&'a str>,
    /// `mworker-max-reloads`.
    pub max_reloads: Option<u32>,
}

impl<'a> Configured<'a> {
    fn message(&self, logs: &str) -> String {
        let max_reloads = self.max_reloads.map(|n| n.to_string()).unwrap_or_default();
        format!("up\n{}\n{max_reloads}\n{logs}", self.pidfile.unwrap_or_default())
    }

    /// From what stands behind `up`, with the rest of it.
    fn read(message: &'a str) -> (Configured<'a>, &'a str) {
        let (pidfile, rest) = message.split_once('\n').unwrap_or((message, ""));
        let (max_reloads, logs) = rest.split_once('\n').unwrap_or((rest, ""));
        let pidfile = (!pidfile.is_empty()).then_some(pidfile);
        (Configured { pidfile, max_reloads: max_reloads.parse().ok() }, logs)
    }
}

/// SIGUSR2 and its like. During a load, the next one follows it. `waiting` is told how it went.
pub(super) fn reload(master: &Shared, hard: bool, waiting: Option<Waiting>) {
    let mut inner = master.borrow_mut();
    if inner.stopping {
        return;
    }
    inner.waiting_next.extend(waiting);
    if inner.workers.iter().any(|w| w.state == State::Loading) {
        inner.again = Some(hard || inner.again == Some(true));
        return;
    }
    inner.log(Level::Notice, "Reloading stickring");
    inner.notify.reloading();
    inner.reloads += 1;
    inner.workers.iter_mut().for_each(|w| w.reloads += 1);
    inner.waiting = std::mem::take(&mut inner.waiting_next);
    drop(inner);
    load(master, hard);
}

/// Starts a worker, which takes over from those there are. `hard`: they leave without handing over.
pub(super) fn load(master: &Shared, hard: bool) {
    let mut inner = master.borrow_mut();
    if inner.workers.len() >= WORKERS_MAX {
        let text = format!("{} workers are still there, not starting another one.", WORKERS_MAX);
        inner.log(Level::Alert, &text);
        return inner.load_failed(String::new());
    }
    match inner.spawn(hard) {
        Ok(worker) => {
            let pid = worker.pid;
            let channel = worker.channel.clone();
            inner.log(Level::Notice, &format!("Initializing new worker ({pid})"));
            inner.workers.push(worker);
            drop(inner);
            tokio::task::spawn_local(listen(master.clone(), pid, channel));
        }
        Err(error) => {
            inner.log(Level::Alert, &format!("cannot start a worker: {error}."));
            inner.load_failed(String::new());
            inner.code = 1;
            inner.leave_when_alone();
        }
    }
}

async fn listen(master: Shared, pid: Pid, channel: Rc<Channel>) {
    while let Ok(Some(received)) = channel.receive().await {
        heard(&master, pid, &received.bytes);
    }
}

fn heard(master: &Shared, pid: Pid, message: &[u8]) {
    let message = String::from_utf8_lossy(message);
    let (word, rest) = message.split_once('\n').unwrap_or((&message, ""));
    let mut inner = master.borrow_mut();
    let loads = inner.workers.iter().any(|w| w.pid == pid && w.state == State::Loading);
    if !loads {
        return;
    }
    if word != "up" {
        inner.startup_logs = rest.to_owned();
        return;
    }
    let (configured, logs) = Configured::read(rest);
    inner.loaded(pid, configured, logs);
    if let Some(hard) = inner.again.take() {
        drop(inner);
        reload(master, hard, None);
    }
}

/// Collects whoever has ended.
pub(super) fn reap(master: &Shared) {
    loop {
        let mut inner = master.borrow_mut();
        let mut ended = None;
        for (at, worker) in inner.workers.iter_mut().enumerate() {
            if let Ok(Some(status)) = worker.child.try_wait() {
                ended = Some((at, status));
                break;
            }
        }
        let Some((at, status)) = ended else { return };
        let (pid, channel) = (inner.workers[at].pid, inner.workers[at].channel.clone());
        drop(inner);
        // Its last words may not have been read.
        while let Some(received) = channel.take() {
            heard(master, pid, &received.bytes);
        }
        let mut inner = master.borrow_mut();
        let Some(at) = inner.workers.iter().position(|w| w.pid == pid) else { return };
        let worker = inner.workers.remove(at);
        inner.ended(&worker, status);
        if worker.state == State::Loading
            && let Some(hard) = inner.again.take()
        {
            drop(inner);
            reload(master, hard, None);
        }
    }
}

impl Master {
    fn spawn(&self, hard: bool) -> io::Result<Worker> {
        let (ours, theirs) = control::pair()?;
        // The current one first: it is the one that may hand over at once.
        let mut old: Vec<&Worker> = self.workers.iter().collect();
        old.sort_by_key(|w| w.state != State::Current);
        let pids: Vec<String> = old.iter().map(|w| w.pid.to_string()).collect();
        let mark = match (self.reloads, hard) {
            (0, _) => AS_GIVEN.to_owned(),
            (_, false) => format!("-sf {}", pids.join(" ")),
            (_, true) => format!("-st {}", pids.join(" ")),
        };
        let mut command = Command::new(&self.program);
        command.args(std::env::args_os().skip(1)).current_dir(&self.directory);
        command
            .env(WORKER_MARK, mark)
            .env_remove("NOTIFY_SOCKET")
            .env_remove(process::DAEMON_MARK)
            .stdin(Stdio::from(theirs));
        let child = command.spawn()?;
        let raw = i32::try_from(child.id()).map_err(io::Error::other)?;
        let pid = Pid::from_raw(raw).ok_or(io::ErrorKind::InvalidData)?;
        let channel = Rc::new(Channel::new(ours)?);
        let (started, state) = (Clock.now(), State::Loading);
        Ok(Worker { pid, state, started, reloads: 0, outlived: 0, exceeds: None, channel, child })
    }

    /// A worker is up: it is the current one.
    fn loaded(&mut self, pid: Pid, configured: Configured<'_>, logs: &str) {
        for worker in &mut self.workers {
            match worker.state {
                State::Loading if worker.pid == pid => worker.state = State::Current,
                State::Current => worker.state = State::Former,
                _ => {}
            }
        }
        self.end_who_stays(configured.max_reloads);
        self.failed = 0;
        self.log(Level::Notice, "Loading success.");
        self.startup_logs = logs.to_owned();
        let own = self.pidfile.take().map(Ok);
        let configured = configured.pidfile.filter(|_| self.args.pidfile.is_none());
        let configured = configured.map(Pidfile::open);
        if let Some(file) = own.or(configured)
            && let Err(error) = file.and_then(Pidfile::write)
        {
            self.log(Level::Alert, &format!("{error}."));
        }
        self.notify.ready();
        // Whoever started us may be gone.
        let _ = self.ready.take().map(process::Ready::tell);
        self.answer(true);
    }

    /// `mworker-max-reloads`, once a successor is up: workers that it outlived more often than that
    /// leave at once. Unlike with HAProxy reloads that failed do not count: nobody was there to
    /// hand over to.
    fn end_who_stays(&mut self, max: Option<u32>) {
        for worker in self.workers.iter_mut().filter(|w| w.state == State::Former) {
            worker.outlived = worker.outlived.saturating_add(1);
            if max.is_some_and(|max| worker.outlived > max) {
                worker.exceeds = max;
                // Gone, and not reaped yet.
                let _ = kill_process(worker.pid, Signal::TERM);
            }
        }
    }

    fn load_failed(&mut self, logs: String) {
        self.failed += 1;
        self.log(Level::Warning, "Loading failure!");
        if !logs.is_empty() {
            self.startup_logs = logs;
        }
        if self.workers.iter().any(|w| w.state == State::Current) {
            self.notify.reload_failed();
        }
        self.answer(false);
    }

    fn answer(&mut self, success: bool) {
        for waiting in self.waiting.drain(..) {
            // Its connection may be gone.
            let _ = waiting.send((success, self.startup_logs.clone()));
        }
    }

    /// A worker has ended.
    fn ended(&mut self, worker: &Worker, status: ExitStatus) {
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let mut how = format!("({}) exited with code {code} ({})", worker.pid, name_of(code));
        let mut level = if code == 0 { Level::Warning } else { Level::Alert };
        if let Some(max) = worker.exceeds.filter(|_| code == 143) {
            how += &format!(", as it exceeds max reloads ({max})");
            level = Level::Warning;
        }
        let loading = self.workers.iter().any(|w| w.state == State::Loading);
        match worker.state {
            State::Loading => {
                self.log(Level::Alert, &format!("New worker {how}"));
                self.load_failed(String::new());
                self.code = code;
            }
            // It has given everything to the one that is loading, which will say so.
            State::Current if loading && code == 0 && !self.stopping => {
                self.log(level, &format!("Former worker {how}"));
                self.code = 0;
            }
            State::Former => self.log(level, &format!("Former worker {how}")),
            State::Current => {
                self.log(level, &format!("Current worker {how}"));
                self.code = code;
                if !self.stopping && ![0, 130, 143].contains(&code) {
                    self.stopping = true;
                    let text = "exit-on-failure: killing every processes with SIGTERM";
                    self.log(Level::Alert, text);
                    self.tell(Signal::TERM);
                }
            }
        }
        self.leave_when_alone();
    }

    /// The worker that `@1` means.
    pub(super) fn current(&self) -> Option<&Worker> {
        self.workers.iter().find(|w| w.state == State::Current)
    }
}

/// What an exit code means, in HAProxy's words.
fn name_of(code: i32) -> &'static str {
    match code {
        129 => "Hangup",
        130 => "Interrupt",
        131 => "Quit",
        134 => "Aborted",
        135 => "Bus error",
        137 => "Killed",
        139 => "Segmentation fault",
        143 => "Terminated",
        159 => "Bad system call",
        128.. => "Signal",
        _ => "Exit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_master_reads_what_the_worker_says() {
        let full = Configured { pidfile: Some("/run/x y"), max_reloads: Some(3) };
        for configured in [full, Configured::default()] {
            for logs in ["", "one\n\ntwo\n"] {
                let message = configured.message(logs);
                let rest = message.strip_prefix("up\n").unwrap();
                assert_eq!(Configured::read(rest), (configured, logs), "{message:?}");
            }
        }
        assert_eq!(Configured::read(""), (Configured::default(), ""));
    }
}
