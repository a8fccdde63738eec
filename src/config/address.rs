//! Addresses in HAProxy's forms.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{Host, lexer};
use crate::limits::{BIND_ADDRESSES_MAX, UNIX_PATH_MAX};

/// Where to listen or connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `ip:port`, `:port`, `*:port`, `[v6]:port`, `name:port`, with or without `ipv4@`, `ipv6@`.
    Tcp(TcpAddress),
    /// `/path`, `unix@/path`.
    Unix(String),
    /// `abns@name`: a Linux abstract socket, padded with NUL to the full length of `sun_path` as
    /// HAProxy does.
    Abns(String),
    /// `fd@N`: a socket inherited from the parent process.
    Fd(i32),
}

/// An IP address and port, with the name it was resolved from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpAddress {
    /// Address and port as resolved when the configuration was read.
    pub socket: SocketAddr,
    /// The host name as written, when it was a name: resolve it again on reconnect.
    pub name: Option<String>,
}

impl Address {
    /// A TCP address without a name.
    pub fn tcp(ip: IpAddr, port: u16) -> Address {
        Address::Tcp(TcpAddress { socket: SocketAddr::new(ip, port), name: None })
    }
}

/// As it would be written in a configuration (before quoting); reading it back gives an equal
/// address.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(TcpAddress { socket, name: Some(name) }) => {
                let family = match socket.ip() {
                    // Not resolved: the family is not known either.
                    ip if ip.is_unspecified() => "",
                    IpAddr::V4(_) => "ipv4@",
                    IpAddr::V6(_) => "ipv6@",
                };
                write!(f, "{family}{name}:{}", socket.port())
            }
            Address::Tcp(TcpAddress { socket, name: None }) => match socket.ip() {
                IpAddr::V4(ip) => write!(f, "ipv4@{ip}:{}", socket.port()),
                IpAddr::V6(ip) => write!(f, "ipv6@[{ip}]:{}", socket.port()),
            },
            Address::Unix(path) => write!(f, "unix@{path}"),
            Address::Abns(name) => write!(f, "abns@{name}"),
            Address::Fd(fd) => write!(f, "fd@{fd}"),
        }
    }
}

/// What an address is for: HAProxy accepts different forms in different places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `bind`: a port is needed, `fd@` is fine.
    Listen,
    /// A local `peer` line: listened on and dialled.
    ListenAndDial,
    /// `peer`, `server`: a port is needed, `fd@` is not possible.
    Dial,
    /// `source`: the port may be missing.
    Source,
    /// `log`: datagrams, port 514 unless given.
    Log,
}

impl Purpose {
    fn default_port(self) -> Option<u16> {
        match self {
            Purpose::Listen | Purpose::ListenAndDial | Purpose::Dial => None,
            Purpose::Source => Some(0),
            Purpose::Log => Some(514),
        }
    }
}

/// How names are looked up while addresses are read.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) host: &'a dyn Host,
    /// `-dr`: a name that cannot be resolved is not an error.
    pub(crate) ignore_failure: bool,
}

/// Address family asked for by a prefix.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Any,
    V4,
    V6,
}

/// Reads one address; the error is the part behind HAProxy's `'bind x' : `.
///
/// A port range is allowed with [`Purpose::Listen`] only and gives one address for each port.
pub(crate) fn parse(
    text: &str,
    purpose: Purpose,
    names: Names<'_>,
) -> Result<Vec<Address>, String> {
    let (prefix, rest) = match text.split_once('@') {
        Some((prefix, rest)) if !prefix.contains(['/', ':', '[']) => (prefix, rest),
        _ => ("", text),
    };
    let (dgram, kind) = match prefix.split_once('+') {
        Some(("stream", kind)) => (Some(false), kind),
        Some(("dgram", kind)) => (Some(true), kind),
        _ => match prefix {
            "udp" | "udp4" | "udp6" | "uxdg" => (Some(true), prefix),
            "tcp" | "tcp4" | "tcp6" | "uxst" => (Some(false), prefix),
            _ => (None, prefix),
        },
    };
    if dgram == Some(true) && purpose != Purpose::Log {
        return Err(format!("dgram-type address not acceptable in '{text}'"));
    }
    if dgram == Some(false) && purpose == Purpose::Log {
        return Err(format!("stream-type address not acceptable in '{text}'"));
    }
    match kind {
        "" if rest.starts_with('/') => unix(rest, text),
        "unix" | "uxst" | "uxdg" => unix(rest, text),
        "abns" => match rest.len() {
            0 => Err(format!("missing name in '{text}'")),
            n if n >= UNIX_PATH_MAX => Err(too_long(rest)),
            _ => Ok(vec![Address::Abns(rest.to_owned())]),
        },
        "fd" => inherited(rest, text, purpose),
        "" | "tcp" | "udp" => inet(rest, text, Family::Any, purpose, names),
        "ipv4" | "tcp4" | "udp4" => inet(rest, text, Family::V4, purpose, names),
        "ipv6" | "tcp6" | "udp6" => inet(rest, text, Family::V6, purpose, names),
        _ => Err(format!("unsupported protocol family '{kind}' for address '{text}'")),
    }
}

