//! One log line: for stderr, and for each kind of `log` target.
//!
//! Pure formatting: the coordinator's logger sends the result. Rule: HAProxy's formats byte for
//! byte (stderr's levels, and `log … format …` as 3.2 sends them, without `log-send-hostname`);
//! whatever a peer made us say stays one line.

use super::time::WallTime;
use crate::config::{LogFormat, LogTarget};

/// How bad it is, numbered as syslog does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// The node cannot do its work.
    Alert = 1,
    /// Something failed.
    Err = 3,
    /// Works, but someone should look.
    Warning = 4,
    /// Good to know.
    Notice = 5,
    /// What happens all day.
    Info = 6,
    /// Details.
    Debug = 7,
}

impl Level {
    /// The tag on stderr with its padding: 11 columns.
    pub fn tag(self) -> &'static str {
        match self {
            Level::Alert | Level::Err => "[ALERT]    ",
            Level::Warning => "[WARNING]  ",
            Level::Notice | Level::Info | Level::Debug => "[NOTICE]   ",
        }
    }
}

/// A line to send.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Its level.
    pub level: Level,
    /// Its text, without a newline at the end.
    pub text: &'a str,
    /// Our process.
    pub pid: u32,
    /// Unix time in ms.
    pub wall_ms: u64,
}

/// The tag syslog lines carry.
const TAG: &str = "stickring";

/// `[NOTICE]   (pid) : text`, with HAProxy's mark in front of continuation lines.
pub fn stderr_line(level: Level, pid: u32, text: &str) -> String {
    let mut line = format!("{}({pid}) : ", level.tag());
    for (n, part) in text.trim_end_matches('\n').split('\n').enumerate() {
        if n > 0 {
            line.push_str("\n   | ");
        }
        line.extend(part.chars().map(printable));
    }
    line.push('\n');
    line
}

/// The line as the target wants it, its newline included; `None` when its level is not wanted.
/// Cut to the target's length, newline included, as HAProxy does.
pub fn format_line(target: &LogTarget, line: &Line<'_>) -> Option<Vec<u8>> {
    let level = line.level as u8;
    if level > target.max_level {
        return None;
    }
    let level = level.max(target.min_level);
    let priority = u32::from(target.facility) * 8 + u32::from(level);
    let wall = WallTime { unix_us: line.wall_ms.saturating_mul(1000), offset_s: 0 };
    let pid = line.pid;
    let head = match target.format {
        LogFormat::Local => format!("<{priority}>{} {TAG}[{pid}]: ", wall.rfc3164()),
        LogFormat::Rfc3164 => format!("<{priority}>{} localhost {TAG}[{pid}]: ", wall.rfc3164()),
        LogFormat::Rfc5424 => format!("<{priority}>1 {} - {TAG} {pid} - - ", wall.rfc5424()),
        LogFormat::Priority => format!("<{priority}>"),
        LogFormat::Short => format!("<{level}>"),
        LogFormat::Timed => format!("<{level}>{} ", wall.rfc5424()),
        LogFormat::Iso => format!("{} ", wall.rfc5424()),
        LogFormat::Raw => String::new(),
    };
    let text: String = line.text.chars().map(printable).collect();
    let mut bytes = format!("{head}{text}").into_bytes();
    bytes.truncate((target.max_len as usize).saturating_sub(1));
    bytes.push(b'\n');
    Some(bytes)
}

fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Address;

    fn target(format: LogFormat, max_len: u32) -> LogTarget {
        LogTarget {
            address: Address::Fd(1),
            max_len,
            format,
            facility: 18,
            max_level: 6,
            min_level: 0,
        }
    }

    fn line(level: Level, text: &str) -> Line<'_> {
        Line { level, text, pid: 23763, wall_ms: 1_795_200_065_738 }
    }

    /// As HAProxy 3.2 sent them, but for the tag and microseconds we do not measure.
    #[test]
    fn formats() {
        let text = "Proxy st stopped (cumulated conns: FE: 0, BE: 0).";
        for (format, head) in [
            (LogFormat::Local, "<148>Nov 20 18:41:05 stickring[23763]: "),
            (LogFormat::Rfc3164, "<148>Nov 20 18:41:05 localhost stickring[23763]: "),
            (LogFormat::Rfc5424, "<148>1 2026-11-20T18:41:05.738000+00:00 - stickring 23763 - - "),
            (LogFormat::Priority, "<148>"),
            (LogFormat::Short, "<4>"),
            (LogFormat::Timed, "<4>2026-11-20T18:41:05.738000+00:00 "),
            (LogFormat::Iso, "2026-11-20T18:41:05.738000+00:00 "),
            (LogFormat::Raw, ""),
        ] {
            let sent = format_line(&target(format, 1024), &line(Level::Warning, text));
            assert_eq!(sent, Some(format!("{head}{text}\n").into_bytes()), "{format:?}");
        }
    }

    #[test]
    fn length_and_levels() {
        let long = "x".repeat(200);
        let sent = format_line(&target(LogFormat::Raw, 80), &line(Level::Notice, &long));
        assert_eq!(sent.map(|bytes| bytes.len()), Some(80));
        assert_eq!(format_line(&target(LogFormat::Raw, 80), &line(Level::Debug, "x")), None);
        let at_least_notice = LogTarget { min_level: 5, ..target(LogFormat::Short, 80) };
        let sent = format_line(&at_least_notice, &line(Level::Alert, "x"));
        assert_eq!(sent, Some(b"<5>x\n".to_vec()));
    }

    #[test]
    fn stderr() {
        assert_eq!(stderr_line(Level::Notice, 15150, "a"), "[NOTICE]   (15150) : a\n");
        assert_eq!(stderr_line(Level::Warning, 7, "a\nb\n"), "[WARNING]  (7) : a\n   | b\n");
        assert_eq!(stderr_line(Level::Alert, 7, "a\x1b[1mb\r"), "[ALERT]    (7) : a [1mb \n");
    }

    #[test]
    fn what_a_peer_says_stays_one_line() {
        let sent = format_line(&target(LogFormat::Raw, 80), &line(Level::Notice, "a\nb\tc"));
        assert_eq!(sent, Some(b"a b c\n".to_vec()));
    }
}
