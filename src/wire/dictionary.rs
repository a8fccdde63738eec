//! The two caches of `server_key` strings a session has, one a direction (protocol.md 4.7).
//!
//! Owned by a session (receive) or by one shard's encoder for one session (send). Emptied with the
//! session. Rule: ids stay in 1..=128, since older receivers write out of bounds beyond.

use super::error::{DecodeError, What};
use super::varint::{self, Reader};
use crate::limits::{DICTIONARY_SLOTS, SERVER_KEY_MAX};
use ahash::AHashMap;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// Strings the peer has sent, by slot.
#[derive(Debug)]
pub struct RxDictionary {
    slots: Vec<Option<Arc<[u8]>>>,
}

impl Default for RxDictionary {
    fn default() -> Self {
        RxDictionary { slots: vec![None; DICTIONARY_SLOTS] }
    }
}

impl RxDictionary {
    /// What a decoded value means: a text fills its slot, an id alone looks it up. `None`: no
    /// value, or an id nobody filled; the row's value then stays as it is.
    pub fn resolve(&mut self, value: super::DictValue<'_>) -> Option<Arc<[u8]>> {
        match value {
            super::DictValue::None => None,
            super::DictValue::Id(id) => self.slots[slot(id)].clone(),
            super::DictValue::Text { id, text } => {
                let at = &mut self.slots[slot(id)];
                match at {
                    Some(old) if old[..] == *text => {}
                    _ => *at = Some(Arc::from(text)),
                }
                at.clone()
            }
        }
    }

    /// A dictionary with these slots; missing ones are empty, and ids that no peer can name are
    /// left out.
    pub fn from_slots(mut slots: Vec<Option<Vec<u8>>>) -> RxDictionary {
        slots.resize(DICTIONARY_SLOTS, None);
        RxDictionary { slots: slots.into_iter().map(|s| s.map(Arc::from)).collect() }
    }

    /// All 128 slots in order, for `show peers dict`.
    pub fn slots(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.slots.iter().map(|s| s.as_deref())
    }
}

/// Index of a wire id, which decoding has checked to be in 1..=128.
fn slot(id: u8) -> usize {
    usize::from(id).saturating_sub(1) % DICTIONARY_SLOTS
}

/// A [`TxDictionary`] on its way to another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TxDictionaryState {
    next: usize,
    /// As the ids of [`TxDictionary::with_ids`].
    slots: Vec<Option<Vec<u8>>>,
}

/// Strings we have sent. Slots are given round-robin, as HAProxy does; a hit does not move a slot.
#[derive(Debug)]
pub struct TxDictionary {
    ids: AHashMap<Arc<[u8]>, u8>,
    slots: Vec<Option<Arc<[u8]>>>,
    first: u8,
    next: usize,
}

impl TxDictionary {
    /// The whole id space, 1 to 128.
    pub fn new() -> Self {
        Self::with_ids(1..DICTIONARY_SLOTS as u8 + 1)
    }

    /// A part of the id space, so that several encoders can serve one session.
    ///
    /// # Panics
    /// If `ids` is empty or leaves 1..=128: a programming error, not input.
    pub fn with_ids(ids: Range<u8>) -> Self {
        assert!(
            ids.start >= 1 && ids.start < ids.end && usize::from(ids.end) <= DICTIONARY_SLOTS + 1
        );
        TxDictionary {
            ids: AHashMap::new(),
            slots: vec![None; ids.len()],
            first: ids.start,
            next: 0,
        }
    }

    /// What another process needs to go on with the same ids.
    pub fn export(&self) -> TxDictionaryState {
        let slots = self.slots.iter().map(|s| s.as_deref().map(<[u8]>::to_vec));
        TxDictionaryState { next: self.next, slots: slots.collect() }
    }

    /// Goes on where `state` stood. False when it does not belong to this range of ids.
    pub fn import(&mut self, state: TxDictionaryState) -> bool {
        if state.slots.len() != self.slots.len() || state.next >= self.slots.len() {
            return false;
        }
        self.next = state.next;
        self.slots = state.slots.into_iter().map(|s| s.map(Arc::from)).collect();
        let ids = (self.first..).zip(&self.slots);
        self.ids = ids.filter_map(|(id, s)| s.clone().map(|text| (text, id))).collect();
        true
    }

    /// Appends the wire value of `text`: id alone when the peer has it, id and text otherwise. A
    /// text longer than [`SERVER_KEY_MAX`] goes out as "no value".
    pub fn encode(&mut self, out: &mut Vec<u8>, text: &Arc<[u8]>) {
        if text.len() > SERVER_KEY_MAX {
            varint::encode(out, 0);
            return;
        }
        if let Some(&id) = self.ids.get(text) {
            varint::encode(out, varint::len(u64::from(id)) as u64);
            varint::encode(out, u64::from(id));
            return;
        }
        let id = self.first + self.next as u8;
        if let Some(old) = self.slots[self.next].replace(text.clone()) {
            self.ids.remove(&old);
        }
        self.ids.insert(text.clone(), id);
        self.next = (self.next + 1) % self.slots.len();
        let text_len = varint::len(text.len() as u64) + text.len();
        varint::encode(out, (varint::len(u64::from(id)) + text_len) as u64);
        varint::encode(out, u64::from(id));
        varint::encode(out, text.len() as u64);
        out.extend_from_slice(text);
    }

    /// Filled slots as (id, text) in id order, for `show peers dict`.
    pub fn slots(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let first = self.first;
        self.slots
            .iter()
            .enumerate()
            .filter_map(move |(i, s)| s.as_deref().map(|text| (first + i as u8, text)))
    }
}

impl Default for TxDictionary {
    fn default() -> Self {
        Self::new()
    }
}

/// Decodes a dictionary value: `L [ id [ text-length text ] ]`.
pub(super) fn decode<'a>(r: &mut Reader<'a>) -> Result<super::DictValue<'a>, DecodeError> {
    let start = r.pos();
    let bad = DecodeError::BadDictionary { offset: start };
    let len = r.varint(What::Dictionary)?;
    if len == 0 {
        return Ok(super::DictValue::None);
    }
    let len = usize::try_from(len).map_err(|_| bad)?;
    let body = r.bytes(len, What::Dictionary)?;
    let mut inner = Reader::new(body);
    let id = inner.varint(What::Dictionary).map_err(|_| bad)?;
    if id == 0 || id > DICTIONARY_SLOTS as u64 {
        return Err(bad);
    }
    let id = id as u8;
    if inner.is_empty() {
        return Ok(super::DictValue::Id(id));
    }
    let text_len = inner.varint(What::Dictionary).map_err(|_| bad)?;
    let text_len = usize::try_from(text_len).map_err(|_| bad)?;
    let text = inner.bytes(text_len, What::Dictionary).map_err(|_| bad)?;
    if !inner.is_empty() {
        return Err(bad);
    }
    // A name ends at a NUL, as it would in the C string HAProxy keeps.
    let text = &text[..text.iter().position(|&b| b == 0).unwrap_or(text.len())];
    Ok(super::DictValue::Text { id, text })
}
