//! The daemon as a program: flags, exit codes, files, signals, logs, and its start without a file.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use crate::config::{Config, SECTION};
use crate::config_text::run;
use crate::harness::{Lab, each_node, each_version, eventually, pause, signal};
use crate::http::get;
use crate::rawpeer::{RawPeer, Received, define, integers, string_key, update};
use crate::stats::Cli;

/// Both streams of a command that ran to its end.
fn text(output: &std::process::Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn write(path: &Path, content: &str) -> String {
    std::fs::write(path, content).expect("a file");
    path.display().to_string()
}

/// A file that starts: one section with a listener of its own.
fn good(lab: &Lab, name: &str) -> String {
    let local = lab.member("local");
    let socket = lab.path(&format!("{name}.sock"));
    write(&lab.path(name), &Config::new(&[&local]).rest(&frontend(lab)).render(&socket))
}

/// HAProxy starts no file without a frontend.
fn frontend(lab: &Lab) -> String {
    format!("frontend f\n    bind {}\n", lab.free())
}

/// A process that is killed with its guard.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that was not started as a child, killed with its guard.
struct Stray(u32);

impl Drop for Stray {
    fn drop(&mut self) {
        signal(self.0, Signal::KILL);
    }
}

fn spawn(lab: &Lab, arguments: &[&str], log: &str) -> (Guard, PathBuf) {
    let log = lab.path(log);
    let file = std::fs::File::create(&log).expect("log file");
    let child = Command::new(lab.program(&lab.node))
        .args(arguments)
        .env("XDG_RUNTIME_DIR", lab.path(""))
        .env_remove("RUNTIME_DIRECTORY")
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("log file"))
        .stderr(file)
        .spawn()
        .expect("the daemon");
    (Guard(child), log)
}

#[test]
fn version_and_unknown_flags() {
    each_node("flags", |lab| {
        let program = lab.program(&lab.node);
        for flag in ["-v", "-vv"] {
            let output = run(&program, &[flag]);
            assert_eq!(output.status.code(), Some(0), "{flag}");
            let first = text(&output).lines().next().unwrap_or_default().to_owned();
            assert!(first.to_lowercase().contains(" version "), "{first}");
            if lab.node.is_stickring() {
                assert!(first.contains(env!("CARGO_PKG_VERSION")), "{first}");
            }
        }
        let output = run(&program, &["-~"]);
        assert_eq!(output.status.code(), Some(1), "an unknown flag: {}", text(&output));
    });
}

#[test]
fn checking_a_file() {
    each_node("-c", |lab| {
        let program = lab.program(&lab.node);
        let fine = good(lab, "good.cfg");
        let output = run(&program, &["-c", "-V", "-f", &fine]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(text(&output).contains("Configuration file is valid"), "{}", text(&output));
        let broken = write(&lab.path("bad.cfg"), "peers p\n    foo\n    bar\n");
        let output = run(&program, &["-c", "-f", &broken]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for line in ["bad.cfg:2] : unknown keyword 'foo'", "bad.cfg:3] : unknown keyword 'bar'"] {
            assert!(said.contains(line), "`{line}` is missing: {said}");
        }
        let output = run(&program, &["-c", "-q", "-f", &broken]);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]));
        // Without -c the same errors keep it from starting.
        assert_eq!(run(&program, &["-db", "-f", &broken]).status.code(), Some(1));
        let output = run(&program, &["-c", "-f", "/nonexistent/x.cfg"]);
        assert_eq!(output.status.code(), Some(1));
        let wanted = "Cannot open configuration file/directory /nonexistent/x.cfg";
        assert!(text(&output).contains(wanted), "{}", text(&output));
        // Nothing of a binary, an endless line or a loop of quotes does more than that.
        for (name, bytes) in [
            ("binary", vec![0xff; 4096]),
            ("long line", vec![b'x'; 3_000_000]),
            ("nul", b"peers p\0q\n  peer local\0 1\n".to_vec()),
            ("quotes", b"peers \"'\"'\"'\"\n\\".to_vec()),
            ("many words", [b"peers ".to_vec(), b"a ".repeat(5000)].concat()),
            ("deep variable", b"peers \"${A}${B:-x}${\"\n".to_vec()),
        ] {
            let file = lab.path("odd.cfg");
            std::fs::write(&file, bytes).expect("a file");
            let output = run(&program, &["-c", "-f", &file.display().to_string()]);
            let code = output.status.code();
            assert!(matches!(code, Some(1 | 2)), "{name}: {code:?} {}", text(&output));
        }
    });
}

