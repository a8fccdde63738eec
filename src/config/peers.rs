//! `peers` sections.
//!
//! *Called by* [`super::parse`] for the header and each line. Both styles are read: `peer` lines
//! alone, or `bind` with `server` lines. What only shows once the section is complete is checked by
//! [`super::finish`].
#![forbid(unsafe_code)]

use crate::config::address::{self, Purpose};
use crate::config::bind::{self, BindError};
use crate::config::builder::{Builder, Current, Owner, SectionDraft, TableLine};
use crate::config::global::extra;
use crate::config::log::{self, LogLine};
use crate::config::reader::Line;
use crate::config::server::ServerError;
use crate::config::{Address, BindSpec, Diagnostics, Location, PeerSpec, UnixOptions, values};
use crate::limits::UNIX_PATH_MAX;

/// What HAProxy allows in names of peers and sections.
fn illegal_character(name: &str) -> Option<char> {
    name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')))
}

/// A `peers <name>` line.
pub(crate) fn header(b: &mut Builder<'_>, line: &Line, diags: &mut Diagnostics) {
    b.current = Current::Skipped;
    let name = line.word(1);
    if name.is_empty() {
        return diags.alert(line.says("missing name for peers section."));
    }
    if extra(line, 2, diags) {
        return;
    }
    if let Some(c) = illegal_character(name) {
        let text = format!("character '{c}' is not permitted in 'peers' name '{name}'.");
        return diags.alert(line.says(text));
    }
    if let Some(other) = b.sections.iter().find(|s| s.name == name) {
        diags.alert(format!(
            "config : Parsing [{}]: peers section '{name}' has the same name as another peers \
             section declared at {}.",
            line.at, other.at
        ));
    }
    b.current = Current::Peers(b.sections.len());
    b.sections.push(SectionDraft {
        name: name.to_owned(),
        at: line.at.clone(),
        ..SectionDraft::default()
    });
}

/// A line inside the section with index `index`.
pub(crate) fn line(b: &mut Builder<'_>, index: usize, line: &Line, diags: &mut Diagnostics) {
    match line.word(0) {
        "peer" => member(b, index, line, true, diags),
        "server" => member(b, index, line, false, diags),
        "bind" => bind_line(b, index, line, diags),
        "default-bind" => {
            let names = b.names();
            let section = &mut b.sections[index];
            if let Err(error) = section.default_bind.read(&line.words[1..], names) {
                diags.alert(line.says(bind_error("default-bind", line, &error)));
            }
        }
        "default-server" => {
            let names = b.names();
            let section = &mut b.sections[index];
            if let Err(error) = section.default_server.read(&line.words[1..], names) {
                let text = match error {
                    ServerError::Unknown(word) => format!(
                        "unknown keyword '{word}'. Hint: no address was expected for this server."
                    ),
                    ServerError::Invalid(text) => text,
                };
                diags.alert(format!("config : [{}] : {text}", line.at));
            }
        }
        "table" => table(b, index, line, diags),
        "shards" => shards(b, index, line, diags),
        "disabled" => b.sections[index].disabled = true,
        "enabled" => b.sections[index].disabled = false,
        "log" => match log::parse(&line.words[1..], b.names()) {
            Ok(LogLine::Target(target)) => b.sections[index].logs.push(target),
            Ok(LogLine::Global) => b.sections[index].logs.extend_from_slice(&b.config.logs),
            Ok(LogLine::Unsupported(what)) => {
                diags.warning(line.says(format!("log : {what} are not supported, ignored.")));
            }
            Err(text) => diags.alert(line.says(format!("log : {text}"))),
        },
        "no" if line.word(1) == "log" => b.sections[index].logs.clear(),
        other => diags.alert(line.says(format!("unknown keyword '{other}' in 'peers' section"))),
    }
}

fn table(b: &mut Builder<'_>, index: usize, line: &Line, diags: &mut Diagnostics) {
    let short = line.word(1);
    let section = &b.sections[index].name;
    let name = format!("{section}/{short}");
    let owner = format!("peers '{section}'");
    let declared = TableLine {
        word: "table",
        name: &name,
        wire_name: &format!("/{short}"),
        shown: short,
        words: line.words.get(2..).unwrap_or_default(),
        at: &line.at,
        owner,
    };
    b.add_table(declared, |_| Owner::Section(index), diags);
}

