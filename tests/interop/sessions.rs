//! Who connects to whom: each direction alone, and both at once.

use std::time::{Duration, Instant};

use crate::config::{Config, Member, SECTION};
use crate::harness::{Lab, Process, each_version, eventually, pause};

/// Established on both sides, and the same session for as long as `seconds`.
fn stays_established(hap: &Process, node: &Process, seconds: u64) {
    let up = || {
        let there = hap.cli().established(SECTION, "node")?;
        let here = node.cli().established(SECTION, "hap")?;
        Ok((there, here))
    };
    eventually(10, "a session on both sides", up);
    // After a collision the winner may still be cut once; then it must be quiet.
    pause(2500);
    let (there, here) = eventually(5, "the session after a collision", up);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(seconds) {
        let (there_now, here_now) = up().unwrap_or_else(|e| panic!("session lost: {e}"));
        for (before, now) in [(&there, &there_now), (&here, &here_now)] {
            for counter in ["new_conn", "no_hbt", "proto_err", "coll"] {
                assert_eq!(before.number(counter), now.number(counter), "{counter}: {now:?}");
            }
        }
        pause(300);
    }
    let (_, here_now) = up().unwrap();
    assert!(here_now.number("rx_hbt") > here.number("rx_hbt"), "no heartbeats: {here_now:?}");
    assert!(here_now.number("tx_hbt") > here.number("tx_hbt"), "no heartbeats: {here_now:?}");
}

fn set_and_see(hap: &Process, node: &Process) {
    hap.cli().must(&format!("set table {SECTION}/t_pp key 10.0.0.1 data.gpc0 7"));
    node.cli().must(&format!("set table {SECTION}/t_pp key 10.0.0.2 data.gpc0 8"));
    for (process, key, value) in [(node, "10.0.0.1", 7), (hap, "10.0.0.2", 8)] {
        eventually(5, "an entry of the other side", || {
            let row = process.cli().row(&format!("{SECTION}/t_pp"), key);
            let row = row.ok_or_else(|| format!("no {key}"))?;
            (row.number("gpc0") == value).then_some(()).ok_or_else(|| format!("{row:?}"))
        });
    }
}

fn members(lab: &Lab) -> (Member, Member) {
    (lab.member("hap"), lab.member("node"))
}

#[test]
fn haproxy_dials_the_node() {
    each_version("haproxy dials the node", (2, 4), |lab| {
        let (hap, node) = members(lab);
        // The node looks for HAProxy where nobody listens.
        let node_side = Config::new(&[&node, &hap.at(lab.free())]);
        let node_side = lab.node(&node_side);
        let hap_side = lab.haproxy(&Config::new(&[&hap, &node]));
        stays_established(&hap_side, &node_side, 7);
        set_and_see(&hap_side, &node_side);
    });
}

#[test]
fn the_node_dials_haproxy() {
    each_version("the node dials haproxy", (2, 4), |lab| {
        let (hap, node) = members(lab);
        let hap_side = lab.haproxy(&Config::new(&[&hap, &node.at(lab.free())]));
        let node_side = lab.node(&Config::new(&[&node, &hap]));
        stays_established(&hap_side, &node_side, 7);
        set_and_see(&hap_side, &node_side);
    });
}

#[test]
fn both_dial_at_once() {
    each_version("both dial at once", (2, 4), |lab| {
        let (hap, node) = members(lab);
        let (hap_config, node_config) = (Config::new(&[&hap, &node]), Config::new(&[&node, &hap]));
        let (hap_side, node_side) = std::thread::scope(|scope| {
            let hap_side = scope.spawn(|| lab.haproxy(&hap_config));
            let node_side = lab.node(&node_config);
            (hap_side.join().expect("haproxy starts"), node_side)
        });
        stays_established(&hap_side, &node_side, 11);
        set_and_see(&hap_side, &node_side);
    });
}
