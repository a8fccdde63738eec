//! Tests of the protocol's bytes: vectors, splits, round trips, caches, and noise.

mod definition;
mod dictionary;
mod frame;
mod hello;
mod message;
mod noise;
mod update;
mod varint;

use super::{DataType, Definition, Parameter, Tail};

/// A small deterministic generator (xorshift64*), so that a failure names its seed.
pub(super) struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    /// Of any magnitude: as many small as large.
    pub fn magnitude(&mut self) -> u64 {
        let bits = self.below(65) as u32;
        self.next().checked_shr(64 - bits).unwrap_or(0)
    }
}

/// Bytes from "0a 82 0d".
pub(super) fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|b| u8::from_str_radix(b, 16).expect("hex")).collect()
}

/// A definition with every parameter its types need: arrays of `elements`, periods of 10 s.
pub(super) fn definition_of(
    key_type: u64,
    key_len: u32,
    data_types: u64,
    elements: u32,
) -> Definition {
    let parameters = DataType::of_bits(data_types)
        .filter(|t| t.has_parameters())
        .map(|data_type| Parameter {
            data_type,
            elements: if data_type.is_array() { elements } else { 1 },
            period_ms: if data_type.is_rate() { 10_000 } else { 0 },
        })
        .collect();
    Definition {
        id: 7,
        name: b"table".to_vec(),
        key_type,
        key_len,
        data_types,
        tail: Tail::Present { expire_ms: 60_000, parameters },
    }
}
