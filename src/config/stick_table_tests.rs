//! Each message was seen on HAProxy 3.2.26.

use super::*;

fn read(line: &str) -> (Option<Parsed>, Messages) {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let at = Location { file: "f".into(), line: 1 };
    let mut messages = Messages::default();
    let parsed = parse("table", "p/t", "/t", &words, &at, &mut messages);
    (parsed, messages)
}

#[test]
fn wrong_lines_get_haproxys_message() {
    for (line, message) in [
        ("type ip size 1 expire", "table: missing argument after 'expire'."),
        ("type ip size", "table: missing argument after 'size'."),
        ("type", "table: unknown type ''."),
        ("type foo size 3", "table: unknown type 'foo'."),
        ("type string len 0 size 1", "'len' expects a positive integer argument."),
        ("type string len x size 1", "'len' expects a positive integer argument."),
        ("type string len", "'len' expects a positive integer argument."),
        ("type integer len 4 size 1", "table: unknown argument 'len'."),
        ("type string size 2 len 3", "table: unknown argument 'len'."),
        ("type ip", "table: missing size."),
        ("type ip size 0", "table: missing size."),
        ("size 2k", "table: missing type."),
        ("type ip size -1", "table: unexpected character '-' in argument of 'size'."),
        ("type ip size 3z", "table: unexpected character 'z' in argument of 'size'."),
        ("type ip size 2kk", "table: unexpected character 'k' in argument of 'size'."),
        ("type ip size 5g", "table: unexpected character 'g' in argument of 'size'."),
        ("type ip size 2 expire 1y", "table: unexpected character 'y' in argument of 'expire'."),
        ("type ip size 1 store foo", "table: unknown store option 'foo'."),
        ("type ip size 1 store ,", "table: unknown store option ''."),
        ("type ip size 1 store gpc0,,gpc1", "table: unknown store option ''."),
        ("type ip size 1 store gpc0, gpc1", "table: unknown argument 'gpc1'."),
        ("type ip size 1 store gpc0 ,gpc1", "table: unknown argument ',gpc1'."),
        (
            "type ip size 1 store gpt0,gpt(3)",
            "table: simultaneous usage of 'gpt' and 'gpt0' in a same table is not permitted as \
             'gpt' overrides 'gpt0'.",
        ),
        (
            "type ip size 1 store gpc1,gpc(2)",
            "table: simultaneous usage of 'gpc' and 'gpc[0/1]' in a same table is not permitted as \
             'gpc' overrides 'gpc[0/1]'.",
        ),
        (
            "type ip size 1 store gpc_rate(2,10s),gpc0_rate(3s)",
            "table: simultaneous usage of 'gpc_rate' and 'gpc[0/1]_rate' in a same table is not \
             permitted as 'gpc_rate' overrides 'gpc[0/1]_rate'.",
        ),
        ("type ip size 1 store gpc0(3)", "table: unexpected argument to store option 'gpc0'."),
        (
            "type ip size 1 store http_req_rate",
            "table: missing argument to store option 'http_req_rate'.",
        ),
        ("type ip size 3 store gpc_rate(3)", "table: missing argument to store option 'gpc_rate'."),
        (
            "type ip size 1 store gpc0_rate(3x)",
            "table: error when processing store option 'gpc0_rate'.",
        ),
        (
            "type ip size 1 store gpc0_rate()",
            "table: error when processing store option 'gpc0_rate'.",
        ),
        (
            "type ip size 1 store gpc_rate(2,x)",
            "table: error when processing store option 'gpc_rate'.",
        ),
        (
            "type ip size 1 store gpc0_rate(30d)",
            "table: error when processing store option 'gpc0_rate'.",
        ),
        (
            "type ip size 1 store gpt(101)",
            "table: array size is out of allowed range (1-100) for store option 'gpt'.",
        ),
        (
            "type ip size 1 store gpt()",
            "table: array size is out of allowed range (1-100) for store option 'gpt'.",
        ),
        (
            "type ip size 1 store gpc_rate(2,",
            "table: missing closing parenthesis after store option 'gpc_rate'.",
        ),
        ("type ip size 1 srvkey foo", "table : unknown server key type 'foo'."),
        ("type ip size 1 write-to", "table : write-to requires table name."),
        (
            "type ip size 1 brates-factor 0",
            "table: argument 'brates-factor' must be greater than 0 and lower or equal than 1024.",
        ),
        (
            "type ip size 1 brates-factor x",
            "table: unexpected character 'x' in argument of 'brates-factor'.",
        ),
        ("type ip size 1 store gpt(2,3)", "table: unexpected argument to store option 'gpt'."),
        (
            "type ip size 1 brates-factor 3m",
            "table: argument 'brates-factor' must be greater than 0 and lower or equal than 1024.",
        ),
        ("type ip size 1 peers p", "table: unknown argument 'peers'."),
        ("type ip size 1 foo", "table: unknown argument 'foo'."),
    ] {
        let (parsed, messages) = read(line);
        assert!(parsed.is_none(), "{line}");
        assert_eq!(messages.alerts, [format!("config : parsing [f:1] : {message}")], "{line}");
    }
    let (_, messages) = read("type ip size 2 expire 2147483648");
    assert_eq!(
        messages.alerts,
        ["config : parsing [f:1]: table: timer overflow in argument <2147483648> to <expire>, \
          maximum value is 2147483647 ms (~24.8 days)."]
    );
}

