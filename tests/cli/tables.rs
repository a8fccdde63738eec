//! What the golden answers cannot show: pointers, our own additions, large tables.

use crate::node::Node;

fn pointer(dump: &str) -> &str {
    let line = dump.lines().find(|line| line.starts_with("0x")).expect("an entry");
    line.split(':').next().expect("a pointer")
}

#[test]
fn pointers_find_their_entry() {
    let mut node = Node::new(3);
    for n in 0..50 {
        node.line(&format!("set table t_str key k{n} data.server_id {n}"));
    }
    node.line("set table t_none key k1");
    let dump = node.line("show table t_str");
    let mut seen = std::collections::HashSet::new();
    for line in dump.lines().filter(|line| line.starts_with("0x")) {
        let p = pointer(line);
        assert!(seen.insert(p.to_owned()), "{p} twice");
        let one = node.line(&format!("show table t_str ptr {p}"));
        assert_eq!(one.lines().nth(1), Some(line));
    }
    assert_eq!(seen.len(), 50);
    let p = pointer(&dump).to_owned();
    assert_eq!(node.line(&format!("set table t_str ptr {p} data.server_id 77")), "\n");
    assert!(node.line(&format!("show table t_str ptr {p}")).contains(" server_id=77 "));
    let missing = "No entry can be found matching ptr.\n\n";
    assert_eq!(node.line(&format!("show table t_none ptr {p}")), missing);
    assert_eq!(node.line(&format!("clear table t_str ptr {p}")), "\n");
    for verb in ["show", "set", "clear"] {
        assert_eq!(node.line(&format!("{verb} table t_str ptr {p}")), missing, "{verb}");
    }
    assert!(
        node.line("show table t_str")
            .starts_with("# table: t_str, type: string, size:1024, used:49\n")
    );
}

/// HAProxy 2.6 to 3.2 empty the table here.
#[test]
fn set_without_a_key_changes_nothing() {
    let mut node = Node::new(1);
    node.line("set table t_ip key 1.2.3.4 data.gpc0 3");
    assert_eq!(node.line("set table t_ip"), "\n");
    assert!(node.line("show table t_ip").contains("used:1\n"));
}

/// HAProxy refuses binary keys, after having made the entry.
#[test]
fn binary_keys_are_hexadecimal() {
    let mut node = Node::new(2);
    assert_eq!(node.line("set table t_bin key 6465616462656566 data.gpc0 4"), "\n");
    let dump = node.line("show table t_bin");
    assert!(dump.contains(": key=6465616462656566 use=0 exp=600000 shard=0 gpc0=4\n"), "{dump}");
    assert_eq!(node.line("show table t_bin key 6465616462656566"), dump);
    assert_eq!(node.line("set table t_bin key xyz"), "Invalid key\n\n");
    assert_eq!(node.line("clear table t_bin key 6465616462656566"), "\n");
    assert!(node.line("show table t_bin").contains("used:0\n"));
}

#[test]
fn values_before_a_wrong_word_are_kept() {
    let mut node = Node::new(1);
    assert_eq!(
        node.line("set table t_int key 5 data.gpc0 7 data.zork 1 data.gpc0 8"),
        "Unknown data type\n\n"
    );
    assert!(node.line("show table t_int key 5").contains("key=5 use=0 exp=600000 shard=0 gpc0=7 "));
}

#[test]
fn rates_fade_and_entries_expire() {
    let mut node = Node::new(1);
    node.line("set table t_int key 5 data.gpc0_rate 100");
    let mut shown = |ms: u64| {
        node.now = node.now.plus(ms);
        node.line("show table t_int")
    };
    assert!(shown(9_000).contains("exp=591000 shard=0 gpc0=0 gpc0_rate(10000)=100\n"));
    assert!(shown(6_000).contains("gpc0_rate(10000)=50\n"));
    assert!(shown(6_000).contains("gpc0_rate(10000)=0\n"));
    assert!(shown(578_999).contains("exp=1 "));
    assert_eq!(shown(1), "# table: t_int, type: integer, size:1024, used:0\n\n");
}

#[test]
fn a_large_dump_comes_in_bounded_pieces() {
    let mut node = Node::new(2);
    node.budget.bytes = 200;
    node.budget.rows = 7;
    for n in 0..900 {
        node.line(&format!("set table t_int key {n} data.gpc0 {n}"));
    }
    let dump = node.line("show table t_int");
    assert_eq!(dump.lines().count(), 1 + 900 + 1);
    for n in [0, 1, 450, 899] {
        assert!(dump.contains(&format!(": key={n} ")), "{n}");
    }
    assert_eq!(node.line("clear table t_int data.gpc0 ge 100"), "\n");
    assert!(
        node.line("show table t_int")
            .starts_with("# table: t_int, type: integer, size:1024, used:100\n")
    );
}

#[test]
fn startup_logs_keep_the_framing() {
    let mut node = Node::new(1);
    let facts = std::sync::Arc::get_mut(&mut node.facts).expect("no connection yet");
    facts.startup_logs = "[NOTICE]   (1) : a\n\n[WARNING]  (1) : b".into();
    assert_eq!(node.line("show startup-logs"), "[NOTICE]   (1) : a\n[WARNING]  (1) : b\n\n");
}

/// What one line's sets do and say does not depend on their running together.
#[test]
fn sets_of_one_line_run_together_and_answer_one_by_one() {
    let line = "set table t_int key 5 data.gpc0 1;set table t_int key 6 data.gpc0 2 data.zork 1;\
                set table t_int key 5 data.gpc0 3;show table t_int key 5;set table nosuch key 1;\
                set table t_ip key x;set table t_int key 7";
    let mut node = Node::new(3);
    let said = node.line(line);
    assert!(said.starts_with("\nUnknown data type\n\n\n# table: t_int"), "{said}");
    assert!(said.contains("key=5 use=0 exp=600000 shard=0 gpc0=3 "), "the later one wins: {said}");
    assert!(said.ends_with("\n\nNo such table\n\nInvalid key\n\n\n"), "{said}");
    let mut conn = node.conn(stickring::config::CliLevel::Admin);
    conn.handle_bytes(format!("{line}\n").as_bytes(), node.now);
    match conn.poll(node.now, &node.specs) {
        Some(stickring::runtime_api::Action::Set(sets)) => assert_eq!(sets.len(), 3),
        other => panic!("{other:?}"),
    }
    // With a prompt, one prompt stands behind the line's last reply.
    let said = node.ask(b"prompt\nset table t_int key 1;set table t_int key 2\n").text();
    assert_eq!(said, "\n> \n\n> ");
}
