//! `table` lines of peers sections and `stick-table` lines of proxies.
//!
//! *Called by* [`super::peers`] and [`super::proxies`]. *Keeps*: HAProxy's order of checks, its
//! limits (protocol.md 8) and its messages.
#![forbid(unsafe_code)]

use crate::config::Location;
use crate::config::values::{self, ValueError};
use crate::limits::{ARRAY_ELEMENTS_MAX, BINARY_KEY_DEFAULT, EXPIRE_MAX_MS, KEY_MAX};
use crate::table::spec::{ColumnSpec, TableSpec};
use crate::wire::{DataType, KeyType};

/// A table as its line says it.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) spec: TableSpec,
    /// `peers <section>`.
    pub(crate) peers: Option<String>,
}

/// Messages about one line: text behind `parsing [f:l] : ` unless said otherwise.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// Fatal, already with their prefix.
    pub(crate) alerts: Vec<String>,
    /// Not fatal, already with their prefix.
    pub(crate) warnings: Vec<String>,
}

struct Line<'a> {
    /// `table` or `stick-table`.
    word: &'static str,
    words: &'a [String],
    next: usize,
    at: &'a Location,
    messages: &'a mut Messages,
    key: Option<(KeyType, u32)>,
    spec: TableSpec,
    peers: Option<String>,
}

/// Reads the parameters behind `table <name>` or `stick-table`. `None` when an alert was given.
pub(crate) fn parse(
    word: &'static str,
    name: &str,
    wire_name: &str,
    words: &[String],
    at: &Location,
    messages: &mut Messages,
) -> Option<Parsed> {
    let spec = TableSpec {
        name: name.to_owned(),
        wire_name: wire_name.to_owned(),
        key_type: KeyType::Ipv4,
        key_len: 0,
        size: 0,
        expire_ms: 0,
        nopurge: false,
        columns: Vec::new(),
        recv_only: false,
        write_to: None,
        brates_factor: 1,
        srvkey_addr: false,
    };
    let mut line = Line { word, words, next: 0, at, messages, key: None, spec, peers: None };
    while line.next < words.len() {
        line.one()?;
    }
    line.finish()
}

