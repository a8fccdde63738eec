//! `-x`: listening sockets by `_getsocks`, between both programs.

use crate::lab::{LIMIT, Lab, haproxies};
use rustix::process::Signal;
use std::io::Read;
use std::net::TcpStream;

/// The socket that listens on the lab's address, by its number in the kernel.
fn inode(lab: &Lab) -> Vec<String> {
    let port = format!(":{:04X}", lab.address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let words = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    let listening = words.filter(|w| w.len() > 9 && w[1].ends_with(&port) && w[3] == "0A");
    listening.map(|w| w[9].to_owned()).collect()
}

#[test]
fn the_socket_itself_changes_hands() {
    let lab = Lab::new();
    // Without the instant hand-over, which passes sockets in its own way.
    std::fs::write(lab.path("own.cfg"), "stickring\n    instant-reload off\n").unwrap();
    let own = lab.text("own.cfg");
    let socket = lab.socket().to_str().unwrap().to_owned();
    let mut old = lab.start(&["-f", &own]);
    let before = inode(&lab);
    assert_eq!(before.len(), 1);
    let mut new = lab.start(&["-f", &own, "-x", &socket, "-sf", &old.pid_text()]);
    old.ends_with(0);
    assert_eq!(inode(&lab), before, "the same socket, and no other");
    assert!(lab.listens());
    new.lives();
    // It can be handed on, and paused.
    let mut last = lab.start(&["-f", &own, "-x", &socket, "-st", &new.pid_text()]);
    new.ends_with(143);
    assert_eq!(inode(&lab), before);
    last.signal(Signal::TTOU);
    assert!(crate::lab::wait_until(LIMIT, || !lab.listens()));
    last.signal(Signal::TTIN);
    assert!(crate::lab::wait_until(LIMIT, || lab.listens()));
    last.lives();
}

#[test]
fn between_haproxy_and_us_in_both_directions() {
    for program in haproxies() {
        let lab = Lab::new();
        let socket = lab.socket().to_str().unwrap().to_owned();
        let mut ours = lab.start(&[]);
        let before = inode(&lab);
        let args = ["-x", &socket, "-sf", &ours.pid_text()];
        let mut theirs = lab.haproxy(&program, &args);
        ours.ends_with(0);
        assert_eq!(inode(&lab), before, "{program:?} uses our socket");
        let ours = lab.start(&["-x", &socket, "-sf", &theirs.pid_text()]);
        theirs.ends_with(0);
        assert_eq!(inode(&lab), before, "we use the socket of {program:?}");
        let mut stream = TcpStream::connect(lab.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        std::io::Write::write_all(&mut stream, b"HAProxyS 2.1\nn\nx 1 1\n").unwrap();
        let mut status = [0; 3];
        stream.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"504", "somebody accepts there:\n{}", ours.log());
    }
}

#[test]
fn nobody_behind_it_is_no_start_and_dev_null_is_nobody() {
    let lab = Lab::new();
    let mut proc = lab.spawn(&["-x", &lab.text("nothing.sock")]);
    proc.ends_with(1);
    proc.says("cannot get the listening sockets of the process behind '");
    let mut proc = lab.start(&["-x", "/dev/null"]);
    // A stats socket that does not expose them gives none.
    let config = lab.read("node.cfg").replace(" expose-fd listeners", "");
    std::fs::write(lab.path("node.cfg"), config).unwrap();
    proc.signal(Signal::TERM);
    proc.ends_with(143);
    let mut closed = lab.start(&[]);
    let socket = lab.socket().to_str().unwrap().to_owned();
    let mut other = lab.spawn(&["-x", &socket, "-st", &closed.pid_text()]);
    other.ends_with(1);
    other.says("'expose-fd listeners' is missing there");
    assert!(lab.listens());
    closed.lives();
}
