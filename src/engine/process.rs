//! The process as the system sees it: going to the background, the pid file.

use crate::config::MemoryChoice;
use crate::table::memory::{self, Backing};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use thiserror::Error;

/// Set in the environment of the process that `-D` starts.
pub const DAEMON_MARK: &str = "STICKRING_DAEMON";

/// What `-D` means for this process.
pub enum Daemon {
    /// This is the first process: it has started the second one and leaves with this exit code.
    Parent(i32),
    /// This is the process that stays.
    Child(Ready),
}

/// Tells the process that the operator started that this one is up.
pub struct Ready(());

/// `-D`: starts this program again, in `directory` and a session of its own, and waits until it is
/// up or has failed, so that the caller's exit code tells. No fork: threads and rings do not
/// survive one.
pub fn daemonize(directory: &Path) -> io::Result<Daemon> {
    if std::env::var_os(DAEMON_MARK).is_some() {
        rustix::process::setsid().map_err(io::Error::from)?;
        return Ok(Daemon::Child(Ready(())));
    }
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .current_dir(directory)
        .env(DAEMON_MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = Vec::new();
    if let Some(mut out) = child.stdout.take() {
        // Ends when the child says it is ready, or dies.
        let mut byte = [0u8; 1];
        while said.last() != Some(&b'\n') && out.read(&mut byte)? == 1 {
            said.push(byte[0]);
        }
    }
    if said == b"ready\n" {
        return Ok(Daemon::Parent(0));
    }
    Ok(Daemon::Parent(child.wait()?.code().unwrap_or(1)))
}

impl Ready {
    /// Releases the waiting process and lets go of the terminal.
    pub fn tell(self) -> io::Result<()> {
        let mut out = io::stdout();
        out.write_all(b"ready\n")?;
        out.flush()?;
        leave_terminal()
    }
}

/// Lets go of the terminal: nothing is printed from here on.
pub fn leave_terminal() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// What a parent has put in the place of standard input, for ourselves.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let own = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(own)
}

/// A pid file that cannot be written.
///
/// *Effect:* at start, the process does not start (exit 1).
#[derive(Debug, Error)]
#[error("cannot write pid file '{path}': {source}")]
pub struct PidfileError {
    path: String,
    source: io::Error,
}

/// The pid file: opened before the start may do harm, written when it has succeeded.
#[derive(Debug)]
pub struct Pidfile {
    path: String,
    file: std::fs::File,
}

impl Pidfile {
    /// Makes sure that it can be written; what is in it stays.
    pub fn open(path: &str) -> Result<Pidfile, PidfileError> {
        let mut options = std::fs::OpenOptions::new();
        match options.create(true).truncate(false).write(true).mode(0o644).open(path) {
            Ok(file) => Ok(Pidfile { path: path.to_owned(), file }),
            Err(source) => Err(PidfileError { path: path.to_owned(), source }),
        }
    }

    /// Writes this process's pid, one line, as HAProxy does.
    pub fn write(mut self) -> Result<(), PidfileError> {
        let line = format!("{}\n", std::process::id());
        let written = self.file.set_len(0).and_then(|()| self.file.write_all(line.as_bytes()));
        written.map_err(|source| PidfileError { path: self.path, source })
    }
}

/// How many files this process may have open.
pub fn files_max() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX))
}

/// Raises the limit of open files to what the system allows.
pub fn raise_files_max() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Refused: the limit stays, `show info` tells it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Chooses what rows are kept in, before the first of them.
pub fn choose_memory(choice: MemoryChoice) {
    memory::choose(match choice {
        MemoryChoice::Memfd | MemoryChoice::Auto => Backing::Memfd,
        MemoryChoice::Anonymous => Backing::Anonymous,
    });
}

/// The system's settings of huge pages, for memfd and for anonymous memory.
fn transparent_huge_pages() -> (String, String) {
    let chosen = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let word = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        word.map_or("unknown".to_string(), |(word, _)| word.to_string())
    };
    (
        chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
    )
}

/// What rows are kept in, and what the system says of huge pages.
pub fn memory_in_use() -> String {
    let (memfd, anonymous) = transparent_huge_pages();
    match memory::chosen() {
        Backing::Anonymous => format!("anonymous memory, huge pages {anonymous}"),
        _ => format!("memfd, huge pages {memfd}"),
    }
}

/// Random numbers of the kernel, for the key hash (keys come from the network) and for timers.
pub fn random_seeds() -> [u64; 4] {
    let state = std::hash::RandomState::new();
    std::array::from_fn(|i| std::hash::BuildHasher::hash_one(&state, i))
}
