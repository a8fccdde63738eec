//! The little JSON the stats socket writes.
//!
//! Strings only: everything else is written by `format!`.

use std::fmt::Write;

/// Appends a JSON string. Bytes that are no UTF-8 become U+FFFD.
pub fn write_string(text: &[u8], out: &mut String) {
    out.push('"');
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes() {
        let mut out = String::new();
        super::write_string(b"a\"b\\c\nd\te\x01\xff", &mut out);
        assert_eq!(out, "\"a\\\"b\\\\c\\nd\\te\\u0001\u{fffd}\"");
    }
}
