//! Golden tests: what real HAProxy 2.6 and 3.5 wrote and took, recorded in `tests/captures/*.log`.
//!
//! Every frame in the logs is cut, decoded behind the definitions its connection sent before,
//! compared with the line that describes it, and encoded again to the same bytes. What HAProxy
//! answered with `01 00` must be an error here too, and nothing else may be. Counts are asserted,
//! so that a change of the logs or of the reader cannot make this check nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use stickring::wire::dictionary::{RxDictionary, TxDictionary};
use stickring::wire::hello::{self, HelloError};
use stickring::wire::message::{encode_ack, encode_define, encode_switch};
use stickring::wire::update::{decode_values, encode_head, encode_value};
use stickring::wire::{
    Cut, DecodeError, Definition, DictValue, Frame, KeyShape, KeyType, Message, Tail, Update,
    UpdateForm, Value, frame, varint,
};

const BUFSIZE: usize = 16_384;

fn captures() -> Vec<(String, String)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut logs: Vec<_> = fs::read_dir(dir)
        .expect("tests/captures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("a text"))
        })
        .collect();
    logs.sort();
    logs
}

/// `b'...'` as the recorder (Python) prints bytes.
fn bytes_literal(b: &[u8]) -> String {
    format!("b'{}'", b.escape_ascii())
}

/// The bytes of `b'...'` at the start of `text`.
fn parse_bytes_literal(text: &str) -> Vec<u8> {
    let body = text.strip_prefix("b'").expect("a literal");
    let mut out = Vec::new();
    let mut chars = body.chars();
    loop {
        match chars.next().expect("a closing quote") {
            '\'' => return out,
            '\\' => match chars.next().expect("an escape") {
                'n' => out.push(b'\n'),
                'r' => out.push(b'\r'),
                'x' => {
                    let hex: String = chars.by_ref().take(2).collect();
                    out.push(u8::from_str_radix(&hex, 16).expect("hex"));
                }
                c => out.push(c as u8),
            },
            c => out.push(c as u8),
        }
    }
}

/// One direction of one connection.
#[derive(Default)]
struct Stream {
    tables: HashMap<i32, Definition>,
    current: Option<i32>,
    last_uid: HashMap<i32, u32>,
    rx: RxDictionary,
    tx: TxDictionary,
}

/// What a decoded message is called, how the recorder describes it, and its bytes encoded again.
struct Decoded {
    kind: &'static str,
    described: String,
    encoded: Vec<u8>,
}

fn describe_definition(d: &Definition) -> String {
    let key_type = match KeyType::from_wire(d.key_type) {
        Some(KeyType::Ipv4) => "ipv4",
        Some(t) => t.name(),
        None => "?",
    };
    let (mut expire_ms, mut list) = (0, Vec::new());
    if let Tail::Present { expire_ms: e, parameters } = &d.tail {
        expire_ms = *e;
        for p in parameters {
            let (t, bit) = (p.data_type, p.data_type.bit());
            let elements = if t.is_array() { p.elements.to_string() } else { "None".into() };
            let period = if t.is_rate() { p.period_ms.to_string() } else { "None".into() };
            list.push(format!("'{}': ({bit}, {elements}, {period})", t.name()));
        }
    }
    format!(
        "DEFINE id={} name='{}' ktype={}({key_type}) klen={} bits={:#x} expire={expire_ms}ms \
         params={{{}}} trailing=",
        d.id,
        String::from_utf8_lossy(&d.name),
        d.key_type,
        d.key_len,
        d.data_types,
        list.join(", "),
    )
}

fn describe_key(d: &Definition, key: &[u8]) -> String {
    match KeyType::from_wire(d.key_type) {
        Some(KeyType::Integer) => u32::from_be_bytes(key.try_into().unwrap()).to_string(),
        Some(KeyType::String) => bytes_literal(key),
        _ => key.iter().map(|b| format!("{b:02x}")).collect(),
    }
}

