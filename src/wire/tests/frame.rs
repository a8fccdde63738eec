use super::{Rng, hex};
use crate::limits::BUFSIZE_DEFAULT as LIMIT;
use crate::wire::frame::{HEADER_MAX, build, class, cut};
use crate::wire::{Cut, Frame, FrameError, varint};

fn whole(bytes: &[u8]) -> Frame<'_> {
    match cut(bytes, LIMIT) {
        Ok(Cut::Frame(frame)) => frame,
        other => panic!("{other:?} from {} bytes", bytes.len()),
    }
}

/// A message with a payload of `len` bytes.
fn message(kind: u8, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let written = build(&mut out, class::TABLE, kind, |out| {
        out.extend((0..len).map(|i| i as u8));
    });
    assert_eq!(written, len);
    out
}

#[test]
fn built_lengths_use_the_shortest_header() {
    for len in [0, 1, 238, 239, 240, 241, 2287, 2288, 2289, 15_000, LIMIT] {
        let bytes = message(0x80, len);
        assert_eq!(bytes.len(), 2 + varint::len(len as u64) + len);
        let frame = whole(&bytes);
        assert_eq!((frame.class, frame.kind, frame.len), (10, 0x80, bytes.len()));
        assert_eq!(frame.payload.len(), len);
        assert!(frame.payload.iter().enumerate().all(|(i, &b)| b == i as u8));
    }
    assert_eq!(message(0x80, 239)[2..4], [239, 0]);
    assert_eq!(message(0x80, 240)[2..5], [0xf0, 0x00, 0]);
    assert_eq!(message(0x80, 2287)[2..5], [0xff, 0x7f, 0]);
    assert_eq!(message(0x80, 2288)[2..6], [0xf0, 0x80, 0x00, 0]);
}

#[test]
fn build_appends_behind_what_is_there() {
    let mut out = hex("00 04");
    for len in [3, 240, 0, 2288] {
        build(&mut out, class::TABLE, 0x90, |out| out.extend(vec![7; len]));
    }
    assert_eq!(out[..6], hex("00 04 0a 90 03 07"));
    let mut at = 0;
    let mut lens = Vec::new();
    while at < out.len() {
        let frame = whole(&out[at..]);
        assert!(frame.payload.iter().all(|&b| b == 7));
        lens.push(frame.payload.len());
        at += frame.len;
    }
    assert_eq!(lens, [0, 3, 240, 0, 2288]);
}

#[test]
fn a_prefix_never_gives_a_frame_nor_asks_for_too_much() {
    for len in [0, 1, 5, 239, 240, 300, 2287, 2288, 3000] {
        let bytes = message(0x85, len);
        for n in 0..bytes.len() {
            match cut(&bytes[..n], LIMIT) {
                Ok(Cut::NeedMore(need)) => {
                    assert!(need > n, "asked for {need} having {n}");
                    assert!(need <= bytes.len(), "asked for {need} of {}", bytes.len());
                }
                other => panic!("{other:?} from {n} of {}", bytes.len()),
            }
        }
        assert_eq!(whole(&bytes).len, bytes.len());
    }
}

#[test]
fn bytes_behind_a_frame_are_left_alone() {
    let mut bytes = message(0x80, 300);
    let len = bytes.len();
    bytes.extend_from_slice(&[0xff; 40]);
    assert_eq!(whole(&bytes).len, len);
    assert_eq!(whole(&hex("00 04 ff ff")).len, 2);
}

/// A stream cut into pieces of every size gives the messages it was built from.
#[test]
fn random_splits_of_a_stream() {
    let mut rng = Rng(3);
    for round in 0..200 {
        let mut stream = Vec::new();
        let mut want = Vec::new();
        for _ in 0..20 {
            let kind = rng.next() as u8;
            let class = rng.next() as u8 % 255;
            if kind < 0x80 {
                stream.extend_from_slice(&[class, kind]);
                want.push((class, kind, Vec::new()));
            } else {
                let n = rng.below(if round % 10 == 0 { 4000 } else { 260 });
                let payload = rng.bytes(n);
                build(&mut stream, class, kind, |out| out.extend_from_slice(&payload));
                want.push((class, kind, payload));
            }
        }
        let (mut have, mut got, mut at) = (Vec::new(), Vec::new(), 0);
        while at < stream.len() {
            let n = 1 + rng.below(if round % 2 == 0 { 7 } else { 900 });
            let end = stream.len().min(at + n);
            have.extend_from_slice(&stream[at..end]);
            at = end;
            while let Cut::Frame(f) = cut(&have, LIMIT).expect("a good stream") {
                got.push((f.class, f.kind, f.payload.to_vec()));
                let len = f.len;
                have.drain(..len);
            }
        }
        assert!(have.is_empty());
        assert_eq!(got, want);
    }
}

#[test]
fn types_below_0x80_are_two_bytes_in_any_class() {
    for class in (0..255u8).filter(|&c| c != class::RESERVED) {
        for kind in [0, 1, 5, 0x7f] {
            let bytes = [class, kind, 0xff, 0xff];
            let want = Frame { class, kind, payload: &[], len: 2 };
            assert_eq!(cut(&bytes, LIMIT), Ok(Cut::Frame(want)));
        }
    }
}

#[test]
fn types_from_0x80_have_a_length_in_any_class() {
    for class in 0..255u8 {
        for kind in [0x80, 0x90, 0xc8, 0xff] {
            let bytes = [class, kind, 2, 8, 9, 1];
            let want = Frame { class, kind, payload: &[8, 9], len: 5 };
            assert_eq!(cut(&bytes, LIMIT), Ok(Cut::Frame(want)));
        }
    }
}

#[test]
fn class_255_is_refused() {
    for kind in [0, 5, 0x80, 0xff] {
        assert_eq!(cut(&[255, kind], LIMIT), Err(FrameError::ReservedClass));
    }
    assert_eq!(cut(&[255], LIMIT), Ok(Cut::NeedMore(2)), "the header is two bytes");
}

#[test]
fn a_length_that_does_not_end_is_refused_after_five_bytes() {
    let bytes = hex("0a 80 f0 80 80 80 80 00");
    for n in 3..7 {
        assert_eq!(cut(&bytes[..n], LIMIT), Ok(Cut::NeedMore(n + 1)), "{n} bytes");
    }
    assert_eq!(cut(&bytes[..7], LIMIT), Err(FrameError::EndlessLength));
    assert_eq!(cut(&bytes, LIMIT), Err(FrameError::EndlessLength), "six bytes of length");
    assert_eq!(cut(&hex("0a 80 ff ff ff ff ff"), LIMIT), Err(FrameError::EndlessLength));
}

#[test]
fn a_length_above_the_limit_is_refused_at_once() {
    let too_long = |len| Err(FrameError::TooLong { len, limit: LIMIT });
    for len in [LIMIT as u64 + 1, 70_000, 4_328_786_159] {
        let mut bytes = vec![10, 0x80];
        varint::encode(&mut bytes, len);
        assert_eq!(cut(&bytes, LIMIT), too_long(len), "before the payload came");
    }
    let mut bytes = vec![10, 0x80];
    varint::encode(&mut bytes, LIMIT as u64);
    let need = bytes.len() + LIMIT;
    assert_eq!(cut(&bytes, LIMIT), Ok(Cut::NeedMore(need)));
    assert!(need <= LIMIT + HEADER_MAX);
    assert_eq!(cut(&[10, 0x80, 5], 4), Err(FrameError::TooLong { len: 5, limit: 4 }));
}
