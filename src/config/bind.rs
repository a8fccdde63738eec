//! Parameters of `bind`, `default-bind` and `stats socket` lines.
//!
//! Every parameter HAProxy 3.2 registers is known here with its number of words: those a node can
//! honour are kept, those that change nothing we do are skipped, and those that would silently
//! change what is on the wire (TLS, PROXY protocol, other namespaces) are refused by the caller.
#![forbid(unsafe_code)]

use crate::config::address::{self, Names, Purpose};
use crate::config::values;
use crate::config::{Address, BindSpec, CliLevel, Location, SeverityOutput, UnixOptions};
use crate::limits::BIND_ADDRESSES_MAX;

/// Parameters without an address; `default-bind` is one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BindParameters {
    pub(crate) name: Option<String>,
    pub(crate) backlog: Option<u32>,
    pub(crate) maxconn: u32,
    pub(crate) v6only: Option<bool>,
    pub(crate) interface: Option<String>,
    pub(crate) transparent: bool,
    pub(crate) unix: UnixOptions,
    pub(crate) level: CliLevel,
    pub(crate) severity_output: SeverityOutput,
    pub(crate) expose_fd_listeners: bool,
    /// Parameters that would need what this version does not have.
    pub(crate) refused: Vec<&'static str>,
    /// Parameters read and left aside.
    pub(crate) ignored: Vec<&'static str>,
}

/// Why the parameters are wrong. *Effect:* an alert; the line is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BindError {
    /// No such parameter.
    Unknown(String),
    /// A parameter's value is missing or wrong: the message, which names the parameter.
    Invalid(String),
}

/// Parameters read and left aside: they do not change what peers see.
const IGNORED: &[(&str, usize)] = &[
    ("defer-accept", 0),
    ("guid-prefix", 1),
    ("id", 1),
    ("idle-ping", 1),
    ("label", 1),
    ("mss", 1),
    ("nbconn", 1),
    ("nice", 1),
    ("process", 1),
    ("proto", 1),
    ("quic-cc-algo", 1),
    ("quic-force-retry", 0),
    ("quic-socket", 1),
    ("shards", 1),
    ("tcp-md5sig", 1),
    ("tcp-ss", 1),
    ("tcp-ut", 1),
    ("tfo", 0),
    ("thread", 1),
    // Of TLS, without effect unless `ssl` is there too.
    ("allow-0rtt", 0),
    ("alpn", 1),
    ("ca-file", 1),
    ("ca-ignore-err", 1),
    ("ca-sign-file", 1),
    ("ca-sign-pass", 1),
    ("ca-verify-file", 1),
    ("ciphers", 1),
    ("ciphersuites", 1),
    ("client-sigalgs", 1),
    ("crl-file", 1),
    ("crt", 1),
    ("crt-ignore-err", 1),
    ("crt-list", 1),
    ("curves", 1),
    ("default-crt", 1),
    ("ecdhe", 1),
    ("force-sslv3", 0),
    ("force-tlsv10", 0),
    ("force-tlsv11", 0),
    ("force-tlsv12", 0),
    ("force-tlsv13", 0),
    ("generate-certificates", 0),
    ("no-alpn", 0),
    ("no-ca-names", 0),
    ("no-sslv3", 0),
    ("no-strict-sni", 0),
    ("no-tls-tickets", 0),
    ("no-tlsv10", 0),
    ("no-tlsv11", 0),
    ("no-tlsv12", 0),
    ("no-tlsv13", 0),
    ("npn", 1),
    ("prefer-client-ciphers", 0),
    ("sigalgs", 1),
    ("ssl-max-ver", 1),
    ("ssl-min-ver", 1),
    ("strict-sni", 0),
    ("tls-ticket-keys", 1),
    ("tls-tickets", 0),
    ("verify", 1),
];
/// Parameters that change what is on the wire in ways this version does not speak.
const REFUSED: &[(&str, usize)] =
    &[("ssl", 0), ("accept-proxy", 0), ("accept-netscaler-cip", 1), ("namespace", 1)];

impl BindParameters {
    /// Reads `words` over what is already set.
    pub(crate) fn read(&mut self, words: &[String], names: Names<'_>) -> Result<(), BindError> {
        let mut words = words.iter().map(String::as_str);
        while let Some(keyword) = words.next() {
            self.one(keyword, &mut words, names)?;
        }
        Ok(())
    }

