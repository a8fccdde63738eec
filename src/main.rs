//! Start-up order, and nothing else: arguments, configuration, background, engine, sockets, shards,
//! ready, wait.

use std::io::Write;
use std::process::ExitCode;
use stickring::cli::load::{SystemHost, read_sources};
use stickring::cli::{self, Args};
use stickring::config::{self, Config, Diagnostics, ParseOptions, Severity, Source};
use stickring::coordinator::instant;
use stickring::coordinator::pausing::Pauser;
use stickring::coordinator::start::{self, Opened, Setup};
use stickring::coordinator::takeover;
use stickring::engine::getsocks;
use stickring::engine::old::OldProcesses;
use stickring::engine::probe::probe;
use stickring::engine::process::{self, Daemon};
use stickring::master::{self, Configured, Link};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let code = match cli::parse(std::env::args_os()) {
        Ok(args) => run(&args),
        Err(exit) => {
            if exit.to_stdout {
                print(&exit.text);
            } else {
                eprint(&exit.text);
            }
            exit.code
        }
    };
    ExitCode::from(code)
}

/// Everything behind the arguments. Returns the exit code.
fn run(args: &Args) -> u8 {
    let mut said = Said { quiet: args.quiet, ..Said::default() };
    let link = match Link::from_env() {
        Ok(link) => link,
        Err(error) => return said.fail(&format!("no master to be a worker of: {error}.")),
    };
    let Some(link) = link else { return work(args, None, &mut said) };
    let old = link.old.clone().unwrap_or_else(|| args.old.clone());
    let code = work(&Args { old, ..args.clone() }, Some(&link), &mut said);
    if code != 0 {
        link.failed(&said.all);
    }
    code
}

/// Checks, starts a master, or does the work; `link` is there in a worker.
fn work(args: &Args, link: Option<&Link>, said: &mut Said) -> u8 {
    let directory = std::env::current_dir().unwrap_or_default();
    if let Some(directory) = &args.directory
        && let Err(error) = std::env::set_current_dir(directory)
    {
        return said.fail(&format!("cannot change to directory '{directory}': {error}."));
    }
    // A master reads no configuration: its workers do.
    let config = if link.is_none() && args.has_master() && !args.check {
        None
    } else if let Some(config) = configure(args, said) {
        Some(config)
    } else {
        return 1;
    };
    if let Some((config, _)) = &config
        && args.dump
    {
        print(&config::render(config));
    }
    if let Some((_, warned)) = config
        && args.check
    {
        if warned && !args.quiet {
            print("Warnings were found.\n");
        }
        if args.verbose && !args.quiet {
            print("Configuration file is valid\n");
        }
        return 0;
    }
    let background = args.background() && link.is_none();
    let ready = match background.then(|| process::daemonize(&directory)).transpose() {
        Ok(Some(Daemon::Parent(code))) => return code as u8,
        Ok(Some(Daemon::Child(ready))) => Some(ready),
        Ok(None) => None,
        Err(error) => return said.fail(&format!("cannot go to the background: {error}.")),
    };
    match config {
        Some((config, _)) => serve(args, config, link, said, ready),
        None => master::run(master::Setup { args: args.clone(), directory, ready }),
    }
}

/// Reads and checks the configuration, and says what there is to say about it. With the
/// configuration comes whether there were warnings.
fn configure(args: &Args, said: &mut Said) -> Option<(Config, bool)> {
    let sources: Vec<Source> = if args.files.is_empty() {
        let runtime_dir = std::env::var("XDG_RUNTIME_DIR").ok().filter(|d| !d.is_empty());
        let fallback = || std::env::temp_dir().to_string_lossy().into_owned();
        let runtime_dir = runtime_dir.unwrap_or_else(fallback);
        vec![config::embedded_default(&runtime_dir, args.localpeer.as_deref())]
    } else {
        match read_sources(&args.files) {
            Ok(sources) => sources,
            Err(error) => {
                said.fail(&error.to_string());
                return None;
            }
        }
    };
    let options = ParseOptions { localpeer: args.localpeer.clone(), ignore_dns: args.ignore_dns };
    let mut parsed = config::parse(&sources, &SystemHost, &options);
    if args.proxy_maxconn.is_some() {
        parsed
            .diagnostics
            .notice("-N limits proxies, and there are none here: it changes nothing.");
    }
    let warned = parsed.diagnostics.has_warnings();
    said.say(&parsed.diagnostics);
    let config = parsed.config?;
    if args.zero_warning && warned {
        said.fail("Some warnings were found and 'zero-warning' is set. Aborting.");
        return None;
    }
    Some((config, warned))
}

