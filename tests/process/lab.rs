//! A folder, an address and a configuration; processes started on them, each of which dies with
//! its test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Long enough for anything that happens at all.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Where one test happens.
pub struct Lab {
    folder: tempfile::TempDir,
    pub address: SocketAddr,
}

/// A process of a test; it is killed when this goes.
pub struct Proc {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Lab {
    /// A configuration for both programs: peer `n` of section `p` listens, with one table.
    pub fn new() -> Lab {
        let lab = Lab { folder: tempfile::tempdir().unwrap(), address: free_address() };
        lab.configure("");
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn socket(&self) -> PathBuf {
        self.path("stats.sock")
    }

    /// Writes the configuration anew; `global` lines go to that section.
    pub fn configure(&self, global: &str) {
        self.configure_at(&self.address.to_string(), global);
    }

    /// The same for another address.
    pub fn configure_at(&self, address: &str, global: &str) {
        let text = format!(
            "global\n    localpeer n\n    nbthread 2\n    \
             stats socket {} mode 600 level admin expose-fd listeners\n    {global}\n\
             defaults\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n\
             peers p\n    peer n {address}\n    \
             table t type integer size 10k expire 1h store gpc0\n",
            self.socket().display(),
        );
        std::fs::write(self.path("node.cfg"), text).unwrap();
    }

    /// Starts the daemon and returns at once.
    pub fn spawn(&self, args: &[&str]) -> Proc {
        self.spawn_with(args, &[])
    }

    /// The same with more environment.
    pub fn spawn_with(&self, args: &[&str], env: &[(&str, &str)]) -> Proc {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stickring"));
        command.arg("-f").arg(self.path("node.cfg")).args(args).env_remove("NOTIFY_SOCKET");
        command.envs(env.iter().copied());
        Proc::spawn(command)
    }

    /// The same, with this as its standard input: `fd@0`.
    pub fn spawn_holding(&self, args: &[&str], fd: OwnedFd) -> Proc {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stickring"));
        command.arg("-f").arg(self.path("node.cfg")).args(args).stdin(fd);
        Proc::spawn_as_it_is(command)
    }

    /// Starts the daemon and waits until it is the one that answers.
    pub fn start(&self, args: &[&str]) -> Proc {
        let proc = self.spawn(args);
        self.wait_for(&proc);
        proc
    }

    /// Starts a HAProxy on the same configuration and waits until it answers.
    pub fn haproxy(&self, program: &Path, args: &[&str]) -> Proc {
        let mut command = Command::new(program);
        command.arg("-f").arg(self.path("node.cfg")).arg("-db").args(args);
        let proc = Proc::spawn(command);
        self.wait_for(&proc);
        proc
    }

    pub fn wait_for(&self, proc: &Proc) {
        let up = wait_until(LIMIT, || self.answers() == Some(proc.pid()));
        assert!(up, "it does not answer, but {:?} does:\n{}", self.answers(), proc.log());
    }

    /// The pid of who answers on the stats socket.
    pub fn answers(&self) -> Option<u32> {
        let text = ask(&self.socket(), "show info").ok()?;
        text.lines().find_map(|l| l.strip_prefix("Pid: "))?.trim().parse().ok()
    }

    /// Starts a master and waits until its first worker answers; with its own command line.
    pub fn master(&self, args: &[&str], env: &[(&str, &str)]) -> Proc {
        let socket = self.text("master.sock");
        let args: Vec<&str> = args.iter().copied().chain(["-S", &socket]).collect();
        let proc = self.spawn_with(&args, env);
        proc.says("Loading success.");
        assert!(self.answers().is_some(), "{}", proc.log());
        proc
    }

    /// The answer of the master's command line.
    pub fn ask_master(&self, line: &str) -> String {
        ask(&self.path("master.sock"), line).unwrap()
    }

    /// Someone takes connections.
    pub fn listens(&self) -> bool {
        std::net::TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok()
    }
}

/// Lines to a stats socket or a master, and the answer.
pub fn ask(socket: &Path, line: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    // The master's command line goes on with the next line as long as there may be one.
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

impl Proc {
    pub fn spawn(mut command: Command) -> Proc {
        command.stdin(Stdio::null());
        Proc::spawn_as_it_is(command)
    }

    fn spawn_as_it_is(mut command: Command) -> Proc {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        keep(BufReader::new(child.stdout.take().unwrap()), &log);
        keep(BufReader::new(child.stderr.take().unwrap()), &log);
        Proc { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As an argument.
    pub fn pid_text(&self) -> String {
        self.pid().to_string()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for its end: the exit code, or 128 and the signal, as a shell counts. `None`: it
    /// goes on.
    pub fn end(&mut self, limit: Duration) -> Option<i32> {
        let mut status = None;
        wait_until(limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.map(|s| s.code().unwrap_or_else(|| 128 + s.signal().unwrap()))
    }

    /// It ends with this code in good time.
    pub fn ends_with(&mut self, code: i32) {
        let end = self.end(LIMIT);
        assert_eq!(end, Some(code), "the end of it:\n{}", self.log());
    }

    /// It says so in good time.
    pub fn says(&self, text: &str) {
        let said = wait_until(LIMIT, || self.log().contains(text));
        assert!(said, "it does not say `{text}`:\n{}", self.log());
    }

    /// It is there and stays.
    pub fn lives(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "it has ended:\n{}", self.log());
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("process {} said:\n{}", self.pid(), self.log());
        }
    }
}

fn keep(lines: impl BufRead + Send + 'static, log: &Arc<Mutex<String>>) {
    let log = log.clone();
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            let mut kept = log.lock().unwrap();
            if kept.len() < 1 << 20 {
                kept.push_str(&line);
                kept.push('\n');
            }
        }
    });
}

/// Signals a process that a test has started, itself or through another.
pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// It is there, and no zombie.
pub fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Processes that this one has started and not collected, zombies included.
pub fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// An address nobody listens on.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let pid = std::process::id();
    let own = [127, 64 + (pid >> 16 & 63) as u8, (pid >> 8) as u8, (pid & 255) as u8];
    loop {
        let port = 10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000;
        let address = SocketAddr::from((own, port));
        // Not by a listener: a process that another test begins at that moment would hold it until
        // it has its program.
        if TcpStream::connect(address).is_err() {
            return address;
        }
    }
}

/// Every HAProxy found, oldest first: those of `tests/setup-haproxy.sh`, else the system's.
pub fn haproxies() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/haproxy");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.path().join("haproxy")).collect())
        .unwrap_or_default();
    found.retain(|path| path.exists());
    found.sort();
    if found.is_empty() {
        found.push(PathBuf::from("/usr/sbin/haproxy"));
    }
    found
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
