//! What a shard says of itself and its sessions, for the stats socket.

use super::{ConnKey, SessionId, Shard, Sums, flush};
use crate::Millis;
use crate::session::SessionStatus;

impl Shard {
    /// States of the sessions that live here, for `show peers`.
    pub fn statuses(&self) -> Vec<(SessionId, ConnKey, SessionStatus)> {
        self.conns.iter().map(|(_, c)| (c.id, c.key, c.session.status())).collect()
    }

    /// Server names this shard's changes have given ids to, by session, for `show peers dict`.
    pub fn names_sent(&self) -> Vec<(ConnKey, flush::Names)> {
        self.flush.names_sent()
    }

    /// Server names received on session `id`, for `show peers dict`.
    pub fn dictionary(&self, id: SessionId) -> Vec<Option<Vec<u8>>> {
        let conn = self.conns.iter().find(|(_, c)| c.id == id);
        conn.map_or(Vec::new(), |(_, c)| c.session.dictionary().map(|s| s.map(Vec::from)).collect())
    }

    /// Sums over this shard's tables and sessions, for `show info`.
    pub fn sums(&mut self, now: Millis) -> Sums {
        let mut sums = self.parts.sums(now);
        for (_, conn) in &self.conns {
            let counters = conn.session.counters();
            sums.updates_in += counters.updates_in;
            sums.updates_out += counters.updates_out + counters.entries_taught;
            sums.updates_ignored += counters.updates_ignored;
            sums.bytes_out += counters.bytes_out;
        }
        sums.busy_us = self.ticks.sum_us;
        sums.tick_p99_us = self.ticks.histogram.value_at_quantile(0.99);
        sums.tick_max_us = self.ticks.histogram.max();
        sums
    }
}
