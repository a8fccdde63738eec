//! A part on its way to another process.
//!
//! Rows travel as the updates a lesson would have, and the change log as its head, so that peers
//! who had not seen everything are sent the table again. Used by the instant hand-over.

#![forbid(unsafe_code)]

use super::part::{RemoteUpdate, TablePart};
use super::route::{KeyHasher, Place};
use super::spec::TableSpec;
use super::{RemoteLayout, ScanCursor, Timing, definition_of, encode_update};
use crate::time::Millis;
use crate::wire::dictionary::{RxDictionary, TxDictionary};
use crate::wire::frame::{Cut, cut};
use crate::wire::update::decode_values;
use crate::wire::{Message, Update, Value};
use rustix::fd::OwnedFd;
use std::ops::ControlFlow;
use std::sync::Arc;
use thiserror::Error;

/// A part that cannot leave, or does not fit.
///
/// *Effect:* the instant hand-over is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExportError {
    /// A row that cannot be encoded.
    #[error("a row cannot be encoded")]
    Row,
    /// The header is damaged.
    #[error("damaged at byte {0}")]
    Damaged(usize),
    /// The part cannot be made here.
    #[error("{0}")]
    Refused(String),
}

impl TablePart {
    /// What another process makes the same part of: a header, and descriptors of memory.
    pub fn export(&self, now: Millis) -> Result<(Vec<u8>, Vec<OwnedFd>), ExportError> {
        let mut out = self.change_head().to_le_bytes().to_vec();
        let mut dictionary = TxDictionary::new();
        let mut failed = false;
        let all = self.scan(now, ScanCursor::default(), usize::MAX, |entry| {
            let timing = Timing::Timed;
            failed |= encode_update(&entry, 1, timing, now, &mut dictionary, &mut out).is_err();
            ControlFlow::Continue(())
        });
        if failed || all.is_some() { Err(ExportError::Row) } else { Ok((out, Vec::new())) }
    }

    /// The part that was exported.
    pub fn adopt(
        spec: Arc<TableSpec>,
        hasher: KeyHasher,
        place: Place,
        shard: u32,
        (header, _memory): (&[u8], Vec<OwnedFd>),
        now: Millis,
    ) -> Result<TablePart, ExportError> {
        let refused = |e: &dyn std::fmt::Display| ExportError::Refused(e.to_string());
        let layout = RemoteLayout::new(&definition_of(&spec, 1), &spec).map_err(|e| refused(&e))?;
        let part = TablePart::new(spec, hasher.clone(), place, shard);
        let mut part = part.map_err(|e| refused(&e))?;
        let (head, mut rest) = header.split_first_chunk().ok_or(ExportError::Damaged(0))?;
        part.begin_changes_at(u64::from_le_bytes(*head));
        let mut dictionary = RxDictionary::default();
        while !rest.is_empty() {
            let damaged = ExportError::Damaged(header.len() - rest.len());
            let Ok(Cut::Frame(frame)) = cut(rest, usize::MAX) else { return Err(damaged) };
            rest = &rest[frame.len..];
            let Ok(Message::Update(form, payload)) = Message::of(&frame) else {
                return Err(damaged);
            };
            let update = Update::decode(form, payload, layout.key_shape());
            let Ok(update) = update else { return Err(damaged) };
            let mut server_key = None;
            let values = decode_values(update.values, layout.steps(), |_, _, value| {
                if let Value::Dict(v) = value {
                    server_key = dictionary.resolve(v);
                }
            });
            values.map_err(|_| damaged)?;
            let hash = hasher.hash(update.key);
            part.apply(
                now,
                &layout,
                1,
                |_| hash,
                |_| RemoteUpdate {
                    key: update.key,
                    expire_ms: update.expire_ms,
                    values: update.values,
                    server_key: server_key.as_ref(),
                },
            );
        }
        Ok(part)
    }
}
