//! The command line: HAProxy's options, rewritten for clap.
//!
//! *What*: argv in, [`Args`] or a [`CliExit`] out. HAProxy has options of several letters behind
//! one dash (`-db`, `-dW`), takes each option as a word of its own, and knows nothing of
//! `--option`; so [`parse`] checks each word against the list of options first, and clap gets a
//! plain form of what is left. *Called by* `main`, first thing. *Rule*: an option is honoured or
//! refused with a reason, never taken and forgotten.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::Parser as _;

pub mod load;

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Parser)]
#[command(
    name = "stickring",
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true
)]
pub struct Args {
    /// `-f`, and the words behind `--`: files and directories in order. None: the default
    /// configuration.
    #[arg(long = "f", value_name = "cfgfile|cfgdir")]
    pub files: Vec<String>,
    /// `-L`: our name among peers.
    #[arg(long = "L", value_name = "name")]
    pub localpeer: Option<String>,
    /// `-p`: where to write our process id; wins over the configuration's `pidfile`.
    #[arg(long = "p", value_name = "pidfile")]
    pub pidfile: Option<String>,
    /// `-C`: the directory to change to before files are read.
    #[arg(long = "C", value_name = "dir")]
    pub directory: Option<String>,
    /// `-n`: sessions and stats connections at once.
    #[arg(long = "n", value_name = "maxconn", value_parser = clap::value_parser!(u32).range(1..))]
    pub maxconn: Option<u32>,
    /// `-m`: memory of the process, in MB.
    #[arg(long = "m", value_name = "megs", value_parser = clap::value_parser!(u32).range(1..))]
    pub memory_mb: Option<u32>,
    /// `-N`: HAProxy's maximum for each proxy. There are no proxies here: say so and go on.
    #[arg(long = "N", value_name = "maxpconn")]
    pub proxy_maxconn: Option<u32>,
    /// `-c`: check the configuration and exit.
    #[arg(long = "c")]
    pub check: bool,
    /// `-V`: verbose; `-c` says that the configuration is valid.
    #[arg(long = "V")]
    pub verbose: bool,
    /// `-q`: nothing on stderr once options are read.
    #[arg(long = "q")]
    pub quiet: bool,
    /// `-D`: go to the background.
    #[arg(long = "D")]
    pub daemon: bool,
    /// `-db`: stay in the foreground, over `-D`.
    #[arg(long = "db")]
    pub foreground: bool,
    /// `-d`: debug mode, which stays in the foreground, over `-D`.
    #[arg(long = "d")]
    pub debug: bool,
    /// `-dW`: warnings are errors.
    #[arg(long = "dW")]
    pub zero_warning: bool,
    /// `-dr`: names that cannot be resolved are no errors.
    #[arg(long = "dr")]
    pub ignore_dns: bool,
    /// `-dC`: print the configuration as it was understood.
    #[arg(long = "dC")]
    pub dump: bool,
    /// `-W`: a master, and a worker that it replaces on a reload.
    #[arg(long = "W")]
    pub master: bool,
    /// `-Ws`: the same, and systemd is told.
    #[arg(long = "Ws")]
    pub systemd: bool,
    /// `-S`: the master's command line; options of a `bind` line behind commas.
    #[arg(long = "S", value_name = "bind")]
    pub master_socket: Option<String>,
    /// `-x`: the stats socket of a process whose listening sockets we use.
    #[arg(long = "x", value_name = "unix_socket")]
    pub sockets_from: Option<String>,
    /// `-sf`, `-st`: the processes to take over from.
    #[arg(skip)]
    pub old: OldProcesses,
}

/// The processes that `-sf` and `-st` name: whose place we take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OldProcesses {
    /// Their pids, in order; all lists together, as HAProxy.
    pub pids: Vec<i32>,
    /// `-st` came last: they get SIGTERM, not SIGUSR1.
    pub terminate: bool,
}

impl Args {
    /// True when the process leaves its terminal: `-D` and neither `-d` nor `-db`.
    pub fn background(&self) -> bool {
        self.daemon && !self.foreground && !self.debug
    }

    /// True for a master with workers: `-W` or `-Ws`, and neither `-d` nor `-db`.
    pub fn has_master(&self) -> bool {
        (self.master || self.systemd) && !self.foreground && !self.debug
    }
}

/// Nothing to start: what to print and how to exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliExit {
    /// The text, with its line feeds.
    pub text: String,
    /// The process's exit code.
    pub code: u8,
    /// On stdout (help, versions, usage) rather than stderr.
    pub to_stdout: bool,
}

