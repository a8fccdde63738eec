//! Which key an update is for: a seeded permutation of all 32-bit numbers, both ways.
//!
//! Owns nothing but its round keys. Called by the model, for encoding and for checking what came
//! back. Rule: the same seed gives the same keys in every run and on every machine, and
//! [`Keys::index`] undoes [`Keys::key`], so that no list of keys is needed to check ten million.

/// Rounds of the Feistel network; four are enough to look random to a hash table or a tree.
const ROUNDS: usize = 4;

/// Numbers to keys and back.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    round_keys: Option<[u32; ROUNDS]>,
}

/// SplitMix64's step: a well mixed word for each seed.
fn mix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn round(half: u32, key: u32) -> u32 {
    (half ^ key).wrapping_mul(0x9e37_79b1).wrapping_shr(13) & 0xffff
}

impl Keys {
    /// Keys in an order that looks random, the same for the same seed.
    pub fn random(seed: u64) -> Keys {
        let mut seed = seed;
        Keys { round_keys: Some(std::array::from_fn(|_| mix(&mut seed) as u32)) }
    }

    /// Keys in ascending order: 10.0.0.0, 10.0.0.1, ...
    pub fn sequential() -> Keys {
        Keys { round_keys: None }
    }

    /// The key with this number.
    pub fn key(&self, index: u32) -> u32 {
        let Some(round_keys) = self.round_keys else { return index.wrapping_add(0x0a00_0000) };
        let (mut left, mut right) = (index >> 16, index & 0xffff);
        for key in round_keys {
            (left, right) = (right, left ^ round(right, key));
        }
        left << 16 | right
    }

    /// The number of this key.
    pub fn index(&self, key: u32) -> u32 {
        let Some(round_keys) = self.round_keys else { return key.wrapping_sub(0x0a00_0000) };
        let (mut left, mut right) = (key >> 16, key & 0xffff);
        for key in round_keys.iter().rev() {
            (left, right) = (right ^ round(left, *key), left);
        }
        left << 16 | right
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn every_key_has_its_number_back() {
        for keys in [Keys::random(1), Keys::random(77), Keys::sequential()] {
            for index in (0..100_000).chain(u32::MAX - 1000..=u32::MAX) {
                assert_eq!(keys.index(keys.key(index)), index);
            }
        }
        assert_ne!(Keys::random(1).key(5), Keys::random(2).key(5));
    }
}
