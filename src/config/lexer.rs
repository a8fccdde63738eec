//! One line of configuration into words: quotes, escapes, variables, comments.
//!
//! HAProxy's grammar as observed on 2.6 and 3.2: `\` escapes a blank, `#`, `\`, quotes, and makes
//! `\n \t \r \xHH`; `"…"` keeps blanks and expands `$NAME`, `${NAME}`, `${NAME-default}` and
//! `${NAME[*]}` (one word for each blank separated part); `'…'` keeps everything as it is; nothing
//! is expanded outside double quotes; `#` outside quotes ends the line, even inside a word.
//! *Called by* [`super::reader`] for every line. *Keeps*: any bytes give words or a [`LexError`],
//! and what expansion can produce is bounded.
#![forbid(unsafe_code)]

use crate::limits::{CONFIG_LINE_MAX, CONFIG_WORDS_MAX};

/// A word and where it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Unquoted and expanded.
    pub(crate) text: String,
    /// Byte offset in the line.
    pub(crate) position: usize,
}

/// The words of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) list: Vec<Word>,
    /// Index and position of the first empty word: as HAProxy, the list ends there.
    pub(crate) empty: Option<(usize, usize)>,
    /// Some word was not valid UTF-8, and is shown with replacement characters.
    pub(crate) not_utf8: bool,
}

/// Why a line cannot be cut into words. Offsets are byte offsets in the line.
/// *Effect:* the line is skipped and an alert says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LexError {
    #[error("unmatched quote")]
    Quote(usize),
    #[error("truncated or invalid hexadecimal sequence")]
    Hex(usize),
    #[error("forbidden first char in environment variable name")]
    VariableName(usize),
    #[error("unmatched brace in environment variable name")]
    VariableBrace(usize),
    #[error("too many words, truncating after word {CONFIG_WORDS_MAX}")]
    TooManyWords { position: usize, word: String },
    #[error("line too long once its variables are expanded, limit: {CONFIG_LINE_MAX}")]
    TooLong,
}

impl LexError {
    /// Where to put the caret.
    pub(crate) fn position(&self) -> Option<usize> {
        match self {
            LexError::Quote(p)
            | LexError::Hex(p)
            | LexError::VariableName(p)
            | LexError::VariableBrace(p) => Some(*p),
            LexError::TooManyWords { .. } | LexError::TooLong => None,
        }
    }
}

/// Cuts `line` (without its line feed) into words. `env` answers variables.
pub(crate) fn split(line: &[u8], env: &dyn Fn(&str) -> Option<String>) -> Result<Words, LexError> {
    let mut lexer = Lexer { line, at: 0, word: Vec::new(), start: None, joined: false, spent: 0 };
    lexer.run(env)
}

struct Lexer<'a> {
    line: &'a [u8],
    at: usize,
    word: Vec<u8>,
    /// Offset of the current word; `None` between words.
    start: Option<usize>,
    /// Behind `.if` and `.elif`, blanks belong to the one word that is the expression.
    joined: bool,
    /// Bytes produced so far on this line.
    spent: usize,
}

