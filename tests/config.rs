//! Configurations that both we and HAProxy know: accepted by both or refused by both.
//!
//! Each file of `tests/config/` is given to every HAProxy found (`/usr/sbin/haproxy`, and those of
//! `tests/setup-haproxy.sh` below `target/haproxy/`) with `-c`, and to ours. A comment
//! `# since: 3.2` in a file leaves older versions out; `# ours: refused` or `# ours: accepted`
//! marks where we differ on purpose. `NAME.expected` beside a file holds our messages, word for
//! word.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stickring::cli::load::SystemHost;
use stickring::config::{self, ParseOptions, Source};

struct HAProxy {
    version: (u32, u32),
    command: PathBuf,
}

impl HAProxy {
    /// The HAProxy at `command`, if it runs.
    fn found(command: PathBuf) -> Option<HAProxy> {
        let out = Command::new(&command).arg("-v").output().ok()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let number = text.split("version ").nth(1)?.split_whitespace().next()?;
        let mut parts = number.split(['.', '-']).map_while(|p| p.parse().ok());
        Some(HAProxy { version: (parts.next()?, parts.next()?), command })
    }

    /// `None` when it crashes, as 3.2 and 3.4 do on a disabled proxy with a table.
    fn accepts(&self, file: &Path) -> Option<bool> {
        let status = Command::new(&self.command)
            .args(["-q", "-c", "-f"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("haproxy -c");
        // 2: valid, but nothing to listen on, which is no matter of the language.
        status.code().filter(|code| *code < 128).map(|code| matches!(code, 0 | 2))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every HAProxy of this machine, each version once.
fn haproxies() -> Vec<HAProxy> {
    let unpacked = fs::read_dir(root().join("target/haproxy")).into_iter().flatten().flatten();
    let unpacked = unpacked.map(|entry| entry.path().join("haproxy"));
    let all = unpacked.chain([PathBuf::from("/usr/sbin/haproxy")]);
    let mut found: Vec<HAProxy> = all.filter_map(HAProxy::found).collect();
    found.sort_by_key(|h| h.version);
    found.dedup_by_key(|h| h.version);
    found
}

fn corpus() -> Vec<(PathBuf, String)> {
    let mut files: Vec<_> = fs::read_dir(root().join("tests/config"))
        .expect("tests/config")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "cfg"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a text");
            (path, text)
        })
        .collect();
    files.sort();
    assert!(files.len() >= 60, "only {} files", files.len());
    files
}

/// What stands behind `# name: ` in the file.
fn mark<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let prefix = format!("# {name}: ");
    text.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::trim)
}

fn ours(path: &Path, text: &str) -> (bool, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let source = Source { name, text: text.as_bytes().to_vec() };
    let parsed = config::parse(&[source], &SystemHost, &ParseOptions::default());
    (parsed.config.is_some(), parsed.diagnostics.render(1, "X", "P"))
}

#[test]
fn haproxy_and_we_accept_the_same() {
    let haproxies = haproxies();
    if haproxies.is_empty() {
        println!("SKIPPED: no haproxy on this machine (apt-get install haproxy)");
        return;
    }
    let mut different = Vec::new();
    let mut compared = 0;
    for haproxy in &haproxies {
        let mut count = (0, 0);
        for (path, text) in corpus() {
            let since = mark(&text, "since").map(|v| {
                let (major, minor) = v.split_once('.').expect("since: major.minor");
                (major.parse().expect("a number"), minor.parse().expect("a number"))
            });
            if since.is_some_and(|since| haproxy.version < since) {
                continue;
            }
            let Some(theirs) = haproxy.accepts(&path) else { continue };
            let expected = match mark(&text, "ours") {
                Some("refused") => false,
                Some("accepted") => true,
                Some(other) => panic!("{}: ours: {other}", path.display()),
                None => theirs,
            };
            let (accepted, said) = ours(&path, &text);
            if accepted != expected || mark(&text, "ours").is_some_and(|_| theirs == accepted) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let version = haproxy.version;
                different
                    .push(format!("{name}: HAProxy {version:?} {theirs}, ours {accepted}\n{said}"));
            }
            *(if theirs { &mut count.0 } else { &mut count.1 }) += 1;
        }
        println!("HAProxy {:?}: {} accepted, {} refused", haproxy.version, count.0, count.1);
        compared += count.0 + count.1;
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(compared > 0);
}

