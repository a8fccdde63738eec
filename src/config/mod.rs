//! haproxy.cfg text in, [`Config`] out.
//!
//! *What*: HAProxy's configuration language for the parts a peers node can mean: `global`, `peers`,
//! `stick-table … peers X` wherever it stands, and our own `stickring` section. Everything else in
//! the file is skipped with one notice, so that the node can be pointed at HAProxy's own file.
//! *Owns*: the language and its messages. *Called by*: start-up, once, and `-c`.
//! *Rule*: no file, no environment, no name service is touched here; the caller passes file
//! contents ([`Source`]) and answers questions ([`Host`]). Every error is reported, not the first
//! one only.
#![forbid(unsafe_code)]

mod address;
mod bind;
mod builder;
mod conditions;
mod default;
mod diagnostics;
mod environment;
mod finish;
mod global;
mod lexer;
mod log;
mod peers;
mod proxies;
mod reader;
mod render;
mod server;
mod stick_table;
mod stickring;
#[cfg(test)]
pub(crate) mod testing;
mod types;
pub(crate) mod values;

use std::collections::BTreeSet;

use builder::{Builder, Current};
use environment::Environment;
use global::Seen;
use reader::Line;

pub use address::{Address, TcpAddress};
pub use default::embedded_default;
pub use diagnostics::{Diagnostic, Diagnostics, Severity, opening};
pub use render::render;
pub use types::{
    AcceptFrom, BindSpec, CliLevel, Config, EngineChoice, Location, LogFormat, LogTarget,
    MemoryChoice, PeerSpec, PeersSection, SeverityOutput, StatsSocketSpec, StickringSection,
    TableDecl, UnixOptions,
};

/// One configuration file: its name for messages, and its bytes.
#[derive(Clone, Debug)]
pub struct Source {
    /// As given on the command line.
    pub name: String,
    /// Its contents.
    pub text: Vec<u8>,
}

/// What the configuration may ask about the machine it is read on.
pub trait Host {
    /// An environment variable.
    fn env(&self, name: &str) -> Option<String>;
    /// The first address of a host name; `v6` restricts the family (`ipv4@name`, `ipv6@name`).
    fn resolve(&self, name: &str, v6: Option<bool>) -> Option<std::net::IpAddr>;
    /// A user's number.
    fn uid(&self, user: &str) -> Option<u32>;
    /// A group's number.
    fn gid(&self, group: &str) -> Option<u32>;
    /// The machine's name: the local peer's name where nothing else says one.
    fn hostname(&self) -> String;
}

/// What the command line says about reading.
#[derive(Clone, Debug, Default)]
pub struct ParseOptions {
    /// `-L`: our name among peers, over `localpeer`.
    pub localpeer: Option<String>,
    /// `-dr`: a name that cannot be resolved is no error; its address stays unspecified (0.0.0.0 or
    /// ::) with the name kept, to be resolved before dialling.
    pub ignore_dns: bool,
}

/// What came of reading.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The configuration; `None` exactly when there are alerts.
    pub config: Option<Config>,
    /// Everything to be said about it.
    pub diagnostics: Diagnostics,
}

/// What HAProxy's `-S` takes: an address, and parameters of a `bind` line behind commas. The error
/// says what is wrong with them.
pub fn master_socket(text: &str, host: &dyn Host) -> Result<StatsSocketSpec, String> {
    // Everything may be done there, unless a level is given.
    let words = text.replace(',', " ");
    let (address, parameters) = words.split_once(' ').unwrap_or((&words, ""));
    let line = format!("global\n    stats socket {address} level admin {parameters}\n");
    let source = Source { name: "-S".to_owned(), text: line.into_bytes() };
    let options = ParseOptions::default();
    let mut diags = Diagnostics::default();
    let mut env = Environment::new(host, "");
    let mut builder = Builder::new(host, &options, String::new());
    reader::read(&source, &mut env, &mut diags, &mut |line, env, diags| {
        one_line(&mut builder, &line, env, diags);
    });
    if let Some(alert) = diags.iter().find(|d| d.severity == Severity::Alert) {
        return Err(alert.text.clone());
    }
    builder.config.stats_sockets.pop().ok_or_else(|| "no address".to_owned())
}

/// Reads `sources` in order as one configuration.
///
/// HAProxy 3.x learns the local peer's name before it reads any `peers` section, wherever
/// `localpeer` stands and the last one winning; so a first pass looks for it alone.
pub fn parse(sources: &[Source], host: &dyn Host, options: &ParseOptions) -> Parsed {
    let localpeer = find_localpeer(sources, host, options);
    let mut diags = Diagnostics::default();
    let mut env = Environment::new(host, &localpeer);
    let mut builder = Builder::new(host, options, localpeer);
    let mut wrong = false;
    for source in sources {
        let before = diags.alerts();
        let mut skipped = Skipped::default();
        builder.current = Current::Outside;
        reader::read(source, &mut env, &mut diags, &mut |line, env, diags| {
            let seen = one_line(&mut builder, &line, env, diags);
            if seen == Seen::Skipped {
                skipped.add(&builder, &line);
            }
        });
        skipped.tell(&source.name, &mut diags);
        if diags.alerts() > before {
            wrong = true;
            diags.alert(format!("config : Error(s) found in configuration file : {}", source.name));
        }
    }
    if wrong {
        // What is missing may stand on a line that was refused: only what is surely wrong is said.
        let mut cross = Diagnostics::default();
        finish::finish(&mut builder, &mut cross);
        for d in cross.iter().filter(|d| d.severity == Severity::Alert) {
            diags.alert(d.text.clone());
        }
        diags.alert("config : Fatal errors found in configuration.");
        return Parsed { config: None, diagnostics: diags };
    }
    finish::finish(&mut builder, &mut diags);
    if diags.has_alerts() {
        diags.alert("Fatal errors found in configuration.");
        return Parsed { config: None, diagnostics: diags };
    }
    Parsed { config: Some(builder.config), diagnostics: diags }
}

