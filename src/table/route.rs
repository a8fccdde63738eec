//! Which partition, which shard, which peer a key belongs to.
//!
//! Pure arithmetic, no state but the hash's seeds. A key is hashed once, at its session's home; the
//! hash then travels with the update. Rule: the top six bits of the hash choose the partition, the
//! rest is the index's; all shards of a process use the same seeds, which come from outside and are
//! random (keys are chosen by whoever sends traffic).

#![forbid(unsafe_code)]

use crate::limits::{PARTITIONS, SINGLE_PARTITION_SIZE};
use crate::wire::KeyType;
use ahash::RandomState;
use std::hash::{BuildHasher, Hasher};
use twox_hash::XxHash64;

/// The one hash of keys.
#[derive(Clone, Debug)]
pub struct KeyHasher(RandomState);

impl KeyHasher {
    /// A hash function out of 2^256; the same seeds give the same function.
    pub fn new(seeds: [u64; 4]) -> Self {
        let [a, b, c, d] = seeds;
        KeyHasher(RandomState::with_seeds(a, b, c, d))
    }

    /// Hash of a canonical key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut h = self.0.build_hasher();
        match key.len() {
            4 => h.write_u32(u32::from_ne_bytes([key[0], key[1], key[2], key[3]])),
            _ => h.write(key),
        }
        h.finish()
    }
}

/// How many partitions a table of this size has: small tables are not worth cutting.
pub fn partition_count(size: u64) -> u32 {
    if size <= SINGLE_PARTITION_SIZE { 1 } else { PARTITIONS }
}

/// Partition of a key by its hash; `count` is 1 or [`PARTITIONS`].
#[inline(always)]
pub fn partition_of(hash: u64, count: u32) -> u32 {
    ((u128::from(hash) * u128::from(count)) >> 64) as u32
}

/// Where the partitions of one table live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the table on this node; spreads small tables over the shards.
    pub local_id: u32,
    /// 1 or [`PARTITIONS`].
    pub partitions: u32,
    /// Shards of the process, at least 1.
    pub nshards: u32,
}

impl Place {
    /// For a table that may hold `size` entries.
    pub fn new(local_id: u32, size: u64, nshards: u32) -> Self {
        Place { local_id, partitions: partition_count(size), nshards: nshards.max(1) }
    }

    /// Shard that owns the key with this hash.
    #[inline(always)]
    pub fn owner(&self, hash: u64) -> u32 {
        self.owner_of(partition_of(hash, self.partitions))
    }

    /// Shard that owns a partition.
    #[inline(always)]
    pub fn owner_of(&self, partition: u32) -> u32 {
        match self.nshards {
            1 => 0,
            n => self.local_id.wrapping_add(partition) % n,
        }
    }

    /// How many partitions `shard` owns.
    pub fn owned_by(&self, shard: u32) -> u32 {
        (0..self.partitions).filter(|&p| self.owner_of(p) == shard).count() as u32
    }
}

/// The peer shard (1..=`shards`) a key belongs to with `shards <n>` in a peers section (protocol.md
/// 8, HAProxy >= 2.7). `table_name` is the table's local id, as `show table` prints it. Integer
/// keys are hashed as they lie in HAProxy's memory on a little-endian machine. 0 when `shards` is
/// 0.
pub fn peer_shard(key: &[u8], key_type: KeyType, table_name: &str, shards: u32) -> u32 {
    if shards == 0 {
        return 0;
    }
    let seed = XxHash64::oneshot(0, table_name.as_bytes());
    let hash = match (key_type, <[u8; 4]>::try_from(key)) {
        (KeyType::Integer, Ok(n)) => XxHash64::oneshot(seed, &u32::from_be_bytes(n).to_le_bytes()),
        _ => XxHash64::oneshot(seed, key),
    };
    (hash % u64::from(shards)) as u32 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_agree_and_others_do_not() {
        let (a, b) = (KeyHasher::new([1, 2, 3, 4]), KeyHasher::new([1, 2, 3, 4]));
        let c = KeyHasher::new([9, 2, 3, 4]);
        for key in [&b""[..], b"abcd", b"hello", &[9; 300]] {
            assert_eq!(a.hash(key), b.hash(key));
            assert_ne!(a.hash(key), c.hash(key));
        }
    }

    #[test]
    fn partitions_are_even_and_each_has_one_owner() {
        let hasher = KeyHasher::new([7; 4]);
        let place = Place::new(3, 1_000_000, 4);
        assert_eq!(place.partitions, PARTITIONS);
        let mut seen = [0u32; PARTITIONS as usize];
        for i in 0..64_000u32 {
            let h = hasher.hash(&i.to_be_bytes());
            let p = partition_of(h, place.partitions);
            seen[p as usize] += 1;
            assert_eq!(place.owner(h), (3 + p) % 4);
        }
        assert!(seen.iter().all(|&n| (700..1300).contains(&n)), "{seen:?}");
        assert_eq!((0..4).map(|s| place.owned_by(s)).sum::<u32>(), PARTITIONS);
        let small = Place::new(3, 65_536, 2);
        assert_eq!((small.partitions, small.owner(u64::MAX), small.owner(0)), (1, 1, 1));
        assert_eq!((small.owned_by(0), small.owned_by(1)), (0, 1));
    }

    #[test]
    fn peer_shards_are_in_range_and_spread() {
        let mut seen = [0u32; 4];
        for i in 0..1000u32 {
            let s = peer_shard(&i.to_be_bytes(), KeyType::Ipv4, "t_ip", 3);
            seen[s as usize] += 1;
        }
        assert_eq!(seen[0], 0);
        assert!(seen[1..].iter().all(|&n| n > 250), "{seen:?}");
        assert_eq!(peer_shard(b"x", KeyType::String, "t", 0), 0);
        // Seen with HAProxy 3.2, `shards 3`, tables of section `pp` and a proxy's `px6`.
        let v6 = |last| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        for (name, key_type, key, shard) in [
            ("pp/t_str", KeyType::String, &b"key0"[..], 1),
            ("pp/t_str", KeyType::String, b"key3", 1),
            ("pp/t_str", KeyType::String, b"key4", 2),
            ("pp/t_str", KeyType::String, b"key9", 2),
            ("pp/t_int", KeyType::Integer, &1005u32.to_be_bytes(), 1),
            ("pp/t_int", KeyType::Integer, &1011u32.to_be_bytes(), 1),
            ("pp/t_int", KeyType::Integer, &1004u32.to_be_bytes(), 3),
            ("px6", KeyType::Ipv6, &v6(6), 1),
            ("px6", KeyType::Ipv6, &v6(2), 2),
        ] {
            assert_eq!(peer_shard(key, key_type, name, 3), shard, "{name} {key:?}");
        }
        // XXH64 of the empty string with seed 0 is the published test vector.
        assert_eq!(XxHash64::oneshot(0, b""), 0xef46_db37_51d8_e999);
    }
}
