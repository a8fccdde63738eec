//! Who is admitted: a peer of the configuration, or one that `accept-peers` lets in.

use super::Node;
use super::peers::Peer;
use crate::Millis;
use crate::engine::socket::Origin;
use crate::limits::DYNAMIC_PEERS_MAX;
use crate::observe::log::Level;
use crate::session::link::{Admission, Ticket};
use crate::wire::hello::{Printable, Status};

/// What a valid hello is answered with.
pub enum Admitted {
    /// 200, and the session goes on under this peer and ticket.
    Yes {
        /// Peer in the section.
        peer: usize,
        /// Names the connection.
        ticket: Ticket,
    },
    /// This status, then the end.
    No(Status),
}

impl Node {
    /// Decides on a valid hello from `origin`.
    pub(super) fn admit(
        &mut self,
        section: usize,
        name: &[u8],
        minor: u8,
        origin: &Origin,
        now: Millis,
    ) -> Admitted {
        let Some(peer) = self.find_or_add_peer(section, name, origin) else {
            let (name, index) = (Printable::new(name), section);
            let section = &self.sections[section].name;
            self.log_section(
                index,
                Level::Warning,
                &format!(
                    "Peer '{name}' from {origin} refused: not in peers section '{section}' (504)."
                ),
            );
            return Admitted::No(Status::UnknownPeer);
        };
        let entry = &mut self.sections[section].peers[peer];
        match entry.link.accept(minor, now) {
            Admission::TryAgain => Admitted::No(Status::TryAgain),
            Admission::Admit { ticket, .. } => {
                entry.origin = Some(origin.clone());
                if let Some(id) = entry.session {
                    self.end_session(id);
                }
                Admitted::Yes { peer, ticket }
            }
        }
    }

    fn find_or_add_peer(&mut self, section: usize, name: &[u8], origin: &Origin) -> Option<usize> {
        let max = (self.config.stickring.accept_peers_max as usize).min(DYNAMIC_PEERS_MAX);
        let peers = &self.sections[section].peers;
        if let Some(at) = peers.iter().position(|p| !p.dynamic && p.name.as_bytes() == name) {
            return Some(at);
        }
        let name = std::str::from_utf8(name).ok().filter(|n| !n.is_empty() && n.len() <= 255)?;
        if name.chars().any(char::is_control) || !self.admits_stranger(section, name, origin) {
            return None;
        }
        let entry = &mut self.sections[section];
        if let Some(at) = entry.peers.iter().position(|p| p.name == name) {
            return Some(at);
        }
        let mut peer = Peer::dynamic(name, self.seed ^ self.next_session);
        if entry.peers.iter().filter(|p| p.dynamic).count() < max {
            entry.peers.push(peer);
            return Some(entry.peers.len() - 1);
        }
        // Full: one that is gone makes room. Its number stays, since sessions and tickets carry it.
        let gone = entry.peers.iter_mut().enumerate().find(|(_, p)| {
            p.dynamic && p.session.is_none() && p.waiting.is_none() && p.link.current().is_none()
        });
        let (at, slot) = gone?;
        std::mem::swap(&mut slot.link, &mut peer.link);
        *slot = peer;
        Some(at)
    }

    /// Whether `accept-peers` admits a peer of this name, which is not declared, from `origin`.
    pub(super) fn admits_stranger(&self, section: usize, name: &str, origin: &Origin) -> bool {
        let mut declared = self.config.peers[section].remotes.iter();
        // The only declared ones that are not known are disabled.
        !declared.any(|p| p.name == name)
            && self.config.stickring.accept_peers.iter().any(|from| match origin.ip() {
                Some(ip) => from.contains(ip),
                None => matches!(from, crate::config::AcceptFrom::Unix),
            })
    }
}
