//! The process as the system sees it: going to the background, the pid file.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

/// Set in the environment of the process that `-D` starts.
const DAEMON_MARK: &str = "STICKRING_DAEMON";

/// What `-D` means for this process.
pub enum Daemon {
    /// This is the first process: it has started the second one and leaves with this exit code.
    Parent(i32),
    /// This is the process that stays.
    Child(Ready),
}

/// Tells the process that the operator started that this one is up.
pub struct Ready(());

/// `-D`: starts this program again in a session of its own and waits until it is up or has failed,
/// so that the caller's exit code tells. No fork: threads and rings do not survive one.
pub fn daemonize() -> io::Result<Daemon> {
    if std::env::var_os(DAEMON_MARK).is_some() {
        rustix::process::setsid().map_err(io::Error::from)?;
        return Ok(Daemon::Child(Ready(())));
    }
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
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
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null).map_err(io::Error::from)?;
        rustix::stdio::dup2_stderr(&null).map_err(io::Error::from)
    }
}

/// Writes this process's pid, one line, as HAProxy does.
pub fn write_pidfile(path: &str) -> io::Result<()> {
    std::fs::write(path, format!("{}\n", std::process::id()))
}