impl Stream {
    fn define(&mut self, payload: &[u8]) -> Result<Decoded, DecodeError> {
        let d = Definition::decode(payload)?;
        let mut encoded = Vec::new();
        encode_define(&mut encoded, &d);
        let described = describe_definition(&d);
        self.current = Some(d.id);
        self.tables.insert(d.id, d);
        Ok(Decoded { kind: "DEFINE", described, encoded })
    }

    /// `None`: there is no current table, and the update is ignored.
    fn update(&mut self, form: UpdateForm, payload: &[u8]) -> Result<Option<Decoded>, DecodeError> {
        let Some((id, d)) = self.current.and_then(|id| Some((id, self.tables.get(&id)?))) else {
            return Ok(None);
        };
        assert!(d.is_usable());
        let key_type = KeyType::from_wire(d.key_type).expect("a key type");
        let shape = KeyShape::of(key_type, d.key_len);
        let u = Update::decode(form, payload, shape)?;
        let uid =
            u.uid.unwrap_or_else(|| self.last_uid.get(&id).copied().unwrap_or(0).wrapping_add(1));
        self.last_uid.insert(id, uid);
        let kind = match form.kind() {
            0x80 => "UPDATE",
            0x81 => "INCUPDATE",
            0x85 => "UPDATE_TIMED",
            _ => "INCUPDATE_TIMED",
        };
        let mut described = format!("{kind} uid={uid:#x}");
        if let Some(ms) = u.expire_ms {
            described += &format!(" exp={ms}ms");
        }
        described += &format!(" key={}", describe_key(d, u.key));
        let steps = d.steps();
        let mut values = Vec::new();
        decode_values(u.values, &steps, |step, _, value| {
            encode_value(&mut values, value);
            described += &format!(" {}=", steps[step].data_type.name());
            described += &match value {
                Value::Int(v) => v.to_string(),
                Value::Rate { age_ms, curr, prev } => format!("(age{age_ms},cur{curr},prev{prev})"),
                Value::Dict(v) => {
                    let text = self.rx.resolve(v);
                    check_own_cache(&mut self.tx, v, text.clone());
                    describe_dict(v, text.as_deref())
                }
            };
        })?;
        let mut encoded = Vec::new();
        frame::build(&mut encoded, frame::class::TABLE, form.kind(), |out| {
            encode_head(out, u.uid, u.expire_ms, shape, u.key);
            out.extend_from_slice(&values);
        });
        Ok(Some(Decoded { kind, described, encoded }))
    }

    fn message(&mut self, f: &Frame<'_>) -> Result<Option<Decoded>, DecodeError> {
        let mut encoded = Vec::new();
        let (kind, described) = match Message::of(f)? {
            Message::Define(payload) => return self.define(payload).map(Some),
            Message::Update(form, payload) => return self.update(form, payload),
            Message::Control(c) => {
                encoded.extend(c.bytes());
                let names = [
                    "RESYNC_REQ",
                    "RESYNC_FINISHED",
                    "RESYNC_PARTIAL",
                    "RESYNC_CONFIRM",
                    "HEARTBEAT",
                ];
                ("CONTROL", format!("CTRL {}", names[c as usize]))
            }
            Message::Error(code) => {
                encoded.extend([1, code]);
                ("ERROR", format!("ERROR type={code}"))
            }
            Message::Switch(id) => {
                encode_switch(&mut encoded, id);
                self.current = Some(id).filter(|id| self.tables.contains_key(id));
                ("SWITCH", String::new())
            }
            Message::Ack { table, uid } => {
                encode_ack(&mut encoded, table, uid);
                ("ACK", format!("ACK table={table} id={uid:#x}"))
            }
            Message::Unknown => {
                encoded.extend([f.class, f.kind]);
                if f.kind >= 0x80 {
                    varint::encode(&mut encoded, f.payload.len() as u64);
                    encoded.extend(f.payload);
                }
                ("UNKNOWN", String::new())
            }
        };
        Ok(Some(Decoded { kind, described, encoded }))
    }
}

