//! The instant hand-over while much is under way: torn messages, lessons nobody reads, writers that
//! never rest, tables that grow, peers that come and go.

use crate::daemon::{Daemon, ENGINES, KINDS, Kind, free_address, on, wait_until};
use crate::instant::{LONG, reload};
use crate::peer::{Peer, TABLE, define, updates};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stickring::wire::message::{Control, encode_define, encode_switch};
use stickring::wire::update::encode_head;
use stickring::wire::{Definition, KeyShape, Tail, UpdateForm, frame, varint};

/// Our second definition of a table, `/small`, and an update of it.
fn second_table(key: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let tail = Tail::Present { expire_ms: 3_600_000, parameters: Vec::new() };
    let (id, name) = (78, b"/small".to_vec());
    encode_define(&mut out, &Definition { id, name, key_type: 2, key_len: 4, data_types: 4, tail });
    out.extend(updates(9, [(key, 3)]));
    out
}

/// An update of the current table with the next id, or with a lifetime.
fn update_of_form(form: UpdateForm, uid: Option<u32>, key: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    frame::build(&mut out, frame::class::TABLE, form.kind(), |out| {
        let lifetime = form.timed.then_some(600_000);
        encode_head(out, uid, lifetime, KeyShape::Fixed(4), &key.to_be_bytes());
        varint::encode(out, value);
    });
    out
}

/// One of everything a peer may send, with keys from `key` on, and the rows it makes in `/t`.
fn one_of_everything(key: u32) -> (Vec<u8>, Vec<(u32, u64)>) {
    let form = |explicit_id, timed| UpdateForm { explicit_id, timed };
    let mut bytes = Control::Heartbeat.bytes().to_vec();
    bytes.extend(define());
    bytes.extend(updates(1, [(key, 1), (key + 1, 300)]));
    bytes.extend(update_of_form(form(false, false), None, key + 2, 70_000));
    bytes.extend(second_table(key));
    encode_switch(&mut bytes, TABLE);
    bytes.extend(update_of_form(form(true, true), Some(4), key + 3, u64::from(u32::MAX)));
    bytes.extend(update_of_form(form(false, true), None, key + 4, 5));
    bytes.extend(define());
    bytes.extend(updates(6, [(key + 5, 6)]));
    let rows = [1, 300, 70_000, u64::from(u32::MAX), 5, 6];
    (bytes, (key..).zip(rows).collect())
}

#[test]
fn a_message_may_be_cut_anywhere_by_a_reload_and_by_the_next() {
    on(&KINDS, |daemon| {
        let len = one_of_everything(1).0.len();
        let mut wanted = HashMap::new();
        let mut peers: Vec<(Peer, Vec<u8>, usize)> = Vec::new();
        let starts = (1..len).step_by(len.div_ceil(60));
        for (n, first) in starts.enumerate() {
            let (bytes, rows) = one_of_everything(1_000 * (n as u32 + 1));
            wanted.extend(rows);
            peers.push((Peer::connect(daemon, &format!("peer-{n}")), bytes, first));
        }
        // Each peer's stream is cut at another byte each time; together at all of them.
        let mut sent = vec![0; peers.len()];
        for round in 0..len.div_ceil(60) {
            for ((peer, bytes, first), sent) in peers.iter_mut().zip(&mut sent) {
                let cut = (*first + round).min(bytes.len());
                peer.send(&bytes[*sent..cut]);
                *sent = cut;
            }
            // Half a message waits in the process or in the socket, as it comes.
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
            reload(daemon);
        }
        for ((peer, bytes, _), sent) in peers.iter_mut().zip(sent) {
            peer.send(&bytes[sent..]);
        }
        for (peer, ..) in &mut peers {
            let acked = |p: &Peer| p.acks.last() == Some(&6);
            assert!(peer.pump(LONG, acked), "{:?}: {:?} {}", daemon.kind, peer.acks, daemon.log());
        }
        assert_eq!(daemon.info("HandoverSessionsKept"), peers.len() as u64);
        let mut pupil = Peer::connect(daemon, "peer-0");
        pupil.control(Control::ResyncRequest);
        assert!(pupil.pump(LONG, |p| p.ends == [true]));
        pupil.rows.retain(|key, _| *key >= 1_000);
        assert_eq!(pupil.rows, wanted, "{:?}", daemon.kind);
        assert_eq!(daemon.info("HandoverSessionsKept"), peers.len() as u64);
    });
}

