//! Heartbeats, silence, handshakes and links in virtual time (protocol.md 2).

use crate::solo::*;
use stickring::Millis;
use stickring::limits::*;
use stickring::session::handshake::{Accepted, Dialled};
use stickring::session::link::{Admission, Down};
use stickring::session::{Accepting, CloseReason, Dialling, Event, Ledger, Link};
use stickring::wire::hello::{HelloError, Status};

#[test]
fn a_heartbeat_at_once_and_every_three_seconds() {
    for params in [REMOTE, LOCAL] {
        let mut s = Solo::with(params, Ledger::default());
        let start = s.now;
        assert_eq!(s.take_sent(), HEARTBEAT);
        for n in 1..10 {
            s.feed(HEARTBEAT);
            s.pass(1_500);
            s.feed(HEARTBEAT);
            s.pass(1_499);
            assert_eq!(s.take_sent(), [], "not before");
            s.pass(1);
            assert_eq!(s.now, start.plus(n * 3_000));
            assert_eq!(s.take_sent(), HEARTBEAT);
        }
        assert!(s.closed().is_none());
    }
}

#[test]
fn whatever_is_sent_stands_for_a_heartbeat() {
    let mut s = Solo::new();
    s.pass(2_000);
    s.changes(batch(1, 0, &[1], 1));
    s.take_sent();
    s.feed(HEARTBEAT);
    s.pass(2_999);
    assert_eq!(s.take_sent(), []);
    s.pass(1);
    assert_eq!(s.take_sent(), HEARTBEAT);
    let c = s.session.counters();
    assert_eq!((c.heartbeats_out, c.heartbeats_in), (2, 1));
}

#[test]
fn heartbeats_go_on_while_learning_and_teaching() {
    let mut s = Solo::new();
    s.learn();
    s.feed(REQUEST);
    s.take_sent();
    for _ in 0..4 {
        s.pass(3_000);
        assert_eq!(s.take_sent(), HEARTBEAT);
        s.feed(HEARTBEAT);
    }
}

#[test]
fn five_seconds_of_silence_close() {
    let mut s = Solo::new();
    s.pass(4_000);
    s.receive(&[0]); // one byte of a message counts
    s.pass(4_999);
    assert!(s.closed().is_none());
    s.take_events();
    s.pass(1);
    let events = s.take_events();
    assert_eq!(events.last(), Some(&Event::Close(CloseReason::Silence)));
    assert!(events.contains(&Event::PushStop));
    assert_eq!(s.session.poll_timeout(), None);
    s.feed(HEARTBEAT);
    s.learn();
    assert!(s.take_events().is_empty());
    assert!(!s.session.wants_read());
}

#[test]
fn the_same_bytes_again_are_not_news() {
    let mut s = Solo::new();
    s.receive(&[0]);
    s.pass(3_000);
    s.receive(&[]);
    s.pass(2_000);
    assert_eq!(s.closed(), Some(&CloseReason::Silence));
}

#[test]
fn a_node_that_slept_gives_its_peer_a_little_more_time_once() {
    let mut s = Solo::new();
    s.now = s.now.plus(30_000);
    s.session.handle_timeout(s.now);
    s.poll();
    assert!(s.closed().is_none());
    s.pass(SILENCE_GRACE_MS - 1);
    assert!(s.closed().is_none());
    s.pass(1);
    assert_eq!(s.closed(), Some(&CloseReason::Silence));
    // Heard in time, all is as before.
    let mut s = Solo::new();
    s.now = s.now.plus(30_000);
    s.session.handle_timeout(s.now);
    s.feed(HEARTBEAT);
    s.pass(4_999);
    assert!(s.closed().is_none());
    s.pass(1);
    assert_eq!(s.closed(), Some(&CloseReason::Silence));
}

#[test]
fn a_peer_we_do_not_read_is_not_silent() {
    let mut s = Solo::new();
    s.feed(&define_str(7));
    let mut rounds = Vec::new();
    while s.session.wants_read() {
        rounds.extend(s.feed_unapplied(&update(rounds.len() as u32 + 1, "a", 1)));
    }
    s.pass(20_000);
    assert!(s.closed().is_none(), "our shards are behind");
    s.pass(4_999);
    s.applied(rounds[0]);
    assert!(s.session.wants_read());
    s.pass(4_999);
    assert!(s.closed().is_none());
    s.pass(1);
    assert_eq!(s.closed(), Some(&CloseReason::Silence));
}

