//! Bytes and descriptors between two processes of this machine.
//!
//! A process listens under an abstract name made of its pid, so that nothing is left in the file
//! system; both sides ask the kernel who the other one is. Everything here blocks, with deadlines:
//! it runs before there are shards, or on a thread of its own. Rule: only the same user, or root,
//! is talked to.

#![forbid(unsafe_code)]

use crate::limits::{
    HANDOVER_FDS_MAX, HANDOVER_FRAME_MAX, HANDOVER_IO_MS, HANDOVER_PAUSE_MS, RIGHTS_AT_ONCE,
};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::Uid;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// One end of a conversation.
#[derive(Debug)]
pub struct Wire(UnixStream);

/// Where another process may ask this one.
#[derive(Debug)]
pub struct Asked(UnixListener);

fn name_of(pid: i32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("stickring-handover-{pid}"))
}

impl Asked {
    /// Listens under this process's name.
    pub fn listen() -> io::Result<Asked> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        UnixListener::bind_addr(&name_of(pid)?).map(Asked)
    }

    /// The next process that asks, and its pid; those who may not are turned away.
    pub fn accept(&self) -> (Wire, i32) {
        loop {
            let asked = self.0.accept().and_then(|(stream, _)| {
                let wire = Wire::new(stream)?;
                let pid = wire.other()?;
                Ok((wire, pid))
            });
            match asked {
                Ok(asked) => return asked,
                // Out of descriptors, or one that may not: this may pass, and who asks waits.
                Err(_) => std::thread::park_timeout(Duration::from_millis(HANDOVER_PAUSE_MS)),
            }
        }
    }
}

impl Wire {
    fn new(stream: UnixStream) -> io::Result<Wire> {
        stream.set_read_timeout(Some(Duration::from_millis(HANDOVER_IO_MS)))?;
        stream.set_write_timeout(Some(Duration::from_millis(HANDOVER_IO_MS)))?;
        Ok(Wire(stream))
    }

    /// Asks the process `pid`.
    ///
    /// # Errors
    /// It does not listen, or somebody else does under its name.
    pub fn connect(pid: i32) -> io::Result<Wire> {
        let wire = Wire::new(UnixStream::connect_addr(&name_of(pid)?)?)?;
        if wire.other()? != pid {
            return Err(io::Error::other("another process answers under its name"));
        }
        Ok(wire)
    }

    /// The connection itself, to be given to a runtime.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        self.0.set_nonblocking(true)?;
        Ok(self.0.into())
    }

    /// The other side's pid, when it is trusted.
    fn other(&self) -> io::Result<i32> {
        let other = rustix::net::sockopt::socket_peercred(&self.0)?;
        if !is_trusted(rustix::process::geteuid(), other.uid) {
            return Err(Errno::PERM.into());
        }
        Ok(other.pid.as_raw_nonzero().get())
    }

    /// Sends `bytes` as one frame.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.0.write_all(&len.to_le_bytes())?;
        self.0.write_all(bytes)
    }

    /// The next frame.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut len = [0; 4];
        self.0.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > HANDOVER_FRAME_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Sends descriptors, several with each byte.
    pub fn send_fds(&mut self, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        for some in fds.chunks(RIGHTS_AT_ONCE) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RIGHTS_AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(some)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let byte = [IoSlice::new(b"f")];
            retry_on_intr(|| sendmsg(&self.0, &byte, &mut control, SendFlags::NOSIGNAL))?;
        }
        Ok(())
    }

    /// Receives `count` descriptors.
    pub fn receive_fds(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        if count > HANDOVER_FDS_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut fds = Vec::with_capacity(count);
        while fds.len() < count {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RIGHTS_AT_ONCE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let mut bytes = [IoSliceMut::new(&mut byte)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            // The end of a probed ring may interrupt us, though no signal comes.
            let message = retry_on_intr(|| recvmsg(&self.0, &mut bytes, &mut control, flags))?;
            let before = fds.len();
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(some) = part {
                    fds.extend(some);
                }
            }
            // Fewer than sent: we have no room for more descriptors.
            if message.bytes == 0 || fds.len() - before != (count - before).min(RIGHTS_AT_ONCE) {
                return Err(io::Error::other("descriptors did not arrive"));
            }
        }
        Ok(fds)
    }
}

