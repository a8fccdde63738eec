//! `data.<type>[<index>]` and the numbers beside it, as the table commands take them.
//!
//! Pure; called by the parsers of `show table`, `clear table` and `set table`. Rule: what is
//! accepted is what HAProxy 3.2 accepts, oddities included (`-` is 0, `+3` is no number).

use crate::table::spec::{ColumnSpec, TableSpec};
use crate::wire::DataType;

/// A data type and the element meant by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The type.
    pub data_type: DataType,
    /// Element of an array type; 0 for the others. May be past the end.
    pub index: u32,
}

impl Column {
    /// Parses what stands behind `data.`.
    pub fn parse(text: &[u8]) -> Option<Column> {
        let text = std::str::from_utf8(text).ok()?;
        let Some((name, rest)) = text.split_once('[') else {
            return Some(Column { data_type: DataType::from_name(text)?, index: 0 });
        };
        let data_type = DataType::from_name(name).filter(|t| t.is_array())?;
        let digits = rest.strip_suffix(']')?;
        // Whatever is past 2^32, or negative, is past the end of any array too.
        let number = integer(digits.as_bytes()).or_else(|| all_digits(digits).then_some(-1))?;
        Some(Column { data_type, index: u32::try_from(number).unwrap_or(u32::MAX) })
    }

    /// The table's column of that type.
    pub fn of(self, spec: &TableSpec) -> Option<&ColumnSpec> {
        spec.columns.iter().find(|c| c.data_type == self.data_type)
    }
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A signed 64-bit number: an optional minus and digits, nothing else. A lone minus is 0.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [] => return None,
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    digits.iter().try_fold(0i64, |n, &b| {
        let digit = i64::from(b.is_ascii_digit().then(|| b - b'0')?);
        let n = n.checked_mul(10)?;
        if negative { n.checked_sub(digit) } else { n.checked_add(digit) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each seen with HAProxy 3.2.
    #[test]
    fn names_and_indexes() {
        for (text, expected) in [
            ("gpc0", Some(("gpc0", 0))),
            ("server_name", Some(("server_key", 0))),
            ("gpt", Some(("gpt", 0))),
            ("gpt[2]", Some(("gpt", 2))),
            ("gpt[00]", Some(("gpt", 0))),
            ("gpt[-1]", Some(("gpt", u32::MAX))),
            ("gpt[99999999999]", Some(("gpt", u32::MAX))),
            ("gpt[99999999999999999999]", Some(("gpt", u32::MAX))),
            ("gpt[]", None),
            ("gpt[", None),
            ("gpt[2", None),
            ("gpt[0]x", None),
            ("gpt[x]", None),
            ("gpc0[0]", None),
            ("foo", None),
            ("", None),
        ] {
            let found = Column::parse(text.as_bytes()).map(|c| (c.data_type.name(), c.index));
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(Column::parse(b"\xff"), None);
    }

    /// Each seen with HAProxy 3.2.
    #[test]
    fn integers() {
        for (text, expected) in [
            ("", None),
            ("0", Some(0)),
            ("007", Some(7)),
            ("-0", Some(0)),
            ("-", Some(0)),
            ("-1", Some(-1)),
            ("+1", None),
            ("0x10", None),
            ("3z", None),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
        ] {
            assert_eq!(integer(text.as_bytes()), expected, "{text}");
        }
    }
}
