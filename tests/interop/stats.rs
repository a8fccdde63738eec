//! A client of the stats socket: sends commands, reads replies, and understands tables and peers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The stats socket of one process.
#[derive(Clone, Debug)]
pub struct Cli {
    socket: PathBuf,
}

/// An entry of `show table`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub exp: u64,
    pub in_use: u64,
    /// Everything behind: by name as it is printed, `gpc0_rate(10000)` and so on.
    pub values: BTreeMap<String, String>,
}

impl Row {
    /// A value as a number.
    pub fn number(&self, name: &str) -> u64 {
        let value = self.values.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number"))
    }
}

/// A whole table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dump {
    pub header: String,
    pub rows: BTreeMap<String, Row>,
    /// How many lines there were; more than rows when a key was shown twice.
    pub lines: usize,
}

/// A peer of `show peers`: its fields and, by table name, those of its shared tables.
#[derive(Clone, Debug, Default)]
pub struct PeerState {
    pub fields: BTreeMap<String, String>,
    pub tables: BTreeMap<String, BTreeMap<String, String>>,
}

impl PeerState {
    /// A counter of its lines.
    pub fn number(&self, name: &str) -> u64 {
        let value = self.fields.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number"))
    }
}

impl Cli {
    /// For the socket at this path.
    pub fn new(socket: &Path) -> Cli {
        Cli { socket: socket.to_path_buf() }
    }

    /// Opens a connection with a bounded time for reading and writing.
    pub fn connect(&self) -> std::io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(stream)
    }

    /// Sends bytes as they are and reads until the end.
    pub fn raw(&self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = self.connect()?;
        stream.write_all(bytes)?;
        let mut reply = Vec::new();
        match stream.read_to_end(&mut reply) {
            // HAProxy closes with input unread (a second line): that is an end as well.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Ok(reply),
            Err(e) => Err(e),
            Ok(_) => Ok(reply),
        }
    }

    /// One command; the reply with all its line ends.
    pub fn try_ask(&self, command: &str) -> std::io::Result<String> {
        let reply = self.raw(format!("{command}\n").as_bytes())?;
        if reply.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&reply).into_owned())
    }

    /// As [`Cli::try_ask`]; a process that does not answer fails the test.
    pub fn ask(&self, command: &str) -> String {
        let start: String = command.chars().take(60).collect();
        self.try_ask(command).unwrap_or_else(|e| panic!("stats socket: `{start}`: {e}"))
    }

    /// A command that must be accepted without a word.
    pub fn must(&self, command: &str) {
        let reply = self.ask(command);
        assert!(reply.trim().is_empty(), "`{command}` was answered: {reply}");
    }

    /// Many commands, as many in a line as fit a default buffer, all to be accepted.
    pub fn batch(&self, commands: impl IntoIterator<Item = String>) {
        let mut line = String::new();
        let send = |line: &str| {
            let reply = self.ask(line);
            let complaint = reply.lines().find(|l| !l.trim().is_empty());
            assert_eq!(complaint, None, "a command in a batch was refused");
        };
        for command in commands {
            if line.len() + command.len() > 12_000 {
                send(&line);
                line.clear();
            }
            if !line.is_empty() {
                line.push(';');
            }
            line.push_str(&command);
        }
        if !line.is_empty() {
            send(&line);
        }
    }

    /// `show table NAME`, understood.
    pub fn table(&self, name: &str) -> Dump {
        parse_table(&self.ask(&format!("show table {name}")))
    }

    /// One entry of a table.
    pub fn row(&self, table: &str, key: &str) -> Option<Row> {
        let dump = parse_table(&self.ask(&format!("show table {table} key {key}")));
        dump.rows.into_values().next()
    }

    /// The number of entries that the table says it has.
    pub fn used(&self, table: &str) -> Result<usize, String> {
        let reply = self.ask("show table");
        let line = reply.lines().find(|l| l.contains(&format!("# table: {table},")));
        line.and_then(|l| l.split("used:").nth(1))
            .and_then(|n| n.trim().parse().ok())
            .ok_or_else(|| format!("no table {table} in: {reply}"))
    }

    /// `show peers SECTION`, by peer name.
    pub fn peers(&self, section: &str) -> BTreeMap<String, PeerState> {
        parse_peers(&self.ask(&format!("show peers {section}")))
    }

    /// Whether the session with a peer is established.
    pub fn established(&self, section: &str, peer: &str) -> Result<PeerState, String> {
        let mut peers = self.peers(section);
        let state = peers.remove(peer).ok_or_else(|| format!("no peer {peer}"))?;
        match state.fields.get("last_status").map(String::as_str) {
            Some("ESTA") if state.fields["activity"] == "active" => Ok(state),
            other => Err(format!("{peer}: last_status {other:?}, {:?}", state.fields)),
        }
    }
}

