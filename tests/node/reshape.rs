//! The instant hand-over to a process whose configuration differs: what is the same goes on, what
//! is not there any more ends with the old process, and nobody else notices.

use crate::daemon::{Daemon, ENGINES, Kind, free_address, wait_until};
use crate::instant::{LONG, reload, rows, successor};
use crate::peer::Peer;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

const KIND: Kind = Kind { engine: "auto", shards: 2 };

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The daemon dials us, as one of its remotes.
fn dialled(listener: &TcpListener, daemon: &Daemon) -> Peer {
    let accepted = Peer::accept(listener, LONG);
    let (mut peer, _) = accepted.unwrap_or_else(|| panic!("not dialled: {}", daemon.log()));
    peer.send(b"200\n");
    peer
}

fn server(name: &str, address: SocketAddr) -> String {
    format!("    server {name} {address}\n")
}

#[test]
fn peers_come_go_and_move_and_the_others_notice_nothing() {
    for kind in ENGINES {
        let [(l_kept, kept_at), (l_gone, gone_at), (l_moves, moves_at)] =
            [(); 3].map(|()| listen());
        let [(l_there, there_at), (l_fresh, fresh_at)] = [(); 2].map(|()| listen());
        let remotes = [("gone", gone_at), ("kept", kept_at), ("moves", moves_at)];
        let daemon = Daemon::start_at(kind, "node", free_address(), &remotes);
        let mut kept = dialled(&l_kept, &daemon);
        let mut gone = dialled(&l_gone, &daemon);
        let mut moves = dialled(&l_moves, &daemon);
        let mut stranger = Peer::connect(&daemon, "stranger");
        daemon.set((1..=100).map(|key| (key, 1)));
        for peer in [&mut kept, &mut gone, &mut moves, &mut stranger] {
            assert!(peer.pump(LONG, |p| p.rows == rows(100, 1)), "{}", daemon.log());
            // The last ack is on its way.
            peer.pump(Duration::from_millis(50), |_| false);
        }
        daemon.edit(&server("gone", gone_at), "");
        daemon.edit(&server("moves", moves_at), &server("moves", there_at));
        // In front of the others: numbers mean nothing.
        let both = server("fresh", fresh_at) + &server("kept", kept_at);
        daemon.edit(&server("kept", kept_at), &both);
        reload(&daemon);
        // The peers that are new, or elsewhere now, are dialled.
        let mut fresh = dialled(&l_fresh, &daemon);
        let mut moved = dialled(&l_there, &daemon);
        assert!(!gone.pump(LONG, |_| false) && gone.closed, "{}", daemon.log());
        assert!(!moves.pump(LONG, |_| false) && moves.closed);
        daemon.set([(101, 1)]);
        for peer in [&mut kept, &mut stranger, &mut fresh] {
            assert!(peer.pump(LONG, |p| p.rows == rows(101, 1)), "{}", daemon.log());
        }
        // What it has confirmed at its old place is not sent again.
        assert!(moved.pump(LONG, |p| p.rows.len() == 1 && p.rows[&101] == 1));
        assert!(!kept.closed && !stranger.closed);
        let elsewhere = "moves is DOWN (its address has changed)";
        assert!(wait_until(LONG, || daemon.log().contains(elsewhere)), "{}", daemon.log());
        let log = daemon.log();
        assert!(log.contains("Peer p/gone is DOWN (not in the configuration any more)."), "{log}");
        for name in ["kept", "stranger"] {
            assert!(!log.contains(&format!("Peer p/{name} is DOWN")), "{log}");
        }
        let dump = daemon.cli("show peers p");
        assert!(!dump.contains("id=gone") && dump.contains("id=fresh"), "{dump}");
        assert_eq!((daemon.used(), daemon.info("HandoverSessionsKept")), (101, 2));
        // Nobody dials one that is gone; the next reload has nothing to close.
        reload(&daemon);
        assert!(Peer::accept(&l_gone, Duration::from_millis(300)).is_none());
        daemon.set([(102, 1)]);
        for peer in [&mut kept, &mut stranger, &mut fresh, &mut moved] {
            assert!(peer.pump(LONG, |p| p.rows.get(&102) == Some(&1)), "{}", daemon.log());
        }
        assert_eq!(daemon.info("HandoverSessionsKept"), 4);
    }
}

#[test]
fn one_that_came_to_us_stays_wherever_it_is_dialled_from_now_on() {
    let [first, second] = [(); 2].map(|()| free_address());
    let daemon = Daemon::start_at(KIND, "node", free_address(), &[("peer", first)]);
    let mut peer = Peer::connect(&daemon, "peer");
    let mut stranger = Peer::connect(&daemon, "stranger");
    // It may be declared, too, or not any more.
    daemon.edit(&server("peer", first), &(server("peer", second) + &server("stranger", first)));
    reload(&daemon);
    daemon.set([(1, 1)]);
    for peer in [&mut peer, &mut stranger] {
        assert!(peer.pump(LONG, |p| p.rows == rows(1, 1)), "{}", daemon.log());
    }
    assert_eq!(daemon.info("HandoverSessionsKept"), 2);
    daemon.edit(&server("stranger", first), "");
    reload(&daemon);
    assert!(!stranger.pump(LONG, |_| false) && stranger.closed);
    // As a stranger it may come again.
    stranger.reconnect(&daemon, "stranger");
    daemon.set([(1, 2)]);
    for peer in [&mut peer, &mut stranger] {
        assert!(peer.pump(LONG, |p| p.rows == rows(1, 2)), "{}", daemon.log());
    }
    assert!(!peer.closed);
}

