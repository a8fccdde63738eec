//! What is sent and what must come back: table, updates, and the check entry for entry.
//!
//! Owns the expected content of the daemon's table. Called by every measurement. Rule: the bytes
//! come from the library's encoders, and nothing is believed: each entry of a full resync is
//! compared with the model (key, each value, the rate's age, the remaining lifetime), each key
//! counted once, none missing.

use std::time::Duration;

use stickring::wire::update::{decode_values, encode_head, encode_rate};
use stickring::wire::{
    DataType, Definition, KeyShape, KeyType, Parameter, Tail, Update, UpdateForm, Value, frame,
    varint,
};

use crate::keys::Keys;
use crate::{Outcome, fail};

/// Table on the wire and in configurations: `type ip`, `store gpc0,http_req_rate(10s)`.
pub const TABLE: &str = "t1";
/// `expire 1h`.
pub const EXPIRE_MS: u32 = 3_600_000;
/// Our id for the table in definitions.
pub const TABLE_ID: i32 = 1;
const SHAPE: KeyShape = KeyShape::Fixed(4);
/// Clocks that are read once a loop, starts of periods rounded to even ms, and the like.
const SLACK_MS: u64 = 2_000;
/// Differences told in full; the rest is counted.
const TOLD: usize = 5;

/// The table's definition as we send it.
pub fn definition() -> Definition {
    let rate = DataType::from_name("http_req_rate").expect("a type");
    Definition {
        id: TABLE_ID,
        name: TABLE.into(),
        key_type: KeyType::Ipv4 as u64,
        key_len: 4,
        data_types: DataType::GPC0.mask() | rate.mask(),
        tail: Tail::Present {
            expire_ms: EXPIRE_MS,
            parameters: vec![Parameter { data_type: rate, elements: 1, period_ms: 10_000 }],
        },
    }
}

/// Where the entries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Pushed by us as a peer: both values are ours.
    Peer,
    /// `set table ... data.gpc0 N` on the stats socket: the rate was never used.
    Cli,
}

/// The content of a table: `keys` keys, the first of them touched once more often than the last.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Order of the keys.
    pub order: Keys,
    /// Distinct keys.
    pub keys: u32,
    /// Updates over all; key `n` gets number `n`, `n + keys`, ...
    pub updates: u64,
    /// Who makes them.
    pub origin: Origin,
}

impl Model {
    /// One update for each key.
    pub fn once(order: Keys, keys: u32, origin: Origin) -> Model {
        Model { order, keys, updates: u64::from(keys), origin }
    }

    /// gpc0, and the rate's age in ms, current and previous count, behind update `generation` of
    /// key `index`.
    fn values(&self, index: u32, generation: u32) -> (u32, u32, u32, u32) {
        let age_ms = 500 + index % 1000;
        (index % 300 + generation, age_ms, (index + generation) % 100, index % 50)
    }

    /// What `set table` gives key `index`.
    pub fn cli_value(&self, index: u32) -> u32 {
        self.values(index, 0).0
    }

    /// The last update that touches key `index`.
    fn last_generation(&self, index: u32) -> u32 {
        ((self.updates - 1 - u64::from(index)) / u64::from(self.keys)) as u32
    }

    /// Appends update `number` (0-based), with an id or as the follower of the one before it.
    pub fn encode(&self, out: &mut Vec<u8>, number: u64, uid: Option<u32>, timed: bool) {
        let index = (number % u64::from(self.keys)) as u32;
        let (gpc0, age_ms, curr, prev) = self.values(index, (number / u64::from(self.keys)) as u32);
        let form = UpdateForm { explicit_id: uid.is_some(), timed };
        frame::build(out, frame::class::TABLE, form.kind(), |out| {
            let key = self.order.key(index).to_be_bytes();
            encode_head(out, uid, timed.then_some(EXPIRE_MS), SHAPE, &key);
            varint::encode(out, u64::from(gpc0));
            encode_rate(out, age_ms, curr, prev);
        });
    }
}

/// Compares what a daemon teaches with the model.
pub struct Check<'a> {
    model: &'a Model,
    /// Longest time since the first of the updates was sent.
    elapsed_ms: u64,
    seen: Vec<u64>,
    distinct: u32,
    different: u64,
    told: Vec<String>,
    steps: Option<Vec<stickring::wire::Step>>,
}

