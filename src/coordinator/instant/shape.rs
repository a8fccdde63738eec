//! See [`super`]: which two processes can go on for each other.
//!
//! What differs and may: remote peers, which are matched by name (`super::state`), and everything
//! that no table and no session depends on. Rule: what is not known to be safe is a difference.

use crate::config::{Config, PeersSection, TableDecl};
use serde::{Deserialize, Serialize};

/// What two processes must have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    version: String,
    shards: usize,
    localpeer: String,
    sections: Vec<SectionShape>,
    /// Tables with their sections and numbers.
    tables: Vec<String>,
    /// How tables are created from definitions.
    learned: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SectionShape {
    /// Its name, its parts, and the local peer.
    own: String,
    /// Remote peers with the part of the keys each takes.
    remotes: Vec<(String, u32)>,
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
        let table =
            |t: &TableDecl| format!("{:?} of section {:?} as {}", t.spec, t.section, t.local_id);
        Shape {
            version: crate::VERSION.to_string(),
            shards,
            localpeer: config.localpeer.clone(),
            sections: config.peers.iter().map(SectionShape::of).collect(),
            tables: config.tables.iter().map(table).collect(),
            learned: format!("{:?}", config.stickring.auto_tables),
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
            () if self.tables != other.tables => "tables".to_string(),
            () if own(self) != own(other) => "peers sections or their local peer".to_string(),
            () if self.learned != other.learned => "auto-tables".to_string(),
            () => format!("shard of peer '{}'", moved.find_map(|(a, b)| a.moved(b))?),
        };
        Some(format!("configurations differ ({what})"))
    }
}
