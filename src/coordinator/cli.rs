//! The stats sockets' connections: bytes between a socket and [`CliConn`].

use super::instant::Hold;
use super::listeners::Door;
use super::{Shared, commands, listeners};
use crate::config::{CliLevel, SeverityOutput};
use crate::engine::getsocks;
use crate::engine::socket::{Fresh, Listener};
use crate::limits::{ACCEPT_PAUSE_MS, CLI_READ, WAIT_LOOK_MS};
use crate::runtime_api::{Action, CliConn, Facts, Tables};
use crate::shard::{Registry, Table};
use crate::table::TableSpec;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Accepts for the `stats socket` line number `line`: at a path to the end, elsewhere until the
/// soft stop. `stats maxconn` bounds them together; more wait in the kernel's queue, as with
/// HAProxy.
pub async fn accept_loop(node: Shared, line: usize, listener: Listener, facts: Arc<Facts>) {
    let access = {
        let node = node.borrow();
        let spec = &node.config.stats_sockets[line];
        let (level, severity) = (spec.level, spec.severity_output);
        Access { level, severity, exposes: spec.expose_fd_listeners }
    };
    let mut closing = node.borrow().closing.subscribe();
    let mut hold = Hold::new(&node, false);
    let mut door = Door::new(listener, &node);
    let path = door.listener().is_path();
    loop {
        let max = node.borrow().config.stats_maxconn as usize;
        let full = node.borrow().totals.cli_open >= max || node.borrow().is_full();
        let accepted = tokio::select! {
            () = hold.begins() => {
                hold.wait(door.listener()).await;
                continue;
            }
            () = tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS / 10)), if full => {
                continue;
            }
            accepted = door.accept(), if !full => accepted,
            // A port is the successor's now; at a path it has put its own socket there.
            _ = closing.changed(), if !path => return,
        };
        match accepted {
            Ok((fresh, _)) => {
                node.borrow_mut().totals.cli_open += 1;
                node.borrow_mut().totals.cli_total += 1;
                tokio::task::spawn_local(serve(node.clone(), fresh, access, facts.clone()));
            }
            Err(error) => {
                let text = format!("stats socket: accept: {error}.");
                node.borrow_mut().log_limited(crate::observe::log::Level::Alert, &text);
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

/// What a client may do, and how it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub level: CliLevel,
    pub severity: SeverityOutput,
    /// `expose-fd listeners`: it may have our listening sockets.
    pub exposes: bool,
}

/// Serves one client to its end; the caller has counted it.
pub(super) async fn serve(node: Shared, fresh: Fresh, access: Access, facts: Arc<Facts>) {
    // An error belongs to this client alone: it has gone.
    let _ = converse(&node, fresh, access, facts).await;
    node.borrow_mut().totals.cli_open -= 1;
}

async fn converse(
    node: &Shared,
    fresh: Fresh,
    access: Access,
    facts: Arc<Facts>,
) -> io::Result<()> {
    let (clock, registry, timeout_ms) = {
        let node = node.borrow();
        (node.clock, node.registry.clone(), node.config.stats_timeout_ms)
    };
    let conn = CliConn::new(facts, access.level, access.severity, timeout_ms, clock.now());
    let mut client = Client { conn, fresh, timeout: Duration::from_millis(timeout_ms) };
    loop {
        let tables = Snapshot(registry.all());
        while let Some(action) = client.conn.poll(clock.now(), &tables) {
            match action {
                Action::Write(bytes) => client.write(&bytes).await?,
                Action::Run(command) => {
                    let _busy = Busy::new(node.borrow().commands.clone());
                    commands::run(node, &mut client, command).await?;
                }
                Action::Set(sets) => {
                    let replies = commands::set_tables(node, sets).await;
                    client.conn.handle_sets(&replies, clock.now());
                }
                Action::Close => return Ok(()),
            }
        }
        let left = client.conn.poll_timeout().map_or(timeout_ms, |at| at.since(clock.now()));
        let mut bytes = Vec::new();
        let read = client.fresh.read(&mut bytes, CLI_READ);
        match tokio::time::timeout(Duration::from_millis(left.max(1)), read).await {
            Err(_) => client.conn.handle_timeout(clock.now()),
            Ok(Ok(0)) => client.conn.handle_eof(),
            Ok(Ok(_)) if access.exposes && bytes == getsocks::QUESTION => {
                let sockets = listeners::expose(node).await;
                return getsocks::answer(client.fresh.into_fd()?, &sockets);
            }
            Ok(Ok(_)) => client.conn.handle_bytes(&bytes, clock.now()),
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// A command under way, counted for as long as this lives.
pub struct Busy(Rc<Cell<usize>>);

impl Busy {
    /// One more of these.
    pub fn new(count: Rc<Cell<usize>>) -> Busy {
        count.set(count.get() + 1);
        Busy(count)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One client, for commands that answer in pieces.
pub struct Client {
    /// Its state.
    pub conn: CliConn,
    fresh: Fresh,
    timeout: Duration,
}

impl Client {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // A client that does not read must not hold a dump for ever.
        tokio::time::timeout(self.timeout, self.fresh.write_all(bytes)).await?
    }

    /// Waits; an error when the client has gone meanwhile.
    pub async fn wait(&self, ms: u64) -> io::Result<()> {
        let mut left = ms;
        while left > 0 {
            let piece = left.min(WAIT_LOOK_MS);
            tokio::time::sleep(Duration::from_millis(piece)).await;
            left -= piece;
            if self.fresh.is_gone() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        Ok(())
    }

    /// Sends a piece of a reply on its way, before the next one is made.
    pub async fn flush(&mut self, tables: &Snapshot, now: crate::Millis) -> io::Result<()> {
        while let Some(Action::Write(bytes)) = self.conn.poll(now, tables) {
            self.write(&bytes).await?;
        }
        Ok(())
    }
}

/// The tables at one moment.
pub struct Snapshot(pub Vec<Arc<Table>>);

impl Snapshot {
    /// Of this registry, now.
    pub fn of(registry: &Registry) -> Snapshot {
        Snapshot(registry.all())
    }
}

impl Tables for Snapshot {
    fn find(&self, name: &[u8]) -> Option<(usize, Arc<TableSpec>)> {
        let table = self.0.iter().find(|t| t.spec.name.as_bytes() == name)?;
        Some((table.id, table.spec.clone()))
    }
}
