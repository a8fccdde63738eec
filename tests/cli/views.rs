//! `show peers`, `show info`, `show stat`: HAProxy 3.2's text from views with the same contents.

use stickring::observe::time::{WallTime, When};
use stickring::runtime_api::show_info::{self, InfoFormat, InfoShape, NodeInfo};
use stickring::runtime_api::show_peers::{
    self, AppletView, PeerView, PeersFormat, SectionView, SharedTableView, ShowPeers,
};
use stickring::runtime_api::show_stat::{self, ListenerView, ShowStat, StatFormat};

const PEERS: &str = include_str!("golden/peers.3.2.txt");
const PEERS_DICT: &str = include_str!("golden/peers_dict.3.2.txt");
const INFO: &str = include_str!("golden/info_typed_desc.3.2.txt");
const INFO_JSON: &str = include_str!("golden/info_json_desc.3.2.txt");
const STAT: &str = include_str!("golden/stat.3.2.txt");

/// Every `0x…` that is a pointer, as `PTR`; the section's date (HAProxy's is wrong).
fn normal(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        for (n, word) in line.split(' ').enumerate() {
            out.push_str(if n == 0 { "" } else { " " });
            let (label, number) = word.split_once("0x").map_or((word, ""), |(l, n)| (l, n));
            let pointer = number.trim_end_matches(':').len() >= 10;
            match (pointer, word.starts_with("[19/Feb/1970") || word.starts_with("[20/Nov/2026")) {
                (true, _) => out.push_str(&format!("{label}PTR")),
                (_, true) => out.push_str("[DATE]"),
                _ => out.push_str(word),
            }
        }
        out.push('\n');
    }
    out
}

const FAR: u64 = 0x7f74_3600_0000;

fn table(name: &str, local_id: u32, ids: [u32; 3]) -> SharedTableView {
    let [table_update, local_update, commit_update] = ids;
    SharedTableView {
        name: name.into(),
        pointer: FAR + 1,
        table_pointer: FAR + 2,
        local_id,
        table_update,
        local_update,
        commit_update,
        refcnt: 1,
        ..SharedTableView::default()
    }
}

fn p1_tables() -> Vec<SharedTableView> {
    vec![table("b", 3, [4, 4, 4]), table("p1/web", 2, [2, 1, 1]), table("p1/ip", 1, [0, 0, 0])]
}

fn peer(name: &str, local: bool, address: &str, tables: Vec<SharedTableView>) -> PeerView {
    PeerView {
        name: name.into(),
        pointer: FAR + 3,
        local,
        address: address.into(),
        app_state: "STOPPED",
        learn_state: "NOTASSIGNED",
        last_status: "NONE",
        tables,
        ..PeerView::default()
    }
}

fn established(base: PeerView, task_calls: u64, hbt: u64, table: usize) -> PeerView {
    PeerView {
        active: true,
        app_state: "RUNNING",
        last_status: "ESTA",
        last_hdshk: When::Ms(9_500),
        tx_hbt: hbt,
        rx_hbt: hbt,
        coll: 1,
        flags: 0x10_0028,
        applet: Some(AppletView { pointer: FAR + 4, st0: 7, st1: 0, task_calls, state: "EST" }),
        remote_table: Some(table),
        last_local_table: Some(table),
        ..base
    }
}

fn hapb_p1() -> PeerView {
    let mut tables = p1_tables();
    let ids = [(3, 0x80005, [0, 4, 0, 4]), (2, 0x80004, [2, 1, 2, 1]), (1, 4, [0, 0, 0, 0])];
    for (t, (remote_id, remote_data, [acked, pushed, get, update])) in tables.iter_mut().zip(ids) {
        t.remote_id = remote_id;
        t.remote_data = remote_data;
        (t.last_acked, t.last_pushed, t.last_get, t.update) = (acked, pushed, get, update);
    }
    let base = peer("hapb", false, "127.0.0.1:23502", tables);
    let base = PeerView {
        new_conn: 2,
        reconnect: When::Ms(3_000),
        heartbeat: When::Ms(1_999),
        tx_dict: vec![(0, b"s1".to_vec()), (1, b"srv-two".to_vec())],
        ..base
    };
    established(base, 20, 2, 1)
}

fn section(name: &str, task_calls: u64, peers: Vec<PeerView>) -> SectionView {
    SectionView {
        name: name.into(),
        pointer: FAR,
        changed: WallTime { unix_us: 1_795_198_594_000_000, offset_s: 0 },
        flags: 0x2830_0003,
        resync_timeout: When::Past,
        task_calls,
        peers,
        ..SectionView::default()
    }
}

