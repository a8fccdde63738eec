//! Tables of an old process in the eyes of a new one: which is which.
//!
//! Made by the coordinator for an instant hand-over, read by all shards. A table is the same when
//! its section and its name on the wire are (`coordinator::instant` has made sure that all else
//! is, too); its number, its id on the wire and its place among the tables may be others. Rule: a
//! section goes on with its sessions only when each of its tables keeps its id on the wire and
//! there is none more; otherwise both sides would mean different tables.

use super::registry::{Registry, Table};
use crate::session::Ledger;
use serde::{Deserialize, Serialize};

/// A table as its successor must know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableState {
    section: Option<usize>,
    index: usize,
    /// On the wire with a section, else on the stats socket.
    name: String,
    /// Says which shard owns what of it.
    number: u32,
    used: u64,
}

impl TableState {
    fn of(table: &Table) -> TableState {
        let spec = &table.spec;
        let name = if table.section.is_some() { &spec.wire_name } else { &spec.name };
        TableState {
            section: table.section,
            index: table.index,
            name: name.clone(),
            number: table.place.local_id,
            used: table.used(),
        }
    }

    /// All tables there are, by id.
    pub fn all(registry: &Registry) -> Vec<TableState> {
        registry.all().iter().map(|t| TableState::of(t)).collect()
    }

    /// The number that the table of this name had, whose rows lie where that says.
    pub fn number(all: &[TableState], section: Option<usize>, name: &str) -> Option<u32> {
        all.iter().find(|t| t.section == section && t.name == name).map(|t| t.number)
    }
}

/// See the module head.
#[derive(Debug, Default)]
pub struct Translation {
    /// By id in the old process: the id here.
    ids: Vec<Option<usize>>,
    /// By section, of those with other tables than before: by index there, the index here.
    sections: Vec<Option<Vec<Option<usize>>>>,
    /// Entries in all tables that stay.
    entries: u64,
}

impl Translation {
    /// From the tables of the old process to those of the registry.
    ///
    /// # Errors
    /// A table's rows are not where they are looked for here, or numbers make no sense.
    pub fn new(old: &[TableState], registry: &Registry) -> Result<Translation, String> {
        let wild = |t: &TableState| {
            t.index >= old.len() || t.section.is_some_and(|section| section >= registry.sections())
        };
        if old.iter().any(wild) {
            return Err("a table with a number that cannot be".to_string());
        }
        let new = TableState::all(registry);
        let here = |t: &TableState| {
            new.iter().position(|here| here.section == t.section && here.name == t.name)
        };
        let ids: Vec<Option<usize>> = old.iter().map(here).collect();
        let mut once = ids.iter().flatten().collect::<Vec<_>>();
        once.sort_unstable();
        if once.windows(2).any(|two| two[0] == two[1]) {
            return Err("two tables of one name".to_string());
        }
        let kept = || old.iter().zip(&ids).filter_map(|(t, id)| Some((t, &new[(*id)?])));
        if let Some((table, _)) = kept().find(|(there, here)| there.number != here.number) {
            return Err(format!("table '{}' is in another place", table.name));
        }
        let sections = (0..registry.sections()).map(|section| {
            let of = |all: &[TableState]| {
                let own = all.iter().filter(|t| t.section == Some(section));
                let mut own: Vec<(usize, String)> =
                    own.map(|t| (t.index, t.name.clone())).collect();
                own.sort_unstable();
                own
            };
            let (there, here) = (of(old), of(&new));
            let index = |name: &str| here.iter().find(|(_, n)| n == name).map(|(index, _)| *index);
            let len = there.last().map_or(0, |(index, _)| index + 1);
            let mut indexes = vec![None; len];
            there.iter().for_each(|(at, name)| indexes[*at] = index(name));
            (there != here).then_some(indexes)
        });
        let (sections, entries) = (sections.collect(), kept().map(|(t, _)| t.used).sum());
        Ok(Translation { ids, sections, entries })
    }

    /// Our id of the table that had `old`; `Some(None)`: it is not wanted any more.
    pub fn id(&self, old: usize) -> Option<Option<usize>> {
        self.ids.get(old).copied()
    }

    /// The section's tables are others than before: its sessions end.
    pub fn ends(&self, section: usize) -> bool {
        self.indexes(section).is_some()
    }

