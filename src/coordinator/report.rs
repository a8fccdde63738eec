//! What `show peers`, `show info` and `show stat` say about the node: facts gathered from the
//! coordinator and every shard.

use super::peers::{Peer, Section};
use super::{Node, Shared};
use crate::Millis;
use crate::config::Address;
use crate::limits::{ERRORS_KEPT_MAX, HANDSHAKES_MAX};
use crate::observe::time::{WallTime, When};
use crate::runtime_api::Facts;
use crate::runtime_api::show_errors::ErrorEvent;
use crate::runtime_api::show_info::NodeInfo;
use crate::runtime_api::show_peers::{AppletView, PeerView, SectionView, SharedTableView};
use crate::runtime_api::show_stat::ListenerView;
use crate::session::{Counters, SessionStatus, TableStatus};
use crate::shard::flush::Names;
use crate::shard::{ConnKey, SessionId, Shard, Table};
use crate::wire::hello::Status;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Counts of the node as a whole.
#[derive(Debug, Default)]
pub struct Totals {
    /// Connections closed at once because too many were open.
    pub handshakes_refused: u64,
    /// Hellos that were wrong or late.
    pub handshakes_failed: u64,
    /// Stats socket connections open now.
    pub cli_open: usize,
    /// Stats socket connections ever.
    pub cli_total: u64,
    /// Lessons learned.
    pub lessons_learned: u64,
    /// Lessons taught.
    pub lessons_taught: u64,
    /// Refused definitions.
    pub tables_refused: u64,
    /// For the rates of `show info`.
    pub recent: Recent,
    /// By section: what `clear counters all` makes listeners forget.
    cleared: Vec<ListenerSums>,
    /// Protocol errors ever.
    pub errors_total: u64,
    /// The last of them.
    pub errors: VecDeque<ErrorEvent>,
}

impl Totals {
    /// Keeps a protocol error, forgetting the oldest.
    pub fn keep_error(&mut self, mut event: ErrorEvent) {
        event.number = self.errors_total;
        self.errors_total += 1;
        if self.errors.len() == ERRORS_KEPT_MAX {
            self.errors.pop_front();
        }
        self.errors.push_back(event);
    }
}

/// Counts of a peer's sessions that are over.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct PastCounters(Counters);

impl PastCounters {
    /// Adds a session that has ended.
    pub fn add(&mut self, other: &Counters) {
        self.0.add(other);
    }

    /// Together with the session of now, if there is one.
    fn with(&self, now: Option<&SessionStatus>) -> Counters {
        let mut sum = self.0;
        if let Some(status) = now {
            sum.add(&status.counters);
        }
        sum
    }
}

/// An address as people write it: `127.0.0.1:10000`, without the family.
pub fn short(address: &Address) -> String {
    match address {
        Address::Tcp(tcp) => tcp.socket.to_string(),
        other => other.to_string(),
    }
}

/// Wall time for display.
pub fn wall(ms: u64) -> WallTime {
    WallTime { unix_us: ms * 1000, offset_s: 0 }
}

/// What never changes while the node runs.
pub fn facts(node: &Node, startup_logs: &str) -> Arc<Facts> {
    let sockets = &node.config.stats_sockets;
    let addresses = sockets.iter().flat_map(|s| s.bind.addresses.iter().map(|a| (a, s.level)));
    Arc::new(Facts {
        version: crate::VERSION.to_string(),
        sockets: addresses.map(|(a, level)| (a.to_string(), level)).collect(),
        startup_logs: startup_logs.to_string(),
        started: node.started,
        bufsize: node.config.bufsize,
    })
}

/// A table's change log on one shard.
#[derive(Clone, Copy, Default)]
struct Log {
    head: u64,
}

/// What one shard knows for `show peers`.
struct ShardView {
    statuses: Vec<(SessionId, ConnKey, SessionStatus)>,
    names_sent: Vec<(ConnKey, Names)>,
    dictionaries: HashMap<SessionId, Vec<Option<Vec<u8>>>>,
    logs: Vec<Log>,
}

fn ask_shard(shard: &mut Shard, _now: Millis) -> ShardView {
    let statuses = shard.statuses();
    let dictionaries = statuses.iter().map(|(id, ..)| (*id, shard.dictionary(*id))).collect();
    let tables = shard.parts.registry().all();
    let logs = tables
        .iter()
        .map(|t| match shard.parts.get_mut(t.id) {
            Some(part) => Log { head: part.change_head() },
            None => Log::default(),
        })
        .collect();
    ShardView { statuses, names_sent: shard.names_sent(), dictionaries, logs }
}

