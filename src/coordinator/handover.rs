//! A reload by the peers protocol, as the coordinator sees it (protocol.md 6).
//!
//! The old half: SIGUSR1 closes listeners and sessions, then every section teaches whoever listens
//! on our own address by then ([`crate::resync::Handover`] decides when). The new half: updates of
//! remotes wait until the old process has taught. Both write down what it came to. Owned by the
//! node; called by its main loop, its signals and the news of sessions. Rules: nobody is dialled
//! before our own listeners and sessions are gone and no change is under way, so that the lesson is
//! complete and never our own; nothing that arrives meanwhile is acked and lost.

use super::{Node, Shared, report};
use crate::Millis;
use crate::limits::{
    LAST_WORDS_MS, LEARN_REST_MS, PUSH_LOOK_MS, PUSH_REST_MAX_MS, PUSH_REST_MS, STOP_AGAIN_MS,
};
use crate::observe::handover::{HandoverNumbers, Kind, Outcome};
use crate::observe::log::Level;
use crate::resync::Handover;
use crate::resync::handover::Ending;
use crate::session::link::Dial;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The soft stop of this process.
#[derive(Debug)]
pub struct SoftStop {
    began: Millis,
    /// Sessions may end: see [`settle`].
    settled: bool,
    /// Nobody can reach us and nothing is being changed: what the tables hold is what our successor
    /// must get.
    quiet: bool,
    /// `hard-stop-after`: leave then, whatever is under way.
    hard_at: Option<Millis>,
    /// All sections are through since then: what the stats socket is saying may be said to its end.
    over: Option<Millis>,
}

/// One section's tables on their way to the successor.
#[derive(Debug)]
pub struct Leaving {
    machine: Handover,
    said: bool,
}

/// Goes on with the soft stop when two things are settled, or have had their time: peers have taken
/// our own changes, since what a successor learns from us it does not push; and an old process that
/// is teaching us has ended, since otherwise our successor would have to learn from both, and
/// perhaps from the older one last.
async fn settle(node: Shared) {
    let clock = node.borrow().clock;
    let end = clock.now().plus(PUSH_REST_MAX_MS);
    let (mut least, mut patience) = (u64::MAX, end);
    loop {
        let (left, now) = (report::unconfirmed(&node).await, clock.now());
        if left < least {
            (least, patience) = (left, now.plus(PUSH_REST_MS));
        }
        if left == 0 || now >= patience.min(end) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(PUSH_LOOK_MS)).await;
    }
    let end = clock.now().plus(LEARN_REST_MS);
    while clock.now() < end && node.borrow().learns_from_old_process() {
        tokio::time::sleep(Duration::from_millis(PUSH_LOOK_MS)).await;
    }
    let mut node = node.borrow_mut();
    for (section, up_to_date) in node.sections.iter().zip(node.up_to_date.iter()) {
        up_to_date.store(section.brain.may_hand_over_finished(), Ordering::Relaxed);
    }
    if let Some(stop) = &mut node.soft_stop {
        stop.settled = true;
    }
    node.poke.notify_one();
}

impl Node {
    /// SIGUSR1. The first one begins the soft stop; another one says that there is a newer
    /// successor.
    pub(super) fn soft_stop(node: &Shared) {
        let now = node.borrow().clock.now();
        if node.borrow_mut().begin_soft_stop(now) {
            tokio::task::spawn_local(settle(node.clone()));
        }
    }

