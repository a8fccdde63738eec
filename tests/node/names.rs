//! Server names, which travel once and then by their numbers, across instant hand-overs: in both
//! directions, in the middle of a lesson, and with more names than there are numbers.

use crate::daemon::{KINDS, on, wait_until};
use crate::instant::{LONG, reload};
use crate::peer::Peer;
use std::collections::HashMap;
use std::io::Read;
use std::time::{Duration, Instant};
use stickring::wire::dictionary::RxDictionary;
use stickring::wire::message::{Control, Message, encode_define};
use stickring::wire::update::{decode_values, encode_head, encode_value};
use stickring::wire::{
    Cut, DataType, Definition, DictValue, KeyShape, Step, Tail, Update, UpdateForm, Value, frame,
};

const ROWS: usize = 30_000;
const NAMES: usize = 300;
/// What the teacher sends before the first reload and what behind it.
const HALF: usize = ROWS / 2;
const SHAPE: KeyShape = KeyShape::String { max: 180 };

/// Long keys, so that a lesson does not fit into the buffers of a socket.
fn key(n: usize) -> String {
    format!("{n:0170}")
}

fn name(n: usize) -> String {
    format!("server-{}", n * 7 % NAMES)
}

fn define() -> Vec<u8> {
    let mut out = Vec::new();
    encode_define(
        &mut out,
        &Definition {
            id: 79,
            name: b"/names".to_vec(),
            key_type: 6,
            key_len: 181,
            data_types: DataType::SERVER_KEY.mask(),
            tail: Tail::Present { expire_ms: 3_600_000, parameters: Vec::new() },
        },
    );
    out
}

fn update(n: usize, server: DictValue<'_>) -> Vec<u8> {
    let (mut out, form) = (Vec::new(), UpdateForm { explicit_id: true, timed: false });
    frame::build(&mut out, frame::class::TABLE, form.kind(), |out| {
        encode_head(out, Some(n as u32 + 1), None, SHAPE, key(n).as_bytes());
        encode_value(out, Value::Dict(server));
    });
    out
}

/// Rows with their names, each of which is sent once while its number is its own.
fn rows(from: usize, to: usize, sent: &mut [Option<usize>; 128]) -> Vec<u8> {
    let mut out = define();
    for n in from..to {
        let server = n * 7 % NAMES;
        let slot = server % 128;
        let id = slot as u8 + 1;
        let text = name(n);
        let known = sent[slot].replace(server) == Some(server);
        let value = match known {
            true => DictValue::Id(id),
            false => DictValue::Text { id, text: text.as_bytes() },
        };
        out.extend(update(n, value));
    }
    out
}

/// Reads a lesson to its end: the name of each key's server.
fn lesson(pupil: &mut Peer) -> HashMap<String, String> {
    let (mut rx, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let (mut names, mut dictionary) = (HashMap::new(), RxDictionary::default());
    let mut table: Option<(Vec<u8>, Vec<Step>)> = None;
    let end = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < end, "{} rows and no end", names.len());
        if let Ok(n) = pupil.stream.read(&mut buffer) {
            assert_ne!(n, 0, "closed behind {} rows", names.len());
            rx.extend_from_slice(&buffer[..n]);
        }
        let mut at = 0;
        while let Ok(Cut::Frame(frame)) = frame::cut(&rx[at..], 1 << 20) {
            at += frame.len;
            match Message::of(&frame).unwrap() {
                Message::Control(Control::ResyncFinished) => return names,
                Message::Define(payload) => {
                    let definition = Definition::decode(payload).unwrap();
                    table = Some((definition.name.clone(), definition.steps()));
                }
                Message::Update(form, payload) => {
                    let (table, steps) = table.as_ref().expect("a definition comes first");
                    assert_eq!(table, b"/names", "the others are empty");
                    let update = Update::decode(form, payload, SHAPE).unwrap();
                    let mut server = None;
                    decode_values(update.values, steps, |_, _, value| {
                        if let Value::Dict(value) = value {
                            server = dictionary.resolve(value);
                        }
                    })
                    .unwrap();
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    names.insert(text(update.key), server.map_or(String::new(), |s| text(&s)));
                }
                _ => {}
            }
        }
        rx.drain(..at);
    }
}

#[test]
fn names_are_known_behind_reloads_on_both_sides() {
    on(&KINDS, |daemon| {
        let line = "table small type integer size 10k expire 1h store gpc0\n";
        let more = "table names type string len 180 size 100k expire 1h store server_key";
        daemon.edit(line, &format!("{line}    {more}\n"));
        reload(daemon);
        let mut teacher = Peer::connect(daemon, "teacher");
        teacher.stream.set_write_timeout(Some(LONG)).unwrap();
        let mut sent = [None; 128];
        teacher.send(&rows(0, HALF, &mut sent));
        // Names that were sent before are known behind it.
        reload(daemon);
        teacher.send(&rows(HALF, ROWS, &mut sent));
        let line = format!("table: p/names, type: string, size:102400, used:{ROWS}");
        let all = wait_until(LONG, || daemon.cli("show table").contains(&line));
        assert!(all && !teacher.closed, "{:?}: {}", daemon.kind, daemon.cli("show table"));
        let mut pupil = Peer::connect(daemon, "pupil");
        pupil.control(Control::ResyncRequest);
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(50));
            reload(daemon);
            pupil.control(Control::Heartbeat);
        }
        let names = lesson(&mut pupil);
        let wrong = (0..ROWS).find(|n| names.get(&key(*n)) != Some(&name(*n)));
        assert_eq!((wrong, names.len()), (None, ROWS), "{:?}", daemon.kind);
    });
}
