//! The data: tables, partitions, rows.

pub mod blobs;
pub mod changes;
pub mod expiry;
pub mod index;
pub mod key;
pub mod layout;
pub mod memory;
pub mod rate;
pub mod route;
pub mod rows;
pub mod schema;
pub mod spec;
#[cfg(test)]
mod testing;
pub mod texts;
