//! A node in a box: tables cut over shards, and what the coordinator does with commands.

use std::sync::Arc;
use stickring::Millis;
use stickring::config::{CliLevel, SeverityOutput};
use stickring::runtime_api::clear_table::{ClearTable, Progress};
use stickring::runtime_api::row::write_header;
use stickring::runtime_api::select::Select;
use stickring::runtime_api::set_table::{self, SetTable, Target};
use stickring::runtime_api::show_table::{Budget, Dump, NOT_DUMPED, Query};
use stickring::runtime_api::{Action, CliConn, CliError, Command, Facts, Tables};
use stickring::runtime_api::{show_env, show_errors, show_info, show_peers, show_stat, wait};
use stickring::table::{ColumnSpec, KeyHasher, Place, ScanCursor, TablePart, TableSpec};
use stickring::wire::{DataType, KeyType};

pub struct Node {
    pub now: Millis,
    pub facts: Arc<Facts>,
    pub budget: Budget,
    hasher: KeyHasher,
    pub specs: Specs,
    /// By table, then shard.
    parts: Vec<Vec<TablePart>>,
}

pub struct Specs(Vec<Arc<TableSpec>>);

impl Tables for Specs {
    fn find(&self, name: &[u8]) -> Option<(usize, Arc<TableSpec>)> {
        let at = self.0.iter().position(|spec| spec.name.as_bytes() == name)?;
        Some((at, self.0[at].clone()))
    }
}

/// Everything a connection said, and whether it is closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub bytes: Vec<u8>,
    pub closed: bool,
}

impl Said {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Node {
    /// The tables of `golden/haproxy.cfg`.
    pub fn new(shards: u32) -> Node {
        let specs = golden_specs();
        let hasher = KeyHasher::new([1, 2, 3, 4]);
        let part = |id: usize, spec: &Arc<TableSpec>, shard| {
            let place = Place::new(id as u32, spec.size, shards);
            TablePart::new(spec.clone(), hasher.clone(), place, shard).expect("memory")
        };
        let parts = specs
            .iter()
            .enumerate()
            .map(|(id, spec)| (0..shards).map(|shard| part(id, spec, shard)).collect())
            .collect();
        let facts = Facts {
            version: "3.2.26-1".into(),
            sockets: vec![("unix@/run/a".into(), CliLevel::Admin)],
            startup_logs: String::new(),
            started: Millis(1_000_000),
            bufsize: 16_384,
        };
        Node {
            now: Millis(1_000_000),
            facts: Arc::new(facts),
            budget: Budget { rows: 1_000, bytes: 100_000 },
            hasher,
            specs: Specs(specs),
            parts,
        }
    }

    pub fn conn(&self, level: CliLevel) -> CliConn {
        CliConn::new(self.facts.clone(), level, SeverityOutput::None, 10_000, self.now)
    }

    /// One connection at level admin: these bytes, then silence.
    pub fn ask(&mut self, bytes: &[u8]) -> Said {
        self.ask_in_pieces(CliLevel::Admin, &[bytes])
    }

    /// One line at level admin.
    pub fn line(&mut self, line: &str) -> String {
        self.ask(format!("{line}\n").as_bytes()).text()
    }

    pub fn ask_in_pieces(&mut self, level: CliLevel, pieces: &[&[u8]]) -> Said {
        let mut conn = self.conn(level);
        let mut said = Said { bytes: Vec::new(), closed: false };
        for piece in pieces {
            if conn.wants_bytes() {
                conn.handle_bytes(piece, self.now);
            }
            self.drain(&mut conn, &mut said);
        }
        said
    }

