//! A test about the code itself: the rules of the house that a compiler does not check.
//!
//! Each rule reads all sources and lists what breaks it, as `file:line: what`. Exceptions are named
//! here with their reason, and an exception nobody needs any more is an error too. Each rule is
//! also shown to see what it forbids, so that a rule that stopped looking is noticed.

use std::fs;
use std::path::Path;

/// Columns of a line. Tables in doc comments cannot be wrapped and are let through.
const COLUMNS_MAX: usize = 100;
/// Lines of a file.
const LINES_MAX: usize = 600;

/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// Modules of the core: bytes, values and `now` in, values out.
const CORE: &[&str] = &["wire", "session", "resync", "table", "aggregate", "config", "runtime_api"];

/// What the core never names: whatever reaches the world. The files with `unsafe` code may hold
/// file descriptors of their memory (`std::os`).
const OUTSIDE_THE_CORE: &[&str] = &[
    "tokio",
    "tokio_uring",
    "io_uring",
    "Instant",
    "SystemTime",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
];

/// Files that hold `unsafe` code. Everything else is safe.
const UNSAFE_FILES: &[&str] = &[
    "src/engine/socket.rs", // file descriptors
    "src/table/index.rs",   // probes of the flat index
    "src/table/memory.rs",  // mapped regions
];

/// A source file: its text, and the same lines with comments and the insides of literals blanked.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: String) -> Source {
        let code = blank(&text);
        Source { path: path.to_owned(), text, code }
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
    }

    /// First directory or file below `src/`.
    fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or("");
        below.split(['/', '.']).next().unwrap_or("")
    }

    fn in_core(&self) -> bool {
        CORE.contains(&self.module())
    }

    /// Lines of code (comments and literals blanked) that hold `word` as a whole word, by number.
    fn lines_with<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let lines = self.code.lines().enumerate();
        lines.filter(move |(_, line)| has_word(line, word)).map(|(i, _)| i + 1)
    }

    fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// True when `word` stands in `line` with no letter, digit or underscore around it.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

