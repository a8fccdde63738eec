//! A scripted peer that speaks bytes: for what no HAProxy says on its own.
//!
//! It has its own little encoder and decoder and uses nothing of the library, so that an error
//! there cannot hide here (protocol.md sections 1 to 4).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

pub const RESYNC_REQ: [u8; 2] = [0, 0];
pub const FINISHED: [u8; 2] = [0, 1];
pub const PARTIAL: [u8; 2] = [0, 2];
pub const CONFIRM: [u8; 2] = [0, 3];
pub const HEARTBEAT: [u8; 2] = [0, 4];
pub const ERROR_PROTOCOL: [u8; 2] = [1, 0];
pub const ERROR_SIZE: [u8; 2] = [1, 1];

/// An encoded integer.
pub fn varint(mut value: u64) -> Vec<u8> {
    if value < 240 {
        return vec![value as u8];
    }
    let mut out = vec![value as u8 | 0xf0];
    value = (value - 240) >> 4;
    while value >= 128 {
        out.push(value as u8 | 0x80);
        value = (value - 128) >> 7;
    }
    out.push(value as u8);
    out
}

/// Reads an encoded integer off the front.
pub fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    let mut value = u64::from(first);
    if first < 0xf0 {
        return Some(value);
    }
    let mut shift = 4;
    loop {
        let (&next, rest) = bytes.split_first()?;
        *bytes = rest;
        value = value.wrapping_add(u64::from(next) << shift);
        shift += 7;
        if next < 0x80 {
            return Some(value);
        }
    }
}

/// A message with a payload.
pub fn message(class: u8, kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[class, kind][..], &varint(payload.len() as u64), payload].concat()
}

/// A definition; `tail` is everything behind the bits, already encoded as integers.
pub fn define(id: u64, name: &str, key: (u64, u64), bits: u64, tail: &[u64]) -> Vec<u8> {
    let mut payload = [varint(id), varint(name.len() as u64), name.as_bytes().to_vec()].concat();
    for number in [key.0, key.1, bits].iter().chain(tail) {
        payload.extend(varint(*number));
    }
    message(10, 0x82, &payload)
}

/// A string key as it is written in an update.
pub fn string_key(key: &str) -> Vec<u8> {
    [varint(key.len() as u64), key.as_bytes().to_vec()].concat()
}

/// An update with an explicit id; key and values already encoded.
pub fn update(id: u32, key: &[u8], values: &[u8]) -> Vec<u8> {
    message(10, 0x80, &[&id.to_be_bytes()[..], key, values].concat())
}

/// An update that carries the remaining lifetime in milliseconds.
pub fn timed(id: u32, expire_ms: u32, key: &[u8], values: &[u8]) -> Vec<u8> {
    let head = [id.to_be_bytes(), expire_ms.to_be_bytes()].concat();
    message(10, 0x85, &[&head[..], key, values].concat())
}

/// Encoded integers, one behind the other.
pub fn integers(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| varint(*value)).collect()
}

/// A message received.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// Two bytes, class and type below 128.
    Short([u8; 2]),
    /// A definition: table id, name, key type and length, bits, and the tail.
    Define { id: u64, name: String, key: (u64, u64), bits: u64, tail: Vec<u64> },
    /// Any of the four updates; `expire` of timed ones, `id` where it is explicit.
    Update { kind: u8, id: Option<u32>, expire: Option<u32>, rest: Vec<u8> },
    /// An acknowledgement.
    Ack { table: u64, id: u32 },
    /// Anything else.
    Other { class: u8, kind: u8, payload: Vec<u8> },
}

/// An update received, with the table that was defined last before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub table: String,
    pub kind: u8,
    pub id: Option<u32>,
    pub expire: Option<u32>,
    /// Key and values, still encoded.
    pub rest: Vec<u8>,
}

/// The updates among these messages, the first of a session or a lesson.
pub fn updates_of(messages: &[Received]) -> Vec<Update> {
    updates_in(String::new(), messages)
}

fn updates_in(mut table: String, messages: &[Received]) -> Vec<Update> {
    let mut updates = Vec::new();
    for message in messages {
        match message {
            Received::Define { name, .. } => table.clone_from(name),
            Received::Update { kind, id, expire, rest } => updates.push(Update {
                table: table.clone(),
                kind: *kind,
                id: *id,
                expire: *expire,
                rest: rest.clone(),
            }),
            _ => {}
        }
    }
    updates
}

fn be32(bytes: &mut &[u8]) -> u32 {
    let (head, rest) = bytes.split_at(4);
    *bytes = rest;
    u32::from_be_bytes(head.try_into().expect("four bytes"))
}

