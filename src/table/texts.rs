//! Interned `server_key` texts of one table part.
//!
//! Rows keep a number; each text is stored once, shared with whoever sends it, and counts its rows.
//! Used by [`super::store`]. Rule: bounded; a text nobody uses any more is forgotten at once.

#![forbid(unsafe_code)]

use crate::limits::SERVER_KEYS_MAX;
use std::collections::HashMap;
use std::sync::Arc;

/// See the module's head. Number 0 is no text.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    numbers: HashMap<Arc<[u8]>, u32>,
    entries: Vec<Option<(Arc<[u8]>, u32)>>,
    free: Vec<u32>,
}

impl Texts {
    /// The number of a text, which counts one more row. `None` when there are too many different
    /// ones.
    pub fn acquire(&mut self, text: &Arc<[u8]>) -> Option<u32> {
        if let Some(&number) = self.numbers.get(text) {
            if let Some((_, rows)) = &mut self.entries[number as usize - 1] {
                *rows += 1;
            }
            return Some(number);
        }
        if self.numbers.len() >= SERVER_KEYS_MAX {
            return None;
        }
        let entry = Some((text.clone(), 1));
        let number = match self.free.pop() {
            Some(number) => {
                self.entries[number as usize - 1] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32
            }
        };
        self.numbers.insert(text.clone(), number);
        Some(number)
    }

    /// One row less uses this number. 0 is ignored.
    pub fn release(&mut self, number: u32) {
        let Some(at) = (number as usize).checked_sub(1) else { return };
        let Some(entry) = self.entries.get_mut(at) else { return };
        let Some((text, rows)) = entry else { return };
        *rows -= 1;
        if *rows == 0 {
            self.numbers.remove(text);
            *entry = None;
            self.free.push(number);
        }
    }

    /// The text of a number; `None` for 0.
    pub fn get(&self, number: u32) -> Option<&Arc<[u8]>> {
        self.entries.get((number as usize).checked_sub(1)?)?.as_ref().map(|(text, _)| text)
    }

    /// All numbers, for another process.
    pub fn state(&self) -> Vec<Option<(Vec<u8>, u32)>> {
        let entries = self.entries.iter();
        entries.map(|e| e.as_ref().map(|(text, rows)| (text.to_vec(), *rows))).collect()
    }

    /// The texts of another process.
    pub fn adopt(state: Vec<Option<(Vec<u8>, u32)>>) -> Texts {
        let mut texts = Texts::default();
        for (at, entry) in state.into_iter().enumerate() {
            let number = at as u32 + 1;
            let entry = entry.map(|(text, rows)| (Arc::<[u8]>::from(text), rows));
            match &entry {
                Some((text, _)) => drop(texts.numbers.insert(text.clone(), number)),
                None => texts.free.push(number),
            }
            texts.entries.push(entry);
        }
        texts
    }

    /// How many different texts there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.numbers.len()
    }

    /// Forgets all: there are no rows any more.
    pub fn clear(&mut self) {
        *self = Texts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shared_counted_and_forgotten() {
        let mut t = Texts::default();
        let (a, b): (Arc<[u8]>, Arc<[u8]>) = (b"s1"[..].into(), b"s2"[..].into());
        assert_eq!((t.acquire(&a), t.acquire(&b), t.acquire(&b"s1"[..].into())), {
            (Some(1), Some(2), Some(1))
        });
        t.release(1);
        assert_eq!(t.get(1), Some(&a));
        t.release(1);
        assert_eq!((t.get(1), t.get(0), t.get(9), t.count()), (None, None, None, 1));
        t.release(0);
        t.release(1);
        assert_eq!(t.acquire(&b"s3"[..].into()), Some(1), "numbers are used again");
        assert_eq!(t.get(1).map(|x| &x[..]), Some(&b"s3"[..]));
    }

    #[test]
    fn too_many_different_texts_are_refused() {
        let mut t = Texts::default();
        for i in 0..SERVER_KEYS_MAX {
            assert!(t.acquire(&i.to_be_bytes()[..].into()).is_some());
        }
        assert_eq!(t.acquire(&b"one more"[..].into()), None);
        assert_eq!(t.acquire(&0usize.to_be_bytes()[..].into()), Some(1));
    }
}