impl<'a> Line<'a> {
    /// The next word, or "" behind the end.
    fn take(&mut self) -> &'a str {
        let text = self.words.get(self.next).map_or("", String::as_str);
        self.next += 1;
        text
    }

    fn alert<T>(&mut self, text: impl std::fmt::Display) -> Option<T> {
        let line = format!("config : parsing [{}] : {text}", self.at);
        self.messages.alerts.push(line);
        None
    }

    fn wrong<T>(&mut self, text: impl std::fmt::Display) -> Option<T> {
        let word = self.word;
        self.alert(format_args!("{word}: {text}"))
    }

    fn one(&mut self) -> Option<()> {
        let keyword = self.take();
        match keyword {
            "size" => {
                let text = self.argument(keyword)?;
                self.spec.size = match values::size(text) {
                    Ok(size) => size,
                    Err(ValueError::Unexpected(Some(c))) => return self.unexpected(keyword, c),
                    Err(_) => return self.wrong("missing size."),
                };
            }
            "expire" => {
                let text = self.argument(keyword)?;
                self.spec.expire_ms = self.time(keyword, text)?;
            }
            "type" => self.key_type()?,
            "nopurge" => self.spec.nopurge = true,
            "recv-only" => self.spec.recv_only = true,
            "store" => self.store()?,
            "peers" if self.word == "stick-table" => {
                self.peers = Some(self.argument(keyword)?.to_owned());
            }
            "srvkey" => match self.take() {
                "name" => self.spec.srvkey_addr = false,
                "addr" => self.spec.srvkey_addr = true,
                other => {
                    let text = format!("{} : unknown server key type '{other}'.", self.word);
                    return self.alert(text);
                }
            },
            "write-to" => match self.take() {
                "" => {
                    let text = format!("{} : write-to requires table name.", self.word);
                    return self.alert(text);
                }
                table => self.spec.write_to = Some(table.to_owned()),
            },
            "brates-factor" => {
                let text = self.argument(keyword)?;
                let factor = match values::size(text) {
                    Ok(factor) => factor,
                    Err(ValueError::Unexpected(Some(c))) => return self.unexpected(keyword, c),
                    Err(_) => 0,
                };
                if !(1..=1024).contains(&factor) {
                    return self.wrong(
                        "argument 'brates-factor' must be greater than 0 and lower or equal than \
                        1024.",
                    );
                }
                self.spec.brates_factor = factor as u32;
            }
            other => return self.wrong(format_args!("unknown argument '{other}'.")),
        }
        Some(())
    }

    fn argument(&mut self, keyword: &str) -> Option<&'a str> {
        match self.take() {
            "" => self.wrong(format_args!("missing argument after '{keyword}'.")),
            text => Some(text),
        }
    }

    fn unexpected<T>(&mut self, keyword: &str, c: char) -> Option<T> {
        self.wrong(format_args!("unexpected character '{c}' in argument of '{keyword}'."))
    }

    fn time(&mut self, keyword: &str, text: &str) -> Option<u32> {
        match values::time_ms(text, u64::from(EXPIRE_MAX_MS)) {
            Ok((ms, trailing)) => {
                self.warn_trailing(text, trailing);
                u32::try_from(ms).ok()
            }
            Err(ValueError::Unexpected(c)) => self.unexpected(keyword, c.unwrap_or(' ')),
            Err(ValueError::Overflow) => {
                self.messages.alerts.push(format!(
                    "config : parsing [{}]: {}: timer overflow in argument <{text}> to \
                     <{keyword}>, maximum value is {EXPIRE_MAX_MS} ms (~24.8 days).",
                    self.at, self.word
                ));
                None
            }
        }
    }

    /// HAProxy 3.2 still takes `1mm` for `1m`, and says that this will end.
    fn warn_trailing(&mut self, text: &str, trailing: Option<char>) {
        if let Some(c) = trailing {
            self.messages.warnings.push(format!(
                "config : parsing [{}] : {}: unexpected character '{c}' after the timer value \
                 '{text}', only \
                 (us=microseconds,ms=milliseconds,s=seconds,m=minutes,h=hours,d=days) are \
                 supported.",
                self.at, self.word
            ));
        }
    }

    fn key_type(&mut self) -> Option<()> {
        let name = self.take();
        let (key_type, default) = match name {
            "ip" | "ipv4" => (KeyType::Ipv4, 4),
            "ipv6" => (KeyType::Ipv6, 16),
            "integer" => (KeyType::Integer, 4),
            // A string of at most 31 characters, which definitions announce as 32.
            "string" => (KeyType::String, 32),
            "binary" => (KeyType::Binary, BINARY_KEY_DEFAULT),
            other => return self.wrong(format_args!("unknown type '{other}'.")),
        };
        let mut key_len = default;
        let sized = matches!(key_type, KeyType::String | KeyType::Binary);
        if sized && self.words.get(self.next).is_some_and(|w| w == "len") {
            self.next += 1;
            // A string's announced length counts its NUL.
            let extra = u32::from(key_type == KeyType::String);
            let length = match self.take().parse::<u32>() {
                Ok(n) if n > KEY_MAX - extra => {
                    return self.alert(format_args!(
                        "'len' {n} is more than a peer's message can carry, maximum is {}.",
                        KEY_MAX - extra
                    ));
                }
                Ok(n) if n > 0 => n,
                _ => return self.alert("'len' expects a positive integer argument."),
            };
            key_len = length + extra;
        }
        self.key = Some((key_type, key_len));
        Some(())
    }

    /// The comma separated list behind `store`.
    fn store(&mut self) -> Option<()> {
        let list = self.take();
        let mut rest = list;
        loop {
            let end = rest.find(['(', ',']).unwrap_or(rest.len());
            let name = &rest[..end];
            let Some(data_type) = DataType::from_name(name) else {
                return self.wrong(format_args!("unknown store option '{name}'."));
            };
            rest = &rest[end..];
            let mut argument = None;
            if let Some(inside) = rest.strip_prefix('(') {
                let Some(close) = inside.find(')') else {
                    return self.wrong(format_args!(
                        "missing closing parenthesis after store option '{name}'."
                    ));
                };
                argument = Some(&inside[..close]);
                rest = &inside[close + 1..];
            }
            self.column(name, data_type, argument)?;
            // HAProxy passes over what stands between `)` and the next comma.
            let next = rest.find(',').unwrap_or(rest.len());
            if next > 0 {
                self.messages.warnings.push(format!(
                    "config : parsing [{}] : {}: '{}' behind store option '{name}' is ignored.",
                    self.at,
                    self.word,
                    &rest[..next]
                ));
            }
            rest = rest[next..].strip_prefix(',').unwrap_or("");
            if rest.is_empty() {
                return Some(());
            }
        }
    }

    fn column(&mut self, name: &str, data_type: DataType, argument: Option<&str>) -> Option<()> {
        if argument.is_some() && !data_type.has_parameters() {
            return self.wrong(format_args!("unexpected argument to store option '{name}'."));
        }
        let (mut elements, mut period_ms) = (1, 0);
        if data_type.has_parameters() {
            let missing = format!("missing argument to store option '{name}'.");
            let Some(argument) = argument else { return self.wrong(missing) };
            let mut parts = argument.split(',');
            if data_type.is_array() {
                let count = leading_number(parts.next().unwrap_or_default());
                if !(1..=ARRAY_ELEMENTS_MAX).contains(&count) {
                    return self.wrong(format_args!(
                        "array size is out of allowed range (1-{ARRAY_ELEMENTS_MAX}) for store \
                         option '{name}'."
                    ));
                }
                elements = count;
                if !data_type.is_rate() && parts.next().is_some() {
                    return self
                        .wrong(format_args!("unexpected argument to store option '{name}'."));
                }
            }
            if data_type.is_rate() {
                let Some(period) = parts.next() else { return self.wrong(missing) };
                match values::time_ms(period, u64::from(EXPIRE_MAX_MS)) {
                    Ok((ms, trailing)) => {
                        self.warn_trailing(period, trailing);
                        period_ms = ms as u32;
                    }
                    _ => {
                        return self
                            .wrong(format_args!("error when processing store option '{name}'."));
                    }
                }
            }
        }
        if self.spec.columns.iter().any(|c| c.data_type == data_type) {
            self.messages.warnings.push(format!(
                "config : parsing [{}]: {}: store option '{name}' already enabled, ignored.",
                self.at, self.word
            ));
            return Some(());
        }
        self.spec.columns.push(ColumnSpec { data_type, elements, period_ms });
        Some(())
    }

    fn finish(mut self) -> Option<Parsed> {
        if self.spec.size == 0 {
            return self.wrong("missing size.");
        }
        let Some((key_type, key_len)) = self.key else {
            return self.wrong("missing type.");
        };
        self.spec.key_type = key_type;
        self.spec.key_len = key_len;
        self.spec.columns.sort_by_key(|c| c.data_type);
        for (array, singles, shown) in [
            ("gpt", &["gpt0"][..], "gpt0"),
            ("gpc", &["gpc0", "gpc1"][..], "gpc[0/1]"),
            ("gpc_rate", &["gpc0_rate", "gpc1_rate"][..], "gpc[0/1]_rate"),
        ] {
            let stored = |name: &str| self.spec.columns.iter().any(|c| c.data_type.name() == name);
            if stored(array) && singles.iter().any(|s| stored(s)) {
                return self.wrong(format_args!(
                    "simultaneous usage of '{array}' and '{shown}' in a same table is not \
                     permitted as '{array}' overrides '{shown}'."
                ));
            }
        }
        Some(Parsed { spec: self.spec, peers: self.peers })
    }
}