impl Lexer<'_> {
    fn run(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<Words, LexError> {
        let mut words = Words::default();
        while let Some(&c) = self.line.get(self.at) {
            match c {
                b'#' | b'\r' | b'\n' => break,
                b' ' | b'\t' | 0x0b | 0x0c => {
                    if self.joined && self.start.is_some() {
                        self.push(c)?;
                    } else {
                        self.end_word(&mut words)?;
                    }
                    self.at += 1;
                }
                b'"' => self.double_quoted(env, &mut words)?,
                b'\'' => self.single_quoted()?,
                b'\\' => self.escape(false)?,
                _ => {
                    self.begin();
                    self.push(c)?;
                    self.at += 1;
                }
            }
        }
        if self.joined {
            while matches!(self.word.last(), Some(b' ' | b'\t')) {
                self.word.pop();
            }
        }
        self.end_word(&mut words)?;
        Ok(words)
    }

    fn begin(&mut self) {
        self.start.get_or_insert(self.at);
    }

    fn push(&mut self, c: u8) -> Result<(), LexError> {
        self.spent += 1;
        if self.spent > CONFIG_LINE_MAX {
            return Err(LexError::TooLong);
        }
        self.word.push(c);
        Ok(())
    }

    fn end_word(&mut self, words: &mut Words) -> Result<(), LexError> {
        let Some(position) = self.start.take() else { return Ok(()) };
        let bytes = std::mem::take(&mut self.word);
        if words.empty.is_some() {
            return Ok(());
        }
        if bytes.is_empty() {
            words.empty = Some((words.list.len(), position));
            return Ok(());
        }
        let text = String::from_utf8(bytes).unwrap_or_else(|e| {
            words.not_utf8 = true;
            String::from_utf8_lossy(e.as_bytes()).into_owned()
        });
        if words.list.len() == CONFIG_WORDS_MAX {
            let last = &words.list[CONFIG_WORDS_MAX - 1];
            return Err(LexError::TooManyWords {
                position: last.position,
                word: last.text.clone(),
            });
        }
        self.joined = words.list.is_empty() && matches!(text.as_str(), ".if" | ".elif");
        words.list.push(Word { text, position });
        Ok(())
    }

    fn single_quoted(&mut self) -> Result<(), LexError> {
        self.begin();
        let open = self.at;
        self.at += 1;
        while let Some(&c) = self.line.get(self.at) {
            self.at += 1;
            match c {
                b'\'' => return Ok(()),
                b'\r' | b'\n' => break,
                _ => self.push(c)?,
            }
        }
        Err(LexError::Quote(open))
    }

    fn double_quoted(
        &mut self,
        env: &dyn Fn(&str) -> Option<String>,
        words: &mut Words,
    ) -> Result<(), LexError> {
        self.begin();
        let open = self.at;
        self.at += 1;
        while let Some(&c) = self.line.get(self.at) {
            match c {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\r' | b'\n' => break,
                b'\\' => self.escape(true)?,
                b'$' => self.variable(env, words)?,
                _ => {
                    self.push(c)?;
                    self.at += 1;
                }
            }
        }
        Err(LexError::Quote(open))
    }

    fn escape(&mut self, quoted: bool) -> Result<(), LexError> {
        self.begin();
        let backslash = self.at;
        self.at += 2;
        match self.line.get(backslash + 1).copied() {
            Some(c @ (b' ' | b'\\' | b'#' | b'"' | b'\'')) => self.push(c),
            Some(b'n') => self.push(b'\n'),
            Some(b'r') => self.push(b'\r'),
            Some(b't') => self.push(b'\t'),
            Some(b'$') if quoted => self.push(b'$'),
            Some(b'x') => {
                let digit = |i: usize| {
                    self.line.get(backslash + i).and_then(|c| char::from(*c).to_digit(16))
                };
                match (digit(2), digit(3)) {
                    (Some(high), Some(low)) if high + low > 0 => {
                        self.at += 2;
                        self.push((high * 16 + low) as u8)
                    }
                    _ => Err(LexError::Hex(backslash)),
                }
            }
            Some(c) if c != b'\r' && c != b'\n' => {
                self.push(b'\\')?;
                self.push(c)
            }
            _ => {
                self.at = backslash + 1;
                self.push(b'\\')
            }
        }
    }

    /// `$NAME` or `${NAME[*]-default}` at `self.at`, inside double quotes.
    fn variable(
        &mut self,
        env: &dyn Fn(&str) -> Option<String>,
        words: &mut Words,
    ) -> Result<(), LexError> {
        let brace = self.line.get(self.at + 1) == Some(&b'{');
        let brace_at = self.at + 1;
        let start = self.at + 1 + usize::from(brace);
        let first = self.line.get(start).copied().unwrap_or(0);
        if !(first.is_ascii_alphabetic() || first == b'_' || (brace && first == b'.')) {
            return Err(LexError::VariableName(start));
        }
        let is_name = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
        let mut end = start + 1;
        while self.line.get(end).is_some_and(is_name) {
            end += 1;
        }
        let name = String::from_utf8_lossy(&self.line[start..end]).into_owned();
        let mut value = env(&name);
        let mut parts = false;
        if brace {
            let rest = &self.line[end..];
            parts = rest.starts_with(b"[*]");
            if parts {
                end += 3;
            }
            if self.line.get(end) == Some(&b'-') {
                let close = self.line[end..].iter().position(|c| *c == b'}');
                let close = end + close.ok_or(LexError::VariableBrace(brace_at))?;
                let default = &self.line[end + 1..close];
                value = value.or_else(|| Some(String::from_utf8_lossy(default).into_owned()));
                end = close;
            }
            if self.line.get(end) != Some(&b'}') {
                return Err(LexError::VariableBrace(brace_at));
            }
            end += 1;
        }
        let position = self.start.unwrap_or(self.at);
        for c in value.unwrap_or_default().bytes() {
            if parts && c.is_ascii_whitespace() {
                if !self.word.is_empty() {
                    self.end_word(words)?;
                }
                self.start = Some(position);
            } else {
                self.push(c)?;
            }
        }
        self.at = end;
        Ok(())
    }
}

