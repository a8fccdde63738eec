//! What is known so far while the lines are read.
//!
//! *Owned by* [`super::parse`]; each section's module adds to it, [`super::finish`] checks it as a
//! whole.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::config::address::Names;
use crate::config::bind::BindParameters;
use crate::config::server::ServerParameters;
use crate::config::stick_table::{self, Messages, Parsed};
use crate::config::{
    BindSpec, Config, Diagnostics, Host, Location, LogTarget, MemoryChoice, ParseOptions, PeerSpec,
    StatsSocketSpec, StickringSection, UnixOptions,
};
use crate::limits::{
    ACCEPT_PEERS_DEFAULT, BUFSIZE_DEFAULT, CLI_TIMEOUT_DEFAULT_MS, STATS_MAXCONN_DEFAULT,
};
use crate::table::spec::TableSpec;

/// A peers section while it is read.
#[derive(Debug, Default)]
pub(crate) struct SectionDraft {
    pub(crate) name: String,
    pub(crate) at: Location,
    pub(crate) shards: u32,
    pub(crate) disabled: bool,
    /// A line of it was refused: what seems to be missing may have stood there.
    pub(crate) broken: bool,
    /// A `bind` line was seen; a `peer` line was seen: only one of them may be.
    pub(crate) bind_line: bool,
    pub(crate) peer_line: bool,
    pub(crate) bind: Option<BindSpec>,
    pub(crate) local: Option<PeerSpec>,
    pub(crate) remotes: Vec<PeerSpec>,
    pub(crate) logs: Vec<LogTarget>,
    pub(crate) default_bind: BindParameters,
    pub(crate) default_server: ServerParameters,
    /// What this version cannot do; alerts if the section takes part.
    pub(crate) refused: Vec<String>,
    /// Parameters read and left aside.
    pub(crate) ignored: Vec<&'static str>,
}

/// A table while the rest is read.
#[derive(Debug)]
pub(crate) struct TableDraft {
    pub(crate) spec: TableSpec,
    pub(crate) at: Location,
    pub(crate) owner: Owner,
}

/// Whose table it is.
#[derive(Debug)]
pub(crate) enum Owner {
    /// Of the peers section with this index in [`Builder::sections`].
    Section(usize),
    /// Of the proxy with this index in [`Builder::proxies`]; shared through the named section.
    Proxy { proxy: usize, peers: Option<String> },
}

/// A frontend, backend or listen section.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) name: String,
    /// `frontend`, `backend`, or `proxy` for `listen`, as HAProxy calls it.
    pub(crate) kind: &'static str,
    pub(crate) disabled: bool,
}

/// The section whose lines are being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Current {
    /// None yet.
    Outside,
    Global,
    Peers(usize),
    /// A `defaults` section, by name.
    Defaults(String),
    Proxy(usize),
    Stickring,
    /// One that means nothing to a peers node, or whose header was wrong.
    Skipped,
}

/// A stick-table name and who has it.
#[derive(Debug)]
pub(crate) struct TableName {
    /// `backend 't'`, `peers 'p'`.
    pub(crate) owner: String,
    pub(crate) at: Location,
}

pub(crate) struct Builder<'h> {
    pub(crate) host: &'h dyn Host,
    pub(crate) options: &'h ParseOptions,
    /// Final but for `peers` and `tables`.
    pub(crate) config: Config,
    pub(crate) current: Current,
    pub(crate) sections: Vec<SectionDraft>,
    pub(crate) tables: Vec<TableDraft>,
    pub(crate) names: HashMap<String, TableName>,
    pub(crate) proxies: Vec<Proxy>,
    /// `disabled` in `defaults` sections: whether, by name; the last one read under "".
    pub(crate) defaults_disabled: HashMap<String, bool>,
    /// Tables used by `stick` rules, with the proxy that has the rule.
    pub(crate) sticks: Vec<(usize, String)>,
    pub(crate) unix_prefix: String,
    pub(crate) unix_defaults: UnixOptions,
    pub(crate) stickring_at: Option<Location>,
    /// `stats socket` lines of a `stickring` section: with any of them, those of `global` are
    /// HAProxy's own and left to it.
    pub(crate) own_sockets: Vec<StatsSocketSpec>,
}

impl<'h> Builder<'h> {
    pub(crate) fn new(host: &'h dyn Host, options: &'h ParseOptions, localpeer: String) -> Self {
        Builder {
            host,
            options,
            config: Config {
                localpeer,
                nbthread: None,
                bufsize: BUFSIZE_DEFAULT,
                max_updates_at_once: None,
                hard_stop_after_ms: None,
                max_reloads: None,
                pidfile: None,
                node: None,
                stats_sockets: Vec::new(),
                stats_timeout_ms: CLI_TIMEOUT_DEFAULT_MS,
                stats_maxconn: STATS_MAXCONN_DEFAULT,
                logs: Vec::new(),
                peers: Vec::new(),
                tables: Vec::new(),
                stickring: StickringSection::default(),
            },
            current: Current::Outside,
            sections: Vec::new(),
            tables: Vec::new(),
            names: HashMap::new(),
            proxies: Vec::new(),
            defaults_disabled: HashMap::new(),
            sticks: Vec::new(),
            unix_prefix: String::new(),
            unix_defaults: UnixOptions::default(),
            stickring_at: None,
            own_sockets: Vec::new(),
        }
    }

    pub(crate) fn names(&self) -> Names<'h> {
        Names { host: self.host, ignore_failure: self.options.ignore_dns }
    }

    /// Reads a `table` or `stick-table` line's parameters and puts the table on the list.
    ///
    /// `shown` is the name HAProxy's conflict message has.
    pub(crate) fn add_table(
        &mut self,
        line: TableLine<'_>,
        make_owner: impl FnOnce(Option<String>) -> Owner,
        diags: &mut Diagnostics,
    ) {
        let TableLine { word, name, wire_name, shown, words, at, owner } = line;
        if let Some(other) = self.names.get(name) {
            return diags.alert(format!(
                "config : parsing [{at}] : stick-table name '{shown}' conflicts with table \
                 declared in {} at {}.",
                other.owner, other.at
            ));
        }
        let mut messages = Messages::default();
        let parsed = stick_table::parse(word, name, wire_name, words, at, &mut messages);
        messages.warnings.into_iter().for_each(|text| diags.warning(text));
        messages.alerts.into_iter().for_each(|text| diags.alert(text));
        let Some(Parsed { spec, peers }) = parsed else { return };
        self.names.insert(name.to_owned(), TableName { owner, at: at.clone() });
        self.tables.push(TableDraft { spec, at: at.clone(), owner: make_owner(peers) });
    }
}

/// A line that declares a table.
pub(crate) struct TableLine<'a> {
    /// `table` or `stick-table`.
    pub(crate) word: &'static str,
    pub(crate) name: &'a str,
    pub(crate) wire_name: &'a str,
    /// The name HAProxy's conflict message has.
    pub(crate) shown: &'a str,
    /// The parameters.
    pub(crate) words: &'a [String],
    pub(crate) at: &'a Location,
    /// Who declares it, as conflict messages about it say: `peers 'p'`.
    pub(crate) owner: String,
}

impl Default for StickringSection {
    fn default() -> Self {
        StickringSection {
            auto_tables: None,
            accept_peers: Vec::new(),
            accept_peers_max: ACCEPT_PEERS_DEFAULT,
            engine: crate::config::EngineChoice::Auto,
            memory: MemoryChoice::Auto,
            pin: true,
            instant_reload: true,
        }
    }
}
