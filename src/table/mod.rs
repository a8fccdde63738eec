//! The data: tables, partitions, rows.

pub mod index;
pub mod key;
pub mod memory;
pub mod rate;
pub mod route;
pub mod schema;
pub mod spec;
#[cfg(test)]
mod testing;
