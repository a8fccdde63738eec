//! The laboratory of the interop tests: real processes on loopback, guarded and bounded.
//!
//! It owns the processes it starts (each is killed by its own pid when its guard goes), their
//! folder and logs (shown when a test fails), loopback addresses that no other test uses, and
//! the list of HAProxy versions found. Every scenario starts here, by [`each_version`] or
//! [`each_node`]. Rule kept: a version that is missing is named, never silently left out.
//!
//! The node under test is stickring. With `INTEROP_NODE=haproxy` (or `haproxy:3.2`) it is a
//! HAProxy, which shows that the tests themselves expect what HAProxy does.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::config::{Config, Member};
use crate::stats::Cli;

/// The versions that the issue asks for; one that is not found is named in the output.
const WANTED: [&str; 4] = ["2.6", "3.0", "3.2", "3.4"];

/// A HAProxy that can be run.
#[derive(Clone, Debug)]
pub struct Version {
    pub name: String,
    pub number: (u32, u32),
    pub path: PathBuf,
}

/// What the node under test is.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// A HAProxy, to test the tests.
    HaProxy(Version),
    /// The daemon, with this engine.
    Stickring(&'static str),
}

impl NodeKind {
    pub fn is_stickring(&self) -> bool {
        matches!(self, NodeKind::Stickring(_))
    }

    /// The version to compare its behaviour with: stickring follows 3.x.
    pub fn number(&self) -> (u32, u32) {
        match self {
            NodeKind::HaProxy(version) => version.number,
            NodeKind::Stickring(_) => (3, 5),
        }
    }
}

/// Writes past the capture of the test runner, so that it is seen when tests pass, too.
pub fn announce(text: &str) {
    let _ = writeln!(std::io::stderr(), "interop: {text}");
}

fn probe(path: &Path) -> Option<Version> {
    let output = Command::new(path).arg("-v").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.strip_prefix("HAProxy version ")?;
    let mut parts = number.split(['.', '-', ' ']);
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let name = format!("{major}.{minor}");
    Some(Version { name, number: (major, minor), path: path.to_path_buf() })
}

/// All HAProxy versions found: those of `tests/setup-haproxy.sh`, and the system's own.
pub fn versions() -> &'static [Version] {
    static FOUND: OnceLock<Vec<Version>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found: Vec<Version> = Vec::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/haproxy");
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
            .map(|entries| entries.flatten().map(|e| e.path().join("haproxy")).collect())
            .unwrap_or_default();
        paths.extend(["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"].map(PathBuf::from));
        for version in paths.iter().filter(|p| p.exists()).filter_map(|p| probe(p)) {
            if !found.iter().any(|f| f.name == version.name) {
                found.push(version);
            }
        }
        found.sort_by_key(|version| version.number);
        let names: Vec<&str> = found.iter().map(|v| v.name.as_str()).collect();
        announce(&format!("HAProxy versions that run: {}", names.join(" ")));
        let missing: Vec<&str> = WANTED.into_iter().filter(|w| !names.contains(w)).collect();
        if !missing.is_empty() {
            let missing = missing.join(" ");
            announce(&format!("MISSING HAProxy versions: {missing} (tests/setup-haproxy.sh)"));
        }
        found
    })
}

/// The newest HAProxy found, for what needs just one.
pub fn newest() -> Version {
    versions().last().expect("no HAProxy at all: run tests/setup-haproxy.sh").clone()
}

fn node_for(version: &Version, engine: &'static str) -> NodeKind {
    match std::env::var("INTEROP_NODE").ok().as_deref() {
        None | Some("" | "stickring") => NodeKind::Stickring(engine),
        Some("haproxy") => NodeKind::HaProxy(version.clone()),
        Some(other) => {
            let name = other.strip_prefix("haproxy:").expect("INTEROP_NODE: haproxy[:VERSION]");
            let found = versions().iter().find(|v| v.name == name);
            NodeKind::HaProxy(found.expect("INTEROP_NODE names a version not found").clone())
        }
    }
}

/// Runs a scenario once for each HAProxy version from `least` on, all at the same time.
pub fn each_version(scenario: &str, least: (u32, u32), run: impl Fn(&Lab) + Sync) {
    each_version_on(scenario, least, "auto", run);
}

