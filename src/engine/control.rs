//! The channel between a master and a worker: messages, each with a descriptor or without.
//!
//! A pair of sockets of the kind that keeps messages apart. The worker gets its end as standard
//! input, so that nothing has a name that others could use; when either process dies, the other
//! one reads the end of it. Used by [`crate::master`] and [`crate::coordinator`]. Rule: a message
//! is small and sending never waits.
#![forbid(unsafe_code)]

use crate::limits::CONTROL_MESSAGE_MAX;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Two ends of a new channel.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    Ok(socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// Two ends of a new stream.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Sends one message, cut to the longest there may be.
pub fn send(end: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = &bytes[..bytes.len().min(CONTROL_MESSAGE_MAX)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(end, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// A message and what came with it.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub bytes: Vec<u8>,
    /// A descriptor.
    pub fd: Option<OwnedFd>,
}

/// One end inside a runtime, which knows it as a socket of messages.
#[derive(Debug)]
pub struct Channel(UnixDatagram);

impl Channel {
    /// Hands the end to the runtime of this thread.
    pub fn new(end: OwnedFd) -> io::Result<Channel> {
        fcntl_setfl(&end, OFlags::NONBLOCK)?;
        UnixDatagram::from_std(end.into()).map(Channel)
    }

    /// Sends one message.
    pub fn send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        send(&self.0, bytes, fd)
    }

    /// Waits for a message; `None`: the other side is gone. May be cancelled.
    pub async fn receive(&self) -> io::Result<Option<Received>> {
        self.0.async_io(Interest::READABLE, || receive(&self.0)).await
    }

    /// A message that has arrived already.
    pub fn take(&self) -> Option<Received> {
        receive(&self.0).ok().flatten()
    }
}

fn receive(end: impl AsFd) -> io::Result<Option<Received>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; CONTROL_MESSAGE_MAX];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let len = recvmsg(end, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?.bytes;
    let fd = control.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    bytes.truncate(len);
    Ok((len > 0).then_some(Received { bytes, fd }))
}