    pub fn drain(&mut self, conn: &mut CliConn, said: &mut Said) {
        while let Some(action) = conn.poll(self.now, &self.specs) {
            assert!(!said.closed, "{action:?} behind the end");
            match action {
                Action::Write(bytes) => said.bytes.extend_from_slice(&bytes),
                Action::Close => said.closed = true,
                Action::Set(sets) => {
                    assert!(conn.poll_timeout().is_none(), "a timeout while commands run");
                    let replies: Vec<_> = sets.iter().map(|set| self.set_table(set)).collect();
                    conn.handle_sets(&replies, self.now);
                }
                Action::Run(command) => {
                    assert!(conn.poll_timeout().is_none(), "a timeout while a command runs");
                    if let Command::Wait(_) = command {
                        conn.handle_info(wait::DONE);
                    }
                    let mut reply = Vec::new();
                    let result = self.run(command, &mut reply);
                    conn.handle_reply(&reply);
                    if let Err(error) = result {
                        conn.handle_error(&error);
                    }
                    conn.handle_reply_end(self.now);
                }
            }
        }
    }

    fn run(&mut self, command: Command, out: &mut Vec<u8>) -> Result<(), CliError> {
        let mut text = String::new();
        match command {
            Command::ShowTables => {
                for table in (0..self.parts.len()).rev() {
                    let used = self.used(table);
                    write_header(&self.specs.0[table], used, out);
                }
            }
            Command::ShowTable(query) => return self.show_table(&query, out),
            Command::SetTable(set) => return self.set_table(&set),
            Command::ClearTable(clear) => return self.clear_table(&clear),
            Command::ShowPeers(query) => show_peers::write(&query, &[], &mut text)?,
            Command::ShowInfo(format) => {
                show_info::write(format, &show_info::NodeInfo::default(), &mut text);
            }
            Command::ShowStat(query) => show_stat::write(&query, &[], &mut text),
            Command::ShowErrors(query) => {
                let now = Default::default();
                show_errors::write(&query, &[], now, 0, &[], &mut text)?;
            }
            // Neither time nor counters are in here.
            Command::Wait(_) | Command::ClearCounters(_) => {}
            Command::ShowEnv(name) => {
                let vars = [(&b"HOME"[..], &b"/root"[..])];
                show_env::write(vars.into_iter(), name.as_deref(), out)?;
            }
        }
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    pub fn used(&mut self, table: usize) -> u64 {
        self.parts[table].iter_mut().map(|part| part.used(self.now)).sum()
    }

    fn show_table(&mut self, query: &Query, out: &mut Vec<u8>) -> Result<(), CliError> {
        let used = self.used(query.table);
        let mut header = Vec::new();
        write_header(&self.specs.0[query.table], used, &mut header);
        let mut found = query.is_dump();
        if found {
            out.append(&mut header);
            if !query.dump && used > 0 {
                out.extend_from_slice(NOT_DUMPED.as_bytes());
            }
        }
        let cx = Dump { now: self.now, hasher: &self.hasher, shards: 0 };
        for part in &self.parts[query.table] {
            let mut cursor = Some(ScanCursor::default());
            while let Some(from) = cursor {
                let mut piece = Vec::new();
                cursor = query.run(part, from, self.budget, &cx, &mut piece);
                if !piece.is_empty() && !found {
                    found = true;
                    out.append(&mut header);
                }
                out.append(&mut piece);
            }
        }
        let pointer = matches!(query.select, Select::Pointer(_));
        if pointer && !found { Err(CliError::NoEntryAtPointer) } else { Ok(()) }
    }

    fn set_table(&mut self, set: &SetTable) -> Result<(), CliError> {
        let parts = &mut self.parts[set.table];
        let totals: Vec<u64> = parts.iter().map(TablePart::used_estimate).collect();
        let total: u64 = totals.iter().sum();
        let mut reply = Err(CliError::NoEntryAtPointer);
        for (shard, part) in parts.iter_mut().enumerate() {
            let owner = match &set.target {
                Target::Pointer(_) => true,
                Target::Key(key) => part.place().owner(self.hasher.hash(key)) == shard as u32,
            };
            if owner && reply == Err(CliError::NoEntryAtPointer) {
                part.set_others_used(total - totals[shard]);
                reply = set_table::run(set, part, self.now, &self.hasher);
            }
        }
        reply
    }

    fn clear_table(&mut self, clear: &ClearTable) -> Result<(), CliError> {
        let mut gone = 0;
        for part in &mut self.parts[clear.table] {
            let mut from = ScanCursor::default();
            loop {
                match clear.run(part, from, self.budget.rows, self.now, &self.hasher) {
                    Progress::Done(n) => {
                        gone += n;
                        break;
                    }
                    Progress::More(n, cursor) => {
                        gone += n;
                        from = cursor;
                    }
                }
            }
        }
        let pointer = matches!(clear.select, Select::Pointer(_));
        if pointer && gone == 0 { Err(CliError::NoEntryAtPointer) } else { Ok(()) }
    }
}

fn golden_specs() -> Vec<Arc<TableSpec>> {
    use KeyType::{Binary, Integer, Ipv4, Ipv6, String};
    let t_ip = "server_id,gpt0,gpc0,gpc0_rate(10000),conn_cnt,conn_rate(3000),conn_cur,sess_cnt,\
                sess_rate(4000),http_req_cnt,http_req_rate(5000),http_err_cnt,http_err_rate(6000),\
                bytes_in_cnt,bytes_in_rate(7000),bytes_out_cnt,bytes_out_rate(8000),gpc1,\
                gpc1_rate(9000),http_fail_cnt,http_fail_rate(11000)";
    let s = |name, key_type, key_len, store| spec(name, key_type, key_len, store);
    let mut specs = vec![
        TableSpec { size: 100, ..s("mypeers/pt", String, 33, "gpc0") },
        s("t_ip", Ipv4, 4, t_ip),
        s("t_ip6", Ipv6, 16, "gpc0"),
        s("t_str", String, 33, "server_id,server_key"),
        TableSpec {
            size: 100,
            expire_ms: 3_600_000,
            ..s("t_arr", String, 9, "gpt(3),gpc(2),gpc_rate(2,10000)")
        },
        s("t_int", Integer, 4, "gpc0,gpc0_rate(10000)"),
        s("t_bin", Binary, 8, "gpc0"),
        TableSpec { expire_ms: 0, nopurge: true, ..s("t_noexp", String, 32, "gpc0") },
        s("t_none", String, 32, ""),
        TableSpec { size: 2, nopurge: true, ..s("t_small", String, 32, "gpc0") },
        s("t_glitch", Ipv4, 4, "glitch_cnt,glitch_rate(12000)"),
    ];
    let brates = "bytes_in_cnt,bytes_in_rate(10000),bytes_out_rate(10000)";
    specs.push(TableSpec { size: 10, brates_factor: 8, ..s("t_brates", String, 32, brates) });
    specs.into_iter().map(Arc::new).collect()
}

/// A table of 1024 entries that live 10 minutes; `store` in HAProxy's words, periods in ms.
fn spec(name: &str, key_type: KeyType, key_len: u32, store: &str) -> TableSpec {
    let mut columns = Vec::new();
    for item in split_items(store) {
        let (name, numbers) = item.trim_end_matches(')').split_once('(').unwrap_or((item, ""));
        let data_type = DataType::from_name(name).expect("known type");
        let mut numbers = numbers.split(',').map(|n| n.parse().expect("number"));
        let mut next = |wanted: bool, default| {
            if wanted { numbers.next().expect("parameter") } else { default }
        };
        let elements = next(data_type.is_array(), 1);
        let period_ms = next(data_type.is_rate(), 0);
        columns.push(ColumnSpec { data_type, elements, period_ms });
    }
    columns.sort_by_key(|c| c.data_type);
    TableSpec {
        name: name.to_owned(),
        wire_name: name.to_owned(),
        key_type,
        key_len,
        size: 1024,
        expire_ms: 600_000,
        nopurge: false,
        columns,
        recv_only: false,
        write_to: None,
        brates_factor: 1,
        srvkey_addr: false,
    }
}

/// Cuts at commas outside parentheses.
fn split_items(store: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in store.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                items.push(store[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(store[start..].trim());
    items.retain(|item| !item.is_empty());
    items
}
