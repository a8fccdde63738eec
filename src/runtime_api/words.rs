//! A command line as commands and words (runtime-api.md 3.1).
//!
//! Pure; called by [`super::CliConn`] with one whole line. Rule: blanks separate words, `;` and NUL
//! separate commands, `\` takes the next byte as it is, quotes mean nothing. A carriage return at
//! the end of the line ends a command too, so that one more, empty, command follows it: that is the
//! second blank line HAProxy answers to `show version\r\n`.

use crate::limits::{CLI_PATTERN_MAX, CLI_WORDS_MAX};

/// The words of one command; empty for an empty command. `Err` when there are too many.
pub type Words = Result<Vec<Vec<u8>>, TooManyWords>;

/// A command with more than [`CLI_WORDS_MAX`] words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyWords;

/// Cuts a line (without its newline) into commands. Never empty.
pub fn split(line: &[u8]) -> Vec<Words> {
    let mut commands = Vec::new();
    let mut current = Command::default();
    let mut bytes = line.iter().enumerate();
    while let Some((at, &b)) = bytes.next() {
        let last = at + 1 == line.len();
        match b {
            b'\\' => {
                if let Some((_, &escaped)) = bytes.next() {
                    current.push(escaped);
                }
            }
            b';' | 0 => commands.push(std::mem::take(&mut current).finish()),
            b'\r' if last => commands.push(std::mem::take(&mut current).finish()),
            b' ' | b'\t' => current.end_word(),
            _ => current.push(b),
        }
    }
    commands.push(current.finish());
    commands
}

/// Removes the `<<` or `<<PATTERN` with which a line announces a payload: the line without it, and
/// the line that will end the payload.
pub fn payload(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let start = line.iter().rposition(|b| matches!(b, b' ' | b'\t'))?;
    let pattern = line[start + 1..].strip_prefix(b"<<")?;
    let plain = !pattern.iter().any(|b| matches!(b, b';' | b'\\' | 0));
    (plain && pattern.len() <= CLI_PATTERN_MAX).then_some((&line[..start], pattern))
}

#[derive(Default)]
struct Command {
    words: Vec<Vec<u8>>,
    word: Option<Vec<u8>>,
    too_many: bool,
}

impl Command {
    fn push(&mut self, b: u8) {
        self.word.get_or_insert_with(Vec::new).push(b);
    }

    fn end_word(&mut self) {
        if let Some(word) = self.word.take() {
            if self.words.len() < CLI_WORDS_MAX {
                self.words.push(word);
            } else {
                self.too_many = true;
            }
        }
    }

    fn finish(mut self) -> Words {
        self.end_word();
        if self.too_many { Err(TooManyWords) } else { Ok(self.words) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &[u8]) -> Vec<String> {
        split(line)
            .into_iter()
            .map(|words| match words {
                Err(TooManyWords) => "too many".to_owned(),
                Ok(words) => {
                    let words: Vec<_> =
                        words.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect();
                    words.join("|")
                }
            })
            .collect()
    }

    /// Each seen with HAProxy 3.2.
    #[test]
    fn commands_and_words() {
        for (line, expected) in [
            (&b""[..], &[""][..]),
            (b";", &["", ""]),
            (b" ; show version", &["", "show|version"]),
            (b"show\tversion  x ", &["show|version|x"]),
            (b"show version\r", &["show|version", ""]),
            (b"show version\r\r", &["show|version\r", ""]),
            (b"echo a\rb", &["echo|a\rb"]),
            (b"echo a\0b", &["echo|a", "b"]),
            (b"echo a  b\\;c  \\d \\\\ \"x\"", &["echo|a|b;c|d|\\|\"x\""]),
            (b"echo a\\\\;echo b", &["echo|a\\", "echo|b"]),
            (b"echo \\ a", &["echo| a"]),
            (b"echo a\\\nb", &["echo|a\nb"]),
        ] {
            assert_eq!(shown(line), expected, "{:?}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn at_most_64_words() {
        let line = |n: usize| "a ".repeat(n).into_bytes();
        assert_eq!(split(&line(64))[0].as_ref().map(Vec::len), Ok(64));
        assert_eq!(split(&line(65))[0], Err(TooManyWords));
        assert_eq!(shown(&[line(70), b";quit".to_vec()].concat()), ["too many", "quit"]);
    }

    /// Each seen with HAProxy 3.2.
    #[test]
    fn payloads() {
        for (line, expected) in [
            ("show version <<", Some(("show version", ""))),
            ("show version <<EOF", Some(("show version", "EOF"))),
            ("show version <<\r", Some(("show version", ""))),
            ("show version <<; show version", None),
            ("echo << ", None),
            ("echo a<<", None),
            ("echo << b", None),
            ("echo b; echo d <<", Some(("echo b; echo d", ""))),
        ] {
            let found = payload(line.as_bytes());
            let expected = expected.map(|(l, p): (&str, &str)| (l.as_bytes(), p.as_bytes()));
            assert_eq!(found, expected, "{line}");
        }
        assert!(payload(format!("echo <<{}", "x".repeat(64)).as_bytes()).is_some());
        assert!(payload(format!("echo <<{}", "x".repeat(65)).as_bytes()).is_none());
    }
}
