//! The stats socket's commands, run across the shards.
//!
//! A dump is made of pieces: each shard is asked for one at a time and the client has taken it
//! before the next is made, so that no client makes a shard work ahead of it.

use super::cli::{Busy, Client, Snapshot};
use super::{Shared, report};
use crate::limits::{CHUNK_BYTES, TICK_ROWS};
use crate::runtime_api::clear_table::{ClearTable, Progress};
use crate::runtime_api::row::write_header;
use crate::runtime_api::select::Select;
use crate::runtime_api::set_table::{self, SetTable, Target};
use crate::runtime_api::show_table::{Budget, Dump, NOT_DUMPED, Query};
use crate::runtime_api::{
    CliError, Command, show_env, show_errors, show_info, show_peers, show_stat, wait,
};
use crate::shard::{Shard, Table};
use crate::table::ScanCursor;
use crate::table::part::shard_of_id;
use std::io;
use std::sync::Arc;

/// Runs `command` and hands its reply to the client's connection.
pub async fn run(node: &Shared, client: &mut Client, command: Command) -> io::Result<()> {
    let result = match command {
        Command::Wait(ms) => {
            client.wait(ms).await?;
            client.conn.handle_info(wait::DONE);
            Ok(())
        }
        Command::ClearCounters(all) => {
            report::clear_counters(&mut node.borrow_mut(), all);
            Ok(())
        }
        Command::ShowTables => show_tables(node, client).await,
        Command::ShowTable(query) => return show_table(node, client, query).await,
        // The connection gives these out as `Action::Set`.
        Command::SetTable(set) => set_tables(node, vec![set]).await.remove(0),
        Command::ClearTable(command) => clear_table(node, command).await,
        Command::ShowPeers(query) => {
            let views = report::peers(node).await;
            let mut text = String::new();
            let result = show_peers::write(&query, &views, &mut text);
            client.conn.handle_reply(text.as_bytes());
            result
        }
        Command::ShowInfo(format) => {
            let info = report::info(node).await;
            let mut text = String::new();
            show_info::write(format, &info, &mut text);
            client.conn.handle_reply(text.as_bytes());
            Ok(())
        }
        Command::ShowStat(query) => {
            let mut text = String::new();
            show_stat::write(&query, &report::listeners(&node.borrow()), &mut text);
            client.conn.handle_reply(text.as_bytes());
            Ok(())
        }
        Command::ShowErrors(query) => {
            let node = node.borrow();
            let names: Vec<String> = node.sections.iter().map(|s| s.name.clone()).collect();
            let (total, events) = (node.totals.errors_total, &node.totals.errors);
            let events: Vec<_> = events.iter().cloned().collect();
            let now = report::wall(node.clock.wall_ms());
            let mut text = String::new();
            let result = show_errors::write(&query, &names, now, total, &events, &mut text);
            client.conn.handle_reply(text.as_bytes());
            result
        }
        Command::ShowEnv(name) => {
            use std::os::unix::ffi::OsStringExt;
            let vars: Vec<(Vec<u8>, Vec<u8>)> =
                std::env::vars_os().map(|(k, v)| (k.into_vec(), v.into_vec())).collect();
            let vars = vars.iter().map(|(k, v)| (k.as_slice(), v.as_slice()));
            let mut text = Vec::new();
            let result = show_env::write(vars, name.as_deref(), &mut text);
            client.conn.handle_reply(&text);
            result
        }
    };
    end(node, client, result);
    Ok(())
}

fn end(node: &Shared, client: &mut Client, result: Result<(), CliError>) {
    if let Err(error) = result {
        client.conn.handle_error(&error);
    }
    client.conn.handle_reply_end(node.borrow().clock.now());
}

fn table(node: &Shared, id: usize) -> Result<Arc<Table>, CliError> {
    node.borrow().registry.get(id).ok_or(CliError::NoSuchTable)
}

/// Live entries of a table on all shards, exactly.
async fn used(node: &Shared, table: &Arc<Table>) -> u64 {
    let shards = node.borrow().shards.clone();
    let mut used = 0;
    for shard in 0..shards.len() {
        let id = table.id;
        let count =
            move |shard: &mut Shard, now| shard.parts.get_mut(id).map_or(0, |part| part.used(now));
        used += shards.run(shard, count).await.unwrap_or(0);
    }
    used
}

async fn show_tables(node: &Shared, client: &mut Client) -> Result<(), CliError> {
    let tables = node.borrow().registry.all();
    let mut text = Vec::new();
    for table in tables.iter().rev() {
        write_header(&table.spec, used(node, table).await, &mut text);
    }
    client.conn.handle_reply(&text);
    Ok(())
}

/// `shards` of the peers section a table belongs to.
fn peer_shards(node: &Shared, table: &Table) -> u32 {
    table.section.map_or(0, |section| node.borrow().sections[section].shards)
}

