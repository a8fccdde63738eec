//! The `stickring` section: what HAProxy has no words for. Usually in a second `-f` file.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use crate::config::builder::{Builder, Current};
use crate::config::global::{self, extra};
use crate::config::reader::Line;
use crate::config::values;
use crate::config::{AcceptFrom, Diagnostics, EngineChoice, MemoryChoice};
use crate::limits::{ACCEPT_NETWORKS_MAX, AUTO_TABLE_SIZE_DEFAULT, DYNAMIC_PEERS_MAX};

/// The `stickring` line.
pub(crate) fn header(b: &mut Builder<'_>, line: &Line, diags: &mut Diagnostics) {
    b.current = Current::Stickring;
    extra(line, 1, diags);
    b.stickring_at.get_or_insert_with(|| line.at.clone());
}

/// A line inside.
pub(crate) fn line(b: &mut Builder<'_>, line: &Line, diags: &mut Diagnostics) {
    if line.word(0) == "stats" && line.word(1) == "socket" {
        b.own_sockets.extend(global::stats_socket(b, line, diags));
        return;
    }
    let section = &mut b.config.stickring;
    let result = match line.word(0) {
        "auto-tables" => auto_tables(line).map(|size| section.auto_tables = Some(size)),
        "accept-peers" => accept_peers(line).and_then(|(networks, max)| {
            section.accept_peers.extend(networks);
            if let Some(max) = max {
                section.accept_peers_max = max;
            }
            match section.accept_peers.len() > ACCEPT_NETWORKS_MAX {
                true => Err(format!("more than {ACCEPT_NETWORKS_MAX} networks")),
                false => Ok(()),
            }
        }),
        "engine" if extra(line, 2, diags) => Ok(()),
        "engine" => match line.word(1) {
            "auto" => set(&mut section.engine, EngineChoice::Auto),
            "uring" => set(&mut section.engine, EngineChoice::Uring),
            "epoll" => set(&mut section.engine, EngineChoice::Epoll),
            got => Err(format!("only 'auto', 'uring' and 'epoll' are known (got '{got}')")),
        },
        "memory" if extra(line, 2, diags) => Ok(()),
        "memory" => match line.word(1) {
            "auto" => set(&mut section.memory, MemoryChoice::Auto),
            "memfd" => set(&mut section.memory, MemoryChoice::Memfd),
            "anonymous" => set(&mut section.memory, MemoryChoice::Anonymous),
            got => Err(format!("only 'auto', 'memfd' and 'anonymous' are known (got '{got}')")),
        },
        "pin" if extra(line, 2, diags) => Ok(()),
        "pin" => match line.word(1) {
            "on" => set(&mut section.pin, true),
            "off" => set(&mut section.pin, false),
            got => Err(format!("expects 'on' or 'off' (got '{got}')")),
        },
        "instant-reload" if extra(line, 2, diags) => Ok(()),
        "instant-reload" => match line.word(1) {
            "on" => set(&mut section.instant_reload, true),
            "off" => set(&mut section.instant_reload, false),
            got => Err(format!("expects 'on' or 'off' (got '{got}')")),
        },
        other => {
            let text = format!("unknown keyword '{other}' in 'stickring' section");
            return diags.alert(line.says(text));
        }
    };
    if let Err(text) = result {
        diags.alert(line.says(format!("'{}' : {text}.", line.word(0))));
    }
}

fn set<T>(place: &mut T, value: T) -> Result<(), String> {
    *place = value;
    Ok(())
}

fn auto_tables(line: &Line) -> Result<u64, String> {
    match (line.word(1), line.words.len()) {
        (_, 1) => Ok(AUTO_TABLE_SIZE_DEFAULT),
        ("size", 3) => match values::size(line.word(2)) {
            Ok(size) if size > 0 => Ok(size),
            _ => Err(format!("'{}' is not a size", line.word(2))),
        },
        _ => Err("expects nothing or 'size <entries>'".into()),
    }
}

fn accept_peers(line: &Line) -> Result<(Vec<AcceptFrom>, Option<u32>), String> {
    let mut networks = Vec::new();
    let mut max = None;
    let mut words = line.words[1..].iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word != "max" {
            networks.push(network(word)?);
            continue;
        }
        let text = words.next().unwrap_or_default();
        match text.parse::<u32>() {
            Ok(n) if (1..=DYNAMIC_PEERS_MAX).contains(&(n as usize)) => max = Some(n),
            _ => {
                return Err(format!(
                    "'max' expects a number from 1 to {DYNAMIC_PEERS_MAX} (got '{text}')"
                ));
            }
        }
    }
    if networks.is_empty() {
        return Err("expects at least one network (10.0.0.0/8, fd00::/8, ::1) or 'unix'".into());
    }
    Ok((networks, max))
}

fn network(word: &str) -> Result<AcceptFrom, String> {
    let wrong = || format!("'{word}' is no network such as 10.0.0.0/8, fd00::/8 or ::1");
    if word == "unix" {
        return Ok(AcceptFrom::Unix);
    }
    let (ip, bits) = word.split_once('/').map_or((word, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
    let all = if ip.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => all,
        Some(text) => text.parse().ok().filter(|bits| *bits <= all).ok_or_else(wrong)?,
    };
    Ok(AcceptFrom::Network(ip, bits))
}
