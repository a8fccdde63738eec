//! Whole nodes in one thread: each with its section, links, sessions and a small store, joined by
//! pipes that carry a few bytes at a time and can be cut or blocked. One seed, one run.

use crate::nodes::Node;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use stickring::Millis;
use stickring::session::random::Random;

/// A pipe between two nodes; side 0 dialled, side 1 accepted.
#[derive(Debug)]
pub struct Pipe {
    pub nodes: [usize; 2],
    /// Bytes on their way to each side.
    data: [VecDeque<u8>; 2],
    /// Closed by each side.
    closed: [bool; 2],
    /// Broken at once for both, with what was on its way.
    broken: bool,
}

/// What joins nodes, and the clock.
#[derive(Debug)]
pub struct Net {
    pub now: Millis,
    pub random: Random,
    pub pipes: Vec<Pipe>,
    /// Who listens on the address of a peer's name.
    pub listeners: BTreeMap<String, usize>,
    /// Pairs of nodes that cannot reach each other; pipes between them stall.
    pub blocked: BTreeSet<(usize, usize)>,
    /// Connections not accepted yet: (node, pipe).
    pub accepts: Vec<(usize, usize)>,
    /// Most bytes one read gives.
    pub read_max: usize,
    /// Break the pipe over which this many bytes have been delivered in all.
    pub cut_at: Option<u64>,
    /// Bytes that were delivered, and their hash: two runs of one seed must agree.
    pub delivered: u64,
    pub hash: u64,
}

impl Net {
    fn is_blocked(&self, a: usize, b: usize) -> bool {
        self.blocked.contains(&(a.min(b), a.max(b)))
    }

    /// Connects to whoever listens under `name`.
    pub fn dial(&mut self, from: usize, name: &str) -> Option<usize> {
        let to = *self.listeners.get(name)?;
        if self.is_blocked(from, to) {
            return None;
        }
        self.pipes.push(Pipe {
            nodes: [from, to],
            data: Default::default(),
            closed: [false; 2],
            broken: false,
        });
        let pipe = self.pipes.len() - 1;
        self.accepts.push((to, pipe));
        Some(pipe)
    }

    pub fn write(&mut self, pipe: usize, side: usize, bytes: &[u8]) {
        let p = &mut self.pipes[pipe];
        if !p.broken && !p.closed[side] {
            p.data[1 - side].extend(bytes);
        }
    }

