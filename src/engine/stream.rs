//! One established connection's bytes, on either engine.
//!
//! Two tasks share a stream for its whole life: one reads, one writes. It ends by
//! [`Stream::shutdown`], which completes the pending read with 0. Both can be made to stop for a
//! while by [`Stream::interrupt`], which loses no byte; no future of theirs is ever dropped.

use super::Engine;
use super::socket::{borrow, duplicate};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use io_uring::{cqueue, opcode, types};
use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::Socket;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use tokio::sync::Notify;
use tokio_uring::buf::BoundedBuf;

/// Buffers handed to one `writev`; more would only lengthen the kernel's loop.
const IOVECS_MAX: usize = 16;

/// See the module head.
pub struct Stream {
    kind: Kind,
    /// Rung by [`Stream::interrupt`], for who waits on the epoll engine.
    interrupted: Notify,
}

enum Kind {
    /// TCP on io_uring.
    UringTcp(tokio_uring::net::TcpStream),
    /// Unix socket on io_uring.
    UringUnix(tokio_uring::net::UnixStream),
    /// TCP on epoll.
    EpollTcp(tokio::net::TcpStream),
    /// Unix socket on epoll.
    EpollUnix(tokio::net::UnixStream),
}

/// True when `error` only says that [`Stream::interrupt`] came: nothing was read or written.
pub fn is_interrupted(error: &io::Error) -> bool {
    let canceled = Some(Errno::CANCELED.raw_os_error());
    error.kind() == io::ErrorKind::Interrupted || error.raw_os_error() == canceled
}

/// Tries an I/O operation of a tokio socket until it is ready or the wait is interrupted. Waiting
/// for readiness moves no byte, so that this wait may be dropped.
macro_rules! when_ready {
    ($interrupted:expr, $ready:expr, $try:expr) => {
        loop {
            tokio::select! {
                biased;
                () = $interrupted.notified() => break Err(io::ErrorKind::Interrupted.into()),
                ready = $ready => if let Err(error) = ready {
                    break Err(error);
                },
            }
            match $try {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break result,
            }
        }
    };
}

impl Stream {
    /// Takes a connected socket over, on the thread whose runtime will drive it.
    pub fn new(engine: Engine, socket: OwnedFd) -> io::Result<Stream> {
        let socket = Socket::from(socket);
        let unix = socket.local_addr()?.is_unix();
        // io_uring waits by itself; on a non-blocking socket it would answer EAGAIN instead.
        socket.set_nonblocking(matches!(engine, Engine::Epoll))?;
        let fd = OwnedFd::from(socket);
        let kind = match (engine, unix) {
            (Engine::Uring(_), false) => {
                Kind::UringTcp(tokio_uring::net::TcpStream::from_std(fd.into()))
            }
            (Engine::Uring(_), true) => {
                Kind::UringUnix(tokio_uring::net::UnixStream::from_std(fd.into()))
            }
            (Engine::Epoll, false) => Kind::EpollTcp(tokio::net::TcpStream::from_std(fd.into())?),
            (Engine::Epoll, true) => Kind::EpollUnix(tokio::net::UnixStream::from_std(fd.into())?),
        };
        Ok(Stream { kind, interrupted: Notify::new() })
    }

    /// Reads into the spare capacity of `buffer`, behind what it holds. 0 means the peer has
    /// closed. Must be awaited to its end.
    pub async fn read(&self, mut buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        let held = buffer.len();
        match &self.kind {
            Kind::UringTcp(stream) => {
                let (result, slice) = stream.read(buffer.slice(held..)).await;
                (result, slice.into_inner())
            }
            Kind::UringUnix(stream) => {
                let (result, slice) = stream.read(buffer.slice(held..)).await;
                (result, slice.into_inner())
            }
            Kind::EpollTcp(stream) => {
                let result = when_ready!(
                    self.interrupted,
                    stream.readable(),
                    stream.try_read_buf(&mut within_capacity(&mut buffer))
                );
                (result, buffer)
            }
            Kind::EpollUnix(stream) => {
                let result = when_ready!(
                    self.interrupted,
                    stream.readable(),
                    stream.try_read_buf(&mut within_capacity(&mut buffer))
                );
                (result, buffer)
            }
        }
    }

