//! The peers protocol as bytes: protocol.md sections 1 to 4, and nothing else.
//!
//! Pure functions over slices. Owns no state but the two dictionary caches of a session. Called by
//! [`crate::session`] (both directions) and by the shards' encoders. Rule: every decoder is total
//! (any bytes give a value or a typed error with an offset), and encoding what was decoded gives
//! the same bytes back.
//!
//! ```text
//! hello:   "HAProxyS 2.1\n" "<to>\n" "<from> <pid> <relative pid>\n"   -> status "200\n"
//! frame:   class(1) type(1) [ varint length, payload ]               length only if type >= 0x80
//! DEFINE:  id name key-type key-length data-types [ expire, parameters... ]
//! UPDATE:  [ uid(4) ] [ expire(4) ] key value value ...              values in ascending bit order
//! ```

#![forbid(unsafe_code)]

pub mod data_type;
pub mod definition;
pub mod dictionary;
pub mod error;
pub mod frame;
pub mod hello;
pub mod message;
pub mod update;
pub mod varint;

#[cfg(test)]
mod tests;

pub use data_type::{DataType, KeyType, Kind};
pub use definition::{Definition, Parameter, Step, Tail};
pub use error::{DecodeError, What};
pub use frame::{Cut, Frame, FrameError};
pub use message::{Control, ErrorCode, Message, UpdateForm};
pub use update::{DictValue, KeyShape, Update, Value};
