//! The stats socket: HAProxy's runtime API for a peers node, without the socket.
//!
//! Owns the grammar, the levels, the framing and every reply's exact text. Called by the
//! coordinator, which owns the sockets: it feeds [`CliConn`] and runs the [`Command`]s that come
//! out, over the shards. Rule: byte for byte HAProxy 3.2 (runtime-api.md 3); where we differ on
//! purpose the module of the command says so; any bytes cost at most their own connection.
//!
//! Differences, in one place:
//! * `set table <t>` without a key changes nothing (HAProxy empties the table);
//! * a lowered session (`user`) is refused what a socket of that level is refused;
//! * binary keys are written and read in hexadecimal (HAProxy takes none);
//! * `show peers` prints no empty line between sections, and the true date;
//! * `clear counters` is about the listeners of `show stat` and the highest rate of `show info`;
//!   what peers and shards count goes on;
//! * `show peers json`, `show peers lag`, and fields at the end of `show info` are ours.
//!
//! One command a file: [`show_table`] [`set_table`] [`clear_table`] [`show_peers`] [`show_info`]
//! [`show_stat`] [`show_errors`] [`show_env`] [`help`] [`prompt`] [`timeout`] [`wait`];
//! the rest is a line in [`command`].

#![forbid(unsafe_code)]

pub mod clear_table;
pub mod column;
pub mod command;
pub mod conn;
pub mod error;
pub mod help;
pub mod json;
pub mod prompt;
pub mod row;
pub mod select;
pub mod set_table;
pub mod severity;
pub mod show_env;
pub mod show_errors;
pub mod show_info;
pub mod show_peers;
pub mod show_stat;
pub mod show_table;
pub mod timeout;
pub mod wait;
pub mod words;

pub use command::{Command, Facts, Tables, level_name};
pub use conn::{Action, CliConn};
pub use error::CliError;
