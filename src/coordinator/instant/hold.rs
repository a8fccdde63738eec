//! See [`super`]: accept loops that stand still while another process may have their sockets. What
//! connects meanwhile waits in the kernel's queue, for whoever accepts next.

use super::ListenerState;
use crate::coordinator::Shared;
use crate::engine::socket::Listener;
use tokio::sync::watch;

/// Whether the node is frozen, by the number of its turns: it was not at first. (A second freeze
/// may follow so soon that nobody has seen the thaw between them.)
pub fn frozen(turns: u64) -> bool {
    turns % 2 == 1
}

/// One accept loop's part in a hand-over.
pub struct Hold {
    node: Shared,
    peers: bool,
    turns: watch::Receiver<u64>,
}

impl Hold {
    /// For an accept loop that begins now; `peers`: of a peers section.
    pub fn new(node: &Shared, peers: bool) -> Hold {
        let mut inner = node.borrow_mut();
        inner.doors += 1;
        Hold { node: node.clone(), peers, turns: inner.frozen.subscribe() }
    }

    /// Waits until the node is frozen. May be cancelled.
    pub async fn begins(&mut self) {
        if self.turns.wait_for(|turns| frozen(*turns)).await.is_err() {
            // The node is gone with its number.
            std::future::pending::<()>().await;
        }
    }

    /// Offers the socket, and waits until the node goes on; not at all if it has by now.
    pub async fn wait(&mut self, listener: &Listener) {
        let turn = *self.turns.borrow_and_update();
        if frozen(turn) {
            let state = ListenerState { peers: self.peers, address: listener.configured() };
            self.node.borrow_mut().held.push((state, listener.duplicate()));
            let _ = self.turns.wait_for(|now| *now != turn).await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Ok(mut node) = self.node.try_borrow_mut() {
            node.doors -= 1;
        }
    }
}