#[test]
fn files_come_from_folders_and_several_flags() {
    each_node("-f", |lab| {
        let folder = lab.path("conf.d");
        std::fs::create_dir(&folder).expect("a folder");
        let (local, socket) = (lab.member("local"), lab.path("s.sock"));
        let head = format!(
            "global\n    localpeer local\n    stats socket {} level admin\n",
            socket.display()
        );
        write(&folder.join("10.cfg"), &head);
        let peers =
            format!("peers p\n    peer local {}\n    table a type ip size 1k\n", local.address);
        write(&folder.join("20.cfg"), &peers);
        // Neither a hidden file nor one of another kind is read.
        write(&folder.join(".hidden.cfg"), "foo\n");
        write(&folder.join("notes.txt"), "foo\n");
        let more =
            write(&lab.path("more.cfg"), "backend b\n    stick-table type ip size 1k peers p\n");
        let front = write(&lab.path("front.cfg"), &frontend(lab));
        let folder = folder.display().to_string();
        let (_guard, _) = spawn(lab, &["-f", &folder, "-f", &more, "-f", &front, "-db"], "out");
        let cli = Cli::new(&socket);
        let tables = eventually(5, "the stats socket", || {
            cli.try_ask("show table").map_err(|e| e.to_string())
        });
        assert!(tables.contains("# table: p/a,") && tables.contains("# table: b,"), "{tables}");
    });
}

#[test]
fn pid_file_daemon_and_termination() {
    each_node("-D -p", |lab| {
        let file = good(lab, "d.cfg");
        let pid_file = lab.path("pid");
        let pid_name = pid_file.display().to_string();
        let output = run(&lab.program(&lab.node), &["-D", "-f", &file, "-p", &pid_name]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let pid: u32 = eventually(3, "the pid file", || {
            let text = std::fs::read_to_string(&pid_file).map_err(|e| e.to_string())?;
            text.trim().parse().map_err(|_| format!("pid file: {text:?}"))
        });
        let _stray = Stray(pid);
        let cli = Cli::new(&lab.path("d.cfg.sock"));
        let info =
            eventually(3, "an answer", || cli.try_ask("show info").map_err(|e| e.to_string()));
        assert!(info.contains(&format!("\nPid: {pid}\n")), "{info}");
        signal(pid, Signal::TERM);
        eventually(5, "its end after SIGTERM", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") { Ok(()) } else { Err(stat) }
        });
    });
}

#[test]
fn an_address_in_use_is_said_and_ends_the_start() {
    each_node("address in use", |lab| {
        let local = lab.member("local");
        let taken = TcpListener::bind(&local.address).expect("the address");
        let text_of = Config::new(&[&local]).rest(&frontend(lab)).render(&lab.path("x.sock"));
        let file = write(&lab.path("x.cfg"), &text_of);
        let output = run(&lab.program(&lab.node), &["-db", "-f", &file]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let port = local.address.split(':').nth(1).expect("a port");
        assert!(said.contains("[ALERT]") && said.contains(port), "{said}");
        drop(taken);
    });
}

#[test]
fn an_inherited_socket_is_used() {
    each_node("fd@", |lab| {
        let listener = TcpListener::bind(lab.free()).expect("an address");
        let address = listener.local_addr().expect("its address").to_string();
        // Inherited by the children of this test process: they have no use for it but this one.
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).expect("inheritable");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&listener);
        let (local, raw) = (lab.member("local"), lab.member("raw"));
        let mut config = Config::new(&[&local]);
        config.sections[0].members.clear();
        let lines =
            [format!("bind fd@{fd}"), "server local".into(), format!("server raw {}", raw.address)];
        config.sections[0].lines.extend(lines);
        let process = lab.node(&config);
        drop(listener);
        let mut peer = RawPeer::join(&address, "raw", "local");
        peer.settle();
        assert!(process.cli().established(SECTION, "raw").is_ok());
    });
}

#[test]
fn logs_tell_what_operators_ask_for() {
    each_version("logs", (3, 2), |lab| {
        if !lab.node.is_stickring() {
            // HAProxy logs none of this.
            return;
        }
        let (hap, node) = (lab.member("hap"), lab.member("node"));
        let table = "type string len 32 size 1k expire 1h store gpc0".to_owned();
        let tables = [("t_str", table.clone()), ("t_len", table.replace("32", "20"))];
        let mut config = Config::new(&[&node, &hap]).tables(&tables);
        config.rest = "frontend f\n    bind :1\nbackend b\n    server s 127.0.0.1:1\n".to_owned();
        let node_side = lab.node(&config);
        let mismatch = [("t_str", table.clone()), ("t_len", table.clone()), ("t_more", table)];
        let mut hap_side = lab.haproxy(&Config::new(&[&hap, &node]).tables(&mismatch));
        eventually(10, "a session", || node_side.cli().established(SECTION, "hap"));
        for name in ["t_str", "t_len", "t_more"] {
            hap_side.cli().must(&format!("set table {name} key k data.gpc0 1"));
        }
        eventually(5, "the entry", || {
            node_side.cli().row("t_str", "k").ok_or_else(|| "missing".to_owned())
        });
        pause(300);
        hap_side.kill();
        pause(700);
        let log = node_side.log();
        let pid = node_side.pid();
        let has = |what: &str| {
            log.lines().any(|line| {
                line.contains(&format!("({pid}) : "))
                    && line.starts_with('[')
                    && line.to_lowercase().contains(what)
            })
        };
        for what in ["hap", "up", "down", "t_len", "t_more"] {
            assert!(has(what), "no line about `{what}` in:\n{log}");
        }
        for line in log.lines().filter(|line| !line.starts_with("   | ")) {
            let tag = &line[..line.len().min(11)];
            let known = ["[NOTICE]   ", "[WARNING]  ", "[ALERT]    "];
            assert!(known.contains(&tag), "a line of another format: `{line}`");
        }
        let refused = log.lines().filter(|line| line.contains("t_more")).count();
        assert!(refused <= 3, "{refused} lines about one refused table:\n{log}");
    });
}

