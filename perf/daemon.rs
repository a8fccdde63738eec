//! The daemons that are measured: which there are, their configuration, their processes.
//!
//! Owns child processes and the folder of their files; both go when the value is dropped. Called by
//! every measurement. Rule: all run the same haproxy.cfg but for the tuning that a subject's name
//! says, on loopback, on ports that were free, pinned to the daemon's CPUs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::model::TABLE;
use crate::pin;
use crate::usage::Usage;
use crate::{Outcome, fail};

/// The daemon's name among peers.
pub const NODE: &str = "node";
/// Peers in its section beside itself, `lg1` and so on; nobody listens on their addresses.
pub const GENERATORS: usize = 18;
/// A daemon that does not answer by then has failed to start.
const START_MAX: Duration = Duration::from_secs(20);
/// Between two looks at one that starts: short against the start, which `reload` measures.
const START_LOOK: Duration = Duration::from_millis(1);

/// Name of generator `n`, from 1.
pub fn generator(n: usize) -> String {
    assert!((1..=GENERATORS).contains(&n), "generator {n} is not in the configuration");
    format!("lg{n}")
}

/// What a subject's configuration has beside the common one; its name says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    Plain,
    /// HAProxy with 128 KiB buffers and 10000 updates at once.
    Tuned,
    /// stickring whose reloads go by the peers protocol, as HAProxy's (`instant-reload off`).
    ByProtocol,
}

/// A program to measure, as it is to be configured.
#[derive(Clone, Debug)]
pub struct Subject {
    /// As the tables name it.
    pub name: String,
    /// What `-v` says.
    pub version: String,
    program: PathBuf,
    /// It is stickring.
    pub ours: bool,
    /// How it is configured.
    pub variant: Variant,
}

impl Subject {
    /// The version in the first line of `-v`.
    fn version_of(program: &Path) -> Option<String> {
        let output = Command::new(program).arg("-v").stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rest = text.lines().next()?.split_once("ersion ")?.1;
        Some(rest.split_whitespace().next()?.to_owned())
    }

    /// The same program, configured otherwise.
    pub fn with(&self, variant: Variant) -> Subject {
        let name = match variant {
            Variant::Plain => self.name.clone(),
            Variant::Tuned => format!("{} tuned", self.name),
            Variant::ByProtocol => format!("{} by protocol", self.name),
        };
        Subject { name, variant, ..self.clone() }
    }

    /// For tests: a subject of that name that nobody starts.
    #[cfg(test)]
    pub fn example(name: &str, ours: bool) -> Subject {
        let (version, program) = ("0.0".to_owned(), PathBuf::new());
        Subject { name: name.to_owned(), version, program, ours, variant: Variant::Plain }
    }

    /// stickring from this program.
    pub fn stickring(program: &Path) -> Outcome<Subject> {
        let Some(version) = Subject::version_of(program) else {
            return fail(format!("{} does not run: build it first", program.display()));
        };
        let (name, program) = ("stickring".to_owned(), program.to_owned());
        Ok(Subject { name, version, program, ours: true, variant: Variant::Plain })
    }

    /// Every HAProxy below `folder` and the system's own, oldest first, each version once.
    pub fn haproxies(folder: &Path) -> Vec<Subject> {
        let mut programs = vec![PathBuf::from("/usr/sbin/haproxy")];
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            programs.push(entry.path().join("haproxy"));
        }
        let mut found: Vec<Subject> = Vec::new();
        for program in programs {
            let Some(version) = Subject::version_of(&program) else { continue };
            let major: Vec<&str> = version.splitn(3, '.').take(2).collect();
            let name = format!("haproxy {}", major.join("."));
            if found.iter().all(|s| s.version != version) {
                let variant = Variant::Plain;
                found.push(Subject { name, version, program, ours: false, variant });
            }
        }
        let order = |s: &Subject| {
            let numbers = s.version.split(|c: char| !c.is_ascii_digit());
            numbers.take(2).map(|n| n.parse().unwrap_or(0)).collect::<Vec<u32>>()
        };
        found.sort_by_key(order);
        found
    }
}

