//! The data: tables, partitions, rows.

pub mod spec;
