//! A real HAProxy whose stickring is reloaded under it, again and again, while entries are made on
//! both sides: its session stays, and every entry is there at the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::compare::{Slack, become_equal};
use crate::config::{Config, SECTION, all_tables};
use crate::harness::{each_version, eventually, pause};

/// Reloads of the storm, five a second.
const RELOADS: usize = 40;

#[test]
fn a_storm_of_reloads_loses_no_entry_and_no_session() {
    each_version("storm of instant reloads", (2, 5), |lab| {
        let (hap, node) = (lab.member("hap"), lab.member("node"));
        let tables = all_tables(lab.version.number);
        let mut node_side = lab.node(&Config::new(&[&node, &hap]).tables(&tables));
        let hap_side = lab.haproxy(&Config::new(&[&hap, &node]).tables(&tables));
        eventually(12, "a session", || hap_side.cli().established(SECTION, "node"));
        // After a collision the winner may still be cut once.
        pause(2_500);
        let up = || hap_side.cli().established(SECTION, "node");
        let before = eventually(5, "the session after a collision", up);
        let stop = AtomicBool::new(false);
        let made = std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                let mut made = 0;
                while !stop.load(Ordering::Relaxed) {
                    let some = (made..made + 50).map(|n| {
                        format!("set table t_str key key-{n:06} data.gpt0 {} data.gpc0 {n}", n % 9)
                    });
                    hap_side.cli().batch(some);
                    made += 50;
                    std::thread::sleep(Duration::from_millis(10));
                }
                made
            });
            for n in 0..RELOADS {
                let begin = Instant::now();
                let line = format!("set table t_ip key 10.0.0.{n} data.gpc0 {n}");
                node_side.cli().must(&line);
                let new = lab.reload(&mut node_side);
                node_side = new;
                std::thread::sleep(Duration::from_millis(200).saturating_sub(begin.elapsed()));
            }
            stop.store(true, Ordering::Relaxed);
            maker.join().expect("the maker")
        });
        for (process, name) in [(&hap_side, "hap"), (&node_side, "node")] {
            for (table, count) in [("t_str", made), ("t_ip", RELOADS)] {
                eventually(20, &format!("all of {table} in {name}"), || {
                    let used = process.cli().used(table)?;
                    (used == count).then_some(()).ok_or_else(|| format!("{used} of {count}"))
                });
            }
        }
        for table in ["t_str", "t_ip"] {
            become_equal(&hap_side, &node_side, table, Slack { rate: 0, exp_ms: 5000 }, 20);
        }
        let after = eventually(5, "the session", up);
        for counter in ["new_conn", "no_hbt", "proto_err", "coll"] {
            assert_eq!(before.number(counter), after.number(counter), "{counter}: {after:?}");
        }
        let log = node_side.log();
        let instant = log.matches(": instant, finished,").count();
        assert_eq!((instant, log.matches(" is DOWN ").count()), (RELOADS, down_before(&log)));
    });
}

/// Sessions lost before the first reload, in the collisions of the start.
fn down_before(log: &str) -> usize {
    log.split(": instant, finished,").next().unwrap_or_default().matches(" is DOWN ").count()
}
