//! Lessons in one session, both ways (protocol.md 5.5, 6.2, 6.4).

use crate::solo::*;
use stickring::session::{CloseReason, Event, Ledger};

fn chunk() -> Vec<u8> {
    [define_str(4), update(1, "a", 1), update(2, "b", 2)].concat()
}

#[test]
fn learning_ends_when_everything_is_applied() {
    let mut s = Solo::new();
    s.learn();
    assert_eq!(s.take_sent(), REQUEST);
    s.learn();
    assert_eq!(s.take_sent(), [], "asked once");
    assert_eq!(s.session.status().learn, "PROCESSING");
    s.take_events();
    let one = s.feed_unapplied(&chunk()).unwrap();
    s.now = s.now.plus(40);
    let two = s.feed_unapplied(FINISHED).unwrap();
    assert_eq!(s.session.status().learn, "FINISHED");
    assert_eq!(s.session.status().confirm, 1);
    s.applied(two);
    assert_eq!((s.take_sent(), s.take_events()), (vec![], vec![]));
    s.applied(one);
    assert_eq!(s.take_sent(), CONFIRM);
    let end = Event::LessonEnd { finished: true, updates: 2, duration_ms: 40 };
    assert_eq!(s.take_events(), [end, Event::PushStart { epoch: 2 }]);
    assert_eq!(s.session.status().learn, "NOTASSIGNED");
    assert_eq!(s.session.status().confirm, 0);
}

#[test]
fn partial_is_said_to_the_section() {
    let mut s = Solo::new();
    s.learn();
    s.feed(PARTIAL);
    assert!(s.take_sent().ends_with(CONFIRM));
    let end = Event::LessonEnd { finished: false, updates: 0, duration_ms: 0 };
    assert!(s.take_events().contains(&end));
}

#[test]
fn every_end_is_confirmed_even_when_nobody_learns() {
    let mut s = Solo::new();
    s.feed(&[FINISHED, PARTIAL, FINISHED].concat());
    assert_eq!(s.take_sent(), [CONFIRM, CONFIRM, CONFIRM].concat());
    assert!(s.take_events().is_empty());
    s.learn();
    s.take_sent();
    s.take_events();
    s.feed(&[FINISHED, PARTIAL].concat());
    assert_eq!(s.take_sent(), [CONFIRM, CONFIRM].concat());
    let events = s.take_events();
    assert!(matches!(events[0], Event::LessonEnd { finished: true, .. }), "the first counts");
    assert_eq!(events.len(), 2);
}

#[test]
fn teaching_from_request_to_confirmation() {
    let mut s = Solo::new();
    s.feed(REQUEST);
    let start = Event::TeachStart { lesson: 1, timed: true };
    assert_eq!(s.take_events(), [Event::PushStop, start]);
    s.changes(batch(1, 0, &[3], 3));
    assert_eq!(s.take_sent(), [], "nothing is pushed meanwhile");
    s.chunk(1, &chunk(), 2);
    assert_eq!(s.take_sent(), chunk());
    s.feed(&ack(4, 2));
    assert_eq!(s.session.counters().acks_ignored, 1, "acks do not count in a lesson");
    s.feed(CONFIRM);
    s.chunk(1, &chunk(), 2);
    s.now = s.now.plus(30);
    s.take_sent();
    s.lesson_done(1, true, vec![(3, 0, 17), (3, 1, 4)]);
    assert_eq!(s.take_sent(), FINISHED);
    assert_eq!(s.session.ledger().confirmed(3, 0), 0);
    assert!(s.take_events().is_empty());
    s.lesson_done(1, true, vec![]);
    s.chunk(1, &chunk(), 2);
    assert_eq!(s.take_sent(), [], "it is over");
    s.feed(CONFIRM);
    let taught = Event::Taught { finished: true, entries: 4, duration_ms: 30 };
    assert_eq!(s.take_events(), [taught, Event::PushStart { epoch: 2 }]);
    assert_eq!(s.session.ledger().confirmed(3, 0), 17);
    assert_eq!(s.session.ledger().confirmed(3, 1), 4);
    s.feed(CONFIRM);
    assert!(s.take_events().is_empty(), "unsolicited ones change nothing");
    s.changes(batch(2, 0, &[18], 18));
    assert!(s.take_sent().starts_with(&define_str(4)), "behind a lesson the table is defined anew");
}

