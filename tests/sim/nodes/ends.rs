//! A node's timers, and how it begins to leave.

use super::{Node, Stage};
use crate::world::Net;
use stickring::Millis;
use stickring::resync::Handover;
use stickring::session::Link;
use stickring::session::link::Down;

impl Node {
    /// SIGUSR1: remote sessions end, the successor is looked for.
    pub fn stop(&mut self, now: Millis) {
        self.stop_by = Some(now.plus(stickring::limits::LEARN_REST_MS));
    }

    /// An old process that is teaching is let end first.
    pub(super) fn begin_to_leave(&mut self, net: &mut Net) -> bool {
        let due = |by| net.now >= by || !self.section.learns_from_old_process();
        if !self.stop_by.is_some_and(due) {
            return false;
        }
        self.stop_by = None;
        for conn in std::mem::take(&mut self.conns) {
            net.close(conn.pipe, conn.side);
        }
        self.handover = Some(Handover::new(net.now));
        self.log.push("stopping".into());
        true
    }

    pub fn next_timeout(&self) -> Option<Millis> {
        let conns = self.conns.iter().filter_map(|c| match &c.stage {
            Stage::Accepting(a) => Some(a.deadline()),
            Stage::Dialling(d) => Some(d.deadline()),
            Stage::Up(s) => s.poll_timeout(),
        });
        let others = match &self.handover {
            Some(h) => h.poll_timeout(),
            None => {
                let dials = self.links.values().filter_map(Link::poll_timeout);
                let dials = dials.filter(|_| self.stop_by.is_none());
                dials.chain(self.section.poll_timeout()).chain(self.stop_by).min()
            }
        };
        conns.chain(others).min()
    }

    pub fn timeouts(&mut self, net: &mut Net) {
        let now = net.now;
        if let Some(h) = &mut self.handover {
            h.handle_timeout(now);
            if h.ending().is_some() {
                self.log.push("given up".into());
                self.alive = false;
            }
        } else {
            self.section.handle_timeout(now);
        }
        for at in (0..self.conns.len()).rev() {
            let late = match &mut self.conns[at].stage {
                Stage::Accepting(a) => now >= a.deadline(),
                Stage::Dialling(d) => now >= d.deadline(),
                Stage::Up(s) => {
                    if s.poll_timeout().is_some_and(|t| now >= t) {
                        s.handle_timeout(now);
                    }
                    false
                }
            };
            if late {
                self.drop_conn(at, Down::Ours, net);
            }
        }
    }
}
