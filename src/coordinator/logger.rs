//! Log lines out: stderr in HAProxy's start-up format, and the `log` targets of the configuration.
//!
//! Never waits: a datagram that has no room is counted and dropped.

use crate::Millis;
use crate::config::{Address, Config, LogTarget};
use crate::engine::Clock;
use crate::limits::{LOG_BURST, LOG_PER_SECOND};
use crate::observe::log::{Level, Line, format_line, stderr_line};
use std::cell::{Cell, RefCell};
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
    /// Only lines about this peers section; `None`: all.
    section: Option<usize>,
}

/// See the module head. Clones share the targets.
#[derive(Clone)]
pub struct Logger(Rc<Inner>);

/// A bucket of lines, filled by time.
struct Rate {
    left: u64,
    filled_at: Millis,
    held_back: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Rate { left: LOG_BURST, filled_at: Millis(0), held_back: 0 }
    }
}

impl Rate {
    /// `Some(n)`: log now, `n` lines were held back since the last. `None`: hold this one back.
    fn take(&mut self, now: Millis) -> Option<u64> {
        let seconds = now.since(self.filled_at) / 1000;
        if seconds > 0 {
            self.left = LOG_BURST.min(self.left + seconds.saturating_mul(LOG_PER_SECOND));
            self.filled_at = now;
        }
        if self.left == 0 {
            self.held_back += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.held_back))
    }
}

struct Inner {
    targets: Vec<Target>,
    dropped: Cell<u64>,
    rate: RefCell<Rate>,
    quiet: bool,
}

impl Logger {
    /// Opens the `log` targets of the global section, which get every line, and of the peers
    /// sections, which get those about them. A target that cannot be opened is reported on stderr
    /// and left out.
    pub fn new(config: &Config, quiet: bool) -> Logger {
        let global = config.logs.iter().map(|spec| (None, spec));
        let sections = config.peers.iter().enumerate().flat_map(|(i, section)| {
            // `log global` in a section: these get its lines already.
            let own = section.logs.iter().filter(|spec| !config.logs.contains(spec));
            own.map(move |spec| (Some(i), spec))
        });
        let mut opened = Vec::new();
        for (section, spec) in global.chain(sections) {
            match open(&spec.address) {
                Ok(sink) => opened.push(Target { spec: spec.clone(), sink, section }),
                Err(error) => {
                    let text =
                        format!("log target '{}': {error}; nothing is sent there.", spec.address);
                    eprint!("{}", stderr_line(Level::Warning, std::process::id(), &text));
                }
            }
        }
        Logger(Rc::new(Inner {
            targets: opened,
            dropped: Cell::new(0),
            rate: RefCell::default(),
            quiet,
        }))
    }

    /// A line of level `level`, about peers section number `section` if any, to everyone who wants
    /// it.
    pub fn log(&self, level: Level, section: Option<usize>, text: &str) {
        let inner = &self.0;
        let pid = std::process::id();
        if !inner.quiet {
            // stderr may be closed; there is nowhere to say so.
            let _ = std::io::stderr().write_all(stderr_line(level, pid, text).as_bytes());
        }
        let line = Line { level, text, pid, wall_ms: Clock.wall_ms() };
        let wants = |t: &&Target| t.section.is_none() || t.section == section;
        for target in inner.targets.iter().filter(wants) {
            let Some(bytes) = format_line(&target.spec, &line) else { continue };
            if send(&target.sink, &bytes).is_err() {
                inner.dropped.set(inner.dropped.get() + 1);
            }
        }
    }

    /// The same at a limited rate, so that a storm of connections is not a storm of lines. What was
    /// held back is counted and said later.
    pub fn limited(&self, now: Millis, level: Level, section: Option<usize>, text: &str) {
        let Some(held_back) = self.0.rate.borrow_mut().take(now) else { return };
        if held_back > 0 {
            self.log(Level::Warning, None, &format!("{held_back} log lines were held back."));
        }
        self.log(level, section, text);
    }

    /// A notice.
    pub fn notice(&self, text: &str) {
        self.log(Level::Notice, None, text);
    }

    /// A warning.
    pub fn warning(&self, text: &str) {
        self.log(Level::Warning, None, text);
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
