//! Acks both ways, and the cursors that outlive a session (protocol.md 5.3, 5.4, 5.6).

use crate::solo::*;
use stickring::session::{Event, Ledger};

#[test]
fn acks_are_cumulative_one_a_table_and_not_repeated() {
    let mut s = Solo::new();
    let mut bytes = define_str(77);
    (0x200..0x200 + 1000).for_each(|uid| bytes.extend(update(uid, "c", 2)));
    s.feed(&bytes);
    assert_eq!(s.got.len(), 1000);
    assert_eq!(s.take_acks(), [(77, 0x200 + 999)]);
    s.feed(&update(0x200 + 999, "c", 2));
    assert_eq!(s.take_acks(), []);
    assert_eq!(s.got.len(), 1001, "a repeated id is applied all the same");
    s.feed(&update(5, "c", 2));
    assert_eq!(s.take_acks(), [(77, 5)], "ids may go backwards: the peer has restarted");
}

#[test]
fn acks_wait_until_everything_before_is_applied() {
    let mut s = Solo::new();
    let one = s.feed_unapplied(&[define_str(7), update(1, "a", 1)].concat()).unwrap();
    let two = s.feed_unapplied(&update(2, "b", 1)).unwrap();
    let three = s.feed_unapplied(&update(3, "c", 1)).unwrap();
    s.applied(three);
    s.applied(two);
    assert_eq!(s.take_acks(), []);
    s.applied(one);
    assert_eq!(s.take_acks(), [(7, 3)]);
    s.applied(one);
    s.applied(three);
    s.applied(u64::MAX);
    assert_eq!(s.take_acks(), [], "rounds that are not open change nothing");
    let four = s.feed_unapplied(&update(4, "d", 1)).unwrap();
    let five = s.feed_unapplied(&update(5, "e", 1)).unwrap();
    s.applied(four);
    assert_eq!(s.take_acks(), [(7, 4)]);
    s.applied(five);
    assert_eq!(s.take_acks(), [(7, 5)]);
}

#[test]
fn one_ack_for_each_table_under_the_peers_id() {
    let mut s = Solo::new();
    let int = define(900, b"t_int", 2, 4, 4);
    let bytes = [
        define_str(7),
        update(1, "a", 1),
        int,
        hex("0a 80 09 00 00 00 05 00 00 00 01 01"),
        switch(7),
        increment("b", 1),
        switch(900),
        hex("0a 81 05 00 00 00 02 01"),
    ]
    .concat();
    s.feed(&bytes);
    let mut acks = s.take_acks();
    acks.sort();
    assert_eq!(acks, [(7, 2), (900, 6)], "implicit ids continue their own table's");
}

#[test]
fn first_id_of_zero_is_never_acked_but_a_wrapped_one_is() {
    let mut s = Solo::new();
    s.feed(&[define_str(77), update(0, "a", 1)].concat());
    assert_eq!(s.take_acks(), []);
    assert_eq!(s.got.len(), 1);
    s.feed(&update(u32::MAX, "b", 1));
    assert_eq!(s.take_acks(), [(77, u32::MAX)]);
    s.feed(&increment("c", 1));
    assert_eq!(s.take_acks(), [(77, 0)]);
    assert_eq!(s.got[2].uid, 0);
    s.feed(&increment("c", 1));
    assert_eq!(s.take_acks(), [(77, 1)]);
}

#[test]
fn nothing_is_acked_while_learning() {
    let mut s = Solo::new();
    s.learn();
    assert_eq!(s.take_sent(), REQUEST);
    assert_eq!(s.take_events(), [Event::PushStop]);
    s.feed(&[define_str(7), update(0x8000_0003, "a", 1), increment("b", 1)].concat());
    assert_eq!(s.take_sent(), []);
    assert_eq!(s.got[1].uid, 0x8000_0004);
    s.feed(&[FINISHED, &update(9, "c", 1)].concat());
    let sent = s.take_sent();
    assert_eq!(acks_in(&sent), [(7, 9)], "behind the lesson's end acks count again");
    assert!(sent.ends_with(CONFIRM));
}

