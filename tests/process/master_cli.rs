//! The master's command line, word for word as HAProxy 3.2's master answers the same lines (seen
//! with 3.2.26), but for names and versions; where ours says more the test says so.

use crate::lab::{LIMIT, Lab, ask, is_alive, wait_until};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The last lines of every list.
const TAIL: &str = "  help [<command>]                        : list matching or all commands
  prompt [help | i | p | timed ]*         : toggle interactive mode with prompt
  quit                                    : disconnect

";

/// The whole list; HAProxy 3.2 has the same but for `@@`, which it does not show.
const HELP: &str = "\
The following commands are valid at this level:
  @!<pid>                                 : send a command to the <pid> process
  @<relative pid>                         : send a command to the <relative pid> process
  @@<[!]pid> [<line>]                     : hand this line or connection to a process
  @master                                 : send a command to the master process
  echo <text>                             : print text to the output
  hard-reload                             : achieve a hard-reload (-st) of stickring
  operator                                : lower the level of the current CLI session to operator
  reload                                  : achieve a soft-reload (-sf) of stickring
  show cli level                          : display the level of the current CLI session
  show cli sockets                        : dump list of cli sockets
  show env [var]                          : dump environment variables known to the process
  show proc                               : show processes status
  show startup-logs                       : report logs emitted during stickring startup
  show version                            : show version of the current process
  user                                    : lower the level of the current CLI session to user
";

const USAGE: &str = "\
Usage: prompt [help | i | p | timed]*
Changes the default prompt and interactive mode. Available options:
  help    display this help
  i       set to interactive mode only (no prompt, multi-command)
  p       set to prompt+interactive mode (prompt + multi-command)
  timed   toggle displaying the current date in the prompt
Without any argument, toggles between i<->p.
";

/// Lines and their answers; `V` is a version and a line's end, `PID>` the worker's prompt.
const TALKS: &[(&str, &str)] = &[
    ("show version", "V\n"),
    ("show version extra", "V\n"),
    ("show version\nshow version", "V\nV\n"),
    ("", "\n"),
    (";", "\n\n"),
    ("echo a  b\\;c", "a b;c\n\n"),
    ("show cli level", "admin\n\n"),
    ("show env STICKRING_TEST", "STICKRING_TEST=a b\n\n"),
    ("show env NOSUCH", "Variable not found\n\n"),
    ("user", ""),
    ("operator;show cli level;user;show cli level", "operator\n\nuser\n\n"),
    ("user;operator;show cli level", "Permission denied!\nuser\n\n"),
    ("user;reload;hard-reload", "Permission denied\n\nPermission denied\n\n"),
    ("user;show env STICKRING_TEST", "Permission denied\n\n"),
    ("user;show proc;show startup-logs", "Permission denied\n\nPermission denied\n\n"),
    ("user;@1 show cli level;@1 operator", "user\n\nPermission denied\n\n"),
    ("@1 user;@1 show cli level", "\nadmin\n\n"),
    ("@1\nuser\nshow cli level\n@\nshow cli level", "user\n\nuser\n\n"),
    ("@1;show version;@master;show version", "V\nV\n"),
    ("@1\nquit\nshow version", ""),
    ("@1 quit;show version", "V\n"),
    ("@ show version;@0 show version;@@ show version", "V\nV\nV\n"),
    ("@2 show version", "Can't find the target PID matching the prefix '@2'\n"),
    ("@!x show version", "Can't find the target PID matching the prefix '@!x'\n"),
    ("@foo;show version", "Can't find the target PID matching the prefix '@foo'\nV\n"),
    ("@@1;show version", "Can't find the target PID matching the prefix '@@1;show'\n"),
    ("@@1 show version", "V\n"),
    ("@@1 show version; show cli level; quit\nshow version", "V\nadmin\n\n"),
    ("@@1\nshow version\nquit\nshow version", "V\n"),
    ("prompt", "master> "),
    ("prompt\n\nshow version", "master> \nmaster> V\nmaster> "),
    (
        "prompt\nshow version\n@1 show version\n@1\nshow version\n@\nshow version",
        "master> V\nmaster> V\nmaster> PID> V\nPID> master> V\nmaster> ",
    ),
    ("@1\nprompt\nshow version", "PID> V\nPID> "),
    ("prompt p\nprompt\nshow version", "master> V\n"),
    ("prompt\nprompt i\nshow version", "master> V\n"),
    (
        "prompt\n@7\nshow version",
        "master> Can't find the target PID matching the prefix '@7'\n\
      master> V\nmaster> ",
    ),
];

#[test]
fn talks_are_haproxys() {
    let lab = Lab::new();
    let master = lab.master(&["-W"], &[("STICKRING_TEST", "a b")]);
    let pid = lab.answers().unwrap().to_string();
    let version = format!("{VERSION}\n");
    for (line, expected) in TALKS {
        let expected = expected.replace("V\n", &format!("{version}\n"));
        let expected = expected.replace("PID>", &format!("{pid}>"));
        assert_eq!(lab.ask_master(line), expected, "{line:?}\n{}", master.log());
    }
    let by_pid = format!("@!{pid} show version;@@!{pid} show version;show version");
    assert_eq!(lab.ask_master(&by_pid), format!("{version}\n").repeat(3));
    let timed = lab.ask_master("prompt timed\n@1");
    let mut prompts = timed.split_inclusive("> ");
    for name in ["master".to_owned(), pid] {
        let prompt = prompts.next().unwrap();
        assert!(prompt.starts_with("[0:00:00:"), "{timed}");
        assert!(prompt.ends_with(&format!("] {name}> ")) && prompt.len() == 15 + name.len());
    }
}