impl<'a> Check<'a> {
    /// `elapsed`: since the first update was sent.
    pub fn new(model: &'a Model, elapsed: Duration) -> Check<'a> {
        Check {
            model,
            elapsed_ms: elapsed.as_millis() as u64,
            seen: vec![0; (model.keys as usize).div_ceil(64)],
            distinct: 0,
            different: 0,
            told: Vec::new(),
            steps: None,
        }
    }

    fn differs(&mut self, what: String) {
        self.different += 1;
        if self.told.len() < TOLD {
            self.told.push(what);
        }
    }

    /// The daemon's DEFINE; updates of other tables are skipped.
    pub fn define(&mut self, payload: &[u8]) -> Outcome<()> {
        let theirs = Definition::decode(payload)?;
        self.steps = (theirs.name == TABLE.as_bytes()).then(|| theirs.steps());
        if self.steps.is_some() && theirs.data_types != definition().data_types {
            return fail(format!("{TABLE} is taught with data types {:#x}", theirs.data_types));
        }
        Ok(())
    }

    /// One taught entry. A lesson's entries are timed; untimed ones are what HAProxy pushes beside
    /// it (local changes that this peer has not confirmed), and only need the right values.
    pub fn entry(&mut self, form: UpdateForm, payload: &[u8]) -> Outcome<()> {
        let Some(steps) = &self.steps else { return Ok(()) };
        let update = Update::decode(form, payload, SHAPE)?;
        let mut values = [Value::Int(0); 2];
        decode_values(update.values, steps, |step, _, value| values[step] = value)?;
        let key = u32::from_be_bytes(update.key.try_into()?);
        let index = self.model.order.index(key);
        if index >= self.model.keys {
            self.differs(format!("key {} was never sent", std::net::Ipv4Addr::from(key)));
            return Ok(());
        }
        let (word, bit) = (index as usize / 64, 1u64 << (index % 64));
        if !form.timed {
            // Counted by the lesson alone.
        } else if self.seen[word] & bit != 0 {
            self.differs(format!("key {} came twice", std::net::Ipv4Addr::from(key)));
        } else {
            self.seen[word] |= bit;
            self.distinct += 1;
        }
        if let Some(what) = self.wrong(index, update.expire_ms, values) {
            self.differs(format!("key {}: {what}", std::net::Ipv4Addr::from(key)));
        }
        Ok(())
    }

    /// What is wrong with an entry's values, if anything.
    fn wrong(&self, index: u32, expire_ms: Option<u32>, values: [Value<'_>; 2]) -> Option<String> {
        let generation = self.model.last_generation(index);
        let (gpc0, age_ms, curr, prev) = self.model.values(index, generation);
        let [Value::Int(their_gpc0), Value::Rate { age_ms: their_age, curr: c, prev: p }] = values
        else {
            return Some(format!("not a counter and a rate: {values:?}"));
        };
        if their_gpc0 != u64::from(gpc0) {
            return Some(format!("gpc0 is {their_gpc0}, sent {gpc0}"));
        }
        let counts = if self.model.origin == Origin::Peer { (curr, prev) } else { (0, 0) };
        if (c, p) != counts {
            return Some(format!("http_req_rate counts are {:?}, sent {counts:?}", (c, p)));
        }
        let older = i64::from(their_age) - i64::from(age_ms);
        let ages = -4..=(self.elapsed_ms + SLACK_MS) as i64;
        if self.model.origin == Origin::Peer && !ages.contains(&older) {
            return Some(format!("http_req_rate is {their_age} ms old, sent {age_ms}"));
        }
        let left = u64::from(expire_ms.unwrap_or(EXPIRE_MS));
        let least = u64::from(EXPIRE_MS).saturating_sub(self.elapsed_ms + SLACK_MS);
        if left > u64::from(EXPIRE_MS) || left < least {
            return Some(format!("expires in {left} ms, at least {least} expected"));
        }
        None
    }

    /// Distinct keys, when all is equal.
    pub fn finish(mut self) -> Outcome<u32> {
        if self.distinct != self.model.keys {
            let first = (0..self.model.keys)
                .find(|i| self.seen[*i as usize / 64] & (1 << (i % 64)) == 0)
                .map(|i| std::net::Ipv4Addr::from(self.model.order.key(i)));
            let missing = self.model.keys - self.distinct;
            self.differs(format!("{missing} keys are missing, the first is {first:?}"));
        }
        if self.different > 0 {
            let (n, told) = (self.different, self.told.join("; "));
            return fail(format!("the table differs from the model in {n} places: {told}"));
        }
        Ok(self.distinct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stickring::wire::{Cut, Message, message};

    /// Definition and updates `range`, each with a lifetime.
    fn stream(model: &Model, range: std::ops::Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        message::encode_define(&mut out, &definition());
        range.for_each(|n| model.encode(&mut out, n, Some(n as u32 + 1), true));
        out
    }

    fn taught(model: &Model, bytes: &[u8]) -> Outcome<u32> {
        let mut check = Check::new(model, Duration::ZERO);
        let mut at = 0;
        while let Cut::Frame(f) = frame::cut(&bytes[at..], 16_384)? {
            at += f.len;
            match Message::of(&f)? {
                Message::Define(payload) => check.define(payload)?,
                Message::Update(form, payload) => check.entry(form, payload)?,
                _ => {}
            }
        }
        check.finish()
    }

    #[test]
    fn equal_tables_pass_and_each_difference_is_seen() {
        let model = Model::once(Keys::random(3), 1000, Origin::Peer);
        assert_eq!(taught(&model, &stream(&model, 0..1000)).expect("equal"), 1000);
        let less = stream(&model, 0..999);
        assert!(taught(&model, &less).is_err_and(|e| e.to_string().contains("1 keys are missing")));
        let twice = [stream(&model, 0..1000), stream(&model, 4..5)].concat();
        assert!(taught(&model, &twice).is_err_and(|e| e.to_string().contains("came twice")));
        let older = Model { updates: 2000, ..model };
        let stale = taught(&older, &stream(&model, 0..1000));
        assert!(stale.is_err_and(|e| e.to_string().contains("1000 places")));
        let foreign = stream(&Model::once(Keys::random(4), 1000, Origin::Peer), 0..1000);
        assert!(taught(&model, &foreign).is_err_and(|e| e.to_string().contains("never sent")));
    }

    #[test]
    fn generations_follow_the_count_of_updates() {
        let model = Model { updates: 25, ..Model::once(Keys::sequential(), 10, Origin::Peer) };
        assert_eq!((model.last_generation(0), model.last_generation(4)), (2, 2));
        assert_eq!((model.last_generation(5), model.last_generation(9)), (1, 1));
    }
}
