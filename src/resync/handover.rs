//! See [`crate::resync`]: the old process's side of a reload (protocol.md 6.4).
//!
//! Dials our own peer address, where the successor listens by now, and has the session teach.
//! Unlike HAProxy it does so even when the section is not up to date (the lesson then ends with
//! PARTIAL), and it does not give up at the first refused connection: the successor may still be
//! binding. Told to stop once more, it looks for the newer successor for another 5 s.

use crate::limits::{HANDOVER_MS, HANDOVER_RETRY_MS};
use crate::time::Millis;

/// How a hand-over ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The successor confirmed everything.
    Done,
    /// Nobody took the tables within 5 s.
    TimedOut,
    /// The successor refuses our name with this status.
    Refused(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Dial at this time.
    Waiting(Millis),
    Dialling,
    Teaching,
    Over(Ending),
}

/// One section's hand-over.
#[derive(Debug)]
pub struct Handover {
    state: State,
    /// Gives up then; moved while a lesson is under way.
    deadline: Millis,
}

impl Handover {
    /// Begins: we were told to stop.
    pub fn new(now: Millis) -> Handover {
        Handover { state: State::Waiting(now), deadline: now.plus(HANDOVER_MS) }
    }

    /// We were told to stop once more: another successor has come, look for it at once. (A reload
    /// names all processes there are, and so the ones that are stopping already.)
    pub fn look_again(&mut self, now: Millis) {
        if let State::Waiting(_) = self.state {
            self.state = State::Waiting(now);
        }
        self.deadline = now.plus(HANDOVER_MS);
    }

    /// Dials that are not answered by then are given up.
    pub fn deadline(&self) -> Millis {
        self.deadline
    }

    /// True: dial our own peer address now.
    pub fn poll_dial(&mut self, now: Millis) -> bool {
        let due = matches!(self.state, State::Waiting(at) if now >= at && now < self.deadline);
        if due {
            self.state = State::Dialling;
        }
        due
    }

    /// The status line came. True: established, teach. 300 is asked again, other refusals end it.
    pub fn answered(&mut self, code: u32, now: Millis) -> bool {
        if self.state != State::Dialling {
            return false;
        }
        match code {
            200 => self.state = State::Teaching,
            501..=504 => self.state = State::Over(Ending::Refused(code)),
            _ => self.state = State::Waiting(now.plus(HANDOVER_RETRY_MS)),
        }
        code == 200
    }

    /// The connection was refused, or broke before the lesson was confirmed. A broken lesson is
    /// taught again from its start.
    pub fn down(&mut self, now: Millis) {
        match self.state {
            State::Dialling => {}
            State::Teaching => self.deadline = now.plus(HANDOVER_MS),
            State::Waiting(_) | State::Over(_) => return,
        }
        self.state = State::Waiting(now.plus(HANDOVER_RETRY_MS));
    }

    /// The lesson was confirmed.
    pub fn taught(&mut self) {
        self.state = State::Over(Ending::Done);
    }

    /// Call at [`Handover::poll_timeout`] or later.
    pub fn handle_timeout(&mut self, now: Millis) {
        if matches!(self.state, State::Waiting(_)) && now >= self.deadline {
            self.state = State::Over(Ending::TimedOut);
        }
    }

    /// When to call [`Handover::poll_dial`] and [`Handover::handle_timeout`] again.
    pub fn poll_timeout(&self) -> Option<Millis> {
        match self.state {
            State::Waiting(at) => Some(at.min(self.deadline)),
            _ => None,
        }
    }

    /// A successor is being taught.
    pub fn is_teaching(&self) -> bool {
        self.state == State::Teaching
    }

    /// How it ended; `None` while it has not.
    pub fn ending(&self) -> Option<Ending> {
        match self.state {
            State::Over(ending) => Some(ending),
            _ => None,
        }
    }
}
