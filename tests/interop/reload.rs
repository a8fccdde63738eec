//! Reloads by the peers protocol: HAProxy's beside the node, the node's beside HAProxy, and each as
//! the other's successor. Whatever was in a table before is there afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::compare::{Slack, become_equal};
use crate::config::{Config, SECTION, all_tables};
use crate::harness::{Lab, Process, each_node, each_version, eventually, newest, pause, signal};

const SLACK: Slack = Slack { rate: 0, exp_ms: 5000 };

/// How the node's processes hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Protocol,
    Instant,
}

fn configs(lab: &Lab) -> (Config, Config) {
    let (hap, node) = (lab.member("hap"), lab.member("node"));
    let tables = all_tables(lab.version.number);
    let hap_config = Config::new(&[&hap, &node]).tables(&tables);
    (hap_config, Config::new(&[&node, &hap]).tables(&tables))
}

/// The node, whose reloads go by the protocol even where both processes could do better.
fn start(lab: &Lab, config: &Config) -> Process {
    let by_protocol = "stickring\n    instant-reload off\n";
    lab.node_with(config, if lab.node.is_stickring() { by_protocol } else { "" })
}

fn fill(process: &Process, name: &str, count: usize, value: usize) {
    let rows =
        (0..count).map(|n| format!("set table t_str key {name}-{n:05} data.gpc0 {}", value + n));
    process.cli().batch(rows);
}

/// All entries of that name with their values.
fn has(process: &Process, name: &str, count: usize, value: usize) -> Result<(), String> {
    let dump = process.cli().table("t_str");
    for n in 0..count {
        let key = format!("{name}-{n:05}");
        let row = dump.rows.get(&key).ok_or_else(|| format!("{key} of {count} is missing"))?;
        let (got, wanted) = (row.number("gpc0"), (value + n) as u64);
        if got != wanted {
            return Err(format!("{key}: {got}, not {wanted}"));
        }
    }
    Ok(())
}

fn together(hap: &Process, node: &Process) {
    eventually(15, "a session on both sides", || {
        hap.cli().established(SECTION, "node")?;
        node.cli().established(SECTION, "hap")
    });
}

/// Waits until a HAProxy has finished its first resync.
fn up_to_date(process: &Process) {
    eventually(20, "HAProxy finishes its resync", || {
        let peers = process.cli().ask(&format!("show peers {SECTION}"));
        let flags = peers.split("flags=").nth(1).unwrap_or_default();
        let flags = flags.split_whitespace().next().unwrap_or_default();
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16);
        if flags.is_ok_and(|f| f & 3 == 3) { Ok(()) } else { Err(peers) }
    });
}

#[test]
fn the_node_as_old_process_teaches_a_haproxy_and_learns_from_it() {
    each_version("the node and HAProxy as each other's successors", (2, 5), |lab| {
        if !lab.node.is_stickring() {
            return;
        }
        let node = lab.member("node");
        let tables = all_tables(lab.version.number);
        let config = Config::new(&[&node]).tables(&tables);
        let mut old = lab.node(&config);
        fill(&old, "k", 5_000, 100);
        old.cli().must("set table t_ip key 10.1.2.3 data.gpc0 7 data.conn_rate 30");
        old.cli().must("set table t_int key 5 data.gpc0 2");
        let haproxy = lab.version.path.clone();
        let stickring = PathBuf::from(env!("CARGO_BIN_EXE_stickring"));
        // There and back, twice: what one has taught, the other gets again.
        for round in 0..2 {
            for program in [&haproxy, &stickring] {
                let mut new = lab.succeed(&old, program);
                old.leave();
                new.wait_for(&new.cli());
                eventually(8, "everything in the successor", || has(&new, "k", 5_000, 100));
                let row = new.cli().row("t_ip", "10.1.2.3").expect("the entry of t_ip");
                assert_eq!(row.number("gpc0"), 7, "{row:?}");
                let key = format!("round-{round}");
                new.cli().must(&format!("set table t_str key {key} data.gpc0 1"));
                assert!(new.cli().row("t_str", &key).is_some() && new.alive());
                if *program == stickring {
                    assert_eq!(new.info("HandoverKind"), "protocol");
                    assert_eq!(new.info("HandoverOutcome"), "finished", "round {round}");
                    assert!(new.info("HandoverGap_ms").parse::<u32>().is_ok(), "round {round}");
                    assert!(new.info("HandoverEntries").parse::<u32>().unwrap() >= 5_000);
                } else {
                    // A HAProxy that has not finished its first resync teaches nobody.
                    up_to_date(&new);
                }
                old = new;
            }
        }
    });
}

