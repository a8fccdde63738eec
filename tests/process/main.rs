//! The daemon as operators and their tools know a HAProxy: flags, signals, exit codes, pid files,
//! taking over from an old process, the master and its workers. Real processes on loopback, all of
//! them bounded in time.
#![allow(clippy::disallowed_methods, reason = "tests use real time, unlike the core")]

mod lab;

mod master;
mod master_cli;
mod notify;
mod sockets;
mod stats;
mod takeover;
