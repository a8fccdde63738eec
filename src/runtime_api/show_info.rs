//! `show info [typed|json] [desc] [float]`.
//!
//! The coordinator fills a [`NodeInfo`], this prints it. Rule: all of HAProxy 3.2's fields with
//! their names, positions, tags, types and descriptions, 0 where a peers node has nothing of the
//! kind (TLS, compression), so that no tool misses one; ours follow from position 100 on, so that
//! HAProxy can grow without a clash.

use super::json::write_string;
use crate::observe::handover::HandoverNumbers;
use std::fmt::Write;

/// A parsed `show info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InfoFormat {
    /// What is printed.
    pub shape: InfoShape,
    /// With descriptions (not in JSON, as with HAProxy).
    pub desc: bool,
    /// Times with their fraction.
    pub float: bool,
}

/// The forms of `show info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InfoShape {
    /// `Name: value`
    #[default]
    Plain,
    /// `<pos>.<name>.<process>:<tags>:<type>:<value>`
    Typed,
    /// One JSON array.
    Json,
}

/// What the node knows about itself.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// `stickring`
    pub name: String,
    /// Our version.
    pub version: String,
    /// Date of the release, `2026/11/20`.
    pub release_date: String,
    /// Shards.
    pub threads: u32,
    /// Process id.
    pub pid: u32,
    /// Time since the start, in µs.
    pub uptime_us: u64,
    /// Unix time of the start, in µs.
    pub start_us: u64,
    /// Time the start took, in ms.
    pub boot_ms: u32,
    /// `-m`: memory limit in bytes, 0 for none.
    pub memory_max_bytes: u64,
    /// Bytes reserved for tables and buffers.
    pub memory_reserved_bytes: u64,
    /// Bytes of them in use.
    pub memory_used_bytes: u64,
    /// Allocations refused.
    pub memory_failed: u32,
    /// Limit of open files.
    pub files_max: u32,
    /// Limit of connections.
    pub connections_max: u32,
    /// Connections now.
    pub connections: u32,
    /// Connections ever.
    pub connections_total: u32,
    /// Connections of the last second, and most in a second.
    pub connection_rate: [u32; 2],
    /// Tasks alive.
    pub tasks: u32,
    /// Tasks ready to run.
    pub run_queue: u32,
    /// Time spent waiting, in percent.
    pub idle_pct: u32,
    /// Host or configured node name.
    pub node: String,
    /// The node is stopping.
    pub stopping: bool,
    /// Connections and listeners.
    pub jobs: u32,
    /// Listeners.
    pub listeners: u32,
    /// Peers with a connection or an attempt at one.
    pub active_peers: u32,
    /// Peers with an established session.
    pub connected_peers: u32,
    /// Log lines not sent.
    pub dropped_logs: u32,
    /// Names that did not resolve.
    pub failed_resolutions: u32,
    /// Bytes sent, ever and in the last second.
    pub bytes_out: [u64; 2],
    /// Warnings at the start.
    pub warnings: u32,
    /// Connections refused because of the limit.
    pub connections_refused: u32,
    /// Ours: the engine in use, `io_uring` or `epoll`, and why.
    pub engine: String,
    /// Ours: what rows are kept in, and the system's setting of huge pages for that.
    pub huge_pages: String,
    /// Ours: tables, their entries, and the bytes mapped for them.
    pub tables: [u64; 3],
    /// Ours: updates received, applied, ignored, sent.
    pub updates: [u64; 4],
    /// Ours: entries evicted for room, and refused for lack of it.
    pub evictions: [u64; 2],
    /// Ours: lessons learned and taught.
    pub lessons: [u64; 2],
    /// Ours: protocol errors.
    pub protocol_errors: u64,
    /// Ours: how long a shard's tick takes, in µs: 99 of 100, and the longest.
    pub tick_us: [u64; 2],
    /// Ours: the last hand-over from or to another process.
    pub handover: HandoverNumbers,
}

enum Value {
    Text(String),
    U32(u32),
    U64(u64),
    /// A number HAProxy calls a fraction under `float`.
    Rate(u32),
    /// Seconds, given in µs: whole, or with their fraction under `float`.
    Seconds(u64),
}

/// A line of [`FIELDS`].
struct Field {
    pos: u32,
    name: &'static str,
    tags: &'static str,
    desc: &'static str,
    value: Value,
}

/// `position|name|tags|type|description`, in the order in which they are shown.
const FIELDS: &str = include_str!("show_info.fields");