    /// False: it has begun already.
    fn begin_soft_stop(&mut self, now: Millis) -> bool {
        if self.soft_stop.is_some() {
            self.log.notice("SIGUSR1 received again, looking for the newest successor.");
            let leaving = self.sections.iter_mut().filter_map(|s| s.leaving.as_mut());
            leaving.for_each(|l| l.machine.look_again(now));
            self.poke.notify_one();
            return false;
        }
        self.log.notice("SIGUSR1 received, closing all sessions and handing the tables over.");
        let hard_at = self.config.hard_stop_after_ms.map(|ms| now.plus(ms));
        self.soft_stop =
            Some(SoftStop { began: now, settled: false, quiet: false, hard_at, over: None });
        self.stopping = true;
        self.closing.send_replace(true);
        for section in 0..self.sections.len() {
            let tables = self.registry.section_len(section);
            let entry = &mut self.sections[section];
            entry.peers.iter_mut().for_each(|p| p.waiting = None);
            // Without tables there is nothing to teach, without an address nobody to look for.
            if tables > 0 && entry.peers[0].address.is_some() {
                entry.leaving = Some(Leaving { machine: Handover::new(now), said: false });
            }
        }
        true
    }

    fn learns_from_old_process(&self) -> bool {
        self.sections.iter().any(|s| s.brain.learns_from_old_process())
    }

