//! From a checked configuration to running shards, and back to an exit code.

use super::instant::{self, Legacy, NodeState, Takeover};
use super::pausing::Pauser;
use super::peers::Section;
pub use super::signals::Signals;
use super::signals::wait_for_signals;
use super::{Logger, Node, Shards, accept, cli, report, worker};
use crate::config::Config;
use crate::engine::mesh::mesh;
use crate::engine::rights::Asked;
use crate::engine::socket::{Bound, Others, SocketError, listen};
use crate::engine::{Clock, Doorbell, Engine, thread};
use crate::limits::{CONTROL_SLOTS, EVENT_SLOTS, SHARDS_MAX, STOP_MS};
use crate::observe::handover::HandoverNumbers;
use crate::shard::{Registry, ShardEvent, ShardParams, TableState};
use crate::table::KeyHasher;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;

/// Why the node does not start.
///
/// *Effect:* the process ends with exit code 1; nothing it opened stays.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listening socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// What an old process handed over does not fit, or it has taken it back: it goes on.
    #[error("cannot go on with what the old process has: {0}")]
    Takeover(String),
    /// A thread or its runtime.
    #[error("cannot start shard {shard}: {source}")]
    Shard {
        /// Its number.
        shard: usize,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Listening sockets, opened before any thread exists so that their errors are plain.
#[derive(Debug, Default)]
pub struct Opened {
    /// (section, socket).
    pub peers: Vec<(usize, Bound)>,
    /// (index of the `stats socket` line, socket).
    pub stats: Vec<(usize, Bound)>,
    /// Time in which nobody listened, neither the old process nor we, in ms; `None` when there is
    /// no old process.
    pub gap_ms: Option<u64>,
    /// Old processes that listen again should we die before they are told to leave.
    pub pauser: Option<Pauser>,
}

impl Opened {
    /// Puts sockets of the file system in their place, when nothing else can fail.
    pub fn place(&mut self) -> Result<(), SocketError> {
        self.peers.iter_mut().chain(&mut self.stats).try_for_each(|(_, bound)| bound.place())
    }

    /// Sockets of another process are ours from now on.
    fn claim(&mut self) {
        self.peers.iter_mut().chain(&mut self.stats).for_each(|(_, bound)| bound.claim());
    }
}

/// Opens everything the configuration listens on. `others`: see [`listen`].
pub fn open(config: &Config, others: Others<'_>) -> Result<Opened, SocketError> {
    let mut opened = Opened::default();
    for (section, spec) in config.peers.iter().enumerate() {
        if let Some(bind) = &spec.bind {
            opened.peers.extend(listen(bind, others)?.into_iter().map(|bound| (section, bound)));
        }
    }
    for (line, spec) in config.stats_sockets.iter().enumerate() {
        opened.stats.extend(listen(&spec.bind, others)?.into_iter().map(|bound| (line, bound)));
    }
    Ok(opened)
}

/// What the first process without a configuration prints: where it listens, and the line that lets
/// a HAProxy find it.
pub fn hint(config: &Config, opened: &Opened) -> String {
    let mut text = String::new();
    for (section, bound) in &opened.peers {
        let (name, address) = (&config.peers[*section].name, bound.local_addr());
        let local = &config.localpeer;
        text +=
            &format!("Listening for peers on {address} (section '{name}', as peer '{local}').\n");
        text += "Paste this line into the peers section of haproxy.cfg:\n\n";
        text += &format!("    peer {local} {address}\n\n");
    }
    for (_, bound) in &opened.stats {
        text += &format!("Stats socket: {}\n", bound.address);
    }
    text
}

/// What a start needs to know besides the configuration.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// I/O engine.
    pub engine: Engine,
    /// Sockets.
    pub opened: Opened,
    /// Nothing on stderr.
    pub quiet: bool,
    /// `-n`: connections at once, handshakes and the stats sockets among them.
    pub maxconn: Option<u32>,
    /// What was said so far, for `show startup-logs`.
    pub startup_logs: String,
    /// Random bytes for the key hash and for timers.
    pub seeds: [u64; 4],
    /// Our end of the channel to the master that started us.
    pub master: Option<OwnedFd>,
    /// There is an old process that is told to hand its tables over, once we are up.
    pub has_old_process: bool,
    /// Where a successor asks; `None`: it cannot.
    pub asked: Option<Arc<Asked>>,
    /// Signals, the same in every start of this process.
    pub signals: Signals,
    /// Everything of an old process, to go on with.
    pub takeover: Option<Takeover>,
}

