//! See [`super`]: what the coordinator knows, as data, and how the new process goes on with it.
//!
//! The new process's configuration may name other peers. What belongs to a peer is found by its
//! name. Rule: the sessions of peers that are not there any more, or elsewhere, are closed by the
//! new process, when it is the owner.

use super::{Legacy, frozen};
use crate::Millis;
use crate::config::Config;
use crate::coordinator::Node;
use crate::coordinator::peers::{Peer, SessionInfo};
use crate::coordinator::report::PastCounters;
use crate::engine::socket::Origin;
use crate::observe::handover::{Kind, Outcome};
use crate::observe::log::Level;
use crate::resync::Section as Brain;
use crate::session::link::{Down, Link, Ticket};
use crate::session::{Ledger, random::Random};
use crate::shard::{Control, SessionId, TableState, Translation};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerState {
    /// Of a peers section; else of the stats socket.
    pub peers: bool,
    /// As in the configuration.
    pub address: String,
}

#[derive(Serialize, Deserialize)]
struct PeerState {
    name: String,
    dynamic: bool,
    /// Where it is dialled, and from where.
    way: String,
    link: Link,
    ledger: Option<Ledger>,
    session: Option<SessionId>,
    origin: Option<Origin>,
    past: PastCounters,
}

#[derive(Serialize, Deserialize)]
struct SectionState {
    brain: Brain,
    changed_ms: u64,
    sessions_max: u64,
    peers: Vec<PeerState>,
}

#[derive(Serialize, Deserialize)]
struct InfoState {
    id: SessionId,
    section: usize,
    peer: usize,
    ticket: Ticket,
    shard: usize,
    since: Millis,
}

/// Everything the coordinator knows that its successor needs.
#[derive(Serialize, Deserialize)]
pub struct NodeState {
    next_session: SessionId,
    sections: Vec<SectionState>,
    sessions: Vec<InfoState>,
    /// Section and DEFINE of each table that was created from a definition, in order.
    learned: Vec<(usize, Bytes)>,
    /// All tables, by id.
    tables: Vec<TableState>,
}

/// Where a peer is dialled, and from where.
fn way(peer: &Peer) -> String {
    format!("{:?} from {:?} {:?}", peer.address, peer.source, peer.interface)
}

/// By number in the old process, section and peer in it: the peer's number here, or the name of one
/// that is not here.
type Places = HashMap<(usize, usize), Result<usize, String>>;

impl NodeState {
    /// Whether a process with this configuration can go on with it.
    ///
    /// # Errors
    /// A peer's session cannot be what the configuration wants; all of it is refused.
    pub fn fits(&self, config: &Config) -> Result<(), String> {
        if self.sections.len() != config.peers.len() {
            return Err("another number of peers sections".to_string());
        }
        for (old, new) in self.sections.iter().zip(&config.peers) {
            let strangers = old.peers.iter().filter(|p| p.dynamic);
            for peer in strangers {
                let declared = new.remotes.iter().find(|p| p.name == peer.name);
                if declared.is_some_and(|p| p.shard != 0) {
                    // Its session gets all keys.
                    return Err(format!("shard of peer '{}'", peer.name));
                }
            }
        }
        Ok(())
    }

    /// Whether a section is up to date.
    pub fn up_to_date(&self, section: usize) -> bool {
        self.sections.get(section).is_some_and(|s| s.brain.up_to_date())
    }

    /// Whether updates of a section's remotes wait for an old process's lesson.
    pub fn holds_remotes(&self, section: usize) -> bool {
        self.sections.get(section).is_some_and(|s| s.brain.holds_remotes())
    }

    /// Section and definition of the tables that were learned, in order.
    pub fn learned(&self) -> &[(usize, Bytes)] {
        &self.learned
    }

    /// All tables.
    pub fn tables(&self) -> &[TableState] {
        &self.tables
    }
}

impl Node {
    /// True while another process may have everything.
    pub(in crate::coordinator) fn is_frozen(&self) -> bool {
        frozen(*self.frozen.borrow())
    }

    /// What the coordinator knows.
    pub(in crate::coordinator) fn export(&self) -> NodeState {
        let peer = |p: &Peer| PeerState {
            name: p.name.clone(),
            dynamic: p.dynamic,
            way: way(p),
            link: p.link.clone(),
            ledger: p.ledger.clone(),
            session: p.session,
            origin: p.origin.clone(),
            past: p.past,
        };
        let sections = self.sections.iter().map(|s| SectionState {
            brain: s.brain.clone(),
            changed_ms: s.changed_ms,
            sessions_max: s.sessions_max,
            peers: s.peers.iter().map(peer).collect(),
        });
        let info = |(&id, s): (&SessionId, &SessionInfo)| InfoState {
            id,
            section: s.section,
            peer: s.peer,
            ticket: s.ticket,
            shard: s.shard,
            since: s.since,
        };
        let tables = self.registry.all();
        let learned = tables.iter().filter(|t| t.learned);
        NodeState {
            next_session: self.next_session,
            sections: sections.collect(),
            sessions: self.sessions.iter().map(info).collect(),
            learned: learned.filter_map(|t| Some((t.section?, t.define.clone()))).collect(),
            tables: TableState::all(&self.registry),
        }
    }

