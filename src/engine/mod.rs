//! All that stickring asks of Linux: threads, rings, sockets, clocks.
//!
//! Owns the choice of I/O engine (io_uring through tokio-uring, or epoll where io_uring is refused).
//! Called by `main`, [`crate::shard`] and [`crate::coordinator`]. Rule: nothing outside this module
//! names tokio-uring, and a read future is never dropped (a forgotten read would swallow bytes).

pub mod clock;
pub mod doorbell;
pub mod mesh;
pub mod probe;
pub mod process;
pub mod socket;
pub mod stream;
pub mod thread;

pub use clock::Clock;
pub use doorbell::Doorbell;
pub use probe::Engine;
pub use stream::Stream;
