//! Local changes on their way out: each owner encodes what changed, once for all peers that stand
//! at the same place, and sends it to the homes of their sessions.

use super::message::{ConnKey, KeyFilter, Message, Subscribe};
use super::parts::Parts;
use super::registry::Table;
use crate::Millis;
use crate::engine::mesh::MeshEnd;
use crate::limits::{CATCH_UP_WAIT_MS, CHUNK_BYTES, CHUNK_CREDITS, DICTIONARY_SLOTS, TICK_ROWS};
use crate::session::ChangeBatch;
use crate::table::{Entry, ScanCursor, TablePart, Timing, Trimmed, encode_update, peer_shard};
use crate::wire::DataType;
use crate::wire::dictionary::{TxDictionary, TxDictionaryState};
use ahash::AHashMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A session that takes this shard's changes.
struct Subscriber {
    conn: ConnKey,
    epoch: u32,
    section: usize,
    filter: Option<KeyFilter>,
    /// The peer takes remaining lifetimes.
    timed: bool,
    credits: u32,
    /// By table of the section: the next log position to send.
    cursors: Vec<u64>,
    dictionary: TxDictionary,
    /// A table whose log has forgotten the cursor is sent whole.
    catching_up: Option<CatchUp>,
    /// No table is sent whole before this.
    patient_until: Millis,
}

#[derive(Clone, Serialize, Deserialize)]
struct CatchUp {
    index: usize,
    scan: ScanCursor,
    /// Log position to go on from: that of the newest change when the scan began.
    resume: u64,
}

/// A subscriber on its way to another process.
#[derive(Serialize, Deserialize)]
pub struct SubscriberState {
    /// Its session.
    pub conn: ConnKey,
    epoch: u32,
    /// The session's section.
    pub section: usize,
    filter: Option<KeyFilter>,
    timed: bool,
    credits: u32,
    cursors: Vec<u64>,
    dictionary: TxDictionaryState,
    catching_up: Option<CatchUp>,
}

#[derive(Clone, Default)]
struct Encoded {
    bytes: Bytes,
    updates: u32,
    first_uid: u32,
    last_uid: u32,
    /// Position the peer has confirmed once it acks `last_uid`.
    end: u64,
    /// Where to go on.
    cursor: u64,
}

/// Server names by the id they were sent under.
pub type Names = Vec<(u8, Vec<u8>)>;

/// All subscribers of a shard.
pub struct Flush {
    /// Rows looked at for one batch.
    rows: usize,
    subscribers: Vec<Subscriber>,
    /// Something may have to be sent: a change, a new subscriber, a credit.
    pending: bool,
    /// Something must be looked at again then.
    again_at: Option<Millis>,
    /// What this run has encoded, for the next subscriber at the same table and position.
    shared: AHashMap<(usize, u64), Encoded>,
    /// Updates that could not be encoded for a peer.
    pub skipped: u64,
}

/// A part of the 128 dictionary ids for each shard, so that their encoders never clash in one
/// session.
pub fn own_dictionary(shard: usize, shards: usize) -> TxDictionary {
    let share = (DICTIONARY_SLOTS / shards).max(1);
    let first = (shard * share) % DICTIONARY_SLOTS + 1;
    TxDictionary::with_ids(first as u8..(first + share) as u8)
}

/// True when `entry` is for a peer with this filter.
pub fn passes(filter: Option<KeyFilter>, table: &Table, entry: &Entry<'_>) -> bool {
    filter.is_none_or(|f| {
        let spec = &table.spec;
        peer_shard(entry.key(), spec.key_type, &spec.name, f.shards) == f.shard
    })
}

impl Flush {
    /// None yet. `at_once`: most updates in one batch.
    pub fn new(at_once: Option<u32>) -> Flush {
        let rows = at_once.map_or(TICK_ROWS, |n| TICK_ROWS.min(n as usize).max(1));
        let (subscribers, shared) = (Vec::new(), AHashMap::new());
        Flush { rows, subscribers, pending: false, again_at: None, shared, skipped: 0 }
    }

    /// A session starts to take changes; replaces its earlier subscription.
    pub fn subscribe(&mut self, wish: Subscribe, shard: usize, shards: usize, now: Millis) {
        self.unsubscribe(wish.conn);
        self.pending = true;
        let fresh = wish.from.iter().all(|&position| position == 0);
        let patience_ms = if fresh { CATCH_UP_WAIT_MS } else { 0 };
        self.subscribers.push(Subscriber {
            conn: wish.conn,
            epoch: wish.epoch,
            section: wish.section,
            filter: wish.filter,
            timed: wish.timed,
            credits: CHUNK_CREDITS,
            cursors: wish.from,
            dictionary: own_dictionary(shard, shards),
            catching_up: None,
            patient_until: now.plus(patience_ms),
        });
    }

