//! A shard's thread and the runtime on it.

use super::probe::{self, Engine};
use crate::limits::RING_ENTRIES;
use std::future::Future;
use std::io;
use std::thread::JoinHandle;

/// CPUs this process may run on, as core_affinity numbers them. To be called before any thread pins
/// itself, since it reads the calling thread's mask.
pub fn cpus() -> Vec<core_affinity::CoreId> {
    core_affinity::get_core_ids().unwrap_or_default()
}

/// CPUs' worth of time this process may use: affinity and cgroup quota.
pub fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Starts a thread named `name`, pinned to `cpu` when given, that runs what `start` returns to its
/// end.
///
/// `start` runs on the new thread, inside its runtime, so it may make sockets for that runtime.
/// `report` is called once from the thread: with `Ok(pinned)` before `start`, or with the error of
/// making the runtime.
pub fn spawn<F>(
    name: String,
    engine: Engine,
    cpu: Option<core_affinity::CoreId>,
    report: impl FnOnce(io::Result<bool>) + Send + 'static,
    start: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()> + 'static,
{
    std::thread::Builder::new().name(name).spawn(move || {
        // Pinned before the ring exists, so that its memory and workers follow.
        let pinned = cpu.is_some_and(core_affinity::set_for_current);
        match Runtime::new(engine) {
            Ok(runtime) => {
                report(Ok(pinned));
                runtime.block_on(start);
            }
            Err(error) => report(Err(error)),
        }
    })
}

enum Runtime {
    Uring(tokio_uring::Runtime),
    Epoll(tokio::runtime::Runtime),
}

impl Runtime {
    fn new(engine: Engine) -> io::Result<Runtime> {
        match engine {
            Engine::Uring(flags) => {
                let mut ring = probe::builder(flags);
                // A full completion queue would make submissions fail unseen.
                ring.setup_cqsize(RING_ENTRIES * 4);
                let mut builder = tokio_uring::builder();
                builder.entries(RING_ENTRIES).uring_builder(&ring);
                tokio_uring::Runtime::new(&builder).map(Runtime::Uring)
            }
            Engine::Epoll => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map(Runtime::Epoll),
        }
    }

    /// As a task among those it starts: what they wake it for it does in the same turn. The runtime
    /// looks at its own future only after a look at all sockets.
    fn block_on<F>(self, start: impl FnOnce() -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let task = async move {
            let ended = tokio::task::spawn_local(async move { start().await }).await;
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        };
        match self {
            Runtime::Uring(runtime) => runtime.block_on(task),
            Runtime::Epoll(runtime) => tokio::task::LocalSet::new().block_on(&runtime, task),
        }
    }
}
