//! What a configuration says, once read and checked.
//!
//! Plain values; [`super::render`] prints them back.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;

use crate::config::Address;
use crate::table::spec::TableSpec;

/// Where something was declared, for messages about it.
#[derive(Clone, Debug, Default)]
pub struct Location {
    /// File name as given on the command line.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Two configurations that differ only in where things stand are equal.
impl PartialEq for Location {
    fn eq(&self, _: &Location) -> bool {
        true
    }
}

impl Eq for Location {}

/// Everything the node was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our name among peers: `-L`, else `localpeer`, else the host's name.
    pub localpeer: String,
    /// `nbthread`: how many shards; `None` lets the engine choose.
    pub nbthread: Option<u32>,
    /// `tune.bufsize` in bytes.
    pub bufsize: usize,
    /// `tune.peers.max-updates-at-once`: most updates in one batch; `None` bounds batches by bytes
    /// alone.
    pub max_updates_at_once: Option<u32>,
    /// `hard-stop-after` in ms.
    pub hard_stop_after_ms: Option<u64>,
    /// `mworker-max-reloads`: a worker of `-W` that has outlived more reloads than this is told to
    /// leave at once; `None`: never.
    pub max_reloads: Option<u32>,
    /// `pidfile`; `-p` wins over it (the caller applies that).
    pub pidfile: Option<String>,
    /// `node`: what `show info` calls this machine.
    pub node: Option<String>,
    /// `stats socket` lines in order.
    pub stats_sockets: Vec<StatsSocketSpec>,
    /// `stats timeout` in ms.
    pub stats_timeout_ms: u64,
    /// `stats maxconn`.
    pub stats_maxconn: u32,
    /// `log` lines of the global section, in order.
    pub logs: Vec<LogTarget>,
    /// Peers sections that take part, in order of declaration; disabled ones and ones without a
    /// local peer are not here (a diagnostic told about them).
    pub peers: Vec<PeersSection>,
    /// Tables in order of declaration; `show table` lists them from the last one.
    pub tables: Vec<TableDecl>,
    /// Our own section; defaults when there is none.
    pub stickring: StickringSection,
}

/// A table and the peers section it is shared through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDecl {
    /// The table.
    pub spec: TableSpec,
    /// Index into [`Config::peers`]; `None` for a table that is only the `write-to` target of
    /// another one.
    pub section: Option<usize>,
    /// The table's id in its section's definitions, from 1, numbered as HAProxy numbers: tables of
    /// the section itself first, the last declared one first, then those of proxies in order. 0
    /// without a section. `shards` hashes keys with it (protocol.md 8).
    pub local_id: u32,
    /// Where it was declared.
    pub at: Location,
}

/// One `peers` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeersSection {
    /// The section's name.
    pub name: String,
    /// `shards`: how many parts the keys are split into between peers; 0 when unset.
    pub shards: u32,
    /// Where to listen. `None` only when the local peer's line gives no usable address
    /// (`server <local>` without a `bind`): then we only dial.
    pub bind: Option<BindSpec>,
    /// Every other peer, in order of declaration.
    pub remotes: Vec<PeerSpec>,
    /// Our own entry: its address is where an old process finds the new one on reload.
    pub local: PeerSpec,
    /// `log` lines of the section, in order.
    pub logs: Vec<LogTarget>,
    /// Where the section starts.
    pub at: Location,
}

/// A `peer` or `server` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSpec {
    /// Its name, as it says it in its hello.
    pub name: String,
    /// Where to reach it. `None` only for the local peer of a section with `bind` and no address on
    /// its `server` line.
    pub address: Option<Address>,
    /// `source`: the local address to dial from.
    pub source: Option<Address>,
    /// `source … interface`: the network device to dial from.
    pub source_interface: Option<String>,
    /// `shard`: the part of the keys it gets, from 1; 0 for all.
    pub shard: u32,
    /// `disabled`: never dialled, and refused when it dials us. (HAProxy takes the word and goes on
    /// talking to the peer; a notice says so.)
    pub disabled: bool,
    /// Where it was declared.
    pub at: Location,
}

/// A `bind` line, or the local `peer` line in its role of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindSpec {
    /// Addresses (comma separated, and port ranges, in the configuration).
    pub addresses: Vec<Address>,
    /// `name`.
    pub name: Option<String>,
    /// `backlog`; `None` leaves the engine's choice.
    pub backlog: Option<u32>,
    /// `maxconn`: sessions accepted at once; 0 for the node's own limit.
    pub maxconn: u32,
    /// `v6only` (true) or `v4v6` (false).
    pub v6only: Option<bool>,
    /// `interface`: the network device to bind to.
    pub interface: Option<String>,
    /// `transparent`: bind to an address that is not ours yet.
    pub transparent: bool,
    /// `mode`, `user`, `group` of a unix socket's file.
    pub unix: UnixOptions,
    /// Where it was declared.
    pub at: Location,
}

