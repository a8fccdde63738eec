//! What a peer has told this session about its tables, and which of its updates are valid.
//!
//! Owns the peer's definitions, the current table, the receiving dictionary and each table's ids.
//! Called by the established session with one message at a time. Rules: an update reaches the sink
//! only when all of it decodes; what is ignored moves no id, so it is never acked (protocol.md
//! 5.3).

use super::{Layout, Received, Refusal, Sink, Tables};
use crate::limits::{REFUSALS_REPORTED_MAX, SESSION_TABLES_MAX};
use crate::wire::dictionary::RxDictionary;
use crate::wire::update::decode_values;
use crate::wire::{DecodeError, Definition, Update, UpdateForm, Value, varint};
use ahash::AHashMap;
use std::collections::HashSet;
use std::sync::Arc;

/// One table the peer has defined.
#[derive(Debug)]
pub struct RxTable<L> {
    /// Our table, from 0.
    pub table: usize,
    /// The peer's id for it; `None` once it gave the id to another table.
    pub remote_id: Option<i32>,
    /// Data types of the last definition, unknown ones included.
    pub data_types: u64,
    /// Last id received that may be acked; 0 at first, which is why a first id of 0 never is.
    pub last_get: u32,
    /// Last id acked.
    pub last_acked: u32,
    /// Last id of any update, which implicit ids continue.
    pub(super) running: u32,
    /// `last_get` moved since the round was closed.
    pub(super) dirty: bool,
    pub(super) layout: Arc<L>,
    /// The DEFINE as received, to know a repetition.
    pub(super) payload: Box<[u8]>,
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Given to the sink.
    Yes,
    /// No table is selected: ignored and not acked.
    NoTable,
}

/// What became of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defined {
    /// Its table is selected.
    Yes,
    /// It is not followed; `first` when the name was not reported yet.
    Refused {
        /// Table name, cut to 64 bytes.
        name: Vec<u8>,
        /// Why.
        refusal: Refusal,
        /// Report it.
        first: bool,
    },
}

/// See the module's head.
#[derive(Debug)]
pub struct Incoming<L> {
    pub(super) tables: Vec<RxTable<L>>,
    /// Slot in `tables` by the peer's id. At most one id a table, so bounded as `tables` is.
    pub(super) by_id: AHashMap<i32, usize>,
    /// Slot in `tables` by our table.
    pub(super) by_table: AHashMap<usize, usize>,
    pub(super) current: Option<usize>,
    pub(super) dictionary: RxDictionary,
    pub(super) dirty: Vec<usize>,
    pub(super) reported: HashSet<Vec<u8>>,
}

impl<L> Default for Incoming<L> {
    fn default() -> Self {
        Incoming {
            tables: Vec::new(),
            by_id: AHashMap::new(),
            by_table: AHashMap::new(),
            current: None,
            dictionary: RxDictionary::default(),
            dirty: Vec::new(),
            reported: HashSet::new(),
        }
    }
}

impl<L: Layout> Incoming<L> {
    /// A DEFINE: selects its table, or none when it is refused.
    pub fn define<T: Tables<Layout = L>>(
        &mut self,
        payload: &[u8],
        tables: &mut T,
    ) -> Result<Defined, DecodeError> {
        // HAProxy repeats a table's definition at every change of table.
        if let Some(slot) = self.current_or_known(payload) {
            self.current = Some(slot);
            return Ok(Defined::Yes);
        }
        self.current = None;
        let definition = Definition::decode(payload)?;
        if let Some(slot) = self.by_id.remove(&definition.id) {
            self.tables[slot].remote_id = None;
        }
        Ok(match self.admit(&definition, tables) {
            Ok(layout) => {
                self.bind(&definition, payload, layout);
                Defined::Yes
            }
            Err(refusal) => self.refused(definition.name, refusal),
        })
    }

    fn current_or_known(&self, payload: &[u8]) -> Option<usize> {
        let id =
            crate::wire::varint::Reader::new(payload).varint(crate::wire::What::TableId).ok()?;
        let slot = *self.by_id.get(&(id as u32 as i32))?;
        (*self.tables[slot].payload == *payload).then_some(slot)
    }

