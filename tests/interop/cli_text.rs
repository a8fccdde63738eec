//! The stats socket beside HAProxy's: the same commands to both, the same bytes back.
//!
//! Both run the same tables without a session between them. What differs by nature is taken out
//! first: addresses in memory, lifetimes, and the order in which 3.x walks a table.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use crate::config::{Config, SECTION};
use crate::harness::{Lab, Process, each_node, each_version, eventually, pause};
use crate::stats::Cli;

/// Commands in order; what earlier ones did is there for the later. Two things of HAProxy are not
/// asked for: `set table t` alone empties the table there, and a session that lowered its level
/// still sees the contents of tables, because the level of the socket is looked at.
const COMMANDS: &[&str] = &[
    "show table",
    "show table t_str",
    "show table nosuch",
    "show table mypeers/t_pp",
    "show table t_pp",
    "set table t_str key a data.gpc0 1",
    "set table t_str key b data.gpc0 2 data.gpt0 7",
    "set table t_str key c data.gpt0 4294967295",
    "set table t_str key with\\ blank data.gpc0 4",
    "set table t_str key back\\\\slash data.gpc0 5",
    "set table t_str key semi\\;colon data.gpc0 5",
    "set table t_str key \"quoted\" data.gpc0 5",
    "set table t_str key aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa data.gpc0 6",
    "set table t_str key =x:y data.gpc0 6",
    "set table t_str key \u{fc}n\u{ef} data.gpc0 6",
    "show table t_str",
    "show table t_str key a",
    "show table t_str key nosuchkey",
    "show table t_str key",
    "show table t_str key a b",
    "show table t_str data.gpc0 gt 1",
    "show table t_str data.gpc0 ge 2 data.gpc0 le 5",
    "show table t_str data.gpc0 eq 2",
    "show table t_str data.gpc0 ne 2 data.gpt0 eq 0",
    "show table t_str data.gpc0 lt 3 data.gpc0 gt 0 data.gpt0 ge 0 data.gpt0 le 9",
    "show table t_str data.gpc0 gt 1 data.gpc0 gt 2 data.gpc0 gt 3 data.gpc0 gt 4 data.gpc0 gt 5",
    "show table t_str data.nosuch gt 1",
    "show table t_str data.conn_cnt gt 1",
    "show table t_str data.gpc0",
    "show table t_str data.gpc0 xx 1",
    "show table t_str data.gpc0 gt",
    "show table t_str data.gpc0 gt x",
    "show table t_str data.gpc0 gt 1x",
    "show table t_str data.gpc0 gt 1 data.gpc0 xx",
    "show table t_str data.gpc0 gt -1",
    "show table t_str data.gpc0 gt 1 extra",
    "show table t_str foo",
    "show table t_str ptr",
    "show table t_str ptr 12",
    "show table t_str ptr 0xzz",
    "show table t_str ptr 0x10",
    "set table",
    "set table nosuch key a data.gpc0 1",
    "set table t_str foo",
    "set table t_str key",
    "set table t_str key d",
    "set table t_str key d data.gpc0",
    "set table t_str key d data.gpc0 x",
    "set table t_str key d data.gpc0 5 data.gpc0 7x",
    "set table t_str key d data.nosuch 5",
    "set table t_str key d data.conn_cnt 5",
    "set table t_str key d gpc0 5",
    "set table t_str key d data.gpc0 9 data.gpt0 8 data.gpc0 10",
    "set table t_str data.gpc0 gt 1",
    "show table t_str key d",
    "set table t_str key d data.gpc0 -1",
    "show table t_str key d",
    "set table t_str key d data.gpc0 99999999999",
    "show table t_str key d",
    "set table t_ip key 1.2.3.4 data.gpc0 1 data.conn_rate 33 data.bytes_in_cnt 123456789012",
    "set table t_ip key 010.1.2.3 data.gpc0 1",
    "set table t_ip key 1.2.3 data.gpc0 1",
    "set table t_ip key 1.2.3.256 data.gpc0 1",
    "set table t_ip key ::ffff:1.2.3.5 data.gpc0 1",
    "set table t_ip key 2001:db8::1 data.gpc0 1",
    "set table t_ip key localhost.invalid data.gpc0 1",
    "set table t_ip key 1.2.3.4 data.server_key x",
    "show table t_ip",
    "show table t_ip data.conn_rate gt 32",
    "show table t_ip data.conn_rate gt 33",
    "show table t_ip data.bytes_in_cnt eq 123456789012",
    "set table t_ip6 key 2001:DB8:0:0::1 data.gpc0 1",
    "set table t_ip6 key 1.2.3.4 data.gpc0 2",
    "set table t_ip6 key ::ffff:1.2.3.4 data.gpc0 3",
    "set table t_ip6 key :: data.gpc0 4",
    "set table t_ip6 key ::1.2.3.4 data.gpc0 4",
    "set table t_ip6 key fe80:0:0:1:: data.gpc0 4",
    "set table t_ip6 key 1:0:0:2:0:0:0:3 data.gpc0 4",
    "set table t_ip6 key 2001:db8::1::2 data.gpc0 5",
    "show table t_ip6",
    "show table t_ip6 key 2001:db8::1",
    "set table t_int key 42 data.gpc0 1",
    "set table t_int key -1 data.gpc0 2",
    "set table t_int key 4294967297 data.gpc0 3",
    "set table t_int key 0x10 data.gpc0 4",
    "set table t_int key 007 data.gpc0 4",
    "set table t_int key abc data.gpc0 5",
    "set table t_int key 99999999999999999999 data.gpc0 5",
    "show table t_int",
    "show table t_int key 42",
    "set table t_arr key k data.gpt[1] 3 data.gpc[0] 4 data.gpc_rate[1] 5",
    "set table t_arr key k data.gpt[3] 3",
    "set table t_arr key k data.gpt 9",
    "set table t_arr key k data.gpt[x] 3",
    "set table t_arr key k data.gpt0 3",
    "show table t_arr",
    "show table t_arr data.gpt[1] eq 3",
    "show table t_arr data.gpc_rate[1] gt 1",
    "show table t_arr data.gpt[9] eq 3",
    "set table t_nodata key 10.0.0.1",
    "show table t_nodata",
    "show table t_none",
    "set table mypeers/t_pp key 9.9.9.9 data.gpc0 3",
    "show table mypeers/t_pp",
    "show table",
    "clear table",
    "clear table nosuch",
    "clear table t_str key a",
    "clear table t_str key a",
    "clear table t_str key",
    "clear table t_str data.gpc0 eq 2",
    "clear table t_str data.gpc0 zz 2",
    "clear table t_str foo",
    "clear table t_str ptr 0x10",
    "show table t_str",
    "clear table t_str",
    "show table t_str",
    "show table t_ip; show table nosuch;show table t_str",
    " show   table   t_nodata ",
    "show table t_nodata;",
    ";show table t_nodata",
    "show table t_nodata;;show table t_str",
    "show peers nosuch",
    "show cli level",
    "set timeout cli",
    "set timeout cli x",
    "set timeout cli 30",
    "operator; show cli level; user; show cli level; operator",
    "user; set table t_str key x data.gpc0 1; clear table t_str key a; show table",
    "set severity-output number; show table nosuch; set severity-output string; show table nosuch",
    "set severity-output foo",
    "quit",
    "show table t_str\r",
];

