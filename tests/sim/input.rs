//! Strange and faulty messages (protocol.md 3, 4, 7.6).

use crate::solo::*;
use stickring::session::{CloseReason, Event, Fault, Refusal};
use stickring::wire::FrameError;

/// Feeds `bytes` behind a good update and expects the session to end with this error message.
fn dies(bytes: &[u8], code: u8) -> Solo {
    let mut s = Solo::new();
    s.feed(&[define_str(7), update(1, "a", 1)].concat());
    assert_eq!(s.take_acks(), [(7, 1)]);
    s.feed(bytes);
    assert_eq!(s.take_sent(), [1, code], "{bytes:02x?}");
    assert!(s.error.is_some());
    assert!(matches!(s.closed(), Some(CloseReason::BadInput(_))));
    assert!(matches!(s.events.last(), Some(Event::Close(_))));
    assert_eq!(s.got.len(), 1, "what came before stays");
    s
}

#[test]
fn faults_end_the_session_with_haproxys_error_message() {
    for bytes in [
        "ff 00",                            // reserved class
        "ff 80 00",                         //
        "0a 80 ff ff ff ff ff",             // endless length
        "0a 80 02 00 00",                   // id truncated
        "0a 80 05 00 00 00 05 10",          // key missing
        "0a 80 08 00 00 00 05 10 61 62 63", // key longer than the message
        "0a 80 07 00 00 00 05 01 71 f5",    // value truncated
        "0a 80 06 00 00 00 05 01 71",       // values missing
        "0a 85 06 00 00 00 05 00 00",       // expiry truncated
        "0a 82 05 03 28 61 62 63",          // definition truncated
        "0a 82 00",                         //
        "0a 82 08 03 00 06 11 06 f0 c4 0d", // no name
        "0a 84 03 04 00 00",                // ack truncated
        "0a 83 00",                         // switch truncated
    ] {
        dies(&hex(bytes), 0);
    }
    let s = dies(&hex("0a 80 f0 e8 97 0f"), 1);
    let fault = Fault::Frame(FrameError::TooLong { len: 65_536 * 8, limit: 16_384 });
    let error = s.error.unwrap();
    assert_eq!((error.message, error.offset), (3, 27));
    assert!(matches!((error.fault, fault), (Fault::Frame(a), Fault::Frame(b))
        if std::mem::discriminant(&a) == std::mem::discriminant(&b)));
    assert!(error.to_string().starts_with("message 3 at byte 27: message of "), "{error}");
}

#[test]
fn the_longest_message_is_bufsize() {
    for (len, dies) in [(16_384usize, false), (16_385, true)] {
        let mut s = Solo::new();
        let mut bytes = vec![10, 0x90];
        stickring::wire::varint::encode(&mut bytes, len as u64);
        bytes.resize(bytes.len() + len, 0);
        s.feed(&bytes);
        assert_eq!(s.error.is_some(), dies);
        assert_eq!(s.take_sent(), if dies { &[1, 1][..] } else { &[] });
    }
}

#[test]
fn what_is_unknown_is_skipped() {
    let mut s = Solo::new();
    // Captured: none of these brought an answer from HAProxy.
    for bytes in [
        "03 05",
        "03 c8 03 01 02 03",
        "0a 90 02 01 02",
        "0a 05",
        "01 00",
        "01 01",
        "00 09",
        "00 81 02 09 09",
        "02 ff 00",
    ] {
        s.feed(&hex(bytes));
    }
    assert_eq!(s.take_sent(), []);
    assert!(s.error.is_none());
    let c = s.session.counters();
    assert_eq!((c.errors_in, c.unknown_messages, c.messages_in), (2, 7, 9));
}

#[test]
fn bytes_behind_what_is_understood_are_ignored() {
    let mut s = Solo::new();
    let mut d = define_str(7);
    d.extend_from_slice(&[1, 2, 3]);
    d[2] += 3;
    let mut u = update(1, "a", 5);
    u.extend_from_slice(&[9, 9, 0xff]);
    u[2] += 3;
    s.feed(&[d, u, hex("0a 84 08 04 00 00 00 01 de ad ff")].concat());
    assert!(s.error.is_none());
    assert_eq!(s.got[0].ints, [0, 5]);
    assert_eq!(s.take_acks(), [(7, 1)]);
}