fn sections() -> Vec<SectionView> {
    let mut int = table("p2/int", 1, [0, 0, 0]);
    let alone = peer("hapa", true, "127.0.0.1:23511", vec![int.clone()]);
    (int.remote_id, int.remote_data) = (1, 8);
    let base = peer("hapb", false, "127.0.0.1:23512", vec![int]);
    let base = PeerView {
        new_conn: 1,
        reconnect: When::Ms(4_000),
        heartbeat: When::Ms(2_000),
        accepted: Some(("127.0.0.1:40418".into(), "127.0.0.1:23511".into())),
        ..base
    };
    let gone = PeerView {
        last_status: "CONN",
        last_hdshk: When::Ms(5_000),
        reconnect: When::Past,
        new_conn: 2,
        ..peer("gone", false, "127.0.0.1:23503", p1_tables())
    };
    let local = peer("hapa", true, "127.0.0.1:23501", p1_tables());
    vec![
        section("p2", 12, vec![established(base, 12, 3, 0), alone]),
        section("p1", 19, vec![gone, hapb_p1(), local]),
    ]
}

fn show(format: PeersFormat, section: Option<&str>, sections: &[SectionView]) -> String {
    let section = section.map(|name| name.as_bytes().to_vec());
    let mut out = String::new();
    show_peers::write(&ShowPeers { format, section }, sections, &mut out).expect("known section");
    out
}

/// But for the empty line HAProxy prints between sections, which is no longer in the golden file.
#[test]
fn peers_as_haproxy() {
    let ours = show(PeersFormat::Full { dict: false }, None, &sections());
    assert_eq!(normal(&ours), normal(PEERS));
    assert!(ours.contains(": [20/Nov/2026:18:16:34] id=p2 "), "{ours}");
    let one = show(PeersFormat::Full { dict: false }, Some("p2"), &sections());
    assert!(ours.starts_with(&one) && !one.contains("id=p1"));
}

#[test]
fn dictionaries_as_haproxy() {
    let one = section("p1", 19, vec![hapb_p1()]);
    let ours = show(PeersFormat::Full { dict: true }, Some("p1"), &[one]);
    assert_eq!(normal(&ours), normal(PEERS_DICT));
}

#[test]
fn names_of_peers_cannot_break_lines() {
    let mut evil = hapb_p1();
    evil.rx_dict = vec![Some(b"x\n\ny z".to_vec())];
    let ours = show(PeersFormat::Full { dict: true }, None, &[section("p1", 1, vec![evil])]);
    assert!(ours.contains("  0 -> x\\n\\ny\\ z\n") && !ours.contains("\n\n"), "{ours}");
}

#[test]
fn lag_is_a_line_for_each_table() {
    let mut behind = hapb_p1();
    behind.tables.truncate(1);
    behind.tables[0].lag_updates = 12;
    let local = peer("hapa", true, "127.0.0.1:1", p1_tables());
    let ours = show(PeersFormat::Lag, None, &[section("p1", 1, vec![behind, local])]);
    let expected = "# section peer status table lag_updates\n\
                    p1 hapb ESTA b 12\n# in sync: yes\n";
    assert_eq!(ours, expected);
    let learning = SectionView { flags: 1, ..section("p1", 1, Vec::new()) };
    assert!(show(PeersFormat::Lag, None, &[learning]).ends_with("# in sync: no\n"));
}

#[test]
fn json_is_one_balanced_line() {
    let ours = show(PeersFormat::Json, None, &sections());
    assert_eq!(ours.lines().count(), 1);
    assert!(ours.starts_with("{\"sections\":[{\"name\":\"p2\",\"disabled\":false,"));
    assert!(ours.contains("\"name\":\"hapb\",\"address\":\"127.0.0.1:23502\",\"local\":false,"));
    assert!(ours.contains("\"tables\":[{\"name\":\"b\",\"local_id\":3,\"remote_id\":3,"));
    for (open, close) in [('{', '}'), ('[', ']')] {
        assert_eq!(ours.matches(open).count(), ours.matches(close).count());
    }
    assert!(!ours.contains(",]") && !ours.contains(",}") && !ours.contains("}{"));
}

/// The text of a typed line up to its value, and behind it.
fn frame_of(line: &str) -> (String, String) {
    let parts: Vec<&str> = line.splitn(4, ':').collect();
    let desc = line.rsplit_once(":\"").map_or("", |(_, desc)| desc);
    (parts[..3].join(":"), desc.to_owned())
}

#[test]
fn info_has_haproxys_fields_first() {
    let format = InfoFormat { shape: InfoShape::Typed, desc: true, float: false };
    let mut ours = String::new();
    show_info::write(format, &NodeInfo::default(), &mut ours);
    let theirs: Vec<_> = INFO.lines().map(frame_of).collect();
    let ours: Vec<_> = ours.lines().map(frame_of).collect();
    assert_eq!(ours[..theirs.len()], theirs);
    assert!(ours.len() > theirs.len(), "no field of our own");
    assert!(ours[theirs.len()..].iter().all(|(name, _)| name.starts_with('1')));
}