    /// What a peer of the section has confirmed, in our numbers.
    pub fn ledger(&self, section: usize, ledger: Ledger) -> Ledger {
        match self.indexes(section) {
            Some(indexes) => ledger.renumbered(indexes),
            None => ledger,
        }
    }

    /// Entries in all tables that stay.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    fn indexes(&self, section: usize) -> Option<&[Option<usize>]> {
        self.sections.get(section)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{KeyHasher, TableSpec, spec_from_definition};
    use crate::wire::{Definition, Tail};

    fn spec(name: &str) -> TableSpec {
        let definition = Definition {
            id: 1,
            name: name.as_bytes().to_vec(),
            key_type: 2,
            key_len: 4,
            data_types: 4,
            tail: Tail::Present { expire_ms: 1000, parameters: Vec::new() },
        };
        spec_from_definition(&definition, "p", 1000).unwrap()
    }

    /// Tables of two sections, in order; those that `old` has keep their numbers.
    fn registry(sections: [&[&str]; 2], old: &[TableState]) -> Registry {
        let names = vec!["p".to_string(), "q".to_string()];
        let registry = Registry::new(KeyHasher::new([1; 4]), 2, names, None);
        for (section, names) in sections.iter().enumerate() {
            for (index, name) in names.iter().enumerate() {
                let number = TableState::number(old, Some(section), name);
                registry.declare_as(number, Some((section, index)), spec(name));
            }
        }
        registry
    }

    fn confirmed(ledger: &Ledger) -> Vec<u64> {
        (0..ledger.tables()).map(|table| ledger.confirmed(table, 0)).collect()
    }

    #[test]
    fn tables_are_found_by_section_and_name_and_keep_their_places() {
        let old = TableState::all(&registry([&["a", "b", "c"], &["a"]], &[]));
        let new = registry([&["c", "new", "a"], &["a"]], &old);
        let found = Translation::new(&old, &new).unwrap();
        let ids: Vec<_> = (0..5).map(|id| found.id(id)).collect();
        assert_eq!(ids, [Some(Some(2)), Some(None), Some(Some(0)), Some(Some(3)), None]);
        assert_eq!((found.ends(0), found.ends(1), found.ends(2)), (true, false, false));
        let numbers: Vec<u32> = new.all().iter().map(|t| t.place.local_id).collect();
        assert_eq!(numbers, [2, 1, 0, 3]);
        // What is confirmed goes with the table; the new one has nothing.
        let mut ledger = Ledger::default();
        (0..3).for_each(|table| ledger.confirm(table, 0, table as u64 + 10));
        assert_eq!(confirmed(&found.ledger(0, ledger.clone())), [12, 0, 10]);
        assert_eq!(confirmed(&found.ledger(1, ledger)), [10, 11, 12]);
        // The same again: nothing ends, and places are what they have become.
        let old = TableState::all(&new);
        let same = registry([&["c", "new", "a"], &["a"]], &old);
        let found = Translation::new(&old, &same).unwrap();
        assert!((0..4).all(|id| found.id(id) == Some(Some(id))) && !found.ends(0));
    }

    #[test]
    fn another_order_or_number_of_tables_ends_a_section() {
        let old = TableState::all(&registry([&["a", "b"], &["a"]], &[]));
        for (tables, ends) in [
            (&["a", "b"][..], false),
            (&["b", "a"], true),
            (&["a"], true),
            (&["a", "b", "c"], true),
        ] {
            let found = Translation::new(&old, &registry([tables, &["a"]], &old)).unwrap();
            assert_eq!((found.ends(0), found.ends(1)), (ends, false), "{tables:?}");
        }
    }

    #[test]
    fn rows_that_lie_elsewhere_and_wild_numbers_are_refused() {
        let old = TableState::all(&registry([&["a", "b"], &[]], &[]));
        let elsewhere = registry([&["b", "a"], &[]], &[]);
        assert!(Translation::new(&old, &elsewhere).is_err());
        let here = registry([&["a", "b"], &[]], &old);
        assert!(Translation::new(&old, &here).is_ok());
        let wrong = |change: &dyn Fn(&mut TableState)| {
            let mut wrong = old.clone();
            change(&mut wrong[1]);
            Translation::new(&wrong, &here).is_err()
        };
        assert!(wrong(&|t| t.index = usize::MAX) && wrong(&|t| t.section = Some(usize::MAX)));
        assert!(wrong(&|t| t.name = "a".to_string()), "two of one name");
    }
}