fn understand(class: u8, kind: u8, mut payload: &[u8]) -> Received {
    let rest = &mut payload;
    match (class, kind) {
        (10, 0x82) => {
            let id = read_varint(rest).expect("table id");
            let length = read_varint(rest).expect("name length") as usize;
            let (name, after) = rest.split_at(length);
            *rest = after;
            let key = (read_varint(rest).expect("type"), read_varint(rest).expect("key length"));
            let bits = read_varint(rest).expect("data types");
            let mut tail = Vec::new();
            while !rest.is_empty() {
                tail.push(read_varint(rest).expect("tail of a definition"));
            }
            Received::Define { id, name: String::from_utf8_lossy(name).into(), key, bits, tail }
        }
        (10, 0x80 | 0x81 | 0x85 | 0x86) => {
            let id = matches!(kind, 0x80 | 0x85).then(|| be32(rest));
            let expire = (kind >= 0x85).then(|| be32(rest));
            Received::Update { kind, id, expire, rest: rest.to_vec() }
        }
        (10, 0x84) => Received::Ack { table: read_varint(rest).expect("id"), id: be32(rest) },
        _ => Received::Other { class, kind, payload: rest.to_vec() },
    }
}

/// One end of a peers connection.
pub struct RawPeer {
    stream: TcpStream,
    buffer: Vec<u8>,
    closed: bool,
    /// The table of the last definition received.
    pub current: Option<String>,
    /// Heartbeats received and not shown, with the time since [`RawPeer`] was made.
    pub heartbeats: Vec<Duration>,
    since: Instant,
    beaten: Instant,
}

impl RawPeer {
    fn over(stream: TcpStream) -> RawPeer {
        stream.set_nodelay(true).expect("nodelay");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("timeout");
        let now = Instant::now();
        let (heartbeats, current) = (Vec::new(), None);
        RawPeer {
            stream,
            buffer: Vec::new(),
            closed: false,
            current,
            heartbeats,
            since: now,
            beaten: now,
        }
    }

    /// Connects, says these bytes and returns the status line without its line end.
    pub fn hello(address: &str, hello: &[u8]) -> (RawPeer, String) {
        let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        let mut peer = RawPeer::over(stream);
        peer.send(hello);
        let status = peer.line(8);
        peer.since = Instant::now();
        (peer, status)
    }

    /// Connects and says these bytes; waits for nothing.
    pub fn speak(address: &str, hello: &[u8]) -> RawPeer {
        let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        let mut peer = RawPeer::over(stream);
        peer.try_send(hello);
        peer
    }

    /// Connects as `name` to the node called `remote`; the status must be 200.
    pub fn join(address: &str, name: &str, remote: &str) -> RawPeer {
        RawPeer::join_as(address, "2.1", name, remote)
    }

    /// As [`RawPeer::join`], speaking a certain version.
    pub fn join_as(address: &str, version: &str, name: &str, remote: &str) -> RawPeer {
        let hello = format!("HAProxyS {version}\n{remote}\n{name} 4242 1\n");
        let (mut peer, status) = RawPeer::hello(address, hello.as_bytes());
        assert!(status.starts_with("200"), "status {status:?} to {hello:?}");
        peer.send(&HEARTBEAT);
        peer
    }

