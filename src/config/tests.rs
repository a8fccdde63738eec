//! The whole language: text in, configuration and messages out.

use super::testing::FakeHost;
use super::*;

pub(super) fn read(text: &str) -> Parsed {
    read_as(text, &ParseOptions::default())
}

fn read_as(text: &str, options: &ParseOptions) -> Parsed {
    let source = Source { name: "t.cfg".into(), text: text.as_bytes().to_vec() };
    parse(&[source], &FakeHost, options)
}

pub(super) fn config(text: &str) -> Config {
    let parsed = read(text);
    parsed.config.unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics))
}

/// Texts of all messages but the final two.
fn messages(text: &str) -> Vec<String> {
    read(text)
        .diagnostics
        .iter()
        .map(|d| d.text.trim_start_matches("config : ").to_owned())
        .filter(|t| !t.starts_with("Error(s) found") && !t.starts_with("Fatal errors"))
        .collect()
}

const HEAD: &str = "global\n localpeer a\n";

fn in_peers(lines: &str) -> Vec<String> {
    messages(&format!("{HEAD}peers p\n{lines}"))
}

pub(super) const FULL: &str = r#"
global
    localpeer a
    nbthread 4
    log 127.0.0.1 local0 info
    log stderr format raw daemon
    maxconn 4000
    pidfile /run/x.pid
    tune.bufsize 32k
    tune.peers.max-updates-at-once 50
    hard-stop-after 30s
    mworker-max-reloads 3
    node n1
    unix-bind prefix /run/ mode 600
    stats socket /run/s.sock level admin mode 660 user haproxy gid 7 expose-fd listeners name x
    stats socket 127.0.0.1:9999,[::1]:9998 level user severity-output number backlog 5
    stats timeout 2m
    stats maxconn 30
    setenv WHERE 10.0.0.9

defaults
    mode http
    timeout client 3s

backend web
    stick-table type string len 20 size 1k expire 2m peers mesh
    stick on req.cook(id)
    server s1 10.0.0.1:80

peers mesh
    shards 3
    bind unix@/p.sock backlog 7
    server a
    server b "$WHERE":1000 shard 2
    server c localhost:1001 source 127.0.0.5 interface lo
    table one type ip size 1m store gpc0,gpc0_rate(10s)
    table two type binary len 8 size 10 nopurge
    table sum type ip size 1m write-to other store gpc0
    log global

peers off
    disabled
    peer a 127.0.0.1:5
    table plain type ip size 5

peers old
    peer a [::1]:2000
    peer d abns@dd

frontend fe
    bind :80
    stick-table type integer size 9 peers old store conn_cur
    http-request track-sc0 src table mesh/one

listen other
    stick-table type ip size 5
    stick store-request src table mesh/two if { src 1.2.3.4 }

stickring
    auto-tables size 5k
    accept-peers 10.0.0.0/8 fd00::/8 max 9
    accept-peers unix
    engine epoll
    memory anonymous
    pin off
    instant-reload off
"#;