    fn one<'w>(
        &mut self,
        keyword: &str,
        words: &mut impl Iterator<Item = &'w str>,
        names: Names<'_>,
    ) -> Result<(), BindError> {
        let invalid = |text: String| BindError::Invalid(format!("'{keyword}' : {text}"));
        let mut value = |what: &str| words.next().ok_or_else(|| invalid(format!("missing {what}")));
        match keyword {
            "name" => self.name = Some(value("name")?.to_owned()),
            "interface" => self.interface = Some(value("interface name")?.to_owned()),
            "backlog" => {
                let text = value("value")?;
                // HAProxy reads `backlog x` as 0, its word for "the default".
                self.backlog = match values::integer(text).unwrap_or(0) {
                    n if n < 0 => return Err(invalid(format!("invalid value {n}, must be > 0"))),
                    0 => None,
                    n => Some(u32::try_from(n).unwrap_or(u32::MAX)),
                };
            }
            "maxconn" => {
                let n = values::integer(value("value")?).unwrap_or(0);
                let n = u32::try_from(n)
                    .map_err(|_| invalid(format!("invalid value {n}, must be >= 0")))?;
                self.maxconn = n;
            }
            "v6only" => self.v6only = Some(true),
            "v4v6" => self.v6only = Some(false),
            "transparent" => self.transparent = true,
            "mode" | "user" | "uid" | "group" | "gid" => {
                let text = words.next();
                unix_option(&mut self.unix, keyword, text, names).map_err(BindError::Invalid)?;
            }
            "level" => {
                self.level = match value("level")? {
                    "user" => CliLevel::User,
                    "operator" => CliLevel::Operator,
                    "admin" => CliLevel::Admin,
                    got => return only(keyword, "'user', 'operator', and 'admin'", got),
                };
            }
            "severity-output" => {
                self.severity_output = match value("severity format")? {
                    "none" => SeverityOutput::None,
                    "number" => SeverityOutput::Number,
                    "string" => SeverityOutput::String,
                    got => return only(keyword, "'none', 'number', and 'string'", got),
                };
            }
            "expose-fd" => match value("fd type")? {
                "listeners" => self.expose_fd_listeners = true,
                got => return only(keyword, "'listeners'", got),
            },
            _ => {
                if let Some((known, arity)) = REFUSED.iter().find(|(k, _)| *k == keyword) {
                    self.refused.push(known);
                    return skip(keyword, *arity, words);
                }
                let Some((known, arity)) = IGNORED.iter().find(|(k, _)| *k == keyword) else {
                    return Err(BindError::Unknown(keyword.to_owned()));
                };
                self.ignored.push(known);
                return skip(keyword, *arity, words);
            }
        }
        Ok(())
    }

    /// The parameters with addresses.
    pub(crate) fn spec(&self, addresses: Vec<Address>, at: Location) -> BindSpec {
        BindSpec {
            addresses,
            name: self.name.clone(),
            backlog: self.backlog,
            maxconn: self.maxconn,
            v6only: self.v6only,
            interface: self.interface.clone(),
            transparent: self.transparent,
            unix: self.unix.clone(),
            at,
        }
    }
}

fn only(keyword: &str, what: &str, got: &str) -> Result<(), BindError> {
    Err(BindError::Invalid(format!("'{keyword}' only supports {what} (got '{got}')")))
}

fn skip<'w>(
    keyword: &str,
    arity: usize,
    words: &mut impl Iterator<Item = &'w str>,
) -> Result<(), BindError> {
    for _ in 0..arity {
        if words.next().is_none() {
            return Err(BindError::Invalid(format!("'{keyword}' : missing value")));
        }
    }
    Ok(())
}

/// `mode`, `user`, `uid`, `group`, `gid`: of `bind` lines and of `unix-bind`.
pub(crate) fn unix_option(
    unix: &mut UnixOptions,
    keyword: &str,
    text: Option<&str>,
    names: Names<'_>,
) -> Result<(), String> {
    let kind = match keyword {
        "mode" => {
            let text = text.unwrap_or_default();
            let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777);
            unix.mode = Some(mode.ok_or_else(|| {
                format!("'mode' : missing or invalid mode '{text}' (octal integer expected)")
            })?);
            return Ok(());
        }
        "user" | "group" => keyword,
        _ => "value",
    };
    let Some(text) = text else {
        let name = if kind == "value" { "value" } else { &format!("{kind} name") };
        return Err(format!("'{keyword}' : missing {name}"));
    };
    let number = || text.parse::<u32>().ok();
    let (id, place) = match keyword {
        "user" => (names.host.uid(text), &mut unix.uid),
        "group" => (names.host.gid(text), &mut unix.gid),
        "uid" => (number(), &mut unix.uid),
        _ => (number(), &mut unix.gid),
    };
    match id {
        Some(id) => *place = Some(id),
        None if kind == "value" => {
            return Err(format!("'{keyword}' : invalid value '{text}' (integer expected)"));
        }
        None => return Err(format!("'{keyword}' : unknown {kind} name '{text}'")),
    }
    Ok(())
}

/// The address word of a `bind` or `stats socket` line: a comma separated list.
pub(crate) fn addresses(text: &str, names: Names<'_>) -> Result<Vec<Address>, String> {
    let mut list = Vec::new();
    for one in text.split(',') {
        list.extend(address::parse(one, Purpose::Listen, names)?);
        if list.len() > BIND_ADDRESSES_MAX {
            return Err(format!("more than {BIND_ADDRESSES_MAX} addresses in one line"));
        }
    }
    Ok(list)
}
