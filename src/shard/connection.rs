//! One session's socket on its home shard: two tasks that only move bytes, and what they share with
//! the tick.
//!
//! The reader gives each buffer it has filled to the tick and reads on when it gets one back: not
//! giving it back is how a session is held up (TCP then holds up the peer). The writer writes what
//! the tick has queued, several buffers a `writev`. Neither is ever dropped: [`ConnIo::close`] ends
//! both, [`ConnIo::freeze`] stops both between two bytes, for a hand-over to another process.

use super::message::CreditKind;
use crate::engine::stream::is_interrupted;
use crate::engine::{Doorbell, Engine, Stream, breathe};
use crate::limits::{READ_CHUNK, WRITE_BATCH_MAX, WRITE_NOW_MAX};
use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// A connection's bytes on our side of the socket, while both tasks stand still.
pub struct Halted {
    /// Received and not taken by the session, or the beginning of a message.
    pub received: BytesMut,
    /// Not written yet, in order.
    pub queue: VecDeque<Tx>,
    /// Credits of what was written, not taken yet.
    pub credits: Vec<(usize, CreditKind)>,
}

/// See the module head.
pub struct ConnIo {
    stream: Stream,
    /// Neither task begins anything.
    frozen: Cell<bool>,
    /// The reader is in the kernel's hands.
    reading: Cell<bool>,
    /// The writer is.
    writing: Cell<bool>,
    bell: LocalBell,
    inbound: RefCell<Inbound>,
    outbound: RefCell<Outbound>,
    may_read: Notify,
    may_write: Notify,
}

impl ConnIo {
    /// Starts both tasks on this thread. `leftover` was read behind the handshake.
    pub fn start(stream: Stream, leftover: &[u8], bell: LocalBell) -> Rc<ConnIo> {
        let received = BytesMut::from(leftover);
        let halted = Halted { received, queue: VecDeque::new(), credits: Vec::new() };
        ConnIo::resume(stream, halted, bell)
    }

