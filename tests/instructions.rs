//! Instructions that decoding and applying an update takes, counted by callgrind: a figure without
//! noise, which a change can be held against.
//!
//! Runs itself under valgrind, where only [`decode_and_apply`] is counted, and compares with
//! `tests/instructions.txt`. More than the tolerance above it fails; a new lower figure is told.
//! Without valgrind it says so and passes. `STICKRING_INSTRUCTIONS=write` keeps the new figures
//! (of the profile it was built with), for a change that is meant.

use std::env;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use stickring::Millis;
use stickring::limits::BUFSIZE_DEFAULT;
use stickring::table::{
    ColumnSpec, KeyHasher, Place, RemoteLayout, RemoteUpdate, TablePart, TableSpec, definition_of,
};
use stickring::wire::update::{encode_head, encode_rate};
use stickring::wire::{
    Cut, DataType, KeyShape, KeyType, Message, Update, UpdateForm, frame, varint,
};

/// Set for the process under valgrind; for the test itself, `write` keeps new figures.
const VARIABLE: &str = "STICKRING_INSTRUCTIONS";
/// More than this above the reference is a regression.
const TOLERANCE: f64 = 0.03;
/// The same when another compiler made the reference: it only catches what is grossly worse.
const TOLERANCE_ELSEWHERE: f64 = 0.25;
const KEYS: u32 = 20_000;
/// As many as one receive buffer holds.
const BATCH: usize = 4_096;
const NOW: Millis = Millis(1_000_000);
const FORM: UpdateForm = UpdateForm { explicit_id: true, timed: false };
const SHAPE: KeyShape = KeyShape::Fixed(4);

/// The profile this was built with: figures of one mean nothing for the other.
const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

fn spec() -> TableSpec {
    let column = |name: &str, period_ms| ColumnSpec {
        data_type: DataType::from_name(name).expect("a type"),
        elements: 1,
        period_ms,
    };
    TableSpec {
        name: "t1".to_owned(),
        wire_name: "t1".to_owned(),
        key_type: KeyType::Ipv4,
        key_len: 4,
        size: 1_000_000,
        expire_ms: 3_600_000,
        nopurge: false,
        columns: vec![column("gpc0", 0), column("http_req_rate", 10_000)],
        recv_only: false,
        write_to: None,
        brates_factor: 1,
        srvkey_addr: false,
    }
}

/// A stream of one update for each key.
fn stream() -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..KEYS {
        frame::build(&mut out, frame::class::TABLE, FORM.kind(), |out| {
            let key = n.wrapping_mul(0x9e37_79b9).to_be_bytes();
            encode_head(out, Some(n + 1), None, SHAPE, &key);
            varint::encode(out, u64::from(n % 400));
            encode_rate(out, 500 + n % 1000, n % 100, n % 50);
        });
    }
    out
}

/// What is counted: cut, name, split, hash, apply. Once into an empty table, once over it.
#[inline(never)]
fn decode_and_apply(
    part: &mut TablePart,
    layout: &RemoteLayout,
    hasher: &KeyHasher,
    bytes: &[u8],
    batch: &mut Vec<(u64, usize)>,
) -> u64 {
    let (mut at, mut applied) = (0, 0);
    while at < bytes.len() {
        batch.clear();
        while batch.len() < BATCH {
            let Ok(Cut::Frame(f)) = frame::cut(&bytes[at..], BUFSIZE_DEFAULT) else { break };
            let start = at + f.len - f.payload.len();
            at += f.len;
            let Ok(Message::Update(form, payload)) = Message::of(&f) else { continue };
            let Ok(update) = Update::decode(form, payload, SHAPE) else { continue };
            batch.push((hasher.hash(update.key), start));
        }
        let hash = |i: usize| batch[i].0;
        let done = part.apply(NOW, layout, batch.len(), hash, |i| {
            let start = batch[i].1;
            // Behind the id lies the key, behind the key the values, up to the next message.
            let values = &bytes[start + 8..];
            RemoteUpdate { key: &bytes[start + 4..start + 8], values, ..Default::default() }
        });
        applied += done.applied;
    }
    applied
}

/// The process under valgrind.
fn work() {
    let spec = Arc::new(spec());
    let hasher = KeyHasher::new([1, 2, 3, 4]);
    let layout = RemoteLayout::new(&definition_of(&spec, 1), &spec).expect("fits");
    let place = Place::new(0, spec.size, 1);
    let mut part = TablePart::new(spec, hasher.clone(), place, 0).expect("memory");
    let bytes = stream();
    let mut batch = Vec::with_capacity(BATCH);
    for _ in 0..2 {
        let applied = decode_and_apply(&mut part, &layout, &hasher, &bytes, &mut batch);
        assert_eq!(black_box(applied), u64::from(KEYS));
    }
}

/// Instructions an update, or why they cannot be counted.
fn count() -> Result<f64, String> {
    let this = env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=instructions::decode_and_apply")
        .arg(&this)
        .env(VARIABLE, "work")
        .output()
        .map_err(|e| format!("valgrind cannot be run ({e}); install it to have this test"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "under valgrind it fails:\n{text}");
    let line = text.lines().find_map(|l| l.split_once("Collected : ")).map(|(_, n)| n.trim());
    let collected: f64 = line.and_then(|n| n.parse().ok()).expect("callgrind's count");
    assert!(collected > 0.0, "callgrind has not seen the function:\n{text}");
    Ok(collected / f64::from(2 * KEYS))
}

/// The compiler, since its figures are its own.
fn compiler() -> String {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(rustc).arg("--version").output();
    output.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

fn main() -> ExitCode {
    let asked = env::var(VARIABLE).unwrap_or_default();
    if asked == "work" {
        work();
        return ExitCode::SUCCESS;
    }
    let now = match count() {
        Ok(now) => now,
        Err(why) => {
            println!("instructions: SKIPPED: {why}");
            return ExitCode::SUCCESS;
        }
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.txt");
    let text = fs::read_to_string(&file).unwrap_or_default();
    // Lines: profile, instructions an update, compiler.
    let mine = text.lines().find_map(|l| l.strip_prefix(PROFILE)?.trim_start().split_once(' '));
    let compiler = compiler();
    if asked == "write" {
        let others = text.lines().filter(|l| !l.starts_with(PROFILE)).map(|l| format!("{l}\n"));
        let text = others.chain([format!("{PROFILE} {now:.1} {compiler}\n")]).collect::<String>();
        fs::write(&file, text).expect("the reference can be written");
        println!("instructions: {now:.1} an update ({PROFILE}) is the new reference");
        return ExitCode::SUCCESS;
    }
    let Some((reference, made_by)) = mine else {
        println!("instructions: no reference for the profile {PROFILE}: {now:.1} an update");
        return ExitCode::FAILURE;
    };
    let reference: f64 = reference.parse().expect("a number in tests/instructions.txt");
    let tolerance = if made_by == compiler { TOLERANCE } else { TOLERANCE_ELSEWHERE };
    // To a tenth of a percent, and never "-0.0".
    let change = ((now / reference - 1.0) * 1000.0).round() / 10.0 + 0.0;
    println!("instructions: {now:.1} an update ({PROFILE}), reference {reference}: {change:+.1} %");
    if change < -100.0 * TOLERANCE {
        println!(
            "instructions: better; keep it with {VARIABLE}=write cargo test --test instructions"
        );
    }
    if change > 100.0 * tolerance {
        println!("instructions: FAILED: more than {:.0} % above it", tolerance * 100.0);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
