//! The master's command line (`-S`): `show proc`, `reload`, and the way to its workers.
//!
//! One line of commands behind `;` and the end, or a prompt, as on a worker's stats socket.
//! `@1 COMMAND` and `@!PID COMMAND` go to a worker, over a stream of their own that the worker gets
//! through the channel; its answer passes by here without being looked at.

use super::workers::State;
use super::{Master, Shared, workers};
use crate::Millis;
use crate::config::{CliLevel, StatsSocketSpec};
use crate::engine::Clock;
use crate::engine::control::stream_pair;
use crate::engine::socket::{Fresh, Listener, Others, listen};
use crate::limits::{ACCEPT_PAUSE_MS, BUFSIZE_DEFAULT, CLI_READ, MASTER_CLI_MAX, MASTER_CLI_MS};
use crate::observe::log::Level;
use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

/// Commands and what they do.
const COMMANDS: &[(&str, &str)] = &[
    ("@!<pid>", "send a command to the <pid> process"),
    ("@<relative pid>", "send a command to the <relative pid> process"),
    ("@master", "send a command to the master process"),
    ("hard-reload", "achieve a hard-reload (-st) of stickring"),
    ("reload", "achieve a soft-reload (-sf) of stickring"),
    ("show cli level", "display the level of the current CLI session"),
    ("show proc", "show processes status"),
    ("show startup-logs", "report logs emitted during stickring startup"),
    ("show version", "show version of the current process"),
];
const TAIL: &[(&str, &str)] = &[
    ("help [<command>]", "list matching or all commands"),
    ("prompt", "toggle interactive mode with prompt"),
    ("quit", "disconnect"),
];

/// Opens the socket and serves whoever comes.
pub(super) fn open(master: &Shared, spec: &StatsSocketSpec) -> io::Result<()> {
    // What another master left there is replaced, as by any process that takes over.
    let others = Others { beside: true, sockets: &[] };
    for mut bound in listen(&spec.bind, others).map_err(io::Error::other)? {
        bound.place().map_err(io::Error::other)?;
        let listener = bound.into_listener()?;
        tokio::task::spawn_local(accept_loop(master.clone(), listener, spec.level));
    }
    Ok(())
}

async fn accept_loop(master: Shared, listener: Listener, level: CliLevel) {
    loop {
        let full = master.borrow().clients >= MASTER_CLI_MAX;
        if full {
            tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            continue;
        }
        match listener.accept().await {
            Ok((fresh, _)) => {
                master.borrow_mut().clients += 1;
                let master = master.clone();
                tokio::task::spawn_local(async move {
                    let mut client = Client { fresh, level, target: Target::Master, prompt: false };
                    // An error belongs to this client alone: it has gone.
                    let _ = client.serve(&master).await;
                    master.borrow_mut().clients -= 1;
                });
            }
            Err(error) => {
                let text = format!("master socket: accept: {error}.");
                master.borrow().log(Level::Alert, &text);
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

/// Whom a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Master,
    Worker(i32),
}

struct Client {
    fresh: Fresh,
    level: CliLevel,
    /// Where commands without an `@` go.
    target: Target,
    prompt: bool,
}

impl Client {
    async fn serve(&mut self, master: &Shared) -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = bytes.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                for command in commands(&line) {
                    if !self.run(master, command.trim()).await? {
                        return Ok(());
                    }
                }
                if !self.prompt {
                    return Ok(());
                }
                self.show_prompt().await?;
            }
            if bytes.len() > BUFSIZE_DEFAULT {
                return Ok(());
            }
            if bounded(self.fresh.read(&mut bytes, CLI_READ)).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        bounded(self.fresh.write_all(text.as_bytes())).await
    }

    async fn show_prompt(&mut self) -> io::Result<()> {
        match self.target {
            Target::Master => self.say("master> ").await,
            Target::Worker(pid) => self.say(&format!("{pid}> ")).await,
        }
    }

    /// Runs one command; false: it was the last one.
    async fn run(&mut self, master: &Shared, command: &str) -> io::Result<bool> {
        let (target, command) = match command.strip_prefix('@') {
            Some(rest) => {
                let (name, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let Some(target) = find(&master.borrow(), name) else {
                    let text = format!("Can't find the target PID matching the prefix '@{name}'\n");
                    self.say(&text).await?;
                    return Ok(self.prompt);
                };
                if rest.trim().is_empty() {
                    self.target = target;
                    return Ok(true);
                }
                (target, rest.trim())
            }
            None => (self.target, command),
        };
        match (target, command) {
            (_, "quit") => Ok(false),
            (_, "prompt") => {
                self.prompt = !self.prompt;
                Ok(true)
            }
            (Target::Master, "") => Ok(true),
            (Target::Master, _) => {
                let text = self.answer(master, command).await;
                self.say(&format!("{text}\n")).await?;
                Ok(true)
            }
            (Target::Worker(pid), _) => self.relay(master, pid, command).await.map(|()| true),
        }
    }

    /// The master's own commands.
    async fn answer(&self, master: &Shared, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            ["show", "proc", ..] => show_proc(&master.borrow(), Clock.now()),
            ["show", "version"] => format!("{}\n", crate::VERSION),
            ["show", "startup-logs"] => master.borrow().startup_logs.clone(),
            ["show", "cli", "level"] => format!("{}\n", self.level_name()),
            ["help", rest @ ..] => help(&rest.join(" ")),
            ["reload" | "hard-reload"] if self.level != CliLevel::Admin => {
                "Permission denied\n".to_owned()
            }
            [word @ ("reload" | "hard-reload")] => {
                let (tell, done) = tokio::sync::oneshot::channel();
                workers::reload(master, *word == "hard-reload", Some(tell));
                let Ok((success, logs)) = done.await else {
                    return "Success=0\n--\nThe master is leaving.\n".to_owned();
                };
                format!("Success={}\n--\n{logs}", u8::from(success))
            }
            _ => {
                let mut text = format!(
                    "Unknown command: '{command}', but maybe one of the following ones is a \
                     better match:\n"
                );
                list(COMMANDS, "", &mut text);
                list(TAIL, "", &mut text);
                text
            }
        }
    }

    fn level_name(&self) -> &'static str {
        match self.level {
            CliLevel::User => "user",
            CliLevel::Operator => "operator",
            CliLevel::Admin => "admin",
        }
    }

    /// A worker's answer, piece by piece.
    async fn relay(&mut self, master: &Shared, pid: i32, command: &str) -> io::Result<()> {
        let (ours, theirs) = stream_pair()?;
        let channel = {
            let master = master.borrow();
            let worker = master.workers.iter().find(|w| w.pid.as_raw_nonzero().get() == pid);
            worker.map(|w| Rc::clone(&w.channel))
        };
        let sent = channel.map(|c| c.send(self.level_name().as_bytes(), Some(theirs.as_fd())));
        drop(theirs);
        if !matches!(sent, Some(Ok(()))) {
            return self.say(&format!("The worker {pid} does not answer.\n\n")).await;
        }
        let mut worker = Fresh::from_unix(ours)?;
        bounded(worker.write_all(format!("{command}\n").as_bytes())).await?;
        loop {
            let mut bytes = Vec::new();
            if bounded(worker.read(&mut bytes, CLI_READ)).await? == 0 {
                return Ok(());
            }
            bounded(self.fresh.write_all(&bytes)).await?;
        }
    }
}

