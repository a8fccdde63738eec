//! A configuration back into text that reads as the same configuration.
//!
//! Canonical rather than faithful: defaults are applied, addresses resolved, peers in `bind` and
//! `server` form. *Keeps*: what was accepted and rendered is accepted again, and is equal.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::config::log::{FACILITIES, FORMATS, LEVELS};
use crate::config::types::StatsSocketSpec;
use crate::config::{
    AcceptFrom, Address, BindSpec, CliLevel, Config, EngineChoice, LogTarget, MemoryChoice,
    PeerSpec, PeersSection, SeverityOutput, StickringSection, TableDecl, address, lexer,
    stick_table,
};

/// The text of `config`.
pub fn render(config: &Config) -> String {
    let mut out = String::new();
    global(&mut out, config);
    let mut next = 0;
    // Sections and tables each keep their order: a section is written when the first of its own
    // tables is due, with those before it that have none left.
    for table in &config.tables {
        match table.section {
            Some(index) if own_table(config, table) => {
                while next <= index {
                    section(&mut out, config, next);
                    next += 1;
                }
            }
            _ => proxy_table(&mut out, config, table),
        }
    }
    while next < config.peers.len() {
        section(&mut out, config, next);
        next += 1;
    }
    stickring(&mut out, &config.stickring);
    out
}

/// A `table` line of the section it is shared through, rather than a proxy's `stick-table`.
fn own_table(config: &Config, table: &TableDecl) -> bool {
    table.section.is_some_and(|i| {
        let prefix = &config.peers[i].name;
        table.spec.wire_name.starts_with('/')
            && table.spec.name.strip_prefix(prefix.as_str()) == Some(&table.spec.wire_name)
    })
}

fn global(out: &mut String, config: &Config) {
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line("global".into());
    line(format!("    localpeer {}", lexer::quote(&config.localpeer)));
    if let Some(n) = config.nbthread {
        line(format!("    nbthread {n}"));
    }
    line(format!("    tune.bufsize {}", config.bufsize));
    if let Some(n) = config.max_updates_at_once {
        line(format!("    tune.peers.max-updates-at-once {n}"));
    }
    if let Some(ms) = config.hard_stop_after_ms {
        line(format!("    hard-stop-after {ms}ms"));
    }
    if let Some(n) = config.max_reloads {
        line(format!("    mworker-max-reloads {n}"));
    }
    if let Some(path) = &config.pidfile {
        line(format!("    pidfile {}", lexer::quote(path)));
    }
    if let Some(node) = &config.node {
        line(format!("    node {node}"));
    }
    line(format!("    stats timeout {}ms", config.stats_timeout_ms));
    line(format!("    stats maxconn {}", config.stats_maxconn));
    for socket in &config.stats_sockets {
        line(format!("    stats socket {}", stats_socket(socket)));
    }
    for target in &config.logs {
        line(format!("    log {}", log(target)));
    }
}

fn stats_socket(socket: &StatsSocketSpec) -> String {
    let mut out = bind(&socket.bind);
    let level = match socket.level {
        CliLevel::User => "user",
        CliLevel::Operator => "operator",
        CliLevel::Admin => "admin",
    };
    let _ = write!(out, " level {level}");
    match socket.severity_output {
        SeverityOutput::None => {}
        SeverityOutput::Number => out.push_str(" severity-output number"),
        SeverityOutput::String => out.push_str(" severity-output string"),
    }
    if socket.expose_fd_listeners {
        out.push_str(" expose-fd listeners");
    }
    out
}

/// Addresses and parameters of a `bind` line.
fn bind(spec: &BindSpec) -> String {
    let addresses: Vec<String> = spec.addresses.iter().map(Address::to_string).collect();
    let mut out = lexer::quote(&addresses.join(","));
    if let Some(name) = &spec.name {
        let _ = write!(out, " name {}", lexer::quote(name));
    }
    if let Some(n) = spec.backlog {
        let _ = write!(out, " backlog {n}");
    }
    if spec.maxconn > 0 {
        let _ = write!(out, " maxconn {}", spec.maxconn);
    }
    match spec.v6only {
        Some(true) => out.push_str(" v6only"),
        Some(false) => out.push_str(" v4v6"),
        None => {}
    }
    if let Some(device) = &spec.interface {
        let _ = write!(out, " interface {}", lexer::quote(device));
    }
    if spec.transparent {
        out.push_str(" transparent");
    }
    if let Some(mode) = spec.unix.mode {
        let _ = write!(out, " mode {mode:o}");
    }
    if let Some(uid) = spec.unix.uid {
        let _ = write!(out, " uid {uid}");
    }
    if let Some(gid) = spec.unix.gid {
        let _ = write!(out, " gid {gid}");
    }
    out
}