/// The program in master-worker mode; its workers write their own pids.
fn worker_pid(process: &Process) -> Result<u32, String> {
    let info = process.cli().try_ask("show info").map_err(|e| e.to_string())?;
    let line = info.lines().find_map(|l| l.strip_prefix("Pid: ")).ok_or("no pid")?;
    line.trim().parse().map_err(|_| "no pid".to_owned())
}

#[test]
fn haproxy_reloads_by_its_master_beside_the_node() {
    each_version("HAProxy's master reloads it", (2, 5), |lab| {
        let (hap_config, node_config) = configs(lab);
        let node = start(lab, &node_config);
        let hap = lab.haproxy_master(&hap_config);
        together(&hap, &node);
        fill(&hap, "h", 3_000, 1);
        fill(&node, "n", 3_000, 5);
        for (process, name, value) in [(&node, "h", 1), (&hap, "n", 5)] {
            eventually(10, "both have everything", || has(process, name, 3_000, value));
        }
        // Early, in the middle of its resync, and later, when it is up to date.
        for wait in [0, 2_500, 11_000] {
            pause(wait);
            let worker = worker_pid(&hap).expect("a worker");
            signal(hap.pid(), Signal::USR2);
            eventually(15, "another worker", || match worker_pid(&hap)? {
                pid if pid == worker => Err("the old one answers".to_owned()),
                _ => Ok(()),
            });
            eventually(20, "the new worker's tables", || {
                has(&hap, "h", 3_000, 1)?;
                has(&hap, "n", 3_000, 5)
            });
        }
        together(&hap, &node);
        become_equal(&hap, &node, "t_str", SLACK, 10);
    });
}

#[test]
fn haproxy_reloads_at_any_age_beside_the_node() {
    each_version("HAProxy reloaded at any age", (2, 5), |lab| {
        let (hap_config, node_config) = configs(lab);
        let node = start(lab, &node_config);
        let mut hap = lab.haproxy(&hap_config);
        together(&hap, &node);
        fill(&hap, "h", 1_000, 1);
        eventually(10, "the node has everything", || has(&node, "h", 1_000, 1));
        for (round, age) in [100, 1_000, 3_000, 6_000].into_iter().enumerate() {
            pause(age);
            hap = lab.reload(&mut hap);
            eventually(20, "the new process's tables", || has(&hap, "h", 1_000, 1));
            together(&hap, &node);
            let name = format!("r{round}");
            fill(&hap, &name, 50, 9);
            eventually(10, "going on", || has(&node, &name, 50, 9));
        }
        become_equal(&hap, &node, "t_str", SLACK, 10);
    });
}

/// A pair whose HAProxy and node know each other, with entries of both.
fn pair(lab: &Lab, entries: usize) -> (Process, Process) {
    pair_of(lab, Way::Protocol, ["hap", "node"], entries)
}

