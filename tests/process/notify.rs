//! `-Ws`: what systemd is told, and when.

use crate::lab::{LIMIT, Lab, wait_until};
use rustix::process::Signal;
use std::os::unix::net::UnixDatagram;

fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let len = socket.recv(&mut bytes).expect("a datagram");
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

#[test]
fn each_turn_is_told_as_haproxy_tells_it() {
    let lab = Lab::new();
    let socket = UnixDatagram::bind(lab.path("notify.sock")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let path = lab.text("notify.sock");
    let mut master = lab.master(&["-Ws"], &[("NOTIFY_SOCKET", &path)]);
    let ready = format!("READY=1\nMAINPID={}\nSTATUS=Ready.\n", master.pid());
    assert_eq!(next(&socket), ready);
    let reloading = |text: String| {
        let head = "RELOADING=1\nSTATUS=Reloading Configuration.\nMONOTONIC_USEC=";
        let us = text.strip_prefix(head).unwrap_or_else(|| panic!("{text}"));
        assert!(us.trim().parse::<u64>().unwrap() > 0);
    };
    master.signal(Signal::USR2);
    reloading(next(&socket));
    assert_eq!(next(&socket), ready);
    lab.configure("nbthread x");
    master.signal(Signal::HUP);
    reloading(next(&socket));
    assert_eq!(next(&socket), "READY=1\nSTATUS=Reload failed!\n");
    master.signal(Signal::TERM);
    assert_eq!(next(&socket), "STOPPING=1");
    master.ends_with(0);
}

#[test]
fn an_abstract_name_will_do_and_others_say_nothing() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("stickring-notify-{}", std::process::id());
    let at = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&at).unwrap();
    socket.set_nonblocking(true).unwrap();
    let env = format!("@{name}");
    let lab = Lab::new();
    let mut plain = lab.master(&["-W"], &[("NOTIFY_SOCKET", &env)]);
    plain.signal(Signal::TERM);
    plain.ends_with(0);
    assert!(socket.recv(&mut [0; 8]).is_err(), "-W is not -Ws");
    let _master = lab.master(&["-Ws"], &[("NOTIFY_SOCKET", &env)]);
    let mut bytes = [0; 1024];
    assert!(wait_until(LIMIT, || socket.recv(&mut bytes).is_ok()));
    assert!(bytes.starts_with(b"READY=1\nMAINPID="));
}

/// The commands of a unit, for this machine.
fn commands(lab: &Lab, key: &str) -> Vec<Vec<String>> {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/stickring.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    assert!(unit.contains("\nType=notify\n"), "{unit}");
    let word = |word: &str| match word {
        "/usr/sbin/stickring" => env!("CARGO_BIN_EXE_stickring").to_owned(),
        "/etc/haproxy/haproxy.cfg" => lab.text("node.cfg"),
        "/etc/stickring/stickring.cfg" => lab.text("stickring.cfg"),
        other => other.replace("/run/stickring", &lab.text("")),
    };
    let lines = unit.lines().filter_map(|l| l.strip_prefix(key)?.strip_prefix('='));
    lines.map(|line| line.split(' ').map(word).collect()).collect()
}

#[test]
fn the_unit_starts_and_reloads() {
    let lab = Lab::new();
    std::fs::write(lab.path("stickring.cfg"), "stickring\n    pin off\n").unwrap();
    let socket = UnixDatagram::bind(lab.path("notify.sock")).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let run = |words: &[String]| {
        let mut command = std::process::Command::new(&words[0]);
        command.args(&words[1..]).env("NOTIFY_SOCKET", lab.path("notify.sock"));
        crate::lab::Proc::spawn(command)
    };
    for check in commands(&lab, "ExecStartPre") {
        run(&check).ends_with(0);
    }
    let [start] = &commands(&lab, "ExecStart")[..] else { panic!("one ExecStart") };
    let mut master = run(start);
    let ready = format!("READY=1\nMAINPID={}\nSTATUS=Ready.\n", master.pid());
    assert_eq!(next(&socket), ready, "{}", master.log());
    let first = lab.answers();
    for mut words in commands(&lab, "ExecReload") {
        words.iter_mut().filter(|w| *w == "$MAINPID").for_each(|w| *w = master.pid_text());
        run(&words).ends_with(0);
    }
    assert!(next(&socket).starts_with("RELOADING=1\n"));
    assert_eq!(next(&socket), ready);
    assert_ne!(lab.answers(), first);
    assert!(lab.ask_master("show proc").contains("master          1 [failed: 0]"));
    master.signal(Signal::TERM);
    master.ends_with(0);
}