/// How a daemon is to run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Entries the table must hold; it is made twice as large, so that no part of it is full.
    pub keys: u32,
    /// `nbthread`.
    pub threads: usize,
    /// CPUs it may use; none: no pinning.
    pub cpus: Vec<usize>,
    /// Peers that do listen, with their addresses.
    pub others: Vec<(String, String)>,
    /// Its own peers address; none: a free port.
    pub address: Option<String>,
    /// `localpeer`.
    pub name: String,
}

impl Setup {
    /// One thread for `keys` entries.
    pub fn new(keys: u32, threads: usize, cpus: &[usize]) -> Setup {
        Setup {
            keys,
            threads,
            cpus: cpus.to_vec(),
            others: Vec::new(),
            address: None,
            name: NODE.to_owned(),
        }
    }
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    folder: PathBuf,
    /// `127.0.0.1:port` of its peers listener.
    pub address: String,
    /// Its stats socket.
    pub socket: PathBuf,
    /// Its CPUs; none: not pinned.
    pub cpus: Vec<usize>,
    name: String,
}

/// Ports that are tried, below those that the kernel gives to outgoing connections: nobody but
/// another tester takes one of them between our look and the daemon's bind.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// An address of loopback that was free a moment ago, and another one each time.
pub fn free_address() -> Outcome<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    for _ in 0..count {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        // Two testers at once begin at different places.
        let port = PORTS.start + (std::process::id().wrapping_mul(7_919).wrapping_add(n)) % count;
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() {
            return Ok(address);
        }
    }
    fail("no port of loopback is free")
}

