//! See [`super`]: the new process's side. Runs before there are shards, and blocks.

use super::{Answer, Bundle, ListenerState, MAGIC, NodeState, Shape, hash};
use crate::Millis;
use crate::config::{Address, BindSpec, Config};
use crate::coordinator::start::Opened;
use crate::engine::fault;
use crate::engine::rights::{Token, Wire, unsealed};
use crate::engine::socket::{Bound, Others, SocketError, listen};
use crate::limits::{HANDOVER_FDS_MAX, HANDOVER_STATE_MAX, INSTANT_MS};
use crate::shard::handover::Inherited;
use crate::shard::{Registry, TableState, Translation};
use crate::wire::frame::{Cut, cut};
use crate::wire::{Definition, Message};
use bytes::Bytes;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Everything of an old process, received and checked, but not ours before `Heirs::claim`.
pub struct Takeover {
    /// What becomes of it is decided here.
    claim: Claim,
    /// Of the key hash.
    pub seeds: [u64; 4],
    legacy: Legacy,
    listeners: Vec<(ListenerState, OwnedFd)>,
    shards: Vec<(Bytes, Vec<OwnedFd>)>,
}

struct Claim {
    wire: Wire,
    token: Token,
}

/// The coordinator's part.
pub struct Legacy {
    /// The old process.
    pub pid: i32,
    /// When it began to freeze.
    pub since: Millis,
    /// What the coordinator knows.
    pub node: NodeState,
    /// Its tables here.
    pub tables: Arc<Translation>,
    /// Sessions.
    pub sessions: usize,
}

/// The new process's shards, which build what they inherit.
pub struct Heirs {
    claim: Claim,
    built: std::sync::mpsc::Receiver<Result<(), String>>,
    go: Vec<oneshot::Sender<()>>,
}

/// Asks the old processes, one after the other. `None` with the reasons when none of them hands
/// over in this way.
pub fn take_over(pids: &[i32], config: &Config, shards: usize) -> Result<Takeover, String> {
    let mut reasons = Vec::new();
    for &pid in pids {
        match ask(pid, config, shards) {
            Ok(takeover) => return Ok(takeover),
            Err(why) => reasons.push(format!("process {pid}: {why}")),
        }
    }
    Err(reasons.join("; "))
}

fn ask(pid: i32, config: &Config, shards: usize) -> Result<Takeover, String> {
    let mut wire = Wire::connect(pid).map_err(|e| format!("does not offer it ({e})"))?;
    let shape = postcard::to_allocvec(&Shape::of(config, shards));
    let shape = shape.map_err(|e| format!("question: {e}"))?;
    wire.send(&[&MAGIC[..], &shape].concat()).map_err(|e| format!("question: {e}"))?;
    fault::point("new-asked");
    let answer = wire.receive().map_err(|e| format!("no answer: {e}"))?;
    let (state_len, state_hash, count) = match postcard::from_bytes(&answer) {
        Ok(Answer::Yes { state_len, state_hash, fds }) => (state_len, state_hash, fds),
        Ok(Answer::No(why)) => return Err(why),
        Err(_) => return Err("an answer that makes no sense".to_string()),
    };
    if state_len > HANDOVER_STATE_MAX || count > HANDOVER_FDS_MAX {
        return Err(format!("{state_len} bytes and {count} descriptors are too much"));
    }
    let fds = wire.receive_fds(count + 2).map_err(|e| e.to_string())?;
    fault::point("new-received");
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or("a descriptor is missing".to_string());
    let token = Token::from_fd(next()?);
    let state = unsealed(next()?).map_err(|e| format!("state: {e}"))?;
    if state.len() as u64 != state_len || hash(&state) != state_hash {
        return Err("the state is damaged".to_string());
    }
    let bundle: Bundle = postcard::from_bytes(&state).map_err(|e| format!("state: {e}"))?;
    bundle.node.fits(config)?;
    let listeners = bundle.listeners.into_iter().map(|l| Ok((l, next()?)));
    let listeners = listeners.collect::<Result<Vec<_>, String>>()?;
    let mut parts = Vec::new();
    for (state, count) in bundle.shards {
        let own = (0..count).map(|_| next()).collect::<Result<Vec<_>, String>>()?;
        parts.push((state, own));
    }
    if parts.len() != shards || fds.next().is_some() {
        return Err("parts and descriptors do not fit".to_string());
    }
    let legacy = Legacy {
        pid,
        since: bundle.since,
        node: bundle.node,
        tables: Arc::default(),
        sessions: bundle.sessions,
    };
    let claim = Claim { wire, token };
    Ok(Takeover { claim, seeds: bundle.seeds, legacy, listeners, shards: parts })
}

