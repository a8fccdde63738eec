//! `wait { -h | <delay> } [<condition>]`: silence for a while, in the middle of a line.
//!
//! Pure: parses; the caller waits, and stops when the client has gone. Rule: HAProxy 3.2's words;
//! its one condition is about servers, of which there are none here, so it fails at once. Unlike
//! 3.2, and like 3.0, a client that has no more to say is waited for: that is how its own manual
//! uses it.

use super::command::{Command, Context};
use super::error::CliError;
use crate::config::CliLevel;
use crate::config::values::time_ms;

/// What `wait -h` and an unknown condition print.
pub const USAGE: &str = "Usage: wait {-h|<duration>} [condition [args...]]
  - '-h' displays this help
  - <duration> is the maximum wait time, optionally suffixed by the unit among
    'us', 'ms', 's', 'm', 'h', and 'd'. ; the default unit is milliseconds.
  - <condition> indicates what to wait for, no longer than the specified
    duration. Supported conditions are:
    - <none> : by default, just sleep for the specified duration.
    - srv-removable <px>/<sv> : wait for this server to become removable.";

/// What a delay that is over says.
pub const DONE: &str = "Done.";

/// Parses the words behind `wait`.
pub(super) fn parse(words: &[Vec<u8>], cx: &Context<'_>) -> Result<Command, CliError> {
    if cx.level < CliLevel::Admin {
        return Err(CliError::PermissionDenied);
    }
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    match words.as_slice() {
        [] => Err(CliError::WaitExpected),
        [b"-h", ..] => Err(CliError::WaitUsage),
        [delay, rest @ ..] => {
            let delay = std::str::from_utf8(delay).unwrap_or_default();
            let ms = match time_ms(delay, i32::MAX as u64) {
                Ok((ms, None)) if ms > 0 => ms,
                _ => return Err(CliError::WaitInvalid),
            };
            match rest {
                [] => Ok(Command::Wait(ms)),
                [b"srv-removable"] => Err(CliError::WaitServer),
                [b"srv-removable", ..] => Err(CliError::WaitFailed),
                _ => Err(CliError::WaitUsage),
            }
        }
    }
}