/// Rights on a unix socket's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixOptions {
    /// `mode`, octal in the configuration.
    pub mode: Option<u32>,
    /// `user` (resolved) or `uid`.
    pub uid: Option<u32>,
    /// `group` (resolved) or `gid`.
    pub gid: Option<u32>,
}

/// What a stats socket lets its users do (runtime-api.md 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CliLevel {
    /// Reads what is harmless.
    User,
    /// Reads everything, changes tables. HAProxy's default.
    #[default]
    Operator,
    /// Everything.
    Admin,
}

/// `severity-output`: how a message's severity is shown on the stats socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeverityOutput {
    /// Not shown.
    #[default]
    None,
    /// `[3]: `
    Number,
    /// `[err]: `
    String,
}

/// A `stats socket` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsSocketSpec {
    /// Where it listens and how.
    pub bind: BindSpec,
    /// `level`.
    pub level: CliLevel,
    /// `severity-output`.
    pub severity_output: SeverityOutput,
    /// `expose-fd listeners`: `_getsocks` may hand our listeners to a new process.
    pub expose_fd_listeners: bool,
}

/// How a log line is framed (runtime-api.md 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// HAProxy's default: as RFC 3164, without a host name.
    #[default]
    Local,
    /// RFC 3164, with a host name.
    Rfc3164,
    /// RFC 5424.
    Rfc5424,
    /// `<facility and level>`, then the text.
    Priority,
    /// `<level>`, as systemd reads it, then the text.
    Short,
    /// `<level>` and the time as ISO 8601, then the text.
    Timed,
    /// The time as ISO 8601, then the text.
    Iso,
    /// The text alone.
    Raw,
}

/// A `log` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// Where lines go: `Tcp` here means UDP datagrams to that address; `Fd(1)` and `Fd(2)` are
    /// `stdout` and `stderr`.
    pub address: Address,
    /// `len`: longer lines are cut.
    pub max_len: u32,
    /// `format`.
    pub format: LogFormat,
    /// Facility number, 0 to 23.
    pub facility: u8,
    /// Least severe level sent, 0 (emerg) to 7 (debug).
    pub max_level: u8,
    /// Most severe level shown: more severe lines are sent as this one.
    pub min_level: u8,
}

/// Which event engine to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring where the kernel lets us, else epoll with a warning.
    #[default]
    Auto,
    /// io_uring or no start.
    Uring,
    /// epoll.
    Epoll,
}

/// What rows are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryChoice {
    /// memfd: only that can be handed to a successor.
    #[default]
    Auto,
    /// memfd, which another process can be given.
    Memfd,
    /// Anonymous memory.
    Anonymous,
}

/// Where peers that no section declares may come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AcceptFrom {
    /// An address and the number of leading bits that count.
    Network(IpAddr, u8),
    /// Unix and abstract sockets.
    Unix,
}

impl AcceptFrom {
    /// True when a TCP client at `ip` is inside. An IPv4 client of an IPv6 socket counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let AcceptFrom::Network(network, bits) = self else { return false };
        match (network, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from((*bits).min(32));
                (u64::from(net.to_bits()) >> shift) == (u64::from(ip.to_bits()) >> shift)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from((*bits).min(128));
                net.to_bits().checked_shr(shift).unwrap_or(0)
                    == ip.to_bits().checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

/// The `stickring` section: what HAProxy has no words for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickringSection {
    /// `auto-tables`: an unknown table is created from a peer's definition, with room for this many
    /// entries; `None` ignores unknown tables as HAProxy does.
    pub auto_tables: Option<u64>,
    /// `accept-peers`: networks from which undeclared peers are accepted; empty for none.
    pub accept_peers: Vec<AcceptFrom>,
    /// `accept-peers … max <n>`: how many undeclared peers at once.
    pub accept_peers_max: u32,
    /// `engine`.
    pub engine: EngineChoice,
    /// `memory`.
    pub memory: MemoryChoice,
    /// `pin`: tie each shard to a CPU when there is one for each.
    pub pin: bool,
    /// `instant-reload`: a successor may take memory and sessions as they are; otherwise a reload
    /// goes by the peers protocol.
    pub instant_reload: bool,
}