#[test]
fn ignored_updates_are_not_acked() {
    let mut s = Solo::new();
    s.feed(&update(1, "a", 1));
    s.feed(&[define(5, b"nosuch", 6, 17, 6), update(2, "a", 1)].concat());
    s.feed(&[define(5, b"t_str", 6, 20, 6), update(3, "a", 1)].concat());
    s.feed(&[define(5, b"t_str", 4, 4, 6), update(4, "a", 1)].concat());
    s.feed(&[switch(99), update(4, "a", 1)].concat());
    assert_eq!(s.take_sent(), []);
    assert!(s.got.is_empty());
    let c = s.session.counters();
    assert_eq!((c.updates_ignored, c.refused_unknown, c.refused_mismatch), (5, 1, 2));
    s.feed(&[define_str(5), update(6, "a", 1)].concat());
    assert_eq!(s.take_acks(), [(5, 6)]);
}

#[test]
fn an_id_given_to_another_table_is_not_acked_for_the_first() {
    let mut s = Solo::new();
    let round = s.feed_unapplied(&[define_str(5), update(8, "a", 1)].concat()).unwrap();
    let again = s.feed_unapplied(&define(5, b"t_int", 2, 4, 4));
    assert_eq!(again, None, "a definition alone leaves nothing to be applied");
    s.applied(round);
    assert_eq!(s.take_acks(), [], "id 5 means t_int now");
    s.feed(&[switch(5), hex("0a 80 09 00 00 00 03 00 00 00 01 01")].concat());
    assert_eq!(s.take_acks(), [(5, 3)]);
    // The first table under a new id goes on with its own ids.
    s.feed(&[define_str(6), increment("b", 1)].concat());
    assert_eq!(s.take_acks(), [(6, 9)]);
}

#[test]
fn ids_zero_and_beyond_2_31() {
    let mut s = Solo::new();
    s.feed(&[define_str(0), update(1, "a", 1)].concat());
    assert_eq!(s.take_acks(), [(0, 1)]);
    s.feed(&[define_str(0x8000_0005), update(2, "a", 1)].concat());
    assert_eq!(s.take_sent(), hex("0a 84 0e f5 f1 fe fe be fe fe fe fe 0e 00 00 00 02"));
    s.feed(&[switch(0), update(3, "a", 1)].concat());
    assert_eq!(s.take_acks(), [], "the table has another id now");
}

#[test]
fn our_changes_are_confirmed_by_acks_of_ids_we_sent() {
    let mut s = Solo::new();
    s.changes(batch(1, 0, &[1, 2, 5], 10));
    s.changes(batch(1, 1, &[3, 4, 6], 20));
    let defines = frames(&s.take_sent()).filter(|f| f.kind == 0x82).count();
    assert_eq!(defines, 1, "the table is defined once");
    for garbage in [0, 7, 0x0500_0000, u32::MAX] {
        s.feed(&ack(4, garbage));
    }
    for table in [0, 3, 5, -1, i32::MIN, i32::MAX] {
        s.feed(&ack(table, 5));
    }
    assert_eq!(s.session.counters().acks_garbage, 10);
    assert_eq!(s.session.ledger().confirmed(3, 0), 0);
    s.feed(&ack(4, 2));
    assert_eq!(s.session.ledger().confirmed(3, 0), 0, "inside a batch: it waits for its end");
    s.feed(&ack(4, 4));
    assert_eq!(s.session.ledger().confirmed(3, 0), 10, "all before the second batch");
    let shown = &s.session.status().tables[3];
    assert_eq!(shown.confirmed.first(), Some(&10), "what show peers computes the lag from");
    assert_eq!(s.session.ledger().confirmed(3, 1), 0);
    s.feed(&ack(4, 6));
    assert_eq!(s.session.ledger().confirmed(3, 1), 20);
    s.feed(&ack(4, 6));
    let c = s.session.counters();
    assert_eq!((c.acks_in, c.acks_ignored), (3, 1));
    assert_eq!(s.session.status().tables[3].update, 6);
    assert_eq!(s.session.status().unacked_batches, 0);
}

#[test]
fn byte_swapped_acks_of_haproxy_3_3_move_nothing() {
    let mut s = Solo::new();
    let uids: Vec<u32> = (0x200..0x210).collect();
    s.changes(batch(1, 0, &uids, 16));
    // protocol.md 5.4: what 3.3 to 3.5 answer to implicit ids.
    for garbage in [0x0102_0000u32, 0x0100_0201, 0x0202_0001] {
        s.feed(&ack(4, garbage));
        s.feed(&ack(4, garbage.swap_bytes().wrapping_add(0x1000)));
    }
    assert_eq!(s.session.ledger().confirmed(3, 0), 0);
    assert_eq!(s.session.counters().acks_garbage, 6);
}

