//! From words to a command: names, levels, and every refusal that needs no table's contents.
//!
//! Pure; called by [`super::CliConn`] for each command of a line. Rule: a command the session's
//! level does not allow never leaves this module. HAProxy checks the level of the *socket* for some
//! commands and so forgets `user` and `operator`; we check the session's.

use super::clear_table::{self, ClearTable};
use super::error::CliError;
use super::set_table::{self, SetTable};
use super::show_errors::{self, ShowErrors};
use super::show_info::{self, InfoFormat};
use super::show_peers::{self, ShowPeers};
use super::show_stat::{self, ShowStat};
use super::show_table::{self, Query};
use super::{help, timeout, wait};
use crate::config::{CliLevel, SeverityOutput};
use crate::table::spec::TableSpec;
use crate::time::Millis;
use std::sync::Arc;

/// What the parser asks about tables.
pub trait Tables {
    /// The table called `name` (`<section>/<table>` for one of a peers section), and the number
    /// under which commands will name it.
    fn find(&self, name: &[u8]) -> Option<(usize, Arc<TableSpec>)>;
}

/// What never changes while the node runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What `show version` prints.
    pub version: String,
    /// The stats sockets and their levels, as `show cli sockets` prints them.
    pub sockets: Vec<(String, CliLevel)>,
    /// The messages of the start, as they went to stderr.
    pub startup_logs: String,
    /// When the node started.
    pub started: Millis,
    /// `tune.bufsize`: the longest command line.
    pub bufsize: usize,
}

/// What one command is parsed with.
pub struct Context<'a> {
    /// The tables.
    pub tables: &'a dyn Tables,
    /// The node.
    pub facts: &'a Facts,
    /// The session's level, lowered ones included.
    pub level: CliLevel,
}

impl Context<'_> {
    /// Refuses sessions below level operator.
    pub(super) fn operator(&self) -> Result<(), CliError> {
        if self.level < CliLevel::Operator { Err(CliError::PermissionDenied) } else { Ok(()) }
    }
}

/// A command that needs the node: the caller runs it and hands the reply to the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Headers of all tables, the last declared first.
    ShowTables,
    /// Entries of a table.
    ShowTable(Query),
    /// Create or change an entry.
    SetTable(SetTable),
    /// Remove entries.
    ClearTable(ClearTable),
    /// Peers sections.
    ShowPeers(ShowPeers),
    /// The process.
    ShowInfo(InfoFormat),
    /// Listeners.
    ShowStat(ShowStat),
    /// Protocol errors.
    ShowErrors(ShowErrors),
    /// Environment variables, or one of them.
    ShowEnv(Option<Vec<u8>>),
    /// Silence for this long, in ms.
    Wait(u64),
    /// Forget the highest values of listeners, or with true what they have counted, too.
    ClearCounters(bool),
}

/// What a parsed command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An empty reply.
    Nothing,
    /// The end of the connection.
    Quit,
    /// `prompt` and its words.
    Prompt(Vec<Vec<u8>>),
    /// A lower level.
    Lower(CliLevel),
    /// Another inactivity timeout, in ms.
    Timeout(u64),
    /// How severities are shown from now on.
    Severity(SeverityOutput),
    /// A message of severity *info*.
    Info(Vec<u8>),
    /// Text that carries no severity.
    Text(String),
    /// Something for the caller.
    Run(Command),
}

const MAPS: &str = "# id (file) description\n";
const BACKENDS: &str = "# name\n";
const SERVERS_CONN: &str = "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max \
                            need_est unsafe_nb safe_nb idle_lim idle_cur idle_per_thr[1]\n";
const SERVERS_STATE: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state \
srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status \
srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id \
srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr \
srv_agent_addr srv_agent_port\n";

/// Parses one command; no words are an empty one.
pub(super) fn parse(words: &[Vec<u8>], cx: &Context<'_>) -> Result<Outcome, CliError> {
    let names: Vec<&[u8]> = words.iter().take(3).map(Vec::as_slice).collect();
    let from = |at: usize| words.get(at..).unwrap_or(&[]);
    Ok(match names.as_slice() {
        [] => Outcome::Nothing,
        [b"quit", ..] => Outcome::Quit,
        [b"prompt", ..] => Outcome::Prompt(from(1).to_vec()),
        [b"help", ..] => Outcome::Info(help::CATALOG.help(from(1)).into_bytes()),
        [b"echo", ..] => Outcome::Info(from(1).join(&b' ')),
        [b"operator", ..] => lower(CliLevel::Operator, cx)?,
        [b"user", ..] => lower(CliLevel::User, cx)?,
        [b"show", ..] => return show(words, &names[1..], cx),
        [b"set", b"table", ..] => match set_table::parse(from(2), cx)? {
            None => Outcome::Nothing,
            Some(command) => Outcome::Run(command),
        },
        [b"clear", b"table", ..] => Outcome::Run(clear_table::parse(from(2), cx)?),
        [b"clear", b"counters", ..] => Outcome::Run(clear_counters(from(2), cx)?),
        [b"wait", ..] => Outcome::Run(wait::parse(from(1), cx)?),
        [b"set", b"timeout", ..] => Outcome::Timeout(timeout::parse(from(2))?),
        [b"set", b"severity-output", ..] => Outcome::Severity(severity(from(2))?),
        _ => unknown(words),
    })
}