#[test]
fn we_end_with_partial_while_not_up_to_date() {
    let mut s = Solo::new();
    s.feed(REQUEST);
    s.lesson_done(1, false, vec![]);
    assert_eq!(s.take_sent(), PARTIAL);
    s.feed(CONFIRM);
    let taught = Event::Taught { finished: false, entries: 0, duration_ms: 0 };
    assert!(s.take_events().contains(&taught));
}

#[test]
fn a_second_request_starts_the_lesson_again() {
    let mut s = Solo::new();
    s.feed(REQUEST);
    s.chunk(1, &chunk(), 2);
    s.feed(REQUEST);
    s.take_sent();
    assert_eq!(s.take_events().last(), Some(&Event::TeachStart { lesson: 2, timed: true }));
    s.chunk(1, &chunk(), 2);
    s.lesson_done(1, true, vec![(3, 0, 9)]);
    assert_eq!(s.take_sent(), []);
    s.chunk(2, &chunk(), 2);
    s.lesson_done(2, true, vec![(3, 0, 10)]);
    assert_eq!(s.take_sent(), [&chunk()[..], FINISHED].concat());
    // Also after the end, before the confirmation.
    s.feed(REQUEST);
    s.feed(CONFIRM);
    assert_eq!(s.session.ledger().confirmed(3, 0), 0);
    s.lesson_done(3, true, vec![(3, 0, 11)]);
    s.feed(CONFIRM);
    assert_eq!(s.session.ledger().confirmed(3, 0), 11);
}

#[test]
fn requests_in_one_piece_start_one_lesson() {
    let mut s = Solo::new();
    s.feed(&REQUEST.repeat(1_000));
    assert_eq!(s.take_events().len(), 2);
}

#[test]
fn both_teach_and_learn_at_once() {
    let mut s = Solo::new();
    s.learn();
    s.feed(REQUEST);
    s.take_sent();
    s.chunk(1, &chunk(), 2);
    s.feed(&chunk());
    s.lesson_done(1, false, vec![]);
    assert_eq!(s.take_sent(), [&chunk()[..], PARTIAL].concat());
    s.feed(FINISHED);
    assert_eq!(s.take_sent(), CONFIRM);
    let events = s.take_events();
    assert!(
        events.iter().any(|e| matches!(e, Event::LessonEnd { finished: true, updates: 2, .. }))
    );
    assert!(!events.iter().any(|e| matches!(e, Event::PushStart { .. })), "still teaching");
    s.feed(CONFIRM);
    assert!(matches!(s.take_events()[..], [Event::Taught { .. }, Event::PushStart { epoch: 2 }]));
}

#[test]
fn a_peer_of_protocol_2_0_gets_untimed_lessons() {
    let params = stickring::session::SessionParams { minor: 0, ..REMOTE };
    let mut s = Solo::with(params, Ledger::default());
    s.feed(REQUEST);
    assert!(s.take_events().contains(&Event::TeachStart { lesson: 1, timed: false }));
}

#[test]
fn learning_from_the_old_process_asks_nothing() {
    let mut s = Solo::with(LOCAL, Ledger::default());
    s.learn();
    assert_eq!(s.take_sent(), HEARTBEAT);
    assert!(s.take_events().is_empty(), "nothing is ever pushed to our own name");
    s.feed(&[chunk(), FINISHED.to_vec()].concat());
    assert_eq!(s.take_sent(), CONFIRM);
    let end = Event::LessonEnd { finished: true, updates: 2, duration_ms: 0 };
    assert_eq!(s.take_events(), [end]);
}

#[test]
fn the_old_process_teaches_unasked_and_closes_when_confirmed() {
    let mut s = Solo::with(LOCAL, Ledger::default());
    s.session.handle_teach(s.now);
    s.poll();
    assert_eq!(s.take_events(), [Event::TeachStart { lesson: 1, timed: true }]);
    // A learning HAProxy says nothing for as long as the lesson takes.
    for _ in 0..10 {
        s.pass(4_000);
        s.chunk(1, &chunk(), 2);
    }
    assert!(s.closed().is_none());
    s.lesson_done(1, true, vec![(3, 0, 9)]);
    s.pass(4_999);
    s.feed(CONFIRM);
    assert_eq!(s.closed(), Some(&CloseReason::HandedOver));
    assert!(matches!(s.events[0], Event::Taught { entries: 20, .. }));
    // A successor that never confirms is given up.
    let mut s = Solo::with(LOCAL, Ledger::default());
    s.session.handle_teach(s.now);
    s.lesson_done(1, true, vec![]);
    s.pass(5_000);
    assert_eq!(s.closed(), Some(&CloseReason::Silence));
}

