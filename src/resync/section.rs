//! See [`crate::resync`]: learning after a start (protocol.md 6.1).

use crate::limits::RESYNC_MS;
use crate::session::random::Random;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// `flags=` bits of `show peers`, as HAProxy 3.5 prints them.
pub mod flag {
    /// The old process's lesson is over or was not waited for.
    pub const LOCAL_DONE: u32 = 0x1;
    /// A remote's lesson is over or was not waited for.
    pub const REMOTE_DONE: u32 = 0x2;
    /// A lesson is under way.
    pub const ASSIGNED: u32 = 0x4;
    /// The wait for the old process ended without a lesson.
    pub const LOCAL_TIMEOUT: u32 = 0x0010_0000;
    /// The wait for a remote ended without a lesson.
    pub const REMOTE_TIMEOUT: u32 = 0x0020_0000;
    /// A lesson of the old process broke off.
    pub const LOCAL_ABORT: u32 = 0x0040_0000;
    /// A lesson of a remote broke off.
    pub const REMOTE_ABORT: u32 = 0x0080_0000;
    /// The old process finished.
    pub const LOCAL_FINISHED: u32 = 0x0100_0000;
    /// A remote finished.
    pub const REMOTE_FINISHED: u32 = 0x0200_0000;
    /// The old process was not up to date itself.
    pub const LOCAL_PARTIAL: u32 = 0x0400_0000;
    /// A remote was not up to date itself.
    pub const REMOTE_PARTIAL: u32 = 0x0800_0000;
    /// The old process was assigned.
    pub const LOCAL_ASSIGNED: u32 = 0x1000_0000;
    /// A remote was assigned.
    pub const REMOTE_ASSIGNED: u32 = 0x2000_0000;
}

/// A session that was established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionUp {
    /// The caller's number for it, never used again.
    pub id: u64,
    /// The peer is our own name.
    pub local: bool,
    /// They dialled us. An old process always does.
    pub accepted: bool,
    /// The peer's `shard`: 0 holds all keys, otherwise that slice (protocol.md 8).
    pub shard: u32,
}

/// What the section wants done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have this session learn.
    Learn(u64),
    /// The wait for the old process is over without its lesson; remotes are asked now.
    LocalGivenUp,
    /// The section is up to date; `taught` by a lesson, or because nobody could teach in time.
    UpToDate {
        /// False: the wait ended without a full lesson.
        taught: bool,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Remote {
    shard: u32,
    /// It answered PARTIAL, or finished its shard: not asked again in this session.
    asked: bool,
}

/// One `peers` section's learning. Times in ms.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Section {
    random: Random,
    flags: u32,
    /// Number of shards the section's keys are spread over; 0 and 1: none.
    shards: u32,
    shards_done: BTreeSet<u32>,
    has_remotes: bool,
    timer: Option<Millis>,
    /// The session that teaches us, and whether it is the old process's.
    assigned: Option<(u64, bool)>,
    remotes: BTreeMap<u64, Remote>,
    /// Up to date only because the waits ended without any lesson: the first remotes that come
    /// later are asked all the same, until one finishes. HAProxy never asks again; but what a peer
    /// has acked to our predecessor it will not send unasked (protocol.md 5.6), so a memory that
    /// was away for long would miss it for ever.
    untaught: bool,
    /// An old process has taught us something.
    heard_local: bool,
    /// Carried out at once, so that there are none between two steps.
    #[serde(skip)]
    actions: VecDeque<Action>,
}

impl Section {
    /// A section that starts now. `has_old_process`: `-sf` or `-st` named one. `remotes`: how many
    /// remote peers are configured. `shards`: the section's `shards` value, 0 when unset.
    pub fn new(
        now: Millis,
        has_old_process: bool,
        remotes: usize,
        shards: u32,
        seed: u64,
    ) -> Section {
        let mut section = Section {
            random: Random::new(seed),
            flags: 0,
            shards,
            shards_done: BTreeSet::new(),
            has_remotes: remotes > 0,
            timer: Some(now.plus(RESYNC_MS)),
            assigned: None,
            remotes: BTreeMap::new(),
            untaught: false,
            heard_local: false,
            actions: VecDeque::new(),
        };
        if !has_old_process {
            section.give_up_local(now);
        }
        section
    }

    /// The number of remote peers that are configured is another one from now on.
    pub fn set_remotes(&mut self, remotes: usize) {
        self.has_remotes = remotes > 0;
    }

    /// A session was established.
    pub fn session_up(&mut self, up: SessionUp, now: Millis) {
        if up.local {
            if up.accepted && self.waits_for_local() && self.assigned.is_none() {
                self.assign(up.id, true);
            }
            return;
        }
        self.has_remotes = true;
        self.remotes.insert(up.id, Remote { shard: up.shard, asked: false });
        if self.waits_for_local() && self.timer.is_some_and(|t| now >= t) {
            // The wait is over, only the timer has not been looked at yet.
            self.give_up_local(now);
        }
        self.ask_remote();
    }

    /// A session ended.
    pub fn session_down(&mut self, id: u64, now: Millis) {
        self.remotes.remove(&id);
        if let Some((assigned, local)) = self.assigned
            && assigned == id
        {
            self.flags |= if local { flag::LOCAL_ABORT } else { flag::REMOTE_ABORT };
            self.unassign(now);
            self.ask_remote();
        }
    }

