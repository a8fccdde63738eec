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