/// What shards are and why, for the log.
struct Placement {
    shards: usize,
    cpus: Vec<Option<core_affinity::CoreId>>,
    note: Option<String>,
}

/// How many shards a process with this configuration has.
pub fn shards(config: &Config) -> usize {
    place(config).shards
}

/// How many shards, and whether each has a CPU of its own.
fn place(config: &Config) -> Placement {
    let cpus = thread::cpus();
    let parallelism = thread::parallelism();
    let wanted = config.nbthread.map_or(parallelism, |n| n as usize);
    let shards = wanted.clamp(1, SHARDS_MAX);
    let note = if !config.stickring.pin {
        Some("not pinning shards to CPUs: 'pin off'".to_string())
    } else if shards > cpus.len() {
        let (n, m) = (shards, cpus.len());
        Some(format!("not pinning shards to CPUs: {n} shards, {m} CPUs allowed"))
    } else if shards > parallelism {
        Some(format!("not pinning shards to CPUs: {shards} shards, quota of {parallelism} CPUs"))
    } else {
        None
    };
    let pinned = |shard: usize| note.is_none().then(|| cpus[shard]);
    Placement { shards, cpus: (0..shards).map(pinned).collect(), note }
}

/// All tables of the configuration; `old`: those of a process whose rows become ours.
fn registry(config: &Config, shards: usize, seeds: [u64; 4], old: &[TableState]) -> Arc<Registry> {
    let names = config.peers.iter().map(|p| p.name.clone()).collect();
    let auto = config.stickring.auto_tables;
    let registry = Registry::new(KeyHasher::new(seeds), shards as u32, names, auto);
    for table in &config.tables {
        let section = table.section.map(|s| (s, (table.local_id as usize).saturating_sub(1)));
        let (spec, place) = (&table.spec, table.section);
        let name = if place.is_some() { &spec.wire_name } else { &spec.name };
        registry.declare_as(TableState::number(old, place, name), section, spec.clone());
    }
    Arc::new(registry)
}

