use crate::limits::BUFSIZE_DEFAULT as LINE_MAX;
use crate::wire::hello::{
    Hello, HelloError, Printable, STATUS_LINE_MAX, Status, StatusTooLong, encode_hello,
    parse_hello, parse_status,
};

/// What a server called `hap` that knows `tester`, `other` and itself answers.
fn answer(bytes: &[u8]) -> u16 {
    match parse_hello(bytes, b"hap", LINE_MAX) {
        Ok(None) => 0,
        Ok(Some((hello, n))) => {
            assert_eq!(n, bytes.len());
            let known = [&b"tester"[..], b"other", b"hap"].contains(&&hello.from[..]);
            if known { 200 } else { Status::UnknownPeer as u16 }
        }
        Err(e) => e.status().expect("no line here is too long") as u16,
    }
}

/// The cases of the capture `hello_and_status`, both versions, and those of protocol.md 2.2.
const CASES: &[(&[u8], u16)] = &[
    (b"HAProxyS 2.1\nhap\ntester 1 1\n", 200),
    (b"HAProxyS 2.1\r\nhap\r\ntester 1 1\r\n", 200),
    (b"HAProxyS 2.0\nhap\ntester 1 1\n", 200),
    (b"HAProxyS 2.2\nhap\ntester 1 1\n", 502),
    (b"HAProxyS 1.0\nhap\ntester 1 1\n", 502),
    (b"HAProxyS 3.0\nhap\ntester 1 1\n", 502),
    (b"HAProxyS 2.1.0\nhap\ntester 1 1\n", 502),
    (b"HAProxyS 02.01\nhap\ntester 1 1\n", 200),
    (b"HAProxyS 2\nhap\ntester 1 1\n", 502),
    (b"HAProxyX 2.1\nhap\ntester 1 1\n", 501),
    (b"HAProxyS  2.1\nhap\ntester 1 1\n", 502),
    (b"HAProxyS 2.1\nother\ntester 1 1\n", 503),
    (b"HAProxyS 2.1\nhap\nnobody 1 1\n", 504),
    (b"HAProxyS 2.1\nhap\ntester\n", 501),
    (b"HAProxyS 2.1\nhap\ntester \n", 200),
    (b"HAProxyS 2.1\nhap\ntester foo bar baz\n", 200),
    (b"HAProxyS 2.1\nhap\nhap 1 1\n", 200),
    (b"HAProxyS 2.1\nhap\n\n", 501),
    (b"HAProxyS 2.1\nhap\n tester 1 1\n", 504),
    (b"HAProxyS2.1\nhap\ntester 1 1\n", 501),
    (b"HAProxyS\nhap\ntester 1 1\n", 501),
    (b"\nhap\ntester 1 1\n", 501),
    (b"HAProxyS \nhap\ntester 1 1\n", 502),
    (b"HAProxyS .\nhap\ntester 1 1\n", 502),
    (b"HAProxyS 2.\nhap\ntester 1 1\n", 502),
    (b"HAProxyS .1\nhap\ntester 1 1\n", 502),
    (b"HAProxyS 2.+1\nhap\ntester 1 1\n", 502),
    (b"HAProxyS 2.1 \nhap\ntester 1 1\n", 502),
    (b"HAProxyS 2.1\r\r\nhap\ntester 1 1\n", 502),
    (b"HAProxyS 2.4294967297\nhap\ntester 1 1\n", 502),
    (b"HAProxyS 18446744073709551618.1\nhap\ntester 1 1\n", 502),
    (b"HAProxyS 2.1\nha\ntester 1 1\n", 503),
    (b"HAProxyS 2.1\nhap \ntester 1 1\n", 503),
    (b"HAProxyS 2.1\nHAP\ntester 1 1\n", 503),
    (b"HAProxyS 2.1\n\ntester 1 1\n", 503),
];

#[test]
fn every_case() {
    for (bytes, want) in CASES {
        assert_eq!(answer(bytes), *want, "{}", bytes.escape_ascii());
    }
}

/// An error is answered as soon as its line is complete, and nothing is answered before.
#[test]
fn split_at_every_byte() {
    for (bytes, want) in CASES {
        let mut first = None;
        for n in 0..=bytes.len() {
            let got = match parse_hello(&bytes[..n], b"hap", LINE_MAX) {
                Ok(None) => continue,
                Ok(Some(_)) => (n, answer(&bytes[..n])),
                Err(e) => (n, e.status().unwrap() as u16),
            };
            let (at, status) = *first.get_or_insert(got);
            assert_eq!(got.1, status);
            assert_eq!(bytes[at - 1], b'\n', "{}", bytes.escape_ascii());
        }
        assert_eq!(first.map(|(_, status)| status), Some(*want));
    }
    let early = |n: usize| parse_hello(&b"HAProxyX 2.1\nhap\nx y\n"[..n], b"hap", LINE_MAX);
    assert_eq!(early(12), Ok(None));
    assert_eq!(early(13), Err(HelloError::Magic));
}

