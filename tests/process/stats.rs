//! The stats socket where time and sockets matter: `wait`, `clear counters`.

use crate::lab::{LIMIT, Lab, ask, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

#[test]
fn wait_waits_and_then_the_line_goes_on() {
    let lab = Lab::new();
    let _proc = lab.start(&[]);
    let line = "echo a;wait 300ms;echo b";
    // With a client that has said all it has to say, and with one that may say more.
    for ends in [true, false] {
        let began = Instant::now();
        let mut stream = UnixStream::connect(lab.socket()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        if ends {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let mut first = [0; 3];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"a\n\n");
        assert!(began.elapsed() < Duration::from_millis(300), "what is ready is not held back");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "Done.\n\nb\n\n");
        assert!(began.elapsed() >= Duration::from_millis(300));
    }
}

#[test]
fn who_waits_and_goes_frees_the_place() {
    let lab = Lab::new();
    lab.configure("stats maxconn 2");
    let _proc = lab.start(&[]);
    let waits = || {
        let mut stream = UnixStream::connect(lab.socket()).unwrap();
        stream.write_all(b"wait 1d\n").unwrap();
        stream
    };
    let both = (waits(), waits());
    drop(both);
    assert!(ask(&lab.socket(), "show version").unwrap().contains(env!("CARGO_PKG_VERSION")));
}

/// A column of `show stat`.
fn column(lab: &Lab, name: &str) -> u64 {
    let text = ask(&lab.socket(), "show stat").unwrap();
    let mut lines = text.lines().map(|line| line.trim_start_matches("# ").split(','));
    let at = lines.next().unwrap().position(|n| n == name).unwrap();
    lines.next().unwrap().nth(at).unwrap().parse().unwrap()
}

#[test]
fn clear_counters_clears_what_show_stat_counts() {
    let lab = Lab::new();
    let _proc = lab.start(&[]);
    let refuse = || {
        let mut stream = TcpStream::connect(lab.address).unwrap();
        stream.write_all(b"nonsense\nnonsense\nnonsense\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    };
    refuse();
    assert!(wait_until(LIMIT, || column(&lab, "ereq") == 1));
    // Maxima only.
    assert_eq!(ask(&lab.socket(), "clear counters").unwrap(), "\n");
    assert_eq!(column(&lab, "ereq"), 1);
    assert_eq!(ask(&lab.socket(), "clear counters all").unwrap(), "\n");
    assert_eq!(column(&lab, "ereq"), 0);
    refuse();
    assert!(wait_until(LIMIT, || column(&lab, "ereq") == 1));
}
