//! The `global` section.
//!
//! *Called by* [`super::parse`] for each of its lines. Keywords a peers node has no use for are
//! counted as skipped by the caller.
#![forbid(unsafe_code)]

use crate::config::bind::{self, BindError, BindParameters};
use crate::config::builder::Builder;
use crate::config::environment::Environment;
use crate::config::log::{self, LogLine};
use crate::config::reader::Line;
use crate::config::types::StatsSocketSpec;
use crate::config::values::{self, ValueError};
use crate::config::{Diagnostics, UnixOptions};
use crate::limits::{BUFSIZE_MAX, BUFSIZE_MIN, NBTHREAD_MAX};

/// Whether a line was for us.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Read, rightly or wrongly.
    Ours,
    /// HAProxy's business.
    Skipped,
}

/// Reads one line of a `global` section.
pub(crate) fn line(
    b: &mut Builder<'_>,
    line: &Line,
    env: &mut Environment<'_>,
    diags: &mut Diagnostics,
) -> Seen {
    let keyword = line.word(0);
    match keyword {
        // Read by the first pass already.
        "localpeer" | "setenv" | "presetenv" | "unsetenv" | "resetenv" => {
            if variables(line, env, Some(diags)).is_some() && b.options.localpeer.is_some() {
                diags.warning(line.says(
                    "'localpeer' ignored since it is already set by using the '-L' command line \
                     argument.",
                ));
            }
        }
        "nbthread" => nbthread(b, line, diags),
        "tune.bufsize" => bufsize(b, line, diags),
        "tune.peers.max-updates-at-once" => match line.word(1).parse::<u32>() {
            Ok(n) if n > 0 => b.config.max_updates_at_once = Some(n),
            _ => {
                let text = format!("'{keyword}' expects an integer argument greater than 0.");
                diags.alert(line.says(text));
            }
        },
        "pidfile" if line.word(1).is_empty() => {
            diags.alert(line.says("'pidfile' expects a file name as an argument."));
        }
        "pidfile" if !extra(line, 2, diags) => match &b.config.pidfile {
            Some(_) => diags.warning(line.says("'pidfile' already specified. Continuing.")),
            None => b.config.pidfile = Some(line.word(1).to_owned()),
        },
        "pidfile" => {}
        "node" => node(b, line, diags),
        "hard-stop-after" => hard_stop_after(b, line, diags),
        "mworker-max-reloads" => max_reloads(b, line, diags),
        "stats" => return stats(b, line, diags),
        "unix-bind" => unix_bind(b, line, diags),
        "log" => match log::parse(&line.words[1..], b.names()) {
            Ok(LogLine::Target(target)) => b.config.logs.push(target),
            Ok(LogLine::Global) => {
                diags.alert(line.says("'global' is not supported in 'global' section."));
            }
            Ok(LogLine::Unsupported(what)) => {
                diags.warning(line.says(format!("log : {what} are not supported, ignored.")));
            }
            Err(text) => diags.alert(line.says(format!("log : {text}"))),
        },
        "no" if line.word(1) == "log" => b.config.logs.clear(),
        _ => return Seen::Skipped,
    }
    Seen::Ours
}

/// `localpeer` and the keywords that change variables. Both passes come here: the first learns the
/// local peer's name, the second (with `diags`) reports what is wrong.
///
/// Returns the name on a right `localpeer` line.
pub(crate) fn variables(
    line: &Line,
    env: &mut Environment<'_>,
    diags: Option<&mut Diagnostics>,
) -> Option<String> {
    let keyword = line.word(0);
    let wrong = match keyword {
        "localpeer" => match line.words.len() {
            1 => Some("'localpeer' expects a name as an argument.".to_owned()),
            2 => None,
            _ => Some(unexpected(keyword, line.word(2))),
        },
        "setenv" | "presetenv" => match line.words.len() {
            1 => Some(format!("'{keyword}' expects a name and a value.")),
            2 => {
                let name = line.word(1);
                Some(format!("'{keyword}' expects environment variable value for '{name}'."))
            }
            3 => None,
            _ => Some(unexpected(keyword, line.word(3))),
        },
        _ => None,
    };
    if let Some(text) = wrong {
        if let Some(diags) = diags {
            diags.alert(line.says(text));
        }
        return None;
    }
    match keyword {
        "localpeer" => return Some(line.word(1).to_owned()),
        "setenv" => env.set(line.word(1), line.word(2)),
        "presetenv" if env.get(line.word(1)).is_none() => env.set(line.word(1), line.word(2)),
        "unsetenv" => line.words[1..].iter().for_each(|name| env.unset(name)),
        "resetenv" => env.reset(line.words[1..].to_vec()),
        _ => {}
    }
    None
}