fn describe_dict(value: DictValue<'_>, text: Option<&[u8]>) -> String {
    let mut encoded = Vec::new();
    encode_value(&mut encoded, Value::Dict(value));
    let id = match value {
        DictValue::None => return "-".into(),
        DictValue::Id(id) | DictValue::Text { id, .. } => id,
    };
    format!("#{id}:{}(len={})", bytes_literal(text.unwrap_or_default()), encoded[0])
}

/// Sends `text` through a cache of ours as HAProxy sent it, and compares.
fn check_own_cache(tx: &mut TxDictionary, value: DictValue<'_>, text: Option<Arc<[u8]>>) {
    let Some(text) = text else { return };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    tx.encode(&mut ours, &text);
    encode_value(&mut theirs, Value::Dict(value));
    // The recorder itself chose the id 128 once, to see what happens.
    if !matches!(value, DictValue::Id(128) | DictValue::Text { id: 128, .. }) {
        assert_eq!(ours, theirs);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Written by HAProxy.
    Rx,
    /// Written by the recorder.
    Tx,
}

/// `(way, bytes, note)` of a line with bytes in hex.
fn parse_frames(line: &str) -> Option<(Way, Vec<u8>, &str)> {
    let (_, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (way, rest) = match rest.split_at_checked(3)? {
        ("RX ", rest) => (Way::Rx, rest),
        ("TX ", rest) => (Way::Tx, rest),
        _ => return None,
    };
    let (hex, note) = rest.split_once("   ").unwrap_or((rest, ""));
    let bytes: Result<Vec<u8>, _> = hex.split(' ').map(|b| u8::from_str_radix(b, 16)).collect();
    Some((way, bytes.ok()?, note))
}

#[derive(Default)]
struct Totals {
    kinds: BTreeMap<(&'static str, &'static str), usize>,
    described: usize,
    same_bytes: usize,
    other_bytes: Vec<String>,
    without_table: usize,
    refused: usize,
}

struct Reader {
    rx: Stream,
    tx: Stream,
    /// Our error for the last line sent, until HAProxy's answer is seen.
    pending: Option<String>,
    /// The last thing was a line sent; an error message now is the answer to it.
    sent: bool,
}

impl Reader {
    fn new() -> Self {
        Reader { rx: Stream::default(), tx: Stream::default(), pending: None, sent: false }
    }

    /// All frames of a line; `next` is the line behind it, which may describe it.
    fn frames(&mut self, way: Way, bytes: &[u8], note: &str, next: &str, totals: &mut Totals) {
        if way == Way::Tx {
            assert_eq!(self.pending, None, "we refused what HAProxy took");
        }
        let mut at = 0;
        while at < bytes.len() {
            let f = match frame::cut(&bytes[at..], BUFSIZE) {
                Ok(Cut::Frame(f)) => f,
                Ok(Cut::NeedMore(_)) => panic!("incomplete frame"),
                Err(e) => {
                    assert_eq!(way, Way::Tx);
                    self.pending = Some(e.to_string());
                    break;
                }
            };
            let frame_bytes = &bytes[at..at + f.len];
            at += f.len;
            let stream = if way == Way::Rx { &mut self.rx } else { &mut self.tx };
            match stream.message(&f) {
                Ok(Some(decoded)) => count(way, frame_bytes, &decoded, note, next, totals),
                Ok(None) => {
                    assert_eq!(way, Way::Tx, "HAProxy always defines first");
                    totals.without_table += 1;
                }
                Err(e) => {
                    assert_eq!(way, Way::Tx, "{e}");
                    self.pending = Some(e.to_string());
                }
            }
        }
        if way == Way::Rx && bytes == [1, 0] {
            assert!(self.sent && self.pending.take().is_some(), "HAProxy refused what we took");
            totals.refused += 1;
        }
        self.sent = way == Way::Tx;
    }
}

fn count(way: Way, bytes: &[u8], d: &Decoded, note: &str, next: &str, totals: &mut Totals) {
    let name = if way == Way::Rx { "RX" } else { "TX" };
    *totals.kinds.entry((name, d.kind)).or_default() += 1;
    if d.encoded == bytes {
        totals.same_bytes += 1;
    } else {
        assert_eq!(way, Way::Tx, "{} from HAProxy", d.described);
        totals.other_bytes.push(d.described.clone());
    }
    if way == Way::Rx {
        // Two-byte messages are described behind their bytes, the others on the next line.
        let want = if note.is_empty() { next.trim() } else { note };
        assert_eq!(d.described, want);
        totals.described += 1;
    }
}

fn read(log: &str, totals: &mut Totals) {
    let mut reader = Reader::new();
    let lines: Vec<&str> = log.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        if line.contains("] TX hello ") || line.contains("] RX hello ") || line.contains("<<EOF>>")
        {
            assert_eq!(reader.pending, None, "line {}", i + 1);
            reader = Reader::new();
        } else if let Some((way, bytes, note)) = parse_frames(line) {
            reader.frames(way, &bytes, note, lines.get(i + 1).unwrap_or(&""), totals);
        }
    }
    assert_eq!(reader.pending, None);
}

#[test]
fn every_frame() {
    let mut totals = Totals::default();
    let logs = captures();
    assert_eq!(logs.len(), 18);
    for (name, log) in &logs {
        // Shown when an assertion below fails.
        println!("{name}");
        read(log, &mut totals);
    }
    let kinds: Vec<_> = totals.kinds.into_iter().collect();
    let want = [
        (("RX", "ACK"), 62),
        (("RX", "CONTROL"), 47),
        (("RX", "DEFINE"), 353),
        (("RX", "ERROR"), 21),
        (("RX", "INCUPDATE"), 6),
        (("RX", "INCUPDATE_TIMED"), 10),
        (("RX", "UPDATE"), 254),
        (("RX", "UPDATE_TIMED"), 34),
        (("TX", "ACK"), 6),
        (("TX", "CONTROL"), 30),
        (("TX", "DEFINE"), 46),
        (("TX", "ERROR"), 4),
        (("TX", "INCUPDATE"), 28),
        (("TX", "SWITCH"), 4),
        (("TX", "UNKNOWN"), 12),
        (("TX", "UPDATE"), 42),
        (("TX", "UPDATE_TIMED"), 12),
    ];
    assert_eq!(kinds, want);
    assert_eq!(totals.described, 787, "every frame HAProxy wrote was compared with its words");
    assert_eq!(totals.same_bytes, 967, "all but those below came back as the same bytes");
    // A key longer than the table's, and bytes behind an unknown type: not ours to repeat.
    let other = [
        "UPDATE uid=0x600 key=b'0123456789abcdef' gpt0=9 gpc0=9",
        "UPDATE uid=0xa02 key=b'hib' gpt0=43",
    ];
    assert_eq!(totals.other_bytes, [other, other].concat());
    assert_eq!(totals.without_table, 4, "before any definition, and behind a switch to nowhere");
    assert_eq!(totals.refused, 18, "malformed messages that HAProxy answered with 01 00");
}

/// Hellos the recorder sent as a client, with HAProxy's answers.
#[test]
fn hellos_to_haproxy() {
    let mut answers: BTreeMap<u16, usize> = BTreeMap::new();
    for (name, log) in captures() {
        let mut hello_line: Option<Vec<u8>> = None;
        for line in log.lines() {
            if let Some((_, text)) = line.split_once("] TX hello ") {
                hello_line = Some(parse_bytes_literal(text));
            } else if let Some((_, text)) = line.split_once("] RX status ") {
                let sent = hello_line.take().expect("a hello before its status");
                let status: u16 = String::from_utf8(parse_bytes_literal(text))
                    .ok()
                    .and_then(|s| s.parse().ok())
                    .expect("a status");
                let got = match hello::parse_hello(&sent, b"hap", BUFSIZE) {
                    Ok(Some((h, n))) => {
                        assert_eq!(n, sent.len());
                        match &h.from[..] {
                            b"hap" if status == 300 => 300,
                            b"hap" | b"tester" | b"other" => 200,
                            _ => 504,
                        }
                    }
                    Ok(None) => panic!("incomplete"),
                    Err(e) => e.status().expect("a status") as u16,
                };
                assert_eq!(got, status, "{name}: {}", sent.escape_ascii());
                *answers.entry(status).or_default() += 1;
            }
        }
    }
    let want = [(200, 76), (300, 2), (501, 6), (502, 12), (503, 2), (504, 2)];
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), want);
}

