//! Lessons on their way out: each owner scans its partitions in storage order and encodes chunks,
//! with credits, so that a slow learner costs a few chunks and never a copy of the table.

use super::flush::{own_dictionary, passes};
use super::message::{Chunk, ConnKey, Message, PartTaught, Teach};
use super::parts::Parts;
use super::registry::Table;
use crate::Millis;
use crate::engine::mesh::MeshEnd;
use crate::limits::{CHUNK_BYTES, CHUNK_CREDITS, TICK_CHUNKS, TICK_ROWS};
use crate::table::{ScanCursor, Timing, encode_update};
use crate::wire::dictionary::{TxDictionary, TxDictionaryState};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;

/// One session's lesson on this shard.
struct Lesson {
    wish: Teach,
    tables: Vec<Arc<Table>>,
    /// Index of the table being scanned.
    at: usize,
    cursor: ScanCursor,
    credits: u32,
    dictionary: TxDictionary,
    tails: Vec<u64>,
    skipped: u64,
}

/// A lesson on its way to another process.
#[derive(Serialize, Deserialize)]
pub struct LessonState {
    /// Whose it is.
    pub wish: Teach,
    tables: usize,
    at: usize,
    cursor: ScanCursor,
    credits: u32,
    dictionary: TxDictionaryState,
    tails: Vec<u64>,
    skipped: u64,
}

/// All lessons a shard is giving.
pub struct Lessons {
    /// Rows looked at for one chunk.
    rows: usize,
    lessons: Vec<Lesson>,
}

impl Lessons {
    /// None yet. `at_once`: most updates in one chunk.
    pub fn new(at_once: Option<u32>) -> Lessons {
        let rows = at_once.map_or(TICK_ROWS * 4, |n| (TICK_ROWS * 4).min(n as usize).max(1));
        Lessons { rows, lessons: Vec::new() }
    }

    /// Begins a lesson; replaces the session's earlier one.
    pub fn start(&mut self, wish: Teach, parts: &mut Parts, shards: usize) {
        self.stop(wish.conn);
        let tables = parts.registry().of_section(wish.section);
        let tails = tables.iter().map(|t| parts.get_mut(t.id).map_or(0, |p| p.checkpoint()));
        self.lessons.push(Lesson {
            tails: tails.collect(),
            tables,
            wish,
            at: 0,
            cursor: ScanCursor::default(),
            credits: CHUNK_CREDITS,
            dictionary: own_dictionary(parts.shard(), shards),
            skipped: 0,
        });
    }

    /// The session is gone or wants no lesson any more.
    pub fn stop(&mut self, conn: ConnKey) {
        self.lessons.retain(|l| l.wish.conn != conn);
    }

    /// A chunk of ours is on the wire.
    pub fn credit(&mut self, conn: ConnKey) {
        if let Some(lesson) = self.lessons.iter_mut().find(|l| l.wish.conn == conn) {
            lesson.credits = (lesson.credits + 1).min(CHUNK_CREDITS);
        }
    }

    /// All lessons, for another process.
    pub fn export(&self) -> Vec<LessonState> {
        let state = |l: &Lesson| LessonState {
            wish: l.wish.clone(),
            tables: l.tables.len(),
            at: l.at,
            cursor: l.cursor,
            credits: l.credits,
            dictionary: l.dictionary.export(),
            tails: l.tails.clone(),
            skipped: l.skipped,
        };
        self.lessons.iter().map(state).collect()
    }

    /// Goes on with a lesson of another process. False when it does not fit.
    pub fn import(&mut self, state: LessonState, parts: &Parts, shards: usize) -> bool {
        // Tables that were created since the lesson began are none of it, and come behind.
        let mut tables = parts.registry().of_section(state.wish.section);
        tables.truncate(state.tables);
        let mut dictionary = own_dictionary(parts.shard(), shards);
        let fits = dictionary.import(state.dictionary)
            && tables.len() == state.tables
            && state.at <= state.tables
            && state.credits <= CHUNK_CREDITS;
        self.lessons.push(Lesson {
            wish: state.wish,
            tables,
            at: state.at,
            cursor: state.cursor,
            credits: state.credits,
            dictionary,
            tails: state.tails,
            skipped: state.skipped,
        });
        fits
    }

    /// Encodes a bounded number of chunks; true when more can be encoded at once.
    pub fn run(&mut self, parts: &mut Parts, mesh: &mut MeshEnd<Message>, now: Millis) -> bool {
        let mut budget = TICK_CHUNKS;
        // In turn, and another one first each time: a fast learner keeps nobody waiting.
        if !self.lessons.is_empty() {
            self.lessons.rotate_left(1);
        }
        let mut went_on = true;
        while std::mem::take(&mut went_on) {
            for lesson in self.lessons.iter_mut().filter(|l| l.can_go_on()) {
                if budget > 0 {
                    budget -= 1;
                    went_on = true;
                    lesson.chunk(self.rows, parts, mesh, now);
                }
            }
        }
        for lesson in self.lessons.extract_if(.., |l| l.at == l.tables.len()) {
            let part = PartTaught {
                conn: lesson.wish.conn,
                lesson: lesson.wish.lesson,
                owner: parts.shard() as u16,
                tails: lesson.tails,
                skipped: lesson.skipped,
            };
            mesh.send(usize::from(part.conn.shard), Message::PartTaught(Box::new(part)));
        }
        self.lessons.iter().any(|l| l.credits > 0)
    }
}

impl Lesson {
    fn can_go_on(&self) -> bool {
        self.credits > 0 && self.at < self.tables.len()
    }

    /// Encodes up to one chunk of the current table and goes on to the next table at its end.
    fn chunk(&mut self, rows: usize, parts: &mut Parts, mesh: &mut MeshEnd<Message>, now: Millis) {
        let table = &self.tables[self.at];
        let timing = if self.wish.timed { Timing::Timed } else { Timing::Untimed };
        let mut out = Vec::with_capacity(table.define.len() + CHUNK_BYTES + CHUNK_BYTES / 4);
        out.extend_from_slice(&table.define);
        let (mut entries, mut skipped) = (0u64, 0);
        let filter = self.wish.filter;
        // Ids of a lesson are no cursors (protocol.md 5.3), and 0 is the one that is not acked: no
        // id of a later change can be taken for a repetition.
        let uid = 0;
        let next = parts.get_mut(table.id).and_then(|part| {
            part.scan(now, self.cursor, rows, |entry| {
                if out.len() >= CHUNK_BYTES {
                    return ControlFlow::Break(());
                }
                if passes(filter, table, &entry) {
                    match encode_update(&entry, uid, timing, now, &mut self.dictionary, &mut out) {
                        Ok(()) => entries += 1,
                        Err(_) => skipped += 1,
                    }
                }
                ControlFlow::Continue(())
            })
        });
        self.skipped += skipped;
        match next {
            Some(cursor) => self.cursor = cursor,
            None => {
                self.cursor = ScanCursor::default();
                self.at += 1;
            }
        }
        // A table's definition is taught even when it is empty, by one of the shards.
        let first_of_table = table.id % mesh.shards() == parts.shard() && next.is_none();
        if entries == 0 && !first_of_table {
            return;
        }
        self.credits -= 1;
        let chunk = Chunk {
            conn: self.wish.conn,
            lesson: self.wish.lesson,
            owner: parts.shard() as u16,
            bytes: Bytes::from(out),
            entries,
        };
        mesh.send(usize::from(chunk.conn.shard), Message::Chunk(Box::new(chunk)));
    }
}