#[test]
fn a_session_that_learns_from_its_first_moment_pushes_nothing_before() {
    let now = stickring::Millis(0);
    let mut session = stickring::session::Session::<crate::model::ModelLayout>::new(
        REMOTE,
        Ledger::default(),
        now,
    );
    session.handle_learn(now);
    let outputs: Vec<_> = std::iter::from_fn(|| session.poll_output()).collect();
    let sent = |b: &[u8]| stickring::session::Output::Send(bytes::Bytes::copy_from_slice(b));
    assert_eq!(outputs, [sent(HEARTBEAT), sent(REQUEST)]);
}

#[test]
fn rounds_released_together_lose_neither_the_end_nor_confirmations() {
    let mut s = Solo::new();
    s.learn();
    s.take_sent();
    s.take_events();
    let one = s.feed_unapplied(FINISHED).unwrap();
    let two = s.feed_unapplied(&[PARTIAL, PARTIAL].concat()).unwrap();
    let three = s.feed_unapplied(&chunk()).unwrap();
    s.applied(three);
    s.applied(two);
    s.applied(one);
    let sent = s.take_sent();
    assert_eq!(acks_in(&sent), [(4, 2)]);
    assert!(sent.ends_with(&CONFIRM.repeat(3)));
    let end = Event::LessonEnd { finished: true, updates: 0, duration_ms: 0 };
    assert!(s.take_events().contains(&end));
}

#[test]
fn an_interruption_is_told_even_when_it_is_over_before_anyone_asked() {
    let mut s = Solo::new();
    s.session.handle_learn(s.now);
    let mut got = Vec::new();
    let mut sink = crate::model::Collect { bytes: FINISHED, got: &mut got };
    s.session.handle_bytes(FINISHED, s.now, &mut s.tables, &mut sink).unwrap();
    let round = s.session.close_round().unwrap();
    s.session.handle_applied(round, s.now);
    s.changes(batch(1, 0, &[1], 1));
    let events = s.take_events();
    assert_eq!(events[0], Event::PushStop);
    assert_eq!(events.last(), Some(&Event::PushStart { epoch: 2 }));
    assert_eq!(s.session.counters().batches_stale, 1);
}

#[test]
fn a_lesson_takes_the_place_of_what_was_not_acked() {
    let mut s = Solo::new();
    s.changes(batch(1, 0, &[1, 2], 2));
    assert_eq!(s.session.status().unacked_batches, 1);
    s.feed(REQUEST);
    assert_eq!(s.session.status().unacked_batches, 0);
    s.lesson_done(1, true, vec![(3, 0, 1)]);
    s.feed(CONFIRM);
    s.feed(&ack(4, 2));
    assert_eq!(s.session.ledger().confirmed(3, 0), 1, "the lesson began before 2 was logged");
}

#[test]
fn a_teacher_that_goes_no_further_is_found_wanting() {
    use stickring::limits::LESSON_STALL_MS;
    let mut s = Solo::new();
    s.learn();
    let wait = |s: &mut Solo, ms| {
        let end = s.now.plus(ms);
        while s.now < end {
            s.feed(HEARTBEAT);
            s.pass(end.since(s.now).min(4_000));
        }
    };
    wait(&mut s, LESSON_STALL_MS - 1);
    // While something of it is not applied, it is us who go no further.
    let round = s.feed_unapplied(&chunk()).unwrap();
    wait(&mut s, LESSON_STALL_MS);
    s.applied(round);
    wait(&mut s, LESSON_STALL_MS - 1);
    assert_eq!(s.session.status().learn, "PROCESSING");
    s.take_events();
    wait(&mut s, 1);
    let duration_ms = 3 * LESSON_STALL_MS - 1;
    let end = Event::LessonEnd { finished: false, updates: 2, duration_ms };
    assert_eq!(s.take_events(), [Event::Heard, end, Event::PushStart { epoch: 2 }]);
    s.take_sent();
    // Should it end after all, that is confirmed and nothing more.
    s.feed(&[&update(3, "c", 1), FINISHED].concat());
    assert_eq!(s.take_sent(), [&ack(4, 3), CONFIRM].concat());
    assert!(s.take_events().is_empty());
}
