//! Entries of all key types and data types, by the stats socket and by real traffic, seen in the
//! node; and given back by it after HAProxy is killed and started again.

use std::time::Instant;

use crate::compare::{Slack, become_equal, differences};
use crate::config::{Config, SECTION, all_tables};
use crate::harness::{Lab, Process, each_version, each_version_on, eventually, pause};
use crate::http::{Server, get};

/// A HAProxy with HTTP traffic and the node beside it, with the same tables.
struct Pair {
    hap: Process,
    node: Process,
    front: String,
    tables: Vec<String>,
    _servers: [Server; 2],
}

/// Backends that exist on both sides: `web` sticks, so it stores server_id and server_key.
fn backends(addresses: &[String; 2]) -> String {
    format!(
        "backend web\n    balance roundrobin\n    \
         stick-table type string len 20 size 1k expire 20m peers {SECTION}\n    \
         stick on hdr(x-key)\n    server s1 {}\n    server srv-two {}\n\n",
        addresses[0], addresses[1]
    )
}

/// Frontends that only HAProxy has: one for each three tables that are tracked.
fn frontends(first: &str, second: &str) -> String {
    format!(
        "frontend one\n    bind {first}\n    http-request track-sc0 src table t_ip\n    \
         http-request track-sc1 hdr(x-key) table t_str\n    \
         http-request sc-inc-gpc0(0)\n    http-request sc-inc-gpc1(0)\n    \
         http-request sc-set-gpt0(0) 17\n    http-request sc-inc-gpc0(1)\n    \
         default_backend web\n\n\
         frontend two\n    bind {second}\n    http-request track-sc0 hdr(x-key) table t_arr\n    \
         http-request track-sc1 hdr(x-key) table t_bin\n    \
         http-request track-sc2 hdr(x-key) table t_decay\n    \
         http-request sc-inc-gpc(1,0)\n    http-request sc-inc-gpc(0,0)\n    \
         http-request sc-set-gpt(2,0) 11\n    http-request sc-inc-gpc0(1)\n    \
         http-request sc-inc-gpc0(2)\n    default_backend web\n"
    )
}

impl Pair {
    fn new(lab: &Lab, threads: u32) -> Pair {
        let (hap, node) = (lab.member("hap"), lab.member("node"));
        let tables = all_tables(lab.version.number);
        let servers = [lab.free(), lab.free()];
        let guards = [Server::start(servers[0], "s1"), Server::start(servers[1], "srv-two")];
        let shared = backends(&servers.map(|s| s.to_string()));
        let (front, other) = (lab.free().to_string(), lab.free().to_string());
        let names = tables.iter().map(|(name, _)| (*name).to_owned());
        let names: Vec<String> =
            names.chain([format!("{SECTION}/t_pp"), "web".to_owned()]).collect();
        let node_config =
            Config::new(&[&node, &hap]).tables(&tables).rest(&shared).threads(threads);
        let hap_config = Config::new(&[&hap, &node]).tables(&tables).rest(&shared);
        let hap_config = hap_config.rest(&frontends(&front, &other));
        let node = lab.node(&node_config);
        let hap = lab.haproxy(&hap_config);
        eventually(10, "a session", || node.cli().established(SECTION, "hap"));
        let pair = Pair { hap, node, front, tables: names, _servers: guards };
        pair.fill(lab.version.number, &other);
        pair
    }

