//! Other shapes of a deployment: address forms, sections, threads, three members, one shared file.

use crate::config::{Config, Member, SECTION, Section, all_tables};
use crate::harness::{Lab, Process, each_version, each_version_on, eventually, pause};

/// An entry made on each side is seen on the other.
fn both_ways(hap: &Process, node: &Process, table: &str, mark: u32) {
    for (from, to, key) in [(hap, node, "10.0.0.1"), (node, hap, "10.0.0.2")] {
        from.cli().must(&format!("set table {table} key {key} data.gpc0 {mark}"));
        eventually(6, &format!("{key} on the other side"), || {
            let row = to.cli().row(table, key).ok_or_else(|| format!("no {key} in {table}"))?;
            let seen = row.number("gpc0");
            if seen == u64::from(mark) { Ok(()) } else { Err(format!("gpc0={seen}")) }
        });
    }
}

fn meet(lab: &Lab, hap: &Member, node: &Member, threads: u32) -> (Process, Process) {
    let node_side = lab.node(&Config::new(&[node, hap]).threads(threads));
    let hap_side = lab.haproxy(&Config::new(&[hap, node]));
    eventually(10, "a session", || hap_side.cli().established(SECTION, "node"));
    (hap_side, node_side)
}

fn named(name: &str, address: String) -> Member {
    Member { name: name.to_owned(), address }
}

#[test]
fn peers_on_unix_sockets() {
    each_version("unix sockets", (2, 5), |lab| {
        let at = |name: &str| named(name, format!("unix@{}", lab.path(name).display()));
        let (hap, node) = meet(lab, &at("hap"), &at("node"), 2);
        both_ways(&hap, &node, "mypeers/t_pp", 3);
    });
}

#[test]
fn peers_on_abstract_sockets() {
    each_version("abstract sockets", (2, 5), |lab| {
        let unique = lab.free().to_string().replace([':', '.'], "-");
        let at = |name: &str| named(name, format!("abns@{name}-{unique}"));
        let (hap, node) = meet(lab, &at("hap"), &at("node"), 2);
        both_ways(&hap, &node, "mypeers/t_pp", 3);
    });
}

#[test]
fn peers_on_ipv6() {
    each_version("IPv6", (2, 5), |lab| {
        // Only ::1 is loopback in IPv6: the ports must be free there, not only in 127.0.0.0/8.
        let at = |name: &str| {
            let free = || {
                let listener = std::net::TcpListener::bind("[::1]:0").expect("IPv6 on loopback");
                listener.local_addr().expect("its address").port()
            };
            named(name, format!("[::1]:{}", free()))
        };
        let (hap, node) = meet(lab, &at("hap"), &at("node"), 2);
        both_ways(&hap, &node, "mypeers/t_pp", 3);
    });
}

#[test]
fn bind_and_server_lines() {
    each_version("bind and server lines", (2, 5), |lab| {
        let (hap, node) = (lab.member("hap"), lab.member("node"));
        let section = |own: &Member, other: &Member| {
            let mut config = Config::new(&[own]);
            config.sections[0].members.clear();
            let lines = [
                format!("bind {}", own.address),
                "default-server weight 1".to_owned(),
                format!("server {}", own.name),
                format!("server {} {}", other.name, other.address),
            ];
            config.sections[0].lines.extend(lines);
            config
        };
        let node_side = lab.node(&section(&node, &hap));
        let hap_side = lab.haproxy(&section(&hap, &node));
        eventually(10, "a session", || hap_side.cli().established(SECTION, "node"));
        both_ways(&hap_side, &node_side, "mypeers/t_pp", 3);
    });
}

