//! Listening sockets, outgoing connections, and the first bytes on either.
//!
//! Sockets are made with `socket2`, so that every option is set on purpose (tokio-uring's own
//! `bind` turns SO_REUSEPORT on, and two processes would silently split connections; here it is on
//! only while a listener is opened beside the old processes it takes over from). Connections
//! are set up on the runtime's readiness side, where waiting may be cancelled and so has deadlines;
//! an established peer session then moves to [`super::Stream`] on its home shard.

use crate::config::{Address, BindSpec, TcpAddress};
use crate::limits::LISTEN_BACKLOG;
use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A socket that cannot be made.
///
/// *Effect:* at start, the process does not start (exit 1), and nothing was opened.
#[derive(Debug, Error)]
#[error("cannot {action} '{address}': {source}")]
pub struct SocketError {
    /// What was tried.
    pub action: &'static str,
    /// Where, as in the configuration.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

/// Where a connection came from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Origin {
    /// TCP: address and port.
    Ip(std::net::SocketAddr),
    /// Unix socket.
    Unix,
}

impl Origin {
    /// The address part, for allow lists.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Origin::Ip(addr) => Some(addr.ip().to_canonical()),
            Origin::Unix => None,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Ip(addr) => addr.fmt(f),
            Origin::Unix => f.write_str("unix"),
        }
    }
}

/// A bound and listening socket that no runtime knows yet. Unix paths we made are removed on drop.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    /// As in the configuration.
    pub address: Address,
    backlog: i32,
    path: Option<PathGuard>,
}

/// A socket in the file system: bound under a temporary name until it is placed.
#[derive(Debug)]
struct PathGuard {
    path: PathBuf,
    /// Where it is until it is placed.
    temporary: Option<PathBuf>,
    /// Device and inode: what is at the path later may be somebody else's.
    identity: (u64, u64),
}

impl Drop for PathGuard {
    fn drop(&mut self) {
        let path = self.temporary.as_ref().unwrap_or(&self.path);
        if std::fs::symlink_metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity) {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What other processes have of the addresses to open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Others<'a> {
    /// Old processes, which are told to leave later, may still have them: TCP ports are shared with
    /// them where they share (SO_REUSEPORT), and sockets at a path are put in the place of theirs.
    pub beside: bool,
    /// Sockets of an old process, to be used for the addresses that they have.
    pub sockets: &'a [OwnedFd],
}

/// Opens every address of `spec`, or none. Sockets at a path are not there before
/// [`Bound::place`].
pub fn listen(spec: &BindSpec, others: Others<'_>) -> Result<Vec<Bound>, SocketError> {
    spec.addresses.iter().map(|address| listen_one(spec, address, others)).collect()
}

/// The one of `sockets` that is bound to `target`.
fn bound_to(target: &SockAddr, sockets: &[OwnedFd]) -> Option<io::Result<Socket>> {
    let bound = |fd: &&OwnedFd| SockRef::from(*fd).local_addr().is_ok_and(|at| at == *target);
    let found = sockets.iter().find(bound)?;
    Some(found.try_clone().map(Socket::from))
}

fn backlog(spec: &BindSpec) -> i32 {
    spec.backlog.map_or(LISTEN_BACKLOG, |b| b.min(i32::MAX as u32) as i32)
}

fn listen_one(
    spec: &BindSpec,
    address: &Address,
    others: Others<'_>,
) -> Result<Bound, SocketError> {
    let beside = others.beside;
    let fail = |action| move |source| SocketError { action, address: address.to_string(), source };
    let backlog = backlog(spec);
    let bound = |socket, path| Bound { socket, address: address.clone(), backlog, path };
    if let Address::Fd(number) = address {
        let socket = inherited(*number).map_err(fail("use inherited socket"))?;
        socket.listen(backlog).map_err(fail("listen on"))?;
        return Ok(bound(socket, None));
    }
    let target = socket_address(address).map_err(fail("bind to"))?;
    if let Some(socket) = bound_to(&target, others.sockets) {
        let socket = socket.map_err(fail("use the old process's socket for"))?;
        socket.listen(backlog).map_err(fail("listen on"))?;
        return Ok(bound(socket, None));
    }
    let socket =
        Socket::new(target.domain(), Type::STREAM, None).map_err(fail("open a socket for"))?;
    if let Address::Tcp(_) = address {
        socket.set_reuse_address(true).map_err(fail("set SO_REUSEADDR on"))?;
        if beside {
            socket.set_reuse_port(true).map_err(fail("set SO_REUSEPORT on"))?;
        }
        if target.domain() == Domain::IPV6 {
            socket.set_only_v6(spec.v6only.unwrap_or(false)).map_err(fail("set IPV6_V6ONLY on"))?;
        }
        if let Some(interface) = &spec.interface {
            socket
                .bind_device(Some(interface.as_bytes()))
                .map_err(fail("bind to the interface of"))?;
        }
        if spec.transparent {
            match target.domain() {
                Domain::IPV6 => {
                    rustix::net::sockopt::set_ipv6_freebind(&socket, true).map_err(io::Error::from)
                }
                _ => rustix::net::sockopt::set_ip_freebind(&socket, true).map_err(io::Error::from),
            }
            .map_err(fail("set IP_FREEBIND on"))?;
        }
    }
    let mut path = None;
    if let Address::Unix(name) = address {
        path = Some(bind_path(&socket, Path::new(name), spec, beside).map_err(fail("bind to"))?);
    } else {
        socket.bind(&target).map_err(fail("bind to"))?;
    }
    socket.listen(backlog).map_err(fail("listen on"))?;
    if beside && let Address::Tcp(_) = address {
        // Shared with the old processes, and with nobody after them.
        socket.set_reuse_port(false).map_err(fail("set SO_REUSEPORT on"))?;
    }
    Ok(bound(socket, path))
}

/// Binds under a temporary name, to be renamed: clients never see a path that nobody listens on,
/// and a stale socket of a dead process is replaced, while a live one is refused unless `replace`.
fn bind_path(
    socket: &Socket,
    path: &Path,
    spec: &BindSpec,
    replace: bool,
) -> io::Result<PathGuard> {
    if !replace && std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let _ = std::fs::remove_file(&temporary);
    socket.bind(&SockAddr::unix(&temporary)?)?;
    let made = std::fs::symlink_metadata(&temporary)?;
    // From here on it is removed when anything fails.
    let guard = PathGuard {
        path: path.to_owned(),
        temporary: Some(temporary.clone()),
        identity: (made.dev(), made.ino()),
    };
    if let Some(mode) = spec.unix.mode {
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(mode))?;
    }
    if spec.unix.uid.is_some() || spec.unix.gid.is_some() {
        std::os::unix::fs::chown(&temporary, spec.unix.uid, spec.unix.gid)?;
    }
    Ok(guard)
}