#[test]
fn an_unknown_bit_ends_what_is_decoded() {
    let mut s = Solo::new();
    s.feed(&hex("0a 82 13 4d 05 74 5f 73 74 72 06 11 f2 f1 fe fe fe fe 00 f0 c4 0d"));
    s.feed(&hex("0a 80 0e 00 00 0a 02 03 68 69 62 2b ff e1 03 de ad"));
    assert_eq!(s.take_acks(), [(77, 0xa02)]);
    assert_eq!((&s.got[0].key[..], &s.got[0].ints[..]), (&b"hib"[..], &[0x2b][..]));
}

#[test]
fn switch_selects_what_was_defined_and_nothing_else() {
    let mut s = Solo::new();
    s.feed(&[define_str(77), update(1, "a", 1), define(5, b"t_int", 2, 4, 4)].concat());
    s.feed(&[switch(77), update(2, "b", 1)].concat());
    s.feed(&[switch(0), update(3, "c", 1)].concat());
    s.feed(&[switch(77), switch(-77), update(4, "d", 1)].concat());
    assert_eq!(s.got.len(), 2);
    assert_eq!(s.session.counters().updates_ignored, 2);
    assert_eq!(s.session.status().current_in, None);
}

#[test]
fn redefinition_takes_effect_at_once() {
    let mut s = Solo::new();
    s.feed(&[define_str(77), update(1, "a", 9)].concat());
    s.feed(&[define(77, b"t_str", 6, 17, 4), hex("0a 80 07 00 00 00 02 01 61 08")].concat());
    assert_eq!(s.got[1].ints, [8]);
    assert_eq!(s.take_acks().last(), Some(&(77, 2)));
    assert_eq!(s.session.status().tables[3].remote_data, 4);
}

#[test]
fn a_repeated_definition_is_not_looked_up_again() {
    let mut s = Solo::new();
    s.feed(&[define_str(77), define(5, b"t_int", 2, 4, 4)].concat().repeat(100));
    assert_eq!(s.tables.asked, 2);
}

#[test]
fn faulty_parameters_are_refused_and_the_session_lives() {
    let mut s = Solo::new();
    // gpc0_rate's parameters under another type's number, then none at all for an array.
    let wrong = hex("0a 82 11 09 04 74 5f 69 70 04 04 08 f0 ed a3 01 05 f0 e2 03");
    let array = hex("0a 82 0d 07 05 74 5f 61 72 72 06 09 f0 f1 fe 0e");
    for bytes in [&wrong, &array] {
        s.feed(&[&bytes[..], &update(1, "a", 1)].concat());
    }
    assert!(s.error.is_none() && s.got.is_empty());
    assert_eq!(s.session.counters().refused_tail, 2);
    // Rates do without parameters.
    s.feed(&hex(
        "0a 82 09 09 04 74 5f 69 70 04 04 0c 0a 80 0c 00 00 00 03 0a 00 00 09 05 01 01 01",
    ));
    assert_eq!(s.take_acks(), [(9, 3)]);
}

#[test]
fn an_unknown_key_type_selects_nothing() {
    let mut s = Solo::new();
    s.feed(&[define_str(7), define(7, b"t_str", 9, 17, 6), update(1, "a", 1)].concat());
    assert!(s.got.is_empty() && s.error.is_none());
    s.feed(&[switch(7), update(2, "a", 1)].concat());
    assert!(s.got.is_empty(), "id 7 means something we cannot follow now");
}

#[test]
fn refusals_are_reported_once_a_name_and_not_without_end() {
    let mut s = Solo::new();
    s.feed(&define(1, b"nosuch", 6, 17, 6).repeat(9));
    let refused = Event::Refused { name: b"nosuch".to_vec(), refusal: Refusal::Unknown };
    assert_eq!(s.take_events(), [refused]);
    for n in 0..1_000 {
        let name = format!("{n}{}", "x".repeat(200));
        s.feed(&define(n, name.as_bytes(), 6, 17, 6));
    }
    let events = s.take_events();
    assert_eq!(events.len(), stickring::limits::REFUSALS_REPORTED_MAX - 1);
    assert!(events.iter().all(|e| matches!(e, Event::Refused { name, .. } if name.len() == 64)));
    assert_eq!(s.session.counters().refused_unknown, 1_009);
}

