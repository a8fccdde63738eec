//! The section's brain: from whom to learn after a start, and how to hand over at the end.
//!
//! [`Section`] waits up to 5 s for the old process's lesson, then has one remote at a time teach,
//! then calls the section up to date (protocol.md 6.1). [`Handover`] is the old process's side of a
//! reload (6.4). Owned by the coordinator, one a `peers` section. Rule: "finished" is only ever
//! said by a section that is up to date.

#![forbid(unsafe_code)]

pub mod handover;
pub mod section;

pub use handover::Handover;
pub use section::{Action, Section, SessionUp};
