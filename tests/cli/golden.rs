//! HAProxy 3.2's answers, line for line (3.4.7 was seen to give the same ones).
//!
//! Compared but for pointers, the order of entries (HAProxy's is that of its buckets) and the
//! moment of a lifetime: HAProxy's clock ran while it was asked.

use crate::node::Node;

const TABLES: &str = include_str!("golden/tables.3.2.txt");
/// How much of a lifetime may have passed while HAProxy was asked.
const LIFETIME_SLACK_MS: u64 = 5_000;

/// Pointers gone, entries of a dump in order of their text.
fn normal(answer: &str) -> Vec<String> {
    let mut lines: Vec<String> = answer
        .lines()
        .map(|line| match line.split_once(": key=") {
            Some((pointer, rest)) if pointer.starts_with("0x") => format!("0xPTR: key={rest}"),
            _ => line.to_owned(),
        })
        .collect();
    for block in lines.chunk_by_mut(|a, b| a.starts_with("0xPTR") == b.starts_with("0xPTR")) {
        if block[0].starts_with("0xPTR") {
            block.sort_by_key(|line| line.split(" exp=").next().map(str::to_owned));
        }
    }
    lines
}

fn lifetime(line: &str) -> Option<(String, u64)> {
    let (before, rest) = line.split_once(" exp=")?;
    let (ms, after) = rest.split_once(' ')?;
    Some((format!("{before} {after}"), ms.parse().ok()?))
}

fn same(ours: &str, theirs: &str) -> bool {
    match (lifetime(ours), lifetime(theirs)) {
        (Some((a, x)), Some((b, y))) => a == b && x.abs_diff(y) <= LIFETIME_SLACK_MS,
        _ => ours == theirs,
    }
}

fn compare(node: &mut Node) {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for block in TABLES.split(">>> ").skip(1) {
        let (line, theirs) = block.split_once('\n').expect("a command and its answer");
        let ours = node.line(line);
        let (a, b) = (normal(&ours), normal(theirs));
        let equal =
            a.len() == b.len() && ours.ends_with('\n') && a.iter().zip(&b).all(|(a, b)| same(a, b));
        if !equal {
            wrong.push(format!("{line}\n--- ours\n{ours}--- HAProxy\n{theirs}"));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 200, "only {compared} answers to compare");
}

#[test]
fn every_answer_is_haproxys() {
    compare(&mut Node::new(1));
}

#[test]
fn on_several_shards_and_in_small_pieces() {
    let mut node = Node::new(3);
    node.budget.rows = 1;
    node.budget.bytes = 1;
    compare(&mut node);
}
