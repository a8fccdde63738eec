//! Sections and their peers: which session counts, what is said about it.

use super::handover::Leaving;
use super::{Node, report};
use crate::Millis;
use crate::config::{Address, PeersSection};
use crate::engine::socket::{Fresh, Origin};
use crate::observe::handover::{HandoverNumbers, Outcome};
use crate::observe::log::Level;
use crate::resync::Section as Brain;
use crate::resync::section::{Action, SessionUp};
use crate::runtime_api::show_errors::ErrorEvent;
use crate::session::link::{Dial, Down, Link, Ticket};
use crate::session::{CloseReason, Ledger, SessionError, SessionParams};
use crate::shard::{Control, KeyFilter, Open, SessionId, ShardEvent};
use crate::wire::hello::Printable;
use std::sync::atomic::Ordering;

/// One `peers` section at work.
pub struct Section {
    /// Its index.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Learning after the start.
    pub brain: Brain,
    /// All peers, the local one first.
    pub peers: Vec<Peer>,
    /// `shards` of the section.
    pub shards: u32,
    /// Wall time of the last change of its state, for `show peers`.
    pub changed_ms: u64,
    /// Times its timers and news were looked at, for `show peers`.
    pub task_calls: u64,
    /// Most sessions at once.
    pub sessions_max: u64,
    /// We are the old process.
    pub leaving: Option<Leaving>,
    /// What an old process has taught us.
    pub taken: HandoverNumbers,
}

/// One peer of a section.
pub struct Peer {
    /// Its name.
    pub name: String,
    /// It is ourselves.
    pub local: bool,
    /// Where to dial it; `None`: it only dials us.
    pub address: Option<Address>,
    /// Where to dial from.
    pub source: Option<Address>,
    /// Network device to dial from.
    pub interface: Option<String>,
    /// Keys it takes.
    pub shard: u32,
    /// Not declared: admitted by `accept-peers`.
    pub dynamic: bool,
    /// Which of its connections counts, and when to dial.
    pub link: Link,
    /// What it has confirmed, while it has no session.
    pub ledger: Option<Ledger>,
    /// Its session on a shard.
    pub session: Option<SessionId>,
    /// A session that waits for the end of the one before it.
    pub waiting: Option<Box<Established>>,
    /// Where it last came from, when it dialled us.
    pub origin: Option<Origin>,
    /// Counts of its ended sessions.
    pub past: report::PastCounters,
    /// Why its session is being ended, when that is our own decision.
    pub retired: Option<&'static str>,
}

/// A connection whose handshake is done.
pub struct Established {
    /// Names it among the peer's connections.
    pub ticket: Ticket,
    /// The connection.
    pub fresh: Fresh,
    /// Bytes behind the handshake.
    pub leftover: Vec<u8>,
    /// Protocol version 2.`minor`.
    pub minor: u8,
    /// It dialled us.
    pub accepted: bool,
    /// We are the old process.
    pub teach: bool,
}

/// Where a session belongs.
#[derive(Clone, Copy, Debug)]
pub struct SessionInfo {
    /// Section.
    pub section: usize,
    /// Peer in it.
    pub peer: usize,
    /// Connection of the peer.
    pub ticket: Ticket,
    /// Home shard.
    pub shard: usize,
    /// When it was established.
    pub since: Millis,
}

impl Section {
    /// A section of the configuration, at its start. `has_old_process`: one was told to hand over
    /// to us. `strangers`: `accept-peers` admits some.
    pub fn new(
        index: usize,
        spec: &PeersSection,
        has_old_process: bool,
        strangers: bool,
        (now, wall_ms): (Millis, u64),
        seed: u64,
    ) -> Section {
        let peer = |p: &crate::config::PeerSpec, local: bool, seed: u64| Peer {
            name: p.name.clone(),
            local,
            address: p.address.clone().filter(|_| !p.disabled),
            source: p.source.clone(),
            interface: p.source_interface.clone(),
            shard: p.shard,
            dynamic: false,
            link: Link::new(local, seed),
            ledger: None,
            session: None,
            waiting: None,
            origin: None,
            past: report::PastCounters::default(),
            retired: None,
        };
        let mut peers = vec![peer(&spec.local, true, seed)];
        let remotes = spec.remotes.iter().filter(|p| !p.disabled);
        peers.extend(remotes.enumerate().map(|(i, p)| peer(p, false, seed ^ (i as u64 + 1))));
        // Peers that are not declared may come and teach, too.
        let remotes = peers.len() - 1 + usize::from(strangers);
        let brain = Brain::new(now, has_old_process, remotes, spec.shards, seed);
        Section {
            index,
            name: spec.name.clone(),
            brain,
            peers,
            shards: spec.shards,
            changed_ms: wall_ms,
            task_calls: 0,
            sessions_max: 0,
            leaving: None,
            taken: HandoverNumbers::default(),
        }
    }
}