    /// Waits for the other side to connect; returns the three lines of its hello.
    pub fn accept(listener: &TcpListener, limit: u64) -> (RawPeer, Vec<String>) {
        listener.set_nonblocking(true).expect("non-blocking");
        let begin = Instant::now();
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    assert!(begin.elapsed().as_secs() < limit, "nobody connected in {limit} s");
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(e) => panic!("accept: {e}"),
            }
        };
        stream.set_nonblocking(false).expect("blocking");
        let mut peer = RawPeer::over(stream);
        let lines = (0..3).map(|_| peer.line(6)).collect();
        (peer, lines)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send to the node");
    }

    /// Sends bytes; whether the other side still took them.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    fn fill(&mut self, wait: Duration) -> bool {
        // The far end drops a peer that is silent for 5 s: beat while waiting for something.
        let mut chunk = [0; 65536];
        self.stream.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).expect("timeout");
        match self.stream.read(&mut chunk) {
            Ok(0) => self.closed = true,
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                return true;
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.closed = true,
        }
        false
    }

    /// A line; empty when the connection ends or nothing comes in `limit` seconds.
    pub fn line(&mut self, limit: u64) -> String {
        let begin = Instant::now();
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            let left = Duration::from_secs(limit).saturating_sub(begin.elapsed());
            if self.closed || left.is_zero() {
                return String::new();
            }
            self.fill(left);
        }
    }

    fn cut(&mut self) -> Option<Received> {
        let (class, kind) = (*self.buffer.first()?, *self.buffer.get(1)?);
        if kind < 0x80 {
            self.buffer.drain(..2);
            return Some(Received::Short([class, kind]));
        }
        let mut rest = &self.buffer[2..];
        let length = read_varint(&mut rest)? as usize;
        let payload = rest.get(..length)?.to_vec();
        let used = self.buffer.len() - rest.len() + length;
        self.buffer.drain(..used);
        Some(understand(class, kind, &payload))
    }

    /// The next message that is no heartbeat, or nothing after `ms` milliseconds or at the end of
    /// the connection. Sends heartbeats of its own meanwhile.
    pub fn next(&mut self, ms: u64) -> Option<Received> {
        let end = Instant::now() + Duration::from_millis(ms);
        loop {
            match self.cut() {
                Some(Received::Short(HEARTBEAT)) => self.heartbeats.push(self.since.elapsed()),
                Some(received) => {
                    if let Received::Define { name, .. } = &received {
                        self.current = Some(name.clone());
                    }
                    return Some(received);
                }
                None => {
                    let left = end.saturating_duration_since(Instant::now());
                    if self.closed || left.is_zero() {
                        return None;
                    }
                    if self.beaten.elapsed() > Duration::from_millis(1500) {
                        self.beaten = Instant::now();
                        let _ = self.stream.write_all(&HEARTBEAT);
                    }
                    self.fill(left.min(Duration::from_millis(500)));
                }
            }
        }
    }

    /// Lives on for `ms` milliseconds, whatever comes.
    pub fn stay(&mut self, ms: u64) {
        let end = Instant::now() + Duration::from_millis(ms);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let _ = self.next(left.as_millis() as u64 + 1);
        }
    }

    /// Whether a heartbeat comes within `ms`, before anything else.
    pub fn heartbeat_within(&mut self, ms: u64) -> bool {
        let before = self.heartbeats.len();
        let _ = self.next(ms);
        self.heartbeats.len() > before
    }

    /// All messages until nothing came for `ms` milliseconds.
    pub fn quiet(&mut self, ms: u64) -> Vec<Received> {
        std::iter::from_fn(|| self.next(ms)).collect()
    }

    /// The next message, which must be this one; others of `skipped` may come before.
    pub fn expect(&mut self, wanted: [u8; 2], ms: u64) {
        let got = self.next(ms);
        assert_eq!(got, Some(Received::Short(wanted)), "closed: {}", self.closed);
    }

    /// Messages up to and without this one, at most `ms` between two of them.
    pub fn until(&mut self, wanted: &[[u8; 2]], ms: u64) -> (Vec<Received>, [u8; 2]) {
        let mut before = Vec::new();
        loop {
            match self.next(ms) {
                Some(Received::Short(short)) if wanted.contains(&short) => return (before, short),
                Some(other) => before.push(other),
                None => panic!("no {wanted:?} (closed: {}), but {before:?}", self.closed),
            }
        }
    }

    /// Whether the other side closed, waiting up to `ms` without sending anything.
    pub fn closes(&mut self, ms: u64) -> bool {
        let end = Instant::now() + Duration::from_millis(ms);
        while !self.closed && Instant::now() < end {
            self.fill(end.saturating_duration_since(Instant::now()));
        }
        self.closed
    }

    /// Whether the end of the connection was seen.
    pub fn ended(&self) -> bool {
        self.closed
    }

    /// The bytes that came and were not looked at.
    pub fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// All updates until nothing came for `ms` milliseconds; definitions only tell their table.
    pub fn updates(&mut self, ms: u64) -> Vec<Update> {
        let table = self.current.clone().unwrap_or_default();
        let all = self.quiet(ms);
        updates_in(table, &all)
    }

    /// Plays a section that has nothing: answers a request for a lesson by *finished*. Returns what
    /// else came. Afterwards the node is done with us as a teacher.
    pub fn settle(&mut self) -> Vec<Received> {
        let mut others = VecDeque::new();
        while let Some(received) = self.next(700) {
            match received {
                Received::Short(RESYNC_REQ) => self.send(&FINISHED),
                Received::Short(CONFIRM) => {}
                other => others.push_back(other),
            }
        }
        assert!(!self.closed, "the node closed the session");
        others.into()
    }
}