/// Opens everything and runs to the end.
fn serve(
    args: &Args,
    config: Config,
    link: Option<&Link>,
    said: &mut Said,
    ready: Option<process::Ready>,
) -> u8 {
    let signals = start::Signals::default();
    signals.begin();
    process::raise_files_max();
    process::choose_memory(config.stickring.memory);
    let probed = match probe(config.stickring.engine) {
        Ok(probed) => probed,
        Err(error) => return said.fail(&error.to_string()),
    };
    if let Some(warning) = &probed.warning {
        said.line(Severity::Warning, warning);
    }
    // A `pidfile` in haproxy.cfg is HAProxy's; like HAProxy, we write one in the background only.
    let configured = config.pidfile.as_deref().filter(|_| args.background());
    let path = args.pidfile.as_deref().or(configured).map(str::to_owned);
    // With a master, the file is about the master.
    let own = path.as_deref().filter(|_| link.is_none());
    let pidfile = own.map(process::Pidfile::open).transpose();
    let pidfile = match pidfile {
        Ok(pidfile) => pidfile,
        Err(error) => return said.fail(&format!("{error}.")),
    };
    let instant_reload = config.stickring.instant_reload;
    let asked = instant_reload.then(instant::listen).transpose().unwrap_or_else(|error| {
        let text = format!("No process will be able to take over from us at once: {error}.");
        said.line(Severity::Warning, &text);
        None
    });
    let setup = |said: &Said| Setup {
        engine: probed.engine,
        opened: Opened::default(),
        has_old_process: false,
        quiet: args.quiet,
        maxconn: args.maxconn,
        startup_logs: said.all.clone(),
        seeds: process::random_seeds(),
        asked: asked.clone(),
        takeover: None,
        signals: signals.clone(),
        master: link.and_then(|link| link.end().ok()),
        config: config.clone(),
    };
    let max_reloads = config.max_reloads;
    let told = link.map(|link| Told { link, path, max_reloads, background: args.background() });
    let mut up = Up { pidfile, ready, told };
    if instant_reload && !args.old.terminate && !args.old.pids.is_empty() {
        match go_on(&args.old.pids, setup(said), &mut up) {
            Ok(code) => return code as u8,
            Err(why) => said.line(Severity::Notice, &format!("No instant hand-over: {why}.")),
        }
    }
    let old = OldProcesses::new(&args.old.pids, args.old.terminate);
    // HAProxy's word for: from nobody, whatever else was said.
    let from = args.sockets_from.as_deref().filter(|path| *path != "/dev/null");
    let sockets = match from.map(getsocks::ask).transpose() {
        Ok(sockets) => sockets.unwrap_or_default(),
        Err(error) => {
            let path = from.unwrap_or_default();
            return said.fail(&format!(
                "Starting: cannot get the listening sockets of the process behind '{path}': \
                 {error}."
            ));
        }
    };
    let mut opened = match takeover::open_all(&config, &old, &sockets) {
        Ok(opened) => opened,
        Err(error) => return said.fail(&format!("Starting: {error}.")),
    };
    if let Err(error) = opened.place() {
        return said.fail(&format!("Starting: {error}."));
    }
    let hint = (args.files.is_empty() && !args.quiet).then(|| start::hint(&config, &opened));
    let logs = said.all.clone();
    let pauser = opened.pauser.take();
    let setup = Setup { opened, has_old_process: old.any(), ..setup(said) };
    let ended = start::start(setup, move || {
        old.end();
        up.write_pidfile();
        pauser.into_iter().for_each(Pauser::up);
        if let Some(hint) = hint {
            print(&hint);
        }
        up.tell(&logs);
    });
    match ended {
        Ok(code) => code as u8,
        Err(error) => said.fail(&format!("{error}.")),
    }
}

/// Goes on with everything an old process has, to the end. The error says why that cannot be: then
/// nothing has happened.
fn go_on(pids: &[i32], setup: Setup, up: &mut Up<'_>) -> Result<i32, String> {
    let mut takeover = instant::take_over(pids, &setup.config, start::shards(&setup.config))?;
    let others: Vec<i32> = pids.iter().copied().filter(|pid| *pid != takeover.pid()).collect();
    let opened = takeover.open(&setup.config).map_err(|error| error.to_string())?;
    let logs = setup.startup_logs.clone();
    let setup = Setup { opened, takeover: Some(takeover), ..setup };
    let ended = start::start(setup, || {
        OldProcesses::new(&others, false).end();
        up.write_pidfile();
        up.tell(&logs);
    });
    ended.map_err(|error| error.to_string())
}

/// What is to be done when the node is up, once.
struct Up<'a> {
    pidfile: Option<process::Pidfile>,
    ready: Option<process::Ready>,
    told: Option<Told<'a>>,
}

/// The master, and what it wants to know.
struct Told<'a> {
    link: &'a Link,
    /// Of the pid file.
    path: Option<String>,
    max_reloads: Option<u32>,
    background: bool,
}

impl Up<'_> {
    /// Not before signals are caught: whoever reads it may send one at once.
    fn write_pidfile(&mut self) {
        if let Some(Err(error)) = self.pidfile.take().map(process::Pidfile::write) {
            eprint(&format!("{error}.\n"));
        }
    }

    /// The process that waits for us may be gone: then nobody is to be told.
    fn tell(&mut self, logs: &str) {
        let _ = self.ready.take().map(process::Ready::tell);
        if let Some(told) = self.told.take() {
            let (pidfile, max_reloads) = (told.path.as_deref(), told.max_reloads);
            told.link.up(&Configured { pidfile, max_reloads }, logs);
            let _ = told.background.then(process::leave_terminal);
        }
    }
}

/// What was said so far, for `show startup-logs`.
#[derive(Default)]
struct Said {
    quiet: bool,
    /// The version and the path were named: once is enough.
    opened: bool,
    all: String,
}

impl Said {
    fn say(&mut self, diagnostics: &Diagnostics) {
        let pid = std::process::id();
        let mut text = String::new();
        if diagnostics.has_weight() && !self.opened {
            let executable = std::env::current_exe().unwrap_or_default();
            text = config::opening(pid, stickring::VERSION, &executable.to_string_lossy());
            self.opened = true;
        }
        text.push_str(&diagnostics.lines(pid));
        if !self.quiet {
            eprint(&text);
        }
        self.all.push_str(&text);
    }

    fn line(&mut self, severity: Severity, text: &str) {
        let mut one = Diagnostics::default();
        one.push(severity, text);
        self.say(&one);
    }

    /// An alert; the exit code it ends with.
    fn fail(&mut self, text: &str) -> u8 {
        self.line(Severity::Alert, text);
        1
    }
}

/// stdout may be closed; nobody is there to be told.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn eprint(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