    /// Some of the bytes that have arrived; none while the way is blocked.
    pub fn read(&mut self, pipe: usize, side: usize) -> Vec<u8> {
        let [a, b] = self.pipes[pipe].nodes;
        if self.is_blocked(a, b) {
            return Vec::new();
        }
        let max = 1 + self.random.below(self.read_max as u64) as usize;
        let data = &mut self.pipes[pipe].data[side];
        let n = data.len().min(max);
        let mut bytes: Vec<u8> = data.drain(..n).collect();
        if let Some(at) = self.cut_at.filter(|&at| at <= self.delivered + n as u64) {
            bytes.truncate((at - self.delivered) as usize);
            self.cut(pipe);
            self.cut_at = None;
        }
        self.delivered += bytes.len() as u64;
        for &b in &bytes {
            self.hash = (self.hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        bytes
    }

    /// True when nothing will come any more.
    pub fn at_end(&self, pipe: usize, side: usize) -> bool {
        let p = &self.pipes[pipe];
        let [a, b] = p.nodes;
        p.broken || (p.closed[1 - side] && p.data[side].is_empty() && !self.is_blocked(a, b))
    }

    pub fn close(&mut self, pipe: usize, side: usize) {
        self.pipes[pipe].closed[side] = true;
    }

    /// Breaks a pipe for both sides; what was on its way is lost.
    pub fn cut(&mut self, pipe: usize) {
        let p = &mut self.pipes[pipe];
        p.broken = true;
        p.data = Default::default();
    }

    /// Pipes that both sides still use.
    pub fn live_pipes(&self) -> Vec<usize> {
        let live = |p: &Pipe| !p.broken && !p.closed[0] && !p.closed[1];
        (0..self.pipes.len()).filter(|&i| live(&self.pipes[i])).collect()
    }
}

/// See the module's head.
pub struct World {
    pub net: Net,
    pub nodes: Vec<Node>,
    pub names: Vec<String>,
}

impl World {
    /// Nodes of these names, all started now, each a peer of every other.
    pub fn new(names: &[&str], seed: u64) -> World {
        let net = Net {
            now: Millis(1_000_000),
            random: Random::new(seed),
            pipes: Vec::new(),
            listeners: BTreeMap::new(),
            blocked: BTreeSet::new(),
            accepts: Vec::new(),
            read_max: 4_096,
            cut_at: None,
            delivered: 0,
            hash: 0xcbf2_9ce4_8422_2325,
        };
        let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        let mut world = World { net, nodes: Vec::new(), names: names.clone() };
        for name in &names {
            world.start(name, false);
        }
        world
    }

    /// Starts a process of that name, which listens from now on; gives its number.
    pub fn start(&mut self, name: &str, has_old_process: bool) -> usize {
        let seed = self.net.random.next_u64();
        let index = self.nodes.len();
        let node = Node::new(index, name, &self.names, has_old_process, seed, self.net.now);
        self.nodes.push(node);
        self.net.listeners.insert(name.into(), index);
        index
    }

    /// Kills a process: its pipes end, its memory is gone.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        let name = self.nodes[node].name.clone();
        if self.net.listeners.get(&name) == Some(&node) {
            self.net.listeners.remove(&name);
        }
        for pipe in 0..self.net.pipes.len() {
            if self.net.pipes[pipe].nodes.contains(&node) {
                self.net.cut(pipe);
            }
        }
    }

    /// Replaces a process as a reload does: the new one listens, the old one hands over.
    pub fn reload(&mut self, node: usize) -> usize {
        let name = self.nodes[node].name.clone();
        let new = self.start(&name, true);
        let now = self.net.now;
        self.nodes[node].stop(now);
        new
    }

    /// Blocks or frees the way between two nodes.
    pub fn block(&mut self, a: usize, b: usize, blocked: bool) {
        let pair = (a.min(b), a.max(b));
        if blocked {
            self.net.blocked.insert(pair);
        } else {
            self.net.blocked.remove(&pair);
        }
    }

    /// Everything that can happen without time passing.
    pub fn settle(&mut self) {
        for _ in 0..1_000_000 {
            let mut progress = false;
            for (node, pipe) in std::mem::take(&mut self.net.accepts) {
                if self.nodes[node].alive {
                    self.nodes[node].accepted(pipe, &self.net);
                } else {
                    self.net.cut(pipe);
                }
                progress = true;
            }
            for node in self.nodes.iter_mut().filter(|n| n.alive) {
                progress |= node.work(&mut self.net);
            }
            if !progress {
                return;
            }
        }
        panic!("never quiet");
    }

    /// Runs for `ms` of virtual time.
    pub fn run(&mut self, ms: u64) {
        let end = self.net.now.plus(ms);
        loop {
            self.settle();
            let alive = self.nodes.iter().filter(|n| n.alive);
            let next = alive.filter_map(|n| n.next_timeout()).min();
            let Some(next) = next.filter(|&t| t <= end) else { break };
            // A timeout that is due but does nothing may not stop the clock.
            self.net.now = next.max(self.net.now.plus(1));
            for node in self.nodes.iter_mut().filter(|n| n.alive) {
                node.timeouts(&mut self.net);
            }
        }
        self.net.now = end;
    }

    /// Living processes.
    pub fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&i| self.nodes[i].alive).collect()
    }

    /// True when all living nodes hold the same rows.
    pub fn converged(&self) -> bool {
        let alive = self.alive();
        alive
            .windows(2)
            .all(|w| self.nodes[w[0]].store.contents() == self.nodes[w[1]].store.contents())
    }
}