#[test]
fn two_sections_are_two_worlds() {
    each_version("two sections", (2, 5), |lab| {
        let members = || (lab.member("hap"), lab.member("node"));
        let ((hap, node), (hap2, node2)) = (members(), members());
        let config = |own: [&Member; 2], other: [&Member; 2]| {
            let mut config = Config::new(&[own[0], other[0]]);
            config.sections.push(Section {
                name: "second".to_owned(),
                members: vec![own[1].clone(), other[1].clone()],
                lines: vec!["table t_pp type ip size 1k expire 1h store gpc0".to_owned()],
            });
            let definition = "type ip size 1k expire 1h store gpc0".to_owned();
            config.tables.push(("t_first".to_owned(), definition.clone(), SECTION.to_owned()));
            config.tables.push(("t_second".to_owned(), definition, "second".to_owned()));
            config
        };
        let mut node_side = lab.node(&config([&node, &node2], [&hap, &hap2]));
        let hap_side = lab.haproxy(&config([&hap, &hap2], [&node, &node2]));
        for section in [SECTION, "second"] {
            eventually(10, "a session", || hap_side.cli().established(section, "node"));
        }
        both_ways(&hap_side, &node_side, "mypeers/t_pp", 3);
        both_ways(&hap_side, &node_side, "second/t_pp", 4);
        both_ways(&hap_side, &node_side, "t_first", 5);
        both_ways(&hap_side, &node_side, "t_second", 6);
        let row = node_side.cli().row("mypeers/t_pp", "10.0.0.1").expect("the first section's");
        assert_eq!(row.number("gpc0"), 3, "the sections' tables are mixed up");
        // Both sections are learned again, each by its own session.
        node_side.kill();
        node_side.start();
        for (table, mark) in [("mypeers/t_pp", 3), ("second/t_pp", 4), ("t_second", 6)] {
            eventually(12, &format!("{table} learned again"), || {
                let row = node_side.cli().row(table, "10.0.0.2");
                let seen = row.ok_or_else(|| "nothing".to_owned())?.number("gpc0");
                if seen == mark { Ok(()) } else { Err(format!("gpc0={seen}")) }
            });
        }
    });
}

#[test]
fn one_two_and_four_threads() {
    each_version("threads", (2, 5), |lab| {
        for threads in [1, 2, 4] {
            let (hap, node) = (lab.member("hap"), lab.member("node"));
            let (hap, node) = meet(lab, &hap, &node, threads);
            both_ways(&hap, &node, "mypeers/t_pp", threads);
        }
    });
}

#[test]
fn the_epoll_engine_keeps_sessions() {
    each_version_on("the epoll engine", (2, 5), "epoll", |lab| {
        let (hap, node) = meet(lab, &lab.member("hap"), &lab.member("node"), 2);
        both_ways(&hap, &node, "mypeers/t_pp", 3);
        pause(6500);
        let state = hap.cli().established(SECTION, "node").expect("still established");
        assert!(state.number("rx_hbt") > 0, "{state:?}");
        both_ways(&hap, &node, "mypeers/t_pp", 4);
    });
}

#[test]
fn two_haproxys_and_the_node() {
    each_version("three members", (2, 5), |lab| {
        let (one, two, node) = (lab.member("one"), lab.member("two"), lab.member("node"));
        let tables = all_tables(lab.version.number);
        let config = |a: &Member, b: &Member, c: &Member| Config::new(&[a, b, c]).tables(&tables);
        let node_side = lab.node(&config(&node, &one, &two));
        let first = lab.haproxy(&config(&one, &two, &node));
        let mut second = lab.haproxy(&config(&two, &one, &node));
        for (process, peer) in [(&first, "node"), (&first, "two"), (&second, "node")] {
            eventually(12, "a session", || process.cli().established(SECTION, peer));
        }
        for (number, process) in [&first, &second, &node_side].into_iter().enumerate() {
            process.cli().must(&format!("set table t_str key by{number} data.gpc0 {number}"));
        }
        let everywhere = |processes: &[&Process]| {
            for process in processes {
                eventually(12, "three entries on every member", || {
                    let used = process.cli().used("t_str")?;
                    if used == 3 { Ok(()) } else { Err(format!("{used} entries")) }
                });
            }
        };
        everywhere(&[&first, &second, &node_side]);
        second.kill();
        // While it is away the others change something.
        first.cli().must("set table t_str key by0 data.gpc0 50");
        node_side.cli().must("set table t_str key by2 data.gpc0 52");
        second.start();
        everywhere(&[&second]);
        for (key, wanted) in [("by0", 50), ("by1", 1), ("by2", 52)] {
            eventually(12, "the newest values", || {
                let row = second.cli().row("t_str", key).ok_or_else(|| "missing".to_owned())?;
                let seen = row.number("gpc0");
                if seen == wanted { Ok(()) } else { Err(format!("{key}: gpc0={seen}")) }
            });
        }
    });
}

