//! One session's socket on its home shard: two tasks that only move bytes, and what they share with
//! the tick.
//!
//! The reader gives each buffer it has filled to the tick and reads on when it gets one back: not
//! giving it back is how a session is held up (TCP then holds up the peer). The writer writes what
//! the tick has queued, several buffers a `writev`. Neither is ever cancelled: [`ConnIo::close`]
//! ends both.

use super::message::CreditKind;
use crate::engine::{Doorbell, Stream};
use crate::limits::{READ_CHUNK, WRITE_BATCH_MAX};
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Wakes this thread's tick from one of its tasks.
#[derive(Clone)]
pub struct LocalBell {
    bells: Arc<Vec<Doorbell>>,
    me: usize,
    /// Set by tasks, cleared by the tick: there is something to look at.
    work: Rc<Cell<bool>>,
}

impl LocalBell {
    /// The bell of shard `me`.
    pub fn new(bells: Arc<Vec<Doorbell>>, me: usize) -> Self {
        LocalBell { bells, me, work: Rc::default() }
    }

    /// Asks for a tick.
    pub fn ring(&self) {
        self.work.set(true);
        self.bells[self.me].ring();
    }

    /// Waits for a ring from this thread or another, unless there is work.
    pub async fn wait(&self, more: impl FnOnce() -> bool) {
        self.bells[self.me].wait(|| self.work.get() || more()).await;
    }

    /// The tick has begun: what rings from now on is new.
    pub fn clear(&self) {
        self.work.set(false);
    }
}

/// Something to write, in order.
#[derive(Debug)]
pub enum Tx {
    /// Bytes.
    Bytes(Bytes),
    /// Everything before this is written: give the shard its credit back.
    Credit(usize, CreditKind),
}

#[derive(Default)]
struct Inbound {
    /// Filled by the reader, for the tick.
    filled: Option<BytesMut>,
    /// Given back by the tick, for the reader.
    empty: Option<BytesMut>,
    /// The reader has ended, and why.
    ended: Option<String>,
}

#[derive(Default)]
struct Outbound {
    queue: VecDeque<Tx>,
    queued_bytes: usize,
    credits: Vec<(usize, CreditKind)>,
    /// Close when the queue is empty.
    closing: bool,
    /// The writer has ended.
    ended: bool,
}

/// See the module head.
pub struct ConnIo {
    stream: Stream,
    bell: LocalBell,
    inbound: RefCell<Inbound>,
    outbound: RefCell<Outbound>,
    may_read: Notify,
    may_write: Notify,
}

impl ConnIo {
    /// Starts both tasks on this thread. `leftover` was read behind the handshake.
    pub fn start(stream: Stream, leftover: &[u8], bell: LocalBell) -> Rc<ConnIo> {
        let mut buffer = BytesMut::with_capacity(READ_CHUNK);
        buffer.extend_from_slice(leftover);
        let inbound = Inbound { filled: Some(buffer), ..Inbound::default() };
        let io = Rc::new(ConnIo {
            stream,
            bell,
            inbound: RefCell::new(inbound),
            outbound: RefCell::default(),
            may_read: Notify::new(),
            may_write: Notify::new(),
        });
        tokio::task::spawn_local(read_loop(io.clone()));
        tokio::task::spawn_local(write_loop(io.clone()));
        io.bell.ring();
        io
    }

    /// What the reader has filled, if anything.
    pub fn take_filled(&self) -> Option<BytesMut> {
        self.inbound.borrow_mut().filled.take()
    }

    /// Lets the reader go on, behind what `buffer` holds.
    pub fn give_back(&self, mut buffer: BytesMut) {
        buffer.reserve(READ_CHUNK / 2);
        self.inbound.borrow_mut().empty = Some(buffer);
        self.may_read.notify_one();
    }

    /// Why the connection has ended, once it has.
    pub fn ended(&self) -> Option<String> {
        self.inbound.borrow().ended.clone()
    }

    /// Queues `tx`.
    pub fn send(&self, tx: Tx) {
        let mut outbound = self.outbound.borrow_mut();
        if let Tx::Bytes(bytes) = &tx {
            outbound.queued_bytes += bytes.len();
        }
        outbound.queue.push_back(tx);
        self.may_write.notify_one();
    }

    /// Bytes queued and not written yet.
    pub fn queued_bytes(&self) -> usize {
        self.outbound.borrow().queued_bytes
    }

    /// Credits of what was written since the last call.
    pub fn take_credits(&self) -> Vec<(usize, CreditKind)> {
        std::mem::take(&mut self.outbound.borrow_mut().credits)
    }

    /// Writes what is queued, then ends the connection.
    pub fn close_gently(&self) {
        self.outbound.borrow_mut().closing = true;
        self.may_write.notify_one();
    }

    /// Ends the connection at once.
    pub fn close(&self) {
        self.close_gently();
        self.outbound.borrow_mut().queue.clear();
        self.stream.shutdown();
        self.may_read.notify_one();
    }
}

async fn read_loop(io: Rc<ConnIo>) {
    let why = loop {
        let buffer = loop {
            if io.outbound.borrow().ended {
                break None;
            }
            if let Some(buffer) = io.inbound.borrow_mut().empty.take() {
                break Some(buffer);
            }
            io.may_read.notified().await;
        };
        let Some(buffer) = buffer else { break "closed".to_string() };
        let (result, buffer) = io.stream.read(buffer).await;
        match result {
            Ok(0) => break "closed by the peer".to_string(),
            Ok(_) => io.inbound.borrow_mut().filled = Some(buffer),
            Err(error) => break format!("read: {error}"),
        }
        io.bell.ring();
    };
    io.inbound.borrow_mut().ended = Some(why);
    io.bell.ring();
}

async fn write_loop(io: Rc<ConnIo>) {
    loop {
        let (chunks, credits, bytes) = next_write(&mut io.outbound.borrow_mut());
        if !chunks.is_empty() {
            if io.stream.write_all(chunks).await.is_err() {
                // The reader will see why, or the peer has closed both ways.
                break;
            }
        } else if credits.is_empty() {
            if io.outbound.borrow().closing {
                break;
            }
            io.may_write.notified().await;
            continue;
        }
        let mut outbound = io.outbound.borrow_mut();
        outbound.queued_bytes = outbound.queued_bytes.saturating_sub(bytes);
        outbound.credits.extend(credits);
        drop(outbound);
        io.bell.ring();
    }
    io.outbound.borrow_mut().ended = true;
    io.stream.shutdown();
    io.may_read.notify_one();
}

type Write = (Vec<Bytes>, Vec<(usize, CreditKind)>, usize);

/// Takes a bounded part of the queue.
fn next_write(outbound: &mut Outbound) -> Write {
    let (mut chunks, mut credits, mut bytes) = (Vec::new(), Vec::new(), 0);
    while bytes < WRITE_BATCH_MAX {
        match outbound.queue.pop_front() {
            Some(Tx::Bytes(chunk)) => {
                bytes += chunk.len();
                chunks.push(chunk);
            }
            Some(Tx::Credit(shard, kind)) => credits.push((shard, kind)),
            None => break,
        }
    }
    (chunks, credits, bytes)
}
