//! Which CPUs a thread, and the processes it starts, may use.
//!
//! Owns nothing. Called by `main` for the generator and by the daemons' start. Rule: what cannot be
//! pinned runs where the system puts it, and the report says which CPUs were asked for.

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// CPUs this thread may use.
pub fn allowed() -> Vec<usize> {
    allowed_of(None)
}

/// CPUs that process may use.
pub fn of(pid: u32) -> Vec<usize> {
    allowed_of(i32::try_from(pid).ok().and_then(Pid::from_raw))
}

fn allowed_of(pid: Option<Pid>) -> Vec<usize> {
    let Ok(set) = sched_getaffinity(pid) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|c| set.is_set(*c)).collect()
}

/// Pins this thread, and the threads it starts from now on. None: leaves it as it is.
pub fn this_thread(cpus: &[usize]) {
    if cpus.is_empty() {
        return;
    }
    let mut set = CpuSet::new();
    cpus.iter().for_each(|c| set.set(*c));
    if let Err(e) = sched_setaffinity(None, &set) {
        eprintln!("stickring-load: not pinned to CPUs {cpus:?}: {e}");
    }
}

/// Runs `f` with this thread on `cpus`, and puts it back.
pub fn on<T>(cpus: &[usize], f: impl FnOnce() -> T) -> T {
    let before = allowed();
    // Only CPUs that are left to us, or to whoever started us, can be taken.
    this_thread(cpus);
    let result = f();
    this_thread(&before);
    result
}
