//! All that stickring asks of Linux: threads, rings, sockets, clocks.
//!
//! Owns the choice of I/O engine (io_uring through tokio-uring, or epoll where io_uring is
//! refused). Called by `main`, [`crate::shard`] and [`crate::coordinator`]. Rule: nothing outside
//! this module names tokio-uring, and a read future is never dropped (a forgotten read would
//! swallow bytes): reads that wait are ended by [`Stream::interrupt`], which loses none.

pub mod clock;
pub mod control;
pub mod doorbell;
pub mod fault;
pub mod getsocks;
pub mod mesh;
pub mod notify;
pub mod old;
pub mod probe;
pub mod process;
pub mod rights;
pub mod socket;
pub mod stream;
pub mod thread;

pub use clock::Clock;
pub use doorbell::Doorbell;
pub use probe::Engine;
pub use stream::Stream;

/// Lets this thread's I/O go on, for a task that has more to do: a real wait, which is when the
/// uring runtime submits. (Yielding in a loop would keep everything queued for ever.)
pub async fn breathe(engine: Engine) {
    match engine {
        // The answer says only that the ring went round.
        Engine::Uring(_) => drop(tokio_uring::no_op().await),
        Engine::Epoll => tokio::task::yield_now().await,
    }
}
