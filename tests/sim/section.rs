//! The section's brain and the hand-over in virtual time (protocol.md 6.1, 6.4).

use stickring::Millis;
use stickring::resync::handover::Ending;
use stickring::resync::section::flag::*;
use stickring::resync::{Action, Handover, Section, SessionUp};

const T: Millis = Millis(10_000);

fn at(ms: u64) -> Millis {
    T.plus(ms)
}

fn actions(s: &mut Section) -> Vec<Action> {
    std::iter::from_fn(|| s.poll_action()).collect()
}

fn remote(id: u64) -> SessionUp {
    SessionUp { id, local: false, accepted: false, shard: 0 }
}

fn old(id: u64) -> SessionUp {
    SessionUp { id, local: true, accepted: true, shard: 0 }
}

/// A section with two remotes that waits for an old process.
fn waiting() -> Section {
    let mut s = Section::new(T, true, 2, 0, 1);
    assert_eq!(actions(&mut s), []);
    assert_eq!(s.poll_timeout(), Some(at(5_000)));
    s
}

/// A section with two remotes and no old process.
fn fresh() -> Section {
    let mut s = Section::new(T, false, 2, 0, 1);
    assert_eq!(actions(&mut s), [Action::LocalGivenUp]);
    assert_eq!(s.poll_timeout(), Some(at(5_000)));
    assert_eq!(s.flags() & 7, LOCAL_DONE);
    s
}

#[test]
fn without_an_old_process_the_first_remote_is_asked_at_once() {
    let mut s = fresh();
    s.session_up(remote(1), at(10));
    assert_eq!(actions(&mut s), [Action::Learn(1)]);
    assert_eq!((s.poll_timeout(), s.learning_from()), (None, Some(1)));
    s.session_up(remote(2), at(20));
    assert_eq!(actions(&mut s), [], "one at a time");
    assert!(!s.up_to_date());
    s.lesson_end(2, true, at(25));
    assert!(!s.up_to_date(), "nobody asked that one");
    s.lesson_end(1, true, at(30));
    assert_eq!(actions(&mut s), [Action::UpToDate { taught: true }]);
    assert!(s.up_to_date());
    // As HAProxy 3.5 shows it after the same.
    assert_eq!(s.flags(), 0x2210_0003);
    s.session_down(1, at(40));
    s.session_up(remote(3), at(50));
    s.handle_timeout(at(99_000));
    assert_eq!(actions(&mut s), [], "never again");
    assert_eq!(s.resync_timeout(), None);
}

#[test]
fn the_old_process_teaches_and_no_remote_is_asked() {
    let mut s = waiting();
    s.session_up(remote(1), at(5));
    assert_eq!(actions(&mut s), [], "remotes are not asked meanwhile");
    s.session_up(old(2), at(10));
    assert_eq!(actions(&mut s), [Action::Learn(2)]);
    assert_eq!(s.poll_timeout(), None, "a lesson may take as long as it takes");
    assert_eq!(s.flags() & 7, ASSIGNED);
    s.lesson_end(2, true, at(20_000));
    assert_eq!(actions(&mut s), [Action::UpToDate { taught: true }]);
    assert_eq!(s.flags(), 0x1100_0003, "as HAProxy 3.5 shows it");
}

#[test]
fn local_partial_waits_five_seconds_more_and_then_asks_a_remote() {
    let mut s = waiting();
    s.session_up(old(1), at(10));
    s.session_up(remote(2), at(20));
    s.lesson_end(1, false, at(1_000));
    actions(&mut s);
    assert_eq!(s.poll_timeout(), Some(at(6_000)));
    s.handle_timeout(at(5_999));
    assert_eq!(actions(&mut s), []);
    s.handle_timeout(at(6_000));
    assert_eq!(actions(&mut s), [Action::LocalGivenUp, Action::Learn(2)]);
    assert_eq!(s.flags(), 0x3410_0005, "as HAProxy 3.5 shows it");
}

