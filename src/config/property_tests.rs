//! Random files, and right files with random changes.

use proptest::prelude::*;

use super::testing::FakeHost;
use super::tests::{FULL, config, read};
use super::*;

/// Words that mean something, so that random lines get past the first check.
const WORDS: &[&str] = &[
    "global",
    "peers",
    "p",
    "peer",
    "a",
    "b",
    "127.0.0.1:1",
    "bind",
    "server",
    "table",
    "t",
    "type",
    "ip",
    "string",
    "len",
    "size",
    "1k",
    "expire",
    "30s",
    "store",
    "gpc0,gpc0_rate(10s)",
    "gpt(3)",
    "backend",
    "stick-table",
    "stick",
    "on",
    "src",
    "write-to",
    "p/t",
    "localpeer",
    "stats",
    "socket",
    "/x",
    "level",
    "admin",
    "log",
    "stderr",
    "local0",
    "stickring",
    "accept-peers",
    "::1/64",
    "unix",
    "max",
    "7",
    "auto-tables",
    "engine",
    "epoll",
    "pin",
    "instant-reload",
    "memory",
    "off",
    "shards",
    "2",
    "shard",
    "disabled",
    "default-server",
    "default-bind",
    "ssl",
    "no-ssl",
    "source",
    "mode",
    "600",
    "setenv",
    "X",
    "\"$X\"",
    "unix@/q",
    "fd@4",
    "nbthread",
    "nopurge",
    "recv-only",
    "integer",
    "binary",
    "\"",
    "'",
    "\\",
    "#",
    ".if",
    ".else",
    ".endif",
    "1",
    "defined(X)",
    "unix-bind",
    "prefix",
    "hard-stop-after",
    "mworker-max-reloads",
    "node",
];

fn any_file() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        20 => proptest::sample::select(WORDS).prop_map(str::to_owned),
        1 => "\\PC{0,8}",
    ];
    let line = proptest::collection::vec(word, 0..8).prop_map(|words| words.join(" ") + "\n");
    proptest::collection::vec(line, 0..20)
        .prop_map(|lines| format!("global\n localpeer a\npeers p\n{}", lines.concat()))
}

/// A file that is mostly right: FULL with a few words changed.
fn changed_file() -> impl Strategy<Value = String> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    changes.prop_map(|changes| {
        let mut words: Vec<String> = FULL.split_inclusive([' ', '\n']).map(str::to_owned).collect();
        for (index, choice) in changes {
            let i = index.index(words.len());
            let end = if words[i].ends_with('\n') { "\n" } else { " " };
            words[i] = match choice % 4 {
                0 => end.to_owned(),
                1 => words[usize::from(choice) % words.len()].clone(),
                _ => format!("{}{end}", WORDS[usize::from(choice) % WORDS.len()]),
            };
        }
        words.concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_file_gives_a_configuration_or_alerts(text in any_file()) {
        let parsed = read(&text);
        prop_assert_eq!(parsed.config.is_none(), parsed.diagnostics.has_alerts());
        if let Some(c) = parsed.config {
            let rendered = render(&c);
            prop_assert_eq!(config(&rendered), c, "{}", rendered);
        }
    }

    #[test]
    fn what_is_accepted_renders_and_reads_back_equal(text in changed_file()) {
        if let Some(c) = read(&text).config {
            let rendered = render(&c);
            prop_assert_eq!(config(&rendered), c, "{}", rendered);
        }
    }
}

/// 100 000 lines with a few bytes changed each: never a panic, always a configuration or an alert.
#[test]
fn a_hundred_thousand_mutated_lines_do_not_panic() {
    let lines: Vec<&[u8]> = FULL.as_bytes().split_inclusive(|c| *c == b'\n').collect();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let mut accepted = 0;
    let mut mutated = 0;
    while mutated < 100_000 {
        // Many lines of a file, or one or two, so that some files are still right.
        let one_of = if random(2) == 0 { 2 } else { 64 };
        let mut text = Vec::new();
        for line in &lines {
            let mut line = line.to_vec();
            if random(one_of) == 0 {
                mutated += 1;
                for _ in 0..=random(3) {
                    let at = random(line.len());
                    match random(3) {
                        0 => line[at] = random(256) as u8,
                        1 => line.insert(at, b" \t\"'\\#$(){},:@.\0\n"[random(17)]),
                        _ => drop(line.remove(at)),
                    }
                    if line.is_empty() {
                        break;
                    }
                }
            }
            text.extend_from_slice(&line);
        }
        let source = Source { name: "m.cfg".into(), text };
        let parsed = parse(&[source], &FakeHost, &ParseOptions::default());
        assert_eq!(parsed.config.is_none(), parsed.diagnostics.has_alerts());
        accepted += usize::from(parsed.config.is_some());
    }
    // Were everything refused, only the error paths would have been tried.
    assert!(accepted > 0);
}