/// Everything `show peers` prints, last declared first.
pub async fn peers(node: &Shared) -> Vec<SectionView> {
    let shards = node.borrow().shards.clone();
    let mut views = Vec::new();
    for shard in 0..shards.len() {
        views.extend(shards.run(shard, ask_shard).await);
    }
    let node = node.borrow();
    let now = node.clock.now();
    node.sections.iter().rev().map(|s| section(&node, s, &views, now)).collect()
}

/// Changes of ours that sessions take and have not confirmed, added up.
pub async fn unconfirmed(node: &Shared) -> u64 {
    let shards = node.borrow().shards.clone();
    let mut views = Vec::new();
    for shard in 0..shards.len() {
        views.extend(shards.run(shard, ask_shard).await);
    }
    let node = node.borrow();
    let sessions = views.iter().flat_map(|v| &v.statuses).filter(|(_, _, s)| s.pushing);
    let mut sum = 0;
    for (id, _, status) in sessions {
        let Some(info) = node.sessions.get(id) else { continue };
        for table in node.registry.of_section(info.section) {
            let known = status.tables.iter().find(|t| t.table == table.index);
            for (shard, view) in views.iter().enumerate() {
                let head = view.logs.get(table.id).map_or(0, |log| log.head);
                let confirmed = known.and_then(|t| t.confirmed.get(shard).copied());
                sum += head.saturating_sub(confirmed.unwrap_or(0).max(1));
            }
        }
    }
    sum
}

fn when(at: Option<Millis>, now: Millis) -> When {
    match at {
        None => When::Never,
        Some(at) if at <= now => When::Past,
        Some(at) => When::Ms(at.since(now)),
    }
}

fn ago(at: Option<Millis>, now: Millis) -> When {
    at.map_or(When::Never, |at| When::Ms(now.since(at)))
}

fn section(node: &Node, section: &Section, views: &[ShardView], now: Millis) -> SectionView {
    let tables = node.registry.of_section(section.index);
    let peers = section.peers.iter().enumerate().rev();
    SectionView {
        name: section.name.clone(),
        pointer: pointer(1, section.index, 0, 0),
        changed: wall(section.changed_ms),
        disabled: false,
        flags: section.brain.flags(),
        resync_timeout: when(section.brain.resync_timeout(), now),
        task_calls: section.task_calls,
        peers: peers.map(|(i, p)| peer(node, section, (i, p), views, &tables, now)).collect(),
    }
}

/// A number for display that tells things apart.
fn pointer(kind: u64, section: usize, peer: usize, table: usize) -> u64 {
    0x5500_0000_0000
        | kind << 36
        | (section as u64) << 28
        | (peer as u64) << 16
        | (table as u64) << 4
}

fn peer(
    node: &Node,
    section: &Section,
    (index, peer): (usize, &Peer),
    views: &[ShardView],
    tables: &[Arc<Table>],
    now: Millis,
) -> PeerView {
    let found = peer.session.and_then(|id| {
        views.iter().flat_map(|v| &v.statuses).find(|(i, ..)| *i == id).map(|(_, key, s)| (key, s))
    });
    let status = found.map(|(_, status)| status);
    let mut tx_dict: Vec<(u32, Vec<u8>)> = Vec::new();
    if let Some((key, _)) = found {
        let of_session = views.iter().flat_map(|v| &v.names_sent).filter(|(conn, _)| conn == key);
        tx_dict.extend(
            of_session.flat_map(|(_, s)| s.iter().map(|(i, t)| (u32::from(*i), t.clone()))),
        );
        tx_dict.sort();
    }
    let rx_dict = peer.session.and_then(|id| views.iter().find_map(|v| v.dictionaries.get(&id)));
    let counters = peer.past.with(status);
    let link = peer.link.counters();
    let established = status.is_some();
    let current = |table: Option<usize>| table.filter(|t| *t < tables.len());
    let shared = tables.iter().map(|t| {
        let found = status.and_then(|s| s.tables.iter().find(|x| x.table == t.index));
        shared_table(section.index, index, peer, t, found, views)
    });
    // Highest id first, as HAProxy prints them.
    let reversed = |t: usize| tables.len() - 1 - t;
    PeerView {
        name: peer.name.clone(),
        pointer: pointer(2, section.index, index, 0),
        local: peer.local,
        active: peer.link.current().is_some(),
        address: match (&peer.address, &peer.origin) {
            (Some(address), _) => short(address),
            (None, Some(origin)) => origin.to_string(),
            (None, None) => "-".to_string(),
        },
        app_state: if established { "RUNNING" } else { "STOPPED" },
        learn_state: status.map_or("NOTASSIGNED", |s| s.learn),
        last_status: Status::name_of(peer.link.status()),
        last_hdshk: ago(peer.link.handshake_at(), now),
        reconnect: when(peer.link.reconnect_at(), now),
        heartbeat: status.map_or(When::Never, |s| when(Some(s.heartbeat_at), now)),
        confirm: status.map_or(0, |s| u64::from(s.confirm)),
        tx_hbt: counters.heartbeats_out,
        rx_hbt: counters.heartbeats_in,
        no_hbt: link.no_hbt,
        new_conn: link.new_conn,
        proto_err: link.proto_err,
        coll: link.coll,
        flags: 0,
        applet: established.then(|| AppletView {
            pointer: pointer(3, section.index, index, 0),
            st0: 7,
            st1: 0,
            task_calls: counters.messages_in,
            state: "EST",
        }),
        accepted: peer
            .origin
            .as_ref()
            .filter(|_| peer.link.is_accepted())
            .map(|o| (o.to_string(), bound(node, section.index))),
        remote_table: status.and_then(|s| current(s.current_in)).map(reversed),
        last_local_table: status.and_then(|s| current(s.current_out)).map(reversed),
        tables: shared.rev().collect(),
        tx_dict,
        rx_dict: rx_dict.cloned().unwrap_or_default(),
        bytes_in: counters.bytes_in,
        bytes_out: counters.bytes_out,
        updates_in: counters.updates_in,
        updates_ignored: counters.updates_ignored,
        updates_out: counters.updates_out + counters.entries_taught,
    }
}

