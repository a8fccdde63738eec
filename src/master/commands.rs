//! What the master itself answers on its command line: HAProxy 3.2's words, and its list of them.
//!
//! Owns the texts; called by [`super::cli`] with one command. Rule: the master knows of its workers
//! and of its own process, and of nothing that only a configuration says.

use super::workers::State;
use super::{Master, Shared, workers};
use crate::Millis;
use crate::config::CliLevel;
use crate::engine::Clock;
use crate::runtime_api::help::{Catalog, Entry, entry};
use crate::runtime_api::prompt::{Mode, Prompt};
use crate::runtime_api::{CliError, command, level_name, show_env, words};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt;

/// In the order in which they are shown: by name.
const COMMANDS: &[Entry] = &[
    entry("@!<pid>", "@!<pid>", "send a command to the <pid> process"),
    entry("@<relative pid>", "@<relative pid>", "send a command to the <relative pid> process"),
    entry("@@<", "@@<[!]pid> [<line>]", "hand this line or connection to a process"),
    entry("@master", "@master", "send a command to the master process"),
    entry("echo", "echo <text>", "print text to the output"),
    entry("hard-reload", "hard-reload", "achieve a hard-reload (-st) of stickring"),
    entry("operator", "operator", "lower the level of the current CLI session to operator"),
    entry("reload", "reload", "achieve a soft-reload (-sf) of stickring"),
    entry("show cli level", "show cli level", "display the level of the current CLI session"),
    entry("show cli sockets", "show cli sockets", "dump list of cli sockets"),
    entry("show env", "show env [var]", "dump environment variables known to the process"),
    entry("show proc", "show proc", "show processes status"),
    entry("show startup-logs", "show startup-logs", "report logs emitted during stickring startup"),
    entry("show version", "show version", "show version of the current process"),
    entry("user", "user", "lower the level of the current CLI session to user"),
];
const TAIL: &[Entry] = &[
    entry("help", "help [<command>]", "list matching or all commands"),
    entry("prompt", "prompt [help | i | p | timed ]*", "toggle interactive mode with prompt"),
    entry("quit", "quit", "disconnect"),
];
const CATALOG: Catalog = Catalog { commands: COMMANDS, tail: TAIL };

/// What `prompt help` and a wrong word print: as on a stats socket, but that the master never ends
/// a connection behind its first line.
const PROMPT_USAGE: &str = "Usage: prompt [help | i | p | timed]*
Changes the default prompt and interactive mode. Available options:
  help    display this help
  i       set to interactive mode only (no prompt, multi-command)
  p       set to prompt+interactive mode (prompt + multi-command)
  timed   toggle displaying the current date in the prompt
Without any argument, toggles between i<->p.
";

/// What a command comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Lines, and an empty one behind them.
    Text(String),
    /// Lines alone, where HAProxy's master leaves the empty one out.
    Short(String),
    /// Nothing to read: the session has this level now.
    Level(CliLevel),
    /// Nothing to read, but this prompt.
    Prompt(Prompt),
    /// The end of the connection.
    Quit,
}

/// Runs one command of the master's own.
pub(super) async fn run(master: &Shared, level: CliLevel, prompt: Prompt, text: &str) -> Reply {
    let Some(Ok(words)) = words::split(text.as_bytes()).into_iter().next() else {
        return Reply::Text(format!("{}\n", CliError::TooManyWords));
    };
    let names: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    match names.as_slice() {
        [b"quit", ..] => Reply::Quit,
        [b"prompt", ..] => change_prompt(prompt, &words[1..]),
        [b"user", ..] => lower(level, CliLevel::User),
        [b"operator", ..] => lower(level, CliLevel::Operator),
        [word @ (b"reload" | b"hard-reload"), ..] if level >= CliLevel::Operator => {
            Reply::Text(reload(master, *word == b"hard-reload").await)
        }
        _ => Reply::Text(answer(&master.borrow(), level, &words, &names)),
    }
}