/// Hellos HAProxy sent as a client are what we would send, and ours to take.
#[test]
fn hellos_from_haproxy() {
    let mut seen = 0;
    for (_, log) in captures() {
        for text in log.lines().filter_map(|l| Some(l.split_once("] RX hello ")?.1)) {
            let shown = String::from_utf8(parse_bytes_literal(text)).unwrap();
            let bytes = format!("{}\n", shown.replace('|', "\n")).into_bytes();
            let to = shown.split('|').nth(1).unwrap();
            let (h, n) = hello::parse_hello(&bytes, to.as_bytes(), BUFSIZE).unwrap().unwrap();
            assert_eq!((n, h.minor, &h.from[..]), (bytes.len(), 1, &b"hap"[..]));
            let pid = h.rest.strip_suffix(b" 1").expect("relative pid 1");
            let pid = std::str::from_utf8(pid).unwrap().parse().unwrap();
            assert_eq!(hello::encode_hello(1, to, "hap", pid), bytes);
            let wrong = hello::parse_hello(&bytes, b"somebody", BUFSIZE);
            assert!(matches!(wrong, Err(HelloError::Host(_))));
            seen += 1;
        }
    }
    assert_eq!(seen, 6);
}

/// 140 server names in a row: `dictionary_shards_misc` shows seven of the updates.
#[test]
fn the_dictionary_wraps_as_haproxy_s() {
    let mut checked = 0;
    for (name, log) in captures() {
        if !name.starts_with("dictionary_shards_misc") {
            continue;
        }
        let mut ours = TxDictionary::new();
        let mut next = 0;
        for line in log.lines() {
            let Some((number, hex)) =
                line.trim().strip_prefix('#').and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            let number: u32 = number.parse().unwrap();
            let theirs: Vec<u8> =
                hex.split(' ').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
            let mut bytes = Vec::new();
            while next <= number {
                bytes.clear();
                let form = UpdateForm { explicit_id: true, timed: false };
                frame::build(&mut bytes, frame::class::TABLE, form.kind(), |out| {
                    let key = format!("z{next}");
                    let shape = KeyShape::String { max: 20 };
                    encode_head(out, Some(next + 1), None, shape, key.as_bytes());
                    encode_value(out, Value::Int(u64::from(next + 1)));
                    ours.encode(out, &Arc::from(format!("n{next}").as_bytes()));
                });
                next += 1;
            }
            assert_eq!(bytes, theirs, "#{number}");
            checked += 1;
        }
    }
    assert_eq!(checked, 14);
}

/// Acks quoted in the results of `definition_tail_variants`.
#[test]
fn acks_of_odd_definitions() {
    let mut acks = Vec::new();
    for (name, log) in captures() {
        if !name.starts_with("definition_tail_variants") {
            continue;
        }
        for line in log.lines() {
            let Some((_, hex)) = line.split_once("-> ['") else { continue };
            let hex = hex.trim_end_matches("']");
            let bytes: Vec<u8> =
                hex.split(' ').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
            let Ok(Cut::Frame(f)) = frame::cut(&bytes, BUFSIZE) else { panic!("{line}") };
            let Ok(Message::Ack { table, uid }) = Message::of(&f) else { panic!("{line}") };
            let mut again = Vec::new();
            encode_ack(&mut again, table, uid);
            assert_eq!(again, bytes);
            acks.push((table, uid));
        }
    }
    let common = [(9, 3), (7, 5), (7, 6), (0, 7), (0x8000_0005u32 as i32, 8)];
    let key_type_9 = (0x8000_0005u32 as i32, 9);
    assert_eq!(acks[..5], common);
    assert_eq!(acks[5..10], common);
    assert_eq!(acks[10..], [key_type_9]);
}