/// The listening socket a supervisor passed as file descriptor `number`.
fn inherited(number: i32) -> io::Result<Socket> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the operator says by `fd@N` that descriptor N is a socket for us. The borrow asks
    // whether it is open, which a closed one answers with EBADF, and makes a descriptor of our
    // own; N itself stays as it is, for another attempt and for a process started by this one.
    let own = unsafe {
        let borrowed = BorrowedFd::borrow_raw(number);
        rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?
    };
    Ok(Socket::from(own))
}

/// Where a configured address is now; what it was at the start when its name cannot be looked up.
async fn resolve(address: &TcpAddress) -> io::Result<SocketAddr> {
    let configured = address.socket;
    let Some(name) = &address.name else { return Ok(configured) };
    match tokio::net::lookup_host((name.as_str(), configured.port())).await {
        Ok(mut found) => {
            let same_family = |a: &SocketAddr| a.is_ipv4() == configured.is_ipv4();
            Ok(found.find(same_family).unwrap_or(configured))
        }
        Err(_) if !configured.ip().is_unspecified() => Ok(configured),
        Err(error) => Err(error),
    }
}

fn socket_address(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Tcp(tcp) => Ok(SockAddr::from(tcp.socket)),
        Address::Unix(path) => SockAddr::unix(path),
        Address::Abns(name) => {
            // HAProxy's abstract names fill the whole of sun_path, padded with zeros.
            let mut bytes = vec![0u8; 108];
            let end = 1 + name.len();
            if end > bytes.len() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            bytes[1..end].copy_from_slice(name.as_bytes());
            use std::os::unix::ffi::OsStrExt;
            SockAddr::unix(Path::new(std::ffi::OsStr::from_bytes(&bytes)))
        }
        Address::Fd(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

impl Bound {
    /// A listening socket of another process, for `address`. It is not ours before
    /// [`Bound::claim`].
    pub fn inherit(spec: &BindSpec, address: &Address, fd: OwnedFd) -> Bound {
        let (socket, backlog) = (Socket::from(fd), backlog(spec));
        Bound { socket, address: address.clone(), backlog, path: None }
    }

    /// The socket is ours now, and so is its path.
    pub fn claim(&mut self) {
        if let (Address::Unix(name), None) = (&self.address, &self.path)
            && let Ok(there) = std::fs::symlink_metadata(name)
        {
            let identity = (there.dev(), there.ino());
            self.path = Some(PathGuard { path: name.into(), temporary: None, identity });
        }
    }

    /// Puts a socket of the file system where clients look for it, in the place of whatever is
    /// there. The others are in their place already.
    pub fn place(&mut self) -> Result<(), SocketError> {
        let Some(guard) = &mut self.path else { return Ok(()) };
        let Some(temporary) = &guard.temporary else { return Ok(()) };
        std::fs::rename(temporary, &guard.path).map_err(|source| SocketError {
            action: "place the socket of",
            address: self.address.to_string(),
            source,
        })?;
        guard.temporary = None;
        Ok(())
    }

    /// The address really bound (a port of 0 has become a number).
    pub fn local_addr(&self) -> String {
        match self.socket.local_addr().ok().and_then(|a| a.as_socket()) {
            Some(addr) => addr.to_string(),
            None => self.address.to_string(),
        }
    }

    /// Where it is reached: the configured address, and for an inherited descriptor the one that
    /// the socket itself is bound to.
    pub fn reached_at(&self) -> Address {
        let Address::Fd(_) = &self.address else { return self.address.clone() };
        let at = self.socket.local_addr().ok().and_then(|at| {
            if let Some(at) = at.as_socket() {
                return Some(Address::tcp(at.ip(), at.port()));
            }
            at.as_pathname().and_then(Path::to_str).map(|path| Address::Unix(path.into()))
        });
        at.unwrap_or_else(|| self.address.clone())
    }

    /// Hands the socket to the runtime of this thread.
    pub fn into_listener(self) -> io::Result<Listener> {
        let local = self.local_addr();
        let kind = ListenerKind::new(self.socket)?;
        Ok(Listener {
            kind: Some(kind),
            address: self.address,
            local,
            backlog: self.backlog,
            path: self.path,
        })
    }
}

/// A listening socket inside a runtime.
#[derive(Debug)]
pub struct Listener {
    /// `None`: paused, and to be bound again.
    kind: Option<ListenerKind>,
    address: Address,
    local: String,
    backlog: i32,
    path: Option<PathGuard>,
}

#[derive(Debug)]
enum ListenerKind {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// Paused: a TCP port, still ours. The runtime does not know it: it would see the end of the
    /// socket for ever, also once that listens again.
    Paused(Socket),
}

impl ListenerKind {
    fn new(socket: Socket) -> io::Result<ListenerKind> {
        socket.set_nonblocking(true)?;
        let unix = socket.local_addr()?.is_unix();
        let fd = OwnedFd::from(socket);
        Ok(if unix {
            ListenerKind::Unix(UnixListener::from_std(fd.into())?)
        } else {
            ListenerKind::Tcp(TcpListener::from_std(fd.into())?)
        })
    }
}

impl Listener {
    /// As in the configuration.
    pub fn configured(&self) -> String {
        self.address.to_string()
    }

    /// Another descriptor of the socket, to be given to another process. Not of a paused one.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        match &self.kind {
            Some(ListenerKind::Tcp(listener)) => duplicate(listener),
            Some(ListenerKind::Unix(listener)) => duplicate(listener),
            Some(ListenerKind::Paused(_)) | None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Waits for a connection; for ever while it is paused. May be cancelled.
    pub async fn accept(&self) -> io::Result<(Fresh, Origin)> {
        match &self.kind {
            Some(ListenerKind::Tcp(listener)) => {
                let (stream, addr) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Fresh::Tcp(stream), Origin::Ip(addr)))
            }
            Some(ListenerKind::Unix(listener)) => {
                let (stream, _) = listener.accept().await?;
                Ok((Fresh::Unix(stream), Origin::Unix))
            }
            Some(ListenerKind::Paused(_)) | None => std::future::pending().await,
        }
    }

    /// It is at a path of the file system.
    pub fn is_path(&self) -> bool {
        self.path.is_some()
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.local
    }

    /// Stops listening, so that another process may. A TCP port stays reserved for this process
    /// and its user; connections not yet accepted are lost.
    pub fn pause(&mut self) -> io::Result<()> {
        match self.kind.take() {
            Some(ListenerKind::Tcp(listener)) => {
                let socket = Socket::from(listener.into_std()?);
                let ended = rustix::net::shutdown(&socket, rustix::net::Shutdown::Read);
                self.kind = Some(ListenerKind::Paused(socket));
                Ok(ended?)
            }
            // An abstract name has one owner: let go of it.
            Some(ListenerKind::Unix(_)) if self.path.is_none() => Ok(()),
            other => {
                self.kind = other;
                Ok(())
            }
        }
    }

    /// Listens again after [`Listener::pause`]. Fails where another process listens.
    pub fn resume(&mut self) -> io::Result<()> {
        let socket = match self.kind.take() {
            Some(ListenerKind::Paused(socket)) => socket,
            None => {
                let target = socket_address(&self.address)?;
                let socket = Socket::new(target.domain(), Type::STREAM, None)?;
                socket.bind(&target)?;
                socket
            }
            other => {
                self.kind = other;
                return Ok(());
            }
        };
        if let Err(error) = socket.listen(self.backlog) {
            let keep = socket.local_addr().is_ok_and(|at| !at.is_unix());
            self.kind = keep.then_some(ListenerKind::Paused(socket));
            return Err(error);
        }
        self.kind = Some(ListenerKind::new(socket)?);
        Ok(())
    }
}

