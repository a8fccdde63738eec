//! Waking a sleeping shard, at most once a batch.
//!
//! Owned by the shard that sleeps; rung by every other. A producer pushes its whole batch first and
//! rings once; the consumer arms the bell, looks again, and only then sleeps.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use tokio::sync::Notify;

/// See the module head.
#[derive(Debug, Default)]
pub struct Doorbell {
    armed: AtomicBool,
    notify: Notify,
}

impl Doorbell {
    /// Wakes the owner if it sleeps. Costs one fence when it does not.
    #[inline]
    pub fn ring(&self) {
        // Pairs with the fence in `wait`: either the owner sees what was pushed before this, or we
        // see that it has armed the bell.
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }

    /// Sleeps until [`Doorbell::ring`], unless `has_work` says there is something to do already.
    /// Cancel-safe: a permit that came while nobody waited is kept for the next wait.
    pub async fn wait(&self, has_work: impl FnOnce() -> bool) {
        self.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if has_work() {
            self.armed.store(false, Ordering::Relaxed);
            return;
        }
        self.notify.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    /// Two threads pass a counter to and fro; a lost wake-up would hang the test.
    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: u64 = 20_000;
        let (bells, turn) =
            (Arc::new([Doorbell::default(), Doorbell::default()]), Arc::new(AtomicU64::new(0)));
        let threads: Vec<_> = (0..2u64)
            .map(|me| {
                let (bells, turn) = (bells.clone(), turn.clone());
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        loop {
                            let t = turn.load(Ordering::Acquire);
                            if t >= ROUNDS {
                                break;
                            }
                            if t % 2 == me {
                                turn.store(t + 1, Ordering::Release);
                                bells[1 - me as usize].ring();
                            } else {
                                let mine = || {
                                    let t = turn.load(Ordering::Acquire);
                                    t % 2 == me || t >= ROUNDS
                                };
                                bells[me as usize].wait(mine).await;
                            }
                        }
                    });
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(turn.load(Ordering::Relaxed), ROUNDS);
    }
}