/// True when a process of `own` user gives everything to, or takes it from, one of the `other`:
/// the same user, or root. Root itself trusts root only: nobody else's memory, and nobody else with
/// its own.
fn is_trusted(own: Uid, other: Uid) -> bool {
    other == own || other.is_root()
}

/// The right to go on, of which there is one: two processes hold it, and the kernel gives it to
/// whoever takes it first, whatever becomes of the other. Dying takes nothing.
#[derive(Debug)]
pub struct Token(OwnedFd);

impl Token {
    /// A token that nobody has taken.
    pub fn new() -> io::Result<Token> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        Ok(Token(eventfd(1, flags)?))
    }

    /// The other end of a token, as received.
    pub fn from_fd(fd: OwnedFd) -> Token {
        Token(fd)
    }

    /// Takes it. False: the other process has.
    pub fn take(&self) -> bool {
        let mut count = [0; 8];
        rustix::io::read(&self.0, &mut count) == Ok(8)
    }

    /// To be sent.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Memory that holds `bytes`, to be sent.
pub fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("handover", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// What [`sealed`] holds.
pub fn unsealed(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(fd);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_descriptors_and_frames_arrive_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut a, mut b) = (Wire::new(a).unwrap(), Wire::new(b).unwrap());
        let count = 2 * RIGHTS_AT_ONCE + 3;
        let files: Vec<OwnedFd> =
            (0..count).map(|i| sealed(i.to_string().as_bytes()).unwrap()).collect();
        let sender = std::thread::spawn(move || {
            a.send(b"before").unwrap();
            let fds: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
            a.send_fds(&fds).unwrap();
            a.send(b"behind").unwrap();
        });
        assert_eq!(b.receive().unwrap(), b"before");
        let fds = b.receive_fds(count).unwrap();
        assert_eq!(b.receive().unwrap(), b"behind");
        sender.join().unwrap();
        for (i, fd) in fds.into_iter().enumerate() {
            assert_eq!(unsealed(fd).unwrap(), i.to_string().as_bytes());
        }
        assert!(b.receive().is_err(), "the other end is closed");
    }

    #[test]
    fn a_process_is_asked_by_its_pid_and_knows_who_asks() {
        let own = std::process::id() as i32;
        assert!(Wire::connect(own).is_err(), "nobody listens");
        let asked = Asked::listen().unwrap();
        let mut wire = Wire::connect(own).unwrap();
        let (mut other, pid) = asked.accept();
        assert_eq!(pid, own);
        wire.send(b"x").unwrap();
        assert_eq!(other.receive().unwrap(), b"x");
        other.send(&vec![7; 100_000]).unwrap();
        assert_eq!(wire.receive().unwrap().len(), 100_000);
    }

    #[test]
    fn only_the_same_user_and_root_are_trusted() {
        let [root, one, two] = [0, 1_000, 1_001].map(Uid::from_raw);
        for own in [root, one, two] {
            assert!(is_trusted(own, own) && is_trusted(own, root));
        }
        assert!(!is_trusted(root, one), "not even by root");
        assert!(!is_trusted(one, two));
    }

    #[test]
    fn one_of_two_gets_the_token() {
        for _ in 0..100 {
            let ours = Token::new().unwrap();
            let theirs = Token::from_fd(ours.0.try_clone().unwrap());
            let other = std::thread::spawn(move || theirs.take());
            let won = ours.take();
            assert_ne!(won, other.join().unwrap());
            assert!(!ours.take(), "once");
        }
    }
}