    /// A session takes no more changes.
    pub fn unsubscribe(&mut self, conn: ConnKey) {
        self.subscribers.retain(|s| s.conn != conn);
    }

    /// A batch of ours is on the wire.
    pub fn credit(&mut self, conn: ConnKey) {
        if let Some(s) = self.subscribers.iter_mut().find(|s| s.conn == conn) {
            s.credits = (s.credits + 1).min(CHUNK_CREDITS);
            self.pending = true;
        }
    }

    /// All subscribers, for another process.
    pub fn export(&self) -> Vec<SubscriberState> {
        let state = |s: &Subscriber| SubscriberState {
            conn: s.conn,
            epoch: s.epoch,
            section: s.section,
            filter: s.filter,
            timed: s.timed,
            credits: s.credits,
            cursors: s.cursors.clone(),
            dictionary: s.dictionary.export(),
            catching_up: s.catching_up.clone(),
        };
        self.subscribers.iter().map(state).collect()
    }

    /// Takes a subscriber over. False when it does not fit.
    pub fn import(&mut self, state: SubscriberState, shard: usize, shards: usize) -> bool {
        let mut dictionary = own_dictionary(shard, shards);
        let fits = dictionary.import(state.dictionary) && state.credits <= CHUNK_CREDITS;
        self.pending = true;
        self.subscribers.push(Subscriber {
            conn: state.conn,
            epoch: state.epoch,
            section: state.section,
            filter: state.filter,
            timed: state.timed,
            credits: state.credits,
            cursors: state.cursors,
            dictionary,
            catching_up: state.catching_up,
            patient_until: Millis(0),
        });
        fits
    }

    /// Filled dictionary slots by session.
    pub fn names_sent(&self) -> Vec<(ConnKey, Names)> {
        let slots = |s: &Subscriber| s.dictionary.slots().map(|(id, t)| (id, t.to_vec())).collect();
        self.subscribers.iter().map(|s| (s.conn, slots(s))).collect()
    }

    /// Tables have changed.
    pub fn changed(&mut self) {
        self.pending = true;
    }

