//! A session's two clocks: our heartbeat and the peer's silence (protocol.md 2.7).
//!
//! Owned by the established session. Rule: the peer hears from us at least every 3 s, and a peer
//! that was silent for 5 s while we were awake is given up.

use crate::limits::{HEARTBEAT_MS, SILENCE_GRACE_MS, SILENCE_MS};
use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// See the module's head. Times in ms.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timers {
    heartbeat: Millis,
    silence: Millis,
    /// We ourselves were late once since the peer was last heard.
    late: bool,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// Send a heartbeat.
    Heartbeat,
    /// The peer has been silent too long.
    Silence,
}

impl Timers {
    /// A session that starts now.
    pub fn new(now: Millis) -> Timers {
        Timers { heartbeat: now.plus(HEARTBEAT_MS), silence: now.plus(SILENCE_MS), late: false }
    }

    /// Something was sent.
    #[inline]
    pub fn sent(&mut self, now: Millis) {
        self.heartbeat = now.plus(HEARTBEAT_MS);
    }

    /// At least one new byte was received.
    #[inline]
    pub fn heard(&mut self, now: Millis) {
        self.silence = now.plus(SILENCE_MS);
        self.late = false;
    }

    /// We did not read for a while, and go on now: the peer's bytes may wait to be read.
    pub fn resumed(&mut self, now: Millis) {
        self.silence = self.silence.max(now.plus(SILENCE_GRACE_MS));
    }

    /// When [`Timers::due`] may have something.
    pub fn next(&self) -> Millis {
        self.heartbeat.min(self.silence)
    }

    /// What is due now. A silence that we notice late says that we slept (stopped, starved): bytes
    /// may be waiting unread, so the peer gets a little more time, once.
    pub fn due(&mut self, now: Millis) -> Due {
        if now >= self.silence {
            if self.late || now.since(self.silence) < SILENCE_GRACE_MS {
                return Due::Silence;
            }
            self.late = true;
            self.silence = now.plus(SILENCE_GRACE_MS);
        }
        if now >= self.heartbeat { Due::Heartbeat } else { Due::Nothing }
    }

    /// When the next heartbeat of ours is due.
    pub fn heartbeat_at(&self) -> Millis {
        self.heartbeat
    }
}