fn too_long(path: &str) -> String {
    format!("socket path '{path}' too long (max {})", UNIX_PATH_MAX - 1)
}

fn unix(path: &str, text: &str) -> Result<Vec<Address>, String> {
    match path.len() {
        0 => Err(format!("missing path in '{text}'")),
        n if n >= UNIX_PATH_MAX => Err(too_long(path)),
        _ => Ok(vec![Address::Unix(path.to_owned())]),
    }
}

fn inherited(number: &str, text: &str, purpose: Purpose) -> Result<Vec<Address>, String> {
    if matches!(purpose, Purpose::Dial | Purpose::Source) {
        return Err(format!("a file descriptor is not acceptable here in '{text}'"));
    }
    match number.parse::<i32>() {
        Ok(fd) if fd >= 0 => Ok(vec![Address::Fd(fd)]),
        _ => Err(format!("file descriptor '{number}' is not a valid integer in '{text}'")),
    }
}

fn inet(
    rest: &str,
    text: &str,
    family: Family,
    purpose: Purpose,
    names: Names<'_>,
) -> Result<Vec<Address>, String> {
    // The port stands behind the last colon that is not inside brackets.
    let colon = rest.rfind(':').filter(|c| rest.rfind(']').is_none_or(|b| b < *c));
    let (host, port) = match colon {
        Some(c) => (&rest[..c], &rest[c + 1..]),
        None => (rest, ""),
    };
    let (low, high) = ports(port, text, purpose)?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let v6 = match family {
        Family::Any => None,
        Family::V4 => Some(false),
        Family::V6 => Some(true),
    };
    let literal = match host {
        "" | "*" if family == Family::V6 => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        "" | "*" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        _ => host.parse::<IpAddr>().ok(),
    };
    let (ip, name) = match literal {
        Some(ip) if v6.is_none_or(|v6| v6 == ip.is_ipv6()) => (ip, None),
        Some(_) => return Err(format!("invalid address: '{host}' in '{text}'")),
        None if !is_host_name(host) => {
            return Err(format!("invalid address: '{host}' in '{text}'"));
        }
        None => match names.host.resolve(host, v6) {
            Some(ip) => (ip, Some(host.to_owned())),
            None if names.ignore_failure => {
                let none = if family == Family::V6 {
                    IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                } else {
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED)
                };
                (none, Some(host.to_owned()))
            }
            None => return Err(format!("invalid address: '{host}' in '{text}'")),
        },
    };
    let one =
        |port| Address::Tcp(TcpAddress { socket: SocketAddr::new(ip, port), name: name.clone() });
    Ok((low..=high).map(one).collect())
}