/// Understands the reply of `show table NAME`; anything unexpected is a failure.
pub fn parse_table(reply: &str) -> Dump {
    let mut dump = Dump::default();
    for line in reply.lines().filter(|l| !l.is_empty()) {
        if line.starts_with("# table:") {
            dump.header = line.to_owned();
            continue;
        }
        let rest = line.strip_prefix("0x").unwrap_or_else(|| panic!("not an entry: `{line}`"));
        let (_, rest) = rest.split_once(": key=").unwrap_or_else(|| panic!("no key: `{line}`"));
        let (key, rest) = rest.split_once(" use=").unwrap_or_else(|| panic!("no use: `{line}`"));
        let mut words = rest.split(' ');
        let number = |word: Option<&str>, prefix: &str| -> u64 {
            let value = word.and_then(|w| w.strip_prefix(prefix));
            value.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("{prefix}? in `{line}`"))
        };
        let in_use = number(words.next(), "");
        let exp = number(words.next(), "exp=");
        let values = words.filter_map(|w| w.split_once('=')).filter(|(name, _)| *name != "shard");
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        dump.lines += 1;
        dump.rows.insert(key.to_owned(), Row { exp, in_use, values });
    }
    dump
}

fn fields_of(line: &str) -> impl Iterator<Item = (String, String)> {
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// Understands `show peers`.
pub fn parse_peers(reply: &str) -> BTreeMap<String, PeerState> {
    let mut peers: BTreeMap<String, PeerState> = BTreeMap::new();
    let mut current: Option<String> = None;
    let mut numbers: BTreeMap<String, String> = BTreeMap::new();
    for line in reply.lines() {
        let head = fields_of(line).find(|(name, value)| name == "id" && value.contains('('));
        if let Some((_, id)) = head {
            let (name, kind) = id.split_once('(').expect("checked above");
            let (place, activity) = kind.trim_end_matches(')').split_once(',').expect("kind");
            let mut state = PeerState { fields: fields_of(line).collect(), ..Default::default() };
            state.fields.insert("place".into(), place.into());
            state.fields.insert("activity".into(), activity.into());
            peers.insert(name.to_owned(), state);
            current = Some(name.to_owned());
        } else if let Some(state) = current.as_ref().and_then(|name| peers.get_mut(name)) {
            if line.contains("local_id=") && !line.contains("table:") {
                numbers = fields_of(line).collect();
            } else if line.contains("last_pushed=") {
                numbers.extend(fields_of(line));
            } else if line.trim_start().starts_with("table:") {
                let fields: BTreeMap<String, String> = fields_of(line).collect();
                let name = fields["id"].clone();
                // Both lines say `update=`: the peer's is what it acknowledged.
                let mut all = std::mem::take(&mut numbers);
                if let Some(update) = fields.get("update") {
                    all.insert("table_update".into(), update.clone());
                }
                all.extend(fields.into_iter().filter(|(name, _)| name != "update"));
                state.tables.insert(name, all);
            } else {
                for (name, value) in fields_of(line) {
                    state.fields.entry(name).or_insert(value);
                }
            }
        }
    }
    peers
}
