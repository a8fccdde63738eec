//! Shards without threads and sockets: what they keep and say to each other, one tick at a time.

mod changes;
mod freeze;
mod lessons;
mod limits;
mod rig;
mod updates;