    fn end_all_sessions(&mut self) {
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end_session(id));
    }

    /// What the soft stop has to do now, and whether it is over.
    pub(super) fn run_soft_stop(&mut self, now: Millis) {
        let Some(stop) = &mut self.soft_stop else { return };
        if stop.hard_at.is_some_and(|at| now >= at) {
            stop.hard_at = None;
            self.log.warning("soft-stop running for too long, performing a hard-stop.");
            return self.over.notify_one();
        }
        if !stop.settled {
            return;
        }
        if !stop.quiet {
            stop.quiet =
                self.sessions.is_empty() && self.peer_listeners == 0 && self.writes.get() == 0;
            if !stop.quiet {
                // A shard with too much to do may have missed it.
                return self.end_all_sessions();
            }
        }
        for section in 0..self.sections.len() {
            let Some(leaving) = &mut self.sections[section].leaving else { continue };
            leaving.machine.handle_timeout(now);
            if let Some(ending) = leaving.machine.ending()
                && !std::mem::replace(&mut leaving.said, true)
            {
                self.section_over(section, ending, now);
            }
        }
        let mut leaving = self.sections.iter().filter_map(|s| s.leaving.as_ref());
        let Some(stop) = &mut self.soft_stop else { return };
        if leaving.all(|l| l.machine.ending().is_some()) {
            let first = stop.over.is_none();
            let since = *stop.over.get_or_insert(now);
            if first && self.handover.kind != Kind::None {
                self.log.notice(&format!("Hand-over to the new process: {}.", self.handover));
            }
            if self.commands.get() == 0 || now >= since.plus(LAST_WORDS_MS) {
                self.over.notify_one();
            }
        }
    }

    /// When [`Node::run_soft_stop`] has something to do again.
    pub(super) fn soft_stop_deadline(&self) -> Option<Millis> {
        let stop = self.soft_stop.as_ref()?;
        let next = if !stop.settled {
            None
        } else if stop.quiet {
            let leaving = self.sections.iter().filter_map(|s| s.leaving.as_ref());
            let machines = leaving.filter_map(|l| l.machine.poll_timeout());
            machines.chain(stop.over.map(|at| at.plus(LAST_WORDS_MS))).min()
        } else {
            Some(self.clock.now().plus(STOP_AGAIN_MS))
        };
        next.into_iter().chain(stop.hard_at).min()
    }

    /// Sections that look for their successor now: (section, local peer, dial).
    pub(super) fn due_successors(&mut self, now: Millis) -> Vec<(usize, usize, Dial)> {
        let mut due = Vec::new();
        if !self.soft_stop.as_ref().is_some_and(|stop| stop.quiet) {
            return due;
        }
        for (s, section) in self.sections.iter_mut().enumerate() {
            let Some(leaving) = &mut section.leaving else { continue };
            if leaving.machine.poll_dial(now) {
                match section.peers[0].link.dial_successor(now) {
                    Some(dial) => due.push((s, 0, dial)),
                    None => leaving.machine.down(now),
                }
            }
        }
        due
    }

    /// A dial to our own address came to nothing.
    pub(super) fn successor_down(&mut self, section: usize, now: Millis) {
        if let Some(leaving) = &mut self.sections[section].leaving {
            leaving.machine.down(now);
            self.poke.notify_one();
        }
    }

    /// A process on our own address has answered.
    pub(super) fn successor_answered(&mut self, section: usize, code: u32, now: Millis) {
        let Some(leaving) = &mut self.sections[section].leaving else { return };
        if leaving.machine.answered(code, now) {
            let began = self.soft_stop.as_ref().map_or(now, |stop| stop.began);
            let gap = now.since(began);
            self.handover.gap_ms = Some(self.handover.gap_ms.map_or(gap, |g| g.max(gap)));
        }
        self.poke.notify_one();
    }

    /// How long a dial to our successor may take.
    pub(super) fn successor_patience(&self, section: usize, now: Millis) -> u64 {
        let leaving = self.sections[section].leaving.as_ref();
        leaving.map_or(0, |l| l.machine.deadline().since(now).max(1))
    }

    /// Our successor has confirmed the lesson of a section.
    pub(super) fn handed_over(
        &mut self,
        section: usize,
        finished: bool,
        entries: u64,
        now: Millis,
    ) {
        let Some(leaving) = &mut self.sections[section].leaving else { return };
        leaving.machine.taught();
        let outcome = if finished { Outcome::Finished } else { Outcome::Partial };
        let took = self.soft_stop.as_ref().map_or(0, |stop| now.since(stop.began));
        self.handover.add(Kind::Protocol, outcome, entries, took);
        self.poke.notify_one();
    }

    fn section_over(&mut self, section: usize, ending: Ending, now: Millis) {
        let name = self.sections[section].name.clone();
        let why = match ending {
            // The lesson's own line says more.
            Ending::Done => return,
            Ending::TimedOut => "nobody took them in time".to_string(),
            Ending::Refused(code) => {
                format!("whoever listens on our address refuses us with status {code}")
            }
        };
        let took = self.soft_stop.as_ref().map_or(0, |stop| now.since(stop.began));
        self.handover.add(Kind::Protocol, Outcome::Failed, 0, took);
        let text = format!("Peers section {name}: tables not handed over: {why}.");
        self.log_section(section, Level::Warning, &text);
    }

    /// The old process's lesson is over.
    pub(super) fn taken_over(&mut self, section: usize, outcome: Outcome, entries: u64, ms: u64) {
        let taken = &mut self.sections[section].taken;
        // Another old process may teach behind one that was not up to date: the last one counts.
        taken.outcome = Outcome::None;
        taken.add(Kind::Protocol, outcome, entries, ms);
        let sections: Vec<HandoverNumbers> = self
            .sections
            .iter()
            .map(|s| s.taken.clone())
            .filter(|t| t.kind != Kind::None)
            .collect();
        let HandoverNumbers { gap_ms, sessions_kept, .. } = self.handover;
        self.handover = HandoverNumbers { gap_ms, sessions_kept, ..HandoverNumbers::default() };
        for taken in sections {
            self.handover.add(taken.kind, taken.outcome, taken.entries, taken.duration_ms);
        }
        let name = &self.sections[section].name;
        let text = format!("Hand-over from the old process, section {name}: {}.", self.handover);
        self.log_section(section, Level::Notice, &text);
    }

    /// Nobody waits for the old process any more: updates of remotes count from now on.
    pub(super) fn release(&mut self, section: usize) {
        if !self.waits[section].swap(false, Ordering::Relaxed) {
            return;
        }
        self.shards.bells.iter().for_each(|bell| bell.ring());
        let nothing = self.sections[section].taken.kind == Kind::None;
        if nothing && self.registry.section_len(section) > 0 {
            self.taken_over(section, Outcome::Failed, 0, 0);
        }
    }
}
