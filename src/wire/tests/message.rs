use super::hex;
use crate::wire::message::{encode_ack, encode_switch};
use crate::wire::{Control, Cut, DecodeError, ErrorCode, Message, UpdateForm, What, frame};

fn of(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    match frame::cut(bytes, 16_384) {
        Ok(Cut::Frame(f)) if f.len == bytes.len() => Message::of(&f),
        other => panic!("{other:?}"),
    }
}

#[test]
fn control_and_error() {
    use Control::*;
    for (i, c) in
        [ResyncRequest, ResyncFinished, ResyncPartial, ResyncConfirm, Heartbeat].iter().enumerate()
    {
        assert_eq!(c.bytes(), [0, i as u8]);
        assert_eq!(of(&c.bytes()), Ok(Message::Control(*c)));
    }
    assert_eq!(ErrorCode::Protocol.bytes(), [1, 0]);
    assert_eq!(ErrorCode::SizeLimit.bytes(), [1, 1]);
    assert_eq!(of(&[1, 0]), Ok(Message::Error(0)));
    assert_eq!(of(&[1, 9]), Ok(Message::Error(9)));
}

#[test]
fn what_nobody_knows_is_skipped() {
    for text in [
        "00 09",
        "00 81 02 09 09",
        "03 05",
        "03 c8 03 01 02 03",
        "0a 05",
        "0a 90 02 01 02",
        "0b 80 00",
    ] {
        assert_eq!(of(&hex(text)), Ok(Message::Unknown), "{text}");
    }
}

#[test]
fn update_forms() {
    for kind in [0x80, 0x81, 0x85, 0x86u8] {
        let bytes = [10, kind, 1, 42];
        let Ok(Message::Update(form, payload)) = of(&bytes) else { panic!("{kind:x}") };
        assert_eq!(form.kind(), kind);
        assert_eq!(payload, [42]);
        let want = UpdateForm {
            explicit_id: matches!(kind, 0x80 | 0x85),
            timed: matches!(kind, 0x85 | 0x86),
        };
        assert_eq!(form, want);
    }
    assert_eq!(of(&hex("0a 82 02 01 02")), Ok(Message::Define(&[1, 2])));
}

#[test]
fn switch_and_ack() {
    assert_eq!(of(&hex("0a 83 01 4d")), Ok(Message::Switch(77)));
    assert_eq!(of(&hex("0a 84 05 4d 00 00 02 00")), Ok(Message::Ack { table: 77, uid: 0x200 }));
    for (table, uid) in [(0, 0), (1, 1), (239, 2), (240, 0x8000_0003), (i32::MAX, u32::MAX)] {
        for bytes in [0, 1] {
            let mut out = vec![0; bytes];
            encode_ack(&mut out, table, uid);
            assert_eq!(of(&out[bytes..]), Ok(Message::Ack { table, uid }));
        }
        let mut out = Vec::new();
        encode_switch(&mut out, table);
        assert_eq!(of(&out), Ok(Message::Switch(table)));
    }
}

/// Observed: a table defined as 0x80000005 is acked with the id sign-extended to 64 bits.
#[test]
fn ids_from_2_to_the_31_are_sign_extended() {
    let bytes = hex("0a 84 0e f5 f1 fe fe be fe fe fe fe 0e 00 00 00 08");
    let table = 0x8000_0005u32 as i32;
    assert_eq!(of(&bytes), Ok(Message::Ack { table, uid: 8 }));
    let mut out = Vec::new();
    encode_ack(&mut out, table, 8);
    assert_eq!(out, bytes);
    let zero_extended = hex("0a 83 05 f5 f1 fe fe 3e");
    assert_eq!(of(&zero_extended), Ok(Message::Switch(table)));
}

#[test]
fn short_switch_and_ack_are_errors() {
    let truncated = |what, offset| Err(DecodeError::Truncated { what, offset });
    assert_eq!(of(&hex("0a 83 00")), truncated(What::TableId, 0));
    assert_eq!(of(&hex("0a 83 02 f0 80")), truncated(What::TableId, 2));
    assert_eq!(of(&hex("0a 84 00")), truncated(What::TableId, 0));
    assert_eq!(of(&hex("0a 84 03 04 00 00")), truncated(What::UpdateId, 1));
    assert_eq!(of(&hex("0a 84 06 04 00 00 00 09 ff")), Ok(Message::Ack { table: 4, uid: 9 }));
}
