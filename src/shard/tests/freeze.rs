//! A connection at full speed in both directions, stopped and continued thousands of times, by the
//! same tasks or by new ones on another descriptor: no byte is lost, doubled or out of order.

use crate::config::EngineChoice;
use crate::engine::{Doorbell, Engine, Stream, breathe, probe, thread};
use crate::session::random::Random;
use crate::shard::connection::{ConnIo, LocalBell, Tx};
use crate::shard::message::CreditKind;
use bytes::{Buf, Bytes, BytesMut};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const CYCLES: u32 = 3_000;
/// Bytes are told apart by their position, with a period that no buffer size divides.
const PERIOD: u64 = 251 * 241;

/// The bytes at `from` and behind.
fn stretch(from: u64, len: usize) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let byte = |p: u64| (p % 251) as u8 ^ (p % PERIOD / 251) as u8;
    let bytes = BYTES.get_or_init(|| (0..PERIOD + 8_000_000).map(byte).collect());
    &bytes[(from % PERIOD) as usize..][..len]
}

/// For the other side's writer to end, and to say what it has sent.
#[derive(Default)]
struct Stop {
    now: AtomicBool,
    sent: AtomicU64,
}

/// The other side: writes and checks as fast as it can until it is told to stop, then says how far
/// it came in each direction.
fn other_side<S>(read: S, write: S, stop: Arc<Stop>) -> std::thread::JoinHandle<(u64, u64)>
where
    S: Read + Write + Send + 'static,
{
    let (mut read, mut write) = (read, write);
    std::thread::spawn(move || {
        let writer = std::thread::spawn(move || {
            let (mut sent, mut random) = (0u64, Random::new(5));
            while !stop.now.load(Ordering::Relaxed) {
                let some = stretch(sent, 1 + random.below(60_000) as usize);
                write.write_all(some).unwrap();
                sent += some.len() as u64;
            }
            stop.sent.store(sent, Ordering::Relaxed);
            sent
        });
        let (mut got, mut buffer) = (0u64, vec![0; 70_000]);
        loop {
            let n = read.read(&mut buffer).unwrap();
            if n == 0 {
                return (writer.join().unwrap(), got);
            }
            assert!(buffer[..n] == *stretch(got, n), "sent wrongly behind {got}");
            got += n as u64;
        }
    })
}

/// Our side: what the tick would do.
struct Ours {
    io: Rc<ConnIo>,
    bell: LocalBell,
    received: u64,
    queued: u64,
    credits_due: u32,
    credits: u32,
    random: Random,
}

impl Ours {
    fn pump(&mut self) {
        if let Some(mut buffer) = self.io.take_filled() {
            // Like a session that has the beginning of a message left.
            let left = (self.random.below(40) as usize).min(buffer.len());
            let taken = buffer.len() - left;
            assert!(buffer[..taken] == *stretch(self.received, taken), "at {}", self.received);
            self.received += taken as u64;
            buffer.advance(taken);
            self.io.give_back(buffer);
        }
        // Much, which is the writer's, or little, which is written at once.
        let (most, each) = match self.random.below(4) {
            0 => (4_000, 4_000),
            _ => (1_000_000, 100_000),
        };
        while self.io.queued_bytes() < most {
            let some = stretch(self.queued, 1 + self.random.below(each) as usize);
            self.queued += some.len() as u64;
            self.io.send(Tx::Bytes(Bytes::from_static(some)));
            self.io.send(Tx::Credit(3, CreditKind::Changes));
            self.credits_due += 1;
        }
        self.io.flush();
        self.credits += self.io.take_credits().len() as u32;
    }

    /// Other tasks on another descriptor take the place of those there were, which stay frozen.
    fn replace(&mut self, engine: Engine) {
        let halted = self.io.halted(None);
        let stream = Stream::new(engine, self.io.duplicate().unwrap()).unwrap();
        self.io = ConnIo::resume(stream, halted, self.bell.clone());
    }
}

async fn cycles(engine: Engine, fd: OwnedFd, stop: Arc<Stop>) -> (u64, u64) {
    let bell = LocalBell::new(Arc::new(vec![Doorbell::default()]), 0);
    let io = ConnIo::start(Stream::new(engine, fd).unwrap(), b"", bell.clone());
    let random = Random::new(7);
    let (received, queued, credits_due, credits) = (0, 0, 0, 0);
    let mut ours = Ours { io, bell, received, queued, credits_due, credits, random };
    for cycle in 0..CYCLES {
        for _ in 0..ours.random.below(4) {
            ours.pump();
            breathe(engine).await;
        }
        ours.io.freeze(engine).await.unwrap();
        assert!(ours.io.is_halted());
        let (before, queue) = (ours.io.halted(None).received, ours.io.queued_bytes());
        if cycle % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        breathe(engine).await;
        assert_eq!(before, ours.io.halted(None).received, "it stands still");
        assert_eq!(queue, ours.io.queued_bytes());
        if cycle % 8 == 0 {
            ours.replace(engine);
        } else {
            ours.io.thaw();
        }
    }
    stop.now.store(true, Ordering::Relaxed);
    // All that the other side has sent arrives, and all of ours is written.
    let mut patience_ms = 20_000;
    loop {
        assert!(patience_ms > 0, "{} of {:?} have come", ours.received, stop.sent);
        patience_ms -= 1;
        if let Some(buffer) = ours.io.take_filled() {
            let n = buffer.len();
            assert!(buffer[..] == *stretch(ours.received, n));
            ours.received += n as u64;
            ours.io.give_back(BytesMut::new());
        }
        ours.credits += ours.io.take_credits().len() as u32;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let sent = stop.sent.load(Ordering::Relaxed);
        if ours.received + 40 < sent || ours.credits < ours.credits_due {
            continue;
        }
        // What was left in the buffer comes again only with more behind it.
        ours.io.freeze(engine).await.unwrap();
        let rest = ours.io.halted(None).received;
        if ours.received + rest.len() as u64 == sent {
            assert!(rest[..] == *stretch(ours.received, rest.len()));
            ours.received = sent;
            break;
        }
        ours.io.thaw();
    }
    assert_eq!((ours.io.queued_bytes(), ours.credits), (0, ours.credits_due));
    ours.io.close();
    (ours.received, ours.queued)
}

fn both_ends<S: Read + Write + Send + 'static>(engine: Engine, theirs: [S; 2], ours: OwnedFd) {
    let stop = Arc::new(Stop::default());
    let [read, write] = theirs;
    let other = other_side(read, write, stop.clone());
    let (tell, told) = std::sync::mpsc::channel();
    let work = move || async move { tell.send(cycles(engine, ours, stop).await).unwrap() };
    thread::spawn("test".into(), engine, None, |r| assert!(r.is_ok()), work)
        .unwrap()
        .join()
        .unwrap();
    let (received, queued) = told.recv().unwrap();
    let (sent, got) = other.join().unwrap();
    assert_eq!((received, queued), (sent, got));
    assert!(sent > 10_000_000 && got > 10_000_000, "hardly anything moved: {sent}, {got}");
}

fn engines() -> [Engine; 2] {
    [probe::probe(EngineChoice::Auto).unwrap().engine, Engine::Epoll]
}

#[test]
fn freezing_a_tcp_connection_loses_no_byte() {
    for engine in engines() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        both_ends(engine, [theirs.try_clone().unwrap(), theirs], ours.into());
    }
}

#[test]
fn freezing_a_unix_connection_loses_no_byte() {
    for engine in engines() {
        let (theirs, ours) = UnixStream::pair().unwrap();
        both_ends(engine, [theirs.try_clone().unwrap(), theirs], ours.into());
    }
}