async fn bounded<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(Duration::from_millis(MASTER_CLI_MS), step).await?
}

/// The commands of a line: `;` stands between them, but not behind a backslash.
fn commands(line: &str) -> Vec<&str> {
    let (mut all, mut from, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in line.char_indices() {
        match c {
            ';' if !escaped => {
                all.push(&line[from..at]);
                from = at + 1;
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    all.push(&line[from..]);
    all
}

/// Whom `@name` means.
fn find(master: &Master, name: &str) -> Option<Target> {
    if name == "master" || name == "0" {
        return Some(Target::Master);
    }
    let pid = match name.strip_prefix('!') {
        Some(pid) => {
            let pid: i32 = pid.parse().ok()?;
            let known = |w: &&workers::Worker| w.pid.as_raw_nonzero().get() == pid;
            master.workers.iter().find(known)?.pid
        }
        None if name == "1" => master.current()?.pid,
        None => return None,
    };
    Some(Target::Worker(pid.as_raw_nonzero().get()))
}

fn show_proc(master: &Master, now: Millis) -> String {
    let mut text = String::new();
    let mut line = |cells: [&str; 5]| {
        let [pid, kind, reloads, uptime, version] = cells;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{pid:<15} {kind:<15} {reloads:<15} {uptime:<15} {version:<15}");
    };
    line(["#<PID>", "<type>", "<reloads>", "<uptime>", "<version>"]);
    let own = std::process::id().to_string();
    let reloads = format!("{} [failed: {}]", master.reloads, master.failed);
    line([&own, "master", &reloads, &uptime(now.since(master.started)), crate::VERSION]);
    let rows = |former: bool| {
        let mut text = String::new();
        for w in master.workers.iter().filter(|w| (w.state == State::Former) == former) {
            let (pid, since) = (w.pid.to_string(), uptime(now.since(w.started)));
            let reloads = w.reloads;
            let version = crate::VERSION;
            let _ =
                writeln!(text, "{pid:<15} worker          {reloads:<15} {since:<15} {version:<15}");
        }
        text
    };
    let (current, former) = (rows(false), rows(true));
    text.push_str("# workers\n");
    text.push_str(&current);
    if !former.is_empty() {
        text.push_str("# old workers\n");
        text.push_str(&former);
    }
    text
}

fn uptime(ms: u64) -> String {
    let s = ms / 1000;
    format!("{}d{:02}h{:02}m{:02}s", s / 86_400, s / 3_600 % 24, s / 60 % 60, s % 60)
}

fn help(prefix: &str) -> String {
    let mut text = String::from("The following commands are valid at this level:\n");
    list(COMMANDS, prefix, &mut text);
    list(TAIL, prefix, &mut text);
    text
}

fn list(commands: &[(&str, &str)], prefix: &str, text: &mut String) {
    for (usage, what) in commands.iter().filter(|(usage, _)| usage.starts_with(prefix)) {
        let _ = writeln!(text, "  {usage:<40}: {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_between_semicolons() {
        assert_eq!(commands("show proc; @1 show info"), ["show proc", " @1 show info"]);
        assert_eq!(commands(r"a\;b;c"), [r"a\;b", "c"]);
        assert_eq!(commands(""), [""]);
    }

    #[test]
    fn times_are_haproxys() {
        assert_eq!(uptime(0), "0d00h00m00s");
        assert_eq!(uptime((86_400 + 3_600 * 2 + 60 * 3 + 4) * 1000), "1d02h03m04s");
    }
}
