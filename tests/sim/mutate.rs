//! A million faulty messages: no panic, no growth, and every fault ends its session properly.

use crate::model::{Collect, ModelLayout, ModelTables};
use crate::solo::*;
use stickring::Millis;
use stickring::limits::{SESSION_OUTPUT_MAX, SESSION_TABLES_MAX};
use stickring::session::random::Random;
use stickring::session::{CloseReason, Event, Ledger, Output, Session};

/// Messages to start from: everything a peer may say.
fn seeds() -> Vec<Vec<u8>> {
    vec![
        define(5, b"t_int", 2, 4, 4),
        hex("0a 82 0e 0c 03 77 65 62 06 15 f1 f1 fe 00 f0 bd 39"),
        hex("0a821a0705745f6172720609f0f1fe6ef0d9dc0c160317021802f0e203"),
        define_str(77),
        update(1, "a", 1),
        update(u32::MAX, "bb", 2),
        increment("c", 3),
        hex("0a 85 0d 00 00 00 05 00 00 10 00 01 02 03 04 01 05"),
        hex("0a 80 12 00 00 00 01 02 78 31 02 09 01 07 73 72 76 2d 74 77 6f"),
        hex("0a 81 06 02 78 32 02 01 01"),
        hex("0a 80 18 00 00 00 01 02 61 62 00 0b 00 03 00 f0 a6 f9 fe 7e 00 00 f6 cc 00 06 00"),
        switch(77),
        switch(12),
        ack(4, 3),
        REQUEST.to_vec(),
        FINISHED.to_vec(),
        PARTIAL.to_vec(),
        CONFIRM.to_vec(),
        HEARTBEAT.to_vec(),
        hex("01 00"),
        hex("03 c8 03 01 02 03"),
    ]
}

/// Leaves a message alone, or changes it in one or two places; mostly its length is put right, so
/// that what is in it is looked at.
fn mutate(message: &mut Vec<u8>, random: &mut Random) {
    let changes = [0, 0, 1, 2][random.below(4) as usize];
    for _ in 0..changes {
        let at = random.below(message.len() as u64) as usize;
        let byte = random.next_u64() as u8;
        match random.below(8) {
            0 => message[at] = byte,
            1 => message[at] ^= 1 << (byte & 7),
            2 => message.insert(at, byte),
            3 if message.len() > 2 => drop(message.remove(at)),
            4 if at > 1 => message.truncate(at),
            5 => message[at] = [0, 0x7f, 0x80, 0xef, 0xf0, 0xff][usize::from(byte) % 6],
            6 => message.extend_from_slice(&[0xff; 3]),
            _ => message[at] = message[at].wrapping_add(1),
        }
    }
    if message.len() > 3 && message.len() < 240 && message[1] >= 0x80 && random.below(8) > 0 {
        message[2] = message.len() as u8 - 3;
    }
}

/// What a run did, for comparing two of them and for seeing that it did something.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    messages: u64,
    updates: u64,
    sessions: u64,
    faults: u64,
    sent: u64,
    lessons: u64,
}

struct Victim {
    session: Session<ModelLayout>,
    rest: Vec<u8>,
    closed: Option<CloseReason>,
    last_sent: Vec<u8>,
    lesson: Option<u32>,
    epoch: Option<u32>,
}

impl Victim {
    /// A new session that has got the first messages, unharmed.
    fn new(now: Millis, tables: &mut ModelTables, tally: &mut Tally) -> Victim {
        let mut victim = Victim {
            session: Session::new(REMOTE, Ledger::default(), now),
            rest: Vec::new(),
            closed: None,
            last_sent: Vec::new(),
            lesson: None,
            epoch: None,
        };
        tally.sessions += 1;
        victim.take(&seeds()[..5].concat(), now, tables, tally);
        victim
    }

    fn poll(&mut self, tally: &mut Tally) {
        let mut outputs = 0;
        while let Some(output) = self.session.poll_output() {
            assert!(self.closed.is_none(), "nothing behind the close: {output:?}");
            outputs += 1;
            match output {
                Output::Send(bytes) => {
                    assert!(!bytes.is_empty() && bytes.len() <= SESSION_OUTPUT_MAX);
                    tally.sent += bytes.len() as u64;
                    self.last_sent = bytes.to_vec();
                }
                Output::Event(Event::Close(reason)) => self.closed = Some(reason),
                Output::Event(Event::TeachStart { lesson, .. }) => {
                    tally.lessons += 1;
                    self.lesson = Some(lesson);
                }
                Output::Event(Event::PushStart { epoch }) => self.epoch = Some(epoch),
                Output::Event(Event::PushStop) => self.epoch = None,
                Output::Event(_) => {}
            }
        }
        assert!(outputs <= 100, "{outputs} outputs of a few messages");
    }