/// The tables of these tests; all but `t_none`, so that a stranger has no table of ours.
fn tables() -> Vec<(&'static str, String)> {
    let text = |text: &str| text.to_owned();
    vec![
        (
            "t_ip",
            text("type ip size 1k expire 10m store gpc0,conn_rate(100s),bytes_in_cnt,server_key"),
        ),
        ("t_ip6", text("type ipv6 size 2048 expire 10m store gpc0")),
        ("t_str", text("type string len 32 size 1m expire 30m store gpt0,gpc0")),
        ("t_int", text("type integer size 1k expire 24d store gpc0")),
        ("t_bin", text("type binary len 8 size 1k store gpc0")),
        ("t_arr", text("type string len 8 size 1k expire 1h store gpt(3),gpc(2),gpc_rate(2,600s)")),
        ("t_nodata", text("type ip size 1k")),
    ]
}

/// Takes out what may differ, and the order of entries.
fn normal(reply: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut entries: Vec<String> = Vec::new();
    for line in reply.split('\n') {
        if let Some((address, rest)) = line.split_once(": key=")
            && address.starts_with("0x")
        {
            let words = rest.split(' ').map(|word| match word.strip_prefix("exp=") {
                Some("0") | None => word,
                Some(_) => "exp=N",
            });
            entries.push(format!("0x: key={}", words.collect::<Vec<_>>().join(" ")));
            continue;
        }
        entries.sort();
        lines.append(&mut entries);
        lines.push(line.to_owned());
    }
    entries.sort();
    lines.append(&mut entries);
    lines.join("\n")
}

