//! Messages between shards: through a ring, in batches as a tick makes them, and back.

use criterion::{BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use stickring::engine::Doorbell;
use stickring::engine::mesh::mesh;

/// What a batch message is about as large as.
type Message = [u64; 8];

/// Messages of one round.
const COUNT: u64 = 8_192;

fn bells(shards: usize) -> Arc<Vec<Doorbell>> {
    Arc::new((0..shards).map(|_| Doorbell::default()).collect())
}

fn main() {
    let mut c = Criterion::default().configure_from_args().sample_size(20);
    let mut group = c.benchmark_group("mailbox");
    group.throughput(Throughput::Elements(COUNT));
    // Both ends on one thread: the cost of the ring itself, and of the bell once a batch.
    for batch in [1u64, 32, 512] {
        let mut ends = mesh::<Message>(2, &bells(2));
        group.bench_function(BenchmarkId::new("one thread, batches of", batch), |b| {
            b.iter(|| {
                let mut sum = 0u64;
                for round in 0..COUNT / batch {
                    (0..batch).for_each(|i| ends[0].send(1, [round ^ i; 8]));
                    ends[0].flush();
                    while let Some(m) = ends[1].receive() {
                        sum = sum.wrapping_add(m[0]);
                    }
                }
                black_box(sum)
            });
        });
    }
    // There and back between two threads that both look all the time: cache lines change owners.
    group.bench_function("two threads, echo in batches of 32", |b| {
        let mut ends = mesh::<Message>(2, &bells(2));
        let (mut far, mut near) = (ends.pop().expect("two ends"), ends.pop().expect("two ends"));
        let stop = Arc::new(AtomicBool::new(false));
        let echo = thread::spawn({
            let stop = stop.clone();
            move || {
                while !stop.load(Ordering::Relaxed) {
                    while let Some(m) = far.receive() {
                        far.send(0, m);
                    }
                    far.flush();
                    std::hint::spin_loop();
                }
            }
        });
        b.iter(|| {
            let (mut sent, mut back) = (0, 0);
            while back < COUNT {
                // No more under way than two rings hold.
                while sent < COUNT && sent - back < 512 {
                    (0..32).for_each(|i| near.send(1, [sent + i; 8]));
                    near.flush();
                    sent += 32;
                }
                while near.receive().is_some() {
                    back += 1;
                }
            }
        });
        stop.store(true, Ordering::Relaxed);
        echo.join().expect("the echo ends");
    });
    group.finish();
    c.final_summary();
}