#[test]
fn a_whole_file_is_read() {
    let c = config(FULL);
    assert_eq!((c.localpeer.as_str(), c.nbthread), ("a", Some(4)));
    assert_eq!((c.bufsize, c.max_updates_at_once), (32_768, Some(50)));
    assert_eq!(c.max_reloads, Some(3));
    assert_eq!((c.hard_stop_after_ms, c.pidfile.as_deref()), (Some(30_000), Some("/run/x.pid")));
    assert_eq!((c.stats_timeout_ms, c.stats_maxconn), (120_000, 30));
    assert_eq!(c.logs.len(), 2);

    let [first, second] = &c.stats_sockets[..] else { panic!("{:?}", c.stats_sockets) };
    assert_eq!((first.level, first.expose_fd_listeners), (CliLevel::Admin, true));
    assert_eq!(first.bind.addresses, [Address::Unix("/run/s.sock".into())], "no prefix here");
    let unix = UnixOptions { mode: Some(0o660), uid: Some(101), gid: Some(7) };
    assert_eq!((&first.bind.unix, first.bind.name.as_deref()), (&unix, Some("x")));
    assert_eq!((second.level, second.bind.addresses.len()), (CliLevel::User, 2));
    assert_eq!(second.severity_output, SeverityOutput::Number);

    let names: Vec<_> = c.peers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["mesh", "old"]);
    let mesh = &c.peers[0];
    assert_eq!((mesh.shards, mesh.logs.len()), (3, 2));
    let bind = mesh.bind.as_ref().unwrap();
    assert_eq!(bind.addresses, [Address::Unix("/run//p.sock".into())]);
    assert_eq!((bind.backlog, bind.unix.mode), (Some(7), Some(0o600)));
    assert_eq!(mesh.local.address.as_ref(), bind.addresses.first());
    let [b, peer_c] = &mesh.remotes[..] else { panic!("{:?}", mesh.remotes) };
    assert_eq!((b.name.as_str(), b.shard), ("b", 2));
    assert_eq!(b.address.as_ref().unwrap().to_string(), "ipv4@10.0.0.9:1000");
    assert_eq!(peer_c.source.as_ref().unwrap().to_string(), "ipv4@127.0.0.5:0");
    assert_eq!(peer_c.source_interface.as_deref(), Some("lo"));

    let tables: Vec<_> = (c.tables.iter())
        .map(|t| (t.spec.name.as_str(), t.spec.wire_name.as_str(), t.section, t.local_id))
        .collect();
    assert_eq!(
        tables,
        [
            ("web", "web", Some(0), 4),
            ("mesh/one", "/one", Some(0), 3),
            ("mesh/two", "/two", Some(0), 2),
            ("mesh/sum", "/sum", Some(0), 1),
            ("fe", "fe", Some(1), 1),
            ("other", "other", None, 0),
        ]
    );
    let bits = |i: usize| c.tables[i].spec.data_types();
    assert_eq!(bits(0), 1 | 1 << 19, "`stick on` stores the server");
    assert_eq!(bits(1), 1 << 2 | 1 << 3, "`track-sc0` does not");
    assert_eq!(bits(2), 1 | 1 << 19, "`stick store-request … table`");

    let ring = &c.stickring;
    assert_eq!((ring.auto_tables, ring.accept_peers_max), (Some(5 * 1024), 9));
    assert_eq!(ring.memory, MemoryChoice::Anonymous);
    assert_eq!((ring.engine, ring.pin, ring.accept_peers.len()), (EngineChoice::Epoll, false, 3));
    assert!(!ring.instant_reload);
}

#[test]
fn one_notice_tells_what_was_skipped() {
    let said = messages(FULL);
    assert_eq!(
        said,
        ["[t.cfg] : 6 lines skipped that a peers node has no use for (backend, defaults, \
          frontend, global)."]
    );
}

#[test]
fn a_table_of_a_disabled_section_can_still_be_written_to() {
    let c = config(&FULL.replace("write-to other", "write-to off/plain"));
    let plain = c.tables.iter().find(|t| t.spec.name == "off/plain").unwrap();
    assert_eq!((plain.section, plain.spec.wire_name.as_str()), (None, "off/plain"));
    assert_eq!(config(&render(&c)), c);
}

#[test]
fn what_is_rendered_reads_back_equal() {
    for target in ["other", "mesh/one"] {
        let c = config(&FULL.replace("write-to other", &format!("write-to {target}")));
        let text = render(&c);
        assert_eq!(config(&text), c, "{text}");
        assert_eq!(render(&config(&text)), text);
        assert!(read(&text).diagnostics.is_empty(), "{:?}", read(&text).diagnostics);
    }
}

#[test]
fn the_default_configuration_is_right() {
    for localpeer in [None, Some("me")] {
        let source = embedded_default("/run/user/1000/", localpeer);
        let options = ParseOptions { localpeer: localpeer.map(str::to_owned), ignore_dns: false };
        let parsed = parse(std::slice::from_ref(&source), &FakeHost, &options);
        let c = parsed.config.unwrap();
        let name = localpeer.unwrap_or("stickring");
        assert_eq!((c.localpeer.as_str(), c.peers[0].local.name.as_str()), (name, name));
        let bind = c.peers[0].bind.as_ref().unwrap();
        assert_eq!(bind.addresses[0].to_string(), "ipv4@127.0.0.1:10000");
        let socket = &c.stats_sockets[0];
        assert_eq!(socket.bind.addresses[0].to_string(), "unix@/run/user/1000/stickring.sock");
        assert_eq!((socket.level, socket.bind.unix.mode), (CliLevel::Admin, Some(0o600)));
        assert_eq!(c.stickring.accept_peers.len(), 2);
        assert!(c.stickring.auto_tables.is_some());
        let from =
            |ip: &str| c.stickring.accept_peers.iter().any(|n| n.contains(ip.parse().unwrap()));
        assert!(from("127.9.9.9") && from("::1") && from("::ffff:127.0.0.1"));
        assert!(!from("128.0.0.1") && !from("::2"));
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    }
}