#[test]
fn what_a_hello_holds() {
    let bytes = b"HAProxyS 2.0\r\nhap\r\ntester 17 1 stickring/1 x\r\n\x00\x04";
    let (hello, n) = parse_hello(bytes, b"hap", LINE_MAX).unwrap().unwrap();
    assert_eq!(n, bytes.len() - 2, "messages may be pipelined right behind it");
    let want = Hello { minor: 0, from: b"tester".to_vec(), rest: b"17 1 stickring/1 x".to_vec() };
    assert_eq!(hello, want);
    let (hello, _) = parse_hello(b"HAProxyS 2.1\nhap\n \n", b"hap", LINE_MAX).unwrap().unwrap();
    assert_eq!((hello.minor, hello.from, hello.rest), (1, vec![], vec![]));
}

#[test]
fn our_hello() {
    let bytes = encode_hello(1, "tester", "hap", 10465);
    assert_eq!(bytes, b"HAProxyS 2.1\ntester\nhap 10465 1\n");
    let (hello, n) = parse_hello(&bytes, b"tester", LINE_MAX).unwrap().unwrap();
    assert_eq!(n, bytes.len());
    assert_eq!(hello, Hello { minor: 1, from: b"hap".to_vec(), rest: b"10465 1".to_vec() });
}

#[test]
fn lines_have_a_limit() {
    let too_long = Err(HelloError::LineTooLong(32));
    for n in 0..64 {
        let got = parse_hello(&vec![b'x'; n], b"hap", 32);
        assert_eq!(got, if n < 32 { Ok(None) } else { too_long.clone() }, "{n} bytes, no LF");
    }
    // 31 bytes and LF is the longest line; each line has the limit for itself.
    let line = |n: usize| [b"HAProxyS 2.1\nhap\ntester ", &vec![b'p'; n - 7][..], b"\n"].concat();
    assert!(parse_hello(&line(31), b"hap", 32).unwrap().is_some());
    assert_eq!(parse_hello(&line(32), b"hap", 32), too_long);
    assert_eq!(HelloError::LineTooLong(32).status(), None);
    assert_eq!(
        parse_hello(&[b'x'; 20_000], b"hap", LINE_MAX),
        Err(HelloError::LineTooLong(LINE_MAX))
    );
}

#[test]
fn refused_text_is_made_printable() {
    let long = [&b"\x1b[31m\n\xff'"[..], &[b'a'; 500]].concat();
    let shown = Printable::new(&long).to_string();
    assert!(shown.starts_with("\\x1b[31m\\n\\xff\\'aaa"));
    assert!(shown.len() <= 64 * 4 && shown.is_ascii());
    let error = parse_hello(b"HAProxyS 2.\x07\n", b"hap", LINE_MAX).unwrap_err();
    assert_eq!(error.to_string(), "protocol version '2.\\x07' is not 2.0 or 2.1");
}

#[test]
fn status_lines() {
    let cases: &[(&[u8], u32)] = &[
        (b"200\n", 200),
        (b"200 OK\r\n", 200),
        (b"200\r\n", 200),
        (b"300\n", 300),
        (b"501\n", 501),
        (b"504 unknown\n", 504),
        (b" 200\n", 200),
        (b"0200\n", 200),
        (b"\n", 0),
        (b"OK\n", 0),
        (b"-1\n", 0),
        (b"2 00\n", 2),
        (b"99999999999999999999\n", u32::MAX),
    ];
    for (bytes, code) in cases {
        assert_eq!(parse_status(bytes), Ok(Some((*code, bytes.len()))));
        for n in 0..bytes.len() {
            assert_eq!(parse_status(&bytes[..n]), Ok(None));
        }
        let behind = [bytes, &b"\x00\x00"[..]].concat();
        assert_eq!(parse_status(&behind), Ok(Some((*code, bytes.len()))));
    }
    assert_eq!(parse_status(&[b'2'; STATUS_LINE_MAX - 1]), Ok(None));
    assert_eq!(parse_status(&[b'2'; STATUS_LINE_MAX]), Err(StatusTooLong));
}

#[test]
fn status_codes_and_names() {
    let codes = [
        (Status::Ok, "200\n", "ESTA"),
        (Status::TryAgain, "300\n", "RETR"),
        (Status::Protocol, "501\n", "PROT"),
        (Status::Version, "502\n", "VERS"),
        (Status::Host, "503\n", "NAME"),
        (Status::UnknownPeer, "504\n", "UNKN"),
    ];
    for (status, line, name) in codes {
        assert_eq!(status.line(), line);
        assert_eq!(Status::name_of(status as u32), name);
        assert_eq!(parse_status(line.as_bytes()), Ok(Some((status as u32, 4))));
    }
    assert_eq!((Status::name_of(100), Status::name_of(110)), ("CONN", "HSHK"));
}
