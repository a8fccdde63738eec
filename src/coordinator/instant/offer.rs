//! See [`super`]: the old process's side.
//!
//! A thread of its own talks to the process that asks, since that blocks; a task beside the
//! coordinator freezes and thaws. They say one thing at a time to each other.

use super::{Answer, Bundle, ListenerState, MAGIC, Shape, hash};
use crate::Millis;
use crate::coordinator::{Node, Shared, pausing};
use crate::engine::fault;
use crate::engine::rights::{Asked, Token, Wire, sealed};
use crate::limits::{INSTANT_FREEZE_MS, INSTANT_MS, PAUSERS_MAX};
use crate::shard::Control;
use crate::shard::handover::{Exported, Probe, Step};
use bytes::Bytes;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What the thread has the coordinator do.
enum Request {
    /// Freeze for a process of this shape, and give everything.
    Freeze(Box<Shape>, std::sync::mpsc::Sender<Result<Given, String>>),
    /// It came to nothing: go on.
    Thaw(String),
    /// The process of this pid has everything: leave.
    Leave(i32),
    /// The process of this pid pauses us.
    Paused(Wire, i32),
}

/// Everything, frozen.
struct Given {
    state: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// The thread: answers one process after the other, for ever.
fn serve(asked: &Asked, requests: &mpsc::Sender<Request>) {
    loop {
        let (wire, pid) = asked.accept();
        if hand_over(wire, pid, requests).is_none() {
            return;
        }
    }
}

/// Where this process can be asked. From the very start: who asks while it is still taking over
/// from its own predecessor waits a moment, and is not turned away.
///
/// # Errors
/// There is no such place: nobody can ask, and there is no instant hand-over.
pub fn listen() -> std::io::Result<Arc<Asked>> {
    Asked::listen().map(Arc::new)
}

/// Offers everything to whoever asks and may.
pub fn offer(node: &Shared, asked: Arc<Asked>) {
    let (requests, wanted) = mpsc::channel(1);
    tokio::task::spawn_local(answer(node.clone(), wanted));
    let thread = std::thread::Builder::new().name("handover".to_string());
    // Without a thread it stays at the hand-over by the protocol.
    let _ = thread.spawn(move || serve(&asked, &requests));
}

/// One conversation. `None`: the coordinator is gone.
fn hand_over(mut wire: Wire, pid: i32, requests: &mpsc::Sender<Request>) -> Option<()> {
    let Ok(question) = wire.receive() else { return Some(()) };
    if question == pausing::PAUSING {
        return requests.blocking_send(Request::Paused(wire, pid)).ok();
    }
    fault::point("old-asked");
    let shape = question.strip_prefix(MAGIC).and_then(|rest| postcard::from_bytes(rest).ok());
    let Some(shape) = shape else {
        say(&mut wire, &Answer::No("another version of the hand-over".to_string()));
        return Some(());
    };
    let (reply, given) = std::sync::mpsc::channel();
    requests.blocking_send(Request::Freeze(Box::new(shape), reply)).ok()?;
    match given.recv().ok()? {
        Err(why) => {
            say(&mut wire, &Answer::No(why));
            Some(())
        }
        Ok(given) => {
            fault::point("old-frozen");
            let request = match offer_to(&mut wire, given) {
                Ok(()) => Request::Leave(pid),
                Err(why) => Request::Thaw(why),
            };
            requests.blocking_send(request).ok()
        }
    }
}

fn say(wire: &mut Wire, answer: &Answer) -> bool {
    postcard::to_allocvec(answer).is_ok_and(|bytes| wire.send(&bytes).is_ok())
}

/// Sends everything and waits for the other process to take it. An error: it has not, and will
/// not; everything is still ours.
fn offer_to(wire: &mut Wire, given: Given) -> Result<(), String> {
    let token = Token::new().map_err(|e| format!("token: {e}"))?;
    let why = match send_and_wait(wire, &token, &given) {
        Ok(()) => return Ok(()),
        Err(why) => why,
    };
    fault::point("old-withdraws");
    // The other one may have taken it without a word that reached us.
    if token.take() { Err(why) } else { Ok(()) }
}

fn send_and_wait(wire: &mut Wire, token: &Token, given: &Given) -> Result<(), String> {
    let state = sealed(&given.state).map_err(|e| format!("state: {e}"))?;
    let answer = Answer::Yes {
        state_len: given.state.len() as u64,
        state_hash: hash(&given.state),
        fds: given.fds.len(),
    };
    if !say(wire, &answer) {
        return Err("the new process is gone".to_string());
    }
    fault::point("old-answered");
    let first = [token.as_fd(), state.as_fd()];
    let fds: Vec<BorrowedFd<'_>> =
        first.into_iter().chain(given.fds.iter().map(AsFd::as_fd)).collect();
    wire.send_fds(&fds).map_err(|e| format!("descriptors: {e}"))?;
    fault::point("old-sent");
    match wire.receive() {
        Ok(word) if word == b"mine" => Ok(()),
        Ok(word) => Err(String::from_utf8_lossy(&word).into_owned()),
        Err(error) => Err(format!("no word from the new process: {error}")),
    }
}

/// Beside the coordinator: carries out what the thread asks for.
async fn answer(node: Shared, mut requests: mpsc::Receiver<Request>) {
    let watched = Rc::new(());
    while let Some(request) = requests.recv().await {
        match request {
            Request::Paused(wire, pid) if Rc::strong_count(&watched) <= PAUSERS_MAX => {
                let (node, watched) = (node.clone(), watched.clone());
                tokio::task::spawn_local(async move {
                    pausing::watch(node, wire, pid).await;
                    drop(watched);
                });
            }
            // As with a process that cannot tell us.
            Request::Paused(..) => {}
            Request::Freeze(shape, reply) => {
                let given = give(&node, &shape).await;
                if given.is_err() && node.borrow().is_frozen() {
                    thaw(&node).await;
                }
                if reply.send(given).is_err() {
                    thaw(&node).await;
                }
            }
            Request::Thaw(why) => {
                thaw(&node).await;
                let text = format!("Instant hand-over given up, going on: {why}.");
                node.borrow().log.warning(&text);
            }
            Request::Leave(pid) => {
                let text = format!("Everything handed over to process {pid}, leaving.");
                node.borrow().log.notice(&text);
                fault::point("old-leaves");
                // Nothing is closed in an orderly way: it all belongs to the other process.
                std::process::exit(0);
            }
        }
    }
}

async fn give(node: &Shared, shape: &Shape) -> Result<Given, String> {
    let (since, shards) = {
        let mut node = node.borrow_mut();
        if node.stopping {
            return Err("it is stopping".to_string());
        }
        let own = Shape::of(&node.config, node.shards.len());
        if let Some(why) = own.differs_from(shape) {
            return Err(why);
        }
        node.held.clear();
        node.frozen.send_modify(|turns| *turns += 1);
        (node.clock.now(), node.shards.clone())
    };
    for shard in 0..shards.len() {
        if shards.tell(shard, Control::Handover(Step::Freeze)).is_err() {
            return Err("a shard has too much to do".to_string());
        }
    }
    let limit = Duration::from_millis(INSTANT_FREEZE_MS);
    let Ok(rest) = tokio::time::timeout(limit, come_to_rest(node)).await else {
        return Err(format!("the shards did not come to rest in {INSTANT_FREEZE_MS} ms"));
    };
    rest?;
    let rest = INSTANT_MS.saturating_sub(node.borrow().clock.now().since(since));
    let exported = tokio::time::timeout(Duration::from_millis(rest), export(node)).await;
    let exported = exported.map_err(|_| "the shards took too long".to_string())??;
    bundle(&mut node.borrow_mut(), since, exported)
}

/// Waits until nothing is under way anywhere: twice in a row, all that was sent has been received
/// and nothing has been sent since.
async fn come_to_rest(node: &Shared) -> Result<(), String> {
    let mut before = None;
    loop {
        let probes = probe(node).await?;
        if let Some(why) = probes.iter().find_map(|p| p.failed.clone()) {
            return Err(format!("a socket cannot be stopped: {why}"));
        }
        let sent: u64 = probes.iter().map(|p| p.traffic.0).sum();
        let received: u64 = probes.iter().map(|p| p.traffic.1).sum();
        let events: u64 = probes.iter().map(|p| p.events).sum();
        let (heard, listeners) = {
            let node = node.borrow();
            (node.events_heard, node.held.len() == node.doors)
        };
        let now = (sent, events);
        let still =
            probes.iter().all(|p| p.halted) && listeners && sent == received && events == heard;
        if still && before == Some(now) {
            return Ok(());
        }
        before = still.then_some(now);
        if !still {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn probe(node: &Shared) -> Result<Vec<Probe>, String> {
    ask_all(node, Step::Probe).await
}

async fn export(node: &Shared) -> Result<Vec<Exported>, String> {
    ask_all(node, Step::Export).await?.into_iter().collect()
}

/// One question to all shards at once.
async fn ask_all<R>(
    node: &Shared,
    step: impl Fn(oneshot::Sender<R>) -> Step,
) -> Result<Vec<R>, String> {
    let shards = node.borrow().shards.clone();
    let mut answers = Vec::new();
    for shard in 0..shards.len() {
        let (reply, answer) = oneshot::channel();
        let full = shards.tell(shard, Control::Handover(step(reply))).is_err();
        if full {
            return Err("a shard has too much to do".to_string());
        }
        answers.push(answer);
    }
    let mut all = Vec::new();
    for answer in answers {
        all.push(answer.await.map_err(|_| "a shard is gone".to_string())?);
    }
    Ok(all)
}

fn bundle(node: &mut Node, since: Millis, exported: Vec<Exported>) -> Result<Given, String> {
    if node.stopping {
        return Err("it is stopping".to_string());
    }
    let mut fds = Vec::new();
    let mut listeners: Vec<ListenerState> = Vec::new();
    for (listener, fd) in node.held.drain(..) {
        fds.push(fd.map_err(|e| format!("listening socket: {e}"))?);
        listeners.push(listener);
    }
    let sessions = exported.iter().map(|e| e.sessions).sum();
    let mut shards = Vec::new();
    for Exported { state, fds: own, .. } in exported {
        shards.push((Bytes::from(state), own.len()));
        fds.extend(own);
    }
    let bundle =
        Bundle { since, seeds: node.seeds, node: node.export(), listeners, shards, sessions };
    let state = postcard::to_allocvec(&bundle).map_err(|e| format!("state: {e}"))?;
    Ok(Given { state, fds })
}

/// Everything goes on.
async fn thaw(node: &Shared) {
    let shards = node.borrow().shards.clone();
    for shard in 0..shards.len() {
        // A shard with a thousand commands waiting takes this one behind them.
        let _ = shards.control[shard].send(Control::Handover(Step::Thaw)).await;
        shards.bells[shard].ring();
    }
    let mut node = node.borrow_mut();
    node.held.clear();
    node.frozen.send_modify(|turns| *turns += 1);
    let now = node.clock.now();
    node.admit_waiting(now);
    node.poke.notify_one();
}
