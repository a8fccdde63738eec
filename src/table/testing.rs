//! Helpers of the module's tests.

#![forbid(unsafe_code)]

use super::spec::{ColumnSpec, TableSpec};
use crate::wire::{DataType, KeyType};

/// A table with columns as configuration writes them, periods in ms:
/// `gpc0,gpt(3),gpc_rate(2,10000)`. One hour of expiry, 1000 entries.
pub fn spec(key_type: KeyType, key_len: u32, store: &str) -> TableSpec {
    let mut columns: Vec<ColumnSpec> = Vec::new();
    let mut rest = store;
    while !rest.is_empty() {
        let end = rest.find([',', '(']).unwrap_or(rest.len());
        let data_type = DataType::from_name(&rest[..end]).expect("known type");
        let mut numbers = Vec::new();
        rest = &rest[end..];
        if let Some(inside) = rest.strip_prefix('(') {
            let close = inside.find(')').expect("closing parenthesis");
            numbers = inside[..close].split(',').map(|n| n.parse().expect("number")).collect();
            rest = &inside[close + 1..];
        }
        rest = rest.strip_prefix(',').unwrap_or(rest);
        let elements = if data_type.is_array() { numbers.remove(0) } else { 1 };
        let period_ms = if data_type.is_rate() { numbers.remove(0) } else { 0 };
        columns.push(ColumnSpec { data_type, elements, period_ms });
    }
    columns.sort_by_key(|c| c.data_type);
    TableSpec {
        name: "t".to_owned(),
        wire_name: "t".to_owned(),
        key_type,
        key_len,
        size: 1000,
        expire_ms: 3_600_000,
        nopurge: false,
        columns,
        recv_only: false,
        write_to: None,
        brates_factor: 1,
        srvkey_addr: false,
    }
}
