//! A pause that ends with the process that asked for it.
//!
//! A new process whose bind failed asks the old ones to stop listening (SIGTTOU). Should it die
//! before it has told them to leave, nobody would ever resume them. So it tells a stickring
//! beforehand, where that also offers the instant hand-over, and keeps the connection: its end
//! without a word is the end of the process. Called by [`super::takeover`] on the new side and by
//! the instant hand-over's thread on the old one. Rules: a pause by hand is the operator's, and
//! stays; who does not listen there, a HAProxy for one, is paused as ever.
#![forbid(unsafe_code)]

use super::Shared;
use crate::engine::rights::Wire;
use crate::engine::socket::Fresh;
use crate::limits::{CLI_READ, PAUSER_GONE_MS};
use rustix::process::Pid;
use std::time::Duration;

/// What the new process says first.
pub(super) const PAUSING: &[u8] = b"stickring-pausing";
/// And at last: the old one has been told to leave.
const UP: &[u8] = b"up";

/// The connections to old processes that are being paused.
#[derive(Debug)]
pub struct Pauser(Vec<Wire>);

impl Pauser {
    /// Tells those of them that can be told.
    pub(super) fn new(old: &[Pid]) -> Pauser {
        let tell = |pid: &Pid| {
            let mut wire = Wire::connect(pid.as_raw_nonzero().get()).ok()?;
            wire.send(PAUSING).ok().map(|()| wire)
        };
        Pauser(old.iter().filter_map(tell).collect())
    }

    /// They have been told to leave: nothing is to be resumed.
    pub fn up(mut self) {
        for wire in &mut self.0 {
            // It may have left already.
            let _ = wire.send(UP);
        }
    }
}

/// The old side: waits for the word or the end of the process `pid`.
pub(super) async fn watch(node: Shared, wire: Wire, pid: i32) {
    let Ok(mut fresh) = wire.into_fd().and_then(Fresh::from_unix) else { return };
    if matches!(fresh.read(&mut Vec::new(), CLI_READ).await, Ok(1..)) {
        return;
    }
    // Signals that it sent before come first.
    tokio::time::sleep(Duration::from_millis(PAUSER_GONE_MS)).await;
    let node = node.borrow();
    if !node.stopping && node.paused.send_replace(false) {
        let text = format!(
            "Process {pid}, which wanted our addresses, is gone: listening sockets resumed."
        );
        node.log.warning(&text);
    }
}
