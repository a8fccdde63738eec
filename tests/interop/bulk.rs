//! A hundred thousand entries: none lost and none different, in both directions.

use crate::compare::{Slack, become_equal};
use crate::config::{Config, SECTION, all_tables};
use crate::harness::{Lab, Process, each_version, eventually};

const STRINGS: usize = 60_000;
const ADDRESSES: usize = 40_000;

fn fill(process: &Process) {
    let cli = process.cli();
    cli.batch((0..STRINGS).map(|n| {
        let (gpt, gpc) = (n % 300, n.wrapping_mul(2_654_435_761) & 0xffff_ffff);
        format!("set table t_str key key-{n:06} data.gpt0 {gpt} data.gpc0 {gpc}")
    }));
    cli.batch((0..ADDRESSES).map(|n| {
        let (a, b, c) = (n >> 14 & 255, n >> 6 & 255, n & 63);
        format!("set table t_ip key 10.{a}.{b}.{c} data.gpc0 {n} data.conn_rate {}", n % 1000)
    }));
    assert_eq!(cli.used("t_str"), Ok(STRINGS));
    assert_eq!(cli.used("t_ip"), Ok(ADDRESSES));
}

fn complete(process: &Process, limit: u64) {
    for (table, count) in [("t_str", STRINGS), ("t_ip", ADDRESSES)] {
        eventually(limit, &format!("all entries of {table}"), || {
            let used = process.cli().used(table)?;
            (used == count).then_some(()).ok_or_else(|| format!("{used} of {count}"))
        });
    }
}

fn equal(one: &Process, other: &Process) {
    for table in ["t_str", "t_ip"] {
        become_equal(one, other, table, Slack { rate: 0, exp_ms: 5000 }, 20);
    }
}

fn pair(lab: &Lab) -> (Config, Config) {
    let (hap, node) = (lab.member("hap"), lab.member("node"));
    let tables = all_tables(lab.version.number);
    let hap_config = Config::new(&[&hap, &node]).tables(&tables);
    (hap_config, Config::new(&[&node, &hap]).tables(&tables))
}

#[test]
fn a_hundred_thousand_entries_by_full_resync_both_ways() {
    each_version("100k entries, full resync both ways", (2, 5), |lab| {
        let (hap_config, node_config) = pair(lab);
        let mut hap = lab.haproxy(&hap_config);
        fill(&hap);
        let mut node = lab.node(&node_config);
        complete(&node, 40);
        equal(&hap, &node);
        // HAProxy loses everything and learns it from the node.
        hap.kill();
        hap.start();
        complete(&hap, 40);
        equal(&node, &hap);
        // The node loses everything and learns it back.
        node.kill();
        node.start();
        complete(&node, 40);
        equal(&hap, &node);
        eventually(10, "a session", || hap.cli().established(SECTION, "node"));
    });
}

#[test]
fn a_hundred_thousand_entries_pushed_as_they_are_made() {
    each_version("100k entries pushed both ways", (2, 5), |lab| {
        let (hap_config, node_config) = pair(lab);
        let node = lab.node(&node_config);
        let hap = lab.haproxy(&hap_config);
        eventually(12, "a session", || hap.cli().established(SECTION, "node"));
        // The strings are made in the node, the addresses in HAProxy, at the same time.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                node.cli().batch((0..STRINGS).map(|n| {
                    format!("set table t_str key key-{n:06} data.gpt0 {} data.gpc0 {n}", n % 9)
                }));
            });
            hap.cli().batch((0..ADDRESSES).map(|n| {
                let (a, b, c) = (n >> 14 & 255, n >> 6 & 255, n & 63);
                format!("set table t_ip key 10.{a}.{b}.{c} data.gpc0 {n} data.conn_rate {n}")
            }));
        });
        complete(&hap, 40);
        complete(&node, 40);
        equal(&hap, &node);
    });
}
