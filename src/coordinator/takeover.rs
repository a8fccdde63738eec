//! Opening what the configuration listens on, where an old process may have it.
//!
//! HAProxy's choreography (design.md 7): bind; where an address is in use, ask the old processes to
//! stop listening (SIGTTOU) and try again for two seconds; when that fails, let them listen again
//! (SIGTTIN) and give up. A stickring is told who asks, and resumes by itself should that one die
//! ([`super::pausing`]). Called by `main`. Rule: without old processes an address in use is an
//! error at once, and a failed start leaves the old ones as they were.
#![forbid(unsafe_code)]

use super::pausing::Pauser;
use super::start::{Opened, open};
use crate::config::Config;
use crate::engine::Clock;
use crate::engine::old::OldProcesses;
use crate::engine::socket::{Others, SocketError};
use crate::limits::{BIND_PAUSE_MS, BIND_TRIES};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::Duration;
use thiserror::Error;

/// Why there are no listening sockets.
///
/// *Effect:* the process ends with exit code 1; old processes listen as before.
#[derive(Debug, Error)]
pub enum TakeoverError {
    /// Somebody else has an address, and nobody was named who would give it up.
    #[error(
        "{0}: another process listens there; to take over from it, name its pid behind -sf, \
         else stop it first"
    )]
    InUse(SocketError),
    /// The old processes did not give an address up.
    #[error("{0}: not given up within {1} ms by the old processes {2}, which go on")]
    NotGivenUp(SocketError, u64, String),
    /// Anything else.
    #[error(transparent)]
    Socket(SocketError),
}

#[expect(clippy::disallowed_methods, reason = "before any shard exists")]
fn wait() {
    std::thread::sleep(Duration::from_millis(BIND_PAUSE_MS));
}

/// Opens everything, beside or instead of the old processes if there are any; with their
/// `sockets`, as far as they were passed.
pub fn open_all(
    config: &Config,
    old: &OldProcesses,
    sockets: &[OwnedFd],
) -> Result<Opened, TakeoverError> {
    let beside = old.any();
    let others = Others { beside: beside || !sockets.is_empty(), sockets };
    let mut paused = false;
    let mut pauser = None;
    let began = Clock.now();
    let gap = |paused: bool| beside.then(|| if paused { Clock.now().since(began) } else { 0 });
    for _ in 0..BIND_TRIES {
        let error = match open(config, others) {
            Ok(opened) => return Ok(Opened { gap_ms: gap(paused), pauser, ..opened }),
            Err(error) => error,
        };
        if error.source.kind() != ErrorKind::AddrInUse {
            resume(old, paused);
            return Err(TakeoverError::Socket(error));
        }
        if !beside {
            return Err(TakeoverError::InUse(error));
        }
        paused = true;
        pauser.get_or_insert_with(|| Pauser::new(old.pids()));
        if old.pause() == 0 {
            // They are gone: whoever has it now is somebody else.
            break;
        }
        wait();
    }
    let opened =
        open(config, others).map(|opened| Opened { gap_ms: gap(paused), pauser, ..opened });
    opened.map_err(|error| {
        resume(old, paused);
        let pids: Vec<String> = old.pids().iter().map(|p| p.as_raw_nonzero().to_string()).collect();
        match error.source.kind() {
            ErrorKind::AddrInUse => {
                let ms = u64::from(BIND_TRIES) * BIND_PAUSE_MS;
                TakeoverError::NotGivenUp(error, ms, pids.join(" "))
            }
            _ => TakeoverError::Socket(error),
        }
    })
}

fn resume(old: &OldProcesses, paused: bool) {
    if paused {
        old.resume();
    }
}
