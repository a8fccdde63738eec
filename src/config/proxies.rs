//! `frontend`, `backend`, `listen` and `defaults` sections, as far as tables shared with peers go.
//!
//! *Called by* [`super::parse`]. Read here: `stick-table`, the table that `stick` rules use (they
//! store the server's number and name into it), and `disabled`. All other keywords are HAProxy's
//! business.
#![forbid(unsafe_code)]

use crate::config::Diagnostics;
use crate::config::builder::{Builder, Current, Owner, Proxy, TableLine};
use crate::config::global::Seen;
use crate::config::reader::Line;

/// The header of one of the four sections.
pub(crate) fn header(b: &mut Builder<'_>, line: &Line) {
    let name = line.word(1).to_owned();
    let from = line.words.iter().position(|w| w == "from").and_then(|i| line.words.get(i + 1));
    let from = from.cloned().unwrap_or_default();
    let disabled = b.defaults_disabled.get(&from).copied().unwrap_or(false);
    let kind = match line.word(0) {
        "defaults" => {
            // `defaults from x` may have no name of its own.
            let name = if name == "from" { String::new() } else { name };
            let disabled = !from.is_empty() && disabled;
            b.defaults_disabled.insert(name.clone(), disabled);
            b.defaults_disabled.insert(String::new(), disabled);
            b.current = Current::Defaults(name);
            return;
        }
        "frontend" => "frontend",
        "backend" => "backend",
        _ => "proxy",
    };
    b.current = Current::Proxy(b.proxies.len());
    b.proxies.push(Proxy { name, kind, disabled });
}

/// A line of a `defaults` section.
pub(crate) fn defaults_line(
    b: &mut Builder<'_>,
    name: &str,
    line: &Line,
    diags: &mut Diagnostics,
) -> Seen {
    match line.word(0) {
        "stick-table" => {
            diags.alert(line.says("'stick-table' is not supported in 'defaults' section."));
        }
        word @ ("disabled" | "enabled") => {
            b.defaults_disabled.insert(name.to_owned(), word == "disabled");
            b.defaults_disabled.insert(String::new(), word == "disabled");
        }
        _ => return Seen::Skipped,
    }
    Seen::Ours
}

/// A line of one of the other three.
pub(crate) fn line(
    b: &mut Builder<'_>,
    index: usize,
    line: &Line,
    diags: &mut Diagnostics,
) -> Seen {
    match line.word(0) {
        "stick-table" => {
            let Proxy { name, kind, .. } = &b.proxies[index];
            let name = name.clone();
            let declared = TableLine {
                word: "stick-table",
                name: &name,
                wire_name: &name,
                shown: &name,
                words: &line.words[1..],
                at: &line.at,
                owner: format!("{kind} '{name}'"),
            };
            b.add_table(declared, |peers| Owner::Proxy { proxy: index, peers }, diags);
        }
        "stick" if b.proxies[index].kind != "frontend" => {
            if let Some(table) = stick_table_used(line) {
                let table = if table.is_empty() { b.proxies[index].name.clone() } else { table };
                b.sticks.push((index, table));
            }
        }
        "disabled" => b.proxies[index].disabled = true,
        "enabled" => b.proxies[index].disabled = false,
        _ => return Seen::Skipped,
    }
    Seen::Ours
}

/// The table of `stick (on|match|store-request|store-response|…) <fetch…> [table <t>] [if|unless
/// …]`; "" for the proxy's own. `None` when it is no such rule (HAProxy refuses the line then).
fn stick_table_used(line: &Line) -> Option<String> {
    let kind = line.word(1);
    if !(kind == "on" || kind == "match" || kind.starts_with("store")) || line.words.len() < 3 {
        return None;
    }
    let rule = line.words[3..].iter().take_while(|w| *w != "if" && *w != "unless");
    let mut rule = rule.skip_while(|w| *w != "table");
    rule.next();
    Some(rule.next().cloned().unwrap_or_default())
}
