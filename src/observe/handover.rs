//! The numbers of a hand-over between an old process and a new one, for the log and `show info`.
//!
//! One [`HandoverNumbers`] a process holds its last hand-over, whatever its kind and whichever its
//! side. Filled by the coordinator. Rule: a number that this side cannot know is not shown as 0.

use std::fmt;

/// How tables went from one process to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// There was no hand-over.
    #[default]
    None,
    /// By the peers protocol: the old process taught the new one (protocol.md 6.4).
    Protocol,
    /// Memory, sockets and sessions went over as they were.
    Instant,
}

impl Kind {
    /// As `show info` says it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::None => "none",
            Kind::Protocol => "protocol",
            Kind::Instant => "instant",
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It has not, or there was none.
    #[default]
    None,
    /// Everything is there, and the old process was up to date.
    Finished,
    /// Everything the old process had is there, but it was not up to date itself.
    Partial,
    /// It came to nothing: nobody took the tables, or nobody taught them, in time.
    Failed,
}

impl Outcome {
    /// As `show info` says it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::None => "none",
            Outcome::Finished => "finished",
            Outcome::Partial => "partial",
            Outcome::Failed => "failed",
        }
    }

    /// The outcome of two sections together: the worse one.
    pub fn and(self, other: Outcome) -> Outcome {
        let rank = |o: Outcome| match o {
            Outcome::None => 0,
            Outcome::Finished => 1,
            Outcome::Partial => 2,
            Outcome::Failed => 3,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// The last hand-over this process took part in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandoverNumbers {
    /// How.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// Entries that went over, all sections together.
    pub entries: u64,
    /// Time it took, in ms: on the old side from its signal on, on the new side from the first
    /// piece on.
    pub duration_ms: u64,
    /// Time in which nobody listened, in ms, as far as this side knows.
    pub gap_ms: Option<u64>,
    /// Peer sessions that went on without a break.
    pub sessions_kept: u64,
}

impl HandoverNumbers {
    /// Adds what one more section has handed over. `duration_ms` counts from the same moment for
    /// all of them.
    pub fn add(&mut self, kind: Kind, outcome: Outcome, entries: u64, duration_ms: u64) {
        self.kind = kind;
        self.outcome = self.outcome.and(outcome);
        self.entries += entries;
        self.duration_ms = self.duration_ms.max(duration_ms);
    }
}

impl fmt::Display for HandoverNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ms) = (self.duration_ms / 1000, self.duration_ms % 1000);
        write!(
            f,
            "{}, {}, {} entries in {s}.{ms:03}s, {} sessions kept",
            self.kind.name(),
            self.outcome.name(),
            self.entries,
            self.sessions_kept
        )?;
        match self.gap_ms {
            Some(ms) => write!(f, ", {ms} ms without a listener"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_add_up_and_the_worst_outcome_stays() {
        let mut numbers = HandoverNumbers::default();
        numbers.add(Kind::Protocol, Outcome::Partial, 10, 700);
        numbers.add(Kind::Protocol, Outcome::Finished, 5, 300);
        assert_eq!((numbers.entries, numbers.duration_ms), (15, 700));
        assert_eq!(numbers.outcome, Outcome::Partial);
        numbers.add(Kind::Protocol, Outcome::Failed, 0, 0);
        assert_eq!(numbers.outcome, Outcome::Failed);
    }

    #[test]
    fn a_gap_is_said_when_it_is_known() {
        let mut numbers = HandoverNumbers::default();
        numbers.add(Kind::Instant, Outcome::Finished, 3, 12_034);
        numbers.sessions_kept = 2;
        let text = "instant, finished, 3 entries in 12.034s, 2 sessions kept";
        assert_eq!(numbers.to_string(), text);
        numbers.gap_ms = Some(0);
        assert_eq!(numbers.to_string(), format!("{text}, 0 ms without a listener"));
    }
}
