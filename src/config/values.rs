//! Sizes, times and numbers as HAProxy writes them.
#![forbid(unsafe_code)]

/// Why a value is not one. *Effect:* an alert; the caller words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueError {
    /// This character does not belong there; `None` where the value is missing.
    Unexpected(Option<char>),
    /// Larger than the field can hold.
    Overflow,
}

/// `<n>[k|m|g]` in powers of 1024, at most `u32::MAX` (as `size` of a table).
pub(crate) fn size(text: &str) -> Result<u64, ValueError> {
    let mut value: u64 = 0;
    let mut chars = text.chars();
    let max = u64::from(u32::MAX);
    let unexpected = |c: char| Err(ValueError::Unexpected(Some(c)));
    if text.is_empty() {
        return Err(ValueError::Unexpected(None));
    }
    while let Some(c) = chars.next() {
        match c {
            '0'..='9' => {
                value = value * 10 + u64::from(c as u32 - '0' as u32);
                if value > max {
                    return unexpected(c);
                }
            }
            'k' | 'K' | 'm' | 'M' | 'g' | 'G' => {
                let shift = match c.to_ascii_lowercase() {
                    'k' => 10,
                    'm' => 20,
                    _ => 30,
                };
                value <<= shift;
                if value > max {
                    return unexpected(c);
                }
                return match chars.next() {
                    Some(c) => unexpected(c),
                    None => Ok(value),
                };
            }
            c => return unexpected(c),
        }
    }
    Ok(value)
}

/// `<n>[us|ms|s|m|h|d]` in ms, milliseconds without a unit, rounded up, at most `max_ms`.
///
/// The second value is a character that stands behind a whole time, as in `1mm`: HAProxy 3.2 warns.
pub(crate) fn time_ms(text: &str, max_ms: u64) -> Result<(u64, Option<char>), ValueError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit = &text[digits..];
    if digits == 0 {
        return Err(ValueError::Unexpected(unit.chars().next()));
    }
    let value: u64 = text[..digits].parse().map_err(|_| ValueError::Overflow)?;
    let (per_mille, length) = match unit.as_bytes() {
        [] => (1_000, 0),
        [b'u', b's', ..] => (1, 2),
        [b'm', b's', ..] => (1_000, 2),
        [b's', ..] => (1_000_000, 1),
        [b'm', ..] => (60_000_000, 1),
        [b'h', ..] => (3_600_000_000, 1),
        [b'd', ..] => (86_400_000_000, 1),
        _ => return Err(ValueError::Unexpected(unit.chars().next())),
    };
    let micros = value.checked_mul(per_mille).ok_or(ValueError::Overflow)?;
    let ms = micros.div_ceil(1_000);
    if ms > max_ms {
        return Err(ValueError::Overflow);
    }
    Ok((ms, unit[length..].chars().next()))
}

/// A whole decimal number, with an optional minus sign.
pub(crate) fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("1"), Ok(1));
        assert_eq!(size("2K"), Ok(2048));
        assert_eq!(size("1m"), Ok(1 << 20));
        assert_eq!(size("3g"), Ok(3 << 30));
        for (text, c) in [
            ("5g", 'g'),
            ("3z", 'z'),
            ("-1", '-'),
            ("2kk", 'k'),
            (" 2", ' '),
            ("99999999999999999999", '9'),
        ] {
            assert_eq!(size(text), Err(ValueError::Unexpected(Some(c))), "{text}");
        }
        assert_eq!(size(""), Err(ValueError::Unexpected(None)));
    }

    #[test]
    fn times_round_up_to_milliseconds() {
        let max = 2_147_483_647;
        for (text, ms) in [("0", 0), ("7", 7), ("1us", 1), ("1500us", 2), ("3ms", 3), ("2s", 2_000)]
        {
            assert_eq!(time_ms(text, max), Ok((ms, None)), "{text}");
        }
        assert_eq!(time_ms("24d", max), Ok((2_073_600_000, None)));
        assert_eq!(time_ms("25d", max), Err(ValueError::Overflow));
        assert_eq!(time_ms("1mm", max), Ok((60_000, Some('m'))));
        assert_eq!(time_ms("3x", max), Err(ValueError::Unexpected(Some('x'))));
        assert_eq!(time_ms("", max), Err(ValueError::Unexpected(None)));
        assert_eq!(time_ms("99999999999999999999999", max), Err(ValueError::Overflow));
        assert_eq!(time_ms("99999999999999999d", u64::MAX), Err(ValueError::Overflow));
    }
}