/// The same with these names, and a node that reloads in this way.
fn pair_of(lab: &Lab, way: Way, names: [&str; 2], entries: usize) -> (Process, Process) {
    let members = names.map(|name| lab.member(name));
    let tables = all_tables(lab.version.number);
    let node_config = Config::new(&[&members[1], &members[0]]).tables(&tables);
    let node = match way {
        Way::Protocol => start(lab, &node_config),
        Way::Instant => lab.node(&node_config),
    };
    let hap = lab.haproxy(&Config::new(&[&members[0], &members[1]]).tables(&tables));
    eventually(15, "a session on both sides", || {
        hap.cli().established(SECTION, names[1])?;
        node.cli().established(SECTION, names[0])
    });
    fill(&hap, "h", entries, 1);
    fill(&node, "n", entries, 5);
    eventually(10, "the node has everything", || has(&node, "h", entries, 1));
    eventually(10, "HAProxy has everything", || has(&hap, "n", entries, 5));
    (hap, node)
}

#[test]
fn the_node_reloads_at_any_age() {
    let ages = [200, 1_000, 2_000, 4_000, 6_000, 11_000, 15_000];
    each_node("the node reloads at any age", |lab| {
        if !lab.node.is_stickring() {
            return;
        }
        // One pair an age, all at the same time.
        std::thread::scope(|scope| {
            for age in ages {
                scope.spawn(move || {
                    let names = [format!("hap{age}"), format!("node{age}")];
                    let (hap, node) = (lab.member(&names[0]), lab.member(&names[1]));
                    let tables = all_tables(lab.version.number);
                    // At that age the node knows what only it was told, whether or not HAProxy is
                    // there to teach it.
                    let alone = age % 4_000 == 2_000 || age == 200;
                    let hap_at = if alone { hap.at(lab.free()) } else { hap.clone() };
                    let mut node_side = start(lab, &Config::new(&[&node, &hap_at]).tables(&tables));
                    let began = Instant::now();
                    let hap_config = Config::new(&[&hap, &node]).tables(&tables);
                    let hap_side = (!alone).then(|| lab.haproxy(&hap_config));
                    fill(&node_side, "n", 500, 1);
                    if let Some(hap_side) = &hap_side {
                        fill(hap_side, "h", 500, 2);
                        if age >= 1_000 {
                            eventually(10, "a lesson", || has(&node_side, "h", 500, 2));
                        }
                    }
                    pause((age as u64).saturating_sub(began.elapsed().as_millis() as u64));
                    for _ in 0..2 {
                        let new = lab.reload(&mut node_side);
                        let took = began.elapsed();
                        eventually(5, "the node's own", || has(&new, "n", 500, 1));
                        assert_eq!(new.info("HandoverKind"), "protocol", "{age} {took:?}");
                        node_side = new;
                    }
                    if let Some(hap_side) = &hap_side {
                        eventually(15, "HAProxy's", || has(&node_side, "h", 500, 2));
                        eventually(15, "the node's", || has(hap_side, "n", 500, 1));
                    }
                });
            }
        });
    });
}

#[test]
fn the_node_reloads_twice_at_once_and_with_haproxy() {
    each_version("two reloads 100 ms apart, and of all members", (2, 5), |lab| {
        if !lab.node.is_stickring() {
            return;
        }
        let (mut hap, mut node) = pair(lab, 2_000);
        let stickring = PathBuf::from(env!("CARGO_BIN_EXE_stickring"));
        let mut first = lab.succeed(&node, &stickring);
        pause(100);
        let second = lab.succeed(&first, &stickring);
        node.leave();
        first.leave();
        second.wait_for(&second.cli());
        for (name, value) in [("h", 1), ("n", 5)] {
            eventually(10, "everything in the third", || has(&second, name, 2_000, value));
        }
        node = second;
        together(&hap, &node);
        // All members at once.
        let new_node = lab.succeed(&node, &stickring);
        let new_hap = lab.succeed(&hap, &lab.version.path);
        node.leave();
        hap.leave();
        new_node.wait_for(&new_node.cli());
        new_hap.wait_for(&new_hap.cli());
        for process in [&new_node, &new_hap] {
            for (name, value) in [("h", 1), ("n", 5)] {
                eventually(20, "everything in both", || has(process, name, 2_000, value));
            }
        }
        together(&new_hap, &new_node);
    });
}

