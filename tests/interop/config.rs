//! Configurations in HAProxy's syntax, the same text for HAProxy and for the node.

use std::fmt::Write as _;
use std::path::Path;

/// A member of a peers section.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub address: String,
}

impl Member {
    /// The same member as seen by somebody who has its address wrong.
    pub fn at(&self, address: impl ToString) -> Member {
        Member { name: self.name.clone(), address: address.to_string() }
    }
}

/// A peers section: its name, members and tables of its own.
#[derive(Clone, Debug)]
pub struct Section {
    pub name: String,
    pub members: Vec<Member>,
    pub lines: Vec<String>,
}

/// A whole configuration file.
#[derive(Clone, Debug)]
pub struct Config {
    pub local: String,
    pub nbthread: u32,
    pub sections: Vec<Section>,
    /// (name, definition, peers section) of backends that only hold a table.
    pub tables: Vec<(String, String, String)>,
    /// More lines of `global`.
    pub global: Vec<String>,
    /// Whole sections, as they are.
    pub rest: String,
}

/// The peers section of most tests.
pub const SECTION: &str = "mypeers";

impl Config {
    /// A process called as the first of the members, which all are in one peers section.
    pub fn new(members: &[&Member]) -> Config {
        let section = Section {
            name: SECTION.to_owned(),
            members: members.iter().map(|m| (*m).clone()).collect(),
            lines: vec!["table t_pp type ip size 10k expire 1h store gpc0,gpt0".to_owned()],
        };
        Config {
            local: members[0].name.clone(),
            nbthread: 2,
            sections: vec![section],
            tables: Vec::new(),
            global: Vec::new(),
            rest: String::new(),
        }
    }

    /// With these tables: (name, what follows `stick-table`).
    pub fn tables(mut self, tables: &[(&str, String)]) -> Config {
        for (name, definition) in tables {
            self.tables.push(((*name).to_owned(), definition.clone(), SECTION.to_owned()));
        }
        self
    }

    /// With this number of threads.
    pub fn threads(mut self, nbthread: u32) -> Config {
        self.nbthread = nbthread;
        self
    }

    /// With a further line in `global`.
    pub fn global(mut self, line: &str) -> Config {
        self.global.push(line.to_owned());
        self
    }

    /// With further sections.
    pub fn rest(mut self, text: &str) -> Config {
        self.rest.push_str(text);
        self
    }

    /// The text of the file.
    pub fn render(&self, socket: &Path) -> String {
        let mut text = String::from("global\n");
        let _ = writeln!(text, "    localpeer {}", self.local);
        let _ = writeln!(text, "    stats socket {} level admin", socket.display());
        let _ = writeln!(text, "    stats timeout 60s\n    nbthread {}", self.nbthread);
        for line in &self.global {
            let _ = writeln!(text, "    {line}");
        }
        text.push_str("\ndefaults\n    mode http\n    timeout connect 5s\n");
        text.push_str("    timeout client 30s\n    timeout server 30s\n");
        for section in &self.sections {
            let _ = writeln!(text, "\npeers {}", section.name);
            for member in &section.members {
                let _ = writeln!(text, "    peer {} {}", member.name, member.address);
            }
            for line in &section.lines {
                let _ = writeln!(text, "    {line}");
            }
        }
        for (name, definition, section) in &self.tables {
            let _ = writeln!(text, "\nbackend {name}");
            let _ = writeln!(text, "    stick-table {definition} peers {section}");
        }
        text.push('\n');
        text.push_str(&self.rest);
        text
    }
}

/// The 21 scalar types of 2.6, with periods of `unit` seconds times their position.
pub fn scalars(version: (u32, u32), unit: u32) -> String {
    let mut list = format!(
        "server_id,gpt0,gpc0,gpc0_rate({}s),conn_cnt,conn_rate({}s),conn_cur,sess_cnt,\
         sess_rate({}s),http_req_cnt,http_req_rate({}s),http_err_cnt,http_err_rate({}s),\
         bytes_in_cnt,bytes_in_rate({}s),bytes_out_cnt,bytes_out_rate({}s),gpc1,gpc1_rate({}s),\
         http_fail_cnt,http_fail_rate({}s)",
        unit,
        2 * unit,
        3 * unit,
        4 * unit,
        5 * unit,
        6 * unit,
        7 * unit,
        8 * unit,
        9 * unit
    );
    if version >= (3, 0) {
        let _ = write!(list, ",glitch_cnt,glitch_rate({}s)", 10 * unit);
    }
    list
}

/// Tables of all key types and, together, of all data types that `version` knows.
pub fn all_tables(version: (u32, u32)) -> Vec<(&'static str, String)> {
    vec![
        ("t_ip", format!("type ip size 200k expire 10m store {}", scalars(version, 60))),
        ("t_ip6", format!("type ipv6 size 1k expire 10m store {}", scalars(version, 60))),
        ("t_str", "type string len 32 size 200k expire 30m store gpt0,gpc0".to_owned()),
        ("t_int", "type integer size 1k expire 24d store gpc0,bytes_out_cnt".to_owned()),
        ("t_bin", "type binary len 8 size 1k store gpc0".to_owned()),
        (
            "t_arr",
            "type string len 8 size 1k expire 1h store gpt(3),gpc(2),gpc_rate(2,600s)".into(),
        ),
        (
            "t_decay",
            "type string len 8 size 1k expire 1h store gpc0_rate(6s),conn_rate(20s)".into(),
        ),
        ("t_nodata", "type ip size 1k expire 1h".to_owned()),
    ]
}
