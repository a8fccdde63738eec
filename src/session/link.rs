//! One peer over all its connections: which one counts, and when to dial the next (protocol.md 2.5,
//! 2.6).
//!
//! Owned by the coordinator, one a configured peer. Connections are told apart by tickets, so that
//! news of one that was replaced changes nothing. Rules: at most one connection a peer counts, the
//! last one wins; our own name is dialled for a [`crate::resync::Handover`] only.
//!
//! Deviation from HAProxy, which never dials again after a status of 300 or 5xx: we do, after 5 s
//! doubling to 60 s, so that correcting the other side's configuration is enough.

use super::random::Random;
use crate::limits::{
    COLLISION_DELAY_MIN_MS, COLLISION_DELAY_SPREAD_MS, RECONNECT_MS, REFUSED_BACKOFF_MAX_MS,
};
use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// Names one connection of a link.
pub type Ticket = u64;

/// Stage of the connection that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Connecting,
    Hello,
    Established,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Current {
    ticket: Ticket,
    stage: Stage,
    accepted: bool,
}

/// A dial to begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Names the connection.
    pub ticket: Ticket,
    /// Minor protocol version for the hello.
    pub minor: u8,
}

/// What to do with a valid hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Answer 200.
    Admit {
        /// Names the connection.
        ticket: Ticket,
        /// Close this one without a word; it no longer counts.
        replaces: Option<Ticket>,
    },
    /// Answer 300 and close: our own name already has a session.
    TryAgain,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// The peer closed it, or it broke.
    Lost,
    /// Nothing was heard for 5 s.
    Silence,
    /// The peer sent something that cannot be.
    BadInput,
    /// We closed it on purpose.
    Ours,
}

/// Counts for `show peers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCounters {
    /// Connections begun or accepted.
    pub new_conn: u64,
    /// Valid hellos while a connection existed.
    pub coll: u64,
    /// Sessions closed for silence.
    pub no_hbt: u64,
    /// Sessions closed for bad input.
    pub proto_err: u64,
}

/// See the module's head.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Link {
    local: bool,
    random: Random,
    status: u32,
    reconnect: Option<Millis>,
    backoff_ms: u64,
    minor: u8,
    current: Option<Current>,
    tickets: Ticket,
    handshake_at: Option<Millis>,
    counters: LinkCounters,
}

impl Link {
    /// A link without connections. `local`: the peer is ourselves; it is accepted and never
    /// dialled.
    pub fn new(local: bool, seed: u64) -> Link {
        Link {
            local,
            random: Random::new(seed),
            status: 0,
            reconnect: None,
            backoff_ms: RECONNECT_MS,
            minor: 1,
            current: None,
            tickets: 0,
            handshake_at: None,
            counters: LinkCounters::default(),
        }
    }

    /// Begins a dial if one is due.
    pub fn poll_dial(&mut self, now: Millis) -> Option<Dial> {
        let due = !self.local && self.current.is_none() && self.reconnect.is_none_or(|t| now >= t);
        due.then(|| {
            self.reconnect = Some(now.plus(RECONNECT_MS));
            self.status = 100;
            self.handshake_at = Some(now);
            let ticket = self.begin(Stage::Connecting, false);
            Dial { ticket, minor: self.minor }
        })
    }

    /// Begins a dial to our own name: we are the old process, and [`crate::resync::Handover`] says
    /// when. `None` while a connection exists.
    pub fn dial_successor(&mut self, now: Millis) -> Option<Dial> {
        if !self.local || self.current.is_some() {
            return None;
        }
        self.status = 100;
        self.handshake_at = Some(now);
        let ticket = self.begin(Stage::Connecting, false);
        Some(Dial { ticket, minor: 1 })
    }

    /// When [`Link::poll_dial`] will have something; `None` while a connection exists.
    pub fn poll_timeout(&self) -> Option<Millis> {
        if self.local || self.current.is_some() {
            return None;
        }
        Some(self.reconnect.unwrap_or(Millis(0)))
    }

    /// TCP is up and the hello goes out.
    pub fn connected(&mut self, ticket: Ticket) {
        if let Some(current) = self.counting(ticket) {
            current.stage = Stage::Hello;
            self.status = 110;
        }
    }

