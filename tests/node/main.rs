//! The daemon itself beside small scripted peers, without any HAProxy: both engines, one to four
//! shards, real sockets on loopback. Everything is bounded in time, and every process dies with its
//! test.
#![allow(clippy::disallowed_methods, reason = "tests use real time, unlike the core")]

mod daemon;
mod peer;

mod changes;
mod crowds;
mod ends;
mod handover;
mod hardships;
mod instant;
mod lessons;
mod names;
mod reshape;
mod storms;
mod tables;