#[test]
fn another_old_process_may_come_after_a_partial_or_a_loss() {
    let mut s = waiting();
    s.session_up(old(1), at(10));
    s.session_down(1, at(100));
    assert_eq!(s.flags() & LOCAL_ABORT, LOCAL_ABORT);
    assert_eq!(s.poll_timeout(), Some(at(5_100)));
    s.session_up(old(2), at(200));
    assert_eq!(actions(&mut s), [Action::Learn(1), Action::Learn(2)]);
    s.lesson_end(1, true, at(210));
    assert!(!s.up_to_date(), "the first one is gone");
    s.lesson_end(2, true, at(300));
    assert!(s.up_to_date());
}

#[test]
fn a_remote_that_comes_when_the_wait_is_over_is_asked_though_the_timer_is_late() {
    let mut s = waiting();
    s.session_up(remote(1), at(5_000));
    assert_eq!(actions(&mut s), [Action::LocalGivenUp, Action::Learn(1)]);
    s.handle_timeout(at(5_001));
    assert!(!s.up_to_date());
}

#[test]
fn only_an_accepted_session_is_the_old_process() {
    let mut s = waiting();
    s.session_up(SessionUp { accepted: false, ..old(1) }, at(10));
    assert_eq!(actions(&mut s), []);
    let mut s = fresh();
    s.session_up(old(1), at(10));
    assert_eq!(actions(&mut s), [], "too late: its lesson is applied, but not waited for");
}

#[test]
fn nobody_comes_at_all() {
    let mut s = waiting();
    s.handle_timeout(at(5_000));
    assert_eq!(actions(&mut s), [Action::LocalGivenUp]);
    assert_eq!(s.poll_timeout(), Some(at(10_000)));
    s.handle_timeout(at(9_999));
    assert!(!s.up_to_date());
    s.handle_timeout(at(10_000));
    assert_eq!(actions(&mut s), [Action::UpToDate { taught: false }]);
    assert_eq!(s.flags(), LOCAL_TIMEOUT | REMOTE_TIMEOUT | LOCAL_DONE | REMOTE_DONE);
    assert_eq!(s.poll_timeout(), None);
}

#[test]
fn without_remotes_nobody_is_waited_for() {
    let mut s = Section::new(T, false, 0, 0, 1);
    assert_eq!(actions(&mut s), [Action::LocalGivenUp, Action::UpToDate { taught: false }]);
    let mut s = Section::new(T, true, 0, 0, 1);
    assert!(!s.up_to_date(), "the old process is");
    s.handle_timeout(at(5_000));
    assert!(s.up_to_date());
}

#[test]
fn a_remote_found_wanting_is_not_asked_again_and_another_is() {
    let mut s = fresh();
    s.session_up(remote(1), at(0));
    s.session_up(remote(2), at(0));
    s.lesson_end(1, false, at(100));
    assert_eq!(actions(&mut s), [Action::Learn(1), Action::Learn(2)]);
    s.lesson_end(2, false, at(200));
    assert_eq!(actions(&mut s), []);
    assert_eq!(s.poll_timeout(), Some(at(5_200)));
    // In a new session it may be asked again.
    s.session_down(1, at(300));
    s.session_up(remote(3), at(400));
    assert_eq!(actions(&mut s), [Action::Learn(3)]);
    s.session_down(3, at(500));
    assert_eq!(s.flags() & REMOTE_ABORT, REMOTE_ABORT);
    assert_eq!(s.poll_timeout(), Some(at(5_500)));
    s.handle_timeout(at(5_500));
    assert_eq!(actions(&mut s), [Action::UpToDate { taught: false }]);
}

#[test]
fn a_section_that_nobody_taught_asks_the_first_remote_that_comes_later() {
    let mut s = fresh();
    s.handle_timeout(at(5_000));
    assert_eq!(actions(&mut s), [Action::UpToDate { taught: false }]);
    s.session_up(remote(1), at(60_000));
    assert_eq!(actions(&mut s), [Action::Learn(1)]);
    assert!(s.up_to_date(), "it may teach meanwhile");
    // A broken or partial lesson is not the one it wants; no timer runs for it.
    s.session_down(1, at(60_100));
    assert_eq!(s.poll_timeout(), None);
    s.session_up(remote(2), at(60_200));
    s.lesson_end(2, false, at(60_300));
    s.session_up(remote(3), at(60_400));
    assert_eq!(actions(&mut s), [Action::Learn(2), Action::Learn(3)]);
    s.lesson_end(3, true, at(60_500));
    assert_eq!(actions(&mut s), []);
    s.session_up(remote(4), at(60_600));
    assert_eq!(actions(&mut s), [], "it was taught");
}