#[test]
fn the_node_knows_more_types_than_an_old_haproxy() {
    each_version("types that HAProxy does not know", (2, 5), |lab| {
        let (hap, node) = (lab.member("hap"), lab.member("node"));
        let table = |types: &str| [("t_new", format!("type ip size 1k expire 1h store {types}"))];
        let newer = if lab.node.number() >= (3, 0) { "gpc0,gpt0,glitch_cnt" } else { "gpc0,gpt0" };
        let node_side = lab.node(&Config::new(&[&node, &hap]).tables(&table(newer)));
        let hap_side = lab.haproxy(&Config::new(&[&hap, &node]).tables(&table("gpc0,conn_cnt")));
        eventually(10, "a session", || hap_side.cli().established(SECTION, "node"));
        both_ways(&hap_side, &node_side, "t_new", 9);
        if newer.contains("glitch") {
            node_side.cli().must("set table t_new key 10.0.0.3 data.glitch_cnt 5 data.gpc0 6");
            eventually(5, "the entry with a new type", || {
                let row = hap_side.cli().row("t_new", "10.0.0.3");
                row.ok_or_else(|| "missing".to_owned())
            });
        }
        // HAProxy goes on with its own types on the node's entry: ours are not touched.
        node_side.cli().must("set table t_new key 10.0.0.4 data.gpt0 8");
        eventually(5, "the entry on the other side", || {
            hap_side.cli().row("t_new", "10.0.0.4").ok_or_else(|| "missing".to_owned())
        });
        hap_side.cli().must("set table t_new key 10.0.0.4 data.gpc0 3 data.conn_cnt 2");
        eventually(5, "the change of HAProxy", || {
            let row = node_side.cli().row("t_new", "10.0.0.4").expect("it is ours");
            let seen = (row.number("gpc0"), row.number("gpt0"));
            if seen == (3, 8) { Ok(()) } else { Err(format!("{row:?}")) }
        });
    });
}

#[test]
fn the_node_runs_on_the_file_of_haproxy() {
    each_version("one file for both", (2, 5), |lab| {
        if !lab.node.is_stickring() {
            // Two HAProxys with the same frontends would need the same port.
            return;
        }
        let (hap, node, front) = (lab.member("hap"), lab.member("node"), lab.free());
        let rest = format!(
            "frontend web\n    bind {front}\n    acl abuse sc0_gpc0_rate gt 10\n    \
             http-request track-sc0 src table per_ip\n    http-request deny if abuse\n    \
             stick-table type ipv6 size 1m expire 60s store http_req_rate(10s) \
             peers {SECTION}\n    \
             use_backend app\n\nlisten stats\n    bind {}\n    stats enable\n    \
             stick-table type ip size 1k expire 1h store gpc0 peers {SECTION}\n\n\
             backend per_ip\n    stick-table type ip size 1m expire 10m store gpc0_rate(10s) \
             peers {SECTION}\n\nbackend app\n    balance roundrobin\n    \
             stick-table type string len 64 size 200k expire 30m peers {SECTION}\n    \
             stick on req.cook(SESSION) if {{ req.cook(SESSION) -m found }}\n    \
             option httpchk GET /health\n    server s1 127.0.0.1:1 check\n    \
             server s2 127.0.0.1:2 check backup\n",
            lab.free()
        );
        let config = Config::new(&[&hap, &node]).rest(&rest);
        // `-L` goes over `localpeer hap` in the file.
        let hap_side = lab.haproxy(&config);
        let node_side = lab.node_on_file_of(&config, "node");
        eventually(12, "a session", || hap_side.cli().established(SECTION, "node"));
        for table in ["web", "per_ip", "app", "stats", "mypeers/t_pp"] {
            let header = |process: &Process| process.cli().table(table).header;
            assert_eq!(header(&hap_side), header(&node_side));
        }
        hap_side.cli().must("set table app key cookie data.server_id 2");
        hap_side.cli().must("set table web key ::1 data.http_req_rate 7");
        eventually(5, "entries of both", || {
            let seen = (node_side.cli().used("app")?, node_side.cli().used("web")?);
            if seen == (1, 1) { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        let row = node_side.cli().row("app", "cookie").expect("the entry");
        assert_eq!(row.number("server_id"), 2);
        assert_eq!(row.values["server_key"], "-", "`stick on` stores the server's name, too");
    });
}