/// Where a section listens, as configured.
fn bound(node: &Node, section: usize) -> String {
    let bind = node.config.peers[section].bind.as_ref();
    bind.and_then(|b| b.addresses.first()).map_or("-".to_string(), short)
}

fn shared_table(
    section: usize,
    index: usize,
    peer: &Peer,
    table: &Arc<Table>,
    status: Option<&TableStatus>,
    views: &[ShardView],
) -> SharedTableView {
    let log = |v: &ShardView| v.logs.get(table.id).copied().unwrap_or_default();
    let shards = views.len() as u64;
    // The newest id any shard has given: positions count from 1, ids in steps of the shards.
    let newest = views.iter().enumerate().map(|(s, v)| match log(v).head {
        0 | 1 => 0,
        head => ((head - 1) * shards + s as u64) as u32,
    });
    let newest = newest.max().unwrap_or(0);
    let confirmed = status.map(|s| &s.confirmed);
    let kept = |source: usize| match (&confirmed, &peer.ledger) {
        (Some(confirmed), _) => confirmed.get(source).copied().unwrap_or(0),
        (None, Some(ledger)) => ledger.confirmed(table.index, source),
        (None, None) => 0,
    };
    let lag = views.iter().enumerate().map(|(s, v)| log(v).head.saturating_sub(kept(s).max(1)));
    SharedTableView {
        name: table.spec.name.clone(),
        pointer: pointer(4, section, index, table.index + 1),
        table_pointer: pointer(5, section, 0, table.id + 1),
        local_id: table.index as u32 + 1,
        remote_id: status.map_or(0, |s| s.remote_id as u32),
        flags: 0,
        remote_data: status.map_or(0, |s| s.remote_data),
        last_acked: status.map_or(0, |s| s.last_acked),
        last_pushed: status.map_or(0, |s| s.last_pushed),
        last_get: status.map_or(0, |s| s.last_get),
        teaching_origin: status.map_or(0, |s| s.teaching_origin),
        update: status.map_or(0, |s| s.update),
        table_update: newest,
        local_update: newest,
        commit_update: newest,
        refcnt: 1,
        // Nothing is ever pushed to ourselves.
        lag_updates: if peer.local { 0 } else { lag.sum() },
    }
}

impl Node {
    /// Counts of all sessions that are over.
    fn past(&self) -> Counters {
        let peers = self.sections.iter().flat_map(|s| &s.peers);
        peers.fold(Counters::default(), |mut sum, p| {
            sum.add(&p.past.0);
            sum
        })
    }

    /// Connections since the start, all kinds.
    fn connections_ever(&self) -> u64 {
        let peers = self.sections.iter().flat_map(|s| &s.peers);
        peers.map(|p| p.link.counters().new_conn).sum::<u64>() + self.totals.cli_total
    }
}

/// Sums at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: Millis,
    busy_us: u64,
    bytes_out: u64,
    connections: u64,
}