impl Peer {
    /// One that is not declared.
    pub fn dynamic(name: &str, seed: u64) -> Peer {
        Peer {
            name: name.to_string(),
            local: false,
            address: None,
            source: None,
            interface: None,
            shard: 0,
            dynamic: true,
            link: Link::new(false, seed),
            ledger: None,
            session: None,
            waiting: None,
            origin: None,
            past: report::PastCounters::default(),
            retired: None,
        }
    }
}

impl Node {
    /// A handshake is done: the session moves to its home, once its predecessor has left there.
    pub(super) fn established(
        &mut self,
        section: usize,
        peer: usize,
        new: Established,
        now: Millis,
    ) {
        let frozen = self.is_frozen();
        let entry = &mut self.sections[section].peers[peer];
        if !entry.link.counts(new.ticket) || self.stopping && !new.teach {
            return;
        }
        if entry.session.is_some() || frozen {
            entry.waiting = Some(Box::new(new));
            return;
        }
        self.open(section, peer, new, now);
    }

    /// Connections that were made while the node was frozen.
    pub(super) fn admit_waiting(&mut self, now: Millis) {
        for section in 0..self.sections.len() {
            for peer in 0..self.sections[section].peers.len() {
                let entry = &mut self.sections[section].peers[peer];
                if entry.session.is_none()
                    && let Some(new) = entry.waiting.take()
                {
                    self.established(section, peer, *new, now);
                }
            }
        }
    }

    fn open(&mut self, section: usize, peer: usize, new: Established, now: Millis) {
        let id = self.next_session;
        self.next_session += 1;
        let shard = self.quietest_shard();
        let entry = &mut self.sections[section].peers[peer];
        let socket = match new.fresh.into_fd() {
            Ok(socket) => socket,
            Err(_) => {
                entry.link.down(new.ticket, Down::Lost, now);
                return self.successor_down(section, now);
            }
        };
        let shards = self.sections[section].shards;
        let entry = &mut self.sections[section].peers[peer];
        let filter =
            (shards > 1 && entry.shard > 0).then_some(KeyFilter { shard: entry.shard, shards });
        let open = Open {
            id,
            section,
            socket,
            leftover: new.leftover,
            params: SessionParams {
                local: entry.local,
                minor: new.minor,
                bufsize: self.config.bufsize,
            },
            ledger: entry.ledger.take().unwrap_or_default(),
            filter,
            teach: new.teach,
        };
        if let Err(control) = self.shards.tell(shard, Control::Open(Box::new(open))) {
            // A shard with a thousand commands waiting is in trouble; the peer will come again.
            if let Control::Open(open) = control {
                entry.ledger = Some(open.ledger);
            }
            entry.link.down(new.ticket, Down::Lost, now);
            return self.successor_down(section, now);
        }
        entry.session = Some(id);
        let how = match (&entry.origin, &entry.address, new.accepted) {
            (Some(origin), _, true) => format!("accepted from {origin}"),
            (_, Some(address), false) => format!("connected to {}", report::short(address)),
            _ => "connected".to_string(),
        };
        let up = SessionUp { id, local: entry.local, accepted: new.accepted, shard: entry.shard };
        let text = format!(
            "Peer {}/{} is UP ({how}, protocol 2.{}).",
            self.sections[section].name, self.sections[section].peers[peer].name, new.minor
        );
        if !self.stopping {
            self.sections[section].brain.session_up(up, now);
        }
        let info = SessionInfo { section, peer, ticket: new.ticket, shard, since: now };
        self.sessions.insert(id, info);
        let sessions = self.sessions.values().filter(|s| s.section == section).count() as u64;
        let entry = &mut self.sections[section];
        entry.sessions_max = entry.sessions_max.max(sessions);
        self.log_section(section, Level::Notice, &text);
        self.run_section(section, now);
    }

    /// The shard with the fewest sessions.
    fn quietest_shard(&self) -> usize {
        let mut counts = vec![0usize; self.shards.len()];
        self.sessions.values().for_each(|s| counts[s.shard] += 1);
        (0..counts.len()).min_by_key(|&shard| counts[shard]).unwrap_or(0)
    }

