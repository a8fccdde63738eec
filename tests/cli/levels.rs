//! Who may do what (runtime-api.md 3.2).

use crate::node::Node;
use stickring::config::CliLevel::{self, Admin, Operator, User};

const DENIED: &str = "Permission denied\n\n";

fn at(node: &mut Node, level: CliLevel, line: &str) -> String {
    node.ask_in_pieces(level, &[line.as_bytes(), b"\n"]).text()
}

#[test]
fn matrix() {
    let mut node = Node::new(2);
    node.line("set table t_ip key 1.2.3.4 data.gpc0 3");
    for (line, needs) in [
        ("show table", User),
        ("show version", User),
        ("show info", User),
        ("show stat", User),
        ("show peers", User),
        ("show cli level", User),
        ("show cli sockets", User),
        ("show resolvers", User),
        ("help", User),
        ("user", User),
        ("operator", Operator),
        ("show table t_ip key 1.2.3.4", Operator),
        ("set table t_ip", Operator),
        ("set table t_ip key 1.2.3.4", Operator),
        ("clear table t_ip6", Operator),
        ("clear table t_ip key 9.9.9.9", Operator),
        ("show errors", Operator),
        ("show env HOME", Operator),
        ("show sess", Operator),
        ("clear counters", Operator),
        ("clear counters all", Admin),
        ("wait 1", Admin),
        ("wait x", Admin),
    ] {
        for level in [User, Operator, Admin] {
            let denied = at(&mut node, level, line) == DENIED;
            assert_eq!(denied, level < needs, "{line} at {level:?}");
        }
    }
}

/// As HAProxy 3.2 answers on a socket of level user.
#[test]
fn user_sees_headers_only() {
    let mut node = Node::new(2);
    node.line("set table t_ip6 key ::1 data.gpc0 3");
    let header = "# table: t_ip6, type: ipv6, size:1024, used:1\n";
    let hidden = "# contents not dumped due to insufficient privileges\n\n";
    for line in
        ["show table t_ip6", "show table t_ip6 data.gpc0 eq 3", "show table t_ip6 data.gpc0 eq 4"]
    {
        assert_eq!(at(&mut node, User, line), format!("{header}{hidden}"), "{line}");
        // HAProxy looks at the socket's level here and shows everything; we look at the session's.
        let lowered = at(&mut node, Admin, &format!("user;{line}"));
        assert_eq!(lowered, format!("\n{header}{hidden}"), "{line}");
    }
    assert_eq!(at(&mut node, User, "show table t_ip6 key ::1"), DENIED);
    assert_eq!(
        at(&mut node, User, "show table t_none"),
        "# table: t_none, type: string, size:1024, used:0\n\n"
    );
}

#[test]
fn a_lowered_session_stays_low() {
    let mut node = Node::new(1);
    assert_eq!(
        at(&mut node, Admin, "show cli level;operator;show cli level;user;show cli level"),
        "admin\n\n\noperator\n\n\nuser\n\n"
    );
    assert_eq!(at(&mut node, Admin, "user;operator;show cli level"), format!("\n{DENIED}user\n\n"));
}