async fn show_table(node: &Shared, client: &mut Client, query: Query) -> io::Result<()> {
    let table = match table(node, query.table) {
        Ok(table) => table,
        Err(error) => {
            end(node, client, Err(error));
            return Ok(());
        }
    };
    let (shards, clock) = (node.borrow().shards.clone(), node.borrow().clock);
    let tables = Snapshot::of(&node.borrow().registry);
    let used = used(node, &table).await;
    let mut header = Vec::new();
    write_header(&table.spec, used, &mut header);
    if query.is_dump() {
        if !query.dump && used > 0 {
            header.extend_from_slice(NOT_DUMPED.as_bytes());
        }
        client.conn.handle_reply(&std::mem::take(&mut header));
    }
    let (query, peer_shards) = (Arc::new(query), peer_shards(node, &table));
    let mut found = query.is_dump();
    for shard in 0..shards.len() {
        let mut cursor = Some(ScanCursor::default());
        while let Some(from) = cursor {
            let (query, id) = (query.clone(), table.id);
            let piece = move |shard: &mut Shard, now| {
                let hasher = shard.parts.registry().hasher.clone();
                let cx = Dump { now, hasher: &hasher, shards: peer_shards };
                let budget = Budget { rows: TICK_ROWS, bytes: CHUNK_BYTES };
                let mut text = Vec::new();
                let part = shard.parts.get_mut(id);
                let next = part.and_then(|part| query.run(part, from, budget, &cx, &mut text));
                (text, next)
            };
            let Some((text, next)) = shards.run(shard, piece).await else { break };
            if !found && !text.is_empty() {
                found = true;
                client.conn.handle_reply(&header);
            }
            client.conn.handle_reply(&text);
            client.flush(&tables, clock.now()).await?;
            cursor = next;
        }
    }
    let pointer = matches!(query.select, Select::Pointer(_));
    let missing = if pointer && !found { Err(CliError::NoEntryAtPointer) } else { Ok(()) };
    end(node, client, missing);
    Ok(())
}

/// A change of tables begins, unless they are on their way to our successor: that waits for those
/// which have begun.
fn begin_write(node: &Shared) -> Option<Busy> {
    let node = node.borrow();
    (!node.stopping).then(|| Busy::new(node.writes.clone()))
}

/// `set table` commands of one line, each on the shard that owns its key, one turn a shard for all.
pub async fn set_tables(node: &Shared, sets: Vec<SetTable>) -> Vec<Result<(), CliError>> {
    let (shards, registry) = (node.borrow().shards.clone(), node.borrow().registry.clone());
    let Some(_busy) = begin_write(node) else {
        return sets.iter().map(|_| Err(CliError::Stopping)).collect();
    };
    let mut replies: Vec<Result<(), CliError>> = sets.iter().map(|_| Ok(())).collect();
    let mut jobs: Vec<Vec<(usize, Arc<Table>, SetTable)>> = vec![Vec::new(); shards.len()];
    for (i, set) in sets.into_iter().enumerate() {
        let Some(table) = registry.get(set.table) else {
            replies[i] = Err(CliError::NoSuchTable);
            continue;
        };
        let shard = match &set.target {
            Target::Key(key) => table.place.owner(registry.hasher.hash(key)) as usize,
            Target::Pointer(id) => shard_of_id(*id) as usize,
        };
        match jobs.get_mut(shard) {
            Some(job) => job.push((i, table, set)),
            None => replies[i] = Err(CliError::NoEntryAtPointer),
        }
    }
    for (shard, job) in jobs.into_iter().enumerate().filter(|(_, job)| !job.is_empty()) {
        let numbers: Vec<usize> = job.iter().map(|(i, ..)| *i).collect();
        let run = move |shard: &mut Shard, now| {
            job.iter().map(|(_, table, set)| set_one(shard, table, set, now)).collect::<Vec<_>>()
        };
        let done = shards.run(shard, run).await.unwrap_or_default();
        for (n, i) in numbers.into_iter().enumerate() {
            replies[i] = done.get(n).cloned().unwrap_or(Err(CliError::TableFull));
        }
    }
    replies
}

fn set_one(
    shard: &mut Shard,
    table: &Arc<Table>,
    set: &SetTable,
    now: crate::Millis,
) -> Result<(), CliError> {
    let others = table.used().saturating_sub(table.used_by(shard.parts.shard()));
    let hasher = shard.parts.registry().hasher.clone();
    let part = shard.parts.part_mut(table).map_err(|_| CliError::TableFull)?;
    part.set_others_used(others);
    let reply = set_table::run(set, part, now, &hasher);
    shard.parts.touch(table.id);
    reply
}

async fn clear_table(node: &Shared, command: ClearTable) -> Result<(), CliError> {
    let table = table(node, command.table)?;
    let _busy = begin_write(node).ok_or(CliError::Stopping)?;
    let (shards, command) = (node.borrow().shards.clone(), Arc::new(command));
    let mut gone = 0;
    for shard in 0..shards.len() {
        let mut cursor = Some(ScanCursor::default());
        while let Some(from) = cursor.take() {
            let (command, id) = (command.clone(), table.id);
            let clear = move |shard: &mut Shard, now| {
                let hasher = shard.parts.registry().hasher.clone();
                let part = shard.parts.get_mut(id)?;
                let progress = command.run(part, from, TICK_ROWS, now, &hasher);
                shard.parts.touch(id);
                Some(progress)
            };
            match shards.run(shard, clear).await.flatten() {
                Some(Progress::More(count, next)) => {
                    gone += count;
                    cursor = Some(next);
                }
                Some(Progress::Done(count)) => gone += count,
                None => {}
            }
        }
    }
    let pointer = matches!(command.select, Select::Pointer(_));
    if pointer && gone == 0 { Err(CliError::NoEntryAtPointer) } else { Ok(()) }
}