fn alone(lab: &Lab) -> (Process, Process) {
    let local = lab.member("local");
    let make = |name: &str| {
        let mut config = Config::new(&[&local.at(lab.free())]).tables(&tables());
        for level in ["user", "operator"] {
            let path = lab.path(&format!("{name}.{level}"));
            config = config.global(&format!("stats socket {} level {level}", path.display()));
        }
        // The files of the two must not be the same.
        config.local = name.to_owned();
        config.sections[0].members[0].name = name.to_owned();
        config
    };
    (lab.haproxy(&make("hap")), lab.node(&make("node")))
}

#[test]
fn replies_are_those_of_haproxy() {
    each_version("replies on the stats socket", (3, 2), |lab| {
        let (hap, node) = alone(lab);
        let mut wrong = String::new();
        for command in COMMANDS {
            let wanted = normal(&hap.cli().try_ask(command).unwrap_or_default());
            let got = normal(&node.cli().try_ask(command).unwrap_or_default());
            if wanted != got {
                wrong += &format!("`{command}`\n  haproxy: {wanted:?}\n  node:    {got:?}\n");
            }
        }
        assert!(wrong.is_empty(), "replies that differ:\n{wrong}");
    });
}

#[test]
fn levels_are_those_of_haproxy() {
    each_version("levels of the stats socket", (3, 2), |lab| {
        let (hap, node) = alone(lab);
        for process in [&hap, &node] {
            process.cli().must("set table t_str key a data.gpc0 1");
        }
        let commands = [
            "show table",
            "show table t_str",
            "show table t_str key a",
            "show table t_str data.gpc0 gt 0",
            "set table t_str key b data.gpc0 1",
            "clear table t_str key nosuch",
            "clear table t_none",
            "show cli level",
            "operator",
            "operator; show cli level",
            "user; show cli level",
            "show peers nosuch",
        ];
        let mut wrong = String::new();
        for level in ["user", "operator"] {
            for command in commands {
                let ask = |name: &str| {
                    let cli = Cli::new(&lab.path(&format!("{name}.{level}")));
                    normal(&cli.try_ask(command).unwrap_or_default())
                };
                let (wanted, got) = (ask("hap"), ask("node"));
                if wanted != got {
                    wrong += &format!(
                        "{level}: `{command}`\n  haproxy: {wanted:?}\n  node:    {got:?}\n"
                    );
                }
            }
        }
        assert!(wrong.is_empty(), "replies that differ:\n{wrong}");
        assert_eq!(node.cli().used("t_str"), hap.cli().used("t_str"));
    });
}