#[test]
fn kill_9_in_the_middle_of_a_hand_over() {
    each_version("kill -9 in a hand-over", (3, 0), |lab| {
        if !lab.node.is_stickring() {
            return;
        }
        let (_hap, mut node) = pair(lab, 20_000);
        let stickring = PathBuf::from(env!("CARGO_BIN_EXE_stickring"));
        for (round, wait) in [0, 15, 40].into_iter().enumerate() {
            // The old one dies: the new one keeps what it got and asks HAProxy.
            let mut new = lab.succeed(&node, &stickring);
            pause(wait);
            node.kill_only();
            new.wait_for(&new.cli());
            for (name, value) in [("h", 1), ("n", 5)] {
                eventually(20, "everything in the new one", || has(&new, name, 20_000, value));
            }
            // The next one dies: its old process gives up in its time, or it has left already.
            let mut next = lab.succeed(&new, &stickring);
            let told = format!("({}) : SIGUSR1 received", new.pid());
            eventually(10, "the signal", || match new.log().contains(&told) {
                true => Ok(()),
                false => Err("not told to leave".to_owned()),
            });
            pause(wait);
            next.kill();
            let begin = Instant::now();
            new.leave();
            assert!(begin.elapsed() < Duration::from_secs(8), "round {round}");
            node = new;
            node.start();
            for (name, value) in [("h", 1), ("n", 5)] {
                eventually(20, "everything from HAProxy", || has(&node, name, 20_000, value));
            }
        }
    });
}

#[test]
fn the_node_reloads_while_it_teaches_and_while_it_learns() {
    each_version("reloads in the middle of lessons", (3, 0), |lab| {
        if !lab.node.is_stickring() {
            return;
        }
        const ENTRIES: usize = 40_000;
        let (hap_config, node_config) = configs(lab);
        let mut node = start(lab, &node_config);
        fill(&node, "n", ENTRIES, 1);
        let mut hap = lab.haproxy(&hap_config);
        let some = |process: &Process, least: usize| {
            eventually(15, "a lesson begins", || match process.cli().used("t_str")? {
                used if used > least => Ok(()),
                used => Err(format!("{used} entries")),
            });
        };
        for wait in [0, 10, 30] {
            some(&hap, 0);
            pause(wait);
            node = lab.reload(&mut node);
            for process in [&hap, &node] {
                eventually(20, "all entries", || has(process, "n", ENTRIES, 1));
            }
            hap.kill();
            hap.start();
        }
        eventually(20, "all entries", || has(&hap, "n", ENTRIES, 1));
        for wait in [0, 10, 30] {
            node.kill();
            node.start();
            some(&node, 0);
            pause(wait);
            node = lab.reload(&mut node);
            node = lab.reload(&mut node);
            eventually(20, "all entries", || has(&node, "n", ENTRIES, 1));
        }
        become_equal(&hap, &node, "t_str", SLACK, 10);
    });
}

/// Updates at a known rate on HAProxy's stats socket, and the last value of each key.
struct Flow {
    stop: AtomicBool,
    sent: Mutex<(u64, BTreeMap<usize, u64>)>,
}

const KEYS: usize = 1_500;
const BATCH: u64 = 20;
const EVERY: Duration = Duration::from_millis(10);

