//! Addresses in HAProxy's forms.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, SocketAddr};

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

/// As it would be written in a configuration; reading it back gives an equal address.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(TcpAddress { socket, name: Some(name) }) => {
                let family = if socket.is_ipv4() { "ipv4" } else { "ipv6" };
                write!(f, "{family}@{name}:{}", socket.port())
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
