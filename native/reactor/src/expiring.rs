//! Time, as the loop sees it: how long it may wait, and whose patience is over.
//!
//! Owns       when the loop has to look again although the kernel says nothing.
//! Invariant  a connection is on the wheel no later than at its deadline; earlier, it is parked again.

use crate::application::Application;
use crate::connection::Connection;
use crate::core::{Core, Verdict};
use crate::ending::DRAINED_ACCEPTS_MAX;
use crate::exchange;
use crate::server::Server;

/// The longest wait: the worker proves its life at least this often, twice within the shortest `timeout`.
const WAIT_MS_MAX: u64 = 500;

/// How soon a connection that no sibling could take is offered again.
const OFFER_MS: u64 = 1;

impl<A: Application> Server<A> {
    /// When the loop looks again at the latest, though nothing has happened.
    pub(crate) fn next_look_ms(&self) -> Option<u64> {
        let stragglers_ms = self.seeks_stragglers().then_some(self.stragglers_ms);
        self.core.wheel.next_ms().into_iter().chain(self.closed.until_ms).chain(stragglers_ms).min()
    }

    /// How long it may wait for events.
    pub(crate) fn wait_ms(&self) -> u64 {
        if !self.resumed.is_empty() {
            return 0;
        }
        let now_ms = self.core.clock.now_ms();
        if !self.offered.is_empty() {
            return OFFER_MS;
        }
        self.next_look_ms().map_or(WAIT_MS_MAX, |at| at.saturating_sub(now_ms).clamp(1, WAIT_MS_MAX))
    }

    /// Does everything whose time has come.
    pub(crate) fn expire(&mut self) {
        let now_ms = self.core.clock.now_ms();
        if self.closed.until_ms.is_some_and(|until| until <= now_ms) {
            self.closed.until_ms = None;
            if self.core.draining {
                self.empty_listen_queues(DRAINED_ACCEPTS_MAX);
            } else {
                self.reopen();
            }
        }
        if self.seeks_stragglers() && self.stragglers_ms <= now_ms {
            self.stragglers_ms = now_ms + WAIT_MS_MAX;
            self.accept_stragglers();
        }
        let mut due = std::mem::take(&mut self.due);
        self.core.wheel.expire(now_ms, &mut due);
        for key in due.drain(..) {
            self.look_at(key);
        }
        self.due = due;
    }

    /// The wheel says that the time of whoever is in this place may have come.
    fn look_at(&mut self, key: u32) {
        if let Some(connection) = self.connections.get_mut(key as usize) {
            let token = connection.token;
            let verdict = look(connection, &mut self.core);
            self.settle(token, verdict);
        } else if self.parked_ms[key as usize] <= self.core.clock.now_ms() {
            self.parked_ms[key as usize] = u64::MAX;
        }
    }
}

/// Whether the connection's time has come; if not, it is parked until it may have.
fn look<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    let now_ms = core.clock.now_ms();
    // Parked twice, when its deadline had been moved closer, it is on the wheel still.
    if connection.parked_ms <= now_ms {
        connection.parked_ms = u64::MAX;
    }
    let due = connection.deadline_ms <= now_ms;
    let verdict = if due { exchange::time_out(connection, core) } else { Verdict::Keep };
    if verdict == Verdict::Keep && connection.deadline_ms < connection.parked_ms {
        connection.parked_ms = core.wheel.park(connection.token.key, connection.deadline_ms);
    }
    verdict
}
