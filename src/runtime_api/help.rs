//! `help [<command>]`, and what an unknown command is answered.
//!
//! Pure; owns the list of the stats socket's commands, which `command::parse` follows; the master's
//! command line has a list of its own. Rule: HAProxy 3.2's layout (two blanks, the usage in 40
//! columns, `: text`), with the same three lines at the end.

use crate::limits::CLI_SUGGESTIONS_MAX;

/// A command as `help` shows it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The fixed words it starts with.
    words: &'static str,
    usage: &'static str,
    text: &'static str,
}

/// An [`Entry`].
pub(crate) const fn entry(words: &'static str, usage: &'static str, text: &'static str) -> Entry {
    Entry { words, usage, text }
}

/// In the order in which they are shown: by name.
const COMMANDS: &[Entry] = &[
    entry(
        "clear counters",
        "clear counters [all]",
        "clear max statistics counters (or all counters)",
    ),
    entry(
        "clear table",
        "clear table <table> [<filter>]*",
        "remove an entry from a table (filter: data/key)",
    ),
    entry("echo", "echo <text>", "print text to the output"),
    entry("operator", "operator", "lower the level of the current CLI session to operator"),
    entry(
        "set severity-output",
        "set severity-output [none|number|string]",
        "set presence of severity level in feedback information",
    ),
    entry(
        "set table",
        "set table <table> key <k> [data.* <v>]*",
        "update or create a table entry's data",
    ),
    entry("set timeout", "set timeout [cli] <delay>", "change a timeout setting"),
    entry("show acl", "show acl [@<ver>] <acl>", "report available acls or dump an acl's contents"),
    entry("show backend", "show backend", "list backends in the current running config"),
    entry("show cli level", "show cli level", "display the level of the current CLI session"),
    entry("show cli sockets", "show cli sockets", "dump list of cli sockets"),
    entry("show env", "show env [var]", "dump environment variables known to the process"),
    entry(
        "show errors",
        "show errors [<px>] [request|response]",
        "report last request and/or response errors for each proxy",
    ),
    entry(
        "show info",
        "show info [desc|json|typed|float]*",
        "report information about the running process",
    ),
    entry("show map", "show map [@<ver>] [map]", "report available maps or dump a map's contents"),
    entry(
        "show peers",
        "show peers [dict|-] [section]",
        "dump some information about all the peers or this peers section",
    ),
    entry(
        "show peers json",
        "show peers json [section]",
        "report every peer's state and counters as one JSON object",
    ),
    entry(
        "show peers lag",
        "show peers lag [section]",
        "report how far each peer is behind, table by table",
    ),
    entry(
        "show resolvers",
        "show resolvers [id]",
        "dumps counters from all resolvers section and associated name servers",
    ),
    entry(
        "show servers conn",
        "show servers conn [<backend>]",
        "dump server connections status (all or for a single backend)",
    ),
    entry(
        "show servers state",
        "show servers state [<backend>]",
        "dump volatile server information (all or for a single backend)",
    ),
    entry(
        "show sess",
        "show sess [help|<id>|all] [opts...]",
        "report the list of current streams or dump this exact stream",
    ),
    entry("show startup-logs", "show startup-logs", "report logs emitted during startup"),
    entry(
        "show stat",
        "show stat [desc|json|no-maint|typed|up]*",
        "report counters for each proxy and server",
    ),
    entry(
        "show table",
        "show table [<table> [<filter>]*]",
        "report table usage stats or dump this table's contents (filter: data/key)",
    ),
    entry("show version", "show version", "show version of the current process"),
    entry("user", "user", "lower the level of the current CLI session to user"),
    entry(
        "wait",
        "wait {-h|<delay_ms>} cond [args...]",
        "wait the specified delay or condition (-h to see list)",
    ),
];

const TAIL: &[Entry] = &[
    entry("help", "help [<command>]", "list matching or all commands"),
    entry("prompt", "prompt [help | n | i | p | timed ]*", "toggle interactive mode with prompt"),
    entry("quit", "quit", "disconnect"),
];

/// Commands, and those that are shown behind every list of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Catalog {
    pub(crate) commands: &'static [Entry],
    pub(crate) tail: &'static [Entry],
}

/// The stats socket's.
pub(super) const CATALOG: Catalog = Catalog { commands: COMMANDS, tail: TAIL };

impl Catalog {
    /// `help <words>`: the commands that start with these words; close ones when none does.
    pub(crate) fn help(&self, words: &[Vec<u8>]) -> String {
        let asked = joined(words);
        self.render("The following commands are valid at this level:", &self.matching(&asked))
    }

