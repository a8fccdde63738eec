//! A worker's side of its master: stats connections that the master passes on, and its death.
//!
//! Rule: a worker does not outlive its master, as HAProxy's does not; else nobody could reload or
//! stop it.

use super::{Shared, cli};
use crate::config::{CliLevel, SeverityOutput};
use crate::engine::control::Channel;
use crate::engine::socket::Fresh;
use crate::runtime_api::Facts;
use rustix::process::{Signal, getpid, kill_process};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Listens to the master to its end, which is ours.
pub async fn serve(node: Shared, end: OwnedFd, facts: Arc<Facts>) {
    match Channel::new(end) {
        Ok(channel) => {
            while let Ok(Some(received)) = channel.receive().await {
                let level = match received.bytes.as_slice() {
                    b"user" => CliLevel::User,
                    b"operator" => CliLevel::Operator,
                    _ => CliLevel::Admin,
                };
                let Some(fresh) = received.fd.and_then(|fd| Fresh::from_unix(fd).ok()) else {
                    continue;
                };
                node.borrow_mut().totals.cli_open += 1;
                let severity = SeverityOutput::default();
                let access = cli::Access { level, severity, exposes: false };
                let client = cli::serve(node.clone(), fresh, access, facts.clone());
                tokio::task::spawn_local(client);
            }
        }
        Err(error) => node.borrow().log.warning(&format!("cannot listen to the master: {error}.")),
    }
    if !node.borrow().stopping {
        node.borrow().log.warning("The master process is gone, leaving.");
    }
    // A signal to ourselves cannot fail.
    let _ = kill_process(getpid(), Signal::TERM);
}
