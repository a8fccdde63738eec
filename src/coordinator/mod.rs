//! What the node does as a whole, on shard 0's thread: connections and their handshakes, each
//! section's resync, the stats socket, signals.
//!
//! Owns the sections' brains and links; shards own rows and established sessions. Everything here
//! happens a few times a second at most, so it is plain async code around [`Node`], borrowed for
//! one step at a time and never across a wait. Rule: whatever the other side does costs at most its
//! own connection, and every wait has an end.
//!
//! | file | what |
//! |---|---|
//! | `peers.rs` | sections, peers, which session counts, logs about them |
//! | `admit.rs` | which peers may come |
//! | `accept.rs` | connections in, and their hello |
//! | `dial.rs` | connections out |
//! | `handover.rs` | the tables' way from an old process to a new one |
//! | `instant/` | everything's way, as it is, to another stickring process |
//! | `cli.rs` | the stats socket's connections |
//! | `commands.rs` | its commands, run across shards |
//! | `pausing.rs` | a pause that ends with the process that asked for it |
//! | `report.rs` | what `show peers` and `show info` say |
//! | `listeners.rs` | pausing and resuming all listening sockets |
//! | `logger.rs` | log lines out |
//! | `signals.rs` | signals, and how the node ends |
//! | `start.rs` | from a configuration to running shards |
//! | `takeover.rs` | opening sockets that an old process has |
//! | `worker.rs` | what a master asks of its worker |

mod accept;
mod admit;
mod cli;
mod commands;
mod dial;
mod handover;
pub mod instant;
mod listeners;
pub mod logger;
pub mod pausing;
mod peers;
mod report;
mod signals;
pub mod start;
pub mod takeover;
mod worker;

pub use logger::Logger;
pub use start::{StartError, start};

use crate::Millis;
use crate::config::Config;
use crate::engine::{Clock, Doorbell, Engine};
use crate::observe::handover::HandoverNumbers;
use crate::shard::{Control, Registry, SessionId, Shard, ShardEvent};
use peers::Section;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::{Notify, mpsc, oneshot};

/// Everything the node knows as a whole. Shared by the tasks of shard 0's thread.
pub struct Node {
    config: Arc<Config>,
    clock: Clock,
    engine: Engine,
    started: Millis,
    registry: Arc<Registry>,
    shards: Shards,
    sections: Vec<Section>,
    /// By section: up to date, read by shards at the end of a lesson.
    up_to_date: Arc<Vec<AtomicBool>>,
    /// Established sessions, and those handed to a shard.
    sessions: HashMap<SessionId, peers::SessionInfo>,
    next_session: SessionId,
    seed: u64,
    /// Of the key hash, for a successor.
    seeds: [u64; 4],
    /// `-n`: connections at once.
    maxconn: usize,
    /// Sockets that take connections.
    listeners: usize,
    /// Accept loops at work.
    doors: usize,
    /// Those of them that stand still: second descriptors of their sockets, for a successor.
    held: Vec<(instant::ListenerState, io::Result<OwnedFd>)>,
    /// Handshakes under way, of connections in.
    handshakes: usize,
    /// Those of them that wait for a hello, oldest first; ringing one ends it.
    hellos: VecDeque<Rc<Notify>>,
    totals: report::Totals,
    log: Logger,
    /// Wakes the main loop: a link or a section may have something due earlier.
    poke: Rc<Notify>,
    stopping: bool,
    /// Turns of another process that may have everything, while nothing is begun, and of us: see
    /// [`instant::frozen`].
    frozen: tokio::sync::watch::Sender<u64>,
    /// Events of shards since the start.
    events_heard: u64,
    /// SIGUSR1 came.
    soft_stop: Option<handover::SoftStop>,
    /// Rung when the soft stop is over.
    over: Rc<Notify>,
    /// By section: updates of remotes wait for the old process's lesson. Read by shards.
    waits: Arc<Vec<AtomicBool>>,
    /// The last hand-over, from or to another process.
    handover: HandoverNumbers,
    closing: tokio::sync::watch::Sender<bool>,
    /// SIGTTOU came: nothing listens.
    paused: tokio::sync::watch::Sender<bool>,
    /// Where listening sockets go that another process has asked for.
    exposing: tokio::sync::watch::Sender<listeners::Basket>,
    /// Listening sockets of peers sections that are open.
    peer_listeners: usize,
    /// Commands of the stats sockets under way, and those of them that change tables.
    commands: Rc<Cell<usize>>,
    writes: Rc<Cell<usize>>,
}

type Shared = Rc<RefCell<Node>>;

/// The way to every shard.
#[derive(Clone)]
pub struct Shards {
    control: Vec<mpsc::Sender<Control>>,
    bells: Arc<Vec<Doorbell>>,
}

impl Shards {
    /// Number of shards.
    pub fn len(&self) -> usize {
        self.control.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty()
    }

    /// Gives a shard a command. Fails when it has a thousand waiting, or is gone.
    fn tell(&self, shard: usize, control: Control) -> Result<(), Control> {
        let sent = self.control[shard].try_send(control);
        self.bells[shard].ring();
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(control) => control,
            mpsc::error::TrySendError::Closed(control) => control,
        })
    }

    /// Runs `job` on a shard, between two steps of its tick, and waits for its result. `None`: the
    /// shard is gone.
    async fn run<R: Send + 'static>(
        &self,
        shard: usize,
        job: impl FnOnce(&mut Shard, Millis) -> R + Send + 'static,
    ) -> Option<R> {
        let (reply, result) = oneshot::channel();
        let job = Box::new(move |shard: &mut Shard, now: Millis| {
            // The asker may have closed its connection meanwhile.
            let _ = reply.send(job(shard, now));
        });
        self.control[shard].send(Control::Run(job)).await.ok()?;
        self.bells[shard].ring();
        result.await.ok()
    }
}

/// Runs the node on shard 0's thread until it is told to stop.
pub async fn run(node: Shared, mut events: mpsc::Receiver<ShardEvent>) {
    let (poke, clock) = (node.borrow().poke.clone(), node.borrow().clock);
    loop {
        let wait = {
            let mut node = node.borrow_mut();
            let now = clock.now();
            if node.is_frozen() {
                // Nothing is begun; news of what was under way are still heard.
            } else if node.stopping {
                node.run_soft_stop(now);
            } else {
                node.run_sections(now);
            }
            let next = node.next_deadline().filter(|_| !node.is_frozen());
            next.map(|at| at.since(clock.now()))
        };
        if !node.borrow().is_frozen() {
            Node::start_dials(&node);
        }
        let sleep = tokio::time::sleep(std::time::Duration::from_millis(wait.unwrap_or(60_000)));
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => node.borrow_mut().handle_event(event, clock.now()),
                None => return,
            },
            () = poke.notified() => {}
            () = sleep => {}
        }
    }
}
