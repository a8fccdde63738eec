//! One node of the [`world`](crate::world): what coordinator and shards do, in the plainest way.

use crate::instant::copy;
mod ends;

use crate::model::{Collect, Got, ModelLayout, ModelTables};
use crate::store::{SOURCES, Store};
use crate::world::Net;
use std::collections::BTreeMap;
use stickring::Millis;
use stickring::resync::handover::Ending;
use stickring::resync::{Action, Handover, Section, SessionUp};
use stickring::session::handshake::{Accepted, Dialled};
use stickring::session::link::{Admission, Down};
use stickring::session::random::Random;
use stickring::session::{
    Accepting, CloseReason, Dialling, Event, Ledger, Link, NotAtRest, Output, Session,
    SessionParams,
};
use stickring::wire::hello::Status;

pub enum Stage {
    Accepting(Accepting),
    Dialling(Dialling),
    Up(Box<Session<ModelLayout>>),
}

/// A lesson being taught: rows still to send.
struct Lesson {
    number: u32,
    timed: bool,
    tails: Vec<(usize, usize, u64)>,
    rows: Vec<(usize, Vec<u8>)>,
}

/// Log positions by table and source.
type Cursors = BTreeMap<(usize, usize), u64>;

pub struct Conn {
    pub pipe: usize,
    side: usize,
    pub peer: String,
    local: bool,
    ticket: u64,
    id: u64,
    pub stage: Stage,
    rx: Vec<u8>,
    /// An update at the head of `rx` waits.
    kept: bool,
    rounds: Vec<(u64, Vec<Got>)>,
    push: Option<(u32, Cursors)>,
    lesson: Option<Lesson>,
    pushed: BTreeMap<usize, u32>,
}

pub struct Node {
    pub index: usize,
    pub name: String,
    pub alive: bool,
    pub section: Section,
    pub handover: Option<Handover>,
    /// Told to stop: when it does so at the latest.
    stop_by: Option<Millis>,
    pub links: BTreeMap<String, Link>,
    pub ledgers: BTreeMap<String, Ledger>,
    pub conns: Vec<Conn>,
    pub store: Store,
    pub tables: ModelTables,
    pub log: Vec<String>,
    random: Random,
    ids: u64,
    /// Updates applied at most in one go, so that rounds pile up; `None`: all.
    pub lazy: bool,
    /// At moments this picks, everything becomes data and then a node again, as when another
    /// process takes over.
    pub reborn: Option<Random>,
    /// Sessions that went that way.
    pub rebirths: u32,
}

impl Node {
    pub fn new(
        index: usize,
        name: &str,
        peers: &[String],
        has_old_process: bool,
        seed: u64,
        now: Millis,
    ) -> Node {
        let mut random = Random::new(seed);
        let links = peers.iter().map(|p| (p.clone(), Link::new(p == name, random.next_u64())));
        Node {
            index,
            name: name.into(),
            alive: true,
            links: links.collect(),
            section: Section::new(now, has_old_process, peers.len() - 1, 0, seed ^ 1),
            handover: None,
            stop_by: None,
            ledgers: BTreeMap::new(),
            conns: Vec::new(),
            store: Store::new(2, seed),
            tables: ModelTables::numbered(2),
            log: Vec::new(),
            random,
            ids: 0,
            lazy: false,
            reborn: None,
            rebirths: 0,
        }
    }

    /// A connection came in.
    pub fn accepted(&mut self, pipe: usize, net: &Net) {
        let stage = Stage::Accepting(Accepting::new(self.name.as_bytes(), 1_024, net.now));
        self.add(pipe, 1, String::new(), 0, stage);
    }

    fn add(&mut self, pipe: usize, side: usize, peer: String, ticket: u64, stage: Stage) {
        self.ids += 1;
        self.conns.push(Conn {
            pipe,
            side,
            local: peer == self.name,
            peer,
            ticket,
            id: self.ids,
            stage,
            rx: Vec::new(),
            kept: false,
            rounds: Vec::new(),
            push: None,
            lesson: None,
            pushed: BTreeMap::new(),
        });
    }