/// Replaces comments and the insides of string and character literals by blanks, line by line.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let rest = &chars[i..];
        let end = match rest {
            ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => 1 + quoted(&rest[1..], '"'),
            ['r', '"' | '#', ..] if i == 0 || !is_name(chars[i - 1]) => raw_string(rest),
            ['\'', '\\', ..] => 1 + quoted(&rest[1..], '\''),
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if end == 0 {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(rest[..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i += end;
        }
    }
    out
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Characters up to and with the closing quote.
fn quoted(rest: &[char], quote: char) -> usize {
    let mut i = 0;
    while i < rest.len() && rest[i] != quote {
        i += if rest[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(rest.len())
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < rest.len() {
        match rest[i..] {
            ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
            ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

/// `r"..."`, `r#"..."#`; 0 when it is a raw identifier.
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let mut i = 2 + hashes;
    while i < rest.len() {
        if rest[i] == '"' && rest[i + 1..].iter().take_while(|&&c| c == '#').count() >= hashes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

/// All files below `dir` with one of these endings, by path from the package's root.
fn walk(dir: &Path, root: &Path, endings: &[&str], out: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                walk(&path, root, endings, out);
            }
        } else if endings.iter().any(|e| name.ends_with(e)) {
            let text = fs::read_to_string(&path).expect("a text");
            let path = path.strip_prefix(root).expect("below the root").to_string_lossy();
            out.push((path.into_owned(), text));
        }
    }
}

fn files(endings: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut out = Vec::new();
    walk(root, root, endings, &mut out);
    out.sort();
    out
}

fn sources() -> Vec<Source> {
    let all: Vec<_> =
        files(&[".rs"]).into_iter().map(|(path, text)| Source::new(&path, text)).collect();
    assert!(all.len() > 20, "the walk found {} files", all.len());
    all
}

/// Fails with all that was found.
fn none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn source(path: &str, text: &str) -> Vec<Source> {
    vec![Source::new(path, text.to_owned())]
}

fn long_lines(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for s in sources {
        for (i, line) in s.text.lines().enumerate() {
            let table = ["//! |", "/// |"].iter().any(|t| line.trim_start().starts_with(t));
            let columns = line.chars().count();
            if columns > COLUMNS_MAX && !table {
                found.push(s.at(i + 1, &format!("{columns} columns")));
            }
        }
    }
    found
}

#[test]
fn lines_are_at_most_100_columns() {
    none(long_lines(&sources()));
    assert_eq!(long_lines(&source("src/a.rs", &"x".repeat(101))).len(), 1);
}

fn long_files(sources: &[Source], exceptions: &[(&str, &str)]) -> Vec<String> {
    let is_long = |s: &Source| s.text.lines().count() > LINES_MAX;
    let allowed = |path: &str| exceptions.iter().any(|(p, _)| *p == path);
    let mut found: Vec<String> = sources
        .iter()
        .filter(|s| is_long(s) && !allowed(&s.path))
        .map(|s| s.at(s.text.lines().count(), "file too long"))
        .collect();
    for (path, _) in exceptions {
        if !sources.iter().any(|s| s.path == *path && is_long(s)) {
            found.push(format!("{path}: listed as long, and is not"));
        }
    }
    found
}

#[test]
fn files_are_at_most_600_lines() {
    none(long_files(&sources(), LONG_FILES));
    let long = source("src/a.rs", &"x\n".repeat(601));
    assert_eq!(long_files(&long, &[]).len(), 1);
    assert_eq!(long_files(&long, &[("src/a.rs", "why")]).len(), 0);
    assert_eq!(long_files(&source("src/a.rs", "x\n"), &[("src/a.rs", "why")]).len(), 1);
}

fn headless(sources: &[Source]) -> Vec<String> {
    let part_of_tests = |s: &&Source| s.is_test() && s.path.starts_with("src/");
    sources
        .iter()
        .filter(|s| !part_of_tests(s) && !s.text.starts_with("//! "))
        .map(|s| s.at(1, "no `//!` head that says what it is"))
        .collect()
}

#[test]
fn every_module_has_a_head() {
    none(headless(&sources()));
    assert_eq!(headless(&source("src/a.rs", "use b;\n")).len(), 1);
    assert_eq!(headless(&source("src/a.rs", "//! A.\nuse b;\n")).len(), 0);
    assert_eq!(headless(&source("src/a/tests/b.rs", "use b;\n")).len(), 0);
}

fn runtime_outside_the_engine(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for s in sources.iter().filter(|s| s.path.starts_with("src/") && s.module() != "engine") {
        for word in ["tokio_uring", "io_uring"] {
            found.extend(s.lines_with(word).map(|n| s.at(n, word)));
        }
    }
    found
}

#[test]
fn only_the_engine_names_the_runtime() {
    none(runtime_outside_the_engine(&sources()));
    let text = "// tokio_uring is fine here\nuse tokio_uring::fs;\n";
    assert_eq!(
        runtime_outside_the_engine(&source("src/shard/a.rs", text)),
        ["src/shard/a.rs:2: tokio_uring"]
    );
    assert!(runtime_outside_the_engine(&source("src/engine/a.rs", text)).is_empty());
}

fn world_in_the_core(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for s in sources.iter().filter(|s| s.in_core() && !s.is_test()) {
        let memory = UNSAFE_FILES.contains(&s.path.as_str());
        for word in OUTSIDE_THE_CORE.iter().filter(|w| !(memory && **w == "std::os")) {
            found.extend(s.lines_with(word).map(|n| s.at(n, word)));
        }
    }
    found
}

#[test]
fn the_core_touches_nothing() {
    none(world_in_the_core(&sources()));
    let text = "use std::fs;\nuse std::time::{Duration, Instant};\nlet Instants = 1;\n";
    assert_eq!(
        world_in_the_core(&source("src/wire/a.rs", text)),
        ["src/wire/a.rs:2: Instant", "src/wire/a.rs:1: std::fs"]
    );
    assert!(world_in_the_core(&source("src/shard/a.rs", text)).is_empty());
}

/// A core module says so at its head, for itself and what is below; where a neighbour may be
/// unsafe, each file says it for itself.
fn core_without_forbid(sources: &[Source]) -> Vec<String> {
    let forbids = |path: &str| {
        let line = |s: &Source| s.code.lines().any(|l| l.trim() == "#![forbid(unsafe_code)]");
        sources.iter().any(|s| s.path == path && line(s))
    };
    let head = |module: &str| {
        forbids(&format!("src/{module}/mod.rs")) || forbids(&format!("src/{module}.rs"))
    };
    let mut found = Vec::new();
    for s in sources.iter().filter(|s| s.in_core() && !s.is_test()) {
        let is_head = s.path.ends_with("/mod.rs");
        let covered = head(s.module()) || forbids(&s.path);
        let mixed = UNSAFE_FILES.iter().any(|u| u.starts_with(&format!("src/{}/", s.module())));
        let excused = UNSAFE_FILES.contains(&s.path.as_str()) || (mixed && is_head);
        if !covered && !excused {
            found.push(s.at(1, "no `#![forbid(unsafe_code)]`, here or at the module's head"));
        }
    }
    found
}

#[test]
fn the_core_forbids_unsafe() {
    none(core_without_forbid(&sources()));
    assert_eq!(core_without_forbid(&source("src/wire/mod.rs", "//! A.\n")).len(), 1);
    assert_eq!(core_without_forbid(&source("src/table/key.rs", "//! A.\n")).len(), 1);
    assert_eq!(
        core_without_forbid(&source("src/wire/mod.rs", "#![forbid(unsafe_code)]\n")).len(),
        0
    );
    let in_a_comment = source("src/wire/mod.rs", "// #![forbid(unsafe_code)]\n");
    assert_eq!(core_without_forbid(&in_a_comment).len(), 1);
}

/// True when the comment right above line `n` (counted from 1), or on it, says `SAFETY:`.
fn has_safety(s: &Source, n: usize) -> bool {
    let lines: Vec<&str> = s.text.lines().collect();
    if lines[n - 1].contains("// SAFETY: ") {
        return true;
    }
    let mut above = lines[..n - 1].iter().rev().map(|l| l.trim());
    // Attributes, and the start of the statement an expression belongs to, may stand between.
    let part = |l: &str| l.starts_with("//") || l.starts_with("#[");
    let statement = |l: &str| l.ends_with('=') || l.ends_with('(') || l.ends_with("=> {");
    above
        .by_ref()
        .take_while(|l| part(l) || statement(l))
        .any(|l| l.starts_with("// SAFETY: ") || l.starts_with("/// # Safety"))
}

fn unsafe_code(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for s in sources {
        for n in s.lines_with("unsafe") {
            let line = s.code.lines().nth(n - 1).unwrap_or("");
            // A type such as `unsafe extern "C" fn(...)` or an attribute does nothing by itself.
            if line.trim_start().starts_with('#') {
                continue;
            }
            if !UNSAFE_FILES.contains(&s.path.as_str()) && !s.path.starts_with("tests/") {
                found.push(s.at(n, "unsafe code outside the listed files"));
            } else if !has_safety(s, n) {
                found.push(s.at(n, "no `// SAFETY:` right above"));
            }
        }
    }
    found
}

#[test]
fn unsafe_code_is_where_it_may_be_and_says_why() {
    let all = sources();
    none(unsafe_code(&all));
    for path in UNSAFE_FILES {
        let listed = all.iter().find(|s| s.path == *path);
        let used = listed.is_some_and(|s| s.lines_with("unsafe").next().is_some());
        assert!(used, "{path}: listed as unsafe, and is not");
    }
    let here = "src/table/index.rs";
    let sees = |text: &str| unsafe_code(&source(here, text)).len();
    assert_eq!(unsafe_code(&source("src/wire/a.rs", "unsafe { f() }\n")).len(), 1);
    assert_eq!(sees("unsafe { f() }\n"), 1);
    assert_eq!(sees("// SAFETY: checked above.\nunsafe { f() }\n"), 0);
    assert_eq!(sees("// SAFETY: checked\n// above.\nlet x =\n    unsafe { f() };\n"), 0);
    assert_eq!(sees("// SAFETY: checked above.\n\nunsafe { f() }\n"), 1, "not right above");
    assert_eq!(sees("/// # Safety\n/// Who calls checks.\nunsafe fn f() {}\n"), 0);
    assert_eq!(sees("#![deny(unsafe_op_in_unsafe_fn)]\n// unsafe\nlet s = \"unsafe\";\n"), 0);
}

fn unfinished(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for s in sources {
        for (i, line) in s.code.lines().enumerate() {
            for word in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
                if line.contains(word) {
                    found.push(s.at(i + 1, word));
                }
            }
        }
        let notes = ["TODO", "FIXME", "XXX"];
        for (i, line) in s.text.lines().enumerate() {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment);
            if notes.iter().any(|note| comment.starts_with(&format!(" {note}"))) {
                found.push(s.at(i + 1, "an unfinished note"));
            }
        }
    }
    found
}

#[test]
fn nothing_is_unfinished_or_skipped() {
    none(unfinished(&sources()));
    let text = "todo!()\n#[ignore]\ndbg!(x);\n// todo! in words\n// FIXME later\n\"dbg!\";\n";
    assert_eq!(
        unfinished(&source("src/a.rs", text)),
        [
            "src/a.rs:1: todo!",
            "src/a.rs:2: #[ignore",
            "src/a.rs:3: dbg!",
            "src/a.rs:5: an unfinished note"
        ]
    );
}

/// Directories that only somebody's machine has.
fn machine_paths(texts: &[(String, String)]) -> Vec<String> {
    let dirs = ["home", "root", "Users", "work", "mnt", "tmp/wt", "tmp/hap"];
    let needles: Vec<String> = dirs.iter().map(|d| format!("/{d}/")).collect();
    let mut found = Vec::new();
    for (path, text) in texts {
        for (i, line) in text.lines().enumerate() {
            for needle in &needles {
                // Not inside a longer path, where it would be an ordinary name.
                let hit = line.match_indices(needle.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| is_name(c) || "./-}".contains(c))
                });
                if hit {
                    found.push(format!("{path}:{}: {needle}", i + 1));
                }
            }
        }
    }
    found
}

#[test]
fn no_paths_of_a_machine() {
    let endings = [".rs", ".toml", ".md", ".log", ".cfg", ".sh", ".py", ".yml", ".yaml", ".txt"];
    none(machine_paths(&files(&endings)));
    let sees = |line: String| machine_paths(&[("a".into(), line)]).len();
    assert_eq!(sees(format!("cd /{}/me", "home")), 1);
    assert_eq!(sees(format!("\"/{}/x\"", "tmp/hap")), 1);
    assert_eq!(sees(format!("a/{}/b", "home")), 0);
    assert_eq!(sees("/tmp/x.sock".into()), 0);
}

fn unused_limits(sources: &[Source]) -> Vec<String> {
    let limits = sources.iter().find(|s| s.path == "src/limits.rs").expect("src/limits.rs");
    let mut found = Vec::new();
    for (i, line) in limits.code.lines().enumerate() {
        let Some(rest) = line.strip_prefix("pub const ") else { continue };
        let name = rest.split(':').next().unwrap_or("");
        let mut others = sources
            .iter()
            .filter(|s| s.path.starts_with("src/") && s.path != limits.path && !s.is_test());
        if !others.any(|s| s.lines_with(name).next().is_some()) {
            found.push(limits.at(i + 1, &format!("{name} bounds nothing")));
        }
    }
    found
}

#[test]
fn every_limit_bounds_something() {
    none(unused_limits(&sources()));
    let mut two = source("src/limits.rs", "/// A.\npub const A: u32 = 1;\npub const B: u8 = 2;\n");
    two.extend(source("src/a.rs", "// A\nuse crate::limits::B;\n"));
    assert_eq!(unused_limits(&two), ["src/limits.rs:2: A bounds nothing"]);
}

#[test]
fn blanking_keeps_lines_and_code() {
    let text = "let a = \"x // y\\\" z\"; // c\nlet b = 'x'; let c: &'a str = r#\"a\"b\"#;\n\
                /* d /* e */\n f */ g('\\'', b\"\\\\\", r\"\\\"); // h";
    let blanked = blank(text);
    assert_eq!(blanked.chars().count(), text.chars().count());
    assert_eq!(blanked.lines().count(), text.lines().count());
    let dense: String = blanked.chars().filter(|c| *c != ' ').collect();
    assert_eq!(dense, "leta=;\nletb=;letc:&'astr=;\n\ng(,b,);");
}

/// The README's first command is `cargo run --release`, and there are two programs.
#[test]
fn cargo_run_runs_the_daemon() {
    let manifest = include_str!("../Cargo.toml");
    assert!(manifest.lines().any(|line| line == "default-run = \"stickring\""));
}