    /// Writes all of `chunks` in order, several to a `writev`. Gives back what was not written,
    /// which is nothing unless there was an error.
    pub async fn write_all(&self, mut chunks: Vec<Bytes>) -> (io::Result<()>, Vec<Bytes>) {
        chunks.retain(|c| !c.is_empty());
        chunks.reverse();
        let mut result = Ok(());
        while !chunks.is_empty() {
            let batch: Vec<Bytes> = chunks.iter().rev().take(IOVECS_MAX).cloned().collect();
            let mut written = match self.write_some(batch).await {
                Ok(0) => {
                    result = Err(io::ErrorKind::WriteZero.into());
                    break;
                }
                Ok(written) => written,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            while let Some(chunk) = chunks.last_mut() {
                if written < chunk.len() {
                    chunk.advance(written);
                    break;
                }
                written -= chunk.len();
                chunks.pop();
            }
        }
        chunks.reverse();
        (result, chunks)
    }

    /// Writes what the socket takes at once of `chunks`; waits for nothing. Not to be called while
    /// [`Stream::write_all`] is under way.
    pub fn write_now(&self, chunks: &[Bytes]) -> io::Result<usize> {
        match &self.kind {
            Kind::UringTcp(stream) => send_now(stream, chunks),
            Kind::UringUnix(stream) => send_now(stream, chunks),
            Kind::EpollTcp(stream) => send_now(stream, chunks),
            Kind::EpollUnix(stream) => send_now(stream, chunks),
        }
    }

    async fn write_some(&self, batch: Vec<Bytes>) -> io::Result<usize> {
        match &self.kind {
            Kind::UringTcp(stream) => stream.writev(batch).await.0,
            Kind::UringUnix(stream) => stream.writev(batch).await.0,
            Kind::EpollTcp(stream) => when_ready!(
                self.interrupted,
                stream.writable(),
                stream.try_write_vectored(&slices(&batch))
            ),
            Kind::EpollUnix(stream) => when_ready!(
                self.interrupted,
                stream.writable(),
                stream.try_write_vectored(&slices(&batch))
            ),
        }
    }

    /// Ends the read and the write that wait now, with an error that [`is_interrupted`] knows or
    /// with the bytes that had moved already: none is lost. One that is just being begun may be
    /// missed, so repeat this until the tasks have stopped.
    ///
    /// # Errors
    /// The kernel cannot (Linux before 5.19 with io_uring); everything goes on.
    pub async fn interrupt(&self) -> io::Result<()> {
        match &self.kind {
            Kind::UringTcp(stream) => cancel(stream.as_raw_fd()).await,
            Kind::UringUnix(stream) => cancel(stream.as_raw_fd()).await,
            Kind::EpollTcp(_) | Kind::EpollUnix(_) => {
                self.interrupted.notify_waiters();
                Ok(())
            }
        }
    }

    /// Another descriptor of the same socket, to be given to another process.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        match &self.kind {
            Kind::UringTcp(stream) => duplicate(stream),
            Kind::UringUnix(stream) => duplicate(stream),
            Kind::EpollTcp(stream) => duplicate(stream),
            Kind::EpollUnix(stream) => duplicate(stream),
        }
    }

    /// Ends both directions. Pending reads complete with 0, pending writes with an error.
    pub fn shutdown(&self) {
        // An error means that the connection is gone already, which is what was wanted.
        let _ = match &self.kind {
            Kind::UringTcp(stream) => stream.shutdown(Shutdown::Both),
            Kind::UringUnix(stream) => stream.shutdown(Shutdown::Both),
            Kind::EpollTcp(stream) => shutdown_fd(stream),
            Kind::EpollUnix(stream) => shutdown_fd(stream),
        };
    }
}

/// Cancels what this thread's ring does on a descriptor. The request goes through the same queue as
/// the reads and writes, so it finds all that were queued before it. A socket's read is either
/// still waiting for data (then it ends with ECANCELED and has taken none) or has taken some (then
/// it ends with them): the kernel never does half of each.
async fn cancel(fd: RawFd) -> io::Result<()> {
    struct Answer;
    impl tokio_uring::OneshotOutputTransform for Answer {
        type Output = i32;
        type StoredData = ();
        fn transform_oneshot_output(self, (): (), cqe: cqueue::Entry) -> i32 {
            cqe.result()
        }
    }
    let what = types::CancelBuilder::fd(types::Fd(fd)).all();
    let request = opcode::AsyncCancel2::new(what).build();
    let answer = tokio_uring::UnsubmittedOneshot::new((), Answer, request).submit().await;
    if answer >= 0 {
        return Ok(());
    }
    match Errno::from_raw_os_error(answer.saturating_neg()) {
        // Nothing found, or found in the middle of its work: it will be looked for again.
        Errno::NOENT | Errno::ALREADY => Ok(()),
        errno => Err(errno.into()),
    }
}

fn send_now(stream: &impl AsRawFd, chunks: &[Bytes]) -> io::Result<usize> {
    let slices = slices(&chunks[..chunks.len().min(IOVECS_MAX)]);
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut control = rustix::net::SendAncillaryBuffer::default();
    Ok(rustix::net::sendmsg(borrow(stream), &slices, &mut control, flags)?)
}

fn shutdown_fd(fd: &impl std::os::fd::AsFd) -> io::Result<()> {
    socket2::SockRef::from(fd).shutdown(Shutdown::Both)
}

