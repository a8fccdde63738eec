//! Connections in: bounded in number and time until their hello is valid.

use super::admit::Admitted;
use super::instant::Hold;
use super::listeners::Door;
use super::peers::Established;
use super::{Node, Shared};
use crate::engine::socket::{Fresh, Listener, Origin};
use crate::limits::{ACCEPT_PAUSE_MS, HANDSHAKES_MAX};
use crate::observe::log::Level;
use crate::session::handshake::{Accepted, Accepting};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// Accepts for `section` until the soft stop.
pub async fn accept_loop(node: Shared, section: usize, listener: Listener) {
    let mut closing = node.borrow().closing.subscribe();
    let mut hold = Hold::new(&node, true);
    let mut door = Door::new(listener, &node);
    loop {
        let accepted = tokio::select! {
            () = hold.begins() => {
                hold.wait(door.listener()).await;
                continue;
            }
            accepted = door.accept() => accepted,
            _ = closing.changed() => break,
        };
        match accepted {
            Ok((fresh, origin)) => {
                if node.borrow().stopping {
                    break;
                }
                let refused = node.borrow().too_many(section);
                if let Some(why) = refused {
                    let text = format!("Connection from {origin} closed: {why}.");
                    let mut node = node.borrow_mut();
                    node.totals.handshakes_refused += 1;
                    node.log_limited(Level::Warning, &text);
                    continue;
                }
                let cut = node.borrow_mut().begin_hello();
                tokio::task::spawn_local(serve(node.clone(), section, fresh, origin, cut));
            }
            Err(error) => {
                // Out of descriptors, most likely: those there are go on, and this may pass.
                node.borrow_mut().log_limited(Level::Alert, &format!("accept: {error}."));
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
    // Nobody reaches us from here on: what is still in the queue comes again to our successor.
    drop(door);
    let mut node = node.borrow_mut();
    node.peer_listeners -= 1;
    node.poke.notify_one();
}

async fn serve(node: Shared, section: usize, fresh: Fresh, origin: Origin, cut: Rc<Notify>) {
    let result = hello(&node, section, fresh, &origin, &cut).await;
    let mut node = node.borrow_mut();
    node.end_hello(&cut);
    node.handshakes -= 1;
    if let Err(text) = result {
        node.totals.handshakes_failed += 1;
        node.log_limited(Level::Warning, &format!("Connection from {origin} refused: {text}."));
    }
}

/// The server's half of a handshake. The error says why there is no session.
async fn hello(
    node: &Shared,
    section: usize,
    mut fresh: Fresh,
    origin: &Origin,
    cut: &Rc<Notify>,
) -> Result<(), String> {
    let (clock, local, bufsize) = {
        let node = node.borrow();
        (node.clock, node.config.localpeer.clone(), node.config.bufsize)
    };
    let mut machine = Accepting::new(local.as_bytes(), bufsize, clock.now());
    let mut bytes = Vec::new();
    let (hello, used) = loop {
        let left = machine.deadline().since(clock.now());
        let read = fresh.read(&mut bytes, bufsize);
        let read = tokio::time::timeout(Duration::from_millis(left), read);
        let result = tokio::select! {
            result = read => result,
            () = cut.notified() => return Err("no hello yet, and others wait".to_string()),
        };
        match result {
            Err(_) => return Err("no complete hello in time".to_string()),
            Ok(Err(error)) => return Err(format!("read: {error}")),
            Ok(Ok(0)) => return Err("closed before its hello was complete".to_string()),
            Ok(Ok(_)) => {}
        }
        match machine.handle_bytes(&bytes) {
            Accepted::NeedMore => {}
            Accepted::Refuse { status, error } => {
                let Some(status) = status else { return Err(error.to_string()) };
                say(&mut fresh, status.line().as_bytes()).await;
                return Err(format!("{error} ({})", status as u16));
            }
            Accepted::Hello { hello, used } => break (hello, used),
        }
    };
    node.borrow_mut().end_hello(cut);
    if node.borrow().stopping {
        return Err("stopping".to_string());
    }
    let now = clock.now();
    let admitted = node.borrow_mut().admit(section, &hello.from, hello.minor, origin, now);
    match admitted {
        Admitted::No(status) => {
            say(&mut fresh, status.line().as_bytes()).await;
            Ok(())
        }
        Admitted::Yes { peer, ticket } => {
            if !say(&mut fresh, b"200\n").await {
                let mut node = node.borrow_mut();
                let link = &mut node.sections[section].peers[peer].link;
                link.down(ticket, crate::session::link::Down::Lost, now);
                return Err("closed before the status".to_string());
            }
            let leftover = bytes.split_off(used);
            let minor = hello.minor;
            let new = Established { ticket, fresh, leftover, minor, accepted: true, teach: false };
            node.borrow_mut().established(section, peer, new, clock.now());
            node.borrow().poke.notify_one();
            Ok(())
        }
    }
}

/// Writes a status line, which always fits a fresh socket's buffer; false when the client is gone.
async fn say(fresh: &mut Fresh, line: &[u8]) -> bool {
    let write = fresh.write_all(line);
    matches!(tokio::time::timeout(Duration::from_millis(ACCEPT_PAUSE_MS), write).await, Ok(Ok(())))
}

impl Node {
    /// Connections of all kinds, open now.
    pub(super) fn connections(&self) -> usize {
        self.sessions.len() + self.handshakes + self.totals.cli_open
    }

    /// `-n` connections are open.
    pub(super) fn is_full(&self) -> bool {
        self.connections() >= self.maxconn
    }

    /// Room for one more hello: with too many under way, the one that has been silent for longest
    /// goes. (Refusing the newest would let silent connections keep the real peers out.)
    fn begin_hello(&mut self) -> Rc<Notify> {
        let cut = Rc::new(Notify::new());
        self.handshakes += 1;
        self.hellos.push_back(cut.clone());
        let crowded = self.hellos.len() > HANDSHAKES_MAX || self.connections() > self.maxconn;
        if crowded && let Some(oldest) = self.hellos.pop_front() {
            oldest.notify_one();
        }
        cut
    }

    /// The hello is complete, or the connection over.
    fn end_hello(&mut self, cut: &Rc<Notify>) {
        self.hellos.retain(|c| !Rc::ptr_eq(c, cut));
    }

    /// Why no more connections are taken, if none are.
    fn too_many(&self, section: usize) -> Option<String> {
        let accepted = self.sections[section].peers.iter().filter(|p| p.link.is_accepted()).count();
        let max = self.config.peers[section].bind.as_ref().map_or(0, |b| b.maxconn as usize);
        if max > 0 && accepted >= max {
            return Some(format!("{max} sessions are open (maxconn)"));
        }
        let max = self.maxconn;
        // Those that have not said hello yet make room.
        let full = self.is_full() && self.hellos.is_empty();
        full.then(|| format!("{max} connections are open (-n)"))
    }
}
