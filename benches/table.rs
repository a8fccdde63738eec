//! A table part at work: learning new rows, overwriting, finding, expiring, encoding, evicting.

use criterion::{BatchSize, Criterion, Throughput};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use stickring::Millis;
use stickring::table::{
    ColumnSpec, KeyHasher, Place, RemoteLayout, RemoteUpdate, ScanCursor, TablePart, TableSpec,
    Timing, definition_of, encode_update,
};
use stickring::wire::dictionary::TxDictionary;
use stickring::wire::{DataType, KeyType, Value, update};

const ROWS: u32 = 1_000_000;
const NOW: Millis = Millis(1_000_000);

/// `type ip`, `store gpc0,http_req_rate(10s)`, `expire 1h`: the table of all figures.
fn spec(size: u64) -> TableSpec {
    let column = |name: &str, period_ms| ColumnSpec {
        data_type: DataType::from_name(name).expect("a type"),
        elements: 1,
        period_ms,
    };
    TableSpec {
        name: "t1".to_owned(),
        wire_name: "t1".to_owned(),
        key_type: KeyType::Ipv4,
        key_len: 4,
        size,
        expire_ms: 3_600_000,
        nopurge: false,
        columns: vec![column("gpc0", 0), column("http_req_rate", 10_000)],
        recv_only: false,
        write_to: None,
        brates_factor: 1,
        srvkey_addr: false,
    }
}

fn hasher() -> KeyHasher {
    KeyHasher::new([1, 2, 3, 4])
}

fn part(size: u64) -> TablePart {
    let place = Place::new(0, size, 1);
    TablePart::new(Arc::new(spec(size)), hasher(), place, 0).expect("memory")
}

/// Keys in random order, each once.
fn keys(from: u32) -> Vec<[u8; 4]> {
    (from..from + ROWS).map(|i| i.wrapping_mul(0x9e37_79b9).to_be_bytes()).collect()
}

fn learn(part: &mut TablePart, keys: &[[u8; 4]], values: &[u8]) {
    let layout = RemoteLayout::new(&definition_of(part.spec(), 1), part.spec()).expect("fits");
    let hasher = hasher();
    // As many as one receive buffer holds.
    for keys in keys.chunks(8_192) {
        let hashes: Vec<u64> = keys.iter().map(|key| hasher.hash(key)).collect();
        let done = part.apply(
            NOW,
            &layout,
            keys.len(),
            |i| hashes[i],
            |i| RemoteUpdate { key: &keys[i], values, ..RemoteUpdate::default() },
        );
        assert_eq!(done.refused, 0);
    }
}

fn main() {
    let mut c = Criterion::default().configure_from_args().sample_size(10);
    let mut values = Vec::new();
    update::encode_value(&mut values, Value::Int(7));
    update::encode_value(&mut values, Value::Rate { age_ms: 1_000, curr: 5, prev: 3 });
    let (first, second) = (keys(0), keys(ROWS));
    let mut full = part(u64::from(ROWS) * 2);
    learn(&mut full, &first, &values);

    let mut group = c.benchmark_group("table, 1 M random keys");
    group.throughput(Throughput::Elements(u64::from(ROWS)));
    group.bench_function("learn new rows", |b| {
        let fresh = || part(u64::from(ROWS) * 2);
        b.iter_batched_ref(fresh, |p| learn(p, &first, &values), BatchSize::PerIteration);
    });
    group.bench_function("overwrite", |b| b.iter(|| learn(&mut full, &first, &values)));
    group.bench_function("find", |b| {
        let hasher = hasher();
        let found = |k: &&[u8; 4]| full.get(NOW, &k[..], hasher.hash(&k[..])).is_some();
        b.iter(|| assert_eq!(first.iter().filter(found).count(), ROWS as usize));
    });
    group.bench_function("find absent", |b| {
        let hasher = hasher();
        let found = |k: &&[u8; 4]| full.get(NOW, &k[..], hasher.hash(&k[..])).is_some();
        b.iter(|| assert_eq!(second.iter().filter(found).count(), 0));
    });
    group.bench_function("expire all", |b| {
        let filled = || {
            let mut p = part(u64::from(ROWS) * 2);
            learn(&mut p, &first, &values);
            p
        };
        let over = Millis(NOW.0 + 2 * 3_600_000);
        b.iter_batched_ref(
            filled,
            |p| {
                // As a tick does it, some rows at a time.
                while p.expire(over, 8_192) > 0 {}
                assert_eq!(p.used_estimate(), 0);
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("nothing to expire", |b| {
        b.iter(|| (0..ROWS).for_each(|_| assert_eq!(full.expire(NOW, 8_192), 0)));
    });
    group.bench_function("encode all", |b| {
        let mut out = Vec::with_capacity(32 * ROWS as usize);
        b.iter(|| {
            out.clear();
            let mut dictionary = TxDictionary::new();
            full.scan(NOW, ScanCursor::default(), usize::MAX, |e| {
                match encode_update(&e, 1, Timing::Timed, NOW, &mut dictionary, &mut out) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            black_box(out.len())
        });
    });
    group.bench_function("evict and insert", |b| {
        let full = || {
            let mut p = part(u64::from(ROWS));
            learn(&mut p, &first, &values);
            p
        };
        b.iter_batched_ref(full, |p| learn(p, &second, &values), BatchSize::PerIteration);
    });
    group.finish();
    c.final_summary();
}