    /// Ends a session; its end is reported later.
    pub(super) fn end_session(&mut self, id: SessionId) {
        if let Some(info) = self.sessions.get(&id) {
            // A full channel belongs to a shard in trouble; the session then ends by its own
            // silence.
            let _ = self.shards.tell(info.shard, Control::Close(id));
        }
    }

    /// Timers of sections, and what they decide.
    pub(super) fn run_sections(&mut self, now: Millis) {
        for section in 0..self.sections.len() {
            let brain = &mut self.sections[section].brain;
            if brain.poll_timeout().is_some_and(|at| at <= now) {
                brain.handle_timeout(now);
            }
            self.run_section(section, now);
        }
    }

    fn run_section(&mut self, section: usize, now: Millis) {
        if self.stopping {
            return;
        }
        self.sections[section].task_calls += 1;
        if !self.sections[section].brain.holds_remotes() {
            self.release(section);
        }
        while let Some(action) = self.sections[section].brain.poll_action() {
            let name = self.sections[section].name.clone();
            match action {
                Action::Learn(id) => {
                    let Some(info) = self.sessions.get(&id).copied() else { continue };
                    if self.shards.tell(info.shard, Control::Learn(id)).is_err() {
                        // It never heard of the lesson, which so would never end: ask another.
                        self.sections[section].brain.lesson_end(id, false, now);
                        continue;
                    }
                    let peer = &self.sections[section].peers[info.peer].name;
                    let text = format!("Peers section {name}: learning from {peer}.");
                    self.log_section(section, Level::Notice, &text);
                }
                Action::LocalGivenUp => {}
                Action::UpToDate { taught } => {
                    self.up_to_date[section].store(true, Ordering::Relaxed);
                    self.sections[section].changed_ms = self.clock.wall_ms();
                    let how = if taught { "by a full lesson" } else { "nobody to learn from" };
                    let text = format!("Peers section {name} is up to date ({how}).");
                    self.log_section(section, Level::Notice, &text);
                }
            }
        }
    }