/// As [`each_version`], with a certain engine in the node.
pub fn each_version_on(
    scenario: &str,
    least: (u32, u32),
    engine: &'static str,
    run: impl Fn(&Lab) + Sync,
) {
    let labs: Vec<(Version, NodeKind)> = versions()
        .iter()
        .filter(|version| version.number >= least)
        .map(|version| (version.clone(), node_for(version, engine)))
        .collect();
    run_all(scenario, labs, run);
}

/// Runs a scenario that needs no HAProxy: once for the node (each version when that is HAProxy).
pub fn each_node(scenario: &str, run: impl Fn(&Lab) + Sync) {
    let labs = match node_for(&newest(), "auto") {
        NodeKind::HaProxy(_) => {
            versions().iter().map(|v| (v.clone(), NodeKind::HaProxy(v.clone()))).collect()
        }
        node => vec![(newest(), node)],
    };
    run_all(scenario, labs, run);
}

fn run_all(scenario: &str, labs: Vec<(Version, NodeKind)>, run: impl Fn(&Lab) + Sync) {
    assert!(!labs.is_empty(), "{scenario}: no HAProxy found, run tests/setup-haproxy.sh");
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (version, node) in labs {
            let (run, failed) = (&run, &failed);
            scope.spawn(move || {
                let name = version.name.clone();
                let began = Instant::now();
                let lab = Lab::new(version, node);
                let passed = catch_unwind(AssertUnwindSafe(|| run(&lab))).is_ok();
                let verdict = if passed { "ok" } else { "FAILED" };
                let seconds = began.elapsed().as_secs_f32();
                announce(&format!("{scenario} with HAProxy {name}: {verdict} ({seconds:.1} s)"));
                if !passed {
                    lab.show(scenario);
                    failed.lock().unwrap().push(name);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{scenario} failed with HAProxy {}", failed.join(", "));
}

/// One run of one scenario: its folder, addresses and processes.
pub struct Lab {
    pub version: Version,
    pub node: NodeKind,
    folder: tempfile::TempDir,
    address: [u8; 4],
    logs: Mutex<Vec<(String, PathBuf)>>,
}

impl Lab {
    fn new(version: Version, node: NodeKind) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        // A loopback address of its own keeps tests that run at the same time apart.
        let address = [127, 64 + (pid >> 8 & 63) as u8, (pid & 255) as u8, (count % 250 + 1) as u8];
        let folder = tempfile::Builder::new().prefix("stickring-").tempdir().expect("temp folder");
        Lab { version, node, folder, address, logs: Mutex::default() }
    }

    /// The scenario's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A free address on loopback. It is looked at by a connection, not a listener: a process that
    /// another test begins at that moment would hold the listener until it has its program.
    pub fn free(&self) -> SocketAddr {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..1000 {
            let port = 10_000 + (NEXT.fetch_add(1, Ordering::Relaxed) % 20_000) as u16;
            let address = SocketAddr::from((self.address, port));
            if TcpStream::connect(address).is_err() {
                return address;
            }
        }
        panic!("no free port on {:?}", self.address);
    }

    /// A member of the peers section with a free address of its own.
    pub fn member(&self, name: &str) -> Member {
        Member { name: name.to_owned(), address: self.free().to_string() }
    }

    /// The executable of a kind of node.
    pub fn program(&self, kind: &NodeKind) -> PathBuf {
        match kind {
            NodeKind::HaProxy(version) => version.path.clone(),
            NodeKind::Stickring(_) => PathBuf::from(env!("CARGO_BIN_EXE_stickring")),
        }
    }

    /// Starts a HAProxy of this run's version and waits for its stats socket.
    pub fn haproxy(&self, config: &Config) -> Process {
        self.start(&NodeKind::HaProxy(self.version.clone()), config)
    }

    /// Starts a HAProxy of this run's version on this text, which names `NAME.sock`.
    pub fn haproxy_with(&self, name: &str, text: &str) -> Process {
        let file = self.path(&format!("{name}.cfg"));
        std::fs::write(&file, text).expect("config file");
        let arguments = vec!["-f".to_owned(), file.display().to_string()];
        let socket = self.path(&format!("{name}.sock"));
        self.launch(&NodeKind::HaProxy(self.version.clone()), name, socket, arguments)
    }

    /// Starts a HAProxy of this run's version in master-worker mode and waits for its stats socket.
    pub fn haproxy_master(&self, config: &Config) -> Process {
        let name = &config.local;
        let (file, socket) =
            (self.path(&format!("{name}.cfg")), self.path(&format!("{name}.sock")));
        std::fs::write(&file, config.render(&socket)).expect("config file");
        let arguments = ["-f", &file.display().to_string(), "-W"].map(str::to_owned).to_vec();
        let version = Version { path: self.own_wrapper(), ..self.version.clone() };
        self.launch(&NodeKind::HaProxy(version), name, socket, arguments)
    }

    /// A master starts itself again by the name it was started with: one that runs by a loader of
    /// its own must be told the wrapper's.
    fn own_wrapper(&self) -> PathBuf {
        let text = std::fs::read_to_string(&self.version.path).unwrap_or_default();
        if !text.contains(" --library-path ") {
            return self.version.path.clone();
        }
        let folder = self.version.path.parent().expect("its folder").display().to_string();
        let text = text.replace("${0%/*}", &folder);
        let text = text.replace(" --library-path ", " --argv0 \"$0\" --library-path ");
        let path = self.path("haproxy");
        std::fs::write(&path, text).expect("a wrapper");
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, all).expect("an executable");
        path
    }

    /// Starts the node under test and waits for its stats socket.
    pub fn node(&self, config: &Config) -> Process {
        self.start(&self.node, config)
    }

    /// The same with a file of its own lines beside the configuration.
    pub fn node_with(&self, config: &Config, lines: &str) -> Process {
        if lines.is_empty() {
            return self.node(config);
        }
        let name = &config.local;
        let (file, own) =
            (self.path(&format!("{name}.cfg")), self.path(&format!("{name}.own.cfg")));
        let socket = self.path(&format!("{name}.sock"));
        std::fs::write(&file, config.render(&socket)).expect("config file");
        std::fs::write(&own, lines).expect("config file");
        let files = [file.display().to_string(), own.display().to_string()];
        let arguments = files.into_iter().flat_map(|f| ["-f".to_owned(), f]).collect();
        self.launch(&self.node, name, socket, arguments)
    }

    /// Starts a successor of a process with the same file and `-sf`, and waits for the old to end.
    pub fn reload(&self, old: &mut Process) -> Process {
        let program = old.program.clone();
        let new = self.succeed(old, &program);
        old.leave();
        // The stats socket has been the new one's since it began.
        new.wait_for(&new.cli());
        new
    }

    /// Starts a successor of a process with the same file and `-sf`, perhaps of another program,
    /// and waits for nothing.
    pub fn succeed(&self, old: &Process, program: &Path) -> Process {
        let (program, socket) = (program.to_path_buf(), old.socket.clone());
        let arguments = [&old.arguments[..], &["-sf".to_owned(), old.pid().to_string()]].concat();
        let mut new = Process { program, arguments, socket, log: old.log.clone(), child: None };
        new.run();
        // A later start of it is a plain one.
        new.arguments.truncate(new.arguments.len() - 2);
        new
    }

    /// Starts the node on the very file that HAProxy has, but with a stats socket of its own: `-L`
    /// says who it is, over the `localpeer` of the file.
    pub fn node_on_file_of(&self, config: &Config, name: &str) -> Process {
        let file = self.path(&format!("{}.cfg", config.local));
        let socket = self.path(&format!("{name}.sock"));
        let text = std::fs::read_to_string(&file).expect("the config of HAProxy");
        let theirs = self.path(&format!("{}.sock", config.local)).display().to_string();
        let text = text.replace(&theirs, &socket.display().to_string());
        let own = self.path(&format!("{name}.cfg"));
        std::fs::write(&own, text).expect("config file");
        let arguments = ["-f", &own.display().to_string(), "-L", name].map(str::to_owned).to_vec();
        self.launch(&self.node, name, socket, arguments)
    }

    fn start(&self, kind: &NodeKind, config: &Config) -> Process {
        let name = &config.local;
        let file = self.path(&format!("{name}.cfg"));
        let socket = self.path(&format!("{name}.sock"));
        std::fs::write(&file, config.render(&socket)).expect("config file");
        let arguments = vec!["-f".to_owned(), file.display().to_string()];
        self.launch(kind, name, socket, arguments)
    }

    fn launch(
        &self,
        kind: &NodeKind,
        name: &str,
        socket: PathBuf,
        mut arguments: Vec<String>,
    ) -> Process {
        let program = self.program(kind);
        if let NodeKind::Stickring(engine @ ("epoll" | "uring")) = kind {
            let own = self.path(&format!("{name}.stickring.cfg"));
            std::fs::write(&own, format!("stickring\n    engine {engine}\n")).expect("config file");
            arguments.extend(["-f".to_owned(), own.display().to_string()]);
        }
        arguments.push("-db".to_owned());
        let log = self.path(&format!("{name}.log"));
        self.logs.lock().unwrap().push((name.to_owned(), log.clone()));
        let mut process = Process { program, arguments, socket, log, child: None };
        process.start();
        process
    }

    /// Prints what a failed run leaves: configs and the ends of all logs.
    fn show(&self, scenario: &str) {
        let mut text = format!("==== {scenario} with HAProxy {}\n", self.version.name);
        let mut logs = self.logs.lock().unwrap().clone();
        logs.dedup();
        for (name, log) in logs {
            let config = std::fs::read_to_string(self.path(&format!("{name}.cfg")));
            let _ = writeln!(text, "---- config of {name}\n{}", config.unwrap_or_default());
            let log = std::fs::read(&log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            let _ = writeln!(text, "---- log of {name}\n{tail}");
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// A process that dies with its guard.
pub struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    socket: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts it (again) and waits until its stats socket answers.
    pub fn start(&mut self) {
        self.kill();
        self.run();
        self.wait();
    }

    fn run(&mut self) {
        let open = std::fs::OpenOptions::new().create(true).append(true).open(&self.log);
        let log = open.expect("log file");
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", self.program.display()));
        self.child = Some(child);
    }

    fn wait(&mut self) {
        let begin = Instant::now();
        while self.cli().try_ask("show version").is_err() {
            assert!(self.alive(), "{} ended at once, see its log", self.program.display());
            let waited = begin.elapsed();
            assert!(waited < Duration::from_secs(10), "no answer on the stats socket in 10 s");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it is the one that answers on the stats socket.
    pub fn wait_for(&self, cli: &Cli) {
        let mine = format!("\nPid: {}\n", self.pid());
        eventually(15, "the new process's stats socket", || {
            let info = cli.try_ask("show info").map_err(|e| e.to_string())?;
            if info.contains(&mine) { Ok(()) } else { Err("another process answers".to_owned()) }
        });
    }

    /// Waits for the end of an old process, which must be a good one.
    pub fn leave(&mut self) {
        let begin = Instant::now();
        while self.alive() {
            let waited = begin.elapsed();
            assert!(waited < Duration::from_secs(25), "the old process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(mut child) = self.child.take() {
            let status = child.wait().expect("its status");
            assert_eq!(status.code(), Some(0), "the end of the old process");
        }
    }

    /// One line of `show info`.
    pub fn info(&self, name: &str) -> String {
        let text = self.cli().ask("show info");
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    }

    /// SIGKILL to it alone: its stats socket may be its successor's by now.
    pub fn kill_only(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            let _ = std::fs::remove_file(&self.socket);
        }
    }

    /// Its process id; 0 when it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its stats socket.
    pub fn cli(&self) -> Cli {
        Cli::new(&self.socket)
    }

    /// All it wrote on stdout and stderr.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Polls until `check` is content; panics with its last complaint after `limit` seconds.
pub fn eventually<T>(limit: u64, what: &str, check: impl Fn() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(complaint) if begin.elapsed() >= Duration::from_secs(limit) => {
                panic!("{what}: not within {limit} s: {complaint}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Sleeps; in milliseconds.
pub fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Sends a signal to a process; one that is gone already gets none.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, signal);
}
