//! Updates on their way in: spread by the home to the owners, applied by the owner in batches.

use super::message::{Batch, ConnKey, Item, Run};
use super::registry::{Layout, Registry};
use super::{Parts, PartsError};
use crate::Millis;
use crate::session::{Received, Refusal, Sink, Tables};
use crate::table::RemoteUpdate;
use crate::wire::Definition;
use bytes::Bytes;
use std::sync::Arc;

/// What a session asks about its section's tables.
pub struct SectionTables<'a> {
    /// All tables.
    pub registry: &'a Registry,
    /// The session's section.
    pub section: usize,
}

impl Tables for SectionTables<'_> {
    type Layout = Layout;

    fn define(&mut self, definition: &Definition) -> Result<Arc<Layout>, Refusal> {
        self.registry.define(self.section, definition).map(Arc::new)
    }
}

/// Spreads one pass's updates to the shards that own their keys.
#[derive(Default)]
pub struct Router {
    batches: Vec<Option<Box<Batch>>>,
    /// Emptied batches, to be filled again.
    #[expect(clippy::vec_box, reason = "they travel between shards as boxes")]
    spare: Vec<Box<Batch>>,
}

/// A router at work on one session.
pub struct Routing<'a> {
    /// Where batches gather.
    pub router: &'a mut Router,
    /// For the key hash.
    pub registry: &'a Registry,
}

impl Router {
    /// For `shards` shards.
    pub fn new(shards: usize) -> Router {
        Router { batches: (0..shards).map(|_| None).collect(), spare: Vec::new() }
    }

    /// Takes the batches of this pass, with the received bytes put behind their offsets.
    pub fn take(&mut self, conn: ConnKey, round: u64, bytes: &Bytes) -> Vec<(usize, Box<Batch>)> {
        let batches = self.batches.iter_mut().enumerate();
        let filled = batches.filter_map(|(owner, slot)| slot.take().map(|b| (owner, b)));
        let mut filled: Vec<_> = filled.collect();
        for (_, batch) in &mut filled {
            (batch.conn, batch.round, batch.bytes) = (conn, round, bytes.clone());
        }
        filled
    }

    /// Keeps an applied batch's memory for the next one.
    pub fn recycle(&mut self, mut batch: Box<Batch>) {
        if self.spare.len() < self.batches.len() {
            batch.bytes = Bytes::new();
            batch.runs.clear();
            batch.items.clear();
            batch.strings.clear();
            self.spare.push(batch);
        }
    }

    /// The batch of `owner`, for one more item.
    #[inline(always)]
    fn batch(&mut self, owner: usize, layout: &Arc<Layout>, second: bool) -> &mut Batch {
        let spare = &mut self.spare;
        let batch = self.batches[owner].get_or_insert_with(|| spare.pop().unwrap_or_default());
        match batch.runs.last_mut() {
            Some(run) if run.second == second && Arc::ptr_eq(&run.layout, layout) => run.count += 1,
            _ => batch.runs.push(Run { layout: layout.clone(), second, count: 1 }),
        }
        batch
    }
}

impl Sink<Layout> for Routing<'_> {
    #[inline]
    fn update(&mut self, update: Received<'_, Layout>) {
        let hash = self.registry.hasher.hash(update.key);
        let item = Item {
            hash,
            key_at: update.key_at as u32,
            key_len: update.key.len() as u32,
            values_at: update.values_at as u32,
            values_len: update.values.len() as u32,
            expire_ms: update.expire_ms.unwrap_or(0),
            timed: update.expire_ms.is_some(),
            server_key: 0,
        };
        let layout = update.layout;
        let owner = layout.table.place.owner(hash) as usize;
        let batch = self.router.batch(owner, layout, false);
        batch.items.push(item);
        if let Some(text) = &update.server_key {
            batch.attach(text.clone());
        }
        if let Some((target, _)) = &layout.write_to {
            let owner = target.place.owner(hash) as usize;
            self.write_to(owner, layout, item, update.server_key);
        }
    }
}

impl Routing<'_> {
    /// The same update for the table that `write-to` names.
    #[cold]
    fn write_to(
        &mut self,
        owner: usize,
        layout: &Arc<Layout>,
        item: Item,
        text: Option<Arc<[u8]>>,
    ) {
        let batch = self.router.batch(owner, layout, true);
        batch.items.push(item);
        if let Some(text) = text {
            batch.attach(text);
        }
    }
}

impl Batch {
    /// Gives the last item its dictionary string.
    fn attach(&mut self, text: Arc<[u8]>) {
        if self.strings.last() != Some(&text) {
            self.strings.push(text);
        }
        if let Some(item) = self.items.last_mut() {
            item.server_key = self.strings.len() as u32;
        }
    }
}

impl Parts {
    /// Applies a batch to this shard's partitions. The error is that of the first table that has
    /// no memory; the others' updates are applied all the same.
    pub fn apply(&mut self, batch: &Batch, now: Millis) -> Result<(), PartsError> {
        let (mut first, mut result) = (0, Ok(()));
        for run in &batch.runs {
            let items = &batch.items[first..first + run.count];
            first += run.count;
            result = result.and(self.apply_run(batch, run, items, now));
        }
        result
    }

    fn apply_run(
        &mut self,
        batch: &Batch,
        run: &Run,
        items: &[Item],
        now: Millis,
    ) -> Result<(), PartsError> {
        let (table, layout) = match &run.layout.write_to {
            Some((target, layout)) if run.second => (target, layout),
            _ => (&run.layout.table, &run.layout.remote),
        };
        let me = self.shard();
        let part = self.part_mut(table)?;
        part.set_others_used(table.used().saturating_sub(table.used_by(me)));
        let hash = |i: usize| items[i].hash;
        part.apply(now, layout, items.len(), hash, |i| {
            let item = &items[i];
            RemoteUpdate {
                key: slice(&batch.bytes, item.key_at, item.key_len),
                expire_ms: item.timed.then_some(item.expire_ms),
                values: slice(&batch.bytes, item.values_at, item.values_len),
                server_key: match item.server_key {
                    0 => None,
                    n => batch.strings.get(n as usize - 1),
                },
            }
        });
        self.touch(table.id);
        Ok(())
    }
}

fn slice(bytes: &Bytes, at: u32, len: u32) -> &[u8] {
    &bytes[at as usize..][..len as usize]
}