    /// One turn of everything; true when something happened.
    pub fn work(&mut self, net: &mut Net) -> bool {
        let mut progress = self.begin_to_leave(net) || self.dials(net);
        if !self.section.holds_remotes() {
            for conn in &mut self.conns {
                if let Stage::Up(session) = &mut conn.stage
                    && session.is_holding()
                {
                    session.handle_release(net.now);
                    progress = true;
                }
            }
        }
        let mut at = 0;
        while at < self.conns.len() {
            let id = self.conns[at].id;
            progress |= self.turn(at, net);
            // The connection, or others before it, may be gone.
            at = match self.conns.iter().position(|c| c.id >= id) {
                Some(p) if self.conns[p].id == id => p + 1,
                Some(p) => p,
                None => self.conns.len(),
            };
        }
        while let Some(action) = self.section.poll_action() {
            progress = true;
            match action {
                Action::Learn(id) => {
                    for conn in self.conns.iter_mut().filter(|c| c.id == id) {
                        if let Stage::Up(session) = &mut conn.stage {
                            session.handle_learn(net.now);
                        }
                    }
                }
                Action::UpToDate { taught } => self.log.push(format!("up to date {taught}")),
                Action::LocalGivenUp => {}
            }
        }
        if self.reborn.as_mut().is_some_and(|random| random.below(3) == 0) {
            self.be_reborn();
        }
        progress
    }

    /// See [`Node::reborn`]. Sessions in the middle of something stay as they are.
    fn be_reborn(&mut self) {
        for conn in &mut self.conns {
            let Stage::Up(session) = &mut conn.stage else { continue };
            let state = match session.export() {
                Ok(state) => state,
                Err(NotAtRest::Rounds(_)) if !conn.rounds.is_empty() => continue,
                Err(NotAtRest::Output) => continue,
                Err(error) => panic!("{error}"),
            };
            **session = Session::import(copy(&state), &mut self.tables).unwrap();
            self.rebirths += 1;
        }
        self.section = copy(&self.section);
        self.links = copy(&self.links);
        self.ledgers = copy(&self.ledgers);
    }

    fn dials(&mut self, net: &mut Net) -> bool {
        if let Some(h) = &mut self.handover {
            let due = h.poll_dial(net.now);
            if due {
                match net.dial(self.index, &self.name) {
                    Some(pipe) => self.say_hello(pipe, self.name.clone(), 0, 1, net),
                    None => h.down(net.now),
                }
            }
            return due;
        }
        if self.stop_by.is_some() {
            return false;
        }
        let names: Vec<String> = self.links.keys().cloned().collect();
        let mut progress = false;
        for name in names {
            let Some(link) = self.links.get_mut(&name) else { continue };
            let Some(dial) = link.poll_dial(net.now) else { continue };
            progress = true;
            match net.dial(self.index, &name) {
                Some(pipe) => {
                    link.connected(dial.ticket);
                    self.say_hello(pipe, name, dial.ticket, dial.minor, net);
                }
                None => link.down(dial.ticket, Down::Lost, net.now),
            }
        }
        progress
    }

    fn say_hello(&mut self, pipe: usize, peer: String, ticket: u64, minor: u8, net: &mut Net) {
        let dialling = Dialling::new(minor, &peer, &self.name, 1, net.now);
        net.write(pipe, 0, &dialling.hello());
        self.add(pipe, 0, peer, ticket, Stage::Dialling(dialling));
    }

