//! How the loop comes to its end.
//!
//! Owns       what an order to drain, to retire or to stop does, and when the loop is over.
//! Never      breaks an answer off in a drain: what was begun is finished.

use rustix::event::epoll;

use crate::accepting::Closed;
use crate::application::Application;
use crate::connection::Stage;
use crate::orders::Order;
use crate::server::Server;
use crate::timer::Token;

/// Connections taken from a listen queue at the beginning of a drain: twice the default backlog, so
/// that what waited is served, and a flood cannot hold the drain up.
pub(crate) const DRAINED_ACCEPTS_MAX: usize = 4096;

impl<A: Application> Server<A> {
    /// Does what the loop was told to since it looked last.
    pub(crate) fn follow_orders(&mut self) {
        match self.sources.orders.current() {
            Order::Serve => {}
            Order::Drain => self.drain(DRAINED_ACCEPTS_MAX),
            Order::Retire if self.core.draining => {}
            Order::Retire => {
                self.drain(0);
                self.leave_idle_behind();
            }
            Order::Stop if self.stopped => {}
            Order::Stop => {
                self.drain(0);
                self.stopped = true;
                self.close_all();
            }
        }
    }

    /// Stops accepting, after `accepts_max` of what already waits in each listen queue has been taken.
    pub(crate) fn drain(&mut self, accepts_max: usize) {
        if self.core.draining {
            return;
        }
        self.core.draining = true;
        if self.is_orphan() {
            // All workers leave now. What one of them gave to another that does as well would be lost with the queue.
            self.core.app.slot().leave();
            self.sources.orders.give(Order::Drain);
        }
        self.closed = Closed::default();
        self.empty_listen_queues(accepts_max);
        self.take_what_nobody_else_will();
        if let Some(handover) = &self.sources.handover {
            let _ = epoll::delete(&self.epoll, handover.source());
        }
        for (_, connection) in &mut self.connections {
            if matches!(connection.stage, Stage::Preamble(_) | Stage::Idle | Stage::Lingering) {
                self.core.patience(connection, self.core.timeouts.drain_idle_ms);
            }
        }
        self.give_idle_away();
    }

    /// Whether the loop ends without an order, because the arbiter has gone.
    fn is_orphan(&self) -> bool {
        self.sources.lifeline.is_none() && self.sources.orders.current() == Order::Serve
    }

    /// Whether the drain is over, or the loop was stopped.
    pub fn is_over(&self) -> bool {
        // A job that is out may be the close() of an answer whose connection is gone.
        let served = self.connections.len() == self.written_off && self.out <= self.written_off;
        // What waits until there are descriptors again is not served yet.
        let served = served && self.closed.until_ms.is_none();
        (self.stopped || self.core.draining && served) && self.core.ready.is_empty()
    }

    /// Whether the loop was stopped, and has answers whose applications have not cleaned up yet.
    pub(crate) fn has_answers_to_close(&self) -> bool {
        self.stopped && !self.core.ready.is_empty()
    }

    /// Ends every connection; answers on their way are abandoned, so that their applications can clean up.
    fn close_all(&mut self) {
        let tokens: Vec<Token> = self.connections.iter().map(|(_, connection)| connection.token).collect();
        for token in tokens {
            self.close(token);
        }
    }
}
