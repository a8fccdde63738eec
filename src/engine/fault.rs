//! Deaths on purpose, for tests: places in the code where this process kills itself.
//!
//! `STICKRING_FAULT` names the places, separated by commas; SIGKILL, so that nothing is tidied up.
//! Only in builds with debug assertions: in a release build there are no such places. Used by the
//! instant hand-over, whose every step must leave exactly one process at work whoever dies there.

#![forbid(unsafe_code)]

/// Dies here if `STICKRING_FAULT` says so; with `stop:` before the name, stops instead (SIGSTOP).
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    let Ok(names) = std::env::var("STICKRING_FAULT") else { return };
    for wanted in names.split(',') {
        // A signal to ourselves cannot fail.
        if wanted == name {
            let _ = kill_process(getpid(), Signal::KILL);
        } else if wanted.strip_prefix("stop:") == Some(name) {
            let _ = kill_process(getpid(), Signal::STOP);
        }
    }
}

/// There are none in this build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &str) {}