    /// Takes the place of the process whose legacy this is: everything of it is ours.
    pub(in crate::coordinator) fn go_on(&mut self, legacy: Legacy, now: Millis) {
        let Legacy { pid, since, node, tables, sessions } = legacy;
        let closed = self.inherit(node, &tables, now);
        let duration_ms = now.since(since);
        self.handover.add(Kind::Instant, Outcome::Finished, tables.entries(), duration_ms);
        self.handover.sessions_kept = sessions.saturating_sub(closed) as u64;
        // The sockets never stopped listening.
        self.handover.gap_ms = Some(0);
        self.log.notice(&format!("Hand-over from process {pid}: {}.", self.handover));
    }

    /// Goes on with what another process's coordinator knew. Sessions it had are on their shards
    /// already; connections it was still setting up are over. Returns how many sessions are
    /// closed.
    pub(in crate::coordinator) fn inherit(
        &mut self,
        state: NodeState,
        tables: &Translation,
        now: Millis,
    ) -> usize {
        self.next_session = state.next_session;
        let mut places = Places::new();
        let sections = self.sections.len();
        for (at, old) in state.sections.into_iter().enumerate().take(sections) {
            let section = &mut self.sections[at];
            section.brain = old.brain;
            section.changed_ms = old.changed_ms;
            section.sessions_max = old.sessions_max;
            self.up_to_date[at].store(section.brain.up_to_date(), Ordering::Relaxed);
            for (number, old) in old.peers.into_iter().enumerate() {
                places.insert((at, number), self.inherit_peer(at, old, tables));
            }
            let strangers = !self.config.stickring.accept_peers.is_empty();
            let section = &mut self.sections[at];
            section.brain.set_remotes(section.peers.len() - 1 + usize::from(strangers));
        }
        let closed = self.inherit_sessions(state.sessions, &places, now);
        self.forget_connections(now);
        closed
    }

    /// Goes on with what was known of a peer. An error: there is none of this name any more.
    fn inherit_peer(
        &mut self,
        at: usize,
        old: PeerState,
        tables: &Translation,
    ) -> Result<usize, String> {
        let known = self.sections[at].peers.iter().position(|p| p.name == old.name);
        let number = match known {
            Some(number) => number,
            None => {
                let origin = old.origin.as_ref().filter(|_| old.dynamic);
                if !origin.is_some_and(|origin| self.admits_stranger(at, &old.name, origin)) {
                    return Err(old.name);
                }
                let seed = Random::new(self.seed ^ at as u64).next_u64();
                let peers = &mut self.sections[at].peers;
                peers.push(Peer::dynamic(&old.name, seed));
                peers.len() - 1
            }
        };
        let peer = &mut self.sections[at].peers[number];
        // One that came to us stays, wherever we would have dialled it.
        let moved = !peer.local && way(peer) != old.way && !old.link.is_accepted();
        if moved && old.session.is_some() {
            peer.retired = Some("its address has changed");
        }
        if tables.ends(at) && old.session.is_some() {
            peer.retired = Some("the section's tables have changed");
        }
        if !moved || old.session.is_some() {
            peer.link = old.link;
        }
        peer.ledger = old.ledger.map(|ledger| tables.ledger(at, ledger));
        peer.session = old.session;
        peer.origin = old.origin;
        peer.past = old.past;
        Ok(number)
    }

    /// Goes on with the sessions of peers that are still there, closes the others. Returns how
    /// many.
    fn inherit_sessions(&mut self, all: Vec<InfoState>, places: &Places, now: Millis) -> usize {
        let mut closed = 0;
        for InfoState { id, section, peer, ticket, shard, since } in all {
            if section >= self.sections.len() || shard >= self.shards.len() {
                continue;
            }
            let peer = match places.get(&(section, peer)) {
                Some(Ok(peer)) => *peer,
                Some(Err(name)) => {
                    closed += 1;
                    self.close_gone(section, name, (shard, id), now);
                    continue;
                }
                None => continue,
            };
            self.sessions.insert(id, SessionInfo { section, peer, ticket, shard, since });
            let entry = &self.sections[section].peers[peer];
            // One that does not count was about to be closed.
            if entry.retired.is_some() || !entry.link.counts(ticket) {
                closed += 1;
                self.end_session(id);
            }
        }
        closed
    }

    /// Ends the session of a peer that is not there any more: nothing of it is kept, and its end is
    /// no news.
    fn close_gone(
        &mut self,
        section: usize,
        peer: &str,
        (shard, id): (usize, SessionId),
        now: Millis,
    ) {
        // Nothing is before it in the channel of a shard that has just begun.
        let _ = self.shards.tell(shard, Control::Close(id));
        self.sections[section].brain.session_down(id, now);
        let name = &self.sections[section].name;
        let text = format!("Peer {name}/{peer} is DOWN (not in the configuration any more).");
        self.log_section(section, Level::Notice, &text);
    }

    /// Connections that the other process was setting up are over.
    fn forget_connections(&mut self, now: Millis) {
        let sessions = &self.sessions;
        for peer in self.sections.iter_mut().flat_map(|s| &mut s.peers) {
            let info = peer.session.and_then(|id| sessions.get(&id));
            let kept = info.map(|info| info.ticket);
            if let Some(ticket) = peer.link.current().filter(|&current| kept != Some(current)) {
                peer.link.down(ticket, Down::Lost, now);
            }
        }
    }
}