fn shards(b: &mut Builder<'_>, index: usize, line: &Line, diags: &mut Diagnostics) {
    let text = line.word(1);
    match values::integer(text) {
        _ if text.is_empty() => diags.alert(line.says("'shards' : missing value")),
        None => {
            let text = format!("'shards' : expects an integer argument, found '{text}'");
            diags.alert(line.says(text));
        }
        Some(n) => match u32::try_from(n) {
            Ok(n) if n > 0 => b.sections[index].shards = n,
            _ => {
                let text = "'shards' : expects a strictly positive integer argument";
                diags.alert(line.says(text));
            }
        },
    }
}

fn bind_error(keyword: &str, line: &Line, error: &BindError) -> String {
    let shown = match line.word(1) {
        "" => keyword.to_owned(),
        first => format!("{keyword} {first}"),
    };
    match error {
        BindError::Unknown(word) => {
            format!("'{shown}' in section 'peers': unknown keyword '{word}'.")
        }
        BindError::Invalid(text) => format!("'{shown}' in section 'peers' : {text}"),
    }
}

fn bind_line(b: &mut Builder<'_>, index: usize, line: &Line, diags: &mut Diagnostics) {
    let names = b.names();
    let section = &mut b.sections[index];
    section.bind_line = true;
    if section.peer_line {
        return diags.alert(line.says("mixing \"peer\" and \"bind\" line is forbidden"));
    }
    if let Some(other) = &section.bind {
        let text = format!(
            "One listener per \"peers\" section is authorized but another is already configured at \
             [{}].",
            other.at
        );
        return diags.alert(line.says(text));
    }
    let text = line.word(1);
    if text.is_empty() {
        return diags.alert(line.says("'bind' expects an address with a port as an argument."));
    }
    let addresses = match bind::addresses(text, names) {
        Ok(addresses) => addresses,
        Err(error) => return diags.alert(line.says(format!("'bind {text}' : {error}"))),
    };
    if addresses.len() > 1 {
        return diags.alert(line.says(
            "Only one listener per \"peers\" section is authorized. Multiple listening addresses \
             or port range are not supported.",
        ));
    }
    let mut parameters = section.default_bind.clone();
    if let Err(error) = parameters.read(&line.words[2..], names) {
        return diags.alert(line.says(bind_error("bind", line, &error)));
    }
    let spec = parameters.spec(addresses, line.at.clone());
    let (refused, ignored) = (parameters.refused, parameters.ignored);
    b.sections[index].ignored.extend(ignored);
    refuse_bind(b, index, &refused, &line.at, &format!("bind {text}"));
    b.sections[index].bind = Some(with_unix_defaults(b, spec, line, diags));
}

fn refuse_bind(b: &mut Builder<'_>, index: usize, refused: &[&str], at: &Location, shown: &str) {
    for word in refused {
        let text = match *word {
            "ssl" => {
                "TLS on peers is not supported in this version: nothing is started rather than \
                      listening in clear text."
                    .to_owned()
            }
            "accept-proxy" | "accept-netscaler-cip" => format!(
                "'{word}' is not supported in this version: peers would be refused at their first \
                line."
            ),
            word => format!("'{word}' is not supported in this version."),
        };
        b.sections[index].refused.push(format!("config : parsing [{at}] : '{shown}' : {text}"));
    }
}

/// `unix-bind` of the global section, under what the line itself says.
fn with_unix_defaults(
    b: &Builder<'_>,
    mut spec: BindSpec,
    line: &Line,
    diags: &mut Diagnostics,
) -> BindSpec {
    for address in &mut spec.addresses {
        if let Address::Unix(path) | Address::Abns(path) = address
            && path.contains(',')
        {
            // `bind` has no way to write it, so the two styles would not mean the same.
            diags.alert(line.says(format!("'{path}' : a comma is not possible in this path.")));
        }
        if let Address::Unix(path) = address {
            path.insert_str(0, &b.unix_prefix);
            if path.len() >= UNIX_PATH_MAX || b.unix_prefix.contains(',') {
                let text =
                    format!("'{path}' : invalid socket path with the prefix of 'unix-bind'.");
                diags.alert(line.says(text));
            }
            let UnixOptions { mode, uid, gid } = b.unix_defaults;
            spec.unix.mode = spec.unix.mode.or(mode);
            spec.unix.uid = spec.unix.uid.or(uid);
            spec.unix.gid = spec.unix.gid.or(gid);
        }
    }
    spec
}

