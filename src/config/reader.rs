//! Files into lines of words: conditional blocks, directives, and what is wrong with the text
//! itself.
//!
//! *Called by* [`super::parse`], twice: once to learn the local peer's name, once for everything.
//! *Keeps*: only lines of branches that are taken reach the visitor; each file's blocks end with
//! it.
#![forbid(unsafe_code)]

use crate::config::conditions::{self, ConditionError};
use crate::config::diagnostics::Diagnostics;
use crate::config::environment::Environment;
use crate::config::lexer::{self, LexError, Words};
use crate::config::{Location, Source};
use crate::limits::CONFIG_IF_DEPTH_MAX;

/// A line that counts.
pub(crate) struct Line {
    pub(crate) at: Location,
    /// Never empty.
    pub(crate) words: Vec<String>,
    /// Some word was not UTF-8: a keyword we understand must refuse the line.
    pub(crate) not_utf8: bool,
}

impl Line {
    /// Word `i`, or "" behind the end.
    pub(crate) fn word(&self, i: usize) -> &str {
        self.words.get(i).map_or("", String::as_str)
    }

    /// `parsing [file:line] : text`, with HAProxy 3.x's prefix.
    pub(crate) fn says(&self, text: impl std::fmt::Display) -> String {
        format!("config : parsing [{}:{}] : {text}", self.at.file, self.at.line)
    }
}

/// One `.if`.
struct Block {
    /// The branch being read is taken.
    active: bool,
    /// A branch was already taken, or the whole block stands in one that is not.
    done: bool,
    seen_else: bool,
}