fn log(target: &LogTarget) -> String {
    let place = match &target.address {
        Address::Fd(1) => "stdout".to_owned(),
        Address::Fd(2) => "stderr".to_owned(),
        other => address::word(other),
    };
    let format = FORMATS.iter().find(|(_, f)| *f == target.format).map_or("rfc3164", |(n, _)| n);
    let name = |list: &[&'static str], i: u8| list.get(usize::from(i)).copied().unwrap_or("");
    format!(
        "{place} len {} format {format} {} {} {}",
        target.max_len,
        name(&FACILITIES, target.facility),
        name(&LEVELS, target.max_level),
        name(&LEVELS, target.min_level)
    )
}

fn section(out: &mut String, config: &Config, index: usize) {
    let section: &PeersSection = &config.peers[index];
    let _ = writeln!(out, "\npeers {}", section.name);
    if section.shards > 0 {
        let _ = writeln!(out, "    shards {}", section.shards);
    }
    if let Some(spec) = &section.bind {
        let _ = writeln!(out, "    bind {}", bind(spec));
    }
    server(out, &section.local, false);
    for peer in &section.remotes {
        server(out, peer, true);
    }
    for target in &section.logs {
        let _ = writeln!(out, "    log {}", log(target));
    }
    for table in config.tables.iter().filter(|t| t.section == Some(index)) {
        if own_table(config, table) {
            let short = lexer::quote(&table.spec.wire_name[1..]);
            let _ = writeln!(out, "    table {short} {}", stick_table::render(&table.spec));
        }
    }
}

fn server(out: &mut String, peer: &PeerSpec, remote: bool) {
    let _ = write!(out, "    server {}", peer.name);
    if let (true, Some(place)) = (remote, &peer.address) {
        let _ = write!(out, " {}", address::word(place));
    }
    if let Some(source) = &peer.source {
        let _ = write!(out, " source {}", address::word(source));
        if let Some(device) = &peer.source_interface {
            let _ = write!(out, " interface {}", lexer::quote(device));
        }
    }
    if peer.shard > 0 {
        let _ = write!(out, " shard {}", peer.shard);
    }
    if peer.disabled {
        out.push_str(" disabled");
    }
    out.push('\n');
}

fn proxy_table(out: &mut String, config: &Config, table: &TableDecl) {
    let _ = writeln!(out, "\nbackend {}", lexer::quote(&table.spec.name));
    let _ = write!(out, "    stick-table {}", stick_table::render(&table.spec));
    if let Some(index) = table.section {
        let _ = write!(out, " peers {}", config.peers[index].name);
    }
    out.push('\n');
}

fn stickring(out: &mut String, section: &StickringSection) {
    out.push_str("\nstickring\n");
    if let Some(size) = section.auto_tables {
        let _ = writeln!(out, "    auto-tables size {size}");
    }
    for (i, from) in section.accept_peers.iter().enumerate() {
        let place = match from {
            AcceptFrom::Unix => "unix".to_owned(),
            AcceptFrom::Network(ip, bits) => format!("{ip}/{bits}"),
        };
        let max = match i {
            0 => format!(" max {}", section.accept_peers_max),
            _ => String::new(),
        };
        let _ = writeln!(out, "    accept-peers {place}{max}");
    }
    let engine = match section.engine {
        EngineChoice::Auto => "auto",
        EngineChoice::Uring => "uring",
        EngineChoice::Epoll => "epoll",
    };
    let _ = writeln!(out, "    engine {engine}");
    let memory = match section.memory {
        MemoryChoice::Auto => "auto",
        MemoryChoice::Memfd => "memfd",
        MemoryChoice::Anonymous => "anonymous",
    };
    let _ = writeln!(out, "    memory {memory}");
    let word = |on: bool| if on { "on" } else { "off" };
    let _ = writeln!(out, "    pin {}", word(section.pin));
    let _ = writeln!(out, "    instant-reload {}", word(section.instant_reload));
}