#[test]
fn hello_cut_at_every_byte() {
    let hello = b"HAProxyS 2.1\nus\nthem 1 1\n";
    let mut a = Accepting::new(b"us", 1_024, Millis(5));
    assert_eq!(a.deadline(), Millis(5_005));
    let rest = [&hello[..], &[0, 4]].concat();
    for n in 0..hello.len() {
        assert_eq!(a.handle_bytes(&rest[..n]), Accepted::NeedMore);
    }
    let Accepted::Hello { hello: h, used } = a.handle_bytes(&rest) else { panic!() };
    assert_eq!((h.minor, &h.from[..], used), (1, &b"them"[..], hello.len()));
}

#[test]
fn hellos_refused_at_the_first_faulty_line() {
    let verdict = |bytes: &[u8]| match Accepting::new(b"us", 64, Millis(0)).handle_bytes(bytes) {
        Accepted::Refuse { status, .. } => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(verdict(b"GET / HTTP/1.1\n"), Some(Status::Protocol));
    assert_eq!(verdict(b"HAProxyS 2.2\n"), Some(Status::Version));
    assert_eq!(verdict(b"HAProxyS 2.1\nthey\n"), Some(Status::Host));
    assert_eq!(verdict(b"HAProxyS 2.1\nus\nthem\n"), Some(Status::Protocol));
    assert_eq!(verdict(&[b'x'; 64]), None);
    let mut a = Accepting::new(b"us", 64, Millis(0));
    assert_eq!(a.handle_bytes(b"HAProxyS 2.1\n"), Accepted::NeedMore);
    let long = [&b"HAProxyS 2.1\n"[..], &[b'u'; 64]].concat();
    assert_eq!(a.handle_bytes(&long[..76]), Accepted::NeedMore);
    let error = HelloError::LineTooLong(64);
    assert_eq!(a.handle_bytes(&long), Accepted::Refuse { status: None, error });
}

#[test]
fn dialling_sends_one_piece_and_reads_the_status() {
    let mut d = Dialling::new(1, "them", "us", 42, Millis(7));
    assert_eq!(&d.hello()[..], b"HAProxyS 2.1\nthem\nus 42 1\n");
    assert_eq!(d.deadline(), Millis(5_007));
    assert_eq!(d.handle_bytes(b"20"), Dialled::NeedMore);
    let status = |code, used| Dialled::Status { code, used };
    assert_eq!(d.handle_bytes(b"200\n\0\x04"), status(200, 4));
    assert_eq!(d.handle_bytes(b"200 OK\r\n"), status(200, 8));
    assert_eq!(d.handle_bytes(b"what?\n"), status(0, 6));
    assert_eq!(d.handle_bytes(&[b'2'; 4_096]), status(0, 4_096));
}

/// Time of the next dial at or after `now`, which is begun.
fn next_dial(link: &mut Link, now: &mut Millis) -> (u64, u64, u8) {
    let at = link.poll_timeout().expect("a dial is due some time");
    if at > *now {
        assert_eq!(link.poll_dial(Millis(at.0 - 1)), None);
        *now = at;
    }
    let dial = link.poll_dial(*now).expect("due");
    (now.0, dial.ticket, dial.minor)
}

#[test]
fn refused_connections_are_tried_every_five_seconds() {
    let (mut link, mut now) = (Link::new(false, 1), Millis(100));
    for n in 0..5 {
        let (at, ticket, _) = next_dial(&mut link, &mut now);
        assert_eq!(at, 100 + n * 5_000);
        assert_eq!(link.status(), 100);
        assert_eq!(link.poll_dial(now), None, "one at a time");
        now = now.plus(3);
        link.down(ticket, Down::Lost, now);
    }
    assert_eq!(link.counters().new_conn, 5);
}

#[test]
fn a_peer_that_refuses_us_is_asked_ever_more_rarely() {
    let (mut link, mut now) = (Link::new(false, 1), Millis(0));
    let mut waits = Vec::new();
    for _ in 0..7 {
        let (at, ticket, _) = next_dial(&mut link, &mut now);
        waits.push(at);
        link.connected(ticket);
        assert_eq!(link.status(), 110);
        assert!(!link.answered(ticket, 504, now));
        assert_eq!(link.status(), 504);
    }
    let steps: Vec<u64> = waits.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(steps, [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
    let (_, ticket, _) = next_dial(&mut link, &mut now);
    assert!(link.answered(ticket, 200, now));
    link.down(ticket, Down::Lost, now);
    let (_, ticket, _) = next_dial(&mut link, &mut now);
    let failed = now;
    link.answered(ticket, 503, now);
    assert_eq!(link.poll_timeout(), Some(failed.plus(5_000)), "success starts over");
}

#[test]
fn status_502_makes_the_next_hello_say_2_0() {
    let (mut link, mut now) = (Link::new(false, 1), Millis(0));
    let (_, ticket, minor) = next_dial(&mut link, &mut now);
    assert_eq!(minor, 1);
    link.answered(ticket, 502, now);
    let (_, ticket, minor) = next_dial(&mut link, &mut now);
    assert_eq!((minor, now), (0, Millis(5_000)));
    assert!(link.answered(ticket, 200, now));
    assert_eq!(link.minor(), 0);
    assert!(matches!(link.accept(1, now), Admission::Admit { replaces: Some(2), .. }));
    assert_eq!(link.minor(), 1, "a hello of theirs says what they speak");
}

#[test]
fn last_connection_wins_and_the_loser_is_forgotten() {
    let (mut link, mut now) = (Link::new(false, 7), Millis(1_000));
    let (_, ours, _) = next_dial(&mut link, &mut now);
    link.connected(ours);
    let Admission::Admit { ticket, replaces } = link.accept(1, now) else { panic!() };
    assert_eq!(replaces, Some(ours));
    assert!(!link.answered(ours, 200, now), "too late");
    link.connected(ours);
    link.down(ours, Down::Silence, now);
    assert!(link.is_established() && link.is_accepted() && link.counts(ticket));
    assert_eq!(link.counters().coll, 1);
    assert_eq!(link.counters().no_hbt, 0);
    let wait = link.reconnect_at().unwrap().since(now);
    assert!((50..2_050).contains(&wait), "{wait}");
    link.heard(ticket, now);
    assert_eq!(link.reconnect_at(), Some(now.plus(5_000)));
    let Admission::Admit { ticket: third, replaces } = link.accept(1, now) else { panic!() };
    assert_eq!(replaces, Some(ticket));
    link.down(third, Down::Lost, now);
    assert!(!link.is_established());
    assert!(link.poll_timeout().is_some());
}

#[test]
fn after_a_loss_we_dial_when_the_timer_ends() {
    let (mut link, mut now) = (Link::new(false, 7), Millis(1_000));
    let (_, ticket, _) = next_dial(&mut link, &mut now);
    link.answered(ticket, 200, now);
    link.down(ticket, Down::Lost, now.plus(300));
    now = now.plus(300);
    assert_eq!(next_dial(&mut link, &mut now).0, 6_000, "5 s after it was begun");
    let (mut link, mut now) = (Link::new(false, 7), Millis(1_000));
    let (_, ticket, _) = next_dial(&mut link, &mut now);
    link.answered(ticket, 200, now);
    link.heard(ticket, Millis(90_000));
    link.down(ticket, Down::Lost, Millis(92_000));
    now = Millis(92_000);
    assert_eq!(next_dial(&mut link, &mut now).0, 95_000, "5 s after the last heartbeat");
    let (mut link, mut now) = (Link::new(false, 7), Millis(1_000));
    for (why, silence, error) in [(Down::Silence, 1, 0), (Down::BadInput, 1, 1), (Down::Ours, 1, 1)]
    {
        let (_, ticket, _) = next_dial(&mut link, &mut now);
        link.answered(ticket, 200, now);
        link.down(ticket, why, now);
        let wait = link.poll_timeout().unwrap().since(now);
        assert!((50..2_050).contains(&wait), "{wait}");
        assert_eq!((link.counters().no_hbt, link.counters().proto_err), (silence, error));
    }
}

#[test]
fn our_own_name_is_never_dialled_and_has_one_session() {
    let mut link = Link::new(true, 1);
    assert_eq!(link.poll_dial(Millis(99_999)), None);
    assert_eq!(link.poll_timeout(), None);
    let Admission::Admit { ticket, replaces: None } = link.accept(1, Millis(5)) else { panic!() };
    assert_eq!(link.accept(1, Millis(6)), Admission::TryAgain);
    assert!(link.counts(ticket));
    link.down(ticket, Down::Lost, Millis(7));
    assert!(matches!(link.accept(1, Millis(8)), Admission::Admit { replaces: None, .. }));
    assert_eq!(link.poll_timeout(), None);
}
