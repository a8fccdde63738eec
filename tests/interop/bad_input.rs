//! Any bytes on the sockets cost at most their own connection: ten thousand connections of mutated
//! frames, hellos and commands, while a good session lives on and the stats socket answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Process, announce, each_node, eventually, pause};
use crate::raw_handshake::node_with_raw_peers;
use crate::rawpeer::{
    CONFIRM, FINISHED, HEARTBEAT, PARTIAL, RESYNC_REQ, RawPeer, Received, define, integers,
    message, string_key, timed, update, varint,
};

const CONNECTIONS: u32 = 10_000;
const WORKERS: u32 = 4;

/// A small generator, so that every run sends the same bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Valid messages, the stuff that mutants are made of.
fn seeds() -> Vec<Vec<u8>> {
    let word = [varint(9), vec![1, 7], b"srv-two".to_vec()].concat();
    vec![
        define(1, "t_str", (6, 33), 6, &[1_800_000]),
        update(1, &string_key("hello"), &integers(&[4, 300])),
        message(10, 0x81, &[string_key("next"), integers(&[1, 2])].concat()),
        timed(3, 20_000, &string_key("timed"), &integers(&[1, 2])),
        message(10, 0x86, &[&[0, 0, 9, 9][..], &string_key("inc"), &[1, 2]].concat()),
        message(10, 0x83, &varint(1)),
        message(10, 0x84, &[1, 0, 0, 0, 7]),
        define(2, "t_arr", (6, 9), 7 << 22, &[3_600_000, 22, 3, 23, 2, 24, 2, 600_000]),
        update(9, &string_key("arr"), &integers(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])),
        define(3, "t_decay", (6, 9), 40, &[3_600_000, 3, 6000, 5, 20_000]),
        update(9, &string_key("rates"), &integers(&[4_294_949_881, 2, 3, 4, 5, 6])),
        define(4, "t_bin", (7, 8), 4, &[0]),
        update(5, b"12345678", &[9]),
        define(5, "t_ip", (4, 4), 0x0037_ffbf, &[600_000]),
        update(5, &[10, 0, 0, 1], &integers(&[7; 40])),
        define(6, "web", (6, 21), 0x80001, &[120_000]),
        update(1, &[&string_key("k1")[..], &[1]].concat(), &word),
        RESYNC_REQ.to_vec(),
        FINISHED.to_vec(),
        PARTIAL.to_vec(),
        CONFIRM.to_vec(),
        HEARTBEAT.to_vec(),
        vec![1, 0],
        vec![255, 0],
        message(10, 0x80, &[0; 12]),
    ]
}

/// A few mutations of some bytes: flips, cuts, repeats, noise, and numbers at their edges.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            4 => {
                let edge = [0, 239, 240, 2287, 2288, 16_383, 16_384, u64::MAX, 1 << 31, 1 << 63];
                let number = varint(edge[random.below(edge.len())]);
                bytes.splice(at..at, number);
            }
            5 => {
                let end = (at + random.below(24)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ if !bytes.is_empty() => {
                bytes[at] = [0, 0x7f, 0x80, 0xef, 0xf0, 0xff][random.below(6)]
            }
            _ => {}
        }
    }
}

/// What one bad connection says.
fn bad_stream(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut hello = b"HAProxyS 2.1\nnode\nraw 77 1\n".to_vec();
    match random.below(8) {
        0 => mutate(&mut hello, random),
        1 => hello.clear(),
        _ => {}
    }
    let mut stream = hello;
    for _ in 0..1 + random.below(12) {
        let mut part = seeds[random.below(seeds.len())].clone();
        if random.below(3) > 0 {
            mutate(&mut part, random);
        }
        stream.extend(part);
    }
    if random.below(50) == 0 {
        let noise = 1 + random.below(40_000);
        stream.extend((0..noise).map(|_| random.next() as u8));
    }
    stream
}

fn connect_and_say(address: &str, bytes: &[u8], random: &mut Random) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
    let _ = stream.set_nodelay(true);
    let cut = random.below(bytes.len());
    let _ = stream.write_all(&bytes[..cut]).and_then(|()| stream.write_all(&bytes[cut..]));
    // Some wait for an answer, some half-close, the others just go.
    match random.below(4) {
        0 => {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
            let _ = stream.read(&mut [0; 4096]);
        }
        1 => {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
            let _ = stream.read(&mut [0; 4096]);
        }
        _ => {}
    }
}

/// The good peer: lives until told to stop; its session must never end.
fn live_well(peer: &mut RawPeer, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for received in peer.quiet(200) {
            if received == Received::Short(RESYNC_REQ) {
                peer.send(&FINISHED);
            }
        }
        assert!(!peer.ended(), "the good session was closed");
    }
}

/// What the descriptors of a process are, sorted; without those of its tables' memory.
fn open_files(process: &Process) -> Vec<String> {
    let folder = std::fs::read_dir(format!("/proc/{}/fd", process.pid()));
    let entries = folder.into_iter().flatten().flatten();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let mut names: Vec<String> = targets.map(|target| target.display().to_string()).collect();
    names.retain(|name| !name.contains("memfd:"));
    names.sort();
    names
}

