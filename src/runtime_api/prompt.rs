//! `prompt [help | n | i | p | timed]*`: what happens behind a line's replies.
//!
//! Pure; owned by [`super::CliConn`], one [`Prompt`] a connection. Rule: as HAProxy 3.2, which
//! 2.6's plain toggle is a part of.

use super::error::CliError;
use crate::time::Millis;

/// What `prompt help` and a wrong word print.
pub const USAGE: &str = "Usage: prompt [help | n | i | p | timed]*
Changes the default prompt and interactive mode. Available options:
  help    display this help
  n       set to single-command mode (no prompt, single command)
  i       set to interactive mode only (no prompt, multi-command)
  p       set to prompt+interactive mode (prompt + multi-command)
  timed   toggle displaying the current date in the prompt
Without any argument, toggles between n/i->p, p->n.";

/// How a connection goes on behind one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It does not: one line, then the end.
    #[default]
    Single,
    /// With the next line, nothing printed.
    Interactive,
    /// With the next line, after a prompt.
    Prompt,
}

/// A connection's mode and the look of its prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The mode.
    pub mode: Mode,
    /// The prompt shows how long the node has been up.
    pub timed: bool,
}

impl Prompt {
    /// The prompt after `prompt <words>`, or `None` for `prompt help`.
    pub fn changed(self, words: &[Vec<u8>]) -> Result<Option<Prompt>, CliError> {
        let mut next = self;
        let mut mode = None;
        for word in words {
            match word.as_slice() {
                b"n" => mode = Some(Mode::Single),
                b"i" => mode = Some(Mode::Interactive),
                b"p" => mode = Some(Mode::Prompt),
                b"timed" => next.timed = !next.timed,
                b"help" => return Ok(None),
                _ => return Err(CliError::PromptUsage),
            }
        }
        next.mode = match mode {
            Some(mode) => mode,
            None if words.is_empty() && self.mode == Mode::Prompt => Mode::Single,
            None => Mode::Prompt,
        };
        Ok(Some(next))
    }

    /// Appends the prompt, if this mode has one. `up_ms` is how long the node has been up.
    pub fn write(self, up: Millis, out: &mut Vec<u8>) {
        if self.mode != Mode::Prompt {
            return;
        }
        if self.timed {
            out.extend_from_slice(time(up.0).as_bytes());
        }
        out.extend_from_slice(b"> ");
    }
}

/// The time in a timed prompt.
pub(crate) fn time(up_ms: u64) -> String {
    let s = up_ms / 1000;
    let (d, h, m) = (s / 86_400, s / 3600 % 24, s / 60 % 60);
    format!("[{d}:{h:02}:{m:02}:{:02}]", s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each step seen with HAProxy 3.2.
    #[test]
    fn modes() {
        use Mode::*;
        let start = |mode, timed| super::Prompt { mode, timed };
        for (before, words, after) in [
            (start(Single, false), "", Some(start(Prompt, false))),
            (start(Interactive, false), "", Some(start(Prompt, false))),
            (start(Prompt, false), "", Some(start(Single, false))),
            (start(Single, false), "timed", Some(start(Prompt, true))),
            (start(Prompt, true), "timed", Some(start(Prompt, false))),
            (start(Single, false), "i timed", Some(start(Interactive, true))),
            (start(Single, false), "i p", Some(start(Prompt, false))),
            (start(Prompt, true), "n", Some(start(Single, true))),
            (start(Single, false), "help", None),
        ] {
            let words: Vec<_> = words.split_whitespace().map(|w| w.as_bytes().to_vec()).collect();
            assert_eq!(before.changed(&words), Ok(after), "{before:?} {words:?}");
        }
        let wrong = [b"p".to_vec(), b"zork".to_vec()];
        assert_eq!(super::Prompt::default().changed(&wrong), Err(CliError::PromptUsage));
    }

    #[test]
    fn timed_prompt() {
        let mut out = Vec::new();
        let prompt = Prompt { mode: Mode::Prompt, timed: true };
        prompt.write(Millis(3 * 60_000 + 27_999), &mut out);
        assert_eq!(out, b"[0:00:03:27]> ");
    }
}