    /// When [`Flush::run`] has something to do without anything having happened.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.again_at
    }

    /// Sends what subscribers have credit for. True when more can be sent at once.
    pub fn run(&mut self, parts: &mut Parts, mesh: &mut MeshEnd<Message>, now: Millis) -> bool {
        let due = self.again_at.is_some_and(|at| at <= now);
        if !std::mem::take(&mut self.pending) && !due {
            return false;
        }
        self.again_at = None;
        let mut more = false;
        let mut subscribers = std::mem::take(&mut self.subscribers);
        for subscriber in &mut subscribers {
            for table in parts.registry().clone().of_section(subscriber.section) {
                more |= self.run_table(subscriber, &table, parts, mesh, now);
            }
        }
        self.subscribers = subscribers;
        self.shared.clear();
        self.pending |= more;
        more
    }

    /// One subscriber, one table, one batch; true when there is more to send and credit for it.
    fn run_table(
        &mut self,
        subscriber: &mut Subscriber,
        table: &Arc<Table>,
        parts: &mut Parts,
        mesh: &mut MeshEnd<Message>,
        now: Millis,
    ) -> bool {
        let (shard, shards) = (parts.shard(), mesh.shards());
        let Some(part) = parts.get_mut(table.id) else { return false };
        if subscriber.cursors.len() <= table.index {
            subscriber.cursors.resize(table.index + 1, 0);
        }
        // Positions begin at 1: a peer that has confirmed nothing stands there.
        let from = subscriber.cursors[table.index].max(1);
        let busy = subscriber.catching_up.as_ref().is_some_and(|c| c.index != table.index);
        if from >= part.change_head() || subscriber.credits == 0 || busy {
            return false;
        }
        let ids = Ids { shard, shards };
        let encoded = match self.encode(subscriber, table, part, from, ids, now) {
            Some(encoded) => encoded,
            None if now < subscriber.patient_until => {
                let at = subscriber.patient_until;
                self.again_at = Some(self.again_at.map_or(at, |before| before.min(at)));
                return false;
            }
            None => self.catch_up(subscriber, table, part, from, ids, now),
        };
        subscriber.cursors[table.index] = encoded.cursor;
        subscriber.credits -= 1;
        let batch = ChangeBatch {
            table: table.index,
            source: shard,
            epoch: subscriber.epoch,
            define: table.define.clone(),
            bytes: encoded.bytes,
            updates: encoded.updates,
            first_uid: encoded.first_uid,
            last_uid: encoded.last_uid,
            end: encoded.end,
        };
        let conn = subscriber.conn;
        mesh.send(usize::from(conn.shard), Message::Changes(conn, Box::new(batch)));
        subscriber.credits > 0 && encoded.cursor < part.change_head()
    }

    /// Changes from `from` on, a bounded number; `None` when the log no longer knows them all.
    fn encode(
        &mut self,
        subscriber: &mut Subscriber,
        table: &Arc<Table>,
        part: &mut TablePart,
        from: u64,
        ids: Ids,
        now: Millis,
    ) -> Option<Encoded> {
        let dictionary = table.spec.data_types() & DataType::SERVER_KEY.mask() != 0;
        let shareable = subscriber.filter.is_none() && !dictionary;
        if let Some(shared) = self.shared.get(&(table.id, from)).filter(|_| shareable) {
            return Some(shared.clone());
        }
        let mut out = Vec::with_capacity(256);
        let mut encoded = Encoded::default();
        let mut skipped = 0;
        let next = part.changes(now, from, self.rows, |position, entry| {
            if out.len() >= CHUNK_BYTES {
                return ControlFlow::Break(());
            }
            if !passes(subscriber.filter, table, &entry) {
                return ControlFlow::Continue(());
            }
            let uid = ids.uid(position);
            let dictionary = &mut subscriber.dictionary;
            match encode_update(&entry, uid, Timing::Untimed, now, dictionary, &mut out) {
                Ok(()) => encoded.count(uid),
                Err(_) => skipped += 1,
            }
            if out.len() >= CHUNK_BYTES {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match next {
            Ok(next) => encoded.end = next,
            Err(Trimmed { .. }) => return None,
        }
        encoded.cursor = encoded.end;
        self.skipped += skipped;
        encoded.bytes = Bytes::from(out);
        if shareable {
            self.shared.insert((table.id, from), encoded.clone());
        }
        Some(encoded)
    }

    /// A peer that was away for longer than the log goes back is sent the whole table, with
    /// remaining lifetimes if it takes them.
    fn catch_up(
        &mut self,
        subscriber: &mut Subscriber,
        table: &Arc<Table>,
        part: &mut TablePart,
        from: u64,
        ids: Ids,
        now: Millis,
    ) -> Encoded {
        let mut state = subscriber.catching_up.take().unwrap_or_else(|| CatchUp {
            index: table.index,
            scan: ScanCursor::default(),
            resume: (part.checkpoint() - 1).max(part.change_base()),
        });
        let timing = if subscriber.timed { Timing::Timed } else { Timing::Untimed };
        let mut out = Vec::new();
        let mut encoded = Encoded::default();
        let mut skipped = 0;
        let uid = ids.uid(from);
        let next = part.scan(now, state.scan, self.rows, |entry| {
            if out.len() >= CHUNK_BYTES {
                return ControlFlow::Break(());
            }
            if passes(subscriber.filter, table, &entry) {
                let dictionary = &mut subscriber.dictionary;
                match encode_update(&entry, uid, timing, now, dictionary, &mut out) {
                    Ok(()) => encoded.count(uid),
                    Err(_) => skipped += 1,
                }
            }
            if out.len() >= CHUNK_BYTES {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        self.skipped += skipped;
        // None of these moves the peer's confirmed position: after the scan, the newest change is
        // sent once more with its own id, and the ack of that one does. Should the log have
        // forgotten that one meanwhile, the table is sent again.
        encoded.end = from;
        encoded.cursor = match next {
            Some(scan) => {
                state.scan = scan;
                subscriber.catching_up = Some(state);
                from
            }
            None => state.resume,
        };
        encoded.bytes = Bytes::from(out);
        encoded
    }
}

/// Update ids: unique in a table over all shards, since each counts in steps of their number.
#[derive(Clone, Copy)]
struct Ids {
    shard: usize,
    shards: usize,
}

impl Ids {
    fn uid(self, position: u64) -> u32 {
        position.wrapping_mul(self.shards as u64).wrapping_add(self.shard as u64) as u32
    }
}

impl Encoded {
    fn count(&mut self, uid: u32) {
        if self.updates == 0 {
            self.first_uid = uid;
        }
        self.last_uid = uid;
        self.updates += 1;
    }
}
