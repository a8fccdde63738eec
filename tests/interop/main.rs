//! Interop tests: the node beside real HAProxy processes of every version found, on loopback.
//!
//! `tests/setup-haproxy.sh` sets the versions up; without it the system's own is used. Each
//! scenario runs on every version, the output names them, and those that are missing. Everything is
//! bounded in time and every process dies with its test.
#![allow(clippy::disallowed_methods, reason = "tests use real time, unlike the core")]

mod compare;
mod config;
mod harness;
mod http;
mod rawpeer;
mod stats;

mod bad_input;
mod bulk;
mod cli_text;
mod config_text;
mod daemon;
mod faults;
mod features;
mod instant;
mod layouts;
mod raw_handshake;
mod raw_lessons;
mod raw_messages;
mod reload;
mod sessions;
mod values;
