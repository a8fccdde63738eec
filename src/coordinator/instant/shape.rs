//! See [`super`]: which two processes can go on for each other.
//!
//! What differs and may: remote peers, which are matched by name (`super::state`), tables that only
//! one of them has ([`crate::shard::Translation`]), and everything that no table and no session
//! depends on. Rules: what is not known to be safe is a difference; and nothing is lost that the
//! hand-over by the protocol would keep.
//!
//! A new table begins empty, as it does there, and gets what peers have changed in it themselves:
//! nobody has confirmed that, so they send it with their next session, unasked (protocol.md 5.6).
//! Nobody is asked for a lesson: it would overwrite what is newer here and not confirmed.

use crate::config::{Config, PeersSection, TableDecl};
use serde::{Deserialize, Serialize};

/// What two processes must have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    version: String,
    shards: usize,
    localpeer: String,
    sections: Vec<SectionShape>,
    tables: Vec<TableShape>,
    /// How tables are created from definitions.
    learned: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SectionShape {
    /// Its name, its parts, and the local peer.
    own: String,
    /// Remote peers with the part of the keys each takes.
    remotes: Vec<(String, u32)>,
}

/// A table, by what the memory of its rows and their meaning depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TableShape {
    section: Option<usize>,
    /// On the wire.
    name: String,
    local_id: u32,
    spec: String,
}

impl TableShape {
    fn of(table: &TableDecl) -> TableShape {
        let TableDecl { spec, section, local_id, .. } = table;
        let name = if section.is_some() { &spec.wire_name } else { &spec.name };
        let (name, spec) = (name.clone(), format!("{spec:?}"));
        TableShape { section: *section, name, local_id: *local_id, spec }
    }
}

impl SectionShape {
    fn of(section: &PeersSection) -> SectionShape {
        let (local, shards) = (&section.local, section.shards);
        let dialled = (&local.address, &local.source, &local.source_interface);
        let remotes = section.remotes.iter().filter(|p| !p.disabled);
        SectionShape {
            own: format!(
                "{} shards {shards} local {} {dialled:?} {} {}",
                section.name, local.name, local.shard, local.disabled
            ),
            remotes: remotes.map(|p| (p.name.clone(), p.shard)).collect(),
        }
    }

    /// A peer that both have, but with different parts of the keys.
    fn moved(&self, other: &SectionShape) -> Option<&str> {
        let differs = |(name, shard): &&(String, u32)| {
            other.remotes.iter().any(|(theirs, part)| theirs == name && part != shard)
        };
        self.remotes.iter().find(differs).map(|(name, _)| name.as_str())
    }
}

impl Shape {
    /// The shape of a process with this configuration and number of shards.
    pub fn of(config: &Config, shards: usize) -> Shape {
        Shape {
            version: crate::VERSION.to_string(),
            shards,
            localpeer: config.localpeer.clone(),
            sections: config.peers.iter().map(SectionShape::of).collect(),
            tables: config.tables.iter().map(TableShape::of).collect(),
            learned: config.stickring.auto_tables,
        }
    }

    /// Why a process of this shape cannot go on for one of the `other`.
    pub fn differs_from(&self, other: &Shape) -> Option<String> {
        if self.version != other.version {
            return Some(format!("versions differ ({} and {})", self.version, other.version));
        }
        if self.shards != other.shards {
            return Some(format!("{} and {} shards", self.shards, other.shards));
        }
        let own = |shape: &Shape| shape.sections.iter().map(|s| s.own.clone()).collect::<Vec<_>>();
        let mut moved = self.sections.iter().zip(&other.sections);
        let what = match () {
            () if self.localpeer != other.localpeer => "local peer's name".to_string(),
            () if own(self) != own(other) => "peers sections or their local peer".to_string(),
            () if self.learned != other.learned => "auto-tables".to_string(),
            () if let Some(why) = self.tables_differ(other) => why,
            () => format!("shard of peer '{}'", moved.find_map(|(a, b)| a.moved(b))?),
        };
        Some(format!("configurations differ ({what})"))
    }

    /// A table that both have must be the same: one of another size or lifetime is taught, which
    /// keeps its entries. Tables that only one of them has may be, but not where tables are created
    /// from definitions: a lesson would create those that are not declared any more.
    fn tables_differ(&self, other: &Shape) -> Option<String> {
        let changed = |t: &&TableShape| {
            let theirs = other.tables.iter().find(|o| o.section == t.section && o.name == t.name);
            theirs.is_some_and(|theirs| theirs.spec != t.spec)
        };
        if let Some(table) = self.tables.iter().find(changed) {
            return Some(format!("table '{}'", table.name));
        }
        let auto = self.learned.is_some();
        (auto && self.tables != other.tables).then(|| "tables beside auto-tables".to_string())
    }
}
