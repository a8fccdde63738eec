//! One connection to a stats socket, as a state machine without a socket.
//!
//! The caller reads bytes into [`CliConn::handle_bytes`], then drains [`CliConn::poll`] until it
//! gives `None`: it writes, runs commands (and hands the reply back with `handle_reply`), closes.
//!
//! ```text
//! bytes -> line -> commands (;) -> words -> command::parse --> reply here, or Action::Run
//!                                                                    caller -> handle_reply*
//! reply, empty line, and behind the line's last reply: the prompt, nothing, or the end <-+
//! ```
//!
//! Rule: one command at a time, in the order they came; input is bounded by `tune.bufsize` plus one
//! read (see [`CliConn::wants_bytes`]); nothing of a line is executed before its newline came.

use super::command::{Command, Context, Facts, Outcome, Tables, parse};
use super::error::CliError;
use super::prompt::{Mode, Prompt, USAGE};
use super::set_table::SetTable;
use super::severity::Severity;
use super::words::{self, Words};
use crate::config::{CliLevel, SeverityOutput};
use crate::limits::CLI_PAYLOAD_MAX;
use crate::time::Millis;
use std::collections::VecDeque;
use std::sync::Arc;

const TOO_BIG: &str = "The command line is too big for the buffer size. Please change \
                       tune.bufsize in the configuration to use a bigger command.\n";

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run this, then call [`CliConn::handle_reply`] as often as needed, or
    /// [`CliConn::handle_error`], and [`CliConn::handle_reply_end`].
    Run(Command),
    /// Run these, in order as far as they mean the same entry, then call [`CliConn::handle_sets`]:
    /// consecutive `set table` commands of one line, which so cost one turn of a shard together.
    Set(Vec<SetTable>),
    /// Write these bytes.
    Write(Vec<u8>),
    /// Close, once everything is written. Nothing follows.
    Close,
}

/// A connection. See the module's head for how to drive it.
pub struct CliConn {
    facts: Arc<Facts>,
    level: CliLevel,
    severity: SeverityOutput,
    prompt: Prompt,
    timeout_ms: u64,
    last_heard: Millis,
    input: Input,
    payload: Option<Payload>,
    commands: VecDeque<Words>,
    running: bool,
    /// Commands of the running [`Action::Set`] whose reply is still to come.
    sets_left: usize,
    out: Vec<u8>,
    state: State,
}

/// Lines still to come for a command that announced a payload.
struct Payload {
    line: Vec<u8>,
    pattern: Vec<u8>,
    bytes: usize,
    /// `+ ` was printed behind the last line.
    prompted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The other side will send no more.
    Ending,
    /// Nothing more is executed; what is in `out` is still written.
    Closing,
    Closed,
}

impl CliConn {
    /// A fresh connection to a socket of that level.
    pub fn new(
        facts: Arc<Facts>,
        level: CliLevel,
        severity: SeverityOutput,
        timeout_ms: u64,
        now: Millis,
    ) -> CliConn {
        let input = Input { limit: facts.bufsize, ..Input::default() };
        CliConn {
            facts,
            level,
            severity,
            prompt: Prompt::default(),
            timeout_ms,
            last_heard: now,
            input,
            payload: None,
            commands: VecDeque::new(),
            running: false,
            sets_left: 0,
            out: Vec::new(),
            state: State::Open,
        }
    }

    /// False while enough is buffered: do not read then. Keeps the buffer below `tune.bufsize` plus
    /// one read.
    pub fn wants_bytes(&self) -> bool {
        self.state == State::Open && self.input.bytes.len() < self.input.limit
    }