    fn admit<T: Tables<Layout = L>>(
        &self,
        definition: &Definition,
        tables: &mut T,
    ) -> Result<Arc<L>, Refusal> {
        if !definition.is_usable() {
            return Err(Refusal::BadTail);
        }
        let layout = tables.define(definition)?;
        let known = self.by_table.contains_key(&layout.table());
        if !known && self.tables.len() >= SESSION_TABLES_MAX {
            return Err(Refusal::TooMany);
        }
        Ok(layout)
    }

    fn bind(&mut self, definition: &Definition, payload: &[u8], layout: Arc<L>) {
        let table = layout.table();
        let slot = match self.by_table.get(&table) {
            Some(&slot) => slot,
            None => {
                self.tables.push(RxTable {
                    table,
                    remote_id: None,
                    data_types: 0,
                    last_get: 0,
                    last_acked: 0,
                    running: 0,
                    dirty: false,
                    layout: layout.clone(),
                    payload: Box::default(),
                });
                self.by_table.insert(table, self.tables.len() - 1);
                self.tables.len() - 1
            }
        };
        let t = &mut self.tables[slot];
        if let Some(old) = t.remote_id.replace(definition.id) {
            self.by_id.remove(&old);
        }
        t.layout = layout;
        t.data_types = definition.data_types;
        t.payload = payload.into();
        self.by_id.insert(definition.id, slot);
        self.current = Some(slot);
    }

    fn refused(&mut self, mut name: Vec<u8>, refusal: Refusal) -> Defined {
        name.truncate(64);
        let room = self.reported.len() < REFUSALS_REPORTED_MAX;
        let first = room && self.reported.insert(name.clone());
        Defined::Refused { name, refusal, first }
    }

    /// A SWITCH. An id that was not defined selects nothing. True: a table is selected.
    pub fn switch(&mut self, id: i32) -> bool {
        self.current = self.by_id.get(&id).copied();
        self.current.is_some()
    }

    /// An update for the current table. `ackable` is false while a lesson is learned.
    pub fn update(
        &mut self,
        form: UpdateForm,
        payload: &[u8],
        base: &[u8],
        ackable: bool,
        sink: &mut impl Sink<L>,
    ) -> Result<Taken, DecodeError> {
        let Some(slot) = self.current else { return Ok(Taken::NoTable) };
        let t = &mut self.tables[slot];
        let update = Update::decode(form, payload, t.layout.key_shape())?;
        let mut server_key = None;
        let dictionary = &mut self.dictionary;
        if !t.layout.varints().is_some_and(|n| varint::begins_with(update.values, n)) {
            decode_values(update.values, t.layout.steps(), |_, _, value| {
                if let Value::Dict(v) = value {
                    server_key = dictionary.resolve(v);
                }
            })?;
        }
        let uid = update.uid.unwrap_or_else(|| t.running.wrapping_add(1));
        t.running = uid;
        if ackable {
            t.last_get = uid;
            if !t.dirty {
                t.dirty = true;
                self.dirty.push(slot);
            }
        }
        sink.update(Received {
            layout: &t.layout,
            uid,
            expire_ms: update.expire_ms,
            key: update.key,
            key_at: offset_in(base, update.key),
            values: update.values,
            values_at: offset_in(base, update.values),
            server_key,
        });
        Ok(Taken::Yes)
    }

    /// Ids received since the last call, one a table: (slot, id).
    pub fn take_acks(&mut self) -> Vec<(usize, u32)> {
        let tables = &mut self.tables;
        let mut take = |slot: usize| {
            tables[slot].dirty = false;
            (slot, tables[slot].last_get)
        };
        self.dirty.drain(..).map(&mut take).collect()
    }

    /// Everything up to `uid` of the table in `slot` is applied: gives the peer's id for it when an
    /// ack is due.
    pub fn ack_due(&mut self, slot: usize, uid: u32) -> Option<i32> {
        let t = self.tables.get_mut(slot)?;
        let id = t.remote_id?;
        if t.last_acked == uid {
            return None;
        }
        t.last_acked = uid;
        Some(id)
    }

    /// Tables the peer has defined, in that order.
    pub fn tables(&self) -> &[RxTable<L>] {
        &self.tables
    }

    /// The table the peer's updates go to now.
    pub fn current(&self) -> Option<&RxTable<L>> {
        self.current.and_then(|slot| self.tables.get(slot))
    }

    /// Server names the peer has sent.
    pub fn dictionary(&self) -> &RxDictionary {
        &self.dictionary
    }
}

/// Where `part`, which borrows from `base`, starts in it.
fn offset_in(base: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(base.as_ptr().addr())
}