fn unexpected(keyword: &str, word: &str) -> String {
    format!("'{keyword}' cannot handle unexpected argument '{word}'.")
}

/// Alerts when there are words from `max` on.
pub(crate) fn extra(line: &Line, max: usize, diags: &mut Diagnostics) -> bool {
    let found = line.words.len() > max;
    if found {
        diags.alert(line.says(unexpected(line.word(0), line.word(max))));
    }
    found
}

fn nbthread(b: &mut Builder<'_>, line: &Line, diags: &mut Diagnostics) {
    if extra(line, 2, diags) {
        return;
    }
    let text = line.word(1);
    match values::integer(text) {
        Some(n) if (1..=i64::from(NBTHREAD_MAX)).contains(&n) => {
            b.config.nbthread = Some(n as u32);
        }
        Some(n) => {
            let text = format!("'nbthread' value must be between 1 and {NBTHREAD_MAX} (was {n})");
            diags.alert(line.says(text));
        }
        None => {
            let text =
                format!("'nbthread' passed a missing or unparsable integer value in '{text}'");
            diags.alert(line.says(text));
        }
    }
}

fn bufsize(b: &mut Builder<'_>, line: &Line, diags: &mut Diagnostics) {
    if extra(line, 2, diags) {
        return;
    }
    let keyword = line.word(0);
    let size = match values::size(line.word(1)) {
        Ok(0) => Err(format!("'{keyword}' expects a positive integer argument.")),
        Ok(size) => Ok(size),
        Err(ValueError::Unexpected(Some(c))) => {
            Err(format!("unexpected '{c}' after size passed to '{keyword}'"))
        }
        Err(_) => Err(format!("'{keyword}' expects a size argument.")),
    };
    match size {
        Err(text) => diags.alert(line.says(text)),
        Ok(size) => {
            let bounded = (size as usize).clamp(BUFSIZE_MIN, BUFSIZE_MAX);
            if bounded as u64 != size {
                let text = format!(
                    "'{keyword}' {size} is outside {BUFSIZE_MIN} to {BUFSIZE_MAX}, {bounded} is \
                    used."
                );
                diags.warning(line.says(text));
            }
            b.config.bufsize = bounded;
        }
    }
}

fn node(b: &mut Builder<'_>, line: &Line, diags: &mut Diagnostics) {
    if extra(line, 2, diags) {
        return;
    }
    let name = line.word(1);
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || !name.chars().all(legal) {
        diags.alert(line.says(
            "'node' requires a name of digits (0-9), letters (A-Z, a-z), dots, hyphens and \
            underscores.",
        ));
    } else {
        b.config.node = Some(name.to_owned());
    }
}

fn hard_stop_after(b: &mut Builder<'_>, line: &Line, diags: &mut Diagnostics) {
    let text = line.word(1);
    if text.is_empty() {
        return diags.alert(line.says("'hard-stop-after' expects <time> as argument."));
    }
    match values::time_ms(text, i32::MAX as u64) {
        Ok((ms, None)) => b.config.hard_stop_after_ms = (ms > 0).then_some(ms),
        Ok((_, Some(c))) | Err(ValueError::Unexpected(Some(c))) => diags.alert(
            line.says(format!("unexpected character '{c}' in argument to <hard-stop-after>.")),
        ),
        Err(_) => diags.alert(line.says(format!(
            "timer overflow in argument '{text}' to <hard-stop-after>, maximum value is \
             2147483647 ms (~24.8 days)."
        ))),
    }
}

/// HAProxy 3.2 takes letters for 0, which would end every worker at its first reload: refused here.
fn max_reloads(b: &mut Builder<'_>, line: &Line, diags: &mut Diagnostics) {
    if extra(line, 2, diags) {
        return;
    }
    let keyword = line.word(0);
    match line.word(1).parse::<i64>() {
        Ok(n) if n >= 0 => b.config.max_reloads = Some(u32::try_from(n).unwrap_or(u32::MAX)),
        Ok(_) => {
            diags.alert(line.says(format!("'{keyword}' expects a positive value or zero.")));
        }
        Err(_) => diags.alert(line.says(format!("'{keyword}' expects an integer argument."))),
    }
}

