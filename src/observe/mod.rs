//! Words for people: log lines, dates, durations, hand-overs.
//!
//! Pure formatting; owns nothing. Called by the coordinator (which sends the lines) and by
//! [`crate::runtime_api`]. Rule: the text is HAProxy's where HAProxy has one.

#![forbid(unsafe_code)]

pub mod handover;
pub mod log;
pub mod time;