    /// The status line of a dialled connection. True: the session is established. False: close.
    pub fn answered(&mut self, ticket: Ticket, code: u32, now: Millis) -> bool {
        let Some(current) = self.counting(ticket) else { return false };
        if code == 200 {
            current.stage = Stage::Established;
            self.established(now);
            return true;
        }
        self.status = code;
        self.current = None;
        if code == 502 && self.minor > 0 {
            // It may speak 2.0; no reason to wait longer for that.
            self.minor = 0;
            self.reconnect = Some(now.plus(RECONNECT_MS));
        } else {
            self.reconnect = Some(now.plus(self.backoff_ms));
            self.backoff_ms = (self.backoff_ms * 2).min(REFUSED_BACKOFF_MAX_MS);
        }
        false
    }

    /// A valid hello of this peer came in; `minor` is the version it announced.
    pub fn accept(&mut self, minor: u8, now: Millis) -> Admission {
        let replaces = self.current.map(|c| c.ticket);
        if replaces.is_some() {
            if self.local {
                return Admission::TryAgain;
            }
            self.counters.coll += 1;
        }
        self.minor = minor;
        let ticket = self.begin(Stage::Established, true);
        self.established(now);
        if replaces.is_some() {
            // Both sides may have done the same at once and each closed the other's choice: whoever
            // draws the shorter delay dials first.
            self.reconnect = Some(self.shortly(now));
        }
        Admission::Admit { ticket, replaces }
    }

    /// A heartbeat came.
    pub fn heard(&mut self, ticket: Ticket, now: Millis) {
        if self.counting(ticket).is_some() {
            self.reconnect = Some(now.plus(RECONNECT_MS));
        }
    }

    /// A connection ended, at any stage.
    pub fn down(&mut self, ticket: Ticket, why: Down, now: Millis) {
        if self.counting(ticket).is_none() {
            return;
        }
        self.current = None;
        match why {
            Down::Silence => self.counters.no_hbt += 1,
            Down::BadInput => self.counters.proto_err += 1,
            Down::Lost => return,
            Down::Ours => {}
        }
        self.reconnect = Some(self.shortly(now));
    }

    /// True when `ticket` is the connection that counts.
    pub fn counts(&self, ticket: Ticket) -> bool {
        self.current.is_some_and(|c| c.ticket == ticket)
    }

    /// The connection that counts, dialling ones included: "active" in `show peers`.
    pub fn current(&self) -> Option<Ticket> {
        self.current.map(|c| c.ticket)
    }

    /// True when the connection that counts is an established session.
    pub fn is_established(&self) -> bool {
        self.current.is_some_and(|c| c.stage == Stage::Established)
    }

    /// True when the connection that counts was accepted, false when dialled.
    pub fn is_accepted(&self) -> bool {
        self.current.is_some_and(|c| c.accepted)
    }

    /// Last status for `show peers`: 0, 100, 110, 200, 300 or 5xx.
    pub fn status(&self) -> u32 {
        self.status
    }

    /// Minor protocol version of the peer, as last known.
    pub fn minor(&self) -> u8 {
        self.minor
    }

    /// The reconnect timer, whether or not it matters now.
    pub fn reconnect_at(&self) -> Option<Millis> {
        self.reconnect
    }

    /// When a session was last established, or an attempt at one began.
    pub fn handshake_at(&self) -> Option<Millis> {
        self.handshake_at
    }

    /// Counts.
    pub fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    fn begin(&mut self, stage: Stage, accepted: bool) -> Ticket {
        self.tickets += 1;
        self.counters.new_conn += 1;
        self.current = Some(Current { ticket: self.tickets, stage, accepted });
        self.tickets
    }

    fn established(&mut self, now: Millis) {
        self.status = 200;
        self.backoff_ms = RECONNECT_MS;
        self.handshake_at = Some(now);
        if self.reconnect.is_none_or(|t| t < now) {
            self.reconnect = Some(now.plus(RECONNECT_MS));
        }
    }

    fn counting(&mut self, ticket: Ticket) -> Option<&mut Current> {
        self.current.as_mut().filter(|c| c.ticket == ticket)
    }

    fn shortly(&mut self, now: Millis) -> Millis {
        now.plus(COLLISION_DELAY_MIN_MS + self.random.below(COLLISION_DELAY_SPREAD_MS))
    }
}