#[test]
fn pushing_resumes_from_the_last_valid_ack_in_the_next_session() {
    let mut s = Solo::new();
    s.changes(batch(1, 0, &[1, 2], 2));
    s.changes(batch(1, 0, &[3, 4], 4));
    s.feed(&ack(4, 2));
    s.feed(&ack(4, 0xdead_beef));
    let ledger = s.session.into_ledger();
    assert_eq!(ledger.confirmed(3, 0), 2);
    let mut s = Solo::with(REMOTE, ledger);
    assert_eq!(s.take_events(), [Event::PushStart { epoch: 1 }]);
    s.take_sent();
    s.feed(&ack(4, 4));
    assert_eq!(s.session.ledger().confirmed(3, 0), 2, "4 was not sent in this session");
    s.changes(batch(1, 0, &[3, 4], 4));
    assert!(s.take_sent().starts_with(&define_str(4)), "and defined anew");
    s.feed(&ack(4, 4));
    assert_eq!(s.session.ledger().confirmed(3, 0), 4);
}

#[test]
fn ids_may_wrap_inside_a_batch() {
    let mut s = Solo::new();
    s.changes(batch(1, 0, &[u32::MAX - 1, u32::MAX, 0, 1], 4));
    s.feed(&ack(4, 2));
    s.feed(&ack(4, u32::MAX - 2));
    assert_eq!(s.session.counters().acks_garbage, 2);
    s.feed(&ack(4, 0));
    assert_eq!(s.session.counters().acks_in, 1);
    s.feed(&ack(4, 1));
    assert_eq!(s.session.ledger().confirmed(3, 0), 4);
}

#[test]
fn log_positions_without_updates_are_confirmed_with_what_was_before() {
    let mut s = Solo::new();
    s.changes(batch(1, 0, &[], 3));
    assert_eq!(s.session.ledger().confirmed(3, 0), 3, "nothing is unacked");
    s.changes(batch(1, 0, &[1], 4));
    s.changes(batch(1, 0, &[], 9));
    s.changes(batch(1, 1, &[], 7));
    assert_eq!(s.session.ledger().confirmed(3, 0), 3);
    s.feed(&ack(4, 1));
    assert_eq!(s.session.ledger().confirmed(3, 0), 9);
    assert_eq!(s.session.ledger().confirmed(3, 1), 7);
}

#[test]
fn unacked_batches_are_bounded_and_a_late_ack_still_counts() {
    use stickring::limits::FLIGHT_BATCHES_MAX;
    let mut s = Solo::new();
    let n = FLIGHT_BATCHES_MAX as u32 * 3;
    for i in 0..n {
        s.changes(batch(1, (i % 2) as usize, &[2 * i + 1, 2 * i + 2], u64::from(i) + 1));
        s.sent.clear();
    }
    assert!(s.session.status().unacked_batches <= FLIGHT_BATCHES_MAX);
    s.feed(&ack(4, 5));
    assert_eq!(s.session.ledger().confirmed(3, 0), 0, "detail about old batches is gone");
    assert_eq!(s.session.counters().acks_garbage, 0);
    s.feed(&ack(4, 2 * n));
    let ledger = s.session.ledger();
    assert_eq!(ledger.confirmed(3, 0), u64::from(n) - 1);
    assert_eq!(ledger.confirmed(3, 1), u64::from(n));
    // The bytes kept to look into are bounded too.
    let uids: Vec<u32> = (1..=4000).collect();
    for i in 0..100 {
        s.changes(batch(1, 0, &uids, u64::from(n) + i));
        s.sent.clear();
    }
    s.feed(&ack(4, 4000));
    assert_eq!(s.session.ledger().confirmed(3, 0), u64::from(n), "the oldest batch with that id");
}

#[test]
fn batches_of_an_older_epoch_are_dropped() {
    let mut s = Solo::new();
    s.learn();
    s.changes(batch(1, 0, &[1], 1));
    s.feed(FINISHED);
    assert!(s.take_events().contains(&Event::PushStart { epoch: 2 }));
    s.take_sent();
    s.changes(batch(1, 0, &[1], 1));
    assert_eq!(s.take_sent(), []);
    assert_eq!(s.session.counters().batches_stale, 2);
    s.changes(batch(2, 0, &[1], 1));
    assert!(!s.take_sent().is_empty());
}

#[test]
fn ledgers_only_move_forward() {
    let mut ledger = Ledger::default();
    ledger.confirm(2, 3, 10);
    ledger.confirm(2, 3, 4);
    assert_eq!(ledger.confirmed(2, 3), 10);
    assert_eq!((ledger.confirmed(2, 2), ledger.confirmed(9, 9)), (0, 0));
}
