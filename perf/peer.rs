//! One peers session as the generator holds it: plain blocking sockets, big reads and writes.
//!
//! Owns the socket and the bytes not yet cut. Called by every measurement. Rule: whatever the
//! daemon asks for is answered (a resync request by *finished*, the end of a lesson by *confirm*),
//! since HAProxy pushes nothing and times out otherwise (protocol.md 6).

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use stickring::wire::{Control, Cut, Frame, Message, frame, hello};

use crate::{Outcome, fail};

/// Bytes of one read or write.
pub const BLOCK: usize = 256 * 1024;
/// Longest message we take (`tune.bufsize` of the tuned HAProxy).
const MESSAGE_MAX: usize = 131_072;
/// A sign of life at least that often; HAProxy gives up behind 5 s of silence.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// A daemon that says nothing at all for that long is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Bytes received and not yet cut.
pub struct Inbox {
    sock: TcpStream,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    fn new(sock: TcpStream) -> Inbox {
        Inbox { sock, bytes: vec![0; BLOCK + MESSAGE_MAX + frame::HEADER_MAX], start: 0, end: 0 }
    }

    /// One read. `Ok(false)`: nothing came within the socket's timeout, or would block.
    pub fn fill(&mut self) -> Outcome<bool> {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        match self.sock.read(&mut self.bytes[self.end..]) {
            Ok(0) => fail("the daemon closed the session"),
            Ok(n) => {
                self.end += n;
                Ok(true)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Moves what has not been cut to the start of `to`. Returns how many bytes.
    fn take(&mut self, to: &mut [u8]) -> usize {
        let rest = &self.bytes[self.start..self.end];
        to[..rest.len()].copy_from_slice(rest);
        (self.start, self.end) = (0, 0);
        rest.len()
    }

    /// The next whole message.
    pub fn next(&mut self) -> Outcome<Option<Frame<'_>>> {
        match frame::cut(&self.bytes[self.start..self.end], MESSAGE_MAX)? {
            Cut::Frame(f) => {
                self.start += f.len;
                Ok(Some(f))
            }
            Cut::NeedMore(_) => Ok(None),
        }
    }
}

/// A session.
pub struct Peer {
    /// What comes in.
    pub inbox: Inbox,
    /// The sending side.
    pub sock: TcpStream,
    last_beat: Instant,
}

impl Peer {
    /// Connects as `name` to the node called `node`; a heartbeat follows the 200 at once.
    pub fn connect(address: &str, name: &str, node: &str) -> Outcome<Peer> {
        let sock = TcpStream::connect(address)?;
        sock.set_nodelay(true)?;
        sock.set_read_timeout(Some(HEARTBEAT / 4))?;
        let mut peer =
            Peer { inbox: Inbox::new(sock.try_clone()?), sock, last_beat: Instant::now() };
        peer.sock.write_all(&hello::encode_hello(1, node, name, std::process::id()))?;
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            peer.inbox.fill()?;
            let bytes = &peer.inbox.bytes[peer.inbox.start..peer.inbox.end];
            match hello::parse_status(bytes) {
                Ok(Some((200, n))) => {
                    peer.inbox.start += n;
                    break;
                }
                Ok(Some((code, _))) => return fail(format!("{name} is answered {code}")),
                Ok(None) if Instant::now() < end => {}
                _ => return fail("no status line within 5 s"),
            }
        }
        peer.control(Control::Heartbeat)?;
        Ok(peer)
    }

    /// Sends a control message.
    pub fn control(&mut self, message: Control) -> Outcome<()> {
        self.last_beat = Instant::now();
        Ok(self.sock.write_all(&message.bytes())?)
    }

    /// A heartbeat when it is time for one.
    pub fn beat(&mut self) -> Outcome<()> {
        if self.last_beat.elapsed() >= HEARTBEAT {
            self.control(Control::Heartbeat)
        } else {
            Ok(())
        }
    }

    /// Waits for the resync request of a daemon that has just started, answers *finished* and waits
    /// for the confirmation: from then on the daemon counts itself up to date.
    pub fn settle(&mut self, limit: Duration) -> Outcome<()> {
        let end = Instant::now() + limit;
        let mut asked = false;
        while Instant::now() < end {
            self.inbox.fill()?;
            let (mut request, mut confirmed) = (false, false);
            while let Some(f) = self.inbox.next()? {
                match Message::of(&f)? {
                    Message::Control(Control::ResyncRequest) => request = true,
                    Message::Control(Control::ResyncConfirm) => confirmed = asked,
                    Message::Error(code) => return fail(format!("the daemon sent error {code}")),
                    _ => {}
                }
            }
            if request {
                asked = true;
                self.control(Control::ResyncFinished)?;
            } else if confirmed {
                return Ok(());
            }
            self.beat()?;
        }
        let what = if asked { "confirmed our end of the lesson" } else { "asked for a resync" };
        fail(format!("the daemon has not {what} within {limit:?}"))
    }

    /// Asks for everything and keeps the bytes; what they say is for the caller to check. Returns
    /// them with the times of the request, the first entry and the end.
    pub fn resync(&mut self, expected: u32) -> Outcome<Lesson> {
        // Touched before the clock starts, so that fresh pages are not the receiver's brake.
        let mut bytes = vec![1u8; 64 * 1024 + expected as usize * 40];
        let (mut cut, mut end, mut entries) = (0, self.inbox.take(&mut bytes), 0u64);
        let begin = Instant::now();
        let mut first = None;
        let mut last_byte = begin;
        self.control(Control::ResyncRequest)?;
        loop {
            if bytes.len() - end < BLOCK {
                bytes.resize(bytes.len() * 2 + BLOCK, 1);
            }
            match self.inbox.sock.read(&mut bytes[end..end + BLOCK]) {
                Ok(0) => return fail(format!("closed in a lesson, behind {entries} entries")),
                Ok(n) => {
                    end += n;
                    last_byte = Instant::now();
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(e.into()),
            }
            if last_byte.elapsed() > SILENCE_MAX {
                return fail(format!("silence in a lesson, behind {entries} entries"));
            }
            while let Cut::Frame(f) = frame::cut(&bytes[cut..end], MESSAGE_MAX)? {
                cut += f.len;
                match Message::of(&f)? {
                    // Untimed ones are pushed beside the lesson, not part of it.
                    Message::Update(form, _) => entries += u64::from(form.timed),
                    Message::Control(Control::ResyncFinished | Control::ResyncPartial) => {
                        let finished = f.kind == Control::ResyncFinished as u8;
                        let took = last_byte - begin;
                        let first = first.unwrap_or(took);
                        bytes.truncate(cut);
                        self.control(Control::ResyncConfirm)?;
                        return Ok(Lesson { bytes, entries, finished, first, took });
                    }
                    _ => {}
                }
            }
            if entries > 0 && first.is_none() {
                first = Some(last_byte - begin);
            }
            self.beat()?;
        }
    }
}

/// A full resync as it came.
pub struct Lesson {
    /// All messages up to its end.
    pub bytes: Vec<u8>,
    /// Entries among them.
    pub entries: u64,
    /// It ended with *finished*, not *partial*.
    pub finished: bool,
    /// From there to the first entry.
    pub first: Duration,
    /// From there to its end.
    pub took: Duration,
}

impl Lesson {
    /// Compares it with the model. Returns the distinct keys.
    pub fn check(&self, check: crate::model::Check<'_>) -> Outcome<u32> {
        let mut check = check;
        let mut at = 0;
        while let Cut::Frame(f) = frame::cut(&self.bytes[at..], MESSAGE_MAX)? {
            at += f.len;
            match Message::of(&f)? {
                Message::Define(payload) => check.define(payload)?,
                Message::Update(form, payload) => check.entry(form, payload)?,
                _ => {}
            }
        }
        check.finish()
    }
}