#[test]
fn when_the_teacher_dies_another_is_asked_at_once() {
    let mut s = fresh();
    (1..=3).for_each(|id| s.session_up(remote(id), at(id)));
    actions(&mut s);
    s.session_down(1, at(100));
    let next = s.learning_from().expect("another one");
    assert!(next == 2 || next == 3);
    s.session_down(99, at(110));
    assert_eq!(s.learning_from(), Some(next));
}

#[test]
fn the_remote_is_chosen_at_random() {
    let mut chosen = [0; 3];
    for seed in 0..300 {
        let mut s = Section::new(T, true, 3, 0, seed);
        (0..3).for_each(|id| s.session_up(remote(id), at(id)));
        s.handle_timeout(at(5_000));
        chosen[s.learning_from().unwrap() as usize] += 1;
    }
    assert!(chosen.iter().all(|&n| n > 70), "{chosen:?}");
}

#[test]
fn one_peer_of_each_shard_must_finish() {
    let shard = |id, shard| SessionUp { shard, ..remote(id) };
    let mut s = Section::new(T, false, 4, 2, 1);
    s.session_up(shard(1, 1), at(0));
    s.session_up(shard(2, 1), at(0));
    s.session_up(shard(3, 2), at(0));
    actions(&mut s);
    s.lesson_end(1, true, at(100));
    assert_eq!(actions(&mut s), [Action::Learn(3)], "not the other peer of the same shard");
    assert!(!s.up_to_date());
    s.lesson_end(3, false, at(200));
    assert_eq!(actions(&mut s), []);
    s.session_up(shard(4, 2), at(300));
    s.lesson_end(4, true, at(400));
    assert_eq!(actions(&mut s), [Action::Learn(4), Action::UpToDate { taught: true }]);
    // A peer without a shard has everything.
    let mut s = Section::new(T, false, 4, 2, 1);
    s.session_up(remote(1), at(0));
    s.lesson_end(1, true, at(100));
    assert!(s.up_to_date());
}

#[test]
fn handover_dials_until_it_is_taken() {
    let mut h = Handover::new(T);
    assert!(h.poll_dial(T));
    assert!(!h.poll_dial(T), "one at a time");
    h.down(at(1));
    assert_eq!(h.poll_timeout(), Some(at(501)));
    assert!(!h.poll_dial(at(500)) && h.poll_dial(at(501)));
    assert!(!h.answered(300, at(510)), "the successor is busy with another");
    assert!(h.poll_dial(at(1_010)));
    assert!(h.answered(200, at(1_020)));
    assert_eq!(h.poll_timeout(), None, "a lesson may take as long as it takes");
    h.down(at(60_000));
    assert!(h.poll_dial(at(60_500)) && h.answered(200, at(60_510)), "taught again from the start");
    h.taught();
    assert_eq!(h.ending(), Some(Ending::Done));
    h.down(at(60_600));
    assert_eq!((h.ending(), h.poll_timeout()), (Some(Ending::Done), None));
}

#[test]
fn handover_gives_up_after_five_seconds_or_when_refused() {
    let mut h = Handover::new(T);
    let mut dials = 0;
    let mut now = T;
    while h.ending().is_none() {
        if h.poll_dial(now) {
            dials += 1;
            h.down(now);
        }
        h.handle_timeout(now);
        now = h.poll_timeout().unwrap_or(now);
    }
    assert_eq!((h.ending(), dials, now), (Some(Ending::TimedOut), 10, at(5_000)));
    let mut h = Handover::new(T);
    h.poll_dial(T);
    assert!(!h.answered(503, T));
    assert_eq!(h.ending(), Some(Ending::Refused(503)));
}