fn slices(batch: &[Bytes]) -> Vec<IoSlice<'_>> {
    batch.iter().map(|b| IoSlice::new(b)).collect()
}

/// `buffer` as one that ends at its capacity instead of growing, like the other engine's.
fn within_capacity(buffer: &mut BytesMut) -> bytes::buf::Limit<&mut BytesMut> {
    let room = buffer.capacity() - buffer.len();
    buffer.limit(room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineChoice;
    use crate::engine::probe::probe;
    use crate::engine::thread;
    use std::io::{Read, Write};

    /// Runs `test` inside a runtime of each engine this system has.
    fn on_each_engine<F: Future<Output = ()> + 'static>(test: fn(Engine) -> F) {
        let uring = probe(EngineChoice::Auto).unwrap().engine;
        for engine in [uring, Engine::Epoll] {
            let name = "test".to_string();
            let thread =
                thread::spawn(name, engine, None, |r| assert!(r.is_ok()), move || test(engine));
            thread.unwrap().join().unwrap();
        }
    }

    fn pair(engine: Engine) -> (std::os::unix::net::UnixStream, Stream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        (ours, Stream::new(engine, theirs.into()).unwrap())
    }

    #[test]
    fn reads_append_within_capacity() {
        on_each_engine(|engine| async move {
            let (mut peer, stream) = pair(engine);
            peer.write_all(b"cdefgh").unwrap();
            let mut buffer = BytesMut::with_capacity(4);
            buffer.extend_from_slice(b"ab");
            let room = buffer.capacity() - 2;
            let (result, buffer) = stream.read(buffer).await;
            let n = result.unwrap();
            assert!(n <= room);
            assert_eq!(buffer[..], b"abcdefgh"[..2 + n]);
        });
    }

    #[test]
    fn many_chunks_are_written_in_order() {
        on_each_engine(|engine| async move {
            let (mut peer, stream) = pair(engine);
            let chunks: Vec<Bytes> = (0..100u8).map(|i| Bytes::from(vec![i; 10_000])).collect();
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                all
            });
            let (result, rest) = stream.write_all(chunks).await;
            assert!(result.is_ok() && rest.is_empty());
            stream.shutdown();
            let all = reader.join().unwrap();
            assert_eq!(all.len(), 1_000_000);
            assert!(all.iter().enumerate().all(|(i, b)| usize::from(*b) == i / 10_000));
        });
    }

    #[test]
    fn shutdown_ends_a_pending_read() {
        on_each_engine(|engine| async move {
            let (_peer, stream) = pair(engine);
            let stream = std::rc::Rc::new(stream);
            let reading = stream.clone();
            let read = tokio::task::spawn_local(async move {
                reading.read(BytesMut::with_capacity(16)).await.0
            });
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            stream.shutdown();
            assert_eq!(read.await.unwrap().unwrap(), 0);
        });
    }

    #[test]
    fn an_interrupted_read_and_write_lose_nothing() {
        on_each_engine(|engine| async move {
            let (mut peer, stream) = pair(engine);
            let stream = std::rc::Rc::new(stream);
            let reading = stream.clone();
            let read = tokio::task::spawn_local(async move {
                let mut buffer = BytesMut::with_capacity(64);
                buffer.extend_from_slice(b"held");
                reading.read(buffer).await
            });
            let writing = stream.clone();
            let write = tokio::task::spawn_local(async move {
                // More than the socket takes: it waits in the middle.
                writing.write_all(vec![Bytes::from(vec![7; 1_000_000]); 8]).await
            });
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            stream.interrupt().await.unwrap();
            let (result, buffer) = read.await.unwrap();
            assert!(is_interrupted(&result.unwrap_err()));
            assert_eq!(&buffer[..], b"held");
            let (result, rest) = write.await.unwrap();
            assert!(is_interrupted(&result.unwrap_err()));
            let left: usize = rest.iter().map(Bytes::len).sum();
            assert!(left > 0 && left < 8_000_000);
            // The very next byte is for the next read, and exactly what is left was not written.
            peer.write_all(b"x").unwrap();
            let (result, buffer) = stream.read(buffer).await;
            assert_eq!((result.unwrap(), &buffer[..]), (1, &b"heldx"[..]));
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                all.len()
            });
            stream.shutdown();
            assert_eq!(reader.join().unwrap() + left, 8_000_000);
        });
    }

    #[test]
    fn a_duplicate_goes_on_when_the_first_is_closed() {
        on_each_engine(|engine| async move {
            let (mut peer, stream) = pair(engine);
            let copy = Stream::new(engine, stream.duplicate().unwrap()).unwrap();
            drop(stream);
            peer.write_all(b"still").unwrap();
            let (result, buffer) = copy.read(BytesMut::with_capacity(16)).await;
            assert_eq!((result.unwrap(), &buffer[..]), (5, &b"still"[..]));
        });
    }
}