/// A command whose process dies with ours, however that ends, where util-linux can arrange it.
fn mortal(program: &Path) -> Command {
    const WRAP: [&str; 2] = ["--pdeathsig", "KILL"];
    static CAN: OnceLock<bool> = OnceLock::new();
    let can = || Command::new("setpriv").args(WRAP).arg("true").status().is_ok_and(|s| s.success());
    if !*CAN.get_or_init(can) {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(WRAP).arg(program);
    command
}

/// Folders of daemons of this process, numbered.
static FOLDERS: AtomicU32 = AtomicU32::new(0);

fn configuration(
    subject: &Subject,
    setup: &Setup,
    address: &str,
    socket: &Path,
) -> Outcome<String> {
    let Setup { threads, name, .. } = setup;
    let mut text = format!(
        "global\n    localpeer {name}\n    nbthread {threads}\n    stats timeout 1h\n    \
         stats socket {} level admin\n",
        socket.display()
    );
    if subject.variant == Variant::Tuned {
        text.push_str("    tune.bufsize 131072\n");
        // HAProxy 2.6 has no such limit.
        if !subject.version.starts_with("2.6") {
            text.push_str("    tune.peers.max-updates-at-once 10000\n");
        }
    }
    text.push_str("\ndefaults\n    mode http\n    timeout client 1h\n");
    text.push_str("    timeout server 1h\n    timeout connect 5s\n\npeers mesh\n");
    text.push_str(&format!("    peer {name} {address}\n"));
    let names = (1..=GENERATORS).map(generator).chain([NODE.to_owned()]);
    for peer in names.filter(|n| n != name) {
        // Nobody listens on port 1: a dialled generator is refused at once.
        let other = setup.others.iter().find(|(n, _)| *n == peer);
        let address = other.map_or("127.0.0.1:1", |(_, a)| a.as_str());
        text.push_str(&format!("    peer {peer} {address}\n"));
    }
    let size = (u64::from(setup.keys) * 2).max(100_000);
    text.push_str(&format!(
        "\nbackend {TABLE}\n    stick-table type ip size {size} expire 1h \
         store gpc0,http_req_rate(10s) peers mesh\n\nfrontend web\n    bind {}\n",
        free_address()?
    ));
    if subject.variant == Variant::ByProtocol {
        text.push_str("\nstickring\n    instant-reload off\n");
    }
    Ok(text)
}

impl Daemon {
    /// Starts it and waits until it answers.
    pub fn start(subject: &Subject, setup: &Setup) -> Outcome<Daemon> {
        Daemon::start_with(subject, setup, &[])
    }

    /// Starts it with more words on its command line.
    pub fn start_with(subject: &Subject, setup: &Setup, more: &[String]) -> Outcome<Daemon> {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("stickring-load-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let (file, socket) = (folder.join("haproxy.cfg"), folder.join("stats.sock"));
        let address = setup.address.clone().map_or_else(free_address, Ok)?;
        fs::write(&file, configuration(subject, setup, &address, &socket)?)?;
        let log = fs::File::create(folder.join("log"))?;
        let mut command = mortal(&subject.program);
        command.arg("-db").arg("-f").arg(&file).args(more).env("XDG_RUNTIME_DIR", &folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A child starts with the CPUs of the thread that made it.
        let child = pin::on(&setup.cpus, || command.spawn())?;
        let name = subject.name.clone();
        let cpus = setup.cpus.clone();
        let mut daemon = Daemon { child, folder, address, socket, cpus, name };
        daemon.wait_ready()?;
        let cpus = pin::of(daemon.pid());
        if !setup.cpus.is_empty() && cpus != setup.cpus {
            // It would share the generator's, and every figure would be wrong.
            return fail(format!("{} has CPUs {cpus:?}, not {:?}", daemon.name, setup.cpus));
        }
        Ok(daemon)
    }

    fn wait_ready(&mut self) -> Outcome<()> {
        let end = Instant::now() + START_MAX;
        while Instant::now() < end {
            if let Some(status) = self.exited()? {
                return fail(format!("{} ended at its start, {status}: {}", self.name, self.log()));
            }
            if self.socket.exists() && self.ask("show info").is_ok_and(|t| t.contains("Pid: ")) {
                return Ok(());
            }
            std::thread::sleep(START_LOOK);
        }
        fail(format!("{} does not answer: {}", self.name, self.log()))
    }

    /// The end of what it logged.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join(" | ")
    }

    /// One command on its stats socket.
    pub fn ask(&self, command: &str) -> Outcome<String> {
        let mut socket = UnixStream::connect(&self.socket)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.write_all(format!("{command}\n").as_bytes())?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Entries in the table by its own count.
    pub fn used(&self) -> Outcome<u64> {
        let text = self.ask("show table")?;
        let line = text.lines().find(|l| l.starts_with(&format!("# table: {TABLE},")));
        match line.and_then(|l| l.rsplit_once("used:")).and_then(|(_, n)| n.trim().parse().ok()) {
            Some(n) => Ok(n),
            None => fail(format!("no table {TABLE} in: {text}")),
        }
    }

    /// A field of `show info`; none where the daemon has no such field.
    pub fn info(&self, field: &str) -> Outcome<Option<String>> {
        let text = self.ask("show info")?;
        let mut fields = text.lines().filter_map(|l| l.split_once(':'));
        Ok(fields.find(|(name, _)| *name == field).map(|(_, value)| value.trim().to_owned()))
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU and memory now.
    pub fn usage(&self) -> Outcome<Usage> {
        Usage::of(self.pid())
    }

    /// How it ended, when it has.
    pub fn exited(&mut self) -> Outcome<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_in_the_name_and_in_the_configuration() {
        let text = |variant, ours| {
            let subject = Subject::example("x", ours).with(variant);
            let socket = Path::new("/run/x.sock");
            let setup = Setup::new(1_000, 1, &[]);
            let text = configuration(&subject, &setup, "127.0.0.1:2", socket).expect("a port");
            let has = |line: &str| text.lines().any(|l| l.trim() == line);
            (subject.name, has("instant-reload off"), has("tune.bufsize 131072"))
        };
        assert_eq!(text(Variant::Plain, true), ("x".to_owned(), false, false));
        assert_eq!(text(Variant::ByProtocol, true), ("x by protocol".to_owned(), true, false));
        assert_eq!(text(Variant::Tuned, false), ("x tuned".to_owned(), false, true));
    }
}