/// Starts the node and waits for its end. Returns the process's exit code. `ready` is called when
/// every shard runs and connections are taken.
pub fn start(mut setup: Setup, ready: impl FnOnce()) -> Result<i32, StartError> {
    let placement = place(&setup.config);
    let shards = placement.shards;
    let takeover = setup.takeover.take();
    setup.seeds = takeover.as_ref().map_or(setup.seeds, |t| t.seeds);
    let old = takeover.as_ref().map_or(&[][..], Takeover::tables);
    let registry = registry(&setup.config, shards, setup.seeds, old);
    let divided = takeover.map(|t| t.divide(&registry)).transpose();
    let (inherited, heirs, legacy) = match divided.map_err(StartError::Takeover)? {
        Some((inherited, heirs, legacy)) => (inherited, Some(heirs), Some(legacy)),
        None => (Vec::new(), None, None),
    };
    let mut inherited = inherited.into_iter();
    let sections = setup.config.peers.len();
    // Shards with sessions go to work before the coordinator does: they must not take a section for
    // one that waits for nobody, or is not up to date.
    let flags = |inherited: fn(&NodeState, usize) -> bool| {
        let flag = |section| legacy.as_ref().is_some_and(|l| inherited(&l.node, section));
        Arc::new((0..sections).map(|section| AtomicBool::new(flag(section))).collect::<Vec<_>>())
    };
    let (up_to_date, waits) = (flags(NodeState::up_to_date), flags(NodeState::holds_remotes));
    let bells: Arc<Vec<Doorbell>> = Arc::new((0..shards).map(|_| Doorbell::default()).collect());
    let (events_tx, events_rx) = mpsc::channel(EVENT_SLOTS);
    let (mut control, mut params) = (Vec::new(), Vec::new());
    for (id, mesh) in mesh(shards, &bells).into_iter().enumerate() {
        let (tx, rx) = mpsc::channel(CONTROL_SLOTS);
        control.push(tx);
        params.push(ShardParams {
            id,
            engine: setup.engine,
            registry: registry.clone(),
            mesh,
            bells: bells.clone(),
            control: rx,
            events: events_tx.clone(),
            updates_at_once: setup.config.max_updates_at_once,
            up_to_date: up_to_date.clone(),
            waits: waits.clone(),
            inherited: inherited.next().flatten(),
        });
    }
    let handle = Shards { control, bells };
    let stop_ms = setup.config.hard_stop_after_ms.map_or(STOP_MS, |ms| ms.min(STOP_MS));
    let (report_tx, report_rx) = std::sync::mpsc::channel();
    let (exit_tx, exit_rx) = std::sync::mpsc::channel();
    let (listening_tx, listening_rx) = std::sync::mpsc::channel();
    let engine = setup.engine;
    let mut threads = Vec::new();
    let parts = (registry, up_to_date, waits, handle, legacy);
    let mut first = Some((setup, parts, events_rx, exit_tx, listening_tx));
    for (id, params) in params.into_iter().enumerate() {
        let report = report_tx.clone();
        let report = move |result| drop(report.send((id, result)));
        let cpu = placement.cpus[id];
        let name = format!("shard-{id}");
        let spawned = match first.take() {
            Some((setup, parts, events, exit, listens)) => {
                let note = placement.note.clone();
                thread::spawn(name, engine, cpu, report, move || async move {
                    shard_zero(params, setup, parts, events, note, listens, exit).await;
                })
            }
            None => thread::spawn(name, engine, cpu, report, move || async move {
                if let Some(shard) = crate::shard::prepare(params, Clock).await {
                    crate::shard::run(shard, Clock).await;
                }
            }),
        };
        threads.push(spawned.map_err(|source| StartError::Shard { shard: id, source })?);
    }
    drop((report_tx, events_tx));
    for (shard, result) in report_rx {
        result.map_err(|source| StartError::Shard { shard, source })?;
    }
    if let Some(heirs) = heirs {
        heirs.claim().map_err(StartError::Takeover)?;
    }
    if listening_rx.recv() == Ok(true) {
        ready();
    }
    // Shard 0 says when and how it ends; then the others have a moment to end, too.
    let code = exit_rx.recv().unwrap_or(1);
    let deadline = Duration::from_millis(stop_ms);
    let (done_tx, done_rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        threads.into_iter().for_each(|t| drop(t.join()));
        let _ = done_tx.send(());
    });
    let _ = done_rx.recv_timeout(deadline);
    Ok(code)
}

type Flags = Arc<Vec<AtomicBool>>;
type NodeParts = (Arc<Registry>, Flags, Flags, Shards, Option<Legacy>);

