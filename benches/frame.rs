//! `wire::frame`: cutting a received stream into messages, and building messages.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use stickring::limits::BUFSIZE_DEFAULT;
use stickring::wire::{Cut, frame};

/// Messages of `payload` bytes, about 256 KiB of them.
fn stream(payload: usize) -> (Vec<u8>, u64) {
    let (mut out, mut messages) = (Vec::new(), 0);
    let body = vec![0x55; payload];
    while out.len() < 256 * 1024 {
        frame::build(&mut out, frame::class::TABLE, 0x80, |out| out.extend_from_slice(&body));
        messages += 1;
    }
    (out, messages)
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    let sizes = [9, 24, 84, 300, 4000];

    let mut group = c.benchmark_group("frame/cut");
    for size in sizes {
        let (bytes, messages) = stream(size);
        group.throughput(Throughput::Elements(messages));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                let bytes = black_box(&bytes[..]);
                let (mut at, mut sum) = (0, 0usize);
                while let Ok(Cut::Frame(f)) = frame::cut(&bytes[at..], BUFSIZE_DEFAULT) {
                    at += f.len;
                    sum += f.payload.len();
                }
                sum
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("frame/build");
    for size in sizes {
        let (bytes, messages) = stream(size);
        let body = vec![0x55; size];
        group.throughput(Throughput::Elements(messages));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter_batched_ref(
                || Vec::with_capacity(bytes.len()),
                |out| {
                    for _ in 0..messages {
                        frame::build(out, frame::class::TABLE, 0x80, |out| {
                            out.extend_from_slice(black_box(&body));
                        });
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    c.final_summary();
}
