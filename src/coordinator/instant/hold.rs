//! See [`super`]: accept loops that stand still while another process may have their sockets. What
//! connects meanwhile waits in the kernel's queue, for whoever accepts next.

use super::ListenerState;
use crate::coordinator::Shared;
use crate::engine::socket::Listener;
use tokio::sync::watch;

/// One accept loop's part in a hand-over.
pub struct Hold {
    node: Shared,
    peers: bool,
    frozen: watch::Receiver<bool>,
}

impl Hold {
    /// For an accept loop that begins now; `peers`: of a peers section.
    pub fn new(node: &Shared, peers: bool) -> Hold {
        let mut inner = node.borrow_mut();
        inner.doors += 1;
        Hold { node: node.clone(), peers, frozen: inner.frozen.subscribe() }
    }

    /// Waits until the node is frozen. May be cancelled.
    pub async fn begins(&mut self) {
        if self.frozen.wait_for(|frozen| *frozen).await.is_err() {
            // The node is gone with its flag.
            std::future::pending::<()>().await;
        }
    }

    /// Offers the socket, and waits until the node goes on.
    pub async fn wait(&mut self, listener: &Listener) {
        let state = ListenerState { peers: self.peers, address: listener.configured() };
        self.node.borrow_mut().held.push((state, listener.duplicate()));
        let _ = self.frozen.wait_for(|frozen| !*frozen).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Ok(mut node) = self.node.try_borrow_mut() {
            node.doors -= 1;
        }
    }
}