/// A connection that is being set up, or that never needs more than this (the stats socket).
#[derive(Debug)]
pub enum Fresh {
    /// TCP.
    Tcp(TcpStream),
    /// Unix socket.
    Unix(UnixStream),
}

impl Fresh {
    /// A unix stream that another process passed, which does not block.
    pub fn from_unix(fd: OwnedFd) -> io::Result<Fresh> {
        UnixStream::from_std(fd.into()).map(Fresh::Unix)
    }

    /// Connects to `address`, from `source` and through the network device `interface` where given.
    /// The caller bounds the time; cancelling closes the socket.
    pub async fn connect(
        address: &Address,
        source: Option<&Address>,
        interface: Option<&str>,
    ) -> io::Result<Fresh> {
        let target = match address {
            // A name is looked up again each time: the peer may have moved.
            Address::Tcp(tcp) => SockAddr::from(resolve(tcp).await?),
            other => socket_address(other)?,
        };
        let socket = Socket::new(target.domain(), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        if let Some(source) = source {
            socket.bind(&socket_address(source)?)?;
        }
        let in_progress = rustix::io::Errno::INPROGRESS.raw_os_error();
        match socket.connect(&target) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(in_progress) => {}
            Err(error) => return Err(error),
        }
        let fd = OwnedFd::from(socket);
        if let Address::Tcp(_) = address {
            let stream = TcpStream::from_std(fd.into())?;
            stream.writable().await?;
            match stream.take_error()? {
                None => {}
                Some(error) => return Err(error),
            }
            stream.set_nodelay(true)?;
            Ok(Fresh::Tcp(stream))
        } else {
            let stream = UnixStream::from_std(fd.into())?;
            stream.writable().await?;
            Ok(Fresh::Unix(stream))
        }
    }