/// What may be given to the name service at all.
fn is_host_name(host: &str) -> bool {
    host.len() <= 253
        && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

fn ports(port: &str, text: &str, purpose: Purpose) -> Result<(u16, u16), String> {
    if port.is_empty() {
        return match purpose.default_port() {
            Some(port) => Ok((port, port)),
            None => Err(format!("missing port specification in '{text}'")),
        };
    }
    if port.starts_with(['-', '+']) {
        return Err(format!("port offset not permitted here in '{text}'"));
    }
    let one = |text_of: &str| -> Result<u16, String> {
        if let Some(c) = text_of.chars().find(|c| !c.is_ascii_digit()) {
            return Err(format!("invalid character '{c}' in port number '{port}' in '{text}'"));
        }
        match text_of.parse::<u16>() {
            Ok(0) if purpose != Purpose::Source => Err(format!("invalid port '{text_of}'")),
            Ok(n) => Ok(n),
            Err(_) => Err(format!("invalid port '{text_of}'")),
        }
    };
    let Some((low, high)) = port.split_once('-') else {
        let port = one(port)?;
        return Ok((port, port));
    };
    if purpose != Purpose::Listen {
        return Err(format!("port range not permitted here in '{text}'"));
    }
    let (low, high) = (one(low)?, one(high)?);
    if low > high || usize::from(high - low) >= BIND_ADDRESSES_MAX {
        return Err(format!("invalid port range '{port}' in '{text}'"));
    }
    Ok((low, high))
}

/// The address as one word of configuration.
pub(crate) fn word(address: &Address) -> String {
    lexer::quote(&address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::FakeHost;

    fn read(text: &str, purpose: Purpose) -> Result<Vec<Address>, String> {
        parse(text, purpose, Names { host: &FakeHost, ignore_failure: false })
    }

    fn shown(text: &str, purpose: Purpose) -> Vec<String> {
        read(text, purpose).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_of_haproxys_forms_are_read() {
        for (text, canonical) in [
            ("127.0.0.1:1", "ipv4@127.0.0.1:1"),
            (":1", "ipv4@0.0.0.0:1"),
            ("*:1", "ipv4@0.0.0.0:1"),
            ("[::1]:1", "ipv6@[::1]:1"),
            ("::1:1", "ipv6@[::1]:1"),
            (":::1", "ipv6@[::]:1"),
            ("ipv4@127.0.0.1:1", "ipv4@127.0.0.1:1"),
            ("ipv6@:1", "ipv6@[::]:1"),
            ("ipv6@[2001:db8::1]:65535", "ipv6@[2001:db8::1]:65535"),
            ("tcp4@127.0.0.1:1", "ipv4@127.0.0.1:1"),
            ("stream+ipv4@127.0.0.1:1", "ipv4@127.0.0.1:1"),
            ("localhost:1", "ipv4@localhost:1"),
            ("ipv6@localhost:1", "ipv6@localhost:1"),
            ("/tmp/x", "unix@/tmp/x"),
            ("unix@/tmp/x", "unix@/tmp/x"),
            ("unix@relative", "unix@relative"),
            ("stream+unix@/tmp/x", "unix@/tmp/x"),
            ("abns@x", "abns@x"),
            ("fd@3", "fd@3"),
        ] {
            assert_eq!(shown(text, Purpose::Listen), [canonical], "{text}");
            // Reading the canonical form gives the same address.
            let again = read(canonical, Purpose::Listen);
            assert_eq!(again, read(text, Purpose::Listen), "{canonical}");
        }
        assert_eq!(shown("127.0.0.1:7-9", Purpose::Listen).len(), 3);
        assert_eq!(shown("127.0.0.1", Purpose::Log), ["ipv4@127.0.0.1:514"]);
        assert_eq!(shown("127.0.0.2", Purpose::Source), ["ipv4@127.0.0.2:0"]);
    }

    #[test]
    fn errors_are_haproxys() {
        for (text, error) in [
            ("127.0.0.1", "missing port specification in '127.0.0.1'"),
            (":", "missing port specification in ':'"),
            ("127.0.0.1:0", "invalid port '0'"),
            ("127.0.0.1:99999", "invalid port '99999'"),
            ("127.0.0.1:-1", "port offset not permitted here in '127.0.0.1:-1'"),
            ("127.0.0.1:+1", "port offset not permitted here in '127.0.0.1:+1'"),
            ("127.0.0.1:1-3", "port range not permitted here in '127.0.0.1:1-3'"),
            ("127.0.0.1:x", "invalid character 'x' in port number 'x' in '127.0.0.1:x'"),
            (
                "no.such.host.invalid:1",
                "invalid address: 'no.such.host.invalid' in 'no.such.host.invalid:1'",
            ),
            ("ipv6@127.0.0.1:3", "invalid address: '127.0.0.1' in 'ipv6@127.0.0.1:3'"),
            ("ipv4@::1:3", "invalid address: '::1' in 'ipv4@::1:3'"),
            ("fd@0", "a file descriptor is not acceptable here in 'fd@0'"),
            ("udp@127.0.0.1:1", "dgram-type address not acceptable in 'udp@127.0.0.1:1'"),
        ] {
            assert_eq!(read(text, Purpose::Dial), Err(error.to_owned()), "{text}");
        }
        assert_eq!(
            read("fd@x", Purpose::Listen),
            Err("file descriptor 'x' is not a valid integer in 'fd@x'".to_owned())
        );
        assert!(read(&format!("/{}", "x".repeat(200)), Purpose::Listen).is_err());
        assert!(read("quic4@127.0.0.1:1", Purpose::Listen).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_addresses_or_an_error(text in r"\PC{0,30}|[a-z46@:*0-9\[\].+\-]{0,30}") {
            for purpose in [Purpose::Listen, Purpose::Dial, Purpose::Source, Purpose::Log] {
                let _ = read(&text, purpose);
            }
        }
    }
}