#[test]
fn help_lists_what_there_is() {
    let lab = Lab::new();
    let _master = lab.master(&["-W"], &[]);
    assert_eq!(lab.ask_master("help"), format!("{HELP}{TAIL}"));
    let lines = |start: &str| -> String {
        HELP.lines().filter(|l| l.trim().starts_with(start)).map(|l| format!("{l}\n")).collect()
    };
    let head = HELP.lines().next().unwrap();
    let cli = lines("show cli");
    assert_eq!(cli.lines().count(), 2);
    assert_eq!(lab.ask_master("help show cli"), format!("{head}\n{cli}{TAIL}"));
    let unknown = "but maybe one of the following ones is a better match:";
    let text = format!("Unknown command: 'show', {unknown}\n{cli}{TAIL}");
    assert_eq!(lab.ask_master("show cli"), text);
    assert!(lab.ask_master("rreload").contains(&lines("reload")));
    for wrong in ["prompt help", "prompt zork", "prompt n"] {
        assert_eq!(lab.ask_master(wrong), USAGE, "{wrong}");
    }
    // Of HAProxy's master this list is always empty.
    let own = format!("# socket lvl processes\nunix@{} admin all\n\n", lab.text("master.sock"));
    assert_eq!(lab.ask_master("show cli sockets"), own);
}

#[test]
fn who_may_not_reload_is_told() {
    for (level, may) in [("user", false), ("operator", true)] {
        let lab = Lab::new();
        let socket = format!("{},level,{level}", lab.text("master.sock"));
        let proc = lab.spawn(&["-W", "-S", &socket]);
        proc.says("Loading success.");
        assert_eq!(lab.ask_master("show cli level"), format!("{level}\n\n"));
        assert_eq!(lab.ask_master("@1 show cli level"), format!("{level}\n\n"));
        let proc = lab.ask_master("show proc");
        assert_eq!(proc.starts_with("#<PID>"), may, "{proc}");
        let reply = lab.ask_master("reload");
        assert_eq!(reply.starts_with("Success=1\n--\n"), may, "{reply}");
        assert_eq!(reply == "Permission denied\n\n", !may, "{reply}");
    }
    let lab = Lab::new();
    let mut wrong = lab.spawn(&["-W", "-S", "/x,nonsense"]);
    wrong.ends_with(1);
    wrong.says("'-S /x,nonsense'");
}

#[test]
fn the_prompt_says_that_the_last_reload_failed() {
    let lab = Lab::new();
    let _master = lab.master(&["-W"], &[]);
    lab.configure("nbthread x");
    assert!(lab.ask_master("reload").starts_with("Success=0"));
    assert_eq!(lab.ask_master("prompt"), "master[ReloadFailed]> ");
    lab.configure("");
    assert!(lab.ask_master("reload").starts_with("Success=1"));
    assert_eq!(lab.ask_master("prompt"), "master> ");
}

/// A connection that stays.
struct Talk(UnixStream);

impl Talk {
    fn new(lab: &Lab) -> Talk {
        let stream = UnixStream::connect(lab.path("master.sock")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Talk(stream)
    }

    fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// Exactly this comes.
    fn hears(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        self.0.read_exact(&mut bytes).unwrap_or_else(|e| panic!("{expected:?}: {e}"));
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }
}

#[test]
fn a_worker_has_the_connection_until_it_ends_it() {
    let lab = Lab::new();
    let mut master = lab.master(&["-W"], &[]);
    let mut talk = Talk::new(&lab);
    talk.say("echo one\n");
    talk.hears("one\n\n");
    talk.say("@@1\n");
    for n in 0..3 {
        talk.say(&format!("set table p/t key {n} data.gpc0 5;echo {n}\n"));
        talk.hears(&format!("\n{n}\n\n"));
    }
    // Settings of the session stay, unlike behind `@1`.
    talk.say("user\nshow cli level\n");
    talk.hears("\nuser\n\n");
    talk.say("quit\n");
    drop(talk);
    let mut talk = Talk::new(&lab);
    talk.say("prompt\n@@1\n");
    talk.hears("master> \n> ");
    talk.say("show cli level\nquit\n");
    talk.hears("admin\n\n> ");
    talk.hears("master> ");
    assert_eq!(ask(&lab.socket(), "show table p/t").unwrap().matches("gpc0=5").count(), 3);
    // With the worker gone the client is back at the master's.
    talk.say("@@1\n");
    talk.hears("\n> ");
    let worker = lab.answers().unwrap();
    lab.ask_master("hard-reload");
    assert!(wait_until(LIMIT, || !is_alive(worker)));
    talk.hears("master> ");
    master.lives();
}
