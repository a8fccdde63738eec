//! The master's command line (`-S`): connections, whom a command is for, and the way to workers.
//!
//! As HAProxy 3.2's: lines until the client has no more, commands behind `;`, an empty line behind
//! every reply. `@1 COMMAND` and `@!PID COMMAND` go to a worker, over a stream of their own that
//! the worker gets through the channel; its answer passes by here without being looked at. `@1`
//! alone sends what follows there, `@` brings it back. `@@1 LINE` hands the worker a whole line,
//! and `@@1` the connection, until the worker has said everything; unlike there, a client that has
//! no more to say still gets the end of a `wait`.

use super::commands::{self, Reply};
use super::{Master, Shared, workers};
use crate::config::{CliLevel, StatsSocketSpec};
use crate::engine::Clock;
use crate::engine::control::stream_pair;
use crate::engine::socket::{Fresh, Listener, Others, listen};
use crate::limits::{ACCEPT_PAUSE_MS, BUFSIZE_DEFAULT, CLI_READ, MASTER_CLI_MAX, MASTER_CLI_MS};
use crate::observe::log::Level;
use crate::runtime_api::level_name;
use crate::runtime_api::prompt::{Mode, Prompt};
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

/// Opens the socket and serves whoever comes.
pub(super) fn open(master: &Shared, spec: &StatsSocketSpec) -> io::Result<()> {
    // What another master left there is replaced, as by any process that takes over.
    let others = Others { beside: true, sockets: &[] };
    for mut bound in listen(&spec.bind, others).map_err(io::Error::other)? {
        bound.place().map_err(io::Error::other)?;
        master.borrow_mut().sockets.push((bound.address.to_string(), spec.level));
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
                    let mut client = Client::new(fresh, level);
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
    /// Read, and not looked at.
    input: Vec<u8>,
    level: CliLevel,
    /// Where commands without an `@` go.
    target: Target,
    /// Never [`Mode::Single`].
    prompt: Prompt,
}

impl Client {
    fn new(fresh: Fresh, level: CliLevel) -> Client {
        let prompt = Prompt { mode: Mode::Interactive, timed: false };
        Client { fresh, input: Vec::new(), level, target: Target::Master, prompt }
    }

    async fn serve(&mut self, master: &Shared) -> io::Result<()> {
        loop {
            while let Some(end) = self.input.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                let mut rest = Some(line.as_str());
                while let Some(line) = rest {
                    let (command, behind) = first_command(line);
                    if !self.run(master, command).await? {
                        return Ok(());
                    }
                    self.show_prompt(master).await?;
                    rest = behind;
                }
            }
            if self.input.len() > BUFSIZE_DEFAULT {
                return Ok(());
            }
            if bounded(self.fresh.read(&mut self.input, CLI_READ)).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        bounded(self.fresh.write_all(text.as_bytes())).await
    }

    async fn show_prompt(&mut self, master: &Shared) -> io::Result<()> {
        if self.prompt.mode != Mode::Prompt {
            return Ok(());
        }
        let (up_ms, failed) = {
            let master = master.borrow();
            (Clock.now().since(master.started), master.failed > 0)
        };
        let mut text = match self.prompt.timed {
            true => format!("{} ", crate::runtime_api::prompt::time(up_ms)),
            false => String::new(),
        };
        match self.target {
            Target::Master if failed => text += "master[ReloadFailed]> ",
            Target::Master => text += "master> ",
            Target::Worker(pid) => text += &format!("{pid}> "),
        }
        self.say(&text).await
    }

    /// Runs one command; false: it was the last one.
    async fn run(&mut self, master: &Shared, command: &str) -> io::Result<bool> {
        let Some(at) = command.strip_prefix('@') else {
            return self.run_here(master, command).await;
        };
        let (prefix, command) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let whole = at.starts_with('@');
        let target = find(&master.borrow(), prefix.trim_start_matches('@'));
        let command = command.trim();
        match target {
            None => {
                let text = format!("Can't find the target PID matching the prefix '{prefix}'\n");
                self.say(&text).await?;
            }
            Some(Target::Worker(pid)) if whole => self.hand_to(master, pid, command).await?,
            Some(target) if command.is_empty() => self.target = target,
            Some(Target::Master) => return self.answer(master, command).await,
            Some(Target::Worker(pid)) => self.relay(master, pid, command).await?,
        }
        Ok(true)
    }

    /// A command without an `@`.
    async fn run_here(&mut self, master: &Shared, command: &str) -> io::Result<bool> {
        let ours = matches!(
            command.split_whitespace().next(),
            None | Some("prompt" | "user" | "operator" | "quit")
        );
        match self.target {
            Target::Worker(pid) if !ours => self.relay(master, pid, command).await.map(|()| true),
            _ => self.answer(master, command).await,
        }
    }

    /// The master's own commands.
    async fn answer(&mut self, master: &Shared, command: &str) -> io::Result<bool> {
        match commands::run(master, self.level, self.prompt, command).await {
            Reply::Text(text) => self.say(&format!("{text}\n")).await?,
            Reply::Short(text) => self.say(&text).await?,
            Reply::Level(level) => self.level = level,
            Reply::Prompt(prompt) => self.prompt = prompt,
            Reply::Quit => return Ok(false),
        }
        Ok(true)
    }

    /// A stream to a worker; `None` when there is none any more, which the client was told.
    async fn reach(&mut self, master: &Shared, pid: i32) -> io::Result<Option<Fresh>> {
        let (ours, theirs) = stream_pair()?;
        let channel = {
            let master = master.borrow();
            let worker = master.workers.iter().find(|w| w.pid.as_raw_nonzero().get() == pid);
            worker.map(|w| Rc::clone(&w.channel))
        };
        let level = level_name(self.level).as_bytes();
        let sent = channel.map(|c| c.send(level, Some(theirs.as_fd())));
        if !matches!(sent, Some(Ok(()))) {
            self.say(&format!("The worker {pid} does not answer.\n\n")).await?;
            return Ok(None);
        }
        Fresh::from_unix(ours).map(Some)
    }

    /// A worker's answer, piece by piece.
    async fn relay(&mut self, master: &Shared, pid: i32, command: &str) -> io::Result<()> {
        let Some(mut worker) = self.reach(master, pid).await? else { return Ok(()) };
        bounded(worker.write_all(format!("{command}\n").as_bytes())).await?;
        loop {
            let mut bytes = Vec::new();
            if bounded(worker.read(&mut bytes, CLI_READ)).await? == 0 {
                return Ok(());
            }
            bounded(self.fresh.write_all(&bytes)).await?;
        }
    }

    /// The connection itself, for one line or until the worker ends it.
    async fn hand_to(&mut self, master: &Shared, pid: i32, line: &str) -> io::Result<()> {
        let Some(mut worker) = self.reach(master, pid).await? else { return Ok(()) };
        let first = match (line, self.prompt) {
            ("", Prompt { mode: Mode::Prompt, timed: true }) => "prompt timed p",
            ("", Prompt { mode: Mode::Prompt, .. }) => "prompt p",
            ("", _) => "prompt i",
            (line, _) => line,
        };
        let mut all = format!("{first}\n").into_bytes();
        all.append(&mut self.input);
        // A worker that does not want all of it has an answer none the less.
        let _ = bounded(worker.write_all(&all)).await;
        if first == "prompt i" {
            // The answer to this is nobody's business.
            bounded(worker.read(&mut Vec::new(), 1)).await?;
        }
        self.join(&mut worker).await
    }

    /// Carries bytes both ways until the worker has said everything.
    async fn join(&mut self, worker: &mut Fresh) -> io::Result<()> {
        let mut listens = true;
        loop {
            let (mut said, mut asked) = (Vec::new(), Vec::new());
            tokio::select! {
                read = worker.read(&mut said, CLI_READ) => match read {
                    // With an error, too: it did not read all that was sent to it.
                    Ok(0) | Err(_) => return Ok(()),
                    Ok(_) => bounded(self.fresh.write_all(&said)).await?,
                },
                read = self.fresh.read(&mut asked, CLI_READ), if listens => {
                    let sent = match read? {
                        0 => Err(io::ErrorKind::UnexpectedEof.into()),
                        _ => bounded(worker.write_all(&asked)).await,
                    };
                    if sent.is_err() {
                        listens = false;
                        // Gone already is as good.
                        let _ = worker.end().await;
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(MASTER_CLI_MS)) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }
}

async fn bounded<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(Duration::from_millis(MASTER_CLI_MS), step).await?
}

/// The first command of a line, and what stands behind it. `;` stands between commands, but not
/// behind a backslash, and not in a line that a worker gets as a whole.
fn first_command(line: &str) -> (&str, Option<&str>) {
    let line = line.trim();
    let mut escaped = false;
    for (at, c) in line.char_indices().filter(|_| !line.starts_with("@@")) {
        if c == ';' && !escaped {
            return (line[..at].trim_end(), Some(&line[at + 1..]));
        }
        escaped = c == '\\' && !escaped;
    }
    (line, None)
}

/// Whom `@name` means.
fn find(master: &Master, name: &str) -> Option<Target> {
    if matches!(name, "" | "master" | "0") {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_between_semicolons() {
        let all = |line: &'static str| {
            let (mut all, mut rest) = (Vec::new(), Some(line));
            while let Some(line) = rest {
                let (command, behind) = first_command(line);
                all.push(command);
                rest = behind;
            }
            all
        };
        assert_eq!(all("show proc; @1 show info"), ["show proc", "@1 show info"]);
        assert_eq!(all(r"a\;b;c"), [r"a\;b", "c"]);
        assert_eq!(all("a; @@1 b; c;d"), ["a", "@@1 b; c;d"]);
        assert_eq!(all(";"), ["", ""]);
        assert_eq!(all(""), [""]);
    }
}