fn lower(level: CliLevel, to: CliLevel) -> Reply {
    if level < to { Reply::Short("Permission denied!\n".to_owned()) } else { Reply::Level(to) }
}

fn change_prompt(prompt: Prompt, words: &[Vec<u8>]) -> Reply {
    let single = words.iter().any(|word| word == b"n");
    match prompt.changed(words) {
        Ok(Some(next)) if !single => {
            let mode = if next.mode == Mode::Prompt { Mode::Prompt } else { Mode::Interactive };
            Reply::Prompt(Prompt { mode, ..next })
        }
        _ => Reply::Short(PROMPT_USAGE.to_owned()),
    }
}

async fn reload(master: &Shared, hard: bool) -> String {
    let (tell, done) = tokio::sync::oneshot::channel();
    workers::reload(master, hard, Some(tell));
    match done.await {
        Ok((success, logs)) => format!("Success={}\n--\n{logs}", u8::from(success)),
        Err(_) => "Success=0\n--\nThe master is leaving.\n".to_owned(),
    }
}

/// Commands that only say something.
fn answer(master: &Master, level: CliLevel, words: &[Vec<u8>], names: &[&[u8]]) -> String {
    let from = |at: usize| words.get(at..).unwrap_or(&[]);
    match names {
        [] => String::new(),
        [b"help", ..] => CATALOG.help(from(1)) + "\n",
        [b"echo", ..] => format!("{}\n", String::from_utf8_lossy(&from(1).join(&b' '))),
        [b"show", b"version", ..] => format!("{}\n", crate::VERSION),
        [b"show", b"cli", b"level", ..] => format!("{}\n", level_name(level)),
        [b"show", b"cli", b"sockets", ..] => command::sockets(&master.sockets),
        [b"show", b"proc" | b"env" | b"startup-logs", ..] | [b"reload" | b"hard-reload", ..]
            if level < CliLevel::Operator =>
        {
            format!("{}\n", CliError::PermissionDenied)
        }
        [b"show", b"proc", ..] => show_proc(master, Clock.now()),
        // An empty line would end the reply.
        [b"show", b"startup-logs", ..] => {
            let lines = master.startup_logs.lines().filter(|line| !line.is_empty());
            lines.flat_map(|line| [line, "\n"]).collect()
        }
        [b"show", b"env", ..] => environment(from(2).first().map(Vec::as_slice)),
        _ => CATALOG.unknown(words) + "\n",
    }
}

fn environment(name: Option<&[u8]>) -> String {
    let all: Vec<_> = std::env::vars_os().map(|(k, v)| (k.into_vec(), v.into_vec())).collect();
    let mut text = Vec::new();
    let shown = all.iter().map(|(k, v)| (k.as_slice(), v.as_slice()));
    match show_env::write(shown, name, &mut text) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => format!("{error}\n"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_haproxys() {
        assert_eq!(uptime(0), "0d00h00m00s");
        assert_eq!(uptime((86_400 + 3_600 * 2 + 60 * 3 + 4) * 1000), "1d02h03m04s");
    }

    /// Each step seen with HAProxy 3.2's master.
    #[test]
    fn the_prompt_comes_and_goes() {
        let words = |text: &str| -> Vec<Vec<u8>> {
            text.split_whitespace().map(|w| w.as_bytes().to_vec()).collect()
        };
        let of = |mode, timed| Prompt { mode, timed };
        let (i, p) = (Mode::Interactive, Mode::Prompt);
        for (before, text, after) in [
            (of(i, false), "", of(p, false)),
            (of(p, false), "", of(i, false)),
            (of(p, true), "i", of(i, true)),
            (of(i, false), "timed", of(p, true)),
            (of(i, false), "timed p", of(p, true)),
        ] {
            assert_eq!(change_prompt(before, &words(text)), Reply::Prompt(after), "{text}");
        }
        for wrong in ["n", "help", "zork", "p n"] {
            let usage = Reply::Short(PROMPT_USAGE.to_owned());
            assert_eq!(change_prompt(of(i, false), &words(wrong)), usage, "{wrong}");
        }
    }
}