    /// A session's lesson ended: FINISHED when `finished`, else PARTIAL. Sessions that were not
    /// assigned change nothing.
    pub fn lesson_end(&mut self, id: u64, finished: bool, now: Millis) {
        let Some((assigned, local)) = self.assigned else { return };
        if assigned != id {
            return;
        }
        self.unassign(now);
        if local {
            self.local_end(finished);
        } else {
            self.remote_end(id, finished);
        }
        self.ask_remote();
    }

    fn local_end(&mut self, finished: bool) {
        if finished {
            self.flags |= flag::LOCAL_FINISHED;
            self.done(true);
        } else {
            // Another session of an old process may come until the timer ends.
            self.flags |= flag::LOCAL_PARTIAL;
        }
    }

    fn remote_end(&mut self, id: u64, finished: bool) {
        let shard = match self.remotes.get_mut(&id) {
            Some(remote) => {
                remote.asked = true;
                remote.shard
            }
            None => 0,
        };
        if !finished {
            self.flags |= flag::REMOTE_PARTIAL;
            return;
        }
        self.flags |= flag::REMOTE_FINISHED;
        self.untaught = false;
        if shard != 0 && shard <= self.shards {
            self.shards_done.insert(shard);
        }
        if shard == 0 || self.shards < 2 || self.shards_done.len() as u64 >= u64::from(self.shards)
        {
            self.done(true);
        }
    }

    /// Call at [`Section::poll_timeout`] or later.
    pub fn handle_timeout(&mut self, now: Millis) {
        if self.timer.is_none_or(|t| now < t) {
            return;
        }
        if self.waits_for_local() {
            self.give_up_local(now);
            self.ask_remote();
        } else {
            self.flags |= flag::REMOTE_TIMEOUT;
            self.done(false);
        }
    }

    /// When [`Section::handle_timeout`] has something to do. There is none during a lesson, however
    /// long (protocol.md 6.1), nor once up to date.
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.timer
    }

    /// The next thing to do. Poll until `None` after every call.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Lessons we teach end with FINISHED (true) or PARTIAL (false).
    pub fn up_to_date(&self) -> bool {
        self.flags & (flag::LOCAL_DONE | flag::REMOTE_DONE) == flag::LOCAL_DONE | flag::REMOTE_DONE
    }

    /// The lesson for our successor ends with FINISHED (true) or PARTIAL (false). Not the same as
    /// [`Section::up_to_date`]: what nobody has taught us yet, our successor must still ask for.
    pub fn may_hand_over_finished(&self) -> bool {
        self.up_to_date() && !(self.untaught && self.has_remotes)
    }

    /// Remotes' updates wait, since what an old process is going to teach is older and must not
    /// overwrite them, and so do their requests for a lesson. Not once one has taught us something,
    /// even if it was not up to date: what we hold must not grow old meanwhile, since our lessons
    /// would then overwrite what those who ask have changed themselves.
    pub fn holds_remotes(&self) -> bool {
        self.waits_for_local() && !self.heard_local
    }

    /// A session that taught us is about to end its lesson, behind so many entries.
    pub fn learned(&mut self, id: u64, entries: u64) {
        self.heard_local |= entries > 0 && self.assigned == Some((id, true));
    }

    /// An old process is teaching us.
    pub fn learns_from_old_process(&self) -> bool {
        self.assigned.is_some_and(|(_, local)| local)
    }

    /// `flags=` of `show peers`.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// `resync_timeout=` of `show peers`; `None` when none is running.
    pub fn resync_timeout(&self) -> Option<Millis> {
        self.timer
    }

    /// The session we learn from.
    pub fn learning_from(&self) -> Option<u64> {
        self.assigned.map(|(id, _)| id)
    }

    fn waits_for_local(&self) -> bool {
        self.flags & flag::LOCAL_DONE == 0
    }

    fn give_up_local(&mut self, now: Millis) {
        self.flags |= flag::LOCAL_DONE | flag::LOCAL_TIMEOUT;
        self.timer = Some(now.plus(RESYNC_MS));
        self.actions.push_back(Action::LocalGivenUp);
        if !self.has_remotes {
            // Nobody to wait for (HAProxy >= 3.0).
            self.done(false);
        }
    }

    fn assign(&mut self, id: u64, local: bool) {
        self.assigned = Some((id, local));
        self.timer = None;
        self.flags |= flag::ASSIGNED;
        self.flags |= if local { flag::LOCAL_ASSIGNED } else { flag::REMOTE_ASSIGNED };
        self.actions.push_back(Action::Learn(id));
    }

    fn unassign(&mut self, now: Millis) {
        self.assigned = None;
        self.flags &= !flag::ASSIGNED;
        self.timer = (!self.up_to_date()).then(|| now.plus(RESYNC_MS));
    }

    /// Assigns one of the remotes not found wanting, at random.
    fn ask_remote(&mut self) {
        let wants = !self.up_to_date() || self.untaught;
        if self.waits_for_local() || !wants || self.assigned.is_some() {
            return;
        }
        let wanted = |r: &Remote| !r.asked && !self.shards_done.contains(&r.shard);
        let ids: Vec<u64> =
            self.remotes.iter().filter(|(_, r)| wanted(r)).map(|(&i, _)| i).collect();
        let pick = self.random.below(ids.len() as u64) as usize;
        if let Some(&id) = ids.get(pick) {
            self.assign(id, false);
        }
    }

    fn done(&mut self, taught: bool) {
        if !self.up_to_date() {
            self.flags |= flag::LOCAL_DONE | flag::REMOTE_DONE;
            self.timer = None;
            // An old process that was not up to date does not count: nobody taught it, either.
            self.untaught = !taught && self.flags & flag::REMOTE_PARTIAL == 0;
            self.actions.push_back(Action::UpToDate { taught });
        }
    }
}
