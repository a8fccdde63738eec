//! `-W`: a master, its workers and its command line.

use crate::lab::{LIMIT, Lab, ask, children, is_alive, kill, wait_until};
use rustix::process::Signal;

/// The pids of current and of old workers.
fn workers(lab: &Lab) -> (Vec<u32>, Vec<u32>) {
    let text = lab.ask_master("show proc");
    let pid = |line: &str| line.split_whitespace().next().unwrap().parse().unwrap();
    let rows = |text: &str| text.lines().filter(|l| l.contains(" worker ")).map(pid).collect();
    let (current, old) = text.split_once("# old workers").unwrap_or((&text, ""));
    (rows(current), rows(old))
}

/// The one worker there is, once there is one.
fn only_worker(lab: &Lab) -> u32 {
    let mut all = (Vec::new(), Vec::new());
    let one = wait_until(LIMIT, || {
        all = workers(lab);
        all.0.len() == 1 && all.1.is_empty()
    });
    assert!(one, "{all:?}");
    all.0[0]
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn the_pid_file_names_the_master_and_show_proc_both() {
    let lab = Lab::new();
    let mut master = lab.master(&["-W", "-p", &lab.text("pid")], &[]);
    assert_eq!(lab.read("pid"), format!("{}\n", master.pid()));
    let worker = only_worker(&lab);
    assert_eq!(lab.answers(), Some(worker));
    assert_eq!(children(master.pid()), [worker]);
    let text = lab.ask_master("show proc");
    let lines: Vec<&str> = text.lines().collect();
    let head = "#<PID>          <type>          <reloads>       <uptime>        <version>      ";
    assert_eq!(lines[0], head);
    let version = env!("CARGO_PKG_VERSION");
    let own = format!("{:<15} master          0 [failed: 0]   0d00h00m0", master.pid());
    assert!(lines[1].starts_with(&own) && lines[1].contains(version), "{text}");
    assert_eq!(lines[2], "# workers");
    assert!(lines[3].starts_with(&format!("{worker:<15} worker          0  ")), "{text}");
    assert!(text.ends_with("\n\n") && lines.len() == 5, "{text:?}");
    master.signal(Signal::TERM);
    master.ends_with(0);
    assert!(!is_alive(worker));
    master.says("Exiting Master process...");
    master.says(&format!("Current worker ({worker}) exited with code 143 (Terminated)"));
    master.says("All workers exited. Exiting... (0)");
}

#[test]
fn the_command_line_reaches_workers() {
    let lab = Lab::new();
    let master = lab.master(&["-W"], &[]);
    let worker = only_worker(&lab);
    let info = lab.ask_master("@1 show info");
    assert!(info.contains(&format!("\nPid: {worker}\n")), "{info}");
    let by_pid = lab.ask_master(&format!("@!{worker} show table; show version"));
    assert!(by_pid.contains("# table: p/t,"), "{by_pid}");
    assert!(by_pid.ends_with(&format!("\n{}\n\n", env!("CARGO_PKG_VERSION"))), "{by_pid}");
    // What changes a table does so, too: the level is the highest.
    assert_eq!(lab.ask_master("@1 set table p/t key 7 data.gpc0 5"), "\n");
    assert!(ask(&lab.socket(), "show table p/t").unwrap().contains("key=7 "));
    let talk = "prompt;@1;show version;@master;show version;quit";
    let talk = lab.ask_master(talk);
    assert_eq!(talk.matches(env!("CARGO_PKG_VERSION")).count(), 2, "{talk}");
    drop(master);
}

#[test]
fn twenty_reloads_leave_one_worker() {
    let lab = Lab::new();
    let mut master = lab.master(&["-W"], &[]);
    let first = only_worker(&lab);
    assert_eq!(ask(&lab.socket(), "set table p/t key 1 data.gpc0 9").unwrap(), "\n");
    let before = descriptors(master.pid());
    let mut worker = first;
    for n in 1..=20 {
        master.signal(if n % 2 == 0 { Signal::USR2 } else { Signal::HUP });
        let replaced = wait_until(LIMIT, || lab.answers().is_some_and(|pid| pid != worker));
        assert!(replaced, "reload {n}:\n{}", master.log());
        worker = only_worker(&lab);
        let row = ask(&lab.socket(), "show table p/t key 1").unwrap();
        assert!(row.contains("gpc0=9"), "reload {n} lost the entry: {row}\n{}", master.log());
    }
    assert_eq!(children(master.pid()), [worker], "no zombies");
    assert!(wait_until(LIMIT, || descriptors(master.pid()) <= before), "descriptors leak");
    let proc = lab.ask_master("show proc");
    assert!(proc.contains("master          20 [failed: 0] "), "{proc}");
    master.says(&format!("Former worker ({first}) exited with code 0 (Exit)"));
    assert!(lab.listens());
    master.signal(Signal::USR1);
    master.ends_with(0);
    assert!(!is_alive(worker));
}

#[test]
fn reloads_in_a_row_are_not_lost_and_not_more_than_needed() {
    let lab = Lab::new();
    let master = lab.master(&["-W"], &[]);
    let first = only_worker(&lab);
    (0..10).for_each(|_| master.signal(Signal::USR2));
    assert!(wait_until(LIMIT, || lab.answers().is_some_and(|pid| pid != first)));
    let last = only_worker(&lab);
    assert!(wait_until(LIMIT, || lab.answers() == Some(last)));
    assert_eq!(children(master.pid()), [last]);
}

#[test]
fn a_failed_reload_keeps_the_worker_and_says_why() {
    let lab = Lab::new();
    let mut master = lab.master(&["-W"], &[]);
    let worker = only_worker(&lab);
    lab.configure("nbthread x");
    let reply = lab.ask_master("reload");
    assert!(reply.starts_with("Success=0\n--\n"), "{reply}");
    assert!(reply.contains("nbthread"), "{reply}");
    master.says("Loading failure!");
    master.signal(Signal::USR2);
    let twice = || lab.ask_master("show proc").contains("master          2 [failed: 2] ");
    assert!(wait_until(LIMIT, twice), "{}", lab.ask_master("show proc"));
    assert_eq!(only_worker(&lab), worker, "the old one goes on");
    assert_eq!(lab.answers(), Some(worker));
    let proc = lab.ask_master("show proc");
    assert!(proc.contains(&format!("{worker:<15} worker          2  ")), "{proc}");
    // An address that cannot be had is no better than a broken file.
    lab.configure_at("192.0.2.1:1", "");
    let reply = lab.ask_master("reload");
    assert!(reply.starts_with("Success=0\n--\n") && reply.contains("192.0.2.1:1"), "{reply}");
    assert_eq!(lab.answers(), Some(worker));
    assert!(lab.listens());
    lab.configure("");
    let reply = lab.ask_master("reload");
    assert!(reply.starts_with("Success=1\n--\n"), "{reply}");
    assert_ne!(only_worker(&lab), worker);
    assert!(lab.ask_master("show proc").contains("[failed: 0]"));
    let reply = lab.ask_master("hard-reload");
    assert!(reply.starts_with("Success=1\n--\n"), "{reply}");
    master.lives();
}

#[test]
fn what_cannot_start_ends_with_its_code() {
    let lab = Lab::new();
    lab.configure("nbthread x");
    let mut master = lab.spawn(&["-W", "-p", &lab.text("pid")]);
    master.ends_with(1);
    master.says("nbthread");
    master.says("All workers exited. Exiting... (1)");
    assert_eq!(lab.read("pid"), "");
    lab.configure("");
    let first = lab.start(&[]);
    let mut master = lab.spawn(&["-W"]);
    master.ends_with(1);
    master.says("another process listens there");
    assert_eq!(lab.answers(), Some(first.pid()));
}

#[test]
fn a_worker_that_dies_takes_the_master_with_it() {
    let lab = Lab::new();
    let mut master = lab.master(&["-W"], &[]);
    let worker = only_worker(&lab);
    kill(worker, Signal::KILL);
    master.ends_with(137);
    master.says(&format!("Current worker ({worker}) exited with code 137 (Killed)"));
    master.says("exit-on-failure: killing every processes with SIGTERM");
    master.says("All workers exited. Exiting... (137)");
}

#[test]
fn a_master_that_is_killed_takes_its_workers_with_it() {
    let lab = Lab::new();
    let mut master = lab.master(&["-W"], &[]);
    let worker = only_worker(&lab);
    master.signal(Signal::KILL);
    master.ends_with(137);
    assert!(wait_until(LIMIT, || !is_alive(worker)));
}

#[test]
fn signals_end_the_master_with_haproxys_codes() {
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 130), (Signal::USR1, 0)] {
        let lab = Lab::new();
        let mut master = lab.master(&["-W"], &[]);
        let worker = only_worker(&lab);
        master.signal(signal);
        master.ends_with(code);
        assert!(!is_alive(worker), "{signal:?}");
    }
}

