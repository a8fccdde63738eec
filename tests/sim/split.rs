//! However the stream is cut, a session says and does the same.

use crate::model::Got;
use crate::solo::*;
use proptest::prelude::*;
use stickring::session::Event;

/// A stream that uses everything a peer may say.
fn stream() -> Vec<u8> {
    let mut long = vec![10, 0x91];
    stickring::wire::varint::encode(&mut long, 3_000);
    long.resize(long.len() + 3_000, 7);
    [
        HEARTBEAT.to_vec(),
        define_str(77),
        update(1, "a", 1),
        increment("b", 2),
        define(5, b"t_int", 2, 4, 4),
        hex("0a 85 0d 00 00 00 05 00 00 10 00 00 00 00 01 01"),
        define(6, b"nosuch", 2, 4, 4),
        update(3, "c", 1),
        REQUEST.to_vec(),
        switch(77),
        update(900, "d", 1),
        long,
        hex("0a 82 0e 0c 03 77 65 62 06 15 f1 f1 fe 00 f0 bd 39"),
        hex("0a 80 12 00 00 00 01 02 78 31 02 09 01 07 73 72 76 2d 74 77 6f"),
        hex("0a 81 06 02 78 32 02 01 01"),
        FINISHED.to_vec(),
        update(901, "zz", 1),
        switch(77),
        update(902, "e", 1),
        ack(4, 77),
        CONFIRM.to_vec(),
        HEARTBEAT.to_vec(),
    ]
    .concat()
}

/// Everything there is to see when the stream comes in these pieces and all is applied at the end.
fn run(pieces: &[&[u8]], tail: &[u8]) -> (Vec<Got>, Vec<u8>, Vec<Event>, String) {
    let mut s = Solo::new();
    s.learn();
    let mut rounds = Vec::new();
    for piece in pieces {
        rounds.extend(s.feed_unapplied(piece));
    }
    rounds.extend(s.feed_unapplied(tail));
    rounds.iter().rev().for_each(|&r| s.applied(r));
    // Heartbeats, and requests, that come together are told once.
    let mut taught = false;
    s.events.retain(|e| match e {
        Event::Heard => false,
        Event::TeachStart { .. } => !std::mem::replace(&mut taught, true),
        _ => true,
    });
    let error = format!("{:?}", s.error);
    (s.got, s.sent, s.events, error)
}

#[test]
fn cut_once_at_every_byte() {
    for fault in [&[][..], &[255, 0], &[10, 0x80, 1, 1, 9, 9]] {
        let stream = [&stream()[..], fault].concat();
        let whole = run(&[], &stream);
        assert_eq!(whole.0.len(), 6);
        for at in 0..=stream.len() {
            assert_eq!(run(&[&stream[..at]], &stream[at..]), whole, "cut at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(run(&bytes, &[]), whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..Default::default()
    })]
    #[test]
    fn cut_anywhere(
        mut cuts in proptest::collection::vec(0usize..3_400, 0..40),
        noise in proptest::collection::vec((0usize..3_400, any::<u8>()), 0..3),
    ) {
        let mut stream = stream();
        for (at, byte) in noise {
            let at = at % stream.len();
            stream[at] = byte;
        }
        let whole = run(&[], &stream);
        cuts.retain(|&c| c < stream.len());
        cuts.sort();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&stream[from..cut]);
            from = cut;
        }
        prop_assert_eq!(run(&pieces, &stream[from..]), whole);
    }
}
