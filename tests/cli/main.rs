//! The stats socket without sockets: real tables on several shards, real connections' state
//! machines, and HAProxy 3.2's own answers to compare with (`golden/`, captured by `capture.py`).

mod framing;
mod golden;
mod levels;
mod node;
mod random;
mod tables;
mod views;
