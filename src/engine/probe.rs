//! Which I/O engine this system allows, decided once, before anything else starts.
//!
//! *Unavailable* falls back to epoll with one clear warning; *exhausted* (ENOMEM, EMFILE) is an
//! error: a node that quietly runs slower because a limit was hit would be found out in production.

use crate::config::EngineChoice;
use std::io;
use thiserror::Error;

/// What all shards use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// tokio-uring with these setup flags.
    Uring(UringFlags),
    /// Plain tokio.
    Epoll,
}

impl Engine {
    /// As `show info` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Uring(_) => "io_uring",
            Engine::Epoll => "epoll",
        }
    }
}

/// Setup flags this kernel takes. DEFER_TASKRUN is never among them: tokio-uring hangs with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringFlags {
    /// COOP_TASKRUN and SUBMIT_ALL (Linux 5.19).
    pub coop_taskrun: bool,
    /// SINGLE_ISSUER (Linux 6.0).
    pub single_issuer: bool,
}

/// The engine, and what has to be said about it.
#[derive(Debug)]
pub struct Probed {
    /// What to use.
    pub engine: Engine,
    /// A warning for the operator, when `auto` fell back.
    pub warning: Option<String>,
}

/// io_uring cannot be used although it must be.
///
/// *Effect:* the process does not start (exit 1).
#[derive(Debug, Error)]
pub enum ProbeError {
    /// `engine uring` was asked for and the system refuses.
    #[error("io_uring refused by this system: {0}")]
    Refused(String),
    /// A limit was hit, whichever engine was asked for.
    #[error("cannot set up io_uring: {0}. Raise LimitMEMLOCK / LimitNOFILE (ulimit -l, ulimit -n)")]
    Exhausted(io::Error),
}

const FLAG_SETS: [UringFlags; 3] = [
    UringFlags { coop_taskrun: true, single_issuer: true },
    UringFlags { coop_taskrun: true, single_issuer: false },
    UringFlags { coop_taskrun: false, single_issuer: false },
];

/// Opcodes the uring engine uses.
const OPCODES: [(u8, &str); 3] = [
    (io_uring::opcode::Read::CODE, "READ"),
    (io_uring::opcode::Writev::CODE, "WRITEV"),
    (io_uring::opcode::Write::CODE, "WRITE"),
];

/// Tries a small ring and settles the engine.
pub fn probe(choice: EngineChoice) -> Result<Probed, ProbeError> {
    if choice == EngineChoice::Epoll {
        return Ok(Probed { engine: Engine::Epoll, warning: None });
    }
    let refused = match try_flags() {
        Ok(flags) => return Ok(Probed { engine: Engine::Uring(flags), warning: None }),
        Err(Failure::Exhausted(error)) => return Err(ProbeError::Exhausted(error)),
        Err(Failure::Unavailable(text)) => text,
    };
    if choice == EngineChoice::Uring {
        return Err(ProbeError::Refused(refused));
    }
    let warning = format!(
        "io_uring refused by this system: {refused} Now using the epoll engine, which is slower."
    );
    Ok(Probed { engine: Engine::Epoll, warning: Some(warning) })
}

enum Failure {
    Unavailable(String),
    Exhausted(io::Error),
}

fn try_flags() -> Result<UringFlags, Failure> {
    let mut last = io::Error::other("no flags tried");
    for flags in FLAG_SETS {
        match builder(flags).build(8) {
            Ok(ring) => return check_opcodes(&ring).map(|()| flags),
            Err(error) => last = error,
        }
        if last.raw_os_error() != Some(rustix::io::Errno::INVAL.raw_os_error()) {
            break;
        }
    }
    Err(diagnose(last))
}

fn check_opcodes(ring: &io_uring::IoUring) -> Result<(), Failure> {
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(diagnose)?;
    match OPCODES.iter().find(|(code, _)| !probe.is_supported(*code)) {
        None => Ok(()),
        Some((_, name)) => {
            Err(Failure::Unavailable(format!("this kernel's io_uring has no {name} operation.")))
        }
    }
}

/// Says what the errno of io_uring_setup means here, and what would help.
fn diagnose(error: io::Error) -> Failure {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    if matches!(errno, Some(Errno::NOMEM | Errno::MFILE | Errno::NFILE)) {
        return Failure::Exhausted(error);
    }
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let advice = match (errno, disabled.as_deref().map(str::trim)) {
        (Some(Errno::NOSYS), _) => "the kernel or sandbox has no io_uring.".to_string(),
        (_, Ok("0")) => "kernel.io_uring_disabled=0, so a sandbox (seccomp) blocks it. \
             Fix: allow io_uring_setup, io_uring_enter and io_uring_register in its profile."
            .to_string(),
        (_, Ok(value)) => {
            format!("kernel.io_uring_disabled={value}. Fix: sysctl -w kernel.io_uring_disabled=0.")
        }
        (_, Err(_)) => "the kernel does not say why.".to_string(),
    };
    Failure::Unavailable(format!("io_uring_setup: {error}; {advice}"))
}

/// tokio-uring's ring builder with `flags`.
pub(super) fn builder(flags: UringFlags) -> io_uring::Builder {
    let mut builder = tokio_uring::uring_builder();
    builder.setup_clamp();
    if flags.coop_taskrun {
        builder.setup_coop_taskrun().setup_submit_all();
    }
    if flags.single_issuer {
        builder.setup_single_issuer();
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_never_probed() {
        let probed = probe(EngineChoice::Epoll).unwrap();
        assert_eq!(probed.engine, Engine::Epoll);
        assert!(probed.warning.is_none());
    }

    #[test]
    fn exhaustion_is_an_error_and_refusal_is_not() {
        use rustix::io::Errno;
        let exhausted = diagnose(Errno::NOMEM.into());
        assert!(matches!(exhausted, Failure::Exhausted(_)));
        for errno in [Errno::PERM, Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP] {
            assert!(matches!(diagnose(errno.into()), Failure::Unavailable(_)), "{errno}");
        }
    }
}
