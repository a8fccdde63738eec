//! Parameters of `peer`, `server` and `default-server` lines.
//!
//! Every parameter HAProxy 3.2 registers is known with its number of words, as in [`super::bind`].
#![forbid(unsafe_code)]

use crate::config::address::{self, Names, Purpose};
use crate::config::{Address, values};

/// What such a line may say behind the address; `default-server` is one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerParameters {
    pub(crate) shard: u32,
    pub(crate) disabled: bool,
    pub(crate) source: Option<Address>,
    pub(crate) source_interface: Option<String>,
    pub(crate) ssl: bool,
    pub(crate) send_proxy: bool,
    /// Other parameters that would need what this version does not have.
    pub(crate) refused: Vec<&'static str>,
    /// Checks, resolvers and agents: HAProxy warns that peers ignore them.
    pub(crate) checks: bool,
    /// Parameters read and left aside.
    pub(crate) ignored: Vec<&'static str>,
    /// A `shard` that is not a number, which HAProxy reads as 0.
    pub(crate) odd_shard: Option<String>,
}

/// Why the parameters are wrong. *Effect:* an alert; the line is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerError {
    /// No such parameter.
    Unknown(String),
    /// A parameter's value is missing or wrong.
    Invalid(String),
}

/// Ignored by HAProxy's peers too, with a warning when used.
const CHECKS: &[(&str, usize)] =
    &[("agent-check", 0), ("check", 0), ("init-addr", 1), ("resolvers", 1)];
/// Read and left aside.
const IGNORED: &[(&str, usize)] = &[
    ("addr", 1),
    ("agent-addr", 1),
    ("agent-inter", 1),
    ("agent-port", 1),
    ("agent-send", 1),
    ("backup", 0),
    ("check-alpn", 1),
    ("check-pool-conn-name", 1),
    ("check-proto", 1),
    ("check-reuse-pool", 0),
    ("check-send-proxy", 0),
    ("check-sni", 1),
    ("check-ssl", 0),
    ("check-via-socks4", 0),
    ("cookie", 1),
    ("downinter", 1),
    ("error-limit", 1),
    ("fall", 1),
    ("fastinter", 1),
    ("guid", 1),
    ("hash-key", 1),
    ("idle-ping", 1),
    ("init-state", 1),
    ("inter", 1),
    ("log-bufsize", 1),
    ("log-proto", 1),
    ("max-reuse", 1),
    ("maxconn", 1),
    ("maxqueue", 1),
    ("minconn", 1),
    ("no-agent-check", 0),
    ("no-backup", 0),
    ("no-check", 0),
    ("no-check-reuse-pool", 0),
    ("no-check-send-proxy", 0),
    ("no-check-ssl", 0),
    ("no-ssl-reuse", 0),
    ("no-tfo", 0),
    ("non-stick", 0),
    ("observe", 1),
    ("on-error", 1),
    ("on-marked-down", 1),
    ("on-marked-up", 1),
    ("pool-conn-name", 1),
    ("pool-low-conn", 1),
    ("pool-max-conn", 1),
    ("pool-purge-delay", 1),
    ("port", 1),
    ("proto", 1),
    ("proxy-v2-options", 1),
    ("redir", 1),
    ("resolve-net", 1),
    ("resolve-opts", 1),
    ("resolve-prefer", 1),
    ("rise", 1),
    ("slowstart", 1),
    ("ssl-reuse", 0),
    ("stick", 0),
    ("strict-maxconn", 0),
    ("tcp-md5sig", 1),
    ("tcp-ut", 1),
    ("tfo", 0),
    ("track", 1),
    ("weight", 1),
    ("ws", 1),
    // Of TLS, without effect unless `ssl` is there too.
    ("allow-0rtt", 0),
    ("alpn", 1),
    ("ca-file", 1),
    ("ciphers", 1),
    ("ciphersuites", 1),
    ("client-sigalgs", 1),
    ("crl-file", 1),
    ("crt", 1),
    ("curves", 1),
    ("force-sslv3", 0),
    ("force-tlsv10", 0),
    ("force-tlsv11", 0),
    ("force-tlsv12", 0),
    ("force-tlsv13", 0),
    ("no-sslv3", 0),
    ("no-tls-tickets", 0),
    ("no-tlsv10", 0),
    ("no-tlsv11", 0),
    ("no-tlsv12", 0),
    ("no-tlsv13", 0),
    ("npn", 1),
    ("renegotiate", 0),
    ("sigalgs", 1),
    ("sni", 1),
    ("ssl-max-ver", 1),
    ("ssl-min-ver", 1),
    ("tls-tickets", 0),
    ("verifyhost", 1),
];
/// Would change who is talked to, or how.
const REFUSED: &[(&str, usize)] = &[("namespace", 1), ("socks4", 1), ("set-proxy-v2-tlv-fmt", 1)];