/// A `peer` or `server` line.
fn member(b: &mut Builder<'_>, index: usize, line: &Line, is_peer: bool, diags: &mut Diagnostics) {
    let (keyword, name) = (line.word(0), line.word(1));
    let local = name == b.config.localpeer;
    let localpeer = b.config.localpeer.clone();
    let names = b.names();
    let section = &mut b.sections[index];
    if is_peer {
        section.peer_line = true;
        if section.bind_line {
            return diags.alert(line.says("mixing \"peer\" and \"bind\" line is forbidden"));
        }
    }
    let server = format!("config : [{}] : 'server {localpeer}/{name}' : ", line.at);
    if let Some(c) = illegal_character(name) {
        let text = format!("character '{c}' is not permitted in peer name '{name}'.");
        return diags.alert(format!("config : [{}] : {text}", line.at));
    }
    let addressed = is_peer || !local;
    if name.is_empty() || (addressed && line.words.len() < 3) {
        return diags.warning(line.says(format!(
            "'{keyword} {name}' : ignoring invalid peer definition (missing address:port)"
        )));
    }
    if let (true, Some(other)) = (local, &section.local) {
        return diags.alert(line.says(format!(
            "'{keyword} {name}' : local peer name already referenced at {}.",
            other.at
        )));
    }
    let mut address = None;
    if addressed {
        let purpose = if local { Purpose::ListenAndDial } else { Purpose::Dial };
        match address::parse(line.word(2), purpose, names) {
            Ok(list) => address = list.into_iter().next(),
            Err(text) => return diags.alert(format!("{server}{text}")),
        }
    }
    let mut parameters = section.default_server.clone();
    let hint = if addressed { "" } else { " Hint: no address was expected for this server." };
    match parameters.read(&line.words[if addressed { 3 } else { 2 }..], names) {
        Ok(()) => {}
        Err(ServerError::Unknown(word)) => {
            return diags.alert(format!("{server}unknown keyword '{word}'.{hint}"));
        }
        Err(ServerError::Invalid(text)) => return diags.alert(format!("{server}{text}")),
    }
    if parameters.checks {
        diags.warning(line.says(format!(
            "'{keyword} {name}' : init_addr, resolvers, check and agent are ignored for peers."
        )));
    }
    if let Some(odd) = &parameters.odd_shard {
        diags.warning(line.says(format!(
            "'{keyword} {name}' : shard '{odd}' is not a number, 0 (all keys) is used."
        )));
    }
    if parameters.disabled {
        diags.notice(line.says(format!(
            "'{keyword} {name}' : disabled: neither dialled nor accepted here (HAProxy pays no \
            attention to the word)."
        )));
    }
    let refuse = |text: &str| format!("{server}{text}");
    if parameters.ssl {
        section.refused.push(refuse(
            "TLS on peers is not supported in this version: nothing is started rather than \
             talking in clear text.",
        ));
    }
    if parameters.send_proxy {
        section.refused.push(refuse("the PROXY protocol is not supported in this version."));
    }
    for word in &parameters.refused {
        section.refused.push(refuse(&format!("'{word}' is not supported in this version.")));
    }
    section.ignored.extend(&parameters.ignored);
    let peer = PeerSpec {
        name: name.to_owned(),
        address,
        source: parameters.source,
        source_interface: parameters.source_interface,
        shard: parameters.shard,
        disabled: parameters.disabled,
        at: line.at.clone(),
    };
    if local {
        add_local(b, index, peer, is_peer, line, diags);
    } else {
        section.remotes.push(peer);
    }
}

/// The local peer: with `peer`, its address is also where to listen.
fn add_local(
    b: &mut Builder<'_>,
    index: usize,
    mut peer: PeerSpec,
    is_peer: bool,
    line: &Line,
    diags: &mut Diagnostics,
) {
    if let (true, Some(address)) = (is_peer, peer.address.clone()) {
        let defaults = b.sections[index].default_bind.clone();
        let spec = defaults.spec(vec![address], line.at.clone());
        refuse_bind(b, index, &defaults.refused, &line.at, &format!("peer {}", peer.name));
        b.sections[index].ignored.extend(defaults.ignored);
        b.sections[index].bind = Some(with_unix_defaults(b, spec, line, diags));
        // Where a unix socket's prefix applies, the peer is reached behind it, too.
        peer.address = b.sections[index].bind.as_ref().and_then(|s| s.addresses.first().cloned());
    }
    b.sections[index].local = Some(peer);
}