/// Everything in `/t`, by a lesson.
fn taught(daemon: &Daemon) -> HashMap<u32, u64> {
    let mut pupil = Peer::connect(daemon, "pupil");
    pupil.control(Control::ResyncRequest);
    assert!(pupil.pump(LONG, |p| p.ends == [true]), "{:?}: {}", daemon.kind, daemon.log());
    pupil.rows
}

/// Behind a start with `-sf`, updates of remotes wait for the old process's lesson. They wait in
/// every process that comes meanwhile.
#[test]
fn updates_that_wait_for_an_old_lesson_wait_in_the_next_process_too() {
    for shards in [2, 4] {
        // An old process that teaches nobody: it dies of the signal.
        let mut silent = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = silent.id().to_string();
        let kind = Kind { engine: "auto", shards };
        let daemon = Daemon::with(kind, "node", free_address(), &[], &["-sf", &pid]);
        silent.wait().unwrap();
        let names: Vec<String> = (0..8).map(|n| format!("peer-{n}")).collect();
        let mut peers: Vec<Peer> = names.iter().map(|n| Peer::connect(&daemon, n)).collect();
        for (key, peer) in (1..).zip(&mut peers) {
            peer.send(&define());
            peer.send(&updates(1, [(key, 1)]));
            assert!(!peer.pump(Duration::from_millis(20), |p| !p.acks.is_empty()), "{shards}");
        }
        for _ in 0..2 {
            reload(&daemon);
            for peer in &mut peers {
                let early = peer.pump(Duration::from_millis(50), |p| !p.acks.is_empty());
                assert!(!early && !peer.closed, "{shards} shards: {}", daemon.log());
            }
            assert_eq!(daemon.used(), 0, "{shards} shards");
        }
        let all = wait_until(LONG, || {
            peers.iter_mut().for_each(Peer::step);
            // The one that is asked for a lesson then has given it.
            peers.iter().all(|p| p.acks == [1] || p.confirmed == 1)
        });
        assert!(all, "{shards} shards: {}", daemon.log());
        assert_eq!(daemon.used(), peers.len());
    }
}

/// A pupil that does not read: send buffers are full, and the lesson goes through four processes.
#[test]
fn a_lesson_that_nobody_reads_goes_on_where_it_stood() {
    const ROWS: u32 = 250_000;
    on(&KINDS, |daemon| {
        crate::peer::fill(daemon, ROWS);
        let mut pupils: Vec<Peer> =
            (0..3).map(|n| Peer::connect(daemon, &format!("pupil-{n}"))).collect();
        for pupil in &mut pupils {
            pupil.control(Control::ResyncRequest);
        }
        for round in 1..=3u32 {
            std::thread::sleep(Duration::from_millis(50));
            reload(daemon);
            // Behind the lesson they get what is changed meanwhile.
            daemon.set([(round, u64::from(round) + 1_000)]);
            for pupil in &mut pupils {
                pupil.control(Control::Heartbeat);
            }
        }
        assert!(!daemon.log().contains("taught"), "it is over too early: {}", daemon.log());
        std::thread::scope(|scope| {
            for pupil in &mut pupils {
                scope.spawn(|| {
                    let end = |p: &Peer| p.ends == [true] && (1..=3).all(|n| p.rows[&n] > 1_000);
                    assert!(pupil.pump(LONG, end), "{:?}: {}", daemon.kind, daemon.log());
                    let value = |n: u32| u64::from(n) + if n <= 3 { 1_000 } else { 0 };
                    let wrong = (1..=ROWS).find(|n| pupil.rows.get(n) != Some(&value(*n)));
                    let found = (wrong, pupil.rows.len());
                    assert_eq!(found, (None, ROWS as usize), "{:?}", daemon.kind);
                });
            }
        });
    });
}

