//! The answer to a request that takes too long, by whoever is not stuck in it.
//!
//! Owns       the 504, and the moment from which a worker of one thread cannot give it by itself.
//! Never      needs the interpreter lock: the application may hold it, and never let go.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bicorn_reactor::clock::{HttpDate, monotonic_ns};
use bicorn_reactor::{Crew, Gate, Orders, Outbox, Waiter};

use crate::chunk::Chunk;
use crate::front::Front;
use crate::scoreboard::Slot;
use crate::wsgi::push_error;

/// How long after `timeout` the application may still be broken off from within: the arbiter asks for that, and
/// kills the worker a second later.
const ABORT: Duration = Duration::from_millis(500);

/// How often to look whether that is over, in milliseconds.
const LOOK_MS: u64 = 250;

/// A 504 to a client whose application has not answered in time; `request` is its method and target.
pub fn answer_late(socket: &OwnedFd, server: &[u8], request: &[u8]) {
    let mut outbox = Outbox::<Chunk>::default();
    let with_body = !request.starts_with(b"HEAD ");
    push_error(&mut outbox, 504, server, HttpDate::default().now(), with_body);
    // Nothing else is on its way: a socket that does not take so little is broken.
    let _ = outbox.flush(socket.as_fd(), |_| {});
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
}

/// What the watch of a worker of one thread knows about the request in it.
pub struct Overtime {
    slot: Slot,
    orders: Arc<Orders>,
    gate: Arc<Gate>,
    /// The Server field of its answers.
    server: Vec<u8>,
    /// None if a request may take as long as it likes.
    limit: Option<Duration>,
    /// The application is stuck, and nothing has been done about it.
    is_stuck: bool,
    /// When the request entered about which everything has been done.
    done_ns: u64,
}

impl Overtime {
    /// `timeout` is 0 for none.
    pub fn new(slot: Slot, orders: Arc<Orders>, gate: Arc<Gate>, server: Vec<u8>, timeout: Duration) -> Self {
        let limit = (!timeout.is_zero()).then(|| timeout + ABORT);
        Self { slot, orders, gate, server, limit, is_stuck: false, done_ns: 0 }
    }

    fn look(&mut self) {
        let row = self.slot.row();
        let started_ns = row.request.started_ns.load(Relaxed);
        let Some(limit) = self.limit.filter(|_| started_ns != 0 && started_ns != self.done_ns) else {
            return;
        };
        let silent_ns = monotonic_ns().saturating_sub(row.heartbeat_ns.load(Relaxed));
        if silent_ns > limit.as_nanos() as u64 && !self.gate.is_taken() {
            self.done_ns = started_ns;
            self.is_stuck = true;
            self.orders.ring(); // This thread is to let go of the loop.
        }
    }

    /// Does what can be done if the application is stuck: answers its client, and leaves other connections to the
    /// worker that follows.
    pub fn help(&mut self, crew: &Crew<Front>) {
        if !self.is_stuck {
            return;
        }
        let Some(mut server) = crew.try_take() else { return };
        self.is_stuck = false;
        if let Some((token, socket)) = server.departed() {
            if self.gate.shut() {
                answer_late(&socket, &self.server, &self.slot.row().request.text());
            }
            server.write_off(token);
        }
        server.leave_idle_behind();
    }
}

impl Waiter for Overtime {
    fn wait<R>(&mut self, block: impl FnOnce() -> R) -> R {
        let result = block();
        self.look();
        result
    }

    fn wait_ms_max(&self) -> u64 {
        LOOK_MS
    }

    fn proves_life(&self) -> bool {
        false
    }
}
