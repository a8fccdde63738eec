//! Listening sockets from one process to another over the stats socket: `_getsocks` and `-x`.
//!
//! HAProxy's format, measured on 2.6 and 3.4: the new process says `_getsocks`; the old one
//! answers with their number (32 bits in the machine's order), then with descriptors, up to 252 a
//! message, and for each the name of its namespace, of its network device (each with a length of
//! one byte before it) and 32 bits of options. The end of the connection is the end. The namespace
//! is not looked at: a socket is taken for an address that it has. Called by
//! [`crate::coordinator`]. Rule: a peer that sends something else is an error, and no start.
#![forbid(unsafe_code)]

use crate::limits::{GETSOCKS_MS, HANDOVER_FDS_MAX, RIGHTS_AT_ONCE};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::SockRef;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What the new process says.
pub const QUESTION: &[u8] = b"_getsocks\n";

/// Asks at the stats socket `path` for the listening sockets of its process.
pub fn ask(path: &str) -> io::Result<Vec<OwnedFd>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_millis(GETSOCKS_MS)))?;
    stream.set_write_timeout(Some(Duration::from_millis(GETSOCKS_MS)))?;
    stream.write_all(QUESTION)?;
    let mut count = [0; 4];
    stream.read_exact(&mut count)?;
    let count = i32::from_ne_bytes(count);
    let count = usize::try_from(count).ok().filter(|n| *n <= HANDOVER_FDS_MAX);
    let Some(count) = count else {
        let text = "it sends no sockets: 'expose-fd listeners' is missing there";
        return Err(io::Error::other(text));
    };
    let mut fds = Vec::with_capacity(count);
    while fds.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RIGHTS_AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut names = [0; 1 << 14];
        let mut names = [IoSliceMut::new(&mut names)];
        let message = recvmsg(&stream, &mut names, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = part {
                fds.extend(some);
            }
        }
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(fds)
}

/// Answers the question with these sockets. Never waits: a client that does not read gets less.
pub fn answer(to: impl AsFd, sockets: &[OwnedFd]) -> io::Result<()> {
    let count = i32::try_from(sockets.len()).map_err(io::Error::other)?;
    rustix::io::write(&to, &count.to_ne_bytes())?;
    for some in sockets.chunks(RIGHTS_AT_ONCE) {
        let mut names = Vec::new();
        for socket in some {
            let device = SockRef::from(socket).device().ok().flatten().unwrap_or_default();
            let device = &device[..device.len().min(255)];
            names.extend([0, device.len() as u8]);
            names.extend(device);
            names.extend(0i32.to_ne_bytes());
        }
        let fds: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RIGHTS_AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&to, &[IoSlice::new(&names)], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}