fn fields(info: &NodeInfo) -> impl Iterator<Item = Field> {
    FIELDS.lines().filter_map(|line| {
        let mut parts = line.splitn(5, '|');
        let pos = parts.next()?.parse().ok()?;
        let (name, tags, kind, desc) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let none = || match kind {
            "flt" => Value::Rate(0),
            "u64" => Value::U64(0),
            _ => Value::U32(0),
        };
        Some(Field { pos, name, tags, desc, value: value(name, info).unwrap_or_else(none) })
    })
}

/// Parses the words behind `show info`. Unknown ones mean nothing, as with HAProxy.
pub(super) fn parse(words: &[Vec<u8>]) -> InfoFormat {
    let mut format = InfoFormat::default();
    for word in words {
        match word.as_slice() {
            b"typed" => format.shape = InfoShape::Typed,
            b"json" => format.shape = InfoShape::Json,
            b"desc" => format.desc = true,
            b"float" => format.float = true,
            _ => {}
        }
    }
    format
}

/// Appends the reply.
pub fn write(format: InfoFormat, info: &NodeInfo, out: &mut String) {
    let json = format.shape == InfoShape::Json;
    out.push_str(if json { "[" } else { "" });
    for (n, f) in fields(info).enumerate() {
        // Writing to a String cannot fail.
        let _ = match format.shape {
            InfoShape::Plain => write!(out, "{}: {}", f.name, text(&f.value, format.float)),
            InfoShape::Typed => write!(
                out,
                "{}.{}.1:{}:{}:{}",
                f.pos,
                f.name,
                f.tags,
                kind(&f.value, format.float),
                text(&f.value, format.float)
            ),
            InfoShape::Json => json_field(n, &f, format, out),
        };
        if !json {
            if format.desc {
                let _ = write!(out, ":\"{}\"", f.desc);
            }
            out.push('\n');
        }
    }
    out.push_str(if json { "]\n" } else { "" });
}

fn json_field(n: usize, f: &Field, format: InfoFormat, out: &mut String) -> std::fmt::Result {
    let tags = tags_json(f.tags);
    write!(
        out,
        "{}{{\"field\":{{\"pos\":{},\"name\":\"{}\"}},\"processNum\":1,\"tags\":{tags},\
         \"value\":{{\"type\":\"{}\",\"value\":",
        if n == 0 { "" } else { "," },
        f.pos,
        f.name,
        kind(&f.value, format.float)
    )?;
    match &f.value {
        Value::Text(text) => write_string(text.as_bytes(), out),
        value => out.push_str(&text(value, format.float)),
    }
    out.push_str("}}");
    Ok(())
}

fn kind(value: &Value, float: bool) -> &'static str {
    match value {
        Value::Text(_) => "str",
        Value::Seconds(_) | Value::Rate(_) if float => "flt",
        Value::U32(_) | Value::Seconds(_) | Value::Rate(_) => "u32",
        Value::U64(_) => "u64",
    }
}

fn text(value: &Value, float: bool) -> String {
    match value {
        // A line break would end the field, and the reply with it.
        Value::Text(text) => text.replace(['\n', '\r'], " "),
        Value::U32(n) | Value::Rate(n) => n.to_string(),
        Value::U64(n) => n.to_string(),
        Value::Seconds(us) if float => format!("{}.{:06}", us / 1_000_000, us % 1_000_000),
        Value::Seconds(us) => (us / 1_000_000).to_string(),
    }
}

/// The `tags` object of a field: its origin, nature and scope letters spelled out.
pub(super) fn tags_json(tags: &str) -> String {
    let mut letters = tags.chars();
    let mut next = || letters.next().unwrap_or(' ');
    let origin = match next() {
        'M' => "Metric",
        'S' => "Status",
        'K' => "Key",
        'C' => "Config",
        _ => "Product",
    };
    let nature = match next() {
        'C' => "Counter",
        'L' => "Limit",
        'M' => "Max",
        'N' => "Name",
        'R' => "Rate",
        'D' => "Duration",
        'O' => "Output",
        'a' => "Avg",
        'A' => "Age",
        _ => "Gauge",
    };
    let scope = match next() {
        'S' => "Service",
        'C' => "Cluster",
        'Y' => "System",
        _ => "Process",
    };
    format!("{{\"origin\":\"{origin}\",\"nature\":\"{nature}\",\"scope\":\"{scope}\"}}")
}

fn mb(bytes: u64) -> Value {
    Value::U32(u32::try_from(bytes >> 20).unwrap_or(u32::MAX))
}