    /// Starts both tasks where another process's have stopped.
    pub fn resume(stream: Stream, halted: Halted, bell: LocalBell) -> Rc<ConnIo> {
        let Halted { received, queue, credits } = halted;
        let mut buffer = BytesMut::with_capacity(READ_CHUNK + received.len());
        buffer.extend_from_slice(&received);
        let inbound = Inbound { filled: Some(buffer), ..Inbound::default() };
        let queued_bytes = queue.iter().map(Tx::len).sum();
        let outbound = Outbound { queue, queued_bytes, credits, ..Outbound::default() };
        let io = Rc::new(ConnIo {
            stream,
            frozen: Cell::new(false),
            reading: Cell::new(false),
            writing: Cell::new(false),
            bell,
            inbound: RefCell::new(inbound),
            outbound: RefCell::new(outbound),
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

    /// Queues `tx`; [`ConnIo::flush`] sends it on its way.
    pub fn send(&self, tx: Tx) {
        let mut outbound = self.outbound.borrow_mut();
        outbound.queued_bytes += tx.len();
        outbound.queue.push_back(tx);
    }

    /// The tick has queued all it has. A little is written here, so that a change is on the wire
    /// when its tick ends; much, or what the socket does not take, is the writer's.
    pub fn flush(&self) {
        let mut outbound = self.outbound.borrow_mut();
        let busy = self.writing.get() || self.frozen.get() || outbound.closing || outbound.ended;
        if !busy && outbound.queued_bytes <= WRITE_NOW_MAX {
            let (mut chunks, credits, bytes) = next_write(&mut outbound);
            // An error comes again when the writer tries, which knows what to do about it.
            let written = match chunks.is_empty() {
                true => 0,
                false => self.stream.write_now(&chunks).unwrap_or(0),
            };
            if written == bytes {
                outbound.queued_bytes = outbound.queued_bytes.saturating_sub(bytes);
                if !credits.is_empty() {
                    outbound.credits.extend(credits);
                    self.bell.ring();
                }
                return;
            }
            skip(&mut chunks, written);
            put_back(&mut outbound, chunks, credits, bytes);
        }
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

    /// Has both tasks stop between two bytes, and waits until they have. The peer notices nothing
    /// but silence.
    ///
    /// # Errors
    /// The kernel cannot interrupt a read. The tasks go on once [`ConnIo::thaw`] is called.
    pub async fn freeze(&self, engine: Engine) -> io::Result<()> {
        self.frozen.set(true);
        while self.frozen.get() && (self.reading.get() || self.writing.get()) {
            self.stream.interrupt().await?;
            breathe(engine).await;
        }
        Ok(())
    }

    /// True when neither task holds any bytes.
    pub fn is_halted(&self) -> bool {
        self.frozen.get() && !self.reading.get() && !self.writing.get()
    }

    /// Lets both tasks go on where they stopped.
    pub fn thaw(&self) {
        self.frozen.set(false);
        self.may_read.notify_one();
        self.may_write.notify_one();
    }

    /// Another descriptor of the socket.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.stream.duplicate()
    }

    /// Everything between the socket and the session, copied. `held` is the buffer the tick keeps,
    /// if it does. To be called while [`ConnIo::is_halted`].
    pub fn halted(&self, held: Option<&BytesMut>) -> Halted {
        let inbound = self.inbound.borrow();
        let received = held.or(inbound.filled.as_ref()).or(inbound.empty.as_ref());
        let outbound = self.outbound.borrow();
        Halted {
            received: received.cloned().unwrap_or_default(),
            queue: outbound.queue.iter().cloned().collect(),
            credits: outbound.credits.clone(),
        }
    }
}

impl Tx {
    fn len(&self) -> usize {
        match self {
            Tx::Bytes(bytes) => bytes.len(),
            Tx::Credit(..) => 0,
        }
    }
}

async fn read_loop(io: Rc<ConnIo>) {
    let why = loop {
        let buffer = loop {
            if io.outbound.borrow().ended {
                break None;
            }
            if !io.frozen.get()
                && let Some(buffer) = io.inbound.borrow_mut().empty.take()
            {
                break Some(buffer);
            }
            io.may_read.notified().await;
        };
        let Some(buffer) = buffer else { break "closed".to_string() };
        io.reading.set(true);
        let (result, buffer) = io.stream.read(buffer).await;
        io.reading.set(false);
        match result {
            Err(error) if is_interrupted(&error) => {
                io.inbound.borrow_mut().empty = Some(buffer);
                continue;
            }
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
        if io.frozen.get() && !io.outbound.borrow().closing {
            io.may_write.notified().await;
            continue;
        }
        let (chunks, credits, bytes) = next_write(&mut io.outbound.borrow_mut());
        if !chunks.is_empty() {
            io.writing.set(true);
            let (result, rest) = io.stream.write_all(chunks).await;
            io.writing.set(false);
            match result {
                Err(error) if is_interrupted(&error) => {
                    put_back(&mut io.outbound.borrow_mut(), rest, credits, bytes);
                    continue;
                }
                // The reader will see why, or the peer has closed both ways.
                Err(_) => break,
                Ok(()) => {}
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

/// Takes the first `written` bytes off `chunks`.
fn skip(chunks: &mut Vec<Bytes>, mut written: usize) {
    let whole = chunks.iter().take_while(|chunk| {
        let whole = written >= chunk.len();
        written -= if whole { chunk.len() } else { 0 };
        whole
    });
    chunks.drain(..whole.count());
    if let Some(first) = chunks.first_mut() {
        first.advance(written);
    }
}

/// What was not written of a part of `bytes` bytes goes back to where it was taken from.
fn put_back(
    outbound: &mut Outbound,
    rest: Vec<Bytes>,
    credits: Vec<(usize, CreditKind)>,
    bytes: usize,
) {
    let left: usize = rest.iter().map(Bytes::len).sum();
    outbound.queued_bytes = outbound.queued_bytes.saturating_sub(bytes - left);
    let credits = credits.into_iter().map(|(shard, kind)| Tx::Credit(shard, kind));
    for tx in rest.into_iter().map(Tx::Bytes).chain(credits).rev() {
        outbound.queue.push_front(tx);
    }
}