fn find_localpeer(sources: &[Source], host: &dyn Host, options: &ParseOptions) -> String {
    if let Some(name) = &options.localpeer {
        return name.clone();
    }
    let mut localpeer = host.hostname();
    let mut env = Environment::new(host, &localpeer);
    let mut in_global = false;
    // What is wrong is said by the second pass.
    let mut unheard = Diagnostics::default();
    for source in sources {
        reader::read(source, &mut env, &mut unheard, &mut |line, env, _| {
            if is_section(line.word(0)) {
                in_global = line.word(0) == "global";
            } else if in_global && let Some(name) = global::variables(&line, env, None) {
                env.set("HAPROXY_LOCALPEER", &name);
                localpeer = name;
            }
        });
    }
    localpeer
}

/// Words that start a section: HAProxy's, up to 3.5, and ours.
fn is_section(word: &str) -> bool {
    const SECTIONS: &[&str] = &[
        "acme",
        "backend",
        "cache",
        "crt-store",
        "defaults",
        "fcgi-app",
        "frontend",
        "global",
        "healthcheck",
        "http-errors",
        "listen",
        "log-forward",
        "log-profile",
        "mailers",
        "namespace_list",
        "peers",
        "program",
        "resolvers",
        "ring",
        "stickring",
        "traces",
        "userlist",
    ];
    SECTIONS.binary_search(&word).is_ok()
}

fn one_line(
    b: &mut Builder<'_>,
    line: &Line,
    env: &mut Environment<'_>,
    diags: &mut Diagnostics,
) -> Seen {
    let keyword = line.word(0);
    if line.not_utf8 && (b.current != Current::Skipped || is_section(keyword)) {
        return refuse_bytes(b, line, diags);
    }
    match keyword {
        "global" => {
            b.current = Current::Global;
            global::extra(line, 1, diags);
        }
        "peers" => peers::header(b, line, diags),
        "stickring" => stickring::header(b, line, diags),
        "defaults" | "frontend" | "backend" | "listen" => proxies::header(b, line),
        _ if is_section(keyword) => {
            b.current = Current::Skipped;
            return Seen::Skipped;
        }
        _ => match b.current.clone() {
            Current::Outside => diags.alert(format!(
                "config : parsing [{}]: unknown keyword '{keyword}' out of section.",
                line.at
            )),
            Current::Global => return global::line(b, line, env, diags),
            Current::Peers(index) => {
                let before = diags.alerts();
                peers::line(b, index, line, diags);
                b.sections[index].broken |= diags.alerts() > before;
            }
            Current::Defaults(name) => return proxies::defaults_line(b, &name, line, diags),
            Current::Proxy(index) => return proxies::line(b, index, line, diags),
            Current::Stickring => stickring::line(b, line, diags),
            Current::Skipped => return Seen::Skipped,
        },
    }
    Seen::Ours
}

/// A line with bytes that are not UTF-8: harmless where the line is not for us.
fn refuse_bytes(b: &mut Builder<'_>, line: &Line, diags: &mut Diagnostics) -> Seen {
    let ours = match b.current {
        _ if is_section(line.word(0)) => true,
        Current::Proxy(_) | Current::Defaults(_) => line.word(0) == "stick-table",
        Current::Skipped => false,
        _ => true,
    };
    if !ours {
        return Seen::Skipped;
    }
    diags.alert(line.says("this line has bytes that are not UTF-8."));
    Seen::Ours
}

/// Lines of a file that are HAProxy's business alone.
#[derive(Default)]
struct Skipped {
    lines: u64,
    sections: BTreeSet<String>,
}

impl Skipped {
    fn add(&mut self, b: &Builder<'_>, line: &Line) {
        self.lines += 1;
        let name = match &b.current {
            Current::Global => "global",
            Current::Defaults(_) => "defaults",
            Current::Proxy(index) if b.proxies[*index].kind == "proxy" => "listen",
            Current::Proxy(index) => b.proxies[*index].kind,
            _ if is_section(line.word(0)) => line.word(0),
            _ => return,
        };
        if !self.sections.contains(name) {
            self.sections.insert(name.to_owned());
        }
    }

    fn tell(self, file: &str, diags: &mut Diagnostics) {
        if self.lines == 0 {
            return;
        }
        let lines = match self.lines {
            1 => "1 line".to_owned(),
            n => format!("{n} lines"),
        };
        let sections = Vec::from_iter(self.sections).join(", ");
        diags.notice(format!(
            "config : [{file}] : {lines} skipped that a peers node has no use for ({sections})."
        ));
    }
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
