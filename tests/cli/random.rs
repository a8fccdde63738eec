//! Any bytes: nothing panics, nothing is executed that the level forbids, no reply breaks the
//! framing.

use crate::node::Node;
use proptest::prelude::*;
use stickring::config::CliLevel;

/// Words that reach far into the parsers.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "show", "set", "clear", "table", "t_ip", "t_arr", "t_bin", "t_str", "key", "ptr", "0x1",
    "1.2.3.4", "data.gpc0", "data.gpt[1]", "data.gpt[9]", "data.zork", "eq", "lt", "5", "-1",
    "peers", "dict", "json", "lag", "info", "typed", "stat", "domain", "errors", "env", "HOME",
    "cli", "level", "sockets", "timeout", "severity-output", "number", "prompt", "n", "i", "p",
    "timed", "user", "operator", "echo", "help", ";", "<<", "<<E", "\\", "\n", "\r\n", "sess",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(WORDS).prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
    ]
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(word(), 0..40).prop_map(|words| words.join(" ").into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn never_panics_and_never_rises(
        lines in prop::collection::vec(line(), 1..6),
        cuts in prop::collection::vec(1usize..50, 1..8),
    ) {
        let mut node = Node::new(2);
        node.line("set table t_ip key 9.9.9.9 data.gpc0 3");
        let before: Vec<u64> = (0..12).map(|table| node.used(table)).collect();
        let mut bytes = b"prompt i\nuser\n".to_vec();
        for line in &lines {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        let said = node.ask_in_pieces(CliLevel::Admin, &pieces);
        let after: Vec<u64> = (0..12).map(|table| node.used(table)).collect();
        prop_assert_eq!(before, after, "a table changed at level user");
        prop_assert!(!said.text().contains("key=9.9.9.9 "), "an entry was shown at level user");
    }

    /// The same lines at level admin: tables may change, the framing may not.
    #[test]
    fn admin_lines_never_panic(lines in prop::collection::vec(line(), 1..6)) {
        let mut node = Node::new(2);
        for line in &lines {
            node.ask(&[&line[..], b"\n"].concat());
        }
        prop_assert_eq!(node.line("show version"), "3.2.26-1\n\n");
    }

    /// A reply is lines, none of them empty, and one empty line.
    #[test]
    fn one_command_one_frame(words in prop::collection::vec(word(), 1..20)) {
        let line = words.join(" ").replace([';', '\\', '\n', '\r'], "");
        let quits = line.split_whitespace().next() == Some("quit");
        let echo = line.trim_start().starts_with("echo");
        prop_assume!(!quits && !echo && !line.contains("<<") && !line.contains("prompt"));
        let mut node = Node::new(2);
        let said = node.ask(format!("{line}\n").as_bytes());
        let text = said.text();
        prop_assert!(said.closed);
        let body = text.strip_suffix('\n').expect("an empty line at the end");
        prop_assert!(body.is_empty() || body.ends_with('\n'), "{:?}", text);
        prop_assert!(!body.starts_with('\n') && !body.contains("\n\n"), "{:?}", text);
    }
}
