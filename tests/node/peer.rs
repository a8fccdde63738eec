//! A small peer on a blocking socket: it says what a test wants, keeps what it hears, and answers
//! as a HAProxy does.

use crate::daemon::Daemon;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use stickring::wire::frame::{self, Cut};
use stickring::wire::message::{Control, Message, encode_ack, encode_define};
use stickring::wire::update::{Value, decode_values, encode_head};
use stickring::wire::{Definition, KeyShape, Step, Tail, Update, UpdateForm, hello, varint};

/// Our id for table `/t`.
pub const TABLE: i32 = 77;

pub struct Peer {
    pub stream: TcpStream,
    rx: Vec<u8>,
    last_sent: Instant,
    table: Option<(i32, String, Vec<Step>)>,
    /// Latest value of each key of `/t`, over all connections.
    pub rows: HashMap<u32, u64>,
    /// Updates received on this connection: (id, key, value).
    pub updates: Vec<(u32, u32, u64)>,
    /// Acks received, in order.
    pub acks: Vec<u32>,
    /// Ends of lessons received; true: finished.
    pub ends: Vec<bool>,
    /// We were asked for a lesson so many times.
    pub asked: u32,
    /// Our lessons were confirmed so many times.
    pub confirmed: u32,
    /// The other side has closed.
    pub closed: bool,
    /// Acknowledge what comes.
    pub acking: bool,
    to_ack: Option<(i32, u32)>,
    /// Timed updates received on this connection.
    pub timed: usize,
}

impl Peer {
    /// Says hello as `name` and waits for the 200.
    pub fn connect(daemon: &Daemon, name: &str) -> Peer {
        Peer::try_connect(daemon.address, name).expect("a session")
    }