#[test]
fn localpeer_may_stand_anywhere_and_the_last_one_wins() {
    let text = "global\n localpeer x\npeers p\n peer c 127.0.0.1:1\nglobal\n localpeer c\n";
    assert_eq!(config(text).peers[0].local.name, "c");
    let options = ParseOptions { localpeer: Some("z".into()), ignore_dns: false };
    let parsed = read_as("global\n localpeer x\npeers p\n peer z 127.0.0.1:1\n", &options);
    assert_eq!(parsed.config.unwrap().localpeer, "z");
    assert!(parsed.diagnostics.iter().any(|d| d.text.contains("'-L' command line argument")));
    let named = "peers p\n peer \"$HAPROXY_LOCALPEER\" 127.0.0.1:1\n";
    assert_eq!(config(named).peers[0].local.name, "thishost");
}

#[test]
fn every_error_is_reported_and_the_file_is_named() {
    let parsed = read("peers \"p\nfoo\nglobal\n nbthread x\npeers\nstickring\n foo\n pin maybe\n");
    let text = parsed.diagnostics.render(7, "0.1.0", "/usr/sbin/stickring");
    assert_eq!(
        text,
        "[NOTICE]   (7) : stickring version is 0.1.0\n\
         [NOTICE]   (7) : path to executable is /usr/sbin/stickring\n\
         [ALERT]    (7) : config : parsing [t.cfg:1]: unmatched quote at position 7:\n  \
           peers \"p\n        ^\n\
         [ALERT]    (7) : config : parsing [t.cfg:2]: unknown keyword 'foo' out of section.\n\
         [ALERT]    (7) : config : parsing [t.cfg:4] : 'nbthread' passed a missing or unparsable \
           integer value in 'x'\n\
         [ALERT]    (7) : config : parsing [t.cfg:5] : missing name for peers section.\n\
         [ALERT]    (7) : config : parsing [t.cfg:7] : unknown keyword 'foo' in 'stickring' \
         section\n\
         [ALERT]    (7) : config : parsing [t.cfg:8] : 'pin' : expects 'on' or 'off' (got \
         'maybe').\n\
         [ALERT]    (7) : config : Error(s) found in configuration file : t.cfg\n\
         [ALERT]    (7) : config : Fatal errors found in configuration.\n"
    );
    assert!(parsed.config.is_none());
}

#[test]
fn several_files_are_one_configuration() {
    let source = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
    let haproxy = source("h.cfg", "global\n localpeer hap\npeers p\n peer hap :1\n peer ring :2\n");
    let ours = source("s.cfg", "global\n localpeer ring\nstickring\n engine epoll\n");
    let parsed = parse(&[haproxy.clone(), ours], &FakeHost, &ParseOptions::default());
    let c = parsed.config.unwrap();
    // The same file as HAProxy's, seen from the other side.
    assert_eq!(
        (c.peers[0].local.name.as_str(), c.peers[0].remotes[0].name.as_str()),
        ("ring", "hap")
    );
    assert_eq!(c.stickring.engine, EngineChoice::Epoll);

    // Each file starts outside of sections, and each with errors is named.
    let bad = |name| source(name, "engine epoll\n");
    let parsed = parse(&[haproxy, bad("x.cfg"), bad("y.cfg")], &FakeHost, &ParseOptions::default());
    let said: Vec<_> = parsed.diagnostics.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(
        said,
        [
            "config : parsing [x.cfg:1]: unknown keyword 'engine' out of section.",
            "config : Error(s) found in configuration file : x.cfg",
            "config : parsing [y.cfg:1]: unknown keyword 'engine' out of section.",
            "config : Error(s) found in configuration file : y.cfg",
            "config : Fatal errors found in configuration.",
        ]
    );
}

#[test]
fn names_that_do_not_resolve_can_be_let_through() {
    let text = "global\n localpeer a\npeers p\n peer a :1\n peer b later.example:7\n";
    let options = ParseOptions { localpeer: None, ignore_dns: true };
    let c = read_as(text, &options).config.unwrap();
    let Some(Address::Tcp(address)) = &c.peers[0].remotes[0].address else { panic!("{c:?}") };
    assert_eq!(address.name.as_deref(), Some("later.example"));
    assert!(address.socket.ip().is_unspecified());
    assert_eq!(read_as(&render(&c), &options).config.unwrap(), c);
}