    /// One connection's turn.
    fn turn(&mut self, at: usize, net: &mut Net) -> bool {
        let conn = &mut self.conns[at];
        let id = conn.id;
        let wants = match &conn.stage {
            Stage::Up(session) => session.wants_read(),
            _ => true,
        };
        let bytes = if wants { net.read(conn.pipe, conn.side) } else { Vec::new() };
        // What a held update has kept back is looked at again when it may go on.
        let mut progress = !bytes.is_empty() || (wants && conn.kept);
        conn.rx.extend_from_slice(&bytes);
        if let Stage::Up(_) = conn.stage {
            if progress {
                self.received(at, net.now);
            }
            progress |= self.applied(at, net.now);
            progress |= self.pushed(at, net.now);
            progress |= self.taught(at, net.now);
            let Some(more) = self.outputs(at, net) else { return true };
            progress |= more;
        } else if progress && !self.handshake(at, net) {
            return true;
        }
        // Others before it may be gone.
        let Some(at) = self.conns.iter().position(|c| c.id == id) else { return true };
        let conn = &self.conns[at];
        if net.at_end(conn.pipe, conn.side) && conn.rounds.is_empty() {
            self.drop_conn(at, Down::Lost, net);
            return true;
        }
        progress
    }

    /// Goes on with a handshake; false when the connection was dropped.
    fn handshake(&mut self, at: usize, net: &mut Net) -> bool {
        let conn = &mut self.conns[at];
        match &mut conn.stage {
            Stage::Up(_) => true,
            Stage::Accepting(a) => match a.handle_bytes(&conn.rx) {
                Accepted::NeedMore => true,
                Accepted::Refuse { status, .. } => {
                    self.refuse(at, status, net);
                    false
                }
                Accepted::Hello { hello, used } => {
                    conn.rx.drain(..used);
                    let from = String::from_utf8_lossy(&hello.from).into_owned();
                    self.admit(at, from, hello.minor, net)
                }
            },
            Stage::Dialling(d) => match d.handle_bytes(&conn.rx) {
                Dialled::NeedMore => true,
                Dialled::Status { code, used } => {
                    conn.rx.drain(..used);
                    let up = match (&mut self.handover, self.links.get_mut(&conn.peer)) {
                        (Some(h), _) => h.answered(code, net.now),
                        (None, Some(link)) => link.answered(conn.ticket, code, net.now),
                        (None, None) => false,
                    };
                    if !up {
                        self.drop_conn(at, Down::Lost, net);
                        return false;
                    }
                    self.establish(at, 1, net);
                    true
                }
            },
        }
    }

    fn refuse(&mut self, at: usize, status: Option<Status>, net: &mut Net) {
        let conn = &self.conns[at];
        if let Some(status) = status {
            net.write(conn.pipe, conn.side, status.line().as_bytes());
        }
        self.drop_conn(at, Down::Ours, net);
    }

    fn admit(&mut self, at: usize, from: String, minor: u8, net: &mut Net) -> bool {
        let Some(link) = self.links.get_mut(&from) else {
            self.refuse(at, Some(Status::UnknownPeer), net);
            return false;
        };
        let id = self.conns[at].id;
        match link.accept(minor, net.now) {
            Admission::TryAgain => {
                self.refuse(at, Some(Status::TryAgain), net);
                false
            }
            Admission::Admit { ticket, replaces } => {
                let loser = |c: &Conn| c.peer == from && Some(c.ticket) == replaces;
                if let Some(loser) = self.conns.iter().position(loser) {
                    self.log.push(format!("collision with {from}"));
                    self.drop_conn(loser, Down::Ours, net);
                }
                let at = self.conns.iter().position(|c| c.id == id).expect("still there");
                let conn = &mut self.conns[at];
                conn.ticket = ticket;
                conn.local = from == self.name;
                conn.peer = from;
                net.write(conn.pipe, conn.side, Status::Ok.line().as_bytes());
                self.establish(at, minor, net);
                true
            }
        }
    }

