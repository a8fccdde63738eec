//! What can only be checked once everything is read: which sections take part, which tables are
//! shared through them, what `stick` rules add, where `write-to` leads.
//!
//! *Called by* [`super::parse`] last. *Keeps*: after it, every [`TableDecl`] is usable as it is.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};

use crate::config::builder::{Builder, Owner, SectionDraft, TableDraft};
use crate::config::stick_table::add_server_columns;
use crate::config::{Diagnostics, PeerSpec, PeersSection, TableDecl};

/// Completes `b.config`.
pub(crate) fn finish(b: &mut Builder<'_>, diags: &mut Diagnostics) {
    if !b.own_sockets.is_empty() {
        b.config.stats_sockets = std::mem::take(&mut b.own_sockets);
    }
    apply_stick_rules(b);
    let shared = shared_through(b, diags);
    write_targets(b, diags);
    let kept = sections(b, diags);
    tables(b, &shared, &kept);
    if b.config.peers.is_empty() && !diags.has_alerts() {
        diags.warning(format!(
            "config : no enabled 'peers' section has a peer named '{}': nothing to listen on, \
             nobody to talk to (see 'localpeer' and -L).",
            b.config.localpeer
        ));
    }
}

/// `stick` rules store the server's number and name into the table they use.
fn apply_stick_rules(b: &mut Builder<'_>) {
    let used: HashSet<&str> = b
        .sticks
        .iter()
        .filter(|(proxy, _)| !b.proxies[*proxy].disabled)
        .map(|(_, table)| table.as_str())
        .collect();
    for table in &mut b.tables {
        if used.contains(table.spec.name.as_str()) {
            add_server_columns(&mut table.spec);
        }
    }
}

/// For each table, the section (index in `b.sections`) it would be shared through.
fn shared_through(b: &Builder<'_>, diags: &mut Diagnostics) -> Vec<Option<usize>> {
    let mut shared = Vec::with_capacity(b.tables.len());
    for table in &b.tables {
        shared.push(match &table.owner {
            Owner::Section(index) => Some(*index),
            Owner::Proxy { proxy, .. } if b.proxies[*proxy].disabled => None,
            Owner::Proxy { peers: None, .. } => None,
            Owner::Proxy { peers: Some(wanted), .. } => {
                let found = b.sections.iter().position(|s| s.name == *wanted);
                let name = &table.spec.name;
                match found {
                    None => {
                        let text = format!("Proxy '{name}': unable to find sync peers '{wanted}'.");
                        diags.alert(text);
                    }
                    Some(i) if is_empty(&b.sections[i]) => diags.alert(format!(
                        "Proxy '{name}': unable to find local peer '{}' in peers section \
                        '{wanted}'.",
                        b.config.localpeer
                    )),
                    Some(_) => {}
                }
                found
            }
        });
    }
    shared
}

fn is_empty(section: &SectionDraft) -> bool {
    let SectionDraft { disabled, broken, local, remotes, .. } = section;
    !disabled && !broken && local.is_none() && remotes.is_empty()
}

/// Checks `write-to` in HAProxy's order: tables of peers sections from the last one, then proxies.
fn write_targets(b: &mut Builder<'_>, diags: &mut Diagnostics) {
    let by_name: HashMap<&str, usize> =
        b.tables.iter().enumerate().map(|(i, t)| (t.spec.name.as_str(), i)).collect();
    let of_section = |t: &TableDraft| matches!(t.owner, Owner::Section(_));
    let all = 0..b.tables.len();
    let order: Vec<usize> = all
        .clone()
        .rev()
        .filter(|i| of_section(&b.tables[*i]))
        .chain(all.filter(|i| !of_section(&b.tables[*i])))
        .collect();
    let mut to_itself = Vec::new();
    for i in order {
        let table = &b.tables[i];
        let Some(target) = &table.spec.write_to else { continue };
        let wrong = match by_name.get(target.as_str()) {
            None => format!("table '{target}' doesn't exist"),
            Some(t) if *t == i => {
                to_itself.push(i);
                continue;
            }
            Some(t) => match mismatch(&b.tables[*t], table) {
                Some(text) => text,
                None => continue,
            },
        };
        diags.alert(if of_section(table) {
            format!(
                "Parsing [{}]: failed to initialize '{}' stick-table: write-to: {wrong}.",
                table.at, table.spec.name
            )
        } else {
            let name = &table.spec.name;
            format!("Proxy '{name}': failed to initialize stick-table: write-to: {wrong}.")
        });
    }
    for i in to_itself {
        let TableDraft { spec, at, .. } = &mut b.tables[i];
        diags.warning(format!(
            "config : parsing [{at}] : table '{}' has itself as 'write-to', which does nothing.",
            spec.name
        ));
        spec.write_to = None;
    }
}

