//! An established session on its way to another process.
//!
//! Everything a session knows, as plain data. Made by the old process while the session is at rest
//! (nothing waits for a shard, nothing is queued to be sent), turned into a session again by the
//! new one. Definitions travel as the peer wrote them, and are looked up again: layouts belong to a
//! process. Rule: a state that does not fit is an error, never half a session.

use super::established::{Push, Session};
use super::incoming::{Incoming, RxTable};
use super::ledger::{Flight, Ledger};
use super::lesson::{Learn, Teach};
use super::rounds::{Round, Rounds};
use super::status::Counters;
use super::timers::Timers;
use super::{Layout, Refusal, SessionParams, Tables};
use crate::limits::{REFUSALS_REPORTED_MAX, SESSION_TABLES_MAX};
use crate::time::Millis;
use crate::wire::dictionary::RxDictionary;
use crate::wire::{DecodeError, Definition};
use serde::{Deserialize, Serialize};
use std::collections::{HashSet, VecDeque};
use thiserror::Error;

/// A table the peer has defined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RxState {
    remote_id: Option<i32>,
    last_get: u32,
    last_acked: u32,
    running: u32,
    /// The DEFINE as received.
    payload: Vec<u8>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct IncomingState {
    tables: Vec<RxState>,
    current: Option<usize>,
    dictionary: Vec<Option<Vec<u8>>>,
    reported: Vec<Vec<u8>>,
}

/// See the module's head.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionState {
    params: SessionParams,
    timers: Timers,
    incoming: IncomingState,
    next_round: u64,
    ledger: Ledger,
    flight: Flight,
    learn: Learn,
    teach: Teach,
    lessons: u32,
    push: Push,
    defined_out: Option<usize>,
    origins: Vec<u32>,
    counters: Counters,
    partial: usize,
    confirms_owed: u32,
    holding: bool,
    held: bool,
}

/// A session that cannot leave now.
///
/// *Effect:* none; it can be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotAtRest {
    /// Rounds wait to be applied.
    #[error("{0} rounds are not applied")]
    Rounds(usize),
    /// Outputs wait to be polled.
    #[error("outputs wait")]
    Output,
    /// It is over.
    #[error("it is closed")]
    Closed,
}

/// A state that makes no session.
///
/// *Effect:* the hand-over it came with is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadState {
    /// A definition that cannot be read.
    #[error("definition: {0}")]
    Definition(#[from] DecodeError),
    /// A definition that was followed there is not followed here.
    #[error("definition: {0}")]
    Refused(#[from] Refusal),
    /// Numbers that do not fit each other.
    #[error("{0}")]
    Inconsistent(&'static str),
}

impl SessionState {
    /// What the peer has confirmed: all that stays of a session that does not go on.
    pub fn into_ledger(self) -> Ledger {
        self.ledger
    }
}

impl<L: Layout> Session<L> {
    /// The session as data.
    ///
    /// # Errors
    /// It is not at rest.
    pub fn export(&self) -> Result<SessionState, NotAtRest> {
        if self.closed {
            return Err(NotAtRest::Closed);
        }
        if !self.rounds.is_empty() || !self.round.is_empty() {
            return Err(NotAtRest::Rounds(self.rounds.len()));
        }
        if !self.output.is_empty() {
            return Err(NotAtRest::Output);
        }
        Ok(SessionState {
            params: self.params,
            timers: self.timers.clone(),
            incoming: self.incoming.export(),
            next_round: self.rounds.next(),
            ledger: self.ledger.clone(),
            flight: self.flight.clone(),
            learn: self.learn,
            teach: self.teach.clone(),
            lessons: self.lessons,
            push: self.push.clone(),
            defined_out: self.defined_out,
            origins: self.origins.clone(),
            counters: self.counters,
            partial: self.partial,
            confirms_owed: self.confirms_owed,
            holding: self.holding,
            held: self.held,
        })
    }

    /// The session that `state` describes.
    ///
    /// # Errors
    /// It does not fit our tables, or itself.
    pub fn import<T: Tables<Layout = L>>(
        state: SessionState,
        tables: &mut T,
    ) -> Result<Session<L>, BadState> {
        Ok(Session {
            params: state.params,
            output: VecDeque::new(),
            waiting: 0,
            timers: state.timers,
            incoming: Incoming::import(state.incoming, tables)?,
            round: Round::default(),
            rounds: Rounds::starting_at(state.next_round),
            ledger: state.ledger,
            flight: state.flight,
            learn: state.learn,
            teach: state.teach,
            lessons: state.lessons,
            push: state.push,
            defined_out: state.defined_out,
            origins: state.origins,
            counters: state.counters,
            partial: state.partial,
            confirms_owed: state.confirms_owed,
            holding: state.holding,
            held: state.held,
            closed: false,
        })
    }

    /// The session stood still for a while, in this process or on its way from another, and goes
    /// on: the peer was not heard because it was not read.
    pub fn handle_resumed(&mut self, now: Millis) {
        self.timers.resumed(now);
    }
}

impl<L: Layout> Incoming<L> {
    fn export(&self) -> IncomingState {
        let table = |t: &RxTable<L>| RxState {
            remote_id: t.remote_id,
            last_get: t.last_get,
            last_acked: t.last_acked,
            running: t.running,
            payload: t.payload.to_vec(),
        };
        IncomingState {
            tables: self.tables.iter().map(table).collect(),
            current: self.current,
            dictionary: self.dictionary.slots().map(|s| s.map(<[u8]>::to_vec)).collect(),
            reported: self.reported.iter().cloned().collect(),
        }
    }

    fn import<T: Tables<Layout = L>>(
        state: IncomingState,
        tables: &mut T,
    ) -> Result<Incoming<L>, BadState> {
        let wrong = |what| Err(BadState::Inconsistent(what));
        if state.tables.len() > SESSION_TABLES_MAX || state.reported.len() > REFUSALS_REPORTED_MAX {
            return wrong("more tables than a session may have");
        }
        if state.current.is_some_and(|slot| slot >= state.tables.len()) {
            return wrong("the current table is none of its tables");
        }
        let mut incoming = Incoming {
            current: state.current,
            dictionary: RxDictionary::from_slots(state.dictionary),
            reported: HashSet::from_iter(state.reported),
            ..Incoming::default()
        };
        for (slot, t) in state.tables.into_iter().enumerate() {
            let definition = Definition::decode(&t.payload)?;
            let layout = tables.define(&definition)?;
            let table = layout.table();
            if incoming.by_table.insert(table, slot).is_some() {
                return wrong("two definitions of one table");
            }
            if let Some(id) = t.remote_id
                && incoming.by_id.insert(id, slot).is_some()
            {
                return wrong("two tables of one id");
            }
            incoming.tables.push(RxTable {
                table,
                remote_id: t.remote_id,
                data_types: definition.data_types,
                last_get: t.last_get,
                last_acked: t.last_acked,
                running: t.running,
                dirty: false,
                layout,
                payload: t.payload.into(),
            });
        }
        Ok(incoming)
    }
}