/// One line of commands; whether it was accepted. A process that leaves answers nothing.
fn accepted(daemon: &Daemon, line: &str, commands: usize) -> bool {
    let Ok(mut stream) = UnixStream::connect(daemon.socket()) else { return false };
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut reply = String::new();
    let sent = stream.write_all(format!("{line}\n").as_bytes());
    if sent.is_err() || stream.read_to_string(&mut reply).is_err() || reply.is_empty() {
        return false;
    }
    assert_eq!(reply.trim(), "", "{line}");
    reply.len() >= commands
}

#[test]
fn every_accepted_command_is_there_behind_the_reload() {
    const KEYS: u32 = 40;
    on(&KINDS, |daemon| {
        let stop = AtomicBool::new(false);
        let mut wanted = HashMap::new();
        std::thread::scope(|scope| {
            let write = |writer: u32, stop: &AtomicBool| {
                let (mut value, mut refused) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    value += 1;
                    let one = |n| {
                        let key = writer * 1_000 + n;
                        format!("set table p/t key {key} data.gpc0 {value}")
                    };
                    let line: Vec<String> = (0..KEYS).map(one).collect();
                    // What was not answered may have been carried out or not: again.
                    while !accepted(daemon, &line.join(";"), KEYS as usize) {
                        refused += 1;
                        assert!(refused < 1_000, "{:?}", daemon.kind);
                    }
                }
                (writer, value)
            };
            let stop = &stop;
            let writers: Vec<_> =
                (1..=3).map(|writer| scope.spawn(move || write(writer, stop))).collect();
            for _ in 0..15 {
                reload(daemon);
            }
            stop.store(true, Ordering::Relaxed);
            for writer in writers {
                let (writer, value) = writer.join().unwrap();
                assert!(value > 15, "writer {writer} is hardly ever heard");
                wanted.extend((0..KEYS).map(|n| (writer * 1_000 + n, value)));
            }
        });
        assert_eq!(taught(daemon), wanted, "{:?}", daemon.kind);
    });
}

/// Memory grows, and indexes are made anew, while the rows go from process to process.
#[test]
fn a_table_that_grows_all_the_time_loses_no_row() {
    const ROWS: u32 = 400_000;
    on(&ENGINES, |daemon| {
        std::thread::scope(|scope| {
            let filling = scope.spawn(|| crate::peer::fill(daemon, ROWS));
            let mut reloads = 0;
            while !filling.is_finished() {
                reload(daemon);
                reloads += 1;
            }
            filling.join().unwrap();
            assert!(reloads >= 3, "{:?}: {reloads} reloads", daemon.kind);
        });
        let rows = taught(daemon);
        let wrong = (1..=ROWS).find(|n| rows.get(n) != Some(&u64::from(*n)));
        assert_eq!((wrong, rows.len()), (None, ROWS as usize), "{:?}", daemon.kind);
    });
}

/// Sessions that are being replaced when everything stops leave nothing behind that looks like one.
#[test]
fn peers_that_connect_again_and_again_are_forgotten_when_they_are_gone() {
    on(&KINDS, |daemon| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (stop, address) = (&stop, daemon.address);
                scope.spawn(move || {
                    let mut last = None;
                    while !stop.load(Ordering::Relaxed) {
                        last = Peer::try_connect(address, &format!("peer-{n}")).or(last);
                    }
                });
            }
            for _ in 0..15 {
                reload(daemon);
            }
            stop.store(true, Ordering::Relaxed);
        });
        let active = || daemon.cli("show peers").matches(",active)").count();
        let gone = wait_until(LONG, || active() == 0 && daemon.info("ConnectedPeers") == 0);
        assert!(gone, "{:?}: {}", daemon.kind, daemon.cli("show peers"));
        drop(Peer::connect(daemon, "peer-0"));
    });
}