/// The digits a number starts with, as C's `atoi` reads it: `2x` is 2, `x` is 0.
fn leading_number(text: &str) -> u32 {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(0)
}

/// Adds what `stick` rules store by themselves: the server's number and name.
pub(crate) fn add_server_columns(spec: &mut TableSpec) {
    for data_type in [DataType::SERVER_ID, DataType::SERVER_KEY] {
        if let Err(place) = spec.columns.binary_search_by_key(&data_type, |c| c.data_type) {
            spec.columns.insert(place, ColumnSpec { data_type, elements: 1, period_ms: 0 });
        }
    }
}

/// The parameters as configuration, from `type` on (without `peers`).
pub(crate) fn render(spec: &TableSpec) -> String {
    use std::fmt::Write as _;

    let mut out = match spec.key_type {
        KeyType::String => format!("type string len {}", spec.key_len.saturating_sub(1)),
        KeyType::Binary => format!("type binary len {}", spec.key_len),
        other => format!("type {}", other.name()),
    };
    let _ = write!(out, " size {}", spec.size);
    if spec.expire_ms > 0 {
        let _ = write!(out, " expire {}ms", spec.expire_ms);
    }
    if spec.nopurge {
        out.push_str(" nopurge");
    }
    if spec.srvkey_addr {
        out.push_str(" srvkey addr");
    }
    if let Some(table) = &spec.write_to {
        let _ = write!(out, " write-to {}", super::lexer::quote(table));
    }
    if spec.recv_only {
        out.push_str(" recv-only");
    }
    if spec.brates_factor != 1 {
        let _ = write!(out, " brates-factor {}", spec.brates_factor);
    }
    for (i, c) in spec.columns.iter().enumerate() {
        out.push_str(if i == 0 { " store " } else { "," });
        out.push_str(c.data_type.name());
        let (n, ms) = (c.elements, c.period_ms);
        let _ = match (c.data_type.is_array(), c.data_type.is_rate()) {
            (true, true) => write!(out, "({n},{ms}ms)"),
            (true, false) => write!(out, "({n})"),
            (false, true) => write!(out, "({ms}ms)"),
            (false, false) => Ok(()),
        };
    }
    out
}

#[cfg(test)]
#[path = "stick_table_tests.rs"]
mod tests;
