//! `set timeout cli <delay>`: a number of seconds, or with a unit.
//!
//! Pure; called by [`super::command`]. Rule: what HAProxy 3.2 accepts, but that a delay longer than
//! HAProxy can count is refused instead of wrapping.

use super::error::CliError;

/// Parses the words behind `set timeout`; the delay in ms, at least 1.
pub(super) fn parse(words: &[Vec<u8>]) -> Result<u64, CliError> {
    match words {
        [cli, rest @ ..] if cli == b"cli" => {
            let text = rest.first().ok_or(CliError::TimeoutExpected)?;
            delay_ms(text).filter(|&ms| ms > 0).ok_or(CliError::TimeoutInvalid)
        }
        _ => Err(CliError::TimeoutUsage),
    }
}

/// Digits and one of `us ms s m h d`; seconds without a unit. Rounded up to whole milliseconds.
fn delay_ms(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let number: u64 = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    let scaled = match &text[digits..] {
        b"us" => Some(number.div_ceil(1000)),
        b"ms" => Some(number),
        b"" | b"s" => number.checked_mul(1000),
        b"m" => number.checked_mul(60_000),
        b"h" => number.checked_mul(3_600_000),
        b"d" => number.checked_mul(86_400_000),
        _ => None,
    };
    scaled.filter(|&ms| ms <= u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each seen with HAProxy 3.2.
    #[test]
    fn delays() {
        let run = |text: &str| {
            let words: Vec<_> = text.split_whitespace().map(|w| w.as_bytes().to_vec()).collect();
            parse(&words)
        };
        for (text, expected) in [
            ("cli 5", Ok(5_000)),
            ("cli 5 extra", Ok(5_000)),
            ("cli 05", Ok(5_000)),
            ("cli 1500ms", Ok(1_500)),
            ("cli 1us", Ok(1)),
            ("cli 5m", Ok(300_000)),
            ("cli 25d", Ok(2_160_000_000)),
            ("cli 2147483648ms", Ok(2_147_483_648)),
            ("cli", Err(CliError::TimeoutExpected)),
            ("cli x", Err(CliError::TimeoutInvalid)),
            ("cli 0", Err(CliError::TimeoutInvalid)),
            ("cli 0ms", Err(CliError::TimeoutInvalid)),
            ("cli -1", Err(CliError::TimeoutInvalid)),
            ("cli +5", Err(CliError::TimeoutInvalid)),
            ("cli 5S", Err(CliError::TimeoutInvalid)),
            ("cli 1.5", Err(CliError::TimeoutInvalid)),
            ("cli 99999999999", Err(CliError::TimeoutInvalid)),
            ("", Err(CliError::TimeoutUsage)),
            ("foo 3", Err(CliError::TimeoutUsage)),
        ] {
            assert_eq!(run(text), expected, "{text}");
        }
    }
}