    pub fn try_connect(address: SocketAddr, name: &str) -> Option<Peer> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
        stream.set_write_timeout(Some(Duration::from_secs(3))).ok()?;
        (&stream).write_all(&hello::encode_hello(1, "node", name, 1)).ok()?;
        let mut status = [0; 4];
        (&stream).read_exact(&mut status).ok()?;
        if &status != b"200\n" {
            return None;
        }
        Some(Peer::over(stream))
    }

    /// Waits for somebody to connect and reads three lines; `None` when nobody does in time.
    pub fn accept(listener: &TcpListener, limit: Duration) -> Option<(Peer, String)> {
        listener.set_nonblocking(true).unwrap();
        let end = Instant::now() + limit;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if Instant::now() > end => return None,
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let mut hello = Vec::new();
        while hello.iter().filter(|b| **b == b'\n').count() < 3 {
            let mut byte = [0];
            if (&stream).read(&mut byte).unwrap() == 0 {
                break;
            }
            hello.push(byte[0]);
        }
        Some((Peer::over(stream), String::from_utf8(hello).unwrap()))
    }

    fn over(stream: TcpStream) -> Peer {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
        Peer {
            stream,
            rx: Vec::new(),
            last_sent: Instant::now(),
            table: None,
            rows: HashMap::new(),
            updates: Vec::new(),
            acks: Vec::new(),
            ends: Vec::new(),
            asked: 0,
            confirmed: 0,
            closed: false,
            acking: true,
            to_ack: None,
            timed: 0,
        }
    }

    /// The same peer on a new connection; what it knows stays.
    pub fn reconnect(&mut self, daemon: &Daemon, name: &str) {
        let rows = std::mem::take(&mut self.rows);
        *self = Peer { rows, ..Peer::connect(daemon, name) };
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.last_sent = Instant::now();
        if self.stream.write_all(bytes).is_err() {
            self.closed = true;
        }
    }

    pub fn control(&mut self, control: Control) {
        self.send(&control.bytes());
    }

    /// Reads and answers until `until` says so; false when it did not in time.
    pub fn pump(&mut self, limit: Duration, until: impl Fn(&Peer) -> bool) -> bool {
        let end = Instant::now() + limit;
        while !until(self) {
            if self.closed || Instant::now() > end {
                return false;
            }
            self.step();
        }
        true
    }

    /// One read, and the answers to it.
    pub fn step(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(n) => self.rx.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.closed = true,
        }
        let rx = std::mem::take(&mut self.rx);
        let mut at = 0;
        let mut answer = Vec::new();
        while let Ok(Cut::Frame(frame)) = frame::cut(&rx[at..], 1 << 20) {
            at += frame.len;
            self.message(Message::of(&frame).unwrap(), &mut answer);
        }
        self.rx = rx[at..].to_vec();
        if let Some((table, uid)) = self.to_ack.take().filter(|_| self.acking) {
            encode_ack(&mut answer, table, uid);
        }
        if answer.is_empty() && self.last_sent.elapsed() > Duration::from_secs(2) {
            answer.extend(Control::Heartbeat.bytes());
        }
        if !answer.is_empty() && !self.closed {
            self.send(&answer);
        }
    }

    fn message(&mut self, message: Message<'_>, answer: &mut Vec<u8>) {
        match message {
            Message::Control(Control::ResyncRequest) => {
                self.asked += 1;
                answer.extend(Control::ResyncFinished.bytes());
            }
            Message::Control(Control::ResyncFinished) => self.lesson_end(true, answer),
            Message::Control(Control::ResyncPartial) => self.lesson_end(false, answer),
            Message::Control(Control::ResyncConfirm) => self.confirmed += 1,
            Message::Control(Control::Heartbeat) => {}
            Message::Define(payload) => {
                let definition = Definition::decode(payload).unwrap();
                let name = String::from_utf8(definition.name.clone()).unwrap();
                self.table = Some((definition.id, name, definition.steps()));
            }
            Message::Update(form, payload) => self.update(form, payload),
            Message::Ack { table: TABLE, uid } => self.acks.push(uid),
            // Of another table.
            Message::Ack { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn lesson_end(&mut self, finished: bool, answer: &mut Vec<u8>) {
        self.ends.push(finished);
        answer.extend(Control::ResyncConfirm.bytes());
    }

    fn update(&mut self, form: UpdateForm, payload: &[u8]) {
        let (id, name, steps) = self.table.as_ref().expect("a definition comes first");
        let update = Update::decode(form, payload, KeyShape::Fixed(4)).unwrap();
        let mut gpc0 = 0;
        decode_values(update.values, steps, |_, _, value| {
            if let Value::Int(v) = value {
                gpc0 = v;
            }
        })
        .unwrap();
        let uid = update.uid.expect("ids are explicit");
        let key = u32::from_be_bytes(update.key.try_into().unwrap());
        if name == "/t" {
            self.rows.insert(key, gpc0);
        }
        self.updates.push((uid, key, gpc0));
        if form.timed {
            self.timed += 1;
        } else {
            self.to_ack = Some((*id, uid));
        }
    }
}

/// Our definition of table `/t`.
pub fn define() -> Vec<u8> {
    let mut out = Vec::new();
    encode_define(
        &mut out,
        &Definition {
            id: TABLE,
            name: b"/t".to_vec(),
            key_type: 2,
            key_len: 4,
            data_types: 4,
            tail: Tail::Present { expire_ms: 3_600_000, parameters: Vec::new() },
        },
    );
    out
}

/// Updates with ids from `first_uid` on: (key, value).
pub fn updates(first_uid: u32, rows: impl IntoIterator<Item = (u32, u64)>) -> Vec<u8> {
    let mut out = Vec::new();
    let kind = UpdateForm { explicit_id: true, timed: false }.kind();
    for (uid, (key, value)) in (first_uid..).zip(rows) {
        frame::build(&mut out, frame::class::TABLE, kind, |out| {
            encode_head(out, Some(uid), None, KeyShape::Fixed(4), &key.to_be_bytes());
            varint::encode(out, value);
        });
    }
    out
}

/// Teaches a daemon that has just started nothing at all, so that it asks nobody else.
pub fn teach_nothing(daemon: &Daemon) {
    let mut peer = Peer::connect(daemon, "starter");
    assert!(peer.pump(Duration::from_secs(5), |p| p.confirmed == 1), "{:?}", daemon.kind);
}

/// Gives the daemon `rows` entries, key = value, and waits until all are applied.
pub fn fill(daemon: &Daemon, rows: u32) {
    let mut peer = Peer::connect(daemon, "filler");
    peer.acking = false;
    peer.send(&define());
    for first in (1..=rows).step_by(10_000) {
        let last = rows.min(first + 9_999);
        peer.send(&updates(first, (first..=last).map(|n| (n, u64::from(n)))));
        assert!(
            peer.pump(Duration::from_secs(20), |p| p.acks.last() == Some(&last)),
            "{:?}: filled to {:?} of {rows}",
            daemon.kind,
            peer.acks.last()
        );
    }
}
