//! The daemon as a child process, its configuration and its stats socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// What a test runs on.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub engine: &'static str,
    pub shards: usize,
}

/// Both engines with each number of shards.
pub const KINDS: [Kind; 6] = [
    Kind { engine: "auto", shards: 1 },
    Kind { engine: "auto", shards: 2 },
    Kind { engine: "auto", shards: 4 },
    Kind { engine: "epoll", shards: 1 },
    Kind { engine: "epoll", shards: 2 },
    Kind { engine: "epoll", shards: 4 },
];

/// One of each engine, for what takes its time.
pub const ENGINES: [Kind; 2] =
    [Kind { engine: "auto", shards: 2 }, Kind { engine: "epoll", shards: 1 }];

/// Runs `test` on each of `kinds` at the same time.
pub fn on(kinds: &[Kind], test: impl Fn(&Daemon) + Sync) {
    std::thread::scope(|scope| {
        for kind in kinds {
            let test = &test;
            scope.spawn(move || {
                let daemon = Daemon::start(*kind);
                crate::peer::teach_nothing(&daemon);
                test(&daemon);
            });
        }
    });
}

/// A running daemon; it is killed when this goes.
pub struct Daemon {
    pub kind: Kind,
    pub address: SocketAddr,
    child: Mutex<Child>,
    folder: tempfile::TempDir,
    log: PathBuf,
}

/// An address nobody listens on, nor will soon: it is none of those the system gives away, which
/// another test may get meanwhile. It is looked at by a connection, not a listener: a process that
/// another test begins at that moment would hold the listener until it has its program.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let pid = std::process::id();
    let own = [127, 64 + (pid >> 16 & 63) as u8, (pid >> 8) as u8, (pid & 255) as u8];
    loop {
        let port = 10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000;
        let address = SocketAddr::from((own, port));
        if TcpStream::connect(address).is_err() {
            return address;
        }
    }
}

impl Daemon {
    /// Anybody on loopback may come.
    pub fn start(kind: Kind) -> Daemon {
        Daemon::start_at(kind, "node", free_address(), &[])
    }

    /// Named `name`, with these remotes.
    pub fn start_at(
        kind: Kind,
        name: &str,
        address: SocketAddr,
        remotes: &[(&str, SocketAddr)],
    ) -> Daemon {
        Daemon::with(kind, name, address, remotes, &[])
    }

    /// The same, with more arguments.
    pub fn with(
        kind: Kind,
        name: &str,
        address: SocketAddr,
        remotes: &[(&str, SocketAddr)],
        args: &[&str],
    ) -> Daemon {
        Daemon::configured(kind, name, address, remotes, args, "")
    }

    /// The same, with more lines of `global`.
    pub fn configured(
        kind: Kind,
        name: &str,
        address: SocketAddr,
        remotes: &[(&str, SocketAddr)],
        args: &[&str],
        global: &str,
    ) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let remotes = remotes.iter().map(|(name, at)| format!("    server {name} {at}\n"));
        let text = format!(
            "global\n    localpeer {name}\n    nbthread {shards}\n    \
             stats socket {socket} level admin\n{global}\
             peers p\n    bind {address}\n    server {name}\n{remotes}    \
             table t type integer size 1m expire 1h store gpc0\n    \
             table small type integer size 10k expire 1h store gpc0\n\
             stickring\n    engine {engine}\n    pin off\n    \
             accept-peers 127.0.0.0/8 max 64\n",
            shards = kind.shards,
            engine = kind.engine,
            socket = folder.path().join("stats.sock").display(),
            remotes = remotes.collect::<String>(),
        );
        let config = folder.path().join("node.cfg");
        std::fs::write(&config, text).unwrap();
        let log = folder.path().join("log");
        let child = launch(&config, args, &log);
        let daemon = Daemon { kind, address, child: Mutex::new(child), folder, log };
        let up =
            wait_until(Duration::from_secs(10), || UnixStream::connect(daemon.socket()).is_ok());
        assert!(up, "the daemon is not up");
        daemon
    }

    /// Starts another process with the same configuration.
    pub fn launch(&self, args: &[&str]) -> Child {
        launch(&self.folder.path().join("node.cfg"), args, &self.log)
    }

    /// Changes the configuration, for the next process.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.folder.path().join("node.cfg");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// From now on `child` is the daemon; the one before is waited for.
    pub fn replace(&self, child: Child) {
        std::mem::replace(&mut *self.child.lock().unwrap(), child).wait().unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("stats.sock")
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// What it, and those before it, have logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The answer to one line of commands.
    pub fn cli(&self, line: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// `set table` for many keys, a hundred to a line.
    pub fn set(&self, rows: impl IntoIterator<Item = (u32, u64)>) {
        let one = |(key, value)| format!("set table p/t key {key} data.gpc0 {value}");
        let lines: Vec<String> = rows.into_iter().map(one).collect();
        for some in lines.chunks(100) {
            let reply = self.cli(&some.join(";"));
            assert_eq!(reply.trim(), "", "set table");
        }
    }

    /// Entries of table `p/t`.
    pub fn used(&self) -> usize {
        let header = self.cli("show table");
        let line = header.lines().find(|l| l.contains("table: p/t,")).expect("the table");
        let (_, used) = line.rsplit_once("used:").unwrap();
        used.trim().parse().unwrap()
    }

    /// One number of `show info`.
    pub fn info(&self, name: &str) -> u64 {
        let text = self.cli("show info");
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name}")).trim().parse().unwrap()
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> usize {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end of the process; `None` if it goes on.
    pub fn exit_code(&self, limit: Duration) -> Option<i32> {
        let mut code = None;
        wait_until(limit, || {
            code = self.child.lock().unwrap().try_wait().unwrap().and_then(|s| s.code());
            code.is_some()
        });
        code
    }
}

/// A process whose log lines go to `log`. An argument `fault:name` is a place to die at, `files:n`
/// limits its descriptors, `user:n` is who it runs as.
fn launch(config: &Path, args: &[&str], log: &Path) -> Child {
    let (faults, args): (Vec<&str>, Vec<&str>) = args.iter().partition(|a| a.contains("fault:"));
    let faults = faults.iter().map(|f| f.replace("fault:", "")).collect::<Vec<_>>().join(",");
    let value = |name: &str| args.iter().find_map(|a| a.strip_prefix(name));
    let (files, user) = (value("files:"), value("user:"));
    let args = args.iter().filter(|a| !a.starts_with("files:") && !a.starts_with("user:"));
    let program = env!("CARGO_BIN_EXE_stickring");
    let mut command = match files {
        Some(files) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), program]);
            shell
        }
        None => Command::new(program),
    };
    if let Some(user) = user {
        command.uid(user.parse().unwrap());
    }
    // A file, not a pipe: what a process has said is there when it has ended.
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    command
        .arg("-f")
        .arg(config)
        .args(args)
        .env("STICKRING_FAULT", faults)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let died = child.try_wait().unwrap().is_some();
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(4_000);
            eprintln!("{:?}, died before: {died}, log:\n{}", self.kind, &log[from..]);
        }
    }
}

/// Tries again and again; false when it never came true.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
