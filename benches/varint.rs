//! `wire::varint`: encoding and decoding by length class, and of what updates mostly hold.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use stickring::wire::What;
use stickring::wire::varint::{Reader, encode};

/// Values a run of updates holds: mostly small counters, some rate ages, a few large byte counts.
fn mixed() -> Vec<u64> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    (0..4096)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            match x % 16 {
                0..10 => x >> 32 & 0x7f,
                10..13 => x >> 32 & 0x3fff,
                13..15 => x >> 32,
                _ => x >> 16,
            }
        })
        .collect()
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    let mut sets = vec![("mixed", mixed())];
    for (name, v) in [
        ("1 byte", 100),
        ("2 bytes", 2000),
        ("3 bytes", 200_000),
        ("5 bytes", 4_000_000_000),
        ("10 bytes", u64::MAX),
    ] {
        sets.push((name, vec![v; 4096]));
    }

    let mut group = c.benchmark_group("varint/encode");
    for (name, values) in &sets {
        group.throughput(Throughput::Elements(values.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_batched_ref(
                || Vec::with_capacity(10 * values.len()),
                |out| black_box(values).iter().for_each(|&v| encode(out, v)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();

    let mut group = c.benchmark_group("varint/decode");
    for (name, values) in &sets {
        let mut bytes = Vec::new();
        values.iter().for_each(|&v| encode(&mut bytes, v));
        group.throughput(Throughput::Elements(values.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                let mut r = Reader::new(black_box(&bytes));
                let mut sum = 0u64;
                while let Ok(v) = r.varint(What::Tail) {
                    sum = sum.wrapping_add(v);
                }
                sum
            });
        });
    }
    group.finish();
    c.final_summary();
}