#[test]
fn pausing_reaches_workers() {
    let lab = Lab::new();
    let master = lab.master(&["-W"], &[]);
    master.signal(Signal::TTOU);
    assert!(wait_until(LIMIT, || !lab.listens()));
    master.signal(Signal::TTIN);
    assert!(wait_until(LIMIT, || lab.listens()));
}

#[test]
fn in_the_background_with_a_pid_file() {
    let lab = Lab::new();
    let mut caller = lab.spawn(&["-D", "-W", "-p", &lab.text("pid")]);
    caller.ends_with(0);
    let worker = lab.answers().expect("it is up when the caller returns");
    let master: u32 = lab.read("pid").trim().parse().unwrap();
    assert_eq!(children(master), [worker]);
    // Another master takes over from this one, as an init script would do it.
    let mut caller = lab.spawn(&["-D", "-W", "-p", &lab.text("pid"), "-sf", &master.to_string()]);
    caller.ends_with(0);
    let second: u32 = lab.read("pid").trim().parse().unwrap();
    assert!(wait_until(LIMIT, || !is_alive(master) && !is_alive(worker)));
    assert!(wait_until(LIMIT, || lab.answers().is_some_and(|pid| pid != worker)));
    kill(second, Signal::TERM);
    assert!(wait_until(LIMIT, || !is_alive(second)));
    lab.configure("nbthread x");
    let mut caller = lab.spawn(&["-D", "-W"]);
    caller.ends_with(1);
    caller.says("nbthread");
}