#[test]
fn framing_is_that_of_haproxy() {
    each_version("framing of the stats socket", (3, 2), |lab| {
        let (hap, node) = alone(lab);
        let scripts: [&[u8]; 12] = [
            b"show table t_str\nshow table t_ip\n",
            b"show table t_str\r\n",
            b"\n",
            b";\n",
            b"show table t_str;show table t_ip\n",
            b"prompt\nshow table t_str\nquit\n",
            b"prompt\nshow table nosuch\nset table t_str key a data.gpc0 1\n\
              show table t_str\nquit\n",
            b"prompt;show table t_str\nshow table t_ip\nquit\n",
            b"prompt i\nshow table t_str\nquit\n",
            b"prompt n\nshow table t_str\nshow table t_ip\n",
            b"prompt\n\n\nquit\n",
            b"prompt\nclear table t_str\nprompt\nshow table t_str\nquit\n",
        ];
        let mut wrong = String::new();
        for script in scripts {
            let ask = |process: &Process| {
                let reply = process.cli().raw(script).unwrap_or_default();
                normal(&String::from_utf8_lossy(&reply))
            };
            let (wanted, got) = (ask(&hap), ask(&node));
            if wanted != got {
                let script = String::from_utf8_lossy(script);
                wrong += &format!("{script:?}\n  haproxy: {wanted:?}\n  node:    {got:?}\n");
            }
        }
        assert!(wrong.is_empty(), "replies that differ:\n{wrong}");
    });
}

#[test]
fn an_unfinished_line_gets_nothing_and_a_torn_one_its_reply() {
    each_node("unfinished and torn lines", |lab| {
        let (_hap, node) = alone(lab);
        let mut stream = node.cli().connect().expect("stats socket");
        stream.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("timeout");
        stream.write_all(b"show table t_s").expect("half a command");
        let mut byte = [0];
        assert!(stream.read(&mut byte).is_err(), "a reply to half a command");
        stream.write_all(b"tr\n").expect("the other half");
        pause(200);
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        assert!(
            reply.starts_with("# table: t_str, type: string, size:1048576, used:0\n"),
            "{reply}"
        );
    });
}

#[test]
fn unknown_commands_and_help() {
    each_node("help", |lab| {
        let (_hap, node) = alone(lab);
        let cli = node.cli();
        let help = cli.ask("help");
        assert!(help.starts_with("The following commands are valid at this level:\n"), "{help}");
        for command in ["show table", "set table", "clear table", "show peers", "show info", "quit"]
        {
            assert!(help.contains(&format!("\n  {command}")), "{command} is not in: {help}");
        }
        for line in help.lines().skip(1).filter(|line| !line.is_empty()) {
            assert!(line.starts_with("  ") && line.contains(": "), "`{line}`");
        }
        let unknown = cli.ask("foo bar");
        let first = unknown.lines().next().unwrap_or_default();
        if lab.node.number() >= (3, 4) {
            assert!(first.starts_with("Unknown command: 'foo'"), "{first}");
        }
        assert!(first.starts_with("Unknown command"), "{first}");
        assert!(unknown.contains("\n  help "), "{unknown}");
        assert!(unknown.ends_with("\n\n"), "{unknown:?}");
    });
}

/// The names of all fields of a reply, in order and without their values, of one peer.
fn names(reply: &str, peer: &str) -> BTreeSet<String> {
    let start = reply.find(&format!("id={peer}(")).unwrap_or_else(|| panic!("no {peer}: {reply}"));
    let rest = &reply[start..];
    let end = rest[3..].find("(remote").or(rest[3..].find("(local")).unwrap_or(rest.len() - 3);
    let end = rest[3..].match_indices("(").map(|(at, _)| at).find(|at| *at > 20).unwrap_or(end);
    rest[..end + 3]
        .split_whitespace()
        .filter_map(|word| word.split_once(['=', ':']))
        .map(|(name, _)| name.to_owned())
        .filter(|name| !name.starts_with("0x"))
        .collect()
}