/// Options and how many words belong to each.
const OPTIONS: &[(&str, usize)] = &[
    ("-f", 1),
    ("-L", 1),
    ("-p", 1),
    ("-C", 1),
    ("-n", 1),
    ("-N", 1),
    ("-c", 0),
    ("-V", 0),
    ("-q", 0),
    ("-D", 0),
    ("-db", 0),
    ("-d", 0),
    ("-dW", 0),
    ("-dr", 0),
    ("-dC", 0),
    ("-W", 0),
    ("-Ws", 0),
    ("-S", 1),
    ("-x", 1),
];

/// Options of HAProxy's that this version does not have, and what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("-m", "a limit of memory; bound the tables by their 'size'"),
    ("-cc", "checking a condition"),
    ("-4", "HAProxy's choice of resolvers; write addresses as ipv4@name"),
];

/// Reads argv, program name first.
///
/// # Errors
/// A [`CliExit`] when there is nothing to start: help or version asked for (code 0), an unknown
/// option or a wrong value (usage on stdout, code 1, as HAProxy), a refused option (stderr, code
/// 1).
pub fn parse<I>(argv: I) -> Result<Args, CliExit>
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let mut words = Vec::new();
    for word in argv {
        let word: OsString = word.into();
        match word.into_string() {
            Ok(text) => words.push(text),
            Err(raw) => {
                return Err(usage(&format!("'{}' is not UTF-8.", raw.to_string_lossy())));
            }
        }
    }
    let mut plain = vec!["stickring".to_owned()];
    let mut old = OldProcesses::default();
    let mut words = words.into_iter().skip(1).peekable();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--" => plain.extend(words.by_ref().map(|file| format!("--f={file}"))),
            "-h" | "--help" => return Err(stdout(help(), 0)),
            "-v" | "--version" => return Err(stdout(version(), 0)),
            "-vv" => return Err(stdout(version() + &build(), 0)),
            "-sf" | "-st" => {
                old.terminate = word == "-st";
                while let Some(list) = words.next_if(|next| !next.starts_with('-')) {
                    pids(&word, &list, &mut old.pids)?;
                }
            }
            other => plain.push(option(other, &mut words)?),
        }
    }
    let args = Args::try_parse_from(plain).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let first = first.trim_start_matches("error: ").replace("--", "-");
        usage(&first)
    })?;
    Ok(Args { old, ..args })
}

/// The pids of one word behind `-sf` or `-st`; a quoted list has several.
fn pids(option: &str, list: &str, pids: &mut Vec<i32>) -> Result<(), CliExit> {
    for word in list.split_whitespace() {
        match word.parse::<i32>() {
            Ok(pid) if pid > 0 => pids.push(pid),
            _ => return Err(usage(&format!("'{word}' behind '{option}' is not a process id."))),
        }
    }
    Ok(())
}

/// One of HAProxy's options as clap's `--name` or `--name=value`.
fn option(word: &str, words: &mut impl Iterator<Item = String>) -> Result<String, CliExit> {
    if let Some((_, what)) = REFUSED.iter().find(|(name, _)| *name == word) {
        let pid = std::process::id();
        let text = format!("[ALERT]    ({pid}) : '{word}' is not supported: {what}.\n");
        return Err(CliExit { text, code: 1, to_stdout: false });
    }
    let Some((_, arity)) = OPTIONS.iter().find(|(name, _)| *name == word) else {
        return Err(usage(&format!("unknown option '{word}'.")));
    };
    if *arity == 0 {
        return Ok(format!("-{word}"));
    }
    match words.next() {
        Some(value) if !value.is_empty() => Ok(format!("-{word}={value}")),
        _ => Err(usage(&format!("missing value behind '{word}'."))),
    }
}

fn stdout(text: String, code: u8) -> CliExit {
    CliExit { text, code, to_stdout: true }
}

fn usage(what: &str) -> CliExit {
    stdout(format!("{}\n{what}\n\n{}", version(), help()), 1)
}

/// What `-v` prints.
fn version() -> String {
    let system = rustix::system::uname();
    format!(
        "stickring version {} - a HAProxy peers node\n\
         Peers protocol: 2.1 and 2.0, as spoken by HAProxy 2.4 and later\n\
         Running on: {} {} {} {}\n",
        env!("CARGO_PKG_VERSION"),
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        system.version().to_string_lossy(),
        system.machine().to_string_lossy(),
    )
}

