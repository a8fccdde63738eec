//! `show peers [dict|-] [<section>]`, and ours: `show peers json`, `show peers lag`.
//!
//! The coordinator gathers the views, this formats them. Rule: byte for byte HAProxy 3.2 for the
//! first form, with the true date and without the empty line HAProxy puts between sections.
//! Sections and peers are given, and shown, last declared first; tables highest id first.

use super::error::CliError;
use super::json::write_string;
use super::select::word;
use crate::observe::time::{WallTime, When};
use crate::table::key::write_escaped;
use std::fmt::Write;

/// A parsed `show peers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShowPeers {
    /// What is printed.
    pub format: PeersFormat,
    /// Only this section.
    pub section: Option<Vec<u8>>,
}

/// The forms of `show peers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeersFormat {
    /// HAProxy's.
    Full {
        /// With the dictionary caches.
        dict: bool,
    },
    /// One JSON object on one line (ours alone).
    Json,
    /// A line for each peer and table (ours alone).
    Lag,
}

/// A peers section.
#[derive(Clone, Debug, Default)]
pub struct SectionView {
    /// Its name.
    pub name: String,
    /// A number that is no other thing's in this output; shown in hexadecimal.
    pub pointer: u64,
    /// When its resync state last changed.
    pub changed: WallTime,
    /// `disabled` in the configuration.
    pub disabled: bool,
    /// State of its resync, `flags & 3 == 3` when in sync (`resync::Section::flags`).
    pub flags: u32,
    /// End of the present resync phase.
    pub resync_timeout: When,
    /// Times its brain ran.
    pub task_calls: u64,
    /// Its peers, the local one among them.
    pub peers: Vec<PeerView>,
}

/// A peer.
#[derive(Clone, Debug, Default)]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// See [`SectionView::pointer`].
    pub pointer: u64,
    /// It is ourselves.
    pub local: bool,
    /// There is a connection, or an attempt at one.
    pub active: bool,
    /// Configured address.
    pub address: String,
    /// `STOPPED STARTING RUNNING STOPPING`
    pub app_state: &'static str,
    /// `NOTASSIGNED ASSIGNED PROCESSING FINISHED`
    pub learn_state: &'static str,
    /// `NONE CONN HSHK ESTA RETR PROT VERS NAME UNKN`
    pub last_status: &'static str,
    /// Time since the last handshake or attempt.
    pub last_hdshk: When,
    /// Time to the next attempt, or to the end of the silence allowed.
    pub reconnect: When,
    /// Time to our next heartbeat.
    pub heartbeat: When,
    /// Lessons that wait for the peer's confirmation.
    pub confirm: u64,
    /// Heartbeats sent.
    pub tx_hbt: u64,
    /// Heartbeats received.
    pub rx_hbt: u64,
    /// Sessions closed for silence.
    pub no_hbt: u64,
    /// Connections begun or accepted.
    pub new_conn: u64,
    /// Protocol errors.
    pub proto_err: u64,
    /// Collisions.
    pub coll: u64,
    /// State of the peer, HAProxy's bits.
    pub flags: u32,
    /// The session.
    pub applet: Option<AppletView>,
    /// Addresses of an accepted connection: the peer's, and ours.
    pub accepted: Option<(String, String)>,
    /// Table the peer's updates go to now: index into `tables`.
    pub remote_table: Option<usize>,
    /// Table of our last update to the peer: index into `tables`.
    pub last_local_table: Option<usize>,
    /// Shared tables.
    pub tables: Vec<SharedTableView>,
    /// Names sent in this session, by slot.
    pub tx_dict: Vec<(u32, Vec<u8>)>,
    /// Names received in this session, all slots.
    pub rx_dict: Vec<Option<Vec<u8>>>,
    /// Bytes received since the start of the node.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Updates received.
    pub updates_in: u64,
    /// Updates received and ignored: unknown table, mismatch, unknown type.
    pub updates_ignored: u64,
    /// Updates sent.
    pub updates_out: u64,
}

/// What HAProxy shows of a session's applet.
#[derive(Clone, Copy, Debug, Default)]
pub struct AppletView {
    /// See [`SectionView::pointer`].
    pub pointer: u64,
    /// Main state; 7 once established.
    pub st0: u32,
    /// Sub-state.
    pub st1: u32,
    /// Times it ran.
    pub task_calls: u64,
    /// `EST`, or what the connection is doing.
    pub state: &'static str,
}