fn stats(b: &mut Builder<'_>, line: &Line, diags: &mut Diagnostics) -> Seen {
    let value = line.word(2);
    match line.word(1) {
        "socket" => {
            if let Some(spec) = stats_socket(b, line, diags) {
                b.config.stats_sockets.push(spec);
            }
        }
        "timeout" => match values::time_ms(value, i32::MAX as u64) {
            Ok((0, None)) => {
                diags.alert(line.says("'stats timeout' expects a positive value"));
            }
            Ok((ms, None)) => b.config.stats_timeout_ms = ms,
            Ok((_, Some(c))) | Err(ValueError::Unexpected(Some(c))) => {
                let text = format!("'stats timeout' : unexpected character '{c}'");
                diags.alert(line.says(text));
            }
            Err(ValueError::Unexpected(None)) => {
                diags.alert(line.says("'stats timeout' : missing value"));
            }
            Err(ValueError::Overflow) => {
                let text = format!(
                    "timer overflow in argument '{value}' to 'stats timeout' (maximum value is \
                     2147483647 ms or ~24.8 days)"
                );
                diags.alert(line.says(text));
            }
        },
        "maxconn" => match value.parse::<u32>() {
            Ok(n) if n > 0 => b.config.stats_maxconn = n,
            _ => diags.alert(line.says("'stats maxconn' expects a positive value")),
        },
        "bind-process" => return Seen::Skipped,
        got => diags.alert(line.says(format!(
            "'stats' only supports 'socket', 'maxconn', 'bind-process' and 'timeout' (got '{got}')"
        ))),
    }
    Seen::Ours
}

/// A `stats socket` line, here or in a `stickring` section.
pub(crate) fn stats_socket(
    b: &Builder<'_>,
    line: &Line,
    diags: &mut Diagnostics,
) -> Option<StatsSocketSpec> {
    if line.words.len() < 3 {
        let text = "'stats socket' in global section expects an address or a path to a UNIX socket";
        diags.alert(line.says(text));
        return None;
    }
    let mut says = |text: String| {
        diags.alert(line.says(format!("'stats socket' : {text}")));
        None
    };
    let addresses = match bind::addresses(line.word(2), b.names()) {
        Ok(addresses) => addresses,
        Err(text) => return says(text),
    };
    let mut parameters = BindParameters::default();
    match parameters.read(&line.words[3..], b.names()) {
        Ok(()) => {}
        Err(BindError::Unknown(word)) => return says(format!("unknown keyword '{word}'.")),
        Err(BindError::Invalid(text)) => return says(format!("'{text}'")),
    }
    if let Some(refused) = parameters.refused.first() {
        return says(format!("'{refused}' is not supported in this version"));
    }
    Some(StatsSocketSpec {
        bind: parameters.spec(addresses, line.at.clone()),
        level: parameters.level,
        severity_output: parameters.severity_output,
        expose_fd_listeners: parameters.expose_fd_listeners,
    })
}

/// `unix-bind prefix <path> mode <mode> …`: defaults of unix sockets of `bind` and local `peer`
/// lines (HAProxy leaves stats sockets out).
fn unix_bind(b: &mut Builder<'_>, line: &Line, diags: &mut Diagnostics) {
    let mut words = line.words[1..].iter().map(String::as_str);
    let mut unix = UnixOptions::default();
    while let Some(keyword) = words.next() {
        let result = match keyword {
            "prefix" => match words.next() {
                Some(prefix) => {
                    b.unix_prefix = prefix.to_owned();
                    Ok(())
                }
                None => Err("'unix-bind prefix' expects a path".to_owned()),
            },
            "mode" | "user" | "uid" | "group" | "gid" => {
                bind::unix_option(&mut unix, keyword, words.next(), b.names())
            }
            _ => Err("'unix-bind' only supports the 'prefix', 'mode', 'uid', 'gid', 'user' and \
                      'group' options."
                .to_owned()),
        };
        if let Err(text) = result {
            return diags.alert(line.says(text));
        }
    }
    b.unix_defaults = unix;
}