    fn establish(&mut self, at: usize, minor: u8, net: &mut Net) {
        let conn = &mut self.conns[at];
        let params = SessionParams { local: conn.local, minor, bufsize: 16_384 };
        let ledger = self.ledgers.remove(&conn.peer).unwrap_or_default();
        let mut session = Box::new(Session::new(params, ledger, net.now));
        if self.handover.is_some() {
            session.handle_teach(net.now);
        } else {
            if !conn.local && self.section.holds_remotes() {
                session.hold();
            }
            let up =
                SessionUp { id: conn.id, local: conn.local, accepted: conn.side == 1, shard: 0 };
            self.section.session_up(up, net.now);
        }
        conn.stage = Stage::Up(session);
        self.log.push(format!("up {}", self.conns[at].peer));
        if !self.conns[at].rx.is_empty() {
            self.received(at, net.now);
        }
    }

    fn received(&mut self, at: usize, now: Millis) {
        let conn = &mut self.conns[at];
        let Stage::Up(session) = &mut conn.stage else { return };
        let mut got = Vec::new();
        let mut sink = Collect { bytes: &conn.rx, got: &mut got };
        conn.kept = false;
        match session.handle_bytes(&conn.rx, now, &mut self.tables, &mut sink) {
            Ok(n) => {
                conn.rx.drain(..n);
                conn.kept = session.is_held();
            }
            Err(e) => panic!("{} cannot read {}: {e}", self.name, conn.peer),
        }
        match session.close_round() {
            Some(round) => conn.rounds.push((round, got)),
            None => assert!(got.is_empty()),
        }
    }

    /// Applies rounds: all of them, or lazily one at a time in any order.
    fn applied(&mut self, at: usize, now: Millis) -> bool {
        let conn = &mut self.conns[at];
        let Stage::Up(session) = &mut conn.stage else { return false };
        let progress = !conn.rounds.is_empty();
        while !conn.rounds.is_empty() {
            if self.lazy && self.random.below(3) == 0 {
                break;
            }
            let pick = if self.lazy { self.random.below(conn.rounds.len() as u64) } else { 0 };
            let (round, got) = conn.rounds.remove(pick as usize);
            got.into_iter().for_each(|g| self.store.learned(g));
            session.handle_applied(round, now);
        }
        progress
    }

    /// Sends changes to a subscribed peer.
    fn pushed(&mut self, at: usize, now: Millis) -> bool {
        let conn = &mut self.conns[at];
        let (Stage::Up(session), Some((epoch, cursors))) = (&mut conn.stage, &mut conn.push) else {
            return false;
        };
        let mut progress = false;
        for table in 0..self.store.tables() {
            for source in 0..SOURCES {
                let cursor = cursors.get_mut(&(table, source)).expect("set at the start");
                let max = 1 + self.random.below(5) as usize;
                let Some(batch) = self.store.batch(table, source, *epoch, *cursor, max) else {
                    continue;
                };
                assert!(batch.end > *cursor);
                *cursor = batch.end;
                let stale = session.counters().batches_stale;
                let (last, updates) = (batch.last_uid, batch.updates);
                session.handle_changes(batch, now);
                if updates > 0 && session.counters().batches_stale == stale {
                    conn.pushed.insert(table, last);
                }
                progress = true;
            }
        }
        progress
    }

    /// Sends the next piece of a lesson.
    fn taught(&mut self, at: usize, now: Millis) -> bool {
        let conn = &mut self.conns[at];
        let (Stage::Up(session), Some(lesson)) = (&mut conn.stage, &mut conn.lesson) else {
            return false;
        };
        match lesson.rows.pop() {
            Some((table, key)) => {
                let chunk = self.store.chunk(table, &key, lesson.timed);
                session.handle_lesson_chunk(lesson.number, chunk, 1, now);
            }
            None => {
                let up_to_date = match self.handover {
                    Some(_) => self.section.may_hand_over_finished(),
                    None => self.section.up_to_date(),
                };
                let tails = lesson.tails.clone();
                session.handle_lesson_done(lesson.number, up_to_date, tails, now);
                conn.lesson = None;
            }
        }
        true
    }

