//! `show errors [<section>]`: the last protocol errors, with the bytes that were wrong.
//!
//! HAProxy shows requests its proxies refused; a peers node shows messages it refused, in the same
//! layout. The coordinator keeps the events (bounded), this formats them. Rule: no line is empty:
//! HAProxy's own separator is a line of one blank.

use super::error::CliError;
use crate::limits::ERROR_BYTES_MAX;
use crate::observe::time::WallTime;
use std::fmt::Write;

/// A parsed `show errors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShowErrors {
    /// Only this peers section.
    pub section: Option<Vec<u8>>,
}

/// One refused message.
#[derive(Clone, Debug, Default)]
pub struct ErrorEvent {
    /// When.
    pub date: WallTime,
    /// Its number since the start, from 0.
    pub number: u64,
    /// The peers section.
    pub section: String,
    /// The peer.
    pub peer: String,
    /// Where the connection came from.
    pub source: String,
    /// What was wrong.
    pub text: String,
    /// Number of the message in its session, from 1; 0 for the hello.
    pub message: u64,
    /// Offset of the mistake in `bytes`.
    pub offset: usize,
    /// The message, cut to [`ERROR_BYTES_MAX`].
    pub bytes: Vec<u8>,
}

/// Parses the words behind `show errors`.
pub(super) fn parse(words: &[Vec<u8>]) -> ShowErrors {
    ShowErrors { section: words.first().cloned() }
}

/// Appends the reply. `total` counts every error since the start, `events` are those kept.
pub fn write(
    query: &ShowErrors,
    known: &[String],
    now: WallTime,
    total: u64,
    events: &[ErrorEvent],
    out: &mut String,
) -> Result<(), CliError> {
    let wanted = |name: &String| query.section.as_ref().is_none_or(|s| s == name.as_bytes());
    if query.section.is_some() && !known.iter().any(wanted) {
        return Err(CliError::NoSuchProxy);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(out, "Total events captured on [{}] : {total}", now.log_date_ms());
    for e in events.iter().filter(|e| wanted(&e.section)) {
        let _ = event(e, out);
    }
    Ok(())
}

fn event(e: &ErrorEvent, out: &mut String) -> std::fmt::Result {
    let date = e.date.log_date_ms();
    writeln!(out, " \n[{date}] peers {}: invalid message, {}", e.section, one_line(&e.text))?;
    writeln!(
        out,
        "  peer {}, event #{}, src {}, message #{}, error at position {}:",
        e.peer, e.number, e.source, e.message, e.offset
    )?;
    out.push_str(" \n");
    let shown = &e.bytes[..e.bytes.len().min(ERROR_BYTES_MAX)];
    for (n, line) in shown.chunks(16).enumerate() {
        write!(out, "  {:05}  ", n * 16)?;
        line.iter().try_for_each(|b| write!(out, "{b:02x} "))?;
        let pad = 3 * (16 - line.len()) + 1;
        write!(out, "{:pad$}", "")?;
        out.extend(line.iter().map(|&b| if (0x20..0x7f).contains(&b) { b as char } else { '.' }));
        out.push('\n');
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(query: Option<&str>, events: &[ErrorEvent]) -> Result<String, CliError> {
        let query = ShowErrors { section: query.map(|s| s.as_bytes().to_vec()) };
        let now = WallTime { unix_us: 1_795_198_594_088_000, offset_s: 0 };
        let mut out = String::new();
        write(&query, &["p1".to_owned()], now, 7, events, &mut out).map(|()| out)
    }

    #[test]
    fn empty_as_haproxy() {
        let head = "Total events captured on [20/Nov/2026:18:16:34.088] : 7\n".to_owned();
        assert_eq!(run(None, &[]), Ok(head.clone()));
        assert_eq!(run(Some("p1"), &[]), Ok(head));
        assert_eq!(run(Some("x"), &[]), Err(CliError::NoSuchProxy));
    }

    #[test]
    fn an_event_is_dumped() {
        let event = ErrorEvent {
            date: WallTime { unix_us: 1_795_198_594_000_000, offset_s: 0 },
            number: 6,
            section: "p1".into(),
            peer: "hapb".into(),
            source: "127.0.0.1:4242".into(),
            text: "key is cut\n\n".into(),
            message: 12,
            offset: 3,
            bytes: b"\x0a\x80\x12hello, peers world".to_vec(),
        };
        let text = run(None, &[event]).unwrap();
        assert!(!text.contains("\n\n"), "{text}");
        let expected = " 
[20/Nov/2026:18:16:34.000] peers p1: invalid message, key is cut  
  peer hapb, event #6, src 127.0.0.1:4242, message #12, error at position 3:
 
  00000  0a 80 12 68 65 6c 6c 6f 2c 20 70 65 65 72 73 20  ...hello, peers 
  00016  77 6f 72 6c 64                                   world
";
        assert_eq!(text.split_once('\n').unwrap().1, expected);
    }
}