#[test]
fn show_peers_has_the_fields_of_haproxy() {
    each_version("show peers", (3, 2), |lab| {
        let (hap, node) = (lab.member("hap"), lab.member("node"));
        let tables = tables();
        let node_side = lab.node(&Config::new(&[&node, &hap.at(lab.free())]).tables(&tables));
        let hap_side = lab.haproxy(&Config::new(&[&hap, &node]).tables(&tables));
        eventually(10, "a session", || node_side.cli().established(SECTION, "hap"));
        eventually(10, "a session", || hap_side.cli().established(SECTION, "node"));
        hap_side.cli().must("set table t_str key a data.gpc0 1");
        node_side.cli().must("set table t_str key b data.gpc0 1");
        pause(1000);
        for argument in ["", " mypeers", " dict mypeers"] {
            let command = format!("show peers{argument}");
            let (theirs, ours) = (hap_side.cli().ask(&command), node_side.cli().ask(&command));
            let wanted = names(&theirs, "node");
            let got = names(&ours, "hap");
            let missing: Vec<&String> = wanted.difference(&got).collect();
            assert!(missing.is_empty(), "`{command}`: missing {missing:?}\n{ours}\nof\n{theirs}");
            // HAProxy dials, so only the node tells where from; 3.2 has `commitupdate`, 3.4 not.
            let known = |name: &&String| !["src", "xprt", "commitupdate"].contains(&name.as_str());
            let more: Vec<&String> = got.difference(&wanted).filter(known).collect();
            assert!(more.is_empty(), "`{command}`: not HAProxy's: {more:?}\n{ours}\nof\n{theirs}");
            assert_eq!(ours.matches("shared tables:").count(), 2, "{ours}");
            assert_eq!(ours.contains("TX dictionary cache:"), argument.contains("dict"), "{ours}");
        }
        let state = node_side.cli().established(SECTION, "hap").expect("established");
        for (name, wanted) in [("app_state", "RUNNING"), ("learn_state", "NOTASSIGNED")] {
            assert_eq!(state.fields[name], wanted, "{state:?}");
        }
        // What was set on each side is pushed, acknowledged and counted.
        eventually(5, "counters of t_str", || {
            let peers = node_side.cli().peers(SECTION);
            let table = &peers["hap"].tables["t_str"];
            let done = table["last_pushed"] != "0"
                && table["update"] == table["last_pushed"]
                && table["last_get"] != "0"
                && table["last_acked"] == table["last_get"];
            if done { Ok(()) } else { Err(format!("{table:?}")) }
        });
    });
}

#[test]
fn show_info_and_version() {
    each_version("show info", (3, 2), |lab| {
        let (hap, node) = alone(lab);
        let version = node.cli().ask("show version");
        assert!(version.lines().count() == 2 && version.ends_with("\n\n"), "{version:?}");
        let names = |process: &Process| -> Vec<String> {
            let text = process.cli().ask("show info");
            let lines = text.lines().filter(|line| !line.is_empty());
            lines
                .filter_map(|l| l.split_once(": ").or(l.split_once(':')))
                .map(|l| l.0.into())
                .collect()
        };
        let (theirs, ours) = (names(&hap), names(&node));
        for name in [
            "Name",
            "Version",
            "Nbthread",
            "Process_num",
            "Pid",
            "Uptime",
            "Uptime_sec",
            "Maxsock",
            "CurrConns",
            "node",
            "Stopping",
            "Listeners",
            "ActivePeers",
            "ConnectedPeers",
        ] {
            assert!(theirs.iter().any(|n| n == name), "HAProxy has no {name}: {theirs:?}");
            assert!(ours.iter().any(|n| n == name), "no {name}: {ours:?}");
        }
        // Those that both have come in the same order.
        let common: Vec<&String> = ours.iter().filter(|name| theirs.contains(name)).collect();
        let wanted: Vec<&String> = theirs.iter().filter(|name| ours.contains(name)).collect();
        assert_eq!(common, wanted, "the order of fields");
    });
}