/// A table shared with a peer.
#[derive(Clone, Debug, Default)]
pub struct SharedTableView {
    /// The table's name.
    pub name: String,
    /// See [`SectionView::pointer`].
    pub pointer: u64,
    /// See [`SectionView::pointer`]; the table's own, the same for every peer.
    pub table_pointer: u64,
    /// Our id of it.
    pub local_id: u32,
    /// The peer's id of it; 0 before its definition.
    pub remote_id: u32,
    /// HAProxy's bits.
    pub flags: u32,
    /// The peer's data types.
    pub remote_data: u64,
    /// Last id we acked.
    pub last_acked: u32,
    /// Last id sent.
    pub last_pushed: u32,
    /// Last id received.
    pub last_get: u32,
    /// Id at which the present lesson began.
    pub teaching_origin: u32,
    /// Last id the peer acked.
    pub update: u32,
    /// Newest id.
    pub table_update: u32,
    /// Newest id of a local change.
    pub local_update: u32,
    /// Newest id every peer was sent.
    pub commit_update: u32,
    /// Users of the table.
    pub refcnt: u32,
    /// Local changes the peer has not acked. Exact, unlike differences of ids.
    pub lag_updates: u64,
}

/// Parses the words behind `show peers`.
pub(super) fn parse(words: &[Vec<u8>]) -> ShowPeers {
    let (format, rest) = match word(words, 0) {
        b"dict" => (PeersFormat::Full { dict: true }, 1),
        b"-" => (PeersFormat::Full { dict: false }, 1),
        b"json" => (PeersFormat::Json, 1),
        b"lag" => (PeersFormat::Lag, 1),
        _ => (PeersFormat::Full { dict: false }, 0),
    };
    ShowPeers { format, section: words.get(rest).cloned() }
}

/// Appends the reply.
pub fn write(
    query: &ShowPeers,
    sections: &[SectionView],
    out: &mut String,
) -> Result<(), CliError> {
    let wanted = |s: &&SectionView| match &query.section {
        None => true,
        Some(name) => s.name.as_bytes() == name.as_slice(),
    };
    let shown: Vec<_> = sections.iter().filter(wanted).collect();
    if query.section.is_some() && shown.is_empty() {
        return Err(CliError::NoSuchPeers);
    }
    // Writing to a String cannot fail, neither here nor below.
    let _ = match query.format {
        PeersFormat::Full { dict } => shown.iter().try_for_each(|s| section(s, dict, out)),
        PeersFormat::Json => json(&shown, out),
        PeersFormat::Lag => lag(&shown, out),
    };
    Ok(())
}

fn section(s: &SectionView, dict: bool, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "{:#x}: [{}] id={} disabled={} flags={:#x} resync_timeout={} task_calls={}",
        s.pointer,
        s.changed.log_date(),
        s.name,
        u8::from(s.disabled),
        s.flags,
        s.resync_timeout,
        s.task_calls
    )?;
    s.peers.iter().try_for_each(|p| peer(p, dict, out))
}

fn peer(p: &PeerView, dict: bool, out: &mut String) -> std::fmt::Result {
    let place = if p.local { "local" } else { "remote" };
    let activity = if p.active { "active" } else { "inactive" };
    writeln!(
        out,
        "  {:#x}: id={}({place},{activity}) addr={} app_state={} learn_state={} last_status={} \
         last_hdshk={}",
        p.pointer, p.name, p.address, p.app_state, p.learn_state, p.last_status, p.last_hdshk
    )?;
    writeln!(
        out,
        "        reconnect={} heartbeat={} confirm={} tx_hbt={} rx_hbt={} no_hbt={} new_conn={} \
         proto_err={} coll={}",
        p.reconnect,
        p.heartbeat,
        p.confirm,
        p.tx_hbt,
        p.rx_hbt,
        p.no_hbt,
        p.new_conn,
        p.proto_err,
        p.coll
    )?;
    write!(out, "        flags={:#x}", p.flags)?;
    if let Some(a) = p.applet {
        write!(
            out,
            " appctx:{:#x} st0={} st1={} task_calls={} state={}",
            a.pointer, a.st0, a.st1, a.task_calls, a.state
        )?;
    }
    out.push('\n');
    if let Some((src, addr)) = &p.accepted {
        writeln!(out, "        xprt=RAW src={src} addr={addr}")?;
    }
    for (label, at) in [("remote_table", p.remote_table), ("last_local_table", p.last_local_table)]
    {
        if let Some(t) = at.and_then(|at| p.tables.get(at)) {
            writeln!(
                out,
                "        {label}:{:#x} id={} local_id={} remote_id={}",
                t.pointer, t.name, t.local_id, t.remote_id
            )?;
        }
    }
    if p.tables.is_empty() {
        return Ok(());
    }
    out.push_str("        shared tables:\n");
    p.tables.iter().try_for_each(|t| {
        table(t, out)?;
        dictionaries(p, dict, out)
    })
}

fn table(t: &SharedTableView, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "          {:#x} local_id={} remote_id={} flags={:#x} remote_data={:#x}",
        t.pointer, t.local_id, t.remote_id, t.flags, t.remote_data
    )?;
    writeln!(
        out,
        "              last_acked={} last_pushed={} last_get={} teaching_origin={} update={}",
        t.last_acked, t.last_pushed, t.last_get, t.teaching_origin, t.update
    )?;
    writeln!(
        out,
        "              table:{:#x} id={} update={} localupdate={} commitupdate={} refcnt={}",
        t.table_pointer, t.name, t.table_update, t.local_update, t.commit_update, t.refcnt
    )
}