    /// The answer to words that are no command.
    pub(crate) fn unknown(&self, words: &[Vec<u8>]) -> String {
        let name = words.first().map(|w| String::from_utf8_lossy(w)).unwrap_or_default();
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        let head = format!(
            "Unknown command: '{name}', but maybe one of the following ones is a better match:"
        );
        self.render(&head, &self.matching(&joined(words)))
    }

    fn render(&self, head: &str, entries: &[&Entry]) -> String {
        let mut text = head.to_owned();
        for e in entries.iter().copied().chain(self.tail) {
            text.push_str(&format!("\n  {:<40}: {}", e.usage, e.text));
        }
        text
    }

    /// Commands that start with `asked`, or that `asked` starts with; else the few closest ones.
    fn matching(&self, asked: &str) -> Vec<&'static Entry> {
        let starts = |e: &&Entry| {
            let longer = asked.strip_prefix(e.words);
            e.words.starts_with(asked) || longer.is_some_and(|rest| rest.starts_with(' '))
        };
        let found: Vec<_> = self.commands.iter().filter(starts).collect();
        if found.is_empty() { self.closest(asked) } else { found }
    }

    fn closest(&self, asked: &str) -> Vec<&'static Entry> {
        let mut scored: Vec<_> = self
            .commands
            .iter()
            .enumerate()
            .map(|(at, e)| (distance(head(asked, e.words), e.words), at, e))
            .filter(|(distance, _, e)| distance * 2 <= e.words.len())
            .collect();
        scored.sort_by_key(|&(distance, at, _)| (distance, at));
        // One typing mistake away from a command, the others are noise.
        let best = scored.first().map_or(0, |&(distance, _, _)| distance);
        scored.retain(|&(distance, _, _)| distance <= best * 2);
        scored.truncate(CLI_SUGGESTIONS_MAX);
        scored.sort_by_key(|&(_, at, _)| at);
        scored.into_iter().map(|(_, _, e)| e).collect()
    }
}

fn joined(words: &[Vec<u8>]) -> String {
    let words: Vec<_> = words.iter().map(|w| String::from_utf8_lossy(w)).collect();
    words.join(" ")
}

/// As many words of `asked` as `words` has, and never more than its length and half of it again:
/// what follows cannot make it closer.
fn head<'a>(asked: &'a str, words: &str) -> &'a str {
    let count = words.split(' ').count();
    let end = asked.match_indices(' ').nth(count - 1).map_or(asked.len(), |(at, _)| at);
    let longest = words.len() * 3 / 2 + 1;
    let end = (0..=end.min(longest)).rev().find(|&at| asked.is_char_boundary(at));
    &asked[..end.unwrap_or(0)]
}

/// Edits (insert, delete, replace a byte) that turn one text into the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split_whitespace().map(|w| w.as_bytes().to_vec()).collect()
    }

    const TABLE: &str = "\n  show table [<table> [<filter>]*]        : report table usage stats \
                         or dump this table's contents (filter: data/key)";
    const TAIL: &str = "
  help [<command>]                        : list matching or all commands
  prompt [help | n | i | p | timed ]*     : toggle interactive mode with prompt
  quit                                    : disconnect";

    /// As HAProxy 3.2 prints it.
    #[test]
    fn help_filters_by_prefix() {
        let head = "The following commands are valid at this level:";
        assert_eq!(CATALOG.help(&words("show table")), format!("{head}{TABLE}{TAIL}"));
        assert_eq!(CATALOG.help(&words("show table extra")), format!("{head}{TABLE}{TAIL}"));
        assert_eq!(CATALOG.help(&[]).lines().count(), 1 + COMMANDS.len() + 3);
        assert!(CATALOG.help(&words("zork")).ends_with(TAIL));
    }

    /// As HAProxy 3.2 prints it.
    #[test]
    fn unknown_commands_name_close_ones() {
        let head =
            "Unknown command: 'show', but maybe one of the following ones is a better match:";
        assert_eq!(CATALOG.unknown(&words("show tables")), format!("{head}{TABLE}{TAIL}"));
        assert_eq!(
            CATALOG.unknown(&words("Show version")),
            format!(
                "{}\n  show version                            : show version of the current \
                 process{TAIL}",
                head.replace("show'", "Show'")
            )
        );
        assert!(CATALOG.unknown(&words("show cli")).lines().count() == 1 + 2 + 3);
        assert!(CATALOG.unknown(&words("qwertyuiop")).ends_with(TAIL));
    }

    #[test]
    fn list_is_sorted_and_fits() {
        for pair in COMMANDS.windows(2) {
            assert!(pair[0].words < pair[1].words, "{} {}", pair[0].words, pair[1].words);
        }
        for e in COMMANDS {
            assert!(e.usage.starts_with(e.words) && e.usage.len() <= 40, "{}", e.usage);
        }
    }
}