/// The line as it is shown in a message, with the caret under byte `position`.
///
/// Unprintable bytes are masked, and a long line is cut to 80 columns around the caret.
pub(crate) fn excerpt(line: &[u8], position: usize) -> String {
    const WIDTH: usize = 80;
    let blanks = line.iter().take_while(|c| matches!(c, b' ' | b'\t')).count();
    let line = &line[blanks..];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let position = position.saturating_sub(blanks).min(line.len());
    let start = position.saturating_sub(WIDTH / 2).min(line.len().saturating_sub(WIDTH));
    let end = (start + WIDTH).min(line.len());
    let mut shown: String = line[start..end]
        .iter()
        .map(|c| match c {
            b'\t' => ' ',
            0x20..0x7f => char::from(*c),
            _ => '?',
        })
        .collect();
    if start > 0 {
        shown.replace_range(0..3, "...");
    }
    if end < line.len() {
        shown.replace_range(shown.len() - 3.., "...");
    }
    format!("  {shown}\n  {:>width$}", '^', width = position - start + 1)
}

/// `text` as one word of configuration: quoted when it has to be.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-.:/@+,*()[]%=<>!?&|^~;{}`".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/h".into()),
            "LIST" => Some("l1 l2  l3".into()),
            _ => None,
        }
    }

    fn words(line: &str) -> Vec<String> {
        let words = split(line.as_bytes(), &env).unwrap();
        words.list.into_iter().map(|w| w.text).collect()
    }

    #[test]
    fn words_are_cut_as_haproxy_cuts_them() {
        // Each seen on HAProxy 2.6.12, which quotes the word in "unknown keyword '…'".
        for (line, expected) in [
            (r"a\ b", "a b"),
            (r"a\#b", "a#b"),
            (r"a\\b", r"a\b"),
            (r"a\nb", "a\nb"),
            (r"a\x41b", "aAb"),
            (r"a\qb", r"a\qb"),
            (r#""a b""#, "a b"),
            (r#""a\"b""#, "a\"b"),
            (r#""a\$b""#, "a$b"),
            (r#"a"b c"d"#, "ab cd"),
            ("'a b'", "a b"),
            (r"'a\ b'", r"a\ b"),
            (r"'a\'b", r"a\b"),
            ("a$HOME", "a$HOME"),
            (r#""a$HOME""#, "a/h"),
            (r#""a${HOME}x""#, "a/hx"),
            (r#""a${NOSUCH}x""#, "ax"),
            (r#""a${NOSUCH-def}x""#, "adefx"),
            (r#""a${NOSUCH-de f}x""#, "ade fx"),
            (r#""a${NOSUCH-"def"}x""#, "a\"def\"x"),
            (r#""a$HOME-x""#, "a/h-x"),
            (r#""$HOME$HOME""#, "/h/h"),
            (r#""${NOSUCH-a b[*]}""#, "a b[*]"),
            ("'$HOME'", "$HOME"),
            ("${HOME}", "${HOME}"),
            ("a#b", "a"),
            ("\ttab", "tab"),
            (r"abc\", r"abc\"),
            (r#""a\ b\x41\n\q""#, "a bA\n\\q"),
            (r#""a#b""#, "a#b"),
            (r#"a"b\'c""#, "ab'c"),
            (r"a\$b", r"a\$b"),
            (r"a\ ", "a "),
        ] {
            assert_eq!(words(line), [expected], "{line}");
        }
        assert_eq!(words(r#"x "p${LIST[*]}s" y"#), ["x", "pl1", "l2", "l3s", "y"]);
        assert_eq!(words("  # all comment"), Vec::<String>::new());
        assert_eq!(words("a b\r"), ["a", "b"]);
        assert_eq!(words(".if streq(a, \"b c\")  # why"), [".if", "streq(a, b c)"]);
    }

    #[test]
    fn errors_point_where_haproxy_points() {
        for (line, error) in [
            (r"a\x4", LexError::Hex(1)),
            (r"a\xZZb", LexError::Hex(1)),
            (r#""a$1x""#, LexError::VariableName(3)),
            (r#""a${HOME""#, LexError::VariableBrace(3)),
            (r#""a${HO ME}""#, LexError::VariableBrace(3)),
            (r#""a${HOME-x""#, LexError::VariableBrace(3)),
            (r#""a${}""#, LexError::VariableName(4)),
            (r#""a$""#, LexError::VariableName(3)),
            (r#""$-""#, LexError::VariableName(2)),
            (r#""unmatched"#, LexError::Quote(0)),
            (r#"peers "p"#, LexError::Quote(6)),
            (r#""ab" 'cd"#, LexError::Quote(5)),
            (r#""abc\"#, LexError::Quote(0)),
        ] {
            assert_eq!(split(line.as_bytes(), &env), Err(error), "{line}");
        }
    }

    #[test]
    fn an_empty_word_ends_the_line() {
        let cut = split(br#" nbthread "" 3"#, &env).unwrap();
        assert_eq!(cut.list.len(), 1);
        assert_eq!(cut.empty, Some((1, 10)));
    }

    #[test]
    fn expansion_is_bounded() {
        let big = "x".repeat(100_000);
        let line = format!("\"{}\"", "$A".repeat(100));
        assert_eq!(split(line.as_bytes(), &|_| Some(big.clone())), Err(LexError::TooLong));
        let many = "x ".repeat(CONFIG_WORDS_MAX + 1);
        assert!(matches!(split(many.as_bytes(), &env), Err(LexError::TooManyWords { .. })));
    }

    #[test]
    fn the_caret_stands_under_the_byte() {
        assert_eq!(excerpt(b"  peers \"p", 8), "  peers \"p\n        ^");
        let long = format!("{}\"x {}", "x ".repeat(60), "y ".repeat(60));
        let shown = excerpt(long.as_bytes(), 120);
        let (text, caret) = shown.split_once('\n').unwrap();
        assert_eq!(text.len(), 82);
        assert!(text.starts_with("  ...") && text.ends_with("..."));
        assert_eq!(text.as_bytes()[caret.len() - 1], b'"');
    }

    proptest! {
        #[test]
        fn any_bytes_give_words_or_an_error(line in vec(any::<u8>(), 0..200)) {
            let _ = split(&line, &env);
            let _ = excerpt(&line, line.len() / 2);
        }

        #[test]
        fn likely_bytes_give_words_or_an_error(line in r#"[a"'\\$ {}\[*\]#x4\-\n]{0,40}"#) {
            if let Err(error) = split(line.as_bytes(), &env)
                && let Some(position) = error.position()
            {
                prop_assert!(position <= line.len());
                let _ = excerpt(line.as_bytes(), position);
            }
        }

        #[test]
        fn a_quoted_word_reads_back(text in "[^\0]{1,40}") {
            let line = format!("x {} y", quote(&text));
            let cut = split(line.as_bytes(), &env).unwrap();
            prop_assert_eq!(cut.list.len(), 3);
            prop_assert_eq!(&cut.list[1].text, &text);
        }
    }
}