    /// Every table by the stats socket where that can be, then by requests.
    fn fill(&self, version: (u32, u32), other: &str) {
        let cli = self.hap.cli();
        let mut all = String::from(
            "data.server_id 3 data.gpt0 4294967295 data.gpc0 2 data.gpc0_rate 30 data.conn_cnt 4 \
             data.conn_rate 50 data.sess_cnt 6 data.sess_rate 70 data.http_req_cnt 8 \
             data.http_req_rate 90 data.http_err_cnt 10 data.http_err_rate 110 \
             data.bytes_in_cnt 123456789012 data.bytes_in_rate 1300 \
             data.bytes_out_cnt 9007199254740993 data.bytes_out_rate 1500 data.gpc1 16 \
             data.gpc1_rate 170 data.http_fail_cnt 18 data.http_fail_rate 190",
        );
        if version >= (3, 0) {
            all.push_str(" data.glitch_cnt 20 data.glitch_rate 210");
        }
        for (table, key) in [("t_ip", "10.1.2.3"), ("t_ip6", "2001:db8::7")] {
            cli.must(&format!("set table {table} key {key} {all}"));
        }
        cli.must("set table t_ip key 0.0.0.0 data.gpc0 0");
        cli.must("set table t_ip key 255.255.255.255 data.conn_cnt 4294967295");
        cli.must("set table t_ip6 key ::ffff:1.2.3.4 data.gpc0 9");
        for (key, value) in [("0", 0), ("305419896", 9), ("4294967295", 240), ("1", 4294967295u32)]
        {
            cli.must(&format!("set table t_int key {key} data.gpc0 {value}"));
        }
        for (key, value) in [("hello", 300), ("with\\ blank", 1), ("ünï", 2287), (":;=x", 2288)] {
            cli.must(&format!("set table t_str key {} data.gpc0 {value}", key.replace(';', "")));
        }
        cli.must(&format!("set table t_str key {} data.gpt0 264432", "z".repeat(32)));
        cli.must("set table t_nodata key 10.9.9.9");
        cli.must(&format!("set table {SECTION}/t_pp key 10.0.0.9 data.gpc0 2 data.gpt0 239"));
        if version >= (3, 2) {
            cli.must("set table t_arr key byset data.gpt[1] 5 data.gpc[0] 6 data.gpc_rate[1] 7");
        }
        self.traffic(other, 12);
        // What a stream counts at its very end is not pushed by itself: touch the entries.
        cli.must("set table t_ip key 127.0.0.1 data.server_id 1");
        cli.must("set table t_decay key sharp data.gpc0_rate 600000 data.conn_rate 2000000");
    }

    fn traffic(&self, other: &str, requests: usize) {
        for number in 0..requests {
            let path = if number % 3 == 2 { "/missing" } else { "/" };
            let header = format!("x-key: user{}", number % 5);
            for address in [self.front.as_str(), other] {
                let reply = get(address, path, &header).expect("an answer through HAProxy");
                assert!(reply.ends_with("s1") || reply.ends_with("srv-two"), "answer: {reply}");
            }
        }
    }

    /// All tables of the two are equal.
    fn equal(&self, limit: u64) {
        for table in &self.tables {
            // 600 000 events in 6 s decay by 100 a ms: 200 ms of slack for a busy machine.
            let rate = if table == "t_decay" { 20_000 } else { 0 };
            become_equal(&self.hap, &self.node, table, Slack { rate, exp_ms: 3000 }, limit);
        }
    }
}

/// That the comparison compares something: rows, and live values among them.
fn worth_comparing(pair: &Pair) {
    let node = pair.node.cli();
    let web = node.table("web");
    assert_eq!(web.rows.len(), 5, "{web:?}");
    let servers: Vec<&str> = web.rows.values().map(|r| r.values["server_key"].as_str()).collect();
    assert!(servers.contains(&"s1") && servers.contains(&"srv-two"), "{servers:?}");
    let traffic = node.row("t_ip", "127.0.0.1").expect("tracked by its source address");
    assert_eq!(traffic.number("http_req_cnt"), 12, "{traffic:?}");
    assert_eq!(traffic.number("http_err_cnt"), 4, "{traffic:?}");
    assert_eq!(traffic.number("gpt0"), 17, "{traffic:?}");
    assert!(traffic.number("bytes_in_cnt") > 300, "{traffic:?}");
    assert_eq!(traffic.number("http_req_rate(240000)"), 12, "{traffic:?}");
    let arrays = node.row("t_arr", "user1").expect("tracked in a table of arrays");
    assert_eq!((arrays.number("gpt2"), arrays.number("gpt0")), (11, 0), "{arrays:?}");
    assert_eq!(arrays.number("gpc1_rate(600000)"), arrays.number("gpc1"), "{arrays:?}");
    let binary = node.table("t_bin");
    assert_eq!(binary.rows.len(), 5, "{binary:?}");
    assert!(binary.rows.contains_key("7573657231000000"), "user1 in hex: {binary:?}");
    assert_eq!(node.table("t_ip").rows.len(), 4);
    let big = node.row("t_ip", "10.1.2.3").expect("an entry set in HAProxy");
    assert_eq!(big.number("bytes_out_cnt"), 9007199254740993, "{big:?}");
    assert_eq!(big.number("gpt0"), 4294967295, "{big:?}");
}

#[test]
fn entries_of_haproxy_appear_in_the_node() {
    each_version("entries appear in the node", (2, 5), |lab| {
        let pair = Pair::new(lab, 2);
        pair.equal(10);
        worth_comparing(&pair);
        // The sharp rates turn into their second period: both must decay alike.
        pause(8000);
        let now = pair.hap.cli().row("t_decay", "sharp").expect("still there");
        let rate = now.number("gpc0_rate(6000)");
        assert!(rate > 0 && rate < 600_000, "not decaying when compared: {now:?}");
        pair.equal(3);
    });
}