/// Shard 0's thread: a shard like the others, and the coordinator beside it.
async fn shard_zero(
    params: ShardParams,
    mut setup: Setup,
    (registry, up_to_date, waits, shards, legacy): NodeParts,
    events: mpsc::Receiver<ShardEvent>,
    note: Option<String>,
    listens: std::sync::mpsc::Sender<bool>,
    exit: std::sync::mpsc::Sender<i32>,
) {
    let clock = Clock;
    // As the owner of anything, we are not ended by a signal that means nothing.
    let caught = setup.signals.catch();
    let Some(shard) = crate::shard::prepare(params, clock).await else {
        if let Ok(caught) = caught {
            caught.leave_to_next_start().await;
        }
        return;
    };
    let now = clock.now();
    let log = Logger::new(&setup.config, setup.quiet);
    let config = Arc::new(setup.config);
    let seed = setup.seeds[0];
    let sections = config.peers.iter().enumerate();
    let mut node = Node {
        sections: sections
            .map(|(i, p)| {
                let strangers = !config.stickring.accept_peers.is_empty();
                let seed = seed.rotate_left(i as u32);
                let old = setup.has_old_process;
                Section::new(i, p, old, strangers, (now, clock.wall_ms()), seed)
            })
            .collect(),
        clock,
        engine: setup.engine,
        started: now,
        registry,
        shards: shards.clone(),
        up_to_date,
        sessions: HashMap::new(),
        next_session: 1,
        seed,
        seeds: setup.seeds,
        doors: 0,
        held: Vec::new(),
        frozen: tokio::sync::watch::Sender::new(0),
        events_heard: 0,
        listeners: setup.opened.peers.len() + setup.opened.stats.len(),
        maxconn: setup.maxconn.map_or(usize::MAX, |n| n as usize),
        handshakes: 0,
        hellos: VecDeque::new(),
        totals: report::Totals::default(),
        log: log.clone(),
        poke: Rc::new(Notify::new()),
        stopping: false,
        soft_stop: None,
        over: Rc::new(Notify::new()),
        waits,
        handover: HandoverNumbers { gap_ms: setup.opened.gap_ms, ..HandoverNumbers::default() },
        closing: tokio::sync::watch::Sender::new(false),
        paused: tokio::sync::watch::Sender::new(false),
        exposing: tokio::sync::watch::Sender::default(),
        peer_listeners: 0,
        commands: Rc::default(),
        writes: Rc::default(),
        config: config.clone(),
    };
    if let Some(legacy) = legacy {
        setup.opened.claim();
        if let Err(error) = setup.opened.place() {
            log.warning(&format!("{error}."));
        }
        node.go_on(legacy, now);
    }
    for (section, bound) in &setup.opened.peers {
        let local = &mut node.sections[*section].peers[0];
        if local.address.as_ref() == Some(&bound.address) {
            // Nobody can dial an `fd@`.
            local.address = Some(bound.reached_at());
        }
    }
    for (section, waits) in node.sections.iter().zip(node.waits.iter()) {
        waits.store(section.brain.holds_remotes(), Ordering::Relaxed);
    }
    let node = Rc::new(RefCell::new(node));
    if let Some(note) = note {
        log.notice(&format!("{note}."));
    }
    let facts = report::facts(&node.borrow(), &setup.startup_logs);
    let listening = listen_all(&node, setup.opened, facts.clone(), &log);
    if let Some(master) = setup.master {
        spawn_local(worker::serve(node.clone(), master, facts));
    }
    spawn_local(super::run(node.clone(), events));
    match caught {
        Ok(caught) => drop(spawn_local(wait_for_signals(node.clone(), caught, exit))),
        Err(error) => log.warning(&format!("cannot catch signals: {error}.")),
    }
    if let Some(asked) = setup.asked {
        instant::offer(&node, asked);
    }
    // The main thread waits for it.
    let _ = listens.send(listening);
    crate::shard::run(shard, clock).await;
    // The stats sockets' replies under way get a last turn.
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Starts to accept everywhere; false when a socket was not taken by the runtime.
fn listen_all(
    node: &super::Shared,
    opened: Opened,
    facts: Arc<crate::runtime_api::Facts>,
    log: &Logger,
) -> bool {
    let mut all = true;
    for (section, bound) in opened.peers {
        let address = bound.local_addr();
        let name = node.borrow().sections[section].name.clone();
        match bound.into_listener() {
            Ok(listener) => {
                log.notice(&format!("Peers section {name} listens on {address}."));
                node.borrow_mut().peer_listeners += 1;
                spawn_local(accept::accept_loop(node.clone(), section, listener));
            }
            Err(error) => {
                all = false;
                log.warning(&format!("Peers section {name}: {address}: {error}."));
            }
        }
    }
    for (line, bound) in opened.stats {
        let address = bound.address.to_string();
        match bound.into_listener() {
            Ok(listener) => {
                log.notice(&format!("Stats socket listens on {address}."));
                spawn_local(cli::accept_loop(node.clone(), line, listener, facts.clone()));
            }
            Err(error) => {
                all = false;
                log.warning(&format!("Stats socket {address}: {error}."));
            }
        }
    }
    all
}