/// Reads one file, showing each line to `visit`.
pub(crate) fn read(
    source: &Source,
    env: &mut Environment<'_>,
    diags: &mut Diagnostics,
    visit: &mut dyn FnMut(Line, &mut Environment<'_>, &mut Diagnostics),
) {
    let mut blocks: Vec<Block> = Vec::new();
    let mut number = 0u32;
    let mut rest = source.text.as_slice();
    while !rest.is_empty() {
        number = number.saturating_add(1);
        let at = Location { file: source.name.clone(), line: number };
        let Some(end) = rest.iter().position(|c| *c == b'\n') else {
            diags.alert(format!(
                "config : parsing [{at}]: Missing LF on last line, file might have been truncated \
                 at position {}.",
                rest.len() + 1
            ));
            break;
        };
        let (raw, behind) = (&rest[..end], &rest[end + 1..]);
        rest = behind;
        if let Some(nul) = raw.iter().position(|c| *c == 0) {
            diags.alert(format!(
                "config : parsing [{at}]: Stray NUL character at position {}.",
                nul + 1
            ));
            continue;
        }
        if let Some(line) = one_line(raw, at, &mut blocks, env, diags) {
            visit(line, env, diags);
        }
    }
    if !blocks.is_empty() {
        let at = Location { file: source.name.clone(), line: number };
        diags.alert(format!("config : parsing [{at}]: non-terminated '.if' block."));
    }
}

/// The words of one line, unless it is blank, a directive, wrong, or in a branch not taken.
fn one_line(
    raw: &[u8],
    at: Location,
    blocks: &mut Vec<Block>,
    env: &Environment<'_>,
    diags: &mut Diagnostics,
) -> Option<Line> {
    let active = blocks.last().is_none_or(|b| b.active);
    let words = match lexer::split(raw, &|name| env.get(name)) {
        Ok(words) => words,
        Err(error) => {
            // HAProxy reports broken quotes in branches that are not taken, too.
            lex_alert(raw, &at, &error, diags);
            return None;
        }
    };
    let first = words.list.first().map_or("", |w| w.text.as_str());
    if first.starts_with('.') && !first.starts_with("..") {
        if active || matches!(first, ".if" | ".elif" | ".else" | ".endif") {
            warn_empty(raw, &at, &words, diags);
            directive(raw, &at, &words, blocks, env, diags);
        }
        return None;
    }
    if !active {
        return None;
    }
    warn_empty(raw, &at, &words, diags);
    if words.list.is_empty() {
        return None;
    }
    let not_utf8 = words.not_utf8;
    Some(Line { at, words: words.list.into_iter().map(|w| w.text).collect(), not_utf8 })
}

fn lex_alert(raw: &[u8], at: &Location, error: &LexError, diags: &mut Diagnostics) {
    let text = match (error, error.position()) {
        (_, Some(p)) => format!("{error} at position {}:\n{}", p + 1, lexer::excerpt(raw, p)),
        (LexError::TooManyWords { position, word }, None) => {
            let blanks = raw.iter().take_while(|c| c.is_ascii_whitespace()).count();
            format!("{error}, position {}: <{word}>.", position - blanks + 1)
        }
        (_, None) => format!("{error}."),
    };
    diags.alert(format!("config : parsing [{at}]: {text}"));
}

fn warn_empty(raw: &[u8], at: &Location, words: &Words, diags: &mut Diagnostics) {
    if let Some((index, position)) = words.empty {
        diags.warning(format!(
            "config : parsing [{at}]: argument number {index} at position {} is empty and marks \
             the end of the argument list; all subsequent arguments will be ignored:\n{}",
            position + 1,
            lexer::excerpt(raw, position)
        ));
    }
}

/// A line that starts with a dot.
fn directive(
    raw: &[u8],
    at: &Location,
    words: &Words,
    blocks: &mut Vec<Block>,
    env: &Environment<'_>,
    diags: &mut Diagnostics,
) {
    let name = words.list[0].text.as_str();
    match name {
        ".if" => {
            let outside = blocks.last().is_none_or(|b| b.active);
            let taken = outside && condition(raw, at, words, env, diags);
            if blocks.len() >= CONFIG_IF_DEPTH_MAX {
                diags.alert(format!("config : parsing [{at}]: too many nested '.if'."));
                return;
            }
            blocks.push(Block { active: taken, done: taken || !outside, seen_else: false });
        }
        ".elif" | ".else" => {
            let Some(block) = blocks.last_mut() else {
                let text = format!("lone '{name}' with no matching '.if'.");
                return diags.alert(format!("config : parsing [{at}]: {text}"));
            };
            if block.seen_else {
                let text = format!("'{name}' after '.else' is not permitted.");
                return diags.alert(format!("config : parsing [{at}]: {text}"));
            }
            block.seen_else = name == ".else";
            let open = !block.done;
            // A branch behind the taken one is not evaluated.
            block.active = open && (name == ".else" || condition(raw, at, words, env, diags));
            block.done |= block.active;
        }
        ".endif" => {
            if blocks.pop().is_none() {
                let text = "lone '.endif' with no matching '.if'.";
                diags.alert(format!("config : parsing [{at}]: {text}"));
            }
        }
        ".notice" | ".warning" | ".alert" | ".diag" => message(name, at, words, diags),
        _ => diags.alert(format!("config : parsing [{at}]: unknown directive '{name}'.")),
    }
}

fn condition(
    raw: &[u8],
    at: &Location,
    words: &Words,
    env: &Environment<'_>,
    diags: &mut Diagnostics,
) -> bool {
    let Some(expression) = words.list.get(1) else { return false };
    let name = &words.list[0].text;
    match conditions::evaluate(&expression.text, &|n| env.get(n)) {
        Ok(value) => value,
        Err(ConditionError { text, at: offset }) => {
            let shown = lexer::excerpt(raw, expression.position + offset);
            let position = offset + 1;
            diags.alert(format!(
                "config : parsing [{at}]: {text} in '{name}' at position {position}:\n{shown}"
            ));
            false
        }
    }
}

/// `.notice`, `.warning`, `.alert`, `.diag` (shown only in HAProxy's diagnostic mode, so not here).
fn message(name: &str, at: &Location, words: &Words, diags: &mut Diagnostics) {
    if let Some(extra) = words.list.get(2) {
        let text = format!(
            "Unexpected argument '{}' for '{name}'. Use quotes if the message should contain \
            spaces.",
            extra.text
        );
        return diags.alert(format!("config : parsing [{at}]: {text}"));
    }
    let said = words.list.get(1).map_or("", |w| w.text.as_str());
    let text = format!("config : parsing [{at}]: '{said}'.");
    match name {
        ".notice" => diags.notice(text),
        ".warning" => diags.warning(text),
        ".alert" => diags.alert(text),
        _ => {}
    }
}