fn give_back(lab: &Lab, threads: u32) {
    let mut pair = Pair::new(lab, threads);
    pair.equal(10);
    // Let the entries age, so that a fresh lifetime instead of the remaining one is noticed.
    pause(5000);
    let before: Vec<_> = pair.tables.iter().map(|table| pair.node.cli().table(table)).collect();
    let begin = Instant::now();
    pair.hap.kill();
    pair.hap.start();
    eventually(12, "HAProxy gets its entries back", || {
        let used = pair.hap.cli().used("t_ip")?;
        (used == 4).then_some(()).ok_or_else(|| format!("{used} entries in t_ip"))
    });
    // Both show the same now, the rates, too: HAProxy computes them from what it was given.
    pair.equal(5);
    let elapsed = u64::try_from(begin.elapsed().as_millis()).expect("a short time");
    for (table, mut old) in pair.tables.iter().zip(before) {
        for row in old.rows.values_mut() {
            row.exp = row.exp.saturating_sub(elapsed);
        }
        let now = pair.hap.cli().table(table);
        let slack = Slack { rate: u64::MAX >> 1, exp_ms: 3000 };
        let found = differences(&old, &now, &old, slack);
        assert!(found.is_empty(), "{table} after the restart: {found:?}");
    }
    // The restarted process is up to date and goes on by itself.
    pair.hap.cli().must("set table t_str key after data.gpc0 77");
    eventually(5, "an update after the restart", || {
        pair.node.cli().row("t_str", "after").ok_or_else(|| "nothing".to_owned())
    });
    let reply = get(&pair.front, "/", "x-key: user1").expect("an answer");
    let key = pair.node.cli().row("web", "user1").expect("sticks").values["server_key"].clone();
    assert!(reply.ends_with(&key), "stuck to {key}, answered by: {reply}");
}

#[test]
fn haproxy_killed_gets_its_entries_back() {
    each_version("haproxy killed and started again", (2, 5), |lab| give_back(lab, 2));
}

#[test]
fn haproxy_killed_gets_its_entries_back_from_one_thread() {
    each_version("killed and started again, one thread", (3, 2), |lab| give_back(lab, 1));
}

#[test]
fn haproxy_killed_gets_its_entries_back_from_four_threads() {
    each_version("killed and started again, four threads", (3, 2), |lab| give_back(lab, 4));
}

#[test]
fn haproxy_killed_gets_its_entries_back_by_the_epoll_engine() {
    each_version_on("killed and started again, epoll", (3, 2), "epoll", |lab| give_back(lab, 2));
}

#[test]
fn the_node_killed_relearns_from_haproxy() {
    each_version("the node killed and started again", (2, 5), |lab| {
        let mut pair = Pair::new(lab, 2);
        pair.equal(10);
        pair.node.kill();
        pair.node.start();
        eventually(12, "the node learns again", || {
            let used = pair.node.cli().used("t_ip")?;
            (used == 4).then_some(()).ok_or_else(|| format!("{used} entries in t_ip"))
        });
        pair.equal(5);
        worth_comparing(&pair);
    });
}

/// Every type of key and value goes from process to process, and the names of servers that HAProxy
/// has sent before are known behind the reload by their numbers.
#[test]
fn the_node_reloaded_at_once_keeps_every_value() {
    each_version("all values through reloads", (2, 5), |lab| {
        if !lab.node.is_stickring() {
            return;
        }
        let mut pair = Pair::new(lab, 4);
        pair.equal(10);
        worth_comparing(&pair);
        let reload = |pair: &mut Pair| {
            pair.node = lab.reload(&mut pair.node);
            assert_eq!(pair.node.info("HandoverKind"), "instant");
        };
        for round in 0..3 {
            reload(&mut pair);
            pair.equal(5);
            // Other keys that stick to the same two servers.
            for n in 0..4 {
                let header = format!("x-key: late{round}{n}");
                get(&pair.front, "/", &header).expect("an answer through HAProxy");
            }
            eventually(5, "late keys", || match pair.node.cli().used("web")? {
                used if used == 5 + 4 * (round + 1) => Ok(()),
                used => Err(format!("{used} entries in web")),
            });
        }
        reload(&mut pair);
        pair.equal(5);
        let late = pair.node.cli().row("web", "late23").expect("sticks");
        assert!(["s1", "srv-two"].contains(&late.values["server_key"].as_str()), "{late:?}");
        // And all of it is given back.
        pair.hap.kill();
        pair.hap.start();
        eventually(12, "HAProxy gets its entries back", || {
            let used = pair.hap.cli().used("web")?;
            (used == 17).then_some(()).ok_or_else(|| format!("{used} entries in web"))
        });
        pair.equal(10);
    });
}