impl Heirs {
    /// Waits until every shard has built its part, then everything becomes ours, once and for all.
    ///
    /// # Errors
    /// Something does not fit, or the old process has taken it back: it goes on.
    pub fn claim(mut self) -> Result<(), String> {
        for _ in 0..self.go.len() {
            let limit = Duration::from_millis(INSTANT_MS);
            let built = self.built.recv_timeout(limit);
            built.map_err(|_| "a shard took too long".to_string())??;
        }
        fault::point("new-built");
        if !self.claim.token.take() {
            return Err("it has taken it back".to_string());
        }
        fault::point("new-taken");
        // The old process may be gone, and any shard: it is decided now.
        let _ = self.claim.wire.send(b"mine");
        fault::point("new-said");
        for go in self.go {
            let _ = go.send(());
        }
        Ok(())
    }
}

impl Takeover {
    /// The old process.
    pub fn pid(&self) -> i32 {
        self.legacy.pid
    }

    /// Its tables.
    pub fn tables(&self) -> &[TableState] {
        self.legacy.node.tables()
    }

    /// Divides it among the shards and the coordinator, with the learned tables in the registry.
    pub fn divide(
        mut self,
        registry: &Registry,
    ) -> Result<(Vec<Option<Inherited>>, Heirs, Legacy), String> {
        self.learn_tables(registry)?;
        let tables = Arc::new(Translation::new(self.tables(), registry)?);
        self.legacy.tables = tables.clone();
        let (report, built) = std::sync::mpsc::channel();
        let (mut all, mut ways) = (Vec::new(), Vec::new());
        for (state, fds) in self.shards {
            let (tell, go) = oneshot::channel();
            ways.push(tell);
            let (tables, built) = (tables.clone(), report.clone());
            all.push(Some(Inherited { state, fds, tables, built, go }));
        }
        Ok((all, Heirs { claim: self.claim, built, go: ways }, self.legacy))
    }

    /// Creates the tables that were learned from definitions, in the same order.
    fn learn_tables(&self, registry: &Registry) -> Result<(), String> {
        for (section, define) in self.legacy.node.learned() {
            let wrong = || "a learned table cannot be made again".to_string();
            let Ok(Cut::Frame(frame)) = cut(define, usize::MAX) else { return Err(wrong()) };
            let Ok(Message::Define(payload)) = Message::of(&frame) else { return Err(wrong()) };
            let definition = Definition::decode(payload).map_err(|_| wrong())?;
            let layout = registry.define(*section, &definition).map_err(|_| wrong())?;
            if layout.table.define != *define {
                return Err(wrong());
            }
        }
        Ok(())
    }

    /// Opens what the configuration listens on: the old process's sockets where it has them.
    /// Those that are not wanted any more are closed.
    pub fn open(&mut self, config: &Config) -> Result<Opened, SocketError> {
        let mut opened = Opened { gap_ms: Some(0), ..Opened::default() };
        for (section, spec) in config.peers.iter().enumerate() {
            if let Some(bind) = &spec.bind {
                let bound = self.open_one(true, bind)?;
                opened.peers.extend(bound.into_iter().map(|b| (section, b)));
            }
        }
        for (line, spec) in config.stats_sockets.iter().enumerate() {
            let bound = self.open_one(false, &spec.bind)?;
            opened.stats.extend(bound.into_iter().map(|b| (line, b)));
        }
        Ok(opened)
    }

    fn open_one(&mut self, peers: bool, spec: &BindSpec) -> Result<Vec<Bound>, SocketError> {
        let mut all = Vec::new();
        for address in &spec.addresses {
            match self.inherited(peers, address) {
                Some(fd) => all.push(Bound::inherit(spec, address, fd)),
                None => {
                    let one = BindSpec { addresses: vec![address.clone()], ..spec.clone() };
                    all.extend(listen(&one, Others { beside: true, sockets: &[] })?);
                }
            }
        }
        Ok(all)
    }

    fn inherited(&mut self, peers: bool, address: &Address) -> Option<OwnedFd> {
        let wanted = ListenerState { peers, address: address.to_string() };
        let at = self.listeners.iter().position(|(have, _)| *have == wanted)?;
        Some(self.listeners.swap_remove(at).1)
    }
}
