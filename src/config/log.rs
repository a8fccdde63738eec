//! `log` lines, of the global and the peers sections.
#![forbid(unsafe_code)]

use crate::config::address::{self, Names, Purpose};
use crate::config::{Address, LogFormat, LogTarget};
use crate::limits::{LOG_LEN_DEFAULT, LOG_LEN_MAX, LOG_LEN_MIN};

pub(crate) const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "auth2",
    "ftp", "ntp", "audit", "alert", "cron2", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
pub(crate) const LEVELS: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
pub(crate) const FORMATS: [(&str, LogFormat); 8] = [
    ("local", LogFormat::Local),
    ("rfc3164", LogFormat::Rfc3164),
    ("rfc5424", LogFormat::Rfc5424),
    ("priority", LogFormat::Priority),
    ("short", LogFormat::Short),
    ("timed", LogFormat::Timed),
    ("iso", LogFormat::Iso),
    ("raw", LogFormat::Raw),
];

/// What a `log` line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LogLine {
    /// `log global`.
    Global,
    /// Somewhere we can send to.
    Target(LogTarget),
    /// Somewhere only HAProxy can: said to the operator.
    Unsupported(&'static str),
}

/// Reads the words behind `log`; the error is the text behind `log : `.
pub(crate) fn parse(words: &[String], names: Names<'_>) -> Result<LogLine, String> {
    let word = |i: usize| words.get(i).map_or("", String::as_str);
    if words.len() == 1 && word(0) == "global" {
        return Ok(LogLine::Global);
    }
    if words.len() < 2 {
        return Err("expects <address> and <facility> or global as arguments".into());
    }
    let mut unsupported = None;
    let place = match word(0) {
        "stdout" => Some(Address::Fd(1)),
        "stderr" => Some(Address::Fd(2)),
        text if text.starts_with("ring@") || text.starts_with("backend@") => {
            unsupported = Some("rings and log backends");
            None
        }
        text if text.starts_with("tcp") => {
            unsupported = Some("log servers over TCP");
            None
        }
        text => address::parse(text, Purpose::Log, names)?.into_iter().next(),
    };
    let mut target = LogTarget {
        address: place.unwrap_or(Address::Fd(2)),
        max_len: LOG_LEN_DEFAULT,
        format: LogFormat::default(),
        facility: 0,
        max_level: 7,
        min_level: 0,
    };
    let mut next = 1;
    loop {
        let value = word(next + 1);
        match word(next) {
            "len" => match value.parse() {
                Ok(n) if (LOG_LEN_MIN..=LOG_LEN_MAX).contains(&n) => target.max_len = n,
                _ => {
                    return Err(format!(
                        "invalid log length '{value}', must be between {LOG_LEN_MIN} and \
                        {LOG_LEN_MAX}"
                    ));
                }
            },
            "format" => match FORMATS.iter().find(|(name, _)| *name == value) {
                Some((_, format)) => target.format = *format,
                None => return Err(format!("unknown log format '{value}'")),
            },
            "sample" => unsupported = Some("log sampling"),
            "profile" => unsupported = Some("log profiles"),
            _ => break,
        }
        next += 2;
    }
    let facility = word(next);
    target.facility =
        index(&FACILITIES, facility).ok_or_else(|| format!("unknown log facility '{facility}'"))?;
    let level = |text: &str| {
        index(&LEVELS, text).ok_or_else(|| format!("unknown optional log level '{text}'"))
    };
    if words.len() > next + 1 {
        target.max_level = level(word(next + 1))?;
    }
    if words.len() > next + 2 {
        target.min_level = level(word(next + 2))?;
    }
    if words.len() > next + 3 {
        return Err(format!("cannot handle unexpected argument '{}'", word(next + 3)));
    }
    Ok(match unsupported {
        Some(what) => LogLine::Unsupported(what),
        None => LogLine::Target(target),
    })
}

fn index(list: &[&str], text: &str) -> Option<u8> {
    list.iter().position(|name| *name == text).map(|i| i as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::FakeHost;

    fn read(line: &str) -> Result<LogLine, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words, Names { host: &FakeHost, ignore_failure: false })
    }

    #[test]
    fn targets_are_read() {
        let LogLine::Target(target) =
            read("127.0.0.1 len 2000 format rfc5424 local0 info err").unwrap()
        else {
            panic!("not a target");
        };
        assert_eq!(target.address.to_string(), "ipv4@127.0.0.1:514");
        assert_eq!((target.max_len, target.format), (2000, LogFormat::Rfc5424));
        assert_eq!((target.facility, target.max_level, target.min_level), (16, 6, 3));
        assert_eq!(read("global"), Ok(LogLine::Global));
        assert_eq!(read("ring@x local0"), Ok(LogLine::Unsupported("rings and log backends")));
        for line in
            ["stdout format raw daemon", "/dev/log local0", "fd@2 local0", "udp@[::1]:6 ftp"]
        {
            assert!(matches!(read(line), Ok(LogLine::Target(_))), "{line}");
        }
    }

    #[test]
    fn errors_are_haproxys() {
        for (line, error) in [
            ("", "expects <address> and <facility> or global as arguments"),
            ("127.0.0.1", "expects <address> and <facility> or global as arguments"),
            ("127.0.0.1 foo", "unknown log facility 'foo'"),
            ("127.0.0.1 local0 foo", "unknown optional log level 'foo'"),
            ("127.0.0.1 len 3 local0", "invalid log length '3', must be between 80 and 65535"),
            ("127.0.0.1 len", "invalid log length '', must be between 80 and 65535"),
            ("127.0.0.1 format foo local0", "unknown log format 'foo'"),
            ("127.0.0.1 local0 info notice x", "cannot handle unexpected argument 'x'"),
            ("127.0.0.1:x local0", "invalid character 'x' in port number 'x' in '127.0.0.1:x'"),
        ] {
            assert_eq!(read(line), Err(error.to_owned()), "{line}");
        }
    }
}