#[test]
fn strangers_are_closed_and_refused_when_they_are_not_accepted_any_more() {
    let (listener, at) = listen();
    let daemon = Daemon::start_at(KIND, "node", free_address(), &[("peer", at)]);
    let mut peer = dialled(&listener, &daemon);
    let mut stranger = Peer::connect(&daemon, "stranger");
    daemon.edit("    accept-peers 127.0.0.0/8 max 64\n", "");
    reload(&daemon);
    assert!(!stranger.pump(LONG, |_| false) && stranger.closed, "{}", daemon.log());
    assert!(Peer::try_connect(daemon.address, "stranger").is_none());
    daemon.set([(1, 1)]);
    assert!(peer.pump(LONG, |p| p.rows == rows(1, 1)) && !peer.closed, "{}", daemon.log());
    let refused = || daemon.log().contains("not in peers section 'p' (504)");
    assert!(wait_until(LONG, refused), "{}", daemon.log());
}

#[test]
fn changes_that_a_peer_has_not_confirmed_reach_it_at_its_new_place() {
    let [(here, here_at), (there, there_at)] = [(); 2].map(|()| listen());
    let daemon = Daemon::start_at(KIND, "node", free_address(), &[("peer", here_at)]);
    let mut peer = dialled(&here, &daemon);
    daemon.set((1..=10).map(|key| (key, 1)));
    assert!(peer.pump(LONG, |p| p.rows == rows(10, 1)));
    peer.pump(Duration::from_millis(50), |_| false);
    peer.acking = false;
    daemon.set([(11, 1)]);
    assert!(peer.pump(LONG, |p| p.rows.contains_key(&11)));
    daemon.edit(&server("peer", here_at), &server("peer", there_at));
    reload(&daemon);
    let mut peer = dialled(&there, &daemon);
    assert!(peer.pump(LONG, |p| p.rows.contains_key(&11)), "{}", daemon.log());
    assert_eq!(peer.rows.len(), 1, "what was confirmed is not sent again");
}

#[test]
fn a_failure_with_another_configuration_leaves_all_sessions_as_they_were() {
    for place in ["new-asked", "new-received", "new-built"] {
        let (listener, at) = listen();
        let daemon = Daemon::start_at(KIND, "node", free_address(), &[("gone", at)]);
        let mut gone = dialled(&listener, &daemon);
        daemon.set([(1, 1)]);
        daemon.edit(&server("gone", at), "");
        let mut new = successor(&daemon, &[&format!("fault:{place}")]);
        let died = wait_until(LONG, || new.try_wait().unwrap().is_some());
        assert!(died, "{place}: {}", daemon.log());
        daemon.set([(1, 2)]);
        assert!(gone.pump(LONG, |p| p.rows == rows(1, 2)), "{place}: {}", daemon.log());
        assert!(!gone.closed && daemon.exit_code(Duration::ZERO).is_none(), "{place}");
        reload(&daemon);
        assert!(!gone.pump(LONG, |_| false) && gone.closed, "{place}");
        assert!(wait_until(LONG, || daemon.used() == 1));
    }
}

#[test]
fn another_part_of_the_keys_is_refused_by_name() {
    let (listener, at) = listen();
    let daemon = Daemon::start_at(KIND, "node", free_address(), &[("peer", at)]);
    let mut first = dialled(&listener, &daemon);
    assert!(first.pump(LONG, |p| p.confirmed == 1), "{}", daemon.log());
    let whole = server("peer", at);
    let part = whole.trim_end().to_string() + " shard 1\n";
    for (from, to, why) in [
        (whole.clone(), "    shards 2\n".to_string() + &whole, "peers sections"),
        (whole, part, "shard of peer 'peer'"),
    ] {
        daemon.edit(&from, &to);
        let new = successor(&daemon, &[]);
        assert_eq!(daemon.exit_code(LONG), Some(0), "{}", daemon.log());
        daemon.replace(new);
        let log = daemon.log();
        assert!(log.contains(&format!("configurations differ ({why}")), "{log}");
        assert!(wait_until(LONG, || daemon.info("HandoverSessionsKept") == 0));
    }
}

#[test]
fn processes_that_ask_and_die_one_behind_the_other_keep_nobody_from_taking_over() {
    for kind in ENGINES {
        let daemon = Daemon::start(kind);
        crate::peer::teach_nothing(&daemon);
        let mut peer = Peer::connect(&daemon, "peer");
        for round in 0..5 {
            let dying: Vec<_> = (0..6).map(|_| successor(&daemon, &["fault:new-asked"])).collect();
            reload(&daemon);
            dying.into_iter().for_each(|mut process| drop(process.wait()));
            daemon.set([(1, round)]);
            assert!(peer.pump(LONG, |p| p.rows == rows(1, round)), "{}", daemon.log());
        }
        assert!(!peer.closed);
    }
}
