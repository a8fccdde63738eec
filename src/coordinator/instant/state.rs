//! See [`super`]: what the coordinator knows, as data.

use super::Legacy;
use crate::Millis;
use crate::coordinator::Node;
use crate::coordinator::peers::{Peer, SessionInfo};
use crate::coordinator::report::PastCounters;
use crate::engine::socket::Origin;
use crate::observe::handover::{Kind, Outcome};
use crate::resync::Section as Brain;
use crate::session::link::{Down, Link, Ticket};
use crate::session::{Ledger, random::Random};
use crate::shard::SessionId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
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
}

impl NodeState {
    /// Section and definition of the tables that were learned, in order.
    pub fn learned(&self) -> &[(usize, Bytes)] {
        &self.learned
    }
}

impl Node {
    /// True while another process may have everything.
    pub(in crate::coordinator) fn is_frozen(&self) -> bool {
        *self.frozen.borrow()
    }

    /// What the coordinator knows.
    pub(in crate::coordinator) fn export(&self) -> NodeState {
        let peer = |p: &Peer| PeerState {
            name: p.name.clone(),
            dynamic: p.dynamic,
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
        }
    }

    /// Takes the place of the process whose legacy this is: everything of it is ours.
    pub(in crate::coordinator) fn go_on(&mut self, legacy: Legacy, now: Millis) {
        let Legacy { pid, since, node, entries, sessions } = legacy;
        self.inherit(node, now);
        let duration_ms = now.since(since);
        self.handover.add(Kind::Instant, Outcome::Finished, entries, duration_ms);
        self.handover.sessions_kept = sessions as u64;
        // The sockets never stopped listening.
        self.handover.gap_ms = Some(0);
        self.log.notice(&format!("Hand-over from process {pid}: {}.", self.handover));
    }

    /// Goes on with what another process's coordinator knew. Sessions it had are on their shards
    /// already; connections it was still setting up are over.
    pub(in crate::coordinator) fn inherit(&mut self, state: NodeState, now: Millis) {
        self.next_session = state.next_session;
        for (at, (section, old)) in self.sections.iter_mut().zip(state.sections).enumerate() {
            section.brain = old.brain;
            section.changed_ms = old.changed_ms;
            section.sessions_max = old.sessions_max;
            self.up_to_date[at].store(section.brain.up_to_date(), Ordering::Relaxed);
            for old in old.peers {
                let known = section.peers.iter().position(|p| p.name == old.name);
                let peer = match known {
                    Some(peer) => &mut section.peers[peer],
                    None => {
                        let seed = Random::new(self.seed ^ at as u64).next_u64();
                        section.peers.push(Peer::dynamic(&old.name, seed));
                        let last = section.peers.len() - 1;
                        &mut section.peers[last]
                    }
                };
                peer.dynamic = old.dynamic;
                peer.link = old.link;
                peer.ledger = old.ledger;
                peer.session = old.session;
                peer.origin = old.origin;
                peer.past = old.past;
                if let (Some(ticket), None) = (peer.link.current(), peer.session) {
                    peer.link.down(ticket, Down::Lost, now);
                }
            }
        }
        let (sections, shards) = (&self.sections, self.shards.len());
        let fits = |s: &InfoState| {
            sections.get(s.section).is_some_and(|x| s.peer < x.peers.len()) && s.shard < shards
        };
        let sessions = state.sessions.into_iter().filter(fits);
        self.sessions = sessions
            .map(|s| {
                let InfoState { id, section, peer, ticket, shard, since } = s;
                (id, SessionInfo { section, peer, ticket, shard, since })
            })
            .collect();
    }
}