#[test]
fn a_million_ids_for_one_table_cost_one_entry() {
    let mut s = Solo::new();
    for id in 1..100_000 {
        s.receive(&define_str(id));
    }
    s.feed(&[switch(1), update(1, "a", 1), switch(99_999), update(2, "a", 1)].concat());
    assert_eq!(s.take_acks(), [(99_999, 2)], "only the last id means the table");
    assert_eq!(s.session.status().tables.len(), 4);
}

#[test]
fn tables_of_a_session_are_bounded() {
    use stickring::limits::SESSION_TABLES_MAX;
    let mut s = Solo::new();
    s.tables = crate::model::ModelTables::numbered(SESSION_TABLES_MAX + 10);
    for n in 0..SESSION_TABLES_MAX as i64 + 10 {
        s.receive(&define(n, format!("t{n}").as_bytes(), 6, 17, 6));
    }
    assert_eq!(s.session.counters().refused_many, 10);
    assert_eq!(s.session.status().tables.len(), SESSION_TABLES_MAX);
}

#[test]
fn dictionary_ids_and_lengths() {
    let web = hex("0a 82 0e 0c 03 77 65 62 06 15 f1 f1 fe 00 f0 bd 39");
    let mut s = Solo::new();
    s.feed(&web);
    s.feed(&hex("0a 80 12 00 00 00 01 02 78 31 02 09 01 07 73 72 76 2d 74 77 6f"));
    s.feed(&hex("0a 81 06 02 78 32 02 01 01")); // known id
    s.feed(&hex("0a 81 06 02 78 33 02 01 07")); // unknown id: no value
    s.feed(&hex("0a 81 05 02 78 34 02 00")); // none
    s.feed(&hex("0a 81 09 02 78 35 02 04 80 02 73 31")); // id 128
    let names: Vec<_> = s.got.iter().map(|g| g.server_key.as_deref()).collect();
    let two = Some(&b"srv-two"[..]);
    assert_eq!(names, [two, two, None, None, Some(&b"s1"[..])]);
    assert_eq!(s.session.dictionary().flatten().count(), 2);
    for bad in [
        "0a 81 06 02 79 31 02 01 00",          // id 0
        "0a 81 06 02 79 31 02 01 81",          // id 129, alone
        "0a 81 09 02 79 31 02 04 81 02 73 31", // id 129, with text
        "0a 81 09 02 79 31 02 04 01 03 73 31", // text crosses its length
        "0a 81 06 02 79 31 02 09 01",          // length crosses the message
        "0a 81 09 02 79 31 02 04 01 01 73 31", // text shorter than its length
    ] {
        let mut s = Solo::new();
        s.feed(&[&web[..], &hex("0a 80 05 00 00 00 01 00")].concat()[..web.len()]);
        s.feed(&hex(bad));
        assert_eq!(s.take_sent(), [1, 0], "{bad}");
    }
}

#[test]
fn nothing_is_taken_behind_a_fault() {
    let mut s = dies(&hex("ff 00 00 04"), 0);
    s.feed(&[define_str(7), update(9, "z", 1)].concat());
    s.pass(60_000);
    s.changes(batch(1, 0, &[1], 1));
    assert_eq!(s.take_sent(), []);
    assert_eq!(s.got.len(), 1);
    assert!(s.session.is_closed());
}

#[test]
fn a_session_with_too_many_open_rounds_is_not_read() {
    use stickring::limits::SESSION_ROUNDS_MAX;
    let mut s = Solo::new();
    s.feed(&define_str(7));
    let mut rounds = Vec::new();
    while s.session.wants_read() {
        rounds.extend(s.feed_unapplied(&update(rounds.len() as u32 + 1, "a", 1)));
    }
    assert_eq!(rounds.len(), SESSION_ROUNDS_MAX);
    s.applied(rounds[0]);
    assert!(s.session.wants_read());
}