    /// Does what the session wants; `None` when the connection is gone.
    fn outputs(&mut self, at: usize, net: &mut Net) -> Option<bool> {
        let mut progress = false;
        loop {
            let conn = &mut self.conns[at];
            let Stage::Up(session) = &mut conn.stage else { return Some(progress) };
            let Some(output) = session.poll_output() else { return Some(progress) };
            progress = true;
            match output {
                Output::Send(bytes) => net.write(conn.pipe, conn.side, &bytes),
                Output::Event(Event::PushStart { epoch }) => {
                    let places =
                        (0..self.store.tables()).flat_map(|t| (0..SOURCES).map(move |s| (t, s)));
                    let ledger = session.ledger();
                    let cursors = places.map(|(t, s)| ((t, s), ledger.confirmed(t, s)));
                    conn.push = Some((epoch, cursors.collect()));
                }
                Output::Event(Event::PushStop) => conn.push = None,
                Output::Event(Event::TeachStart { lesson, timed }) => {
                    conn.lesson = Some(Lesson {
                        number: lesson,
                        timed,
                        tails: self.store.tails(),
                        rows: self.store.keys(),
                    });
                }
                Output::Event(Event::LessonEnd { finished, updates, .. }) => {
                    self.log.push(format!("learned {} {finished} {updates}", conn.peer));
                    self.section.learned(conn.id, updates);
                    self.section.lesson_end(conn.id, finished, net.now);
                }
                Output::Event(Event::Taught { finished, entries, .. }) => {
                    self.log.push(format!("taught {} {finished} {entries}", conn.peer));
                    if let Some(h) = &mut self.handover {
                        h.taught();
                    }
                }
                Output::Event(Event::Heard) => {
                    if let Some(link) = self.links.get_mut(&conn.peer) {
                        link.heard(conn.ticket, net.now);
                    }
                }
                Output::Event(Event::Refused { .. }) => panic!("all nodes have the same tables"),
                Output::Event(Event::Close(reason)) => {
                    let why = match reason {
                        CloseReason::Silence => Down::Silence,
                        CloseReason::BadInput(_) => Down::BadInput,
                        CloseReason::HandedOver => Down::Ours,
                    };
                    self.drop_conn(at, why, net);
                    return None;
                }
            }
        }
    }

    /// A connection ends: its ledger is kept, its link and section are told.
    fn drop_conn(&mut self, at: usize, why: Down, net: &mut Net) {
        let conn = self.conns.remove(at);
        net.close(conn.pipe, conn.side);
        if let Stage::Up(session) = conn.stage {
            self.log.push(format!("down {} {why:?}", conn.peer));
            for (&table, &pushed) in &conn.pushed {
                assert_eq!(session.ledger().pushed_uid(table), pushed);
            }
            self.section.session_down(conn.id, net.now);
            self.ledgers.insert(conn.peer.clone(), session.into_ledger());
        }
        if let Some(h) = &mut self.handover {
            h.down(net.now);
            if h.ending() == Some(Ending::Done) {
                self.alive = false;
            }
        } else if let Some(link) = self.links.get_mut(&conn.peer) {
            link.down(conn.ticket, why, net.now);
        }
    }

    /// Names of peers with an established session.
    pub fn sessions(&self) -> Vec<&str> {
        let up = self.conns.iter().filter(|c| matches!(c.stage, Stage::Up(_)));
        up.map(|c| c.peer.as_str()).collect()
    }

    /// The session with a peer.
    pub fn session(&self, peer: &str) -> Option<&Session<ModelLayout>> {
        self.conns.iter().find_map(|c| match &c.stage {
            Stage::Up(session) if c.peer == peer => Some(&**session),
            _ => None,
        })
    }

    /// How often a line is in the log.
    pub fn logged(&self, line: &str) -> usize {
        self.log.iter().filter(|l| *l == line).count()
    }
}
