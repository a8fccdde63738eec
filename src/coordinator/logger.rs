//! Log lines out: stderr in HAProxy's start-up format, and the `log` targets of the configuration.
//!
//! Never waits: a datagram that has no room is counted and dropped.

use crate::config::{Address, LogTarget};
use crate::engine::Clock;
use crate::observe::log::{Level, Line, format_line, stderr_line};
use std::cell::Cell;
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;

enum Sink {
    Udp(UdpSocket),
    Unix(UnixDatagram, String),
    Stdout,
    Stderr,
}

struct Target {
    spec: LogTarget,
    sink: Sink,
}

/// See the module head. Clones share the targets.
#[derive(Clone)]
pub struct Logger(Rc<Inner>);

struct Inner {
    targets: Vec<Target>,
    dropped: Cell<u64>,
    quiet: bool,
}

impl Logger {
    /// Opens what `targets` need. A target that cannot be opened is reported on stderr and left out.
    pub fn new(targets: &[LogTarget], quiet: bool) -> Logger {
        let mut opened = Vec::new();
        for spec in targets {
            match open(&spec.address) {
                Ok(sink) => opened.push(Target { spec: spec.clone(), sink }),
                Err(error) => {
                    eprint!("{}", stderr_line(Level::Warning, std::process::id(), &format!(
                        "log target '{}': {error}; nothing is sent there.", spec.address
                    )));
                }
            }
        }
        Logger(Rc::new(Inner { targets: opened, dropped: Cell::new(0), quiet }))
    }

    /// A line of level `level`, to everyone who wants it.
    pub fn log(&self, level: Level, text: &str) {
        let inner = &self.0;
        let pid = std::process::id();
        if !inner.quiet {
            // stderr may be closed; there is nowhere to say so.
            let _ = std::io::stderr().write_all(stderr_line(level, pid, text).as_bytes());
        }
        let line = Line { level, text, pid, wall_ms: Clock.wall_ms() };
        for target in &inner.targets {
            let Some(bytes) = format_line(&target.spec, &line) else { continue };
            if send(&target.sink, &bytes).is_err() {
                inner.dropped.set(inner.dropped.get() + 1);
            }
        }
    }

    /// A notice.
    pub fn notice(&self, text: &str) {
        self.log(Level::Notice, text);
    }

    /// A warning.
    pub fn warning(&self, text: &str) {
        self.log(Level::Warning, text);
    }

    /// Lines that a target had no room for.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.get()
    }
}

fn open(address: &Address) -> std::io::Result<Sink> {
    match address {
        Address::Tcp(tcp) => {
            let any = if tcp.socket.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(tcp.socket)?;
            Ok(Sink::Udp(socket))
        }
        Address::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(Sink::Unix(socket, path.clone()))
        }
        Address::Fd(1) => Ok(Sink::Stdout),
        Address::Fd(2) => Ok(Sink::Stderr),
        Address::Fd(_) | Address::Abns(_) => Err(std::io::ErrorKind::Unsupported.into()),
    }
}

fn send(sink: &Sink, bytes: &[u8]) -> std::io::Result<()> {
    match sink {
        Sink::Udp(socket) => socket.send(bytes).map(drop),
        Sink::Unix(socket, path) => socket.send_to(bytes, path).map(drop),
        Sink::Stdout => std::io::stdout().write_all(bytes),
        Sink::Stderr => std::io::stderr().write_all(bytes),
    }
}