impl Flow {
    /// 2 000 updates a second, until told to stop.
    fn run(&self, process: &Process) {
        let cli = process.cli();
        let mut next = Instant::now();
        let mut value = 0u64;
        while !self.stop.load(Ordering::Relaxed) {
            let mut batch = Vec::new();
            for _ in 0..BATCH {
                value += 1;
                let key = (value as usize).wrapping_mul(7) % KEYS;
                batch.push(format!("set table t_str key f-{key:05} data.gpc0 {value}"));
                self.sent.lock().unwrap().1.insert(key, value);
            }
            cli.batch(batch);
            self.sent.lock().unwrap().0 += BATCH;
            next += EVERY;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}

/// Seconds of a storm.
const STORM: u64 = 60;

/// Five reloads a second for a minute, while updates flow from a HAProxy: the last value of every
/// key is there, and what only the node knew is there, too. By both ways, at the same time.
#[test]
fn a_storm_of_reloads_loses_no_update() {
    each_node("a storm of reloads", |lab| {
        if !lab.node.is_stickring() {
            return;
        }
        assert_eq!(lab.version.name, newest().name);
        std::thread::scope(|scope| {
            for way in [Way::Protocol, Way::Instant] {
                scope.spawn(move || storm(lab, way));
            }
        });
    });
}

fn storm(lab: &Lab, way: Way) {
    let names = match way {
        Way::Protocol => ["hap", "node"],
        Way::Instant => ["hap2", "node2"],
    };
    let (hap, mut node) = pair_of(lab, way, names, 2_000);
    // A HAProxy that still learns lets a lesson overwrite what it has changed itself.
    up_to_date(&hap);
    let session = || hap.cli().established(SECTION, names[1]);
    let before = eventually(5, "the session", session);
    let flow = Flow { stop: AtomicBool::new(false), sent: Mutex::default() };
    let mut reloads = 0;
    std::thread::scope(|scope| {
        let running = scope.spawn(|| flow.run(&hap));
        reloads = reload_for(lab, way, &mut node);
        flow.stop.store(true, Ordering::Relaxed);
        running.join().expect("the flow of updates");
    });
    let (sent, last) = flow.sent.into_inner().unwrap();
    assert!(reloads >= STORM * 5 - 10, "{way:?}: {reloads} reloads");
    assert!(sent >= STORM * 1_500, "{way:?}: {sent} updates");
    assert_eq!(last.len(), KEYS);
    eventually(20, "every update", || {
        let dump = node.cli().table("t_str");
        for (key, value) in &last {
            let key = format!("f-{key:05}");
            let got = dump.rows.get(&key).map(|row| row.number("gpc0"));
            if got != Some(*value) {
                return Err(format!("{way:?}: {key}: {got:?}, not {value}, of {sent}"));
            }
        }
        has(&node, "h", 2_000, 1)?;
        has(&node, "n", 2_000, 5)
    });
    let log = node.log();
    let instant = log.matches(": instant, finished,").count() as u64;
    if way == Way::Instant {
        // Every one of them went that way, and HAProxy noticed none.
        assert_eq!(instant, reloads, "{log}");
        let after = eventually(5, "the session", session);
        for counter in ["new_conn", "no_hbt", "proto_err", "coll"] {
            assert_eq!(before.number(counter), after.number(counter), "{counter}: {after:?}");
        }
    } else {
        assert_eq!(instant, 0, "{log}");
    }
    crate::harness::announce(&format!("{way:?}: {reloads} reloads, {sent} updates, none lost"));
}

/// Five reloads a second for as long as a storm lasts; how many.
fn reload_for(lab: &Lab, way: Way, node: &mut Process) -> u64 {
    let stickring = PathBuf::from(env!("CARGO_BIN_EXE_stickring"));
    let (begin, mut reloads) = (Instant::now(), 0);
    let mut gone: Vec<Process> = Vec::new();
    while begin.elapsed() < Duration::from_secs(STORM) {
        let new = lab.succeed(node, &stickring);
        gone.push(std::mem::replace(node, new));
        if way == Way::Instant {
            // Who has not begun to take over yet cannot be asked.
            gone.drain(..).for_each(|mut old| old.leave());
        }
        gone.retain_mut(Process::alive);
        assert!(gone.len() < 40, "{} old processes are still there", gone.len());
        reloads += 1;
        let next = Duration::from_millis(200 * reloads);
        std::thread::sleep(next.saturating_sub(begin.elapsed()));
    }
    node.wait_for(&node.cli());
    gone.iter_mut().for_each(Process::leave);
    reloads
}
