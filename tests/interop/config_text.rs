//! The command line and the configuration, beside HAProxy's: the same files to both by `-c`, the
//! same verdict and the same complaints.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Lab, NodeKind, each_version, pause};

/// What is behind the head that [`check`] gives every file: a name, then sections.
const GOOD: &[(&str, &str)] = &[
    ("two peers", "peers p\n    peer local 127.0.0.1:20001\n    peer a 127.0.0.1:20002\n"),
    (
        "bind and server",
        "peers p\n    bind 127.0.0.1:20001\n    server local\n    server a 127.0.0.1:20002\n",
    ),
    (
        "tables",
        "peers p\n    peer local 127.0.0.1:20001\n    table t type string len 10 size 10k \
         expire 1m store gpc0,gpc0_rate(10s),http_req_rate(1m)\n    \
         table u type binary len 8 size 1g nopurge\n",
    ),
    (
        "table of a backend",
        "peers p\n    peer local 127.0.0.1:20001\nbackend b\n    \
         stick-table type ipv6 size 1m expire 30m store gpt(3),gpc(2),gpc_rate(2,10s) peers p\n",
    ),
    ("several stores", "backend b\n    stick-table type ip size 1k store gpc0 store gpt0\n"),
    ("comments", "# one\npeers p # two\n    peer local 127.0.0.1:20001 # three\n"),
    (
        "quotes",
        "peers \"p\"\n    peer 'local' \"127.0.0.1\":20001\n    peer lo\\x2dcal 127.0.0.1:20003\n",
    ),
    ("a disabled section", "peers p\n    peer local 127.0.0.1:20001\n    disabled\n"),
    (
        "shards",
        "peers p\n    shards 2\n    peer local 127.0.0.1:20001\n    \
         peer a 127.0.0.1:20002 shard 1\n",
    ),
    ("times", "backend b\n    stick-table type ip size 1k expire 1d2h store conn_rate(90000)\n"),
];

/// Files with errors in what a peers node reads.
const BAD: &[(&str, &str)] = &[
    ("unknown keyword", "peers p\n    peer local 127.0.0.1:20001\n    foo bar\n"),
    ("two errors", "peers p\n    foo\n    peer local 127.0.0.1:20001\n    bar\n"),
    ("no section name", "peers\n"),
    ("bad section name", "peers p@x\n    peer local 127.0.0.1:20001\n"),
    ("no port", "peers p\n    peer local 127.0.0.1\n"),
    ("bad port", "peers p\n    peer local 127.0.0.1:99999\n"),
    ("peer and bind", "peers p\n    bind 127.0.0.1:20001\n    peer local 127.0.0.1:20001\n"),
    (
        "two binds",
        "peers p\n    bind 127.0.0.1:20001\n    bind 127.0.0.1:20002\n    server local\n",
    ),
    (
        "same section",
        "peers p\n    peer local 127.0.0.1:20001\npeers p\n    peer local 127.0.0.1:20003\n",
    ),
    ("key type", "backend b\n    stick-table type foo size 1k\n"),
    ("no key type", "backend b\n    stick-table size 1k\n"),
    ("no size", "backend b\n    stick-table type ip\n"),
    ("bad size", "backend b\n    stick-table type ip size 1x\n"),
    ("store option", "backend b\n    stick-table type ip size 1k store foo\n"),
    ("no period", "backend b\n    stick-table type ip size 1k store http_req_rate\n"),
    ("period of a count", "backend b\n    stick-table type ip size 1k store gpc0(10s)\n"),
    ("bad period", "backend b\n    stick-table type ip size 1k store http_req_rate(10z)\n"),
    ("array of none", "backend b\n    stick-table type ip size 1k store gpt(0)\n"),
    ("array too large", "backend b\n    stick-table type ip size 1k store gpt(101)\n"),
    ("gpt and gpt0", "backend b\n    stick-table type ip size 1k store gpt0,gpt(2)\n"),
    ("bad expire", "backend b\n    stick-table type ip size 1k expire 5z\n"),
    ("expire too large", "backend b\n    stick-table type ip size 1k expire 30d\n"),
    ("no expire", "backend b\n    stick-table type ip size 1k expire\n"),
    ("unknown argument", "backend b\n    stick-table type ip size 1k foo\n"),
    ("unknown peers", "backend b\n    stick-table type ip size 1k peers nosuch\n"),
    (
        "same table",
        "peers p\n    peer local 127.0.0.1:20001\n    table t type ip size 1k\n    \
         table t type ip size 1k\n",
    ),
    ("table without a type", "peers p\n    peer local 127.0.0.1:20001\n    table t size 1k\n"),
    ("table without a name", "peers p\n    peer local 127.0.0.1:20001\n    table\n"),
    ("unmatched quote", "peers \"p\n    peer local 127.0.0.1:20001\n"),
    ("out of section", ""),
];