#[test]
fn wrong_peers_lines_get_haproxys_message() {
    for (line, expected) in [
        ("foo", "parsing [t.cfg:4] : unknown keyword 'foo' in 'peers' section"),
        (
            "peer a 127.0.0.1",
            "[t.cfg:4] : 'server a/a' : missing port specification in '127.0.0.1'",
        ),
        ("server b 1.2.3.4:5 garbage", "[t.cfg:4] : 'server a/b' : unknown keyword 'garbage'."),
        (
            "server a garbage",
            "[t.cfg:4] : 'server a/a' : unknown keyword 'garbage'. Hint: no address was expected \
             for this server.",
        ),
        (
            "peer b no.such.host.invalid:22501",
            "[t.cfg:4] : 'server a/b' : invalid address: 'no.such.host.invalid' in \
             'no.such.host.invalid:22501'",
        ),
        ("peer c@d 127.0.0.1:2", "[t.cfg:4] : character '@' is not permitted in peer name 'c@d'."),
        (
            "peer b",
            "parsing [t.cfg:4] : 'peer b' : ignoring invalid peer definition (missing \
            address:port)",
        ),
        (
            "bind 127.0.0.1",
            "parsing [t.cfg:4] : 'bind 127.0.0.1' : missing port specification in \
          '127.0.0.1'",
        ),
        (
            "bind :12 nosuch",
            "parsing [t.cfg:4] : 'bind :12' in section 'peers': unknown keyword 'nosuch'.",
        ),
        (
            "bind :3 backlog",
            "parsing [t.cfg:4] : 'bind :3' in section 'peers' : 'backlog' : missing value",
        ),
        (
            "bind :3 mode 9",
            "parsing [t.cfg:4] : 'bind :3' in section 'peers' : 'mode' : missing or invalid mode \
             '9' (octal integer expected)",
        ),
        (
            "bind 127.0.0.1:1,127.0.0.1:2",
            "parsing [t.cfg:4] : Only one listener per \"peers\" section is authorized. Multiple \
             listening addresses or port range are not supported.",
        ),
        ("shards", "parsing [t.cfg:4] : 'shards' : missing value"),
        ("shards x", "parsing [t.cfg:4] : 'shards' : expects an integer argument, found 'x'"),
        ("shards 0", "parsing [t.cfg:4] : 'shards' : expects a strictly positive integer argument"),
        ("log 127.0.0.1 foo", "parsing [t.cfg:4] : log : unknown log facility 'foo'"),
        (
            "default-server foo",
            "[t.cfg:4] : unknown keyword 'foo'. Hint: no address was expected for this server.",
        ),
        (
            "default-bind foo",
            "parsing [t.cfg:4] : 'default-bind foo' in section 'peers': unknown keyword 'foo'.",
        ),
        ("table t type foo size 3", "parsing [t.cfg:4] : table: unknown type 'foo'."),
        ("peer b 127.0.0.1:4 id x", "[t.cfg:4] : 'server a/b' : 'id' : custom id has to be > 0."),
        (
            "peer b 127.0.0.1:4 source foo",
            "[t.cfg:4] : 'server a/b' : 'source foo' : invalid address: 'foo' in 'foo'.",
        ),
        (
            "peer b 127.0.0.1:4 check",
            "parsing [t.cfg:4] : 'peer b' : init_addr, resolvers, check and agent are ignored for \
             peers.",
        ),
    ] {
        let said = in_peers(&format!("{line}\n"));
        assert!(said.iter().any(|t| t == expected), "{line}: {said:#?}");
    }
}

#[test]
fn the_two_styles_do_not_mix() {
    let mixing = "mixing \"peer\" and \"bind\" line is forbidden";
    for lines in
        ["peer a 127.0.0.1:1\nbind 127.0.0.1:2\n", "bind 127.0.0.1:2\npeer b 127.0.0.1:1\n"]
    {
        let said = in_peers(lines);
        assert_eq!(said[0], format!("parsing [t.cfg:5] : {mixing}"));
    }
    let said = in_peers("bind :1\nbind :2\nserver a\n");
    assert_eq!(
        said,
        ["parsing [t.cfg:5] : One listener per \"peers\" section is authorized but another is \
          already configured at [t.cfg:4]."]
    );
    let said = in_peers("peer a :1\npeer a :2\n");
    assert_eq!(
        said,
        ["parsing [t.cfg:5] : 'peer a' : local peer name already referenced at t.cfg:4."]
    );
    let said = in_peers("peer a :1\npeers p\npeer a :2\n");
    assert_eq!(
        said,
        ["Parsing [t.cfg:5]: peers section 'p' has the same name as another peers section \
          declared at t.cfg:3."]
    );
}