#[test]
fn in_the_foreground_there_is_no_master() {
    let lab = Lab::new();
    let mut proc = lab.start(&["-W", "-db"]);
    assert!(children(proc.pid()).is_empty());
    proc.signal(Signal::TERM);
    proc.ends_with(143);
}

/// A worker that has given its port free and does nothing any more, signals included, until it
/// goes on.
struct Asleep(u32);

impl Asleep {
    fn new(pid: u32, lab: &Lab) -> Asleep {
        kill(pid, Signal::TTOU);
        assert!(wait_until(LIMIT, || !lab.listens()));
        kill(pid, Signal::STOP);
        Asleep(pid)
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        kill(self.0, Signal::CONT);
    }
}

#[test]
fn a_worker_that_outlives_too_many_reloads_is_ended() {
    let lab = Lab::new();
    std::fs::write(lab.path("own.cfg"), "stickring\n    instant-reload off\n").unwrap();
    lab.configure("mworker-max-reloads 2");
    let mut master = lab.master(&["-W", "-f", &lab.text("own.cfg")], &[]);
    let first = only_worker(&lab);
    // Reloads that fail leave it alone, however many: nobody took its place.
    lab.configure("mworker-max-reloads x");
    for _ in 0..3 {
        let reply = lab.ask_master("reload");
        assert!(
            reply.starts_with("Success=0\n") && reply.contains("expects an integer"),
            "{reply}"
        );
    }
    lab.configure("mworker-max-reloads 2");
    let asleep = Asleep::new(first, &lab);
    let reload = || {
        let reply = lab.ask_master("reload");
        assert!(reply.starts_with("Success=1\n"), "{reply}\n{}", master.log());
    };
    let ended = |pid: u32, how: &str| format!("Former worker ({pid}) exited with code {how}");
    reload();
    reload();
    drop(asleep);
    master.says(&ended(first, "0 (Exit)"));
    // The same once more, and now one reload too many.
    let second = only_worker(&lab);
    let asleep = Asleep::new(second, &lab);
    reload();
    reload();
    assert!(workers(&lab).1.contains(&second), "two are not more than two");
    reload();
    drop(asleep);
    master.says(&ended(second, "143 (Terminated), as it exceeds max reloads (2)"));
    let current = only_worker(&lab);
    assert_eq!(lab.answers(), Some(current), "nobody else was ended");
    assert!(!master.log().contains(&format!("({current}) exited")), "{}", master.log());
    master.lives();
}
