//! haproxy.cfg text in, [`Config`] out.
//!
//! *What*: HAProxy's configuration language for the parts a peers node can mean: `global`, `peers`,
//! `stick-table … peers X` wherever it stands, and our own `stickring` section. Everything else in the
//! file is skipped with one notice, so that the node can be pointed at HAProxy's own file.
//! *Owns*: the language and its messages. *Called by*: start-up, once, and `-c`.
//! *Rule*: no file, no environment, no name service is touched here; the caller passes file contents
//! ([`Source`]) and answers questions ([`Host`]). Every error is reported, not the first one only.
#![forbid(unsafe_code)]

mod address;
mod diagnostics;
mod types;

pub use address::{Address, TcpAddress};
pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use types::{
    AcceptFrom, BindSpec, CliLevel, Config, EngineChoice, Location, LogFormat, LogTarget, PeerSpec,
    PeersSection, SeverityOutput, StatsSocketSpec, StickringSection, TableDecl, UnixOptions,
};

/// One configuration file: its name for messages, and its bytes.
#[derive(Clone, Debug)]
pub struct Source {
    /// As given on the command line.
    pub name: String,
    /// Its contents.
    pub text: Vec<u8>,
}

/// What the configuration may ask about the machine it is read on.
pub trait Host {
    /// An environment variable.
    fn env(&self, name: &str) -> Option<String>;
    /// The first address of a host name; `v6` restricts the family (`ipv4@name`, `ipv6@name`).
    fn resolve(&self, name: &str, v6: Option<bool>) -> Option<std::net::IpAddr>;
    /// A user's number.
    fn uid(&self, user: &str) -> Option<u32>;
    /// A group's number.
    fn gid(&self, group: &str) -> Option<u32>;
    /// The machine's name: the local peer's name where nothing else says one.
    fn hostname(&self) -> String;
}