#[test]
fn nothing_is_silently_in_clear_text() {
    for line in [
        "peer a :1 ssl crt x",
        "peer a :1\npeer b 127.0.0.1:1 ssl verify none",
        "default-bind ssl crt x\npeer a :1",
        "bind :1 ssl crt x\nserver a",
        "default-server ssl\nbind :1\nserver a",
    ] {
        let said = in_peers(&format!("{line}\n"));
        assert!(
            said.iter().any(|t| t.contains("TLS on peers is not supported")),
            "{line}: {said:?}"
        );
        assert!(read(&format!("{HEAD}peers p\n{line}\n")).config.is_none());
        // A section that does not take part cannot leak anything.
        let off = read(&format!("{HEAD}peers p\ndisabled\n{line}\n"));
        assert!(off.config.is_some(), "{line}: {:?}", off.diagnostics);
    }
    for line in ["peer b 127.0.0.1:1 send-proxy", "peer b 127.0.0.1:1 socks4 127.0.0.1:9"] {
        let said = in_peers(&format!("peer a :1\n{line}\n"));
        assert!(said[0].contains("not supported in this version"), "{said:?}");
    }
    assert!(in_peers("bind :1 accept-proxy\nserver a\n")[0].contains("'accept-proxy'"));
    let fine = "default-server ssl\npeer a :1 no-ssl\npeer b :2 no-ssl\n";
    assert_eq!(in_peers(fine), Vec::<String>::new());
}

#[test]
fn sections_without_us_are_removed() {
    let text = "global\n localpeer zz\npeers p\n peer b 127.0.0.1:4\npeers q\n peer zz :3\n";
    assert_eq!(messages(text), ["Removing incomplete section 'peers p' (no peer named 'zz')."]);
    assert_eq!(config(text).peers.len(), 1);
    let text = format!(
        "{HEAD}peers p\n peer b 127.0.0.1:4\npeers r\npeers t\n disabled\nbackend t1\n \
         stick-table type ip size 1 peers p\nbackend t2\n stick-table type ip size 1 peers \
         r\nbackend t3\n stick-table type ip size 1 peers t\nbackend t4\n stick-table type ip \
         size 1 peers nosuch\nbackend t5\n disabled\n stick-table type ip size 1 peers nosuch\n"
    );
    assert_eq!(
        messages(&text),
        [
            "Proxy 't2': unable to find local peer 'a' in peers section 'r'.",
            "Proxy 't4': unable to find sync peers 'nosuch'.",
            "Removing incomplete section 'peers r' (no peer named 'a').",
            "Removing incomplete section 'peers p' (no peer named 'a').",
        ]
    );
}

#[test]
fn table_names_conflict_as_in_haproxy() {
    let text = format!(
        "{HEAD}backend t\n stick-table type ip size 1\n stick-table type ip size 1\npeers q\n \
         peer a :1\n table t type ip size 1\n table t type ip size 1\nbackend q/t\n stick-table \
         type ip size 1\ndefaults\n stick-table type ip size 1\n"
    );
    assert_eq!(
        messages(&text),
        [
            "parsing [t.cfg:5] : stick-table name 't' conflicts with table declared in backend \
             't' at t.cfg:4.",
            "parsing [t.cfg:9] : stick-table name 't' conflicts with table declared in peers 'q' \
             at t.cfg:8.",
            "parsing [t.cfg:11] : stick-table name 'q/t' conflicts with table declared in peers \
             'q' at t.cfg:8.",
            "parsing [t.cfg:13] : 'stick-table' is not supported in 'defaults' section.",
        ]
    );
}