fn resident_kib(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn ten_thousand_bad_connections_cost_only_themselves() {
    each_node("bad input on the peers port", |lab| {
        if lab.node.number() < (3, 2) {
            // Older HAProxys crash by it (protocol.md 10).
            return;
        }
        let (mut node, address) = node_with_raw_peers(lab);
        let mut good = RawPeer::join(&address, "raw2", "node");
        good.settle();
        let (files, memory) = (open_files(&node), resident_kib(&node));
        let (stop, done) = (AtomicBool::new(false), AtomicU32::new(0));
        let begin = Instant::now();
        std::thread::scope(|scope| {
            let life = scope.spawn(|| live_well(&mut good, &stop));
            let workers: Vec<_> = (0..WORKERS)
                .map(|worker| {
                    let (address, done) = (&address, &done);
                    scope.spawn(move || {
                        let mut random = Random(0x9e37_79b9_7f4a_7c15 + u64::from(worker));
                        let seeds = seeds();
                        while done.fetch_add(1, Ordering::Relaxed) < CONNECTIONS
                            && begin.elapsed() < Duration::from_secs(150)
                        {
                            let bytes = bad_stream(&mut random, &seeds);
                            connect_and_say(address, &bytes, &mut random);
                        }
                    })
                })
                .collect();
            while workers.iter().any(|worker| !worker.is_finished()) {
                let asked = Instant::now();
                let reply = node.cli().ask("show table t_str");
                assert!(reply.starts_with("# table: t_str"), "{reply}");
                assert!(asked.elapsed() < Duration::from_secs(3), "a slow stats socket");
                pause(100);
            }
            stop.store(true, Ordering::Relaxed);
            life.join().expect("the good session lives on");
        });
        let count = done.load(Ordering::Relaxed).min(CONNECTIONS);
        let seconds = begin.elapsed().as_secs_f32();
        announce(&format!("{count} bad connections in {seconds:.0} s"));
        assert_eq!(count, CONNECTIONS, "connections in 150 s");
        assert!(node.alive(), "the node ended");
        good.send(&define(9, "t_str", (6, 33), 6, &[1_800_000]));
        good.send(&update(0x77, &string_key("still"), &integers(&[1, 2])));
        let acks = good.quiet(700);
        assert!(acks.contains(&Received::Ack { table: 9, id: 0x77 }), "{acks:?}");
        assert!(node.cli().row("t_str", "still").is_some());
        drop(good);
        eventually(10, "descriptors given back", || {
            let now = open_files(&node);
            let more = now.len() > files.len() + 8;
            if more { Err(format!("before: {files:?}\nnow: {now:?}")) } else { Ok(()) }
        });
        let now = resident_kib(&node);
        assert!(now < memory + 96 * 1024, "memory: {memory} KiB before, {now} KiB now");
        assert!(!node.log().contains("panicked"), "{}", node.log());
    });
}

#[test]
fn bad_commands_on_the_stats_socket() {
    each_node("bad input on the stats socket", |lab| {
        if !lab.node.is_stickring() {
            // HAProxy keeps some of these connections until its `stats timeout`.
            return;
        }
        let (mut node, _) = node_with_raw_peers(lab);
        let mut random = Random(42);
        let seeds: [&[u8]; 8] = [
            b"show table t_str data.gpc0 gt 1 data.gpt0 le 3\n",
            b"set table t_str key a data.gpc0 1 data.gpt0 2; show table t_str key a\n",
            b"set table t_ip6 key 2001:db8::1 data.gpc0 99999999999999999999\n",
            b"clear table t_int key 42; show table; show peers dict mypeers\n",
            b"show table t_arr data.gpt[1] gt 5\n",
            b"prompt\nshow info\nset timeout cli 5\nquit\n",
            b"show peers <<\npayload\n\n",
            b"show table t_str ptr 0x7fffffffffffffff\n",
        ];
        for _ in 0..1500 {
            let mut line = seeds[random.below(seeds.len())].to_vec();
            mutate(&mut line, &mut random);
            if random.below(100) == 0 {
                line.splice(0..0, vec![b'x'; 40_000]);
            }
            let Ok(mut stream) = node.cli().connect() else { continue };
            let _ = stream.set_read_timeout(Some(Duration::from_millis(10)));
            let _ = stream.set_write_timeout(Some(Duration::from_millis(500)));
            let _ = stream.write_all(&line);
            let _ = stream.read(&mut [0; 1024]);
        }
        let reply = node.cli().ask("show table t_str");
        assert!(reply.starts_with("# table: t_str"), "{reply}");
        assert!(node.alive() && !node.log().contains("panicked"), "{}", node.log());
    });
}

#[test]
fn a_crowd_of_silent_connections_does_not_keep_a_peer_out() {
    each_node("silent connections and a real peer", |lab| {
        if !lab.node.is_stickring() {
            // HAProxy lets a peer in as well, but gives no figure for how soon.
            return;
        }
        let (_node, address) = node_with_raw_peers(lab);
        let crowd: Vec<_> = (0..200).filter_map(|_| TcpStream::connect(&address).ok()).collect();
        assert_eq!(crowd.len(), 200);
        let begin = Instant::now();
        let mut peer = RawPeer::join(&address, "raw", "node");
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        peer.settle();
        drop(crowd);
    });
}
