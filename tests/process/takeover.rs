//! `-sf` and `-st`: a new process in the place of an old one, of either program.

use crate::lab::{LIMIT, Lab, Proc, haproxies, wait_until};
use rustix::process::Signal;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// No process has it: beyond the kernel's largest.
const NOBODY: &str = "2000000000";

#[test]
fn an_empty_list_and_a_pid_of_nobody_are_a_plain_start() {
    for args in [&["-sf"][..], &["-st"], &["-sf", NOBODY], &["-st", NOBODY, "-q"]] {
        let lab = Lab::new();
        let mut proc = lab.start(args);
        assert!(lab.listens());
        proc.signal(Signal::TERM);
        proc.ends_with(143);
    }
}

#[test]
fn a_second_process_is_refused_by_name_and_changes_nothing() {
    for args in [&[][..], &["-sf"], &["-sf", NOBODY]] {
        let lab = Lab::new();
        let mut first = lab.start(&["-p", &lab.text("pid")]);
        let pid = format!("{}\n", first.pid());
        assert_eq!(lab.read("pid"), pid);
        let mut args = args.to_vec();
        let pidfile = lab.text("pid");
        args.extend(["-p", &pidfile]);
        let mut second = lab.spawn(&args);
        second.ends_with(1);
        let what = format!("[ALERT]    ({}) : Starting: cannot bind to '", second.pid());
        second.says(&what);
        second.says(&format!("{}'", lab.address));
        let cure = "another process listens there; to take over from it, name its pid behind -sf";
        second.says(cure);
        assert_eq!(lab.answers(), Some(first.pid()), "its stats socket is still there");
        assert!(lab.listens());
        assert_eq!(lab.read("pid"), pid, "the pid file is the first one's");
        first.lives();
    }
}

#[test]
fn the_new_process_takes_the_place_of_the_old() {
    for (flag, code) in [("-sf", 0), ("-st", 143)] {
        let lab = Lab::new();
        let mut old = lab.start(&["-p", &lab.text("pid")]);
        for _ in 0..3 {
            let args = ["-p", &lab.text("pid"), flag, &old.pid_text()];
            let mut new = lab.start(&args);
            old.ends_with(code);
            new.lives();
            // It is written when the old one has been told, which may have ended before that.
            let pid = format!("{}\n", new.pid());
            assert!(wait_until(LIMIT, || lab.read("pid") == pid), "{}", lab.read("pid"));
            assert_eq!(lab.answers(), Some(new.pid()), "the old one left the new one's socket");
            assert!(lab.listens());
            old = new;
        }
        let left = std::fs::read_dir(lab.path("")).unwrap().flatten();
        let mut left: Vec<_> = left.map(|e| e.file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["node.cfg", "pid", "stats.sock"], "no temporary names");
    }
}

#[test]
fn in_the_background_the_caller_waits_and_the_pid_file_names_who_stays() {
    let lab = Lab::new();
    let pidfile = lab.text("pid");
    let mut caller = lab.spawn(&["-D", "-p", &pidfile, "-sf"]);
    caller.ends_with(0);
    let first = lab.answers().expect("it is up when the caller returns");
    assert_eq!(lab.read("pid"), format!("{first}\n"));
    // As init scripts do it.
    let mut caller = lab.spawn(&["-D", "-p", &pidfile, "-sf", &lab.read("pid")]);
    caller.ends_with(0);
    let second = lab.answers().expect("it is up when the caller returns");
    assert_ne!(first, second);
    assert_eq!(lab.read("pid"), format!("{second}\n"));
    assert!(wait_until(LIMIT, || !crate::lab::is_alive(first)));
    // One that fails says so to its caller, and the one before it stays.
    lab.configure_at("192.0.2.1:1", "");
    let mut caller = lab.spawn(&["-D", "-p", &pidfile, "-sf", &lab.read("pid")]);
    caller.ends_with(1);
    caller.says("cannot bind to 'ipv4@192.0.2.1:1'");
    assert_eq!(lab.answers(), Some(second));
    assert_eq!(lab.read("pid"), format!("{second}\n"));
    crate::lab::kill(second, Signal::TERM);
    assert!(wait_until(LIMIT, || !crate::lab::is_alive(second)));
}

#[test]
fn paused_it_keeps_sessions_and_lets_others_listen() {
    let lab = Lab::new();
    let mut proc = lab.start(&[]);
    proc.signal(Signal::TTOU);
    proc.says("SIGTTOU received");
    assert!(wait_until(LIMIT, || !lab.listens()));
    assert_eq!(lab.answers(), Some(proc.pid()), "the stats socket at a path stays");
    let other = TcpListener::bind(lab.address).expect("the address is free for others");
    proc.signal(Signal::TTIN);
    proc.says("cannot listen on");
    drop(other);
    assert!(wait_until(LIMIT, || lab.listens()), "it tries again:\n{}", proc.log());
    // Once more, without anybody in between; a signal too many changes nothing.
    proc.signal(Signal::TTOU);
    proc.signal(Signal::TTOU);
    assert!(wait_until(LIMIT, || !lab.listens()));
    proc.signal(Signal::TTIN);
    assert!(wait_until(LIMIT, || lab.listens()));
    proc.lives();
}

