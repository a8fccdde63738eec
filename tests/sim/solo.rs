//! One session against bytes.

use crate::model::{Collect, Got, ModelLayout, ModelTables};
use bytes::Bytes;
use stickring::Millis;
use stickring::session::{
    ChangeBatch, CloseReason, Event, Ledger, Output, Session, SessionError, SessionParams,
};
use stickring::wire::frame::{self, Cut};
use stickring::wire::message::{self, Message};

pub const HEARTBEAT: &[u8] = &[0, 4];
pub const REQUEST: &[u8] = &[0, 0];
pub const FINISHED: &[u8] = &[0, 1];
pub const PARTIAL: &[u8] = &[0, 2];
pub const CONFIRM: &[u8] = &[0, 3];

/// See the module's head.
pub struct Solo {
    pub session: Session<ModelLayout>,
    pub tables: ModelTables,
    pub now: Millis,
    pub got: Vec<Got>,
    pub events: Vec<Event>,
    pub sent: Vec<u8>,
    pub error: Option<SessionError>,
    rest: Vec<u8>,
}

pub const REMOTE: SessionParams = SessionParams { local: false, minor: 1, bufsize: 16_384 };
pub const LOCAL: SessionParams = SessionParams { local: true, minor: 1, bufsize: 16_384 };

impl Solo {
    /// A session with a remote at time 1000 s, its first heartbeat and push start taken away.
    pub fn new() -> Solo {
        let mut solo = Solo::with(REMOTE, Ledger::default());
        assert_eq!(solo.take_sent(), HEARTBEAT);
        assert_eq!(solo.take_events(), [Event::PushStart { epoch: 1 }]);
        solo
    }

    pub fn with(params: SessionParams, ledger: Ledger) -> Solo {
        let now = Millis(1_000_000);
        let mut solo = Solo {
            session: Session::new(params, ledger, now),
            tables: ModelTables::captured(),
            now,
            got: Vec::new(),
            events: Vec::new(),
            sent: Vec::new(),
            error: None,
            rest: Vec::new(),
        };
        solo.poll();
        solo
    }

    pub fn poll(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send(bytes) => self.sent.extend_from_slice(&bytes),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    /// Receives bytes without closing the round.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut sink = Collect { bytes: &rest, got: &mut self.got };
        match self.session.handle_bytes(&rest, self.now, &mut self.tables, &mut sink) {
            Ok(n) => self.rest = rest[n..].to_vec(),
            Err(e) => self.error = Some(e),
        }
        self.poll();
    }

    /// Receives bytes and closes the round, which stays to be applied.
    pub fn feed_unapplied(&mut self, bytes: &[u8]) -> Option<u64> {
        self.receive(bytes);
        self.session.close_round()
    }

    pub fn applied(&mut self, round: u64) {
        self.session.handle_applied(round, self.now);
        self.poll();
    }

    /// Receives bytes that are applied at once.
    pub fn feed(&mut self, bytes: &[u8]) {
        if let Some(round) = self.feed_unapplied(bytes) {
            self.applied(round);
        }
    }

    pub fn learn(&mut self) {
        self.session.handle_learn(self.now);
        self.poll();
    }

    pub fn changes(&mut self, batch: ChangeBatch) {
        self.session.handle_changes(batch, self.now);
        self.poll();
    }

    pub fn chunk(&mut self, lesson: u32, bytes: &[u8], entries: u64) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.session.handle_lesson_chunk(lesson, bytes, entries, self.now);
        self.poll();
    }

    pub fn lesson_done(&mut self, lesson: u32, up_to_date: bool, tails: Vec<(usize, usize, u64)>) {
        self.session.handle_lesson_done(lesson, up_to_date, tails, self.now);
        self.poll();
    }

    /// Lets time pass, waking the session when it asked for it.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        let mut wakes = 0;
        while let Some(at) = self.session.poll_timeout().filter(|&at| at <= end) {
            wakes += 1;
            assert!(wakes <= 3 + ms / 100, "a timeout that does nothing asks for another at once");
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            self.poll();
        }
        self.now = end;
    }

    pub fn take_sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent)
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Acks among what was sent, and nothing else may have been.
    pub fn take_acks(&mut self) -> Vec<(i32, u32)> {
        let sent = self.take_sent();
        let acks = acks_in(&sent);
        let len: usize = frames(&sent).map(|f| if f.kind == 0x84 { f.len } else { 0 }).sum();
        assert_eq!(len, sent.len(), "only acks in {sent:02x?}");
        acks
    }

    pub fn closed(&self) -> Option<&CloseReason> {
        self.events.iter().find_map(|e| match e {
            Event::Close(reason) => Some(reason),
            _ => None,
        })
    }
}

/// The frames of a stream.
pub fn frames(mut bytes: &[u8]) -> impl Iterator<Item = frame::Frame<'_>> {
    std::iter::from_fn(move || match frame::cut(bytes, usize::MAX) {
        Ok(Cut::Frame(f)) => {
            bytes = &bytes[f.len..];
            Some(f)
        }
        _ => None,
    })
}

/// The acks of a stream.
pub fn acks_in(bytes: &[u8]) -> Vec<(i32, u32)> {
    frames(bytes)
        .filter_map(|f| match Message::of(&f) {
            Ok(Message::Ack { table, uid }) => Some((table, uid)),
            _ => None,
        })
        .collect()
}

/// `"0a 80 …"` as bytes.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// DEFINE t_str (gpt0, gpc0) as `id`.
pub fn define_str(id: i64) -> Vec<u8> {
    define(id, b"t_str", 6, 17, 6)
}

/// A DEFINE without parameters but the expiry.
pub fn define(id: i64, name: &[u8], key_type: u64, key_len: u32, data_types: u64) -> Vec<u8> {
    let mut out = Vec::new();
    frame::build(&mut out, 10, 0x82, |out| {
        use stickring::wire::varint::encode;
        encode(out, id as u64);
        encode(out, name.len() as u64);
        out.extend_from_slice(name);
        encode(out, key_type);
        encode(out, u64::from(key_len));
        encode(out, data_types);
        encode(out, 30_000);
    });
    out
}

/// An update of a string table with gpt0 and gpc0.
pub fn update(uid: u32, key: &str, gpc0: u8) -> Vec<u8> {
    let mut out = vec![10, 0x80, 7 + key.len() as u8];
    out.extend_from_slice(&uid.to_be_bytes());
    out.push(key.len() as u8);
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(&[0, gpc0]);
    out
}

/// The same without an id.
pub fn increment(key: &str, gpc0: u8) -> Vec<u8> {
    let mut out = vec![10, 0x81, 3 + key.len() as u8, key.len() as u8];
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(&[0, gpc0]);
    out
}

pub fn ack(table: i32, uid: u32) -> Vec<u8> {
    let mut out = Vec::new();
    message::encode_ack(&mut out, table, uid);
    out
}

pub fn switch(table: i32) -> Vec<u8> {
    let mut out = Vec::new();
    message::encode_switch(&mut out, table);
    out
}

/// Changes of table 3 (t_str) with these ids from `source`, up to log position `end`.
pub fn batch(epoch: u32, source: usize, uids: &[u32], end: u64) -> ChangeBatch {
    let bytes: Vec<u8> = uids.iter().flat_map(|&uid| update(uid, "k", 1)).collect();
    ChangeBatch {
        table: 3,
        source,
        epoch,
        define: define_str(4).into(),
        bytes: bytes.into(),
        updates: uids.len() as u32,
        first_uid: uids.first().copied().unwrap_or(0),
        last_uid: uids.last().copied().unwrap_or(0),
        end,
    }
}