type Words<'w> = std::iter::Peekable<std::slice::Iter<'w, String>>;

impl ServerParameters {
    /// Reads `words` over what is already set.
    pub(crate) fn read(&mut self, words: &[String], names: Names<'_>) -> Result<(), ServerError> {
        let mut words = words.iter().peekable();
        while let Some(keyword) = words.next() {
            self.one(keyword, &mut words, names)?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        keyword: &str,
        words: &mut Words<'_>,
        names: Names<'_>,
    ) -> Result<(), ServerError> {
        let invalid = |text: &str| Err(ServerError::Invalid(format!("'{keyword}' : {text}")));
        match keyword {
            "shard" => {
                let text = words.next().map_or("", String::as_str);
                self.shard = text.parse().unwrap_or(0);
                self.odd_shard = (text.parse::<u32>().is_err()).then(|| text.to_owned());
            }
            "disabled" => self.disabled = true,
            "enabled" => self.disabled = false,
            "ssl" => self.ssl = true,
            "no-ssl" => self.ssl = false,
            "send-proxy" | "send-proxy-v2" | "send-proxy-v2-ssl" | "send-proxy-v2-ssl-cn" => {
                self.send_proxy = true;
            }
            "no-send-proxy"
            | "no-send-proxy-v2"
            | "no-send-proxy-v2-ssl"
            | "no-send-proxy-v2-ssl-cn" => self.send_proxy = false,
            "id" => match words.next().and_then(|t| values::integer(t).or(Some(0))) {
                None => return invalid("expects an integer argument."),
                Some(n) if n <= 0 => return invalid("custom id has to be > 0."),
                Some(_) => self.ignored.push("id"),
            },
            "verify" => match words.next().map(String::as_str) {
                None => return invalid("missing verify method."),
                Some("none" | "required") => self.ignored.push("verify"),
                Some(other) => {
                    return invalid(&format!(
                        "unknown verify method '{other}', only 'none' and 'required' are supported."
                    ));
                }
            },
            "source" => self.source(words, names)?,
            "usesrc" => return invalid("only allowed after a 'source' statement."),
            _ => return self.listed(keyword, words),
        }
        Ok(())
    }

    fn listed(&mut self, keyword: &str, words: &mut Words<'_>) -> Result<(), ServerError> {
        let find =
            |list: &'static [(&'static str, usize)]| list.iter().find(|(k, _)| *k == keyword);
        let arity = if let Some((_, arity)) = find(CHECKS) {
            self.checks = true;
            *arity
        } else if let Some((known, arity)) = find(REFUSED) {
            self.refused.push(known);
            *arity
        } else if let Some((known, arity)) = find(IGNORED) {
            self.ignored.push(known);
            *arity
        } else {
            return Err(ServerError::Unknown(keyword.to_owned()));
        };
        for _ in 0..arity {
            if words.next().is_none() {
                let text = match keyword {
                    "crt" => "missing certificate file path.",
                    _ => "missing value.",
                };
                return Err(ServerError::Invalid(format!("'{keyword}' : {text}")));
            }
        }
        Ok(())
    }

    /// `source <addr>[:<port>] [interface <name>]`.
    fn source(&mut self, words: &mut Words<'_>, names: Names<'_>) -> Result<(), ServerError> {
        let Some(text) = words.next() else {
            let expects = "'source' expects <addr>[:<port>[-<port>]], and optionally 'usesrc' \
                           <addr>, and 'interface' <name> as argument.";
            return Err(ServerError::Invalid(expects.into()));
        };
        let wrong = |e| ServerError::Invalid(format!("'source {text}' : {e}."));
        let addresses = address::parse(text, Purpose::Source, names).map_err(wrong)?;
        self.source = addresses.into_iter().next();
        while let Some(keyword) = words.peek() {
            let place = match keyword.as_str() {
                "interface" => &mut self.source_interface,
                "usesrc" => {
                    self.refused.push("usesrc");
                    words.next();
                    words.next();
                    continue;
                }
                _ => break,
            };
            let keyword = words.next();
            let Some(value) = words.next() else {
                let keyword = keyword.map_or("", String::as_str);
                let text = format!("'{keyword}' : missing interface name.");
                return Err(ServerError::Invalid(text));
            };
            *place = Some(value.clone());
        }
        Ok(())
    }
}