/// Runs a command to its end, at most ten seconds. Its output goes to files, so that it never waits
/// for a reader.
pub fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut streams =
        [tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file")];
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(streams[0].try_clone().expect("a file"))
        .stderr(streams[1].try_clone().expect("a file"))
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("its state") {
            break status;
        }
        if begin.elapsed() > Duration::from_secs(10) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{} {arguments:?} does not end", program.display());
        }
        pause(5);
    };
    let [stdout, stderr] = streams.each_mut().map(|file| {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes)).expect("output");
        bytes
    });
    Output { status, stdout, stderr }
}

/// The alerts among the lines on stderr, without process ids.
fn alerts(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let alerts = text.lines().filter_map(|line| {
        let (_, message) = line.strip_prefix("[ALERT]")?.split_once(") : ")?;
        Some(message.trim_end().to_owned())
    });
    // Whether this last line comes differs from version to version.
    alerts.filter(|line| !line.ends_with("Fatal errors found in configuration.")).collect()
}

/// Whether each line of a file that HAProxy complains about is complained about, in its words and
/// no others. It sometimes says two things about one line: one of them is enough.
fn covers(ours: &[String], theirs: &[String]) -> bool {
    let place = |alert: &String| {
        let (_, rest) = alert.split_once(".cfg:")?;
        rest.split(']').next().map(str::to_owned)
    };
    let said: Vec<Option<String>> = ours.iter().map(place).collect();
    !ours.is_empty()
        && ours.iter().all(|alert| theirs.contains(alert))
        && theirs.iter().all(|alert| said.contains(&place(alert)))
}

fn check(lab: &Lab, name: &str, text: &str) -> (Output, Output) {
    let file = lab.path("check.cfg");
    let head = match name {
        "out of section" => "foo bar\n",
        // With a listener, a file of nothing but a table is worth starting.
        _ => {
            "global\n    localpeer local\npeers main\n    peer local 127.0.0.1:20009\n\n\
             defaults\n    timeout client 1s\n    timeout connect 1s\n    timeout server 1s\n\
             frontend f\n    bind 127.0.0.1:20010\n"
        }
    };
    std::fs::write(&file, format!("{head}{text}")).expect("config file");
    let file = file.display().to_string();
    let haproxy = lab.program(&NodeKind::HaProxy(lab.version.clone()));
    let node = lab.program(&lab.node);
    (run(&haproxy, &["-c", "-f", &file]), run(&node, &["-c", "-f", &file]))
}

#[test]
fn good_files_are_accepted_by_both() {
    each_version("good configurations", (3, 2), |lab| {
        for (name, text) in GOOD {
            let (theirs, ours) = check(lab, name, text);
            assert_eq!(theirs.status.code(), Some(0), "HAProxy, {name}: {:?}", alerts(&theirs));
            let complaints = String::from_utf8_lossy(&ours.stderr).into_owned();
            assert_eq!(ours.status.code(), Some(0), "{name}: {complaints}");
        }
    });
}

#[test]
fn bad_files_get_the_complaints_of_haproxy() {
    each_version("bad configurations", (3, 4), |lab| {
        let mut wrong = String::new();
        for (name, text) in BAD {
            let (theirs, ours) = check(lab, name, text);
            if theirs.status.code() != Some(1) {
                wrong += &format!("{name}: HAProxy itself accepts this\n");
            }
            let (wanted, got) = (alerts(&theirs), alerts(&ours));
            if ours.status.code() != Some(1) || !covers(&got, &wanted) {
                let code = ours.status.code();
                wrong += &format!("{name}:\n  haproxy: {wanted:#?}\n  node ({code:?}): {got:#?}\n");
            }
        }
        assert!(wrong.is_empty(), "complaints that differ:\n{wrong}");
    });
}