#[test]
fn info_json_as_haproxy() {
    let names_of = |json: &str| -> Vec<String> {
        let parts = json.split("},\"value\":{\"type\":\"").map(str::to_owned);
        parts
            .map(|part| part.split_once("{\"field\"").map_or(part.clone(), |p| p.1.into()))
            .collect()
    };
    let format = InfoFormat { shape: InfoShape::Json, desc: true, float: false };
    let mut ours = String::new();
    show_info::write(format, &NodeInfo::default(), &mut ours);
    let (ours, theirs) = (names_of(&ours), names_of(INFO_JSON));
    // The last piece of HAProxy's text is its last value.
    assert_eq!(ours[..theirs.len() - 1], theirs[..theirs.len() - 1]);
}

#[test]
fn info_values() {
    let info = NodeInfo {
        name: "stickring".into(),
        uptime_us: 90_061_500_000,
        start_us: 1_795_198_591_981_369,
        memory_max_bytes: 6 << 30,
        memory_used_bytes: 3 << 20,
        connected_peers: 2,
        engine: "io_uring\n".into(),
        ..NodeInfo::default()
    };
    let text = |format| {
        let mut out = String::new();
        show_info::write(format, &info, &mut out);
        out
    };
    let plain = text(InfoFormat::default());
    for line in [
        "Name: stickring",
        "Uptime: 1d 1h01m01s",
        "Uptime_sec: 90061",
        "Memmax_MB: 6144",
        "Memmax_bytes: 6442450944",
        "PoolUsed_MB: 3",
        "ConnectedPeers: 2",
        "Start_time_sec: 1795198591",
        "Engine: io_uring ",
    ] {
        assert!(plain.lines().any(|l| l == line), "{line} is not in\n{plain}");
    }
    let float = text(InfoFormat { shape: InfoShape::Typed, desc: false, float: true });
    for line in [
        "8.Uptime_sec.1:MDP:flt:90061.500000",
        "26.ConnRate.1:MRP:flt:0",
        "70.Start_time_sec.1:MDP:flt:1795198591.981369",
        "67.Memmax_bytes.1:CLP:u64:6442450944",
    ] {
        assert!(float.lines().any(|l| l == line), "{line} is not in\n{float}");
    }
}

fn listener() -> ListenerView {
    ListenerView {
        section: "mypeers".into(),
        iid: 2,
        sessions: [1, 3, 100, 7],
        bytes: [1000, 2000],
        refused: 4,
        rate: [0, 5],
        stopped: false,
    }
}

fn stat(query: ShowStat) -> String {
    let mut out = String::new();
    show_stat::write(&query, &[listener()], &mut out);
    out
}

#[test]
fn stat_has_haproxys_columns() {
    let all = ShowStat { kinds: -1, ..ShowStat::default() };
    let csv = stat(all);
    let mut lines = csv.lines();
    let header = lines.next().expect("a header");
    let theirs = STAT.lines().next().expect("a header");
    let end = theirs.find(",-,").expect("the end of the static columns") + 3;
    assert_eq!(header, &theirs[..end]);
    let row: Vec<&str> = lines.next().expect("a row").split(',').collect();
    assert_eq!(row.len(), header.split(',').count());
    let value = |name: &str| {
        let names = header.trim_start_matches("# ").split(',');
        row[names.clone().position(|n| n == name).expect("a column")]
    };
    for (name, expected) in [
        ("pxname", "mypeers"),
        ("svname", "FRONTEND"),
        ("scur", "1"),
        ("stot", "7"),
        ("bout", "2000"),
        ("status", "OPEN"),
        ("mode", "peers"),
        ("qcur", ""),
        ("-", "-"),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
}

#[test]
fn stat_filters_and_forms() {
    let all = ShowStat { kinds: -1, ..ShowStat::default() };
    let typed = stat(ShowStat { format: StatFormat::Typed, ..all });
    assert!(
        typed.starts_with("F.2.0.0.pxname.1:KNS:str:mypeers\nF.2.0.1.svname.1:KNS:str:FRONTEND\n")
    );
    let json = stat(ShowStat { format: StatFormat::Json, ..all });
    assert!(
        json.starts_with(
            "[[{\"objType\":\"Frontend\",\"proxyId\":2,\"id\":0,\"field\":{\"pos\":0,"
        )
    );
    assert!(json.ends_with("}}]]\n"), "{json}");
    for (query, rows) in [
        (ShowStat { kinds: 1, ..all }, 1),
        (ShowStat { kinds: 6, ..all }, 0),
        (ShowStat { iid: Some(2), ..all }, 1),
        (ShowStat { iid: Some(3), ..all }, 0),
    ] {
        assert_eq!(stat(query).lines().count(), 1 + rows, "{query:?}");
    }
    let resolvers = stat(ShowStat { resolvers: true, ..all });
    assert!(resolvers.starts_with("# id,pid,sent,"));
}
