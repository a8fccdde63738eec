//! What is said, and when a connection ends: HAProxy 3.2's answers to the same bytes, however they
//! are cut.

use crate::node::{Node, Said};
use stickring::config::CliLevel;

const FRAMING: &str = include_str!("golden/framing.3.2.txt");

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.push(u8::try_from(c).expect("ASCII"));
            continue;
        }
        bytes.push(match rest.next() {
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).expect("two hexadecimal digits")
            }
            other => panic!("escape {other:?} in {text}"),
        });
    }
    bytes
}

fn cases() -> Vec<(Vec<u8>, Said)> {
    let lines: Vec<&str> = FRAMING.lines().collect();
    let case = |pair: &[&str]| {
        let (state, answer) = pair[1].trim_start().split_once(' ').expect("state and answer");
        (unescape(pair[0]), Said { bytes: unescape(answer), closed: state == "closed" })
    };
    lines.chunks_exact(2).map(case).collect()
}

/// Payload prompts depend on what was there when HAProxy looked, which is what the capture shows
/// for bytes that come at once.
#[test]
fn at_once() {
    let cases = cases();
    assert!(cases.len() > 60);
    for (bytes, expected) in cases {
        let said = Node::new(1).ask(&bytes);
        let (ours, theirs) = (said.text(), expected.text());
        assert_eq!(ours, theirs, "{:?}", String::from_utf8_lossy(&bytes));
        assert_eq!(said.closed, expected.closed, "{:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn cut_anywhere() {
    let without_asking = |said: &Said| said.text().replace("+ ", "");
    for (bytes, expected) in cases() {
        let mut node = Node::new(1);
        for at in 0..=bytes.len() {
            let (a, b) = bytes.split_at(at);
            let said = node.ask_in_pieces(CliLevel::Admin, &[a, b]);
            assert_eq!(without_asking(&said), without_asking(&expected), "{bytes:?} at {at}");
            assert_eq!(said.closed, expected.closed, "{bytes:?} at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let said = node.ask_in_pieces(CliLevel::Admin, &single);
        assert_eq!(without_asking(&said), without_asking(&expected), "{bytes:?} byte by byte");
    }
}

/// As seen with HAProxy 3.2 when each line came alone.
#[test]
fn payload_lines_are_asked_for() {
    let lines: Vec<&[u8]> = vec![b"prompt\n", b"show version <<EOF\n", b"abc\n", b"\n", b"EOF\n"];
    let said = Node::new(1).ask_in_pieces(CliLevel::Admin, &lines);
    assert_eq!(said.text(), "\n> + + + 3.2.26-1\n\n> ");
}

#[test]
fn line_of_bufsize_and_one_more() {
    let mut node = Node::new(1);
    let line = |n: usize| [b"echo ".to_vec(), vec![b'a'; n - 6], b"\n".to_vec()].concat();
    let said = node.ask(&line(16_384));
    assert_eq!((said.bytes.len(), said.closed), (16_380, true));
    let said = node.ask(&line(16_385));
    assert!(said.closed);
    assert_eq!(
        said.text(),
        "The command line is too big for the buffer size. Please change tune.bufsize in the \
         configuration to use a bigger command.\n"
    );
    let said = node.ask(&[b"prompt\n".to_vec(), line(17_000)].concat());
    assert!(said.closed && said.text().starts_with("\n> The command line is too big"));
}

#[test]
fn endless_payload_is_refused() {
    let mut node = Node::new(1);
    let mut pieces: Vec<&[u8]> = vec![b"show version <<\n"];
    pieces.resize(200, &[b'x'; 1023]);
    let with_newlines: Vec<Vec<u8>> =
        pieces.iter().map(|piece| [piece, &b"\n"[..]].concat()).collect();
    let pieces: Vec<&[u8]> =
        [pieces[0]].into_iter().chain(with_newlines[1..].iter().map(Vec::as_slice)).collect();
    let said = node.ask_in_pieces(CliLevel::Admin, &pieces);
    assert!(said.closed && said.text().starts_with("The command line is too big"));
}

#[test]
fn input_is_bounded() {
    let node = Node::new(1);
    let mut conn = node.conn(CliLevel::Admin);
    let mut taken = 0;
    while conn.wants_bytes() {
        conn.handle_bytes(&[b'x'; 1000], node.now);
        taken += 1000;
        assert!(taken < 20_000, "takes bytes for ever");
    }
}

#[test]
fn silence_closes() {
    let mut node = Node::new(1);
    let mut conn = node.conn(CliLevel::Admin);
    let mut said = Said { bytes: Vec::new(), closed: false };
    conn.handle_bytes(b"prompt\n", node.now);
    node.drain(&mut conn, &mut said);
    assert_eq!(conn.poll_timeout(), Some(node.now.plus(10_000)));
    node.now = node.now.plus(9_999);
    conn.handle_timeout(node.now);
    node.drain(&mut conn, &mut said);
    assert!(!said.closed, "too early");
    conn.handle_bytes(b"set timeout cli 2\n", node.now);
    node.drain(&mut conn, &mut said);
    assert_eq!(conn.poll_timeout(), Some(node.now.plus(2_000)));
    node.now = node.now.plus(2_000);
    conn.handle_timeout(node.now);
    node.drain(&mut conn, &mut said);
    assert!(said.closed, "not closed");
    assert_eq!(said.text(), "\n> \n> ");
}

#[test]
fn end_of_input() {
    let mut node = Node::new(1);
    for (bytes, answer) in [
        (&b"prompt i\nshow version\nshow ver"[..], "\n3.2.26-1\n\n"),
        (b"show version", ""),
        (b"", ""),
    ] {
        let mut conn = node.conn(CliLevel::Admin);
        let mut said = Said { bytes: Vec::new(), closed: false };
        conn.handle_bytes(bytes, node.now);
        conn.handle_eof();
        node.drain(&mut conn, &mut said);
        assert_eq!((said.text().as_str(), said.closed), (answer, true));
        assert_eq!(conn.poll_timeout(), None);
    }
}

#[test]
fn timed_prompt_shows_uptime() {
    let mut node = Node::new(1);
    node.now = node.now.plus(207_000);
    let said = node.ask(b"prompt timed\nshow version\nprompt timed\n");
    assert_eq!(said.text(), "\n[0:00:03:27]> 3.2.26-1\n\n[0:00:03:27]> \n> ");
}
