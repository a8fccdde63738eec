//! A received stream of updates, from bytes to values: cut, name, split, decode; and the way back.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use stickring::limits::BUFSIZE_DEFAULT;
use stickring::wire::update::{decode_values, encode_head, encode_value};
use stickring::wire::{
    Cut, DataType, Definition, KeyShape, KeyType, Kind, Message, Parameter, Step, Tail, Update,
    UpdateForm, Value, frame,
};

const UPDATES: u32 = 4096;
const FORM: UpdateForm = UpdateForm { explicit_id: true, timed: true };

/// A table whose updates are decoded: name, key, types.
struct Table {
    name: &'static str,
    shape: KeyShape,
    steps: Vec<Step>,
}

fn table(name: &'static str, key_type: KeyType, key_len: u32, types: &[&str]) -> Table {
    let data_types = types.iter().map(|t| DataType::from_name(t).expect("a type").mask()).sum();
    let parameters = DataType::of_bits(data_types)
        .filter(|t| t.has_parameters())
        .map(|data_type| Parameter { data_type, elements: 4, period_ms: 10_000 })
        .collect();
    let tail = Tail::Present { expire_ms: 60_000, parameters };
    let definition = Definition {
        id: 1,
        name: b"t".into(),
        key_type: key_type as u64,
        key_len,
        data_types,
        tail,
    };
    Table { name, shape: KeyShape::of(key_type, key_len), steps: definition.steps() }
}

fn tables() -> Vec<Table> {
    let all: Vec<&str> = DataType::all().filter(|t| !t.is_array()).map(DataType::name).collect();
    vec![
        table("ip, gpc0", KeyType::Ipv4, 4, &["gpc0"]),
        table("ip, 3 rates", KeyType::Ipv4, 4, &["conn_rate", "http_req_rate", "bytes_out_rate"]),
        table("string, gpt0 gpc0", KeyType::String, 33, &["gpt0", "gpc0"]),
        table("ipv6, all scalars", KeyType::Ipv6, 16, &all),
        table("ip, arrays", KeyType::Ipv4, 4, &["gpt", "gpc", "gpc_rate"]),
    ]
}

/// One update with plausible values: small counts, ages of a few seconds.
fn encode(out: &mut Vec<u8>, table: &Table, n: u32) {
    frame::build(out, frame::class::TABLE, FORM.kind(), |out| {
        let mut key = [0u8; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let key = match table.shape {
            KeyShape::Fixed(len) => &key[..len],
            KeyShape::String { .. } => b"198.51.100.77/index.html",
        };
        encode_head(out, Some(n), Some(60_000 - n), table.shape, key);
        for step in &table.steps {
            for _ in 0..step.elements {
                let value = match step.data_type.kind() {
                    Kind::Rate => Value::Rate { age_ms: 1000 + n, curr: n % 50, prev: n % 300 },
                    _ if step.data_type == DataType::SERVER_KEY => Value::Int(0),
                    _ => Value::Int(u64::from(n % 400)),
                };
                encode_value(out, value);
            }
        }
    });
}

/// Everything a receiver does before the table; the sum stands for storing.
fn decode(bytes: &[u8], table: &Table) -> u64 {
    let (mut at, mut sum) = (0, 0u64);
    while let Ok(Cut::Frame(f)) = frame::cut(&bytes[at..], BUFSIZE_DEFAULT) {
        at += f.len;
        let Ok(Message::Update(form, payload)) = Message::of(&f) else { continue };
        let Ok(update) = Update::decode(form, payload, table.shape) else { continue };
        sum = sum.wrapping_add(update.key.len() as u64);
        let _ = decode_values(update.values, &table.steps, |step, _, value| {
            sum = sum.wrapping_add(match value {
                Value::Int(v) => v,
                Value::Rate { age_ms, curr, prev } => u64::from(age_ms ^ curr ^ prev),
                Value::Dict(_) => step as u64,
            });
        });
    }
    sum
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    let tables = tables();

    let mut group = c.benchmark_group("updates/decode");
    for table in &tables {
        let mut bytes = Vec::new();
        (0..UPDATES).for_each(|n| encode(&mut bytes, table, n));
        group.throughput(Throughput::Elements(u64::from(UPDATES)));
        group.bench_function(BenchmarkId::from_parameter(table.name), |b| {
            b.iter(|| decode(black_box(&bytes), table));
        });
    }
    group.finish();

    let mut group = c.benchmark_group("updates/encode");
    for table in &tables {
        group.throughput(Throughput::Elements(u64::from(UPDATES)));
        group.bench_function(BenchmarkId::from_parameter(table.name), |b| {
            b.iter_batched_ref(
                || Vec::with_capacity(1 << 20),
                |out| (0..UPDATES).for_each(|n| encode(out, table, n)),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();

    let mut group = c.benchmark_group("definition");
    let text = b"\x0a\x82\x1a\x07\x05t_arr\x06\x09\xf0\xf1\xfe\x6e\xf0\xd9\xdc\x0c\x16\x03\x17\x02\
                 \x18\x02\xf0\xe2\x03";
    group
        .bench_function("decode, arrays", |b| b.iter(|| Definition::decode(black_box(&text[3..]))));
    group.finish();
    c.final_summary();
}