/// Why `target` cannot be written with entries of `table`.
fn mismatch(target: &TableDraft, table: &TableDraft) -> Option<String> {
    let (to, from) = (&target.spec, &table.spec);
    if to.write_to.is_some() {
        return Some(format!("table '{}' is already used as a source table", to.name));
    }
    let both = |what: &str, a: &dyn std::fmt::Display, b: &dyn std::fmt::Display, unit: &str| {
        format!(
            "cannot mix {what} ('{}' has '{a}' {unit} and '{}' has '{b}' {unit})",
            to.name, from.name
        )
    };
    if to.key_type != from.key_type {
        return Some(both("table types", &to.key_type.name(), &from.key_type.name(), "type"));
    }
    (to.key_len != from.key_len).then(|| both("key sizes", &to.key_len, &from.key_len, "key_size"))
}

/// Moves the sections that take part into the configuration; gives their index there by their index
/// in `b.sections`.
fn sections(b: &mut Builder<'_>, diags: &mut Diagnostics) -> Vec<Option<usize>> {
    let localpeer = &b.config.localpeer.clone();
    for section in b.sections.iter().rev() {
        if section.local.is_none() && !section.disabled {
            let name = &section.name;
            diags.warning(format!(
                "Removing incomplete section 'peers {name}' (no peer named '{localpeer}')."
            ));
        }
    }
    let mut kept = Vec::with_capacity(b.sections.len());
    for draft in std::mem::take(&mut b.sections) {
        let SectionDraft { local: Some(mut local), disabled: false, mut remotes, .. } = draft
        else {
            kept.push(None);
            continue;
        };
        draft.refused.into_iter().for_each(|text| diags.alert(text));
        tell_ignored(&draft.name, draft.ignored, diags);
        same_names(&remotes, localpeer, diags);
        let shards = draft.shards;
        for peer in remotes.iter_mut().chain([&mut local]) {
            if shards > 0 && peer.shard > shards {
                diags.warning(format!(
                    "config : parsing [{}] : 'peer {}' : {} peer shard greater value than {shards} \
                     shards value is ignored.",
                    peer.at, peer.name, peer.shard
                ));
                peer.shard = 0;
            }
        }
        if local.address.is_none() {
            local.address = draft.bind.as_ref().and_then(|bind| bind.addresses.first().cloned());
        }
        kept.push(Some(b.config.peers.len()));
        b.config.peers.push(PeersSection {
            name: draft.name,
            shards,
            bind: draft.bind,
            remotes,
            local,
            logs: draft.logs,
            at: draft.at,
        });
    }
    kept
}

/// Since 3.0 HAProxy wants each peer of a section to have a name of its own.
fn same_names(remotes: &[PeerSpec], localpeer: &str, diags: &mut Diagnostics) {
    let mut last: HashMap<&str, &PeerSpec> = HashMap::new();
    for peer in remotes.iter().rev() {
        if let Some(other) = last.insert(&peer.name, peer) {
            diags.alert(format!(
                "Peer section '{localpeer}' [{}]: another peer named '{}' was already defined at \
                 line {}, please use distinct names.",
                peer.at, peer.name, other.at
            ));
        }
    }
}

fn tell_ignored(section: &str, mut ignored: Vec<&'static str>, diags: &mut Diagnostics) {
    ignored.sort_unstable();
    ignored.dedup();
    if !ignored.is_empty() {
        let list = ignored.join("', '");
        diags.notice(format!(
            "config : peers section '{section}' : ignored, as they change nothing here: '{list}'."
        ));
    }
}

/// Moves the tables that are shared, and those they write to, into the configuration.
fn tables(b: &mut Builder<'_>, shared: &[Option<usize>], kept: &[Option<usize>]) {
    let section_of: Vec<Option<usize>> = shared.iter().map(|s| s.and_then(|i| kept[i])).collect();
    let mut next_id = vec![1u32; b.config.peers.len()];
    let mut ids = vec![0u32; b.tables.len()];
    let of_section = |t: &TableDraft| matches!(t.owner, Owner::Section(_));
    let all = 0..b.tables.len();
    let own = all.clone().rev().filter(|i| of_section(&b.tables[*i]));
    for i in own.chain(all.filter(|i| !of_section(&b.tables[*i]))) {
        if let Some(section) = section_of[i] {
            ids[i] = next_id[section];
            next_id[section] += 1;
        }
    }
    let written: HashSet<String> = (b.tables.iter().zip(&section_of))
        .filter(|(_, section)| section.is_some())
        .filter_map(|(t, _)| t.spec.write_to.clone())
        .collect();
    for (i, draft) in std::mem::take(&mut b.tables).into_iter().enumerate() {
        let TableDraft { mut spec, at, .. } = draft;
        let section = section_of[i];
        if section.is_none() {
            if !written.contains(&spec.name) {
                continue;
            }
            // Nothing leaves a table without a section, so it has no other name on the wire.
            spec.wire_name = spec.name.clone();
            spec.write_to = None;
        }
        b.config.tables.push(TableDecl { spec, section, local_id: ids[i], at });
    }
}
