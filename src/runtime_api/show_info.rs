//! `show info [typed|json] [desc] [float]`.
//!
//! The coordinator fills a [`NodeInfo`], this prints it. Rule: all of HAProxy 3.2's fields with their
//! names, positions, tags, types and descriptions, 0 where a peers node has nothing of the kind (TLS,
//! compression), so that no tool misses one; ours follow from position 100 on, so that HAProxy can
//! grow without a clash.

use super::json::write_string;
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
    /// Ours: what huge pages were got, e.g. `memfd yes, anonymous no`.
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

struct Field {
    pos: u32,
    name: &'static str,
    tags: &'static str,
    desc: &'static str,
    value: Value,
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
    let mut fields = haproxy_fields(info);
    fields.extend(own_fields(info));
    let json = format.shape == InfoShape::Json;
    out.push_str(if json { "[" } else { "" });
    for (n, f) in fields.iter().enumerate() {
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
            InfoShape::Json => json_field(n, f, format, out),
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

// One line a field, so that they can be compared with HAProxy's list.
#[rustfmt::skip]
fn haproxy_fields(i: &NodeInfo) -> Vec<Field> {
    use Value::*;
    let f = |pos, name, tags, value, desc| Field { pos, name, tags, desc, value };
    let mut fields = vec![
        f(0, "Name", "POS", Text(i.name.clone()), "Product name"),
        f(1, "Version", "POS", Text(i.version.clone()), "Product version"),
        f(2, "Release_date", "POS", Text(i.release_date.clone()), "Date of latest source code update"),
        f(3, "Nbthread", "CGS", U32(i.threads), "Number of started threads (global.nbthread)"),
        f(4, "Nbproc", "CGS", U32(1), "Number of started worker processes (historical, always 1)"),
        f(5, "Process_num", "KGP", U32(1), "Relative worker process number (1)"),
        f(6, "Pid", "SGP", U32(i.pid), "This worker process identifier for the system"),
        f(7, "Uptime", "MDP", uptime(i.uptime_us), "How long ago this worker process was started (days+hours+minutes+seconds)"),
        f(8, "Uptime_sec", "MDP", Seconds(i.uptime_us), "How long ago this worker process was started (seconds)"),
        f(9, "Memmax_MB", "CLP", mb(i.memory_max_bytes), "Worker process's hard limit on memory usage in MB (-m on command line)"),
        f(10, "PoolAlloc_MB", "MGP", mb(i.memory_reserved_bytes), "Amount of memory allocated in pools (in MB)"),
        f(11, "PoolUsed_MB", "MGP", mb(i.memory_used_bytes), "Amount of pool memory currently used (in MB)"),
        f(12, "PoolFailed", "MCP", U32(i.memory_failed), "Number of failed pool allocations since this worker was started"),
        f(13, "Ulimit-n", "CLP", U32(i.files_max), "Hard limit on the number of per-process file descriptors"),
        f(14, "Maxsock", "CLP", U32(i.files_max), "Hard limit on the number of per-process sockets"),
        f(15, "Maxconn", "CLP", U32(i.connections_max), "Hard limit on the number of per-process connections (configured or imposed by Ulimit-n)"),
        f(16, "Hard_maxconn", "CLP", U32(i.connections_max), "Hard limit on the number of per-process connections (imposed by Memmax_MB or Ulimit-n)"),
        f(17, "CurrConns", "MGP", U32(i.connections), "Current number of connections on this worker process"),
        f(18, "CumConns", "MCP", U32(i.connections_total), "Total number of connections on this worker process since started"),
        f(19, "CumReq", "MCP", U32(i.connections_total), "Total number of requests on this worker process since started"),
        f(20, "MaxSslConns", "MMP", U32(0), "Hard limit on the number of per-process SSL endpoints (front+back), 0=unlimited"),
        f(21, "CurrSslConns", "MGP", U32(0), "Current number of SSL endpoints on this worker process (front+back)"),
        f(22, "CumSslConns", "MCP", U32(0), "Total number of SSL endpoints on this worker process since started (front+back)"),
        f(23, "Maxpipes", "CLP", U32(0), "Hard limit on the number of pipes for splicing, 0=unlimited"),
        f(24, "PipesUsed", "MGP", U32(0), "Current number of pipes in use in this worker process"),
        f(25, "PipesFree", "MGP", U32(0), "Current number of allocated and available pipes in this worker process"),
        f(26, "ConnRate", "MRP", Rate(i.connection_rate[0]), "Number of front connections created on this worker process over the last second"),
        f(27, "ConnRateLimit", "CLP", U32(0), "Hard limit for ConnRate (global.maxconnrate)"),
        f(28, "MaxConnRate", "MMP", U32(i.connection_rate[1]), "Highest ConnRate reached on this worker process since started (in connections per second)"),
        f(29, "SessRate", "MRP", Rate(i.connection_rate[0]), "Number of sessions created on this worker process over the last second"),
        f(30, "SessRateLimit", "CLP", U32(0), "Hard limit for SessRate (global.maxsessrate)"),
        f(31, "MaxSessRate", "MRP", U32(i.connection_rate[1]), "Highest SessRate reached on this worker process since started (in sessions per second)"),
        f(32, "SslRate", "MRP", Rate(0), "Number of SSL connections created on this worker process over the last second"),
        f(33, "SslRateLimit", "CLP", U32(0), "Hard limit for SslRate (global.maxsslrate)"),
        f(34, "MaxSslRate", "MMP", U32(0), "Highest SslRate reached on this worker process since started (in connections per second)"),
        f(35, "SslFrontendKeyRate", "MGP", Rate(0), "Number of SSL keys created on frontends in this worker process over the last second"),
        f(36, "SslFrontendMaxKeyRate", "MMP", U32(0), "Highest SslFrontendKeyRate reached on this worker process since started (in SSL keys per second)"),
        f(37, "SslFrontendSessionReuse_pct", "MGP", Rate(0), "Percent of frontend SSL connections which did not require a new key"),
        f(38, "SslBackendKeyRate", "MRP", Rate(0), "Number of SSL keys created on backends in this worker process over the last second"),
        f(39, "SslBackendMaxKeyRate", "MMP", U32(0), "Highest SslBackendKeyRate reached on this worker process since started (in SSL keys per second)"),
        f(40, "SslCacheLookups", "MCP", U32(0), "Total number of SSL session ID lookups in the SSL session cache on this worker since started"),
        f(41, "SslCacheMisses", "MCP", U32(0), "Total number of SSL session ID lookups that didn't find a session in the SSL session cache on this worker since started"),
        f(42, "CompressBpsIn", "MRP", Rate(0), "Number of bytes submitted to the HTTP compressor in this worker process over the last second"),
        f(43, "CompressBpsOut", "MRP", Rate(0), "Number of bytes emitted by the HTTP compressor in this worker process over the last second"),
        f(44, "CompressBpsRateLim", "CLP", U32(0), "Limit of CompressBpsOut beyond which HTTP compression is automatically disabled"),
    ];
    fields.extend(process_fields(i));
    fields
}

#[rustfmt::skip]
fn process_fields(i: &NodeInfo) -> Vec<Field> {
    use Value::*;
    let f = |pos, name, tags, value, desc| Field { pos, name, tags, desc, value };
    vec![
        f(47, "Tasks", "MGP", U32(i.tasks), "Total number of tasks in the current worker process (active + sleeping)"),
        f(48, "Run_queue", "MGP", U32(i.run_queue), "Total number of active tasks+tasklets in the current worker process"),
        f(49, "Idle_pct", "MaP", U32(i.idle_pct), "Percentage of last second spent waiting in the current worker thread"),
        f(50, "node", "COS", Text(i.node.clone()), "Node name (global.node)"),
        f(52, "Stopping", "MGP", U32(i.stopping.into()), "1 if the worker process is currently stopping, otherwise zero"),
        f(53, "Jobs", "MGP", U32(i.jobs), "Current number of active jobs on the current worker process (frontend connections, master connections, listeners)"),
        f(54, "Unstoppable Jobs", "MGP", U32(0), "Current number of unstoppable jobs on the current worker process (master connections)"),
        f(55, "Listeners", "MGP", U32(i.listeners), "Current number of active listeners on the current worker process"),
        f(56, "ActivePeers", "MGP", U32(i.active_peers), "Current number of verified active peers connections on the current worker process"),
        f(57, "ConnectedPeers", "MGP", U32(i.connected_peers), "Current number of peers having passed the connection step on the current worker process"),
        f(58, "DroppedLogs", "MGP", U32(i.dropped_logs), "Total number of dropped logs for current worker process since started"),
        f(59, "BusyPolling", "MGP", U32(0), "1 if busy-polling is currently in use on the worker process, otherwise zero (config.busy-polling)"),
        f(60, "FailedResolutions", "MGP", U32(i.failed_resolutions), "Total number of failed DNS resolutions in current worker process since started"),
        f(61, "TotalBytesOut", "MGP", U64(i.bytes_out[0]), "Total number of bytes emitted by current worker process since started"),
        f(62, "TotalSplicedBytesOut", "MGP", U64(0), "Total number of bytes emitted by current worker process through a kernel pipe since started"),
        f(63, "BytesOutRate", "MRP", U64(i.bytes_out[1]), "Number of bytes emitted by current worker process over the last second"),
        f(64, "DebugCommandsIssued", "MGP", U32(0), "Number of debug commands issued on this process (anything > 0 is unsafe)"),
        f(65, "CumRecvLogs", "MCP", U32(0), "Total number of log messages received by log-forwarding listeners on this worker process since started"),
        f(66, "Build info", "POS", Text(i.version.clone()), "Build info"),
        f(67, "Memmax_bytes", "CLP", narrow(i.memory_max_bytes), "Worker process's hard limit on memory usage in byes (-m on command line)"),
        f(68, "PoolAlloc_bytes", "MGP", U64(i.memory_reserved_bytes), "Amount of memory allocated in pools (in bytes)"),
        f(69, "PoolUsed_bytes", "MGP", U64(i.memory_used_bytes), "Amount of pool memory currently used (in bytes)"),
        f(70, "Start_time_sec", "MDP", Seconds(i.start_us), "Start time in seconds"),
        f(71, "Tainted", "SGP", Text("0".to_owned()), "Experimental features used"),
        f(72, "TotalWarnings", "MCP", U32(i.warnings), "Total warnings issued"),
        f(73, "MaxconnReached", "MCP", U32(i.connections_refused), "Number of times an accepted connection resulted in Maxconn being reached"),
        f(74, "BootTime_ms", "MDP", U32(i.boot_ms), "How long ago it took to parse and process the config before being ready (milliseconds)"),
        f(75, "Niced_tasks", "MGP", U32(0), "Total number of active tasks+tasklets in the current worker process (Run_queue) that are niced"),
        f(76, "CurrStreams", "MGP", U64(i.connections.into()), "Current number of streams on this worker process"),
        f(77, "CumStreams", "MGP", U64(i.connections_total.into()), "Total number of streams created on this worker process since started"),
        f(78, "BlockedTrafficWarnings", "MGP", U32(0), "Total number of warnings issued about traffic being blocked by too slow a task"),
    ]
}

#[rustfmt::skip]
fn own_fields(i: &NodeInfo) -> Vec<Field> {
    use Value::*;
    let f = |pos, name, tags, value, desc| Field { pos, name, tags, desc, value };
    vec![
        f(100, "Engine", "SOP", Text(i.engine.clone()), "I/O engine in use"),
        f(101, "HugePages", "SOP", Text(i.huge_pages.clone()), "Huge pages behind the tables"),
        f(102, "Tables", "MGP", U64(i.tables[0]), "Number of stick tables"),
        f(103, "TableEntries", "MGC", U64(i.tables[1]), "Entries of all stick tables"),
        f(104, "TableBytes", "MGP", U64(i.tables[2]), "Memory mapped for stick tables (in bytes)"),
        f(105, "UpdatesReceived", "MCP", U64(i.updates[0]), "Updates received from peers since started"),
        f(106, "UpdatesApplied", "MCP", U64(i.updates[1]), "Updates written into tables since started"),
        f(107, "UpdatesIgnored", "MCP", U64(i.updates[2]), "Updates of unknown or different tables since started"),
        f(108, "UpdatesSent", "MCP", U64(i.updates[3]), "Updates sent to peers since started"),
        f(109, "Evictions", "MCP", U64(i.evictions[0]), "Entries removed from full tables since started"),
        f(110, "RefusedFull", "MCP", U64(i.evictions[1]), "New entries refused by full tables (nopurge) since started"),
        f(111, "LessonsLearned", "MCP", U64(i.lessons[0]), "Full resyncs received since started"),
        f(112, "LessonsTaught", "MCP", U64(i.lessons[1]), "Full resyncs given since started"),
        f(113, "ProtocolErrors", "MCP", U64(i.protocol_errors), "Sessions closed for a protocol error since started"),
        f(114, "TickP99_us", "MMP", U64(i.tick_us[0]), "99 of 100 turns of a shard took at most this long"),
        f(115, "TickMax_us", "MMP", U64(i.tick_us[1]), "Longest turn of a shard since started"),
    ]
}