#[test]
fn what_is_read_is_what_is_rendered() {
    for (line, rendered) in [
        ("type ip size 1m", "type ip size 1048576"),
        ("type ipv4 size 1", "type ip size 1"),
        ("type string size 1", "type string len 31 size 1"),
        ("type string len 20 size 1k", "type string len 20 size 1024"),
        ("type binary size 1", "type binary len 32 size 1"),
        ("type integer size 1 expire 1us", "type integer size 1 expire 1ms"),
        ("type ip size 1m size 2k nopurge nopurge", "type ip size 2048 nopurge"),
        (
            "type ipv6 size 1 store gpc1,server_name,gpt(3) store gpc_rate(2,10s) recv-only",
            "type ipv6 size 1 recv-only store gpc1,server_key,gpt(3),gpc_rate(2,10000ms)",
        ),
        (
            "type ip size 1 brates-factor 2 write-to p/u srvkey addr expire 30s",
            "type ip size 1 expire 30000ms srvkey addr write-to p/u brates-factor 2",
        ),
        ("type ip size 1 store gpc0,", "type ip size 1 store gpc0"),
        ("type ip size 1 store gpt(2x)", "type ip size 1 store gpt(2)"),
        ("type ip size 1 store gpc_rate(2,3s,5)", "type ip size 1 store gpc_rate(2,3000ms)"),
        ("type ip size 1 store gpc0_rate(3mm)", "type ip size 1 store gpc0_rate(180000ms)"),
        ("type ip size 1 store gpc0_rate(3s)x,gpc1", "type ip size 1 store gpc0_rate(3000ms),gpc1"),
    ] {
        let (parsed, messages) = read(line);
        assert!(messages.alerts.is_empty(), "{line}: {messages:?}");
        let spec = parsed.unwrap().spec;
        assert_eq!(render(&spec), rendered, "{line}");
        let (again, _) = read(&render(&spec));
        assert_eq!(again.unwrap().spec, spec, "{line}");
    }
}

#[test]
fn a_string_table_announces_one_byte_more_than_its_length() {
    assert_eq!(read("type string len 16 size 1").0.unwrap().spec.key_len, 17);
    assert_eq!(read("type string size 1").0.unwrap().spec.key_len, 32);
    assert_eq!(read("type binary len 8 size 1").0.unwrap().spec.key_len, 8);
}

#[test]
fn a_type_stored_twice_is_a_warning() {
    let (parsed, messages) = read("type ip size 1 store gpc0,gpc0");
    assert_eq!(parsed.unwrap().spec.columns.len(), 1);
    assert_eq!(
        messages.warnings,
        ["config : parsing [f:1]: table: store option 'gpc0' already enabled, ignored."]
    );
}

#[test]
fn stick_rules_add_the_server_columns_once() {
    let mut spec = read("type ip size 1 store gpc0,server_key").0.unwrap().spec;
    add_server_columns(&mut spec);
    add_server_columns(&mut spec);
    assert_eq!(spec.data_types(), 1 | 4 | 1 << 19);
    assert!(spec.columns.is_sorted_by_key(|c| c.data_type));
}
