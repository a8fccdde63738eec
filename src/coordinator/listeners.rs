//! Listening sockets that a process can pause and resume as a whole.
//!
//! The node has one flag; each accept loop holds a [`Door`] that follows it. SIGTTOU pauses (a
//! process that wants our addresses sends it), SIGTTIN resumes. A process that asks by `_getsocks`
//! gets them without a pause. Sessions and connections that are
//! there already go on. Rule: sockets at a path in the file system are not paused, since a
//! successor puts its own in their place.

use super::{Node, Shared};
use crate::engine::socket::{Fresh, Listener, Origin};
use crate::limits::{EXPOSE_MS, RELISTEN_MS};
use crate::observe::log::Level;
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;

/// Sockets for one who has asked.
pub type Basket = Rc<RefCell<Vec<OwnedFd>>>;

/// A listening socket that can be paused.
pub struct Door {
    node: Shared,
    listener: Listener,
    paused: watch::Receiver<bool>,
    exposing: watch::Receiver<Basket>,
    listening: bool,
}

impl Door {
    /// Open from the start.
    pub fn new(listener: Listener, node: &Shared) -> Door {
        let (paused, exposing) = {
            let node = node.borrow();
            (node.paused.subscribe(), node.exposing.subscribe())
        };
        Door { node: node.clone(), listener, paused, exposing, listening: true }
    }

    /// The socket.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Waits for a connection. May be cancelled.
    pub async fn accept(&mut self) -> io::Result<(Fresh, Origin)> {
        if self.listener.is_path() {
            return self.listener.accept().await;
        }
        loop {
            let paused = *self.paused.borrow_and_update();
            if paused && self.listening {
                self.pause();
            } else if !paused && !self.listening {
                self.resume();
            }
            let waits = !paused && !self.listening;
            tokio::select! {
                changed = self.paused.changed() => if changed.is_err() {
                    // The node is gone with its flag.
                    std::future::pending::<()>().await;
                },
                asked = self.exposing.changed(), if self.listening => {
                    if asked.is_ok() {
                        self.expose();
                    }
                }
                accepted = self.listener.accept(), if self.listening => return accepted,
                // Somebody else has the address, perhaps for a moment.
                () = tokio::time::sleep(Duration::from_millis(RELISTEN_MS)), if waits => {}
            }
        }
    }

    fn expose(&mut self) {
        let basket = self.exposing.borrow_and_update().clone();
        // Without a descriptor to spare it is bound anew by whoever asked.
        if let Ok(socket) = self.listener.duplicate() {
            basket.borrow_mut().push(socket);
        }
    }

    fn pause(&mut self) {
        self.listening = false;
        if let Err(error) = self.listener.pause() {
            let text = format!("cannot stop listening on {}: {error}.", self.listener.address());
            self.node.borrow().log.warning(&text);
        }
    }

    fn resume(&mut self) {
        match self.listener.resume() {
            Ok(()) => self.listening = true,
            Err(error) => {
                let at = self.listener.address();
                let text = format!("cannot listen on {at} again: {error}.");
                self.node.borrow_mut().log_limited(Level::Warning, &text);
            }
        }
    }
}

impl Node {
    /// SIGTTOU: another process wants our addresses.
    pub(super) fn pause(&self) {
        if !self.stopping && !self.paused.send_replace(true) {
            self.log.warning("SIGTTOU received, listening sockets paused; sessions go on.");
        }
    }

    /// SIGTTIN: it does not want them any more.
    pub(super) fn resume(&self) {
        if self.paused.send_replace(false) {
            self.log.notice("SIGTTIN received, listening sockets resumed.");
        }
    }
}

/// Descriptors of all sockets that listen, but for those at a path: whoever asks puts its own in
/// their place.
pub(super) async fn expose(node: &Shared) -> Vec<OwnedFd> {
    let basket = Basket::default();
    node.borrow().exposing.send_replace(basket.clone());
    tokio::time::sleep(Duration::from_millis(EXPOSE_MS)).await;
    basket.take()
}