    /// Takes bytes; true when that ended the session.
    fn take(&mut self, bytes: &[u8], now: Millis, t: &mut ModelTables, tally: &mut Tally) -> bool {
        self.rest.extend_from_slice(bytes);
        let mut got = Vec::new();
        let mut sink = Collect { bytes: &self.rest, got: &mut got };
        let result = self.session.handle_bytes(&self.rest, now, t, &mut sink);
        tally.updates += got.len() as u64;
        let round = self.session.close_round();
        self.poll(tally);
        if let Some(round) = round {
            self.session.handle_applied(round, now);
            self.poll(tally);
        }
        match result {
            Ok(n) => {
                assert!(n <= self.rest.len());
                self.rest.drain(..n);
                assert!(self.rest.len() <= 16_384 + 7, "an incomplete message is bounded");
                assert_eq!(self.closed, None);
                false
            }
            Err(e) => {
                tally.faults += 1;
                assert_eq!(self.closed, Some(CloseReason::BadInput(e)));
                assert_eq!(self.last_sent, e.code().bytes());
                assert!(!e.to_string().is_empty());
                assert!(self.session.is_closed() && self.session.poll_timeout().is_none());
                true
            }
        }
    }

    /// What the shards would do now.
    fn work(&mut self, random: &mut Random, now: Millis, tally: &mut Tally) {
        if let Some(lesson) = self.lesson.take() {
            self.session.handle_lesson_chunk(lesson, define_str(4).into(), 1, now);
            self.session.handle_lesson_done(lesson, true, vec![(3, 0, 9)], now);
        } else if let Some(epoch) = self.epoch {
            self.session.handle_changes(batch(epoch, 0, &[1, 2, 3], 9), now);
        }
        if random.below(4) == 0 {
            self.session.handle_learn(now);
        }
        self.poll(tally);
        let status = self.session.status();
        assert!(status.tables.len() <= SESSION_TABLES_MAX && status.rounds == 0);
    }
}

fn run(seed: u64, messages: u64) -> Tally {
    let seeds = seeds();
    let mut random = Random::new(seed);
    let mut tables = ModelTables::captured();
    let mut tally = Tally::default();
    let mut now = Millis(0);
    let mut victim = Victim::new(now, &mut tables, &mut tally);
    let mut bytes = Vec::new();
    while tally.messages < messages {
        bytes.clear();
        for _ in 0..1 + random.below(8) {
            let mut message = seeds[random.below(seeds.len() as u64) as usize].clone();
            mutate(&mut message, &mut random);
            bytes.extend_from_slice(&message);
            tally.messages += 1;
        }
        now = now.plus(random.below(100));
        // A mutated length may wait for bytes for long: such a session is left as silence would.
        let stuck = random.below(64) == 0 && victim.rest.len() > 64;
        if victim.take(&bytes, now, &mut tables, &mut tally) || stuck {
            victim = Victim::new(now, &mut tables, &mut tally);
        } else if random.below(16) == 0 {
            victim.work(&mut random, now, &mut tally);
        }
    }
    tally
}

#[test]
fn a_million_mutated_messages() {
    let tally = run(1, 1_000_000);
    assert_eq!(tally.messages / 1_000, 1_000);
    assert!(tally.faults > 10_000 && tally.sessions > 10_000, "{tally:?}");
    assert!(tally.updates > 50_000 && tally.lessons > 1_000, "{tally:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(7, 20_000), run(7, 20_000));
    assert_ne!(run(7, 20_000), run(8, 20_000));
}

#[test]
fn any_payload_at_all() {
    let mut random = Random::new(3);
    let mut tables = ModelTables::captured();
    let mut tally = Tally::default();
    for n in 0..30_000u64 {
        let mut victim = Victim::new(Millis(n), &mut tables, &mut tally);
        let kind = 0x80 + random.below(8) as u8;
        let mut bytes = vec![10, kind, random.below(60) as u8];
        bytes.extend((0..bytes[2]).map(|_| random.next_u64() as u8 >> random.below(8)));
        let died = victim.take(&bytes, Millis(n), &mut tables, &mut tally);
        if !died && victim.rest.is_empty() {
            victim.take(&[255, 0], Millis(n), &mut tables, &mut tally);
        }
    }
    assert!(tally.faults > 29_000, "{tally:?}");
    assert!(tally.updates > 33_000, "{tally:?}");
}
