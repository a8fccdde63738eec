//! Datagrams to systemd, as HAProxy's `-Ws` sends them.
//!
//! One to `$NOTIFY_SOCKET` for each turn of the master's life. Without that variable nobody is to
//! be told; a datagram that cannot be sent is lost, since there is nobody to tell either.
#![forbid(unsafe_code)]

use crate::engine::Clock;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where systemd wants to be told.
#[derive(Debug, Default)]
pub struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// From the environment.
    pub fn from_env() -> Notify {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Notify(None) };
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(&path),
        };
        let socket = UnixDatagram::unbound().and_then(|s| s.set_nonblocking(true).map(|()| s));
        Notify(socket.ok().zip(address.ok()))
    }

    /// Up, with this process as the main one.
    pub fn ready(&self) {
        self.send(&format!("READY=1\nMAINPID={}\nSTATUS=Ready.\n", std::process::id()));
    }

    /// A reload begins.
    pub fn reloading(&self) {
        let us = Clock.now_us();
        let status = "STATUS=Reloading Configuration.";
        self.send(&format!("RELOADING=1\n{status}\nMONOTONIC_USEC={us}\n"));
    }

    /// A reload has failed; the worker before it goes on.
    pub fn reload_failed(&self) {
        self.send("READY=1\nSTATUS=Reload failed!\n");
    }

    /// The end begins.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.0 {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}