/// Rates over the time between two `show info`, at least a second apart: nothing runs in between.
#[derive(Debug, Default)]
pub struct Recent {
    last: Option<Sample>,
    rates: Rates,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    idle_pct: u32,
    bytes_out_rate: u64,
    /// Now, and the highest seen.
    connection_rate: [u32; 2],
}

impl Recent {
    /// New connections a second between the last two `show info`, and the highest seen.
    fn connection_rate(&self) -> [u64; 2] {
        self.rates.connection_rate.map(u64::from)
    }

    fn forget_highest(&mut self) {
        self.rates.connection_rate[1] = 0;
    }

    fn since_last(&mut self, now: Sample, started: Millis, shards: usize) -> Rates {
        let last = self.last.unwrap_or(Sample { at: started, ..Sample::default() });
        let ms = now.at.since(last.at);
        if ms >= 1000 || self.last.is_none() && ms > 0 {
            let busy_pct = (now.busy_us - last.busy_us) / (ms * 10 * shards as u64);
            let per_second = |n: u64| n.saturating_mul(1000) / ms;
            let connections = per_second(now.connections - last.connections) as u32;
            self.rates = Rates {
                idle_pct: 100 - busy_pct.min(100) as u32,
                bytes_out_rate: per_second(now.bytes_out.saturating_sub(last.bytes_out)),
                connection_rate: [connections, connections.max(self.rates.connection_rate[1])],
            };
            self.last = Some(now);
        }
        self.rates
    }
}

/// Everything `show info` prints.
pub async fn info(node: &Shared) -> NodeInfo {
    let shards = node.borrow().shards.clone();
    let (mut bytes, mut entries, mut evictions, mut received) = (0u64, 0u64, [0u64; 2], 0u64);
    let mut sent = 0;
    let mut ignored = 0;
    let (mut applied, mut ticks) = (0, [0u64; 2]);
    let mut sample = Sample::default();
    for shard in 0..shards.len() {
        let sums = shards.run(shard, |shard, now| shard.sums(now)).await.unwrap_or_default();
        bytes += sums.bytes;
        entries += sums.entries;
        evictions[0] += sums.evictions;
        evictions[1] += sums.refused;
        received += sums.updates_in;
        sent += sums.updates_out;
        ignored += sums.updates_ignored;
        applied += sums.applied;
        sample.busy_us += sums.busy_us;
        sample.bytes_out += sums.bytes_out;
        ticks = [ticks[0].max(sums.tick_p99_us), ticks[1].max(sums.tick_max_us)];
    }
    let mut node = node.borrow_mut();
    let now = node.clock.now();
    sample.at = now;
    sample.bytes_out += node.past().bytes_out;
    sample.connections = node.connections_ever();
    let (started, shards) = (node.started, node.shards.len());
    let recent = node.totals.recent.since_last(sample, started, shards);
    let node = &*node;
    let uptime_us = now.since(node.started) * 1000;
    let peers = || node.sections.iter().flat_map(|s| &s.peers);
    let past = node.past();
    let sessions = node.sessions.len();
    NodeInfo {
        name: "stickring".to_string(),
        version: crate::VERSION.to_string(),
        release_date: crate::RELEASE_DATE.to_string(),
        threads: node.shards.len() as u32,
        pid: std::process::id(),
        uptime_us,
        start_us: (node.clock.wall_ms() * 1000).saturating_sub(uptime_us),
        boot_ms: 0,
        memory_reserved_bytes: bytes,
        memory_used_bytes: bytes,
        files_max: crate::engine::process::files_max(),
        connections_max: node.maxconn.min(HANDSHAKES_MAX + peers().count()) as u32,
        connections: node.connections() as u32,
        connections_total: sample.connections as u32,
        connection_rate: recent.connection_rate,
        bytes_out: [sample.bytes_out, recent.bytes_out_rate],
        tasks: (sessions * 2 + node.handshakes + node.totals.cli_open) as u32,
        idle_pct: recent.idle_pct,
        node: node.config.node.clone().unwrap_or_else(|| node.config.localpeer.clone()),
        stopping: node.stopping,
        jobs: (sessions + node.listeners) as u32,
        listeners: node.listeners as u32,
        active_peers: peers().filter(|p| p.link.current().is_some()).count() as u32,
        connected_peers: peers().filter(|p| p.session.is_some()).count() as u32,
        dropped_logs: node.log.dropped() as u32,
        engine: node.engine.name().to_string(),
        huge_pages: crate::engine::process::memory_in_use(),
        tables: [node.registry.all().len() as u64, entries, bytes],
        updates: [
            received + past.updates_in,
            applied,
            ignored + past.updates_ignored,
            sent + past.updates_out + past.entries_taught,
        ],
        evictions,
        lessons: [node.totals.lessons_learned, node.totals.lessons_taught],
        protocol_errors: node.totals.errors_total,
        tick_us: ticks,
        handover: node.handover.clone(),
        ..NodeInfo::default()
    }
}