/// 32 bits wide, as HAProxy has it, where that is enough.
fn narrow(bytes: u64) -> Value {
    u32::try_from(bytes).map_or(Value::U64(bytes), Value::U32)
}

fn uptime(us: u64) -> Value {
    let s = us / 1_000_000;
    let (d, h, m) = (s / 86_400, s / 3600 % 24, s / 60 % 60);
    Value::Text(format!("{d}d {h}h{m:02}m{:02}s", s % 60))
}

/// The value of the field called `name`; `None` for what a peers node has none of.
fn value(name: &str, i: &NodeInfo) -> Option<Value> {
    use Value::*;
    Some(match name {
        "Name" => Text(i.name.clone()),
        "Version" | "Build info" => Text(i.version.clone()),
        "Release_date" => Text(i.release_date.clone()),
        "Nbthread" => U32(i.threads),
        "Nbproc" | "Process_num" => U32(1),
        "Pid" => U32(i.pid),
        "Uptime" => uptime(i.uptime_us),
        "Uptime_sec" => Seconds(i.uptime_us),
        "Memmax_MB" => mb(i.memory_max_bytes),
        "PoolAlloc_MB" => mb(i.memory_reserved_bytes),
        "PoolUsed_MB" => mb(i.memory_used_bytes),
        "PoolFailed" => U32(i.memory_failed),
        "Ulimit-n" | "Maxsock" => U32(i.files_max),
        "Maxconn" | "Hard_maxconn" => U32(i.connections_max),
        "CurrConns" => U32(i.connections),
        "CumConns" | "CumReq" => U32(i.connections_total),
        "ConnRate" | "SessRate" => Rate(i.connection_rate[0]),
        "MaxConnRate" | "MaxSessRate" => U32(i.connection_rate[1]),
        "Tasks" => U32(i.tasks),
        "Run_queue" => U32(i.run_queue),
        "Idle_pct" => U32(i.idle_pct),
        "node" => Text(i.node.clone()),
        "Stopping" => U32(i.stopping.into()),
        "Jobs" => U32(i.jobs),
        "Listeners" => U32(i.listeners),
        "ActivePeers" => U32(i.active_peers),
        "ConnectedPeers" => U32(i.connected_peers),
        "DroppedLogs" => U32(i.dropped_logs),
        "FailedResolutions" => U32(i.failed_resolutions),
        "TotalBytesOut" => U64(i.bytes_out[0]),
        "BytesOutRate" => U64(i.bytes_out[1]),
        "Memmax_bytes" => narrow(i.memory_max_bytes),
        "PoolAlloc_bytes" => U64(i.memory_reserved_bytes),
        "PoolUsed_bytes" => U64(i.memory_used_bytes),
        "Start_time_sec" => Seconds(i.start_us),
        "Tainted" => Text("0".to_owned()),
        "TotalWarnings" => U32(i.warnings),
        "MaxconnReached" => U32(i.connections_refused),
        "BootTime_ms" => U32(i.boot_ms),
        "CurrStreams" => U64(i.connections.into()),
        "CumStreams" => U64(i.connections_total.into()),
        "Engine" => Text(i.engine.clone()),
        "HugePages" => Text(i.huge_pages.clone()),
        "Tables" => U64(i.tables[0]),
        "TableEntries" => U64(i.tables[1]),
        "TableBytes" => U64(i.tables[2]),
        "UpdatesReceived" => U64(i.updates[0]),
        "UpdatesApplied" => U64(i.updates[1]),
        "UpdatesIgnored" => U64(i.updates[2]),
        "UpdatesSent" => U64(i.updates[3]),
        "Evictions" => U64(i.evictions[0]),
        "RefusedFull" => U64(i.evictions[1]),
        "LessonsLearned" => U64(i.lessons[0]),
        "LessonsTaught" => U64(i.lessons[1]),
        "ProtocolErrors" => U64(i.protocol_errors),
        "TickP99_us" => U64(i.tick_us[0]),
        "TickMax_us" => U64(i.tick_us[1]),
        "HandoverKind" => Text(i.handover.kind.name().to_owned()),
        "HandoverOutcome" => Text(i.handover.outcome.name().to_owned()),
        "HandoverEntries" => U64(i.handover.entries),
        "HandoverDuration_ms" => U64(i.handover.duration_ms),
        "HandoverGap_ms" => Text(i.handover.gap_ms.map_or("unknown".to_owned(), |g| g.to_string())),
        "HandoverSessionsKept" => U64(i.handover.sessions_kept),
        _ => return None,
    })
}