    /// Appends what has come to `buffer`; 0 means the other side has closed. May be cancelled.
    pub async fn read(&mut self, buffer: &mut Vec<u8>, room: usize) -> io::Result<usize> {
        use bytes::BufMut;
        buffer.reserve(room);
        let mut limited = buffer.limit(room);
        match self {
            Fresh::Tcp(stream) => tokio::io::AsyncReadExt::read_buf(stream, &mut limited).await,
            Fresh::Unix(stream) => tokio::io::AsyncReadExt::read_buf(stream, &mut limited).await,
        }
    }

    /// Writes all of `bytes`. Cancelling leaves a part written.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        use tokio::io::AsyncWriteExt;
        match self {
            Fresh::Tcp(stream) => stream.write_all(bytes).await,
            Fresh::Unix(stream) => stream.write_all(bytes).await,
        }
    }

    /// The other side has closed the connection, or it is broken. Of TCP only the latter is known:
    /// a client that closed looks like one that has no more to say.
    pub fn is_gone(&self) -> bool {
        let fd = match self {
            Fresh::Tcp(stream) => borrow(stream),
            Fresh::Unix(stream) => borrow(stream),
        };
        let mut look = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
        let now = rustix::event::Timespec::default();
        // What is asked for is nothing: HUP and ERR come unasked.
        rustix::event::poll(&mut look, Some(&now)).is_ok_and(|n| n > 0)
    }

    /// Says that there is no more to come from us.
    pub async fn end(&mut self) -> io::Result<()> {
        match self {
            Fresh::Tcp(stream) => tokio::io::AsyncWriteExt::shutdown(stream).await,
            Fresh::Unix(stream) => tokio::io::AsyncWriteExt::shutdown(stream).await,
        }
    }

    /// Takes the socket out of this runtime, to be given to a [`super::Stream`].
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Fresh::Tcp(stream) => stream.into_std()?.into(),
            Fresh::Unix(stream) => stream.into_std()?.into(),
        })
    }
}

/// Another descriptor of the socket that `stream` owns.
pub(super) fn duplicate(stream: &impl AsRawFd) -> io::Result<OwnedFd> {
    borrow(stream).try_clone_to_owned()
}

/// The descriptor of a socket whose type cannot lend it safely. Only for streams of tokio and
/// tokio-uring, which own theirs.
pub(super) fn borrow(stream: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: `stream` owns its descriptor and is borrowed for as long as the result is, so that
    // it stays open.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}