fn show(words: &[Vec<u8>], names: &[&[u8]], cx: &Context<'_>) -> Result<Outcome, CliError> {
    let from = |at: usize| words.get(at..).unwrap_or(&[]);
    let text = |text: &str| Ok(Outcome::Text(text.to_owned()));
    let command = match names {
        [b"table", ..] => show_table::parse(from(2), cx)?,
        [b"peers", ..] => Command::ShowPeers(show_peers::parse(from(2))),
        [b"info", ..] => Command::ShowInfo(show_info::parse(from(2))),
        [b"stat", ..] => Command::ShowStat(show_stat::parse(from(2))?),
        [b"errors", ..] => {
            cx.operator()?;
            Command::ShowErrors(show_errors::parse(from(2)))
        }
        [b"env", ..] => {
            cx.operator()?;
            Command::ShowEnv(from(2).first().cloned())
        }
        [b"version", ..] => return Ok(Outcome::Info(cx.facts.version.clone().into_bytes())),
        [b"cli", b"level", ..] => return Ok(Outcome::Info(level_name(cx.level).into())),
        [b"cli", b"sockets", ..] => return Ok(Outcome::Text(sockets(&cx.facts.sockets))),
        [b"startup-logs", ..] => {
            // An empty line would end the reply.
            let lines = cx.facts.startup_logs.lines().filter(|line| !line.is_empty());
            return Ok(Outcome::Text(lines.flat_map(|line| [line, "\n"]).collect()));
        }
        // What a peers node has none of.
        [b"acl" | b"map", ..] => return text(MAPS),
        [b"backend", ..] => return text(BACKENDS),
        [b"servers", b"conn", ..] => return text(SERVERS_CONN),
        [b"servers", b"state", ..] => return text(SERVERS_STATE),
        [b"resolvers", ..] => return Ok(Outcome::Nothing),
        [b"sess", ..] => {
            cx.operator()?;
            return Ok(Outcome::Nothing);
        }
        _ => return Ok(unknown(words)),
    };
    Ok(Outcome::Run(command))
}

fn unknown(words: &[Vec<u8>]) -> Outcome {
    Outcome::Info(help::CATALOG.unknown(words).into_bytes())
}

/// Words it does not know mean nothing, as with HAProxy.
fn clear_counters(words: &[Vec<u8>], cx: &Context<'_>) -> Result<Command, CliError> {
    let all = words.first().is_some_and(|word| word == b"all");
    let needs = if all { CliLevel::Admin } else { CliLevel::Operator };
    if cx.level < needs { Err(CliError::PermissionDenied) } else { Ok(Command::ClearCounters(all)) }
}

fn lower(level: CliLevel, cx: &Context<'_>) -> Result<Outcome, CliError> {
    if cx.level < level { Err(CliError::PermissionDenied) } else { Ok(Outcome::Lower(level)) }
}

fn severity(words: &[Vec<u8>]) -> Result<SeverityOutput, CliError> {
    Ok(match words.first().map(Vec::as_slice) {
        Some(b"none") => SeverityOutput::None,
        Some(b"number") => SeverityOutput::Number,
        Some(b"string") => SeverityOutput::String,
        _ => return Err(CliError::SeverityUsage),
    })
}

/// A level as the configuration and `show cli level` spell it.
pub fn level_name(level: CliLevel) -> &'static str {
    match level {
        CliLevel::User => "user",
        CliLevel::Operator => "operator",
        CliLevel::Admin => "admin",
    }
}

/// `show cli sockets`: addresses and their levels.
pub(crate) fn sockets(sockets: &[(String, CliLevel)]) -> String {
    let lines = sockets.iter().map(|(name, level)| {
        let level = level_name(*level);
        format!("{name} {level} all\n")
    });
    std::iter::once("# socket lvl processes\n".to_owned()).chain(lines).collect()
}