/// Sessions ever, bytes in and out, and connections refused.
type ListenerSums = [u64; 4];

fn listener_sums(node: &Node, section: &Section) -> ListenerSums {
    let sum = section.peers.iter().fold(Counters::default(), |mut sum, p| {
        sum.add(&p.past.0);
        sum
    });
    let ever = section.peers.iter().map(|p| p.link.counters().new_conn).sum();
    let refused = node.totals.handshakes_refused + node.totals.handshakes_failed;
    [ever, sum.bytes_in, sum.bytes_out, refused]
}

/// `clear counters`: the highest values of listeners begin anew, and with `all` what they count.
/// Not what `show peers`, `show info` and the metrics add up.
pub fn clear_counters(node: &mut Node, all: bool) {
    node.totals.recent.forget_highest();
    node.sections.iter_mut().for_each(|s| s.sessions_max = 0);
    if all {
        node.totals.cleared = node.sections.iter().map(|s| listener_sums(node, s)).collect();
    }
}

/// One row a peers section, for `show stat`.
pub fn listeners(node: &Node) -> Vec<ListenerView> {
    let sections = node.sections.iter();
    sections
        .map(|s| {
            let mut sums = listener_sums(node, s);
            if let Some(cleared) = node.totals.cleared.get(s.index) {
                sums.iter_mut().zip(cleared).for_each(|(n, base)| *n = n.saturating_sub(*base));
            }
            let [ever, bytes_in, bytes_out, refused] = sums;
            let now = s.peers.iter().filter(|p| p.session.is_some()).count() as u64;
            ListenerView {
                section: s.name.clone(),
                iid: s.index as u32 + 1,
                sessions: [now, s.sessions_max.max(now), s.peers.len() as u64, ever],
                bytes: [bytes_in, bytes_out],
                refused,
                rate: node.totals.recent.connection_rate(),
                stopped: node.stopping,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_between_two_questions_a_second_apart() {
        let mut recent = Recent::default();
        let at = |ms, busy_us, bytes_out, connections| Sample {
            at: Millis(ms),
            busy_us,
            bytes_out,
            connections,
        };
        // Two shards, 2 s since the start: 1 s of 4 was busy.
        let first = recent.since_last(at(2_000, 1_000_000, 10_000, 4), Millis(0), 2);
        assert_eq!((first.idle_pct, first.bytes_out_rate), (75, 5_000));
        assert_eq!(first.connection_rate, [2, 2]);
        // Too soon: as before.
        let soon = recent.since_last(at(2_500, 2_000_000, 90_000, 9), Millis(0), 2);
        assert_eq!((soon.idle_pct, soon.bytes_out_rate), (75, 5_000));
        let later = recent.since_last(at(4_000, 1_000_000, 10_000, 5), Millis(0), 2);
        assert_eq!((later.idle_pct, later.bytes_out_rate), (100, 0));
        assert_eq!(later.connection_rate, [0, 2]);
    }

    #[test]
    fn the_highest_rate_can_begin_anew() {
        let mut recent = Recent::default();
        let at = |ms, connections| Sample { at: Millis(ms), connections, ..Sample::default() };
        recent.since_last(at(1_000, 9), Millis(0), 1);
        recent.since_last(at(2_000, 10), Millis(0), 1);
        assert_eq!(recent.connection_rate(), [1, 9]);
        recent.forget_highest();
        assert_eq!(recent.connection_rate(), [1, 0]);
        recent.since_last(at(3_000, 12), Millis(0), 1);
        assert_eq!(recent.connection_rate(), [2, 2]);
    }

    #[test]
    fn the_oldest_protocol_error_makes_room() {
        let mut totals = Totals::default();
        (0..ERRORS_KEPT_MAX + 3).for_each(|_| totals.keep_error(ErrorEvent::default()));
        assert_eq!(totals.errors.len(), ERRORS_KEPT_MAX);
        assert_eq!(totals.errors_total, ERRORS_KEPT_MAX as u64 + 3);
        assert_eq!(totals.errors.front().map(|e| e.number), Some(3));
    }
}