#[test]
fn write_to_is_checked_as_in_haproxy() {
    let text = format!(
        "{HEAD}peers t\n peer a :1\n table t type ip size 1 write-to nosuch\n table u type ip \
         size 1 write-to t/v\n table v type ip size 1 write-to bk3\n table x type ip size 1 \
         write-to bk\n table y type string len 4 size 1 write-to bk\nbackend bk\n stick-table \
         type string len 5 size 1\nbackend bk2\n stick-table type string size 1 write-to \
         t/x\nbackend bk3\n stick-table type ip size 1\n"
    );
    assert_eq!(
        messages(&text),
        [
            "Parsing [t.cfg:9]: failed to initialize 't/y' stick-table: write-to: cannot mix key \
             sizes ('bk' has '6' key_size and 't/y' has '5' key_size).",
            "Parsing [t.cfg:8]: failed to initialize 't/x' stick-table: write-to: cannot mix table \
             types ('bk' has 'string' type and 't/x' has 'ip' type).",
            "Parsing [t.cfg:6]: failed to initialize 't/u' stick-table: write-to: table 't/v' is \
             already used as a source table.",
            "Parsing [t.cfg:5]: failed to initialize 't/t' stick-table: write-to: table 'nosuch' \
             doesn't exist.",
            "Proxy 'bk2': failed to initialize stick-table: write-to: table 't/x' is already used \
             as a source table.",
        ]
    );
}

#[test]
fn text_that_is_not_text_is_refused() {
    let raw = |bytes: &[u8]| {
        let source = Source { name: "t.cfg".into(), text: bytes.to_vec() };
        let parsed = parse(&[source], &FakeHost, &ParseOptions::default());
        parsed.diagnostics.iter().map(|d| d.text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        raw(b"global\n nbthread 1")[0],
        "config : parsing [t.cfg:2]: Missing LF on last line, file might have been truncated at \
         position 12."
    );
    assert_eq!(raw(b"a\0b\n")[0], "config : parsing [t.cfg:1]: Stray NUL character at position 2.");
    assert!(raw(b"\xff\xfe\n")[0].contains("not UTF-8"));
    assert!(raw(b"global\n pidfile /\xff\n")[0].contains("not UTF-8"));
    // Somebody else's business may be in any encoding.
    assert!(!raw(b"frontend f\n http-request set-header x \xff\n")[0].contains("UTF-8"));
}

#[test]
fn messages_are_bounded() {
    let text = "foo\n".repeat(5_000);
    let parsed = read(&text);
    assert_eq!(parsed.diagnostics.len(), crate::limits::DIAGNOSTICS_MAX);
    let shown = parsed.diagnostics.render(1, "v", "e");
    assert!(
        shown.ends_with("4002 more messages are not shown.\n"),
        "{}",
        &shown[shown.len() - 90..]
    );
    let noisy = format!("{}foo\n", ".notice x\n".repeat(5_000));
    assert!(read(&noisy).diagnostics.iter().any(|d| d.severity == Severity::Alert));
}

#[test]
fn conditional_blocks_choose_lines() {
    let text = ".if defined(HOME) && streq(\"$HOME\",/h)\nglobal\n localpeer \
    yes\n.else\nfoo\n.endif\n\
                .if 0\n .if nosuch\n .else\nfoo\n .endif\n.elif version_atleast(2.4)\npeers p\n \
                peer yes :1\n.else\nfoo\n.endif\n.notice \"a b\"\n";
    assert_eq!(messages(text), ["parsing [t.cfg:18]: 'a b'."]);
    assert_eq!(config(text).localpeer, "yes");
    assert_eq!(
        messages(
            ".elif true\n.if true\n.endif x\n.endif\n.if 1\n.else\n.else\n.foo\n.notice a b\n"
        ),
        [
            "parsing [t.cfg:1]: lone '.elif' with no matching '.if'.",
            "parsing [t.cfg:2]: unparsable conditional expression 'true' in '.if' at position \
             1:\n  .if true\n      ^",
            "parsing [t.cfg:4]: lone '.endif' with no matching '.if'.",
            "parsing [t.cfg:7]: '.else' after '.else' is not permitted.",
            "parsing [t.cfg:9]: non-terminated '.if' block.",
        ]
    );
}

#[test]
fn own_stats_sockets_leave_those_of_global_to_haproxy() {
    let shared = "global\n localpeer a\n stats socket /run/haproxy.sock level admin\n\
                  peers p\n peer a 127.0.0.1:1\n";
    let sockets = |text: &str| -> Vec<String> {
        config(text).stats_sockets.iter().map(|s| s.bind.addresses[0].to_string()).collect()
    };
    assert_eq!(sockets(shared), ["unix@/run/haproxy.sock"]);
    let own = "stickring\n stats socket /run/ring.sock level user\n stats socket 127.0.0.1:9\n";
    // Whichever file comes first.
    for text in [format!("{shared}{own}"), format!("{own}{shared}")] {
        assert_eq!(sockets(&text), ["unix@/run/ring.sock", "ipv4@127.0.0.1:9"]);
    }
    assert_eq!(messages("stickring\n stats socket\n").len(), 1);
}