#[test]
fn messages_are_the_expected_ones() {
    let mut checked = 0;
    for (path, text) in corpus() {
        let Ok(expected) = fs::read_to_string(path.with_extension("expected")) else { continue };
        assert_eq!(ours(&path, &text).1, expected, "{}", path.display());
        checked += 1;
    }
    assert!(checked >= 12, "only {checked} files");
}

#[test]
fn what_is_accepted_reads_back_equal() {
    for (path, text) in corpus() {
        let source = Source { name: "x".into(), text: text.into_bytes() };
        let parse = |source| config::parse(&[source], &SystemHost, &ParseOptions::default());
        let Some(first) = parse(source).config else { continue };
        let rendered = config::render(&first);
        let again = parse(Source { name: "y".into(), text: rendered.clone().into_bytes() });
        assert_eq!(again.config.as_ref(), Some(&first), "{}\n{rendered}", path.display());
    }
}

/// Runs the daemon with `-c` and more options; its exit code, stdout, and stderr without process
/// ids.
fn check(options: &[&str], file: &str) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_stickring"))
        .current_dir(root().join("tests/config"))
        .arg("-c")
        .args(options)
        .args(["-f", file])
        .output()
        .expect("stickring -c");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said: Vec<String> = text(&out.stderr)
        .lines()
        .filter(|line| !line.contains("version is") && !line.contains("path to executable"))
        .map(|line| match (line.find('('), line.find(") : ")) {
            (Some(open), Some(close)) if line.starts_with('[') => {
                format!("{}(){}", &line[..open], &line[close + 1..])
            }
            _ => line.to_owned(),
        })
        .collect();
    (out.status.code(), text(&out.stdout), said.join("\n"))
}

#[test]
fn checking_ends_as_haproxy_3_ends() {
    let fine = "peers-old-style.cfg";
    assert_eq!(check(&[], fine), (Some(0), String::new(), String::new()));
    let valid = "Configuration file is valid\n".to_owned();
    assert_eq!(check(&["-V"], fine), (Some(0), valid.clone(), String::new()));

    let warned = "peers-server-checks.cfg";
    let warning = "[WARNING]  () : config : parsing [peers-server-checks.cfg:5] : 'peer b' : \
                   init_addr, resolvers, check and agent are ignored for peers.";
    let found = "Warnings were found.\n".to_owned();
    assert_eq!(check(&[], warned), (Some(0), found.clone(), warning.to_owned()));
    assert_eq!(check(&["-V"], warned).1, found + &valid);
    assert_eq!(check(&["-q"], warned), (Some(0), String::new(), String::new()));
    let (code, out, said) = check(&["-dW"], warned);
    let aborting = "Some warnings were found and 'zero-warning' is set. Aborting.";
    assert_eq!((code, out), (Some(1), String::new()));
    assert_eq!(said, format!("{warning}\n[ALERT]    () : {aborting}"));

    let (code, out, said) = check(&["-V"], "many-errors.cfg");
    assert_eq!((code, out), (Some(1), String::new()));
    assert!(said.ends_with("() : config : Fatal errors found in configuration."), "{said}");
    assert_eq!(check(&["-q"], "many-errors.cfg"), (Some(1), String::new(), String::new()));

    let (code, _, said) = check(&[], "/nonexist");
    let expected = "[ALERT]    () : config : Cannot open configuration file/directory /nonexist : \
                    No such file or directory";
    assert_eq!((code, said.as_str()), (Some(1), expected));
    assert_eq!(check(&["-L", "b"], fine).0, Some(0));
    // A directory is read as a whole; here, every file at once is full of errors.
    assert_eq!(check(&[], ".").0, Some(1));
}

#[test]
fn the_configuration_can_be_printed_as_understood() {
    let (code, out, _) = check(&["-dC"], "proxy-stick-rules.cfg");
    assert_eq!(code, Some(0));
    assert!(out.contains(
        "    stick-table type ip size 1024 srvkey addr store \
    server_id,server_key peers p\n"
    ));
}