    /// The earliest moment at which something is due.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let brains = self.sections.iter().filter_map(|s| s.brain.poll_timeout());
        let links = self.sections.iter().flat_map(|s| &s.peers);
        let dials = links.filter(|p| p.address.is_some()).filter_map(|p| p.link.poll_timeout());
        if self.stopping {
            return self.soft_stop_deadline();
        }
        brains.chain(dials).min()
    }

    /// Peers to dial now: (section, peer, dial).
    pub(super) fn due_dials(&mut self, now: Millis) -> Vec<(usize, usize, Dial)> {
        if self.stopping {
            return self.due_successors(now);
        }
        let mut due = Vec::new();
        for (s, section) in self.sections.iter_mut().enumerate() {
            for (p, peer) in section.peers.iter_mut().enumerate() {
                if peer.address.is_some()
                    && !peer.local
                    && let Some(dial) = peer.link.poll_dial(now)
                {
                    due.push((s, p, dial));
                }
            }
        }
        due
    }

    /// News from a shard.
    pub(super) fn handle_event(&mut self, event: ShardEvent, now: Millis) {
        self.events_heard += 1;
        match event {
            ShardEvent::Heard(id) => {
                if let Some(info) = self.sessions.get(&id) {
                    let peer = &mut self.sections[info.section].peers[info.peer];
                    peer.link.heard(info.ticket, now);
                }
            }
            ShardEvent::LessonEnd { id, finished, updates, duration_ms } => {
                let Some((info, name)) = self.named(id) else { return };
                let how = if finished { "finished" } else { "partial" };
                let text = format!(
                    "Lesson from {name} ended ({how}): {updates} entries learned in {}.",
                    seconds(duration_ms)
                );
                self.totals.lessons_learned += 1;
                self.log_section(info.section, Level::Notice, &text);
                if self.sections[info.section].peers[info.peer].local {
                    let outcome = if finished { Outcome::Finished } else { Outcome::Partial };
                    self.taken_over(info.section, outcome, updates, duration_ms);
                }
                let brain = &mut self.sections[info.section].brain;
                brain.learned(id, updates);
                brain.lesson_end(id, finished, now);
                self.run_section(info.section, now);
            }
            ShardEvent::Teaching(id) => {
                let Some((info, name)) = self.named(id) else { return };
                let text = match &self.sections[info.section].leaving {
                    Some(_) => format!("Teaching {name}: it is our successor."),
                    None => format!("Teaching {name}: it asked for a lesson."),
                };
                self.log_section(info.section, Level::Notice, &text);
            }
            ShardEvent::Taught { id, finished, entries, duration_ms } => {
                let Some((info, name)) = self.named(id) else { return };
                let how = if finished { "finished" } else { "partial" };
                let text = format!(
                    "Lesson to {name} confirmed ({how}): {entries} entries taught in {}.",
                    seconds(duration_ms)
                );
                self.totals.lessons_taught += 1;
                self.log_section(info.section, Level::Notice, &text);
                self.handed_over(info.section, finished, entries, now);
            }
            ShardEvent::Refused { id, name, refusal } => {
                let Some((info, peer)) = self.named(id) else { return };
                let text = format!(
                    "Peer {peer}: updates for table '{}' are ignored: {refusal}.",
                    Printable::new(&name)
                );
                self.totals.tables_refused += 1;
                self.log_section(info.section, Level::Warning, &text);
            }
            ShardEvent::Ended { id, ledger, counters, close, socket } => {
                self.ended(id, ledger, &counters, close, &socket, now);
            }
            ShardEvent::OutOfMemory(text) => {
                self.log_limited(Level::Alert, &format!("Updates are lost: {text}."));
            }
        }
    }

    /// A session is over: its peer's cursors come back, and the next session may begin.
    fn ended(
        &mut self,
        id: SessionId,
        ledger: Ledger,
        counters: &crate::session::Counters,
        close: Option<CloseReason>,
        socket: &str,
        now: Millis,
    ) {
        let Some((info, name)) = self.named(id) else { return };
        self.sessions.remove(&id);
        self.sections[info.section].brain.session_down(id, now);
        let down = match &close {
            Some(CloseReason::Silence) => Down::Silence,
            Some(CloseReason::BadInput(error)) => {
                self.keep_error(&info, error);
                Down::BadInput
            }
            Some(CloseReason::HandedOver) => Down::Ours,
            None => Down::Lost,
        };
        let peer = &mut self.sections[info.section].peers[info.peer];
        peer.session = None;
        peer.ledger = Some(ledger);
        peer.past.add(counters);
        let (local, stopping) = (peer.local, self.stopping);
        let (replaced, retired) = (!peer.link.counts(info.ticket), peer.retired.take());
        let down = if retired.is_some() { Down::Ours } else { down };
        peer.link.down(info.ticket, down, now);
        let waiting = peer.waiting.take();
        let why = match close {
            Some(reason) => reason.to_string(),
            None if let Some(why) = retired => why.to_string(),
            None if replaced => "replaced by a newer connection".to_string(),
            None if stopping && !local => "stopping".to_string(),
            None => socket.to_string(),
        };
        let level =
            if replaced || stopping || retired.is_some() { Level::Notice } else { Level::Warning };
        if local {
            self.successor_down(info.section, now);
        }
        self.log_section(info.section, level, &format!("Peer {name} is DOWN ({why})."));
        if let Some(new) = waiting {
            self.established(info.section, info.peer, *new, now);
        }
        self.run_section(info.section, now);
        self.poke.notify_one();
    }

    /// Keeps a protocol error for `show errors`.
    fn keep_error(&mut self, info: &SessionInfo, error: &SessionError) {
        let section = &self.sections[info.section];
        let peer = &section.peers[info.peer];
        let event = ErrorEvent {
            date: report::wall(self.clock.wall_ms()),
            section: section.name.clone(),
            peer: peer.name.clone(),
            source: peer.origin.as_ref().map_or("-".to_string(), ToString::to_string),
            text: error.to_string(),
            message: error.message,
            ..ErrorEvent::default()
        };
        self.totals.keep_error(event);
    }

    /// A session's place and its peer's full name.
    pub(super) fn named(&self, id: SessionId) -> Option<(SessionInfo, String)> {
        let info = *self.sessions.get(&id)?;
        let section = &self.sections[info.section];
        Some((info, format!("{}/{}", section.name, section.peers[info.peer].name)))
    }

    /// Logs at a limited rate, so that a storm of connections is not a storm of lines.
    pub(super) fn log_limited(&self, level: Level, text: &str) {
        self.log.limited(self.clock.now(), level, None, text);
    }

    /// The same for a line about a section: its own log targets get it, too.
    pub(super) fn log_section(&self, section: usize, level: Level, text: &str) {
        self.log.limited(self.clock.now(), level, Some(section), text);
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}s", ms / 1000, ms % 1000)
}