#[test]
fn who_does_not_give_up_keeps_everything() {
    let lab = Lab::new();
    let holder = TcpListener::bind(lab.address).unwrap();
    let mut old = std::process::Command::new("sleep");
    old.arg("60");
    let mut old = Proc::spawn(old);
    // sleep would be stopped by SIGTTOU, as anybody is who does not care for it.
    let begin = Instant::now();
    let mut new = lab.spawn(&["-sf", &old.pid_text()]);
    new.ends_with(1);
    let took = begin.elapsed();
    assert!((2..6).contains(&took.as_secs()), "{took:?}");
    let what = format!("not given up within 2000 ms by the old processes {}", old.pid());
    new.says(&what);
    assert_eq!(old.end(Duration::ZERO), None, "neither told to leave");
    drop(holder);
}

#[test]
fn an_abstract_name_changes_hands() {
    let lab = Lab::new();
    let name = format!("stickring-test-{}", std::process::id());
    lab.configure(&format!("stats socket abns@{name} level admin"));
    let mut old = lab.start(&[]);
    let mut new = lab.start(&["-sf", &old.pid_text()]);
    old.ends_with(0);
    new.lives();
    new.signal(Signal::TTOU);
    use std::os::linux::net::SocketAddrExt;
    let padded = format!("{name}{}", "\0".repeat(107 - name.len()));
    let at = std::os::unix::net::SocketAddr::from_abstract_name(padded).unwrap();
    let mut ours = None;
    assert!(wait_until(LIMIT, || {
        ours = UnixListener::bind_addr(&at).ok();
        ours.is_some()
    }));
    drop(ours);
    new.signal(Signal::TTIN);
    let up = || std::os::unix::net::UnixStream::connect_addr(&at).is_ok();
    assert!(wait_until(LIMIT, up), "it has it again:\n{}", new.log());
}

#[test]
fn haproxy_takes_over_from_us_and_we_from_haproxy() {
    std::thread::scope(|scope| {
        for program in haproxies() {
            scope.spawn(move || {
                let lab = Lab::new();
                let mut ours = lab.start(&[]);
                let mut theirs = lab.haproxy(&program, &["-sf", &ours.pid_text()]);
                ours.ends_with(0);
                assert!(lab.listens(), "{program:?}");
                assert_eq!(lab.answers(), Some(theirs.pid()), "{program:?}");
                let mut ours = lab.start(&["-sf", &theirs.pid_text()]);
                theirs.ends_with(0);
                assert_eq!(lab.answers(), Some(ours.pid()), "{program:?}");
                assert!(lab.listens(), "{program:?}");
                // And the port is ours alone again.
                let theirs = lab.haproxy(&program, &["-st", &ours.pid_text()]);
                ours.ends_with(143);
                drop(theirs);
            });
        }
    });
}

#[test]
fn signals_for_others_change_nothing() {
    let lab = Lab::new();
    let mut proc = lab.start(&[]);
    for signal in [Signal::USR2, Signal::QUIT, Signal::HUP] {
        proc.signal(signal);
        assert_eq!(lab.answers(), Some(proc.pid()), "{signal:?}");
    }
    proc.lives();
    proc.signal(Signal::INT);
    proc.ends_with(130);
}

#[test]
fn tables_change_hands_where_the_socket_is_inherited() {
    // By the protocol: the old process has to dial what it knows as a number only.
    for line in ["peer n fd@0", "bind fd@0\n    server n"] {
        let lab = Lab::new();
        std::fs::write(lab.path("own.cfg"), "stickring\n    instant-reload off\n").unwrap();
        let config = lab.read("node.cfg").replace(&format!("peer n {}", lab.address), line);
        std::fs::write(lab.path("node.cfg"), config).unwrap();
        let socket = TcpListener::bind(lab.address).unwrap();
        let own = lab.text("own.cfg");
        let start = |args: &[&str]| {
            let args: Vec<&str> = ["-f", &own].into_iter().chain(args.iter().copied()).collect();
            let proc = lab.spawn_holding(&args, socket.try_clone().unwrap().into());
            lab.wait_for(&proc);
            proc
        };
        let mut old = start(&[]);
        let peers = crate::lab::ask(&lab.socket(), "show peers").unwrap();
        let local = format!("id=n(local,inactive) addr={} ", lab.address);
        assert!(peers.contains(&local), "{peers}");
        crate::lab::ask(&lab.socket(), "set table p/t key 7 data.gpc0 5").unwrap();
        let mut new = start(&["-sf", &old.pid_text()]);
        old.ends_with(0);
        new.says("Hand-over from the old process");
        let row = crate::lab::ask(&lab.socket(), "show table p/t key 7").unwrap();
        assert!(row.contains("gpc0=5"), "{line}: {row}\n{}\n{}", old.log(), new.log());
        new.lives();
    }
}

#[test]
fn a_pause_ends_with_the_process_that_asked_for_it() {
    for args in ["-sf", "-st"] {
        let lab = Lab::new();
        // Another number of shards: the way of the protocol, with a pause.
        let mut old = lab.start(&[]);
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let held = held.local_addr().map(|at| (held, at)).unwrap();
        lab.configure(&format!("nbthread 1\n    stats socket {}", held.1));
        let new = lab.spawn(&[args, &old.pid_text()]);
        old.says("SIGTTOU received");
        new.signal(Signal::KILL);
        old.says(&format!("Process {}, which wanted our addresses, is gone", new.pid()));
        assert!(wait_until(LIMIT, || lab.listens()), "{}", old.log());
        old.lives();
        // The next one finds everything as it should be.
        drop(held);
        let mut new = lab.start(&[args, &old.pid_text()]);
        old.ends_with(if args == "-sf" { 0 } else { 143 });
        assert!(!old.log().contains(&format!("Process {}, which", new.pid())), "{}", old.log());
        assert!(lab.listens());
        new.lives();
    }
}