    /// Bytes that came from the client.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Millis) {
        self.last_heard = now;
        if self.state == State::Open {
            self.input.bytes.extend_from_slice(bytes);
        }
    }

    /// The client will send no more. Whole lines it sent are still executed.
    pub fn handle_eof(&mut self) {
        if self.state == State::Open {
            self.state = State::Ending;
        }
    }

    /// When [`CliConn::handle_timeout`] is due; never while a command runs.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let waiting = !self.running && matches!(self.state, State::Open | State::Ending);
        waiting.then(|| self.last_heard.plus(self.timeout_ms))
    }

    /// Ends the connection if the client was silent for too long.
    pub fn handle_timeout(&mut self, now: Millis) {
        if self.poll_timeout().is_some_and(|due| now >= due) {
            self.state = State::Closing;
        }
    }

    /// Text of the running command's reply: whole lines, none of them empty.
    pub fn handle_reply(&mut self, text: &[u8]) {
        debug_assert!(self.running, "a reply without a command");
        self.out.extend_from_slice(text);
    }

    /// A message of the running command, of severity *info*.
    pub fn handle_info(&mut self, text: &str) {
        debug_assert!(self.running, "a reply without a command");
        self.message(Severity::Info, text.as_bytes());
    }

    /// The running command was refused. [`CliConn::handle_reply_end`] must follow.
    pub fn handle_error(&mut self, error: &CliError) {
        debug_assert!(self.running, "a reply without a command");
        self.message(Severity::Err, error.to_string().as_bytes());
    }

    /// The replies of the running [`Action::Set`], one for each command, in order.
    pub fn handle_sets(&mut self, replies: &[Result<(), CliError>], now: Millis) {
        self.sets_left = replies.len();
        for reply in replies {
            self.sets_left -= 1;
            self.running = true;
            if let Err(error) = reply {
                self.handle_error(error);
            }
            self.handle_reply_end(now);
        }
    }

    /// The running command's reply is complete.
    pub fn handle_reply_end(&mut self, now: Millis) {
        debug_assert!(self.running, "a reply without a command");
        self.running = false;
        // A long dump is not the client's silence.
        self.last_heard = self.last_heard.max(now);
        self.end_of_command(now);
    }

    /// The session's level, lowered ones included.
    pub fn level(&self) -> CliLevel {
        self.level
    }

    /// What to do next; `None` when there is nothing to do before more input or the running
    /// command's reply.
    pub fn poll(&mut self, now: Millis, tables: &dyn Tables) -> Option<Action> {
        loop {
            if !self.out.is_empty() {
                return Some(Action::Write(std::mem::take(&mut self.out)));
            }
            match self.state {
                State::Closing => {
                    self.state = State::Closed;
                    return Some(Action::Close);
                }
                State::Closed => return None,
                State::Open | State::Ending if self.running => return None,
                State::Open | State::Ending => {}
            }
            if let Some(words) = self.commands.pop_front() {
                if let Some(command) = self.execute(words, tables, now) {
                    self.running = true;
                    return Some(match command {
                        Command::SetTable(first) => Action::Set(self.sets_from(first, tables)),
                        other => Action::Run(other),
                    });
                }
            } else if !self.next_line() {
                return None;
            }
        }
    }

    /// `first` and the `set table` commands right behind it on the line. What any other command
    /// says depends on those before it.
    fn sets_from(&mut self, first: SetTable, tables: &dyn Tables) -> Vec<SetTable> {
        let mut sets = vec![first];
        let cx = Context { tables, facts: &self.facts, level: self.level };
        while let Some(Ok(words)) = self.commands.front() {
            let Ok(Outcome::Run(Command::SetTable(set))) = parse(words, &cx) else { break };
            self.commands.pop_front();
            sets.push(set);
        }
        sets
    }

    /// Takes a line out of the input; false when there is none yet.
    fn next_line(&mut self) -> bool {
        match self.input.next_line() {
            Ok(Some(line)) => self.handle_line(line),
            Ok(None) if self.state == State::Ending => self.state = State::Closing,
            Ok(None) => return self.prompt_payload(),
            Err(TooLong) => self.too_big(),
        }
        true
    }

    /// Asks for a payload's next line, once nothing of it is there; true when it did.
    fn prompt_payload(&mut self) -> bool {
        let asked = match &mut self.payload {
            Some(payload) if self.prompt.mode == Mode::Prompt => &mut payload.prompted,
            _ => return false,
        };
        if !*asked {
            self.out.extend_from_slice(b"+ ");
        }
        !std::mem::replace(asked, true)
    }

    fn too_big(&mut self) {
        self.out.extend_from_slice(TOO_BIG.as_bytes());
        self.state = State::Closing;
    }

    fn handle_line(&mut self, line: Vec<u8>) {
        if let Some(mut payload) = self.payload.take() {
            if line.strip_suffix(b"\r").unwrap_or(&line) == payload.pattern {
                self.commands = words::split(&payload.line).into();
                return;
            }
            payload.bytes += line.len() + 1;
            payload.prompted = false;
            self.payload = Some(payload);
        } else if let Some((command, pattern)) = words::payload(&line) {
            let (line, pattern) = (command.to_vec(), pattern.to_vec());
            self.payload = Some(Payload { line, pattern, bytes: 0, prompted: false });
        } else {
            self.commands = words::split(&line).into();
            return;
        }
        if self.payload.as_ref().is_some_and(|p| p.bytes > CLI_PAYLOAD_MAX) {
            self.too_big();
        }
    }

    /// Executes one command; `Some` is for the caller to run.
    fn execute(&mut self, words: Words, tables: &dyn Tables, now: Millis) -> Option<Command> {
        let facts = Arc::clone(&self.facts);
        let cx = Context { tables, facts: &facts, level: self.level };
        let outcome = match words {
            Ok(words) => parse(&words, &cx),
            Err(words::TooManyWords) => Err(CliError::TooManyWords),
        };
        let done = outcome.and_then(|outcome| self.apply(outcome));
        match done {
            Ok(Some(command)) => return Some(command),
            Ok(None) => {}
            Err(error) => self.message(Severity::Err, error.to_string().as_bytes()),
        }
        if self.state != State::Closing {
            self.end_of_command(now);
        }
        None
    }

    fn apply(&mut self, outcome: Outcome) -> Result<Option<Command>, CliError> {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Run(command) => return Ok(Some(command)),
            Outcome::Quit => self.state = State::Closing,
            Outcome::Prompt(words) => match self.prompt.changed(&words)? {
                Some(prompt) => self.prompt = prompt,
                None => self.message(Severity::Info, USAGE.as_bytes()),
            },
            Outcome::Lower(level) => self.level = level,
            Outcome::Timeout(ms) => self.timeout_ms = ms,
            Outcome::Severity(output) => self.severity = output,
            Outcome::Info(text) => self.message(Severity::Info, &text),
            Outcome::Text(text) => self.out.extend_from_slice(text.as_bytes()),
        }
        Ok(None)
    }

    fn message(&mut self, severity: Severity, text: &[u8]) {
        self.out.extend_from_slice(severity.prefix(self.severity).as_bytes());
        self.out.extend_from_slice(text);
        self.out.push(b'\n');
    }

    /// The empty line behind every reply, and what stands behind a line's last one.
    fn end_of_command(&mut self, now: Millis) {
        self.out.push(b'\n');
        if !self.commands.is_empty() || self.sets_left > 0 {
            return;
        }
        match self.prompt.mode {
            Mode::Single => self.state = State::Closing,
            _ => self.prompt.write(Millis(now.since(self.facts.started)), &mut self.out),
        }
    }
}

/// Bytes received and not yet executed.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    /// Longest line, its newline included.
    limit: usize,
    /// Bytes already known to hold no end of line.
    scanned: usize,
    /// A backslash stood in front of `scanned`.
    escaped: bool,
}

/// A line longer than the limit.
struct TooLong;

impl Input {
    /// The next line without its newline. An escaped newline does not end a line.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let end = self.bytes.len().min(self.limit);
        while self.scanned < end {
            let b = self.bytes[self.scanned];
            self.scanned += 1;
            if self.escaped {
                self.escaped = false;
            } else if b == b'\\' {
                self.escaped = true;
            } else if b == b'\n' {
                let mut line: Vec<u8> = self.bytes.drain(..self.scanned).collect();
                line.pop();
                self.scanned = 0;
                return Ok(Some(line));
            }
        }
        if self.bytes.len() >= self.limit { Err(TooLong) } else { Ok(None) }
    }
}