/// The caches are the session's, but HAProxy prints them behind every table.
fn dictionaries(p: &PeerView, dict: bool, out: &mut String) -> std::fmt::Result {
    if !dict {
        return writeln!(out, "        Dictionary cache not dumped (use \"show peers dict\")");
    }
    let sent = p.tx_dict.iter().map(|(slot, name)| (*slot, Some(name.as_slice())));
    dictionary("TX", sent, out)?;
    let empty: &[Option<Vec<u8>>] = &const { [const { None }; crate::limits::DICTIONARY_SLOTS] };
    let received = if p.rx_dict.is_empty() { empty } else { &p.rx_dict };
    let received = received.iter().zip(0u32..).map(|(name, slot)| (slot, name.as_deref()));
    dictionary("RX", received, out)
}

fn dictionary<'a>(
    direction: &str,
    cells: impl Iterator<Item = (u32, Option<&'a [u8]>)>,
    out: &mut String,
) -> std::fmt::Result {
    write!(out, "        {direction} dictionary cache:")?;
    for (n, (slot, name)) in cells.enumerate() {
        if n % 4 == 0 {
            out.push_str("\n        ");
        }
        write!(out, "  {slot:3} -> {}", name.map_or("-".to_owned(), escaped))?;
    }
    out.push('\n');
    Ok(())
}

/// A name from the wire, made harmless.
fn escaped(name: &[u8]) -> String {
    let mut text = Vec::new();
    write_escaped(name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn lag(sections: &[&SectionView], out: &mut String) -> std::fmt::Result {
    out.push_str("# section peer status table lag_updates\n");
    let mut in_sync = true;
    for s in sections {
        in_sync &= s.flags & 3 == 3;
        for p in s.peers.iter().filter(|p| !p.local) {
            for t in &p.tables {
                let (status, lag) = (p.last_status, t.lag_updates);
                writeln!(out, "{} {} {status} {} {lag}", s.name, p.name, t.name)?;
            }
        }
    }
    writeln!(out, "# in sync: {}", if in_sync { "yes" } else { "no" })
}

fn json(sections: &[&SectionView], out: &mut String) -> std::fmt::Result {
    out.push_str("{\"sections\":[");
    for (n, s) in sections.iter().enumerate() {
        comma(n, out);
        out.push_str("{\"name\":");
        write_string(s.name.as_bytes(), out);
        write!(
            out,
            ",\"disabled\":{},\"flags\":{},\"in_sync\":{},\"peers\":[",
            s.disabled,
            s.flags,
            s.flags & 3 == 3
        )?;
        for (n, p) in s.peers.iter().enumerate() {
            comma(n, out);
            json_peer(p, out)?;
        }
        out.push_str("]}");
    }
    out.push_str("]}\n");
    Ok(())
}

fn json_peer(p: &PeerView, out: &mut String) -> std::fmt::Result {
    out.push_str("{\"name\":");
    write_string(p.name.as_bytes(), out);
    out.push_str(",\"address\":");
    write_string(p.address.as_bytes(), out);
    write!(
        out,
        ",\"local\":{},\"active\":{},\"app_state\":\"{}\",\"learn_state\":\"{}\",\
         \"last_status\":\"{}\"",
        p.local, p.active, p.app_state, p.learn_state, p.last_status
    )?;
    for (name, value) in [
        ("confirm", p.confirm),
        ("heartbeats_sent", p.tx_hbt),
        ("heartbeats_received", p.rx_hbt),
        ("heartbeat_timeouts", p.no_hbt),
        ("connections", p.new_conn),
        ("protocol_errors", p.proto_err),
        ("collisions", p.coll),
        ("bytes_received", p.bytes_in),
        ("bytes_sent", p.bytes_out),
        ("updates_received", p.updates_in),
        ("updates_ignored", p.updates_ignored),
        ("updates_sent", p.updates_out),
    ] {
        write!(out, ",\"{name}\":{value}")?;
    }
    out.push_str(",\"tables\":[");
    for (n, t) in p.tables.iter().enumerate() {
        comma(n, out);
        json_table(t, out)?;
    }
    out.push_str("]}");
    Ok(())
}

fn json_table(t: &SharedTableView, out: &mut String) -> std::fmt::Result {
    out.push_str("{\"name\":");
    write_string(t.name.as_bytes(), out);
    for (name, value) in [
        ("local_id", u64::from(t.local_id)),
        ("remote_id", u64::from(t.remote_id)),
        ("remote_data", t.remote_data),
        ("last_acked", u64::from(t.last_acked)),
        ("last_pushed", u64::from(t.last_pushed)),
        ("last_get", u64::from(t.last_get)),
        ("update", u64::from(t.update)),
        ("localupdate", u64::from(t.local_update)),
        ("lag_updates", t.lag_updates),
    ] {
        write!(out, ",\"{name}\":{value}")?;
    }
    out.push('}');
    Ok(())
}

fn comma(n: usize, out: &mut String) {
    if n > 0 {
        out.push(',');
    }
}
