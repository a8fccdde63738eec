//! See [`crate::coordinator`]: what signals do, and how the node ends.

use super::{Node, Shared};
use crate::Millis;
use crate::engine::{Engine, thread};
use crate::shard::Control;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The signals that have a meaning, in all starts of a process: one that comes to nothing may be
/// followed by another. The number counts them.
#[derive(Clone, Default)]
pub struct Signals(watch::Sender<u32>);

/// Signals caught by one start.
pub(super) struct Caught {
    streams: Vec<Signal>,
    starts: watch::Receiver<u32>,
}

impl Signals {
    /// Catches them until the first start does, on a thread of its own: a process that wants to
    /// succeed us may ask for our addresses before we have any, which must not stop us. Without
    /// that thread they do what they do to any process.
    pub fn begin(&self) {
        let (signals, (tell, caught)) = (self.clone(), std::sync::mpsc::channel());
        let watch = move || async move {
            let caught = signals.catch();
            // Nobody is there to be told of an error; the start tries again and says so.
            drop(tell);
            if let Ok(caught) = caught {
                caught.leave_to_next_start().await;
            }
        };
        let spawned = thread::spawn("signals".to_string(), Engine::Epoll, None, drop, watch);
        if spawned.is_ok() {
            // It ends when the other side is dropped.
            let _: Result<(), _> = caught.recv();
        }
    }

    /// Catches them. Before anybody can know our pid, and before anything is ours: one that comes
    /// earlier ends the process.
    pub(super) fn catch(&self) -> io::Result<Caught> {
        let streams = catch()?;
        self.0.send_modify(|starts| *starts += 1);
        Ok(Caught { streams, starts: self.0.subscribe() })
    }
}

impl Caught {
    /// There is no start yet, or it has come to nothing: until another one catches them, those that
    /// end a process do so at once, since there is nothing to tidy up and nobody was told of us.
    pub(super) async fn leave_to_next_start(mut self) {
        let [term, int, usr1, ..] = &mut self.streams[..] else { return };
        let code = tokio::select! {
            // What comes behind the next start's beginning is that one's, whatever it has by now.
            biased;
            _ = self.starts.changed() => return,
            _ = term.recv() => 143,
            _ = int.recv() => 130,
            _ = usr1.recv() => 0,
        };
        std::process::exit(code);
    }
}

fn catch() -> io::Result<Vec<Signal>> {
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::user_defined1(),
        SignalKind::hangup(),
        SignalKind::user_defined2(),
        SignalKind::quit(),
        SignalKind::from_raw(rustix::process::Signal::TTOU.as_raw()),
        SignalKind::from_raw(rustix::process::Signal::TTIN.as_raw()),
    ];
    kinds.into_iter().map(signal).collect()
}

/// Ends the node on SIGTERM (143), SIGINT (130), or when the soft stop that SIGUSR1 begins is over
/// (0); SIGHUP logs the peers' states, SIGTTOU and SIGTTIN pause and resume listening.
pub(super) async fn wait_for_signals(
    node: Shared,
    Caught { mut streams, .. }: Caught,
    exit: std::sync::mpsc::Sender<i32>,
) {
    let [term, int, usr1, hup, usr2, quit, ttou, ttin] = &mut streams[..] else { return };
    let over = node.borrow().over.clone();
    let (code, name) = loop {
        tokio::select! {
            _ = term.recv() => break (143, Some("SIGTERM")),
            _ = int.recv() => break (130, Some("SIGINT")),
            _ = usr1.recv() => Node::soft_stop(&node),
            () = over.notified() => break (0, None),
            _ = hup.recv() => node.borrow().log_states(),
            // To a HAProxy a reload, and giving memory back; here nothing, and never the end of us.
            _ = usr2.recv() => {}
            _ = quit.recv() => {}
            _ = ttou.recv() => node.borrow().pause(),
            _ = ttin.recv() => node.borrow().resume(),
        }
    };
    let shards = {
        let mut node = node.borrow_mut();
        node.stopping = true;
        if let Some(name) = name {
            node.log.notice(&format!("{name} received, closing all sessions and leaving."));
        }
        node.shards.clone()
    };
    // The exit code first: a shard that does not end in time must not keep the process.
    let _ = exit.send(code);
    for shard in (0..shards.len()).rev() {
        let shards = shards.clone();
        tokio::task::spawn_local(async move {
            // A shard with a thousand commands waiting is told behind them; one that is gone has
            // nothing to stop.
            let _ = shards.control[shard].send(Control::Stop).await;
            shards.bells[shard].ring();
        });
    }
}

impl Node {
    /// One line a peer, as SIGHUP asks for.
    fn log_states(&self) {
        let now: Millis = self.clock.now();
        for section in &self.sections {
            for peer in section.peers.iter().filter(|p| !p.local) {
                let state = match peer.session.and_then(|id| self.sessions.get(&id)) {
                    Some(info) => format!("up for {} s", now.since(info.since) / 1000),
                    None => "down".to_string(),
                };
                let (section, name) = (&section.name, &peer.name);
                self.log.notice(&format!("SIGHUP received, peer {section}/{name} is {state}."));
            }
        }
    }
}
