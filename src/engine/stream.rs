//! One established connection's bytes, on either engine.
//!
//! Two tasks share a stream for its whole life: one reads, one writes. It ends by
//! [`Stream::shutdown`], which completes the pending read with 0; nothing is ever cancelled.

use super::Engine;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use socket2::Socket;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use tokio_uring::buf::BoundedBuf;

/// Buffers handed to one `writev`; more would only lengthen the kernel's loop.
const IOVECS_MAX: usize = 16;

/// See the module head.
pub enum Stream {
    /// TCP on io_uring.
    UringTcp(tokio_uring::net::TcpStream),
    /// Unix socket on io_uring.
    UringUnix(tokio_uring::net::UnixStream),
    /// TCP on epoll.
    EpollTcp(tokio::net::TcpStream),
    /// Unix socket on epoll.
    EpollUnix(tokio::net::UnixStream),
}

impl Stream {
    /// Takes a connected socket over, on the thread whose runtime will drive it.
    pub fn new(engine: Engine, socket: OwnedFd) -> io::Result<Stream> {
        let socket = Socket::from(socket);
        let unix = socket.local_addr()?.is_unix();
        // io_uring waits by itself; on a non-blocking socket it would answer EAGAIN instead.
        socket.set_nonblocking(matches!(engine, Engine::Epoll))?;
        let fd = OwnedFd::from(socket);
        Ok(match (engine, unix) {
            (Engine::Uring(_), false) => {
                Stream::UringTcp(tokio_uring::net::TcpStream::from_std(fd.into()))
            }
            (Engine::Uring(_), true) => {
                Stream::UringUnix(tokio_uring::net::UnixStream::from_std(fd.into()))
            }
            (Engine::Epoll, false) => Stream::EpollTcp(tokio::net::TcpStream::from_std(fd.into())?),
            (Engine::Epoll, true) => {
                Stream::EpollUnix(tokio::net::UnixStream::from_std(fd.into())?)
            }
        })
    }

    /// Reads into the spare capacity of `buffer`, behind what it holds. 0 means the peer has
    /// closed. Must be awaited to its end.
    pub async fn read(&self, mut buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        let held = buffer.len();
        match self {
            Stream::UringTcp(stream) => {
                let (result, slice) = stream.read(buffer.slice(held..)).await;
                (result, slice.into_inner())
            }
            Stream::UringUnix(stream) => {
                let (result, slice) = stream.read(buffer.slice(held..)).await;
                (result, slice.into_inner())
            }
            Stream::EpollTcp(stream) => loop {
                if let Err(error) = stream.readable().await {
                    return (Err(error), buffer);
                }
                match stream.try_read_buf(&mut within_capacity(&mut buffer)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return (result, buffer),
                }
            },
            Stream::EpollUnix(stream) => loop {
                if let Err(error) = stream.readable().await {
                    return (Err(error), buffer);
                }
                match stream.try_read_buf(&mut within_capacity(&mut buffer)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return (result, buffer),
                }
            },
        }
    }

    /// Writes all of `chunks` in order, several to a `writev`.
    pub async fn write_all(&self, mut chunks: Vec<Bytes>) -> io::Result<()> {
        chunks.retain(|c| !c.is_empty());
        chunks.reverse();
        while !chunks.is_empty() {
            let batch: Vec<Bytes> = chunks.iter().rev().take(IOVECS_MAX).cloned().collect();
            let mut written = self.write_some(batch).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while let Some(chunk) = chunks.last_mut() {
                if written < chunk.len() {
                    chunk.advance(written);
                    break;
                }
                written -= chunk.len();
                chunks.pop();
            }
        }
        Ok(())
    }

    async fn write_some(&self, batch: Vec<Bytes>) -> io::Result<usize> {
        match self {
            Stream::UringTcp(stream) => stream.writev(batch).await.0,
            Stream::UringUnix(stream) => stream.writev(batch).await.0,
            Stream::EpollTcp(stream) => loop {
                stream.writable().await?;
                match stream.try_write_vectored(&slices(&batch)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            },
            Stream::EpollUnix(stream) => loop {
                stream.writable().await?;
                match stream.try_write_vectored(&slices(&batch)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            },
        }
    }

    /// Ends both directions. Pending reads complete with 0, pending writes with an error.
    pub fn shutdown(&self) {
        // An error means that the connection is gone already, which is what was wanted.
        let _ = match self {
            Stream::UringTcp(stream) => stream.shutdown(Shutdown::Both),
            Stream::UringUnix(stream) => stream.shutdown(Shutdown::Both),
            Stream::EpollTcp(stream) => shutdown_fd(stream),
            Stream::EpollUnix(stream) => shutdown_fd(stream),
        };
    }
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
            stream.write_all(chunks).await.unwrap();
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
}
