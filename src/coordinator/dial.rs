//! Connections out: one task a dial, bounded in time.

use super::peers::Established;
use super::{Node, Shared};
use crate::engine::socket::Fresh;
use crate::limits::CONNECT_MS;
use crate::session::handshake::{Dialled, Dialling};
use crate::session::link::{Dial, Down};
use crate::wire::hello::STATUS_LINE_MAX;
use std::time::Duration;

impl Node {
    /// Starts a task for every peer that is due.
    pub(super) fn start_dials(node: &Shared) {
        let due = {
            let mut node = node.borrow_mut();
            let now = node.clock.now();
            node.due_dials(now)
        };
        for (section, peer, dial) in due {
            tokio::task::spawn_local(dial_peer(node.clone(), section, peer, dial));
        }
    }
}

async fn dial_peer(node: Shared, section: usize, peer: usize, dial: Dial) {
    if handshake(&node, section, peer, dial).await.is_none() {
        let mut node = node.borrow_mut();
        let now = node.clock.now();
        let link = &mut node.sections[section].peers[peer].link;
        link.down(dial.ticket, Down::Lost, now);
        if node.sections[section].peers[peer].local {
            node.successor_down(section, now);
        }
        // The reconnect timer runs from the beginning of the attempt, whatever came of it.
        node.poke.notify_one();
    }
}

/// The client's half of a handshake; `None` when it came to nothing.
async fn handshake(node: &Shared, section: usize, peer: usize, dial: Dial) -> Option<()> {
    let (clock, address, source, interface, to, from, patience) = {
        let node = node.borrow();
        let entry = &node.sections[section].peers[peer];
        let address = entry.address.clone()?;
        let local = node.config.localpeer.clone();
        let interface = entry.interface.clone();
        let (source, name) = (entry.source.clone(), entry.name.clone());
        let patience = match entry.local {
            true => node.successor_patience(section, node.clock.now()),
            false => u64::MAX,
        };
        (node.clock, address, source, interface, name, local, patience)
    };
    let connect = Fresh::connect(&address, source.as_ref(), interface.as_deref());
    let until = clock.now().plus(patience);
    let limit = Duration::from_millis(CONNECT_MS.min(patience));
    let mut fresh = tokio::time::timeout(limit, connect).await.ok()?.ok()?;
    node.borrow_mut().sections[section].peers[peer].link.connected(dial.ticket);
    let mut machine = Dialling::new(dial.minor, &to, &from, std::process::id(), clock.now());
    let hello = machine.hello();
    let left = |machine: &Dialling| {
        Duration::from_millis(machine.deadline().min(until).since(clock.now()))
    };
    tokio::time::timeout(left(&machine), fresh.write_all(&hello)).await.ok()?.ok()?;
    let mut bytes = Vec::new();
    let (code, used) = loop {
        let read = fresh.read(&mut bytes, STATUS_LINE_MAX);
        if tokio::time::timeout(left(&machine), read).await.ok()?.ok()? == 0 {
            return None;
        }
        match machine.handle_bytes(&bytes) {
            Dialled::NeedMore => {}
            Dialled::Status { code, used } => break (code, used),
        }
    };
    let now = clock.now();
    let mut node = node.borrow_mut();
    let teach = node.sections[section].peers[peer].local;
    if teach {
        node.successor_answered(section, code, now);
    }
    if !node.sections[section].peers[peer].link.answered(dial.ticket, code, now) {
        node.refused(section, peer, code);
        return Some(());
    }
    let leftover = bytes.split_off(used);
    let minor = dial.minor;
    let new = Established { ticket: dial.ticket, fresh, leftover, minor, accepted: false, teach };
    node.established(section, peer, new, now);
    node.poke.notify_one();
    Some(())
}

impl Node {
    fn refused(&mut self, section: usize, peer: usize, code: u32) {
        if code == 200 {
            // Replaced meanwhile by a connection of the peer's.
            return;
        }
        let entry = &self.sections[section];
        if code == 300 && entry.peers[peer].local {
            // Our successor is being taught by another old process: our turn comes.
            return;
        }
        let text = format!(
            "Peer {}/{} refuses our hello with status {code} ({}).",
            entry.name,
            entry.peers[peer].name,
            crate::wire::hello::Status::name_of(code)
        );
        self.log_section(section, crate::observe::log::Level::Warning, &text);
        self.poke.notify_one();
    }
}