/// What `-vv` adds.
fn build() -> String {
    let profile = if cfg!(debug_assertions) { "debug assertions" } else { "no debug assertions" };
    let mut out = String::from("\nBuild:\n");
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    let _ = writeln!(out, "  target       : {arch}-{os}, {profile}");
    let _ = writeln!(out, "  Rust at least: {}", env!("CARGO_PKG_RUST_VERSION"));
    let _ = writeln!(out, "\nDefault settings:");
    let _ = writeln!(
        out,
        "  bufsize = {}, stats timeout = {} ms, stats maxconn = {}",
        crate::limits::BUFSIZE_DEFAULT,
        crate::limits::CLI_TIMEOUT_DEFAULT_MS,
        crate::limits::STATS_MAXCONN_DEFAULT
    );
    let _ = writeln!(out, "\nEvent engines: io_uring (preferred), epoll");
    out
}

/// What `--help` prints.
fn help() -> String {
    let mut out = String::from(
        "Usage : stickring [-f <cfgfile|cfgdir>]* [ -vcqVdD ] [ -L <name> ] [ -p <pidfile> ]\n\
         \x20       [ -C <dir> ] [ -n <maxconn> ] [ -sf|-st [<pid>...] ]\n\
         \x20       [-- <cfgfile>*]\n\
         \n\
         Without -f it listens on 127.0.0.1:10000 as peer 'stickring', accepts any peer from this\n\
         machine and creates each table from the first definition it sees.\n\n",
    );
    for (option, text) in [
        (
            "-f <file|dir>",
            "reads HAProxy's configuration; of a directory, its *.cfg files in order",
        ),
        ("-- <file>*", "the same for all words that follow"),
        ("-C <dir>", "changes to <dir> before loading files"),
        ("-L <name>", "sets the local peer's name (default: 'localpeer', then the hostname)"),
        ("-c", "checks the configuration and exits: 0 valid, 1 not"),
        ("-V", "verbose: -c says that the configuration is valid"),
        ("-q", "quiet: no messages"),
        ("-dC", "prints the configuration as it was understood"),
        ("-dW", "fails if any warning is emitted"),
        ("-dr", "ignores names of peers that cannot be resolved"),
        ("-D", "goes to the background"),
        ("-db", "stays in the foreground, even with -D"),
        ("-d", "debug: stays in the foreground, even with -D"),
        ("-p <file>", "writes the process id to this file"),
        ("-sf [pid ...]", "takes over from these processes: they hand over and leave (SIGUSR1)"),
        ("-st [pid ...]", "the same, but they leave at once (SIGTERM)"),
        ("-W", "a master that replaces its worker on SIGUSR2 or SIGHUP; not with -d, -db"),
        ("-Ws", "the same, and tells systemd (Type=notify)"),
        ("-S <bind>", "the master's command line; <bind>[,<option>...] as on a bind line"),
        ("-x <path>", "uses the listening sockets of the process behind this stats socket"),
        ("-n <n>", "limits connections"),
        ("-N <n>", "HAProxy's limit for each proxy: there are none here, a notice says so"),
        ("-v, -vv", "displays the version; with build options"),
        ("-h, --help", "displays this"),
    ] {
        let _ = writeln!(out, "        {option:<14} {text}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Args, CliExit> {
        parse(["stickring"].into_iter().chain(line.split_whitespace()))
    }

    #[test]
    fn options_are_haproxys() {
        let args = read("-f a.cfg -f dir -L me -p /run/x.pid -C /etc -n 9 -c -V -- b c -q");
        let args = args.unwrap();
        // As in HAProxy, every word behind `--` is a file.
        assert_eq!(args.files, ["a.cfg", "dir", "b", "c", "-q"]);
        assert_eq!(args.localpeer.as_deref(), Some("me"));
        assert_eq!(args.pidfile.as_deref(), Some("/run/x.pid"));
        assert_eq!(args.directory.as_deref(), Some("/etc"));
        assert_eq!(args.maxconn, Some(9));
        assert!(args.check && args.verbose && !args.quiet);
        assert_eq!(read("").unwrap(), Args::default());
        let args = read("-D -dW -dr -dC -q -N 5").unwrap();
        assert!(args.zero_warning && args.ignore_dns && args.dump && args.quiet);
        assert_eq!(args.proxy_maxconn, Some(5));
        assert!(args.background());
        assert!(!read("-D -db").unwrap().background());
        assert!(!read("-D -d").unwrap().background());
        assert!(!read("-db").unwrap().background());
        // The last one wins.
        let args = read("-c -c -L a -L b -f x -f y").unwrap();
        assert_eq!((args.localpeer.as_deref(), args.files.len()), (Some("b"), 2));
        // A value may look like an option or hold anything.
        assert_eq!(read("-f -c -L a=b").unwrap().files, ["-c"]);
        assert_eq!(read("-f -c -L a=b").unwrap().localpeer.as_deref(), Some("a=b"));
    }

    #[test]
    fn old_processes_are_listed_up_to_the_next_option() {
        let old = |line: &str| read(line).unwrap().old;
        let some = |pids: &[i32], terminate| OldProcesses { pids: pids.to_vec(), terminate };
        assert_eq!(old("-sf 1 2 -q"), some(&[1, 2], false));
        assert_eq!(old("-sf"), some(&[], false), "`-sf $(cat pidfile)` of the first start");
        assert_eq!(old("-st -q"), some(&[], true));
        assert_eq!(old("-sf 1 -q -st 2 3"), some(&[1, 2, 3], true));
        assert_eq!(read("-sf 1 -- b").unwrap().files, ["b"]);
        let quoted = parse(["stickring", "-sf", "4 5\n", "-q"]).unwrap();
        assert_eq!((quoted.old, quoted.quiet), (some(&[4, 5], false), true));
        for line in ["-sf x", "-sf 1x", "-st 0", "-sf 99999999999"] {
            let exit = read(line).unwrap_err();
            assert_eq!((exit.code, exit.to_stdout), (1, true), "{line}");
            assert!(exit.text.contains("is not a process id."), "{line}: {}", exit.text);
        }
        assert!(read("-sf -5").unwrap_err().text.contains("unknown option '-5'."));
    }

    #[test]
    fn wrong_words_show_the_usage_on_stdout() {
        for (line, what) in [
            ("-zz", "unknown option '-zz'."),
            ("--f=x", "unknown option '--f=x'."),
            ("--file x", "unknown option '--file'."),
            ("some.cfg", "unknown option 'some.cfg'."),
            ("-cq", "unknown option '-cq'."),
            ("-f", "missing value behind '-f'."),
            ("-L", "missing value behind '-L'."),
            ("-n 0", "invalid value '0' for '-n <maxconn>'"),
            ("-n x", "invalid value 'x' for '-n <maxconn>'"),
        ] {
            let exit = read(line).unwrap_err();
            assert_eq!((exit.code, exit.to_stdout), (1, true), "{line}");
            assert!(exit.text.contains(what), "{line}: {}", exit.text);
            assert!(exit.text.contains("Usage : stickring [-f"), "{line}");
        }
        let exit = parse(["stickring", "-L", ""]).unwrap_err();
        assert!(exit.text.contains("missing value behind '-L'."));
    }

    #[test]
    fn options_of_later_versions_are_refused_with_a_reason() {
        for line in ["-m 64", "-cc 1", "-4"] {
            let exit = read(line).unwrap_err();
            assert_eq!((exit.code, exit.to_stdout), (1, false), "{line}");
            let option = line.split(' ').next().unwrap();
            assert!(exit.text.starts_with("[ALERT]    ("), "{line}");
            assert!(exit.text.contains(&format!("'{option}' is not supported: ")), "{line}");
        }
    }

    #[test]
    fn help_names_every_option_and_nothing_else() {
        let exit = read("--help").unwrap_err();
        assert_eq!((exit.code, exit.to_stdout), (0, true));
        for (option, _) in OPTIONS {
            assert!(exit.text.contains(&format!("        {option} ")), "{option}");
        }
        for option in ["-sf [pid ...]", "-st [pid ...]"] {
            assert!(exit.text.contains(&format!("        {option} ")), "{option}");
        }
        for (option, _) in REFUSED {
            assert!(!exit.text.contains(&format!("        {option} ")), "{option}");
        }
        assert!(read("-v").unwrap_err().text.starts_with("stickring version 0."));
        assert!(read("-vv").unwrap_err().text.contains("Build:"));
    }

    #[test]
    fn every_option_of_the_list_reaches_clap() {
        for (option, arity) in OPTIONS {
            let line = if *arity == 0 { (*option).to_owned() } else { format!("{option} 7") };
            assert_ne!(read(&line).unwrap(), Args::default(), "{option}");
        }
    }

    #[test]
    fn an_argument_that_is_not_text_is_refused() {
        use std::os::unix::ffi::OsStringExt as _;

        let raw = OsString::from_vec(b"/\xff".to_vec());
        let exit = parse([OsString::from("stickring"), "-f".into(), raw]).unwrap_err();
        assert_eq!((exit.code, exit.to_stdout), (1, true));
    }
}
