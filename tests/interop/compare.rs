//! Whether two processes hold the same tables.
//!
//! Rates decay while one looks, so they are compared between two looks at the first process; the
//! lifetimes may differ by what the looks take. `conn_cur` belongs to each process alone.

use crate::harness::{Process, eventually};
use crate::stats::Dump;

/// How much may differ.
#[derive(Clone, Copy, Debug)]
pub struct Slack {
    /// Of a rate: how far outside of the two looks.
    pub rate: u64,
    /// Of the lifetime left, ms.
    pub exp_ms: u64,
}

impl Default for Slack {
    fn default() -> Self {
        Slack { rate: 0, exp_ms: 2000 }
    }
}

/// Table, type and size of a header, without the number of entries.
fn declared(header: &str) -> &str {
    header.split(", used:").next().unwrap_or(header)
}

/// What differs, at most a few lines of it: `seen` against two looks at the original, `first`
/// before and `last` after.
pub fn differences(first: &Dump, seen: &Dump, last: &Dump, slack: Slack) -> Vec<String> {
    let mut found = Vec::new();
    if declared(&first.header) != declared(&seen.header) {
        found.push(format!("`{}`, but `{}`", first.header, seen.header));
    }
    for (name, dump) in [("original", first), ("copy", seen)] {
        if dump.lines != dump.rows.len() {
            found.push(format!("{} lines, {} keys in the {name}", dump.lines, dump.rows.len()));
        }
    }
    let extra = seen.rows.keys().find(|key| !first.rows.contains_key(*key));
    if let Some(key) = extra {
        found.push(format!("key {key} that the original does not have"));
    }
    for (key, original) in &first.rows {
        if found.len() > 6 {
            break;
        }
        let Some(copy) = seen.rows.get(key) else {
            found.push(format!("key {key} is missing ({} of {})", seen.lines, first.lines));
            continue;
        };
        let after = last.rows.get(key).unwrap_or(original);
        let (low, high) = (original.exp.min(after.exp), original.exp.max(after.exp));
        if copy.exp + slack.exp_ms < low || copy.exp > high + slack.exp_ms {
            found.push(format!("key {key}: exp {}, not {low}..{high}", copy.exp));
        }
        let names: Vec<&String> = original.values.keys().collect();
        let there: Vec<&String> = copy.values.keys().collect();
        if names != there {
            found.push(format!("key {key}: data {there:?}, not {names:?}"));
            continue;
        }
        for name in names.into_iter().filter(|name| *name != "conn_cur") {
            let (a, b) = (&original.values[name], &copy.values[name]);
            if !name.contains("_rate(") {
                if a != b {
                    found.push(format!("key {key}: {name}={b}, not {a}"));
                }
                continue;
            }
            let (a, b, c) = (original.number(name), copy.number(name), after.number(name));
            if b + slack.rate < a.min(c) || b > a.max(c) + slack.rate {
                found.push(format!("key {key}: {name}={b}, not {a}..{c}"));
            }
        }
    }
    found
}

/// Waits until `copy` shows the same as `original` in this table.
pub fn become_equal(original: &Process, copy: &Process, table: &str, slack: Slack, limit: u64) {
    eventually(limit, &format!("equal tables {table}"), || {
        let first = original.cli().table(table);
        let seen = copy.cli().table(table);
        let last = original.cli().table(table);
        let found = differences(&first, &seen, &last, slack);
        if found.is_empty() { Ok(()) } else { Err(found.join("\n  ")) }
    });
}