/// The daemon without any file: one at a time, since it listens on a fixed address. Returns what it
/// said and its stats socket, too.
fn start_default(lab: &Lab) -> (MutexGuard<'static, ()>, Guard, String, Cli) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let free = TcpListener::bind("127.0.0.1:10000");
    drop(free.expect("127.0.0.1:10000 is in use: the default cannot be tested here"));
    let (guard, log) = spawn(lab, &[], "default.log");
    let said = eventually(10, "what it listens on", || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        // The line to paste comes last.
        if said.contains("peer stickring 127.0.0.1:10000") { Ok(said) } else { Err(said) }
    });
    let words = said.split([' ', '\'', '"', ',', '\n']);
    let socket = words.rev().map(|w| w.trim_end_matches('.')).find(|w| w.ends_with(".sock"));
    let socket = socket.unwrap_or_else(|| panic!("no stats socket named: {said}"));
    let cli = Cli::new(Path::new(socket.trim_start_matches("unix@")));
    (turn, guard, said, cli)
}

#[test]
fn without_a_file_it_takes_any_peer_of_this_host_and_any_table() {
    each_node("the embedded default", |lab| {
        if !lab.node.is_stickring() {
            return;
        }
        let (_turn, mut guard, said, cli) = start_default(lab);
        let mut peer = RawPeer::join("127.0.0.1:10000", "whoever", "stickring");
        peer.settle();
        peer.send(&define(3, "unheard_of", (6, 33), 6, &[1_800_000]));
        peer.send(&update(1, &string_key("k"), &integers(&[1, 2])));
        let acks = peer.quiet(700);
        assert!(acks.contains(&Received::Ack { table: 3, id: 1 }), "{acks:?}");
        let row = cli.row("unheard_of", "k").expect("the entry of a table made by its definition");
        assert_eq!(row.number("gpc0"), 2, "{row:?}");
        assert!(guard.0.try_wait().expect("state").is_none(), "it ended: {said}");
    });
}

/// The configuration in the README's walk, with addresses of our own for HAProxy.
fn demo(front: &str, own: &str, socket: &Path) -> String {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).expect("README.md");
    let lines = readme.lines().skip_while(|line| line.trim() != "global");
    let text: String =
        lines.take_while(|line| !line.is_empty()).map(|line| format!("{}\n", &line[7..])).collect();
    assert!(text.contains("peer stickring 127.0.0.1:10000"), "the README's walk: {text}");
    text.replace("127.0.0.1:10001", own)
        .replace("127.0.0.1:8080", front)
        .replace("/tmp/demo.sock", &socket.display().to_string())
}

#[test]
fn the_walk_of_the_readme_gives_the_entries_back() {
    each_version("the README's walk", (2, 5), |lab| {
        if !lab.node.is_stickring() {
            return;
        }
        let (_turn, _guard, _said, cli) = start_default(lab);
        let (front, own) = (lab.free().to_string(), lab.free().to_string());
        let text = demo(&front, &own, &lab.path("demo.sock"));
        let mut haproxy = lab.haproxy_with("demo", &text);
        let count = || {
            let reply = get(&front, "/", "").map_err(|e| e.to_string())?;
            let body = reply.rsplit("\r\n\r\n").next().unwrap_or_default();
            body.trim().parse::<u32>().map_err(|_| format!("an answer: {reply}"))
        };
        // A lesson that is under way may bring back what a request has just counted on.
        eventually(8, "HAProxy has learned", || {
            let reply = haproxy.cli().ask("show peers mypeers");
            let flags = reply.split("flags=0x").nth(1).and_then(|rest| rest.split(' ').next());
            let flags = flags.and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(0);
            if flags & 3 == 3 { Ok(()) } else { Err(reply) }
        });
        let counts: Vec<u32> = (0..5).map(|_| count().expect("an answer")).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5]);
        eventually(8, "the table in stickring", || {
            cli.used("visitors")?;
            let row = cli.row("visitors", "127.0.0.1").ok_or_else(|| cli.ask("show table"))?;
            if row.number("http_req_cnt") == 5 { Ok(()) } else { Err(format!("{row:?}")) }
        });
        haproxy.kill();
        haproxy.start();
        eventually(8, "the entry given back", || {
            haproxy.cli().row("visitors", "127.0.0.1").ok_or_else(|| "nothing".to_owned())
        });
        assert_eq!(count(), Ok(6), "a HAProxy alone would have answered 1");
    });
}
