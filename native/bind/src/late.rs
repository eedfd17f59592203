//! The answer to a request that takes too long, by whoever is not stuck in it.
//!
//! Owns       the 504 for one request, and the moment from which a worker cannot answer by itself.
//! Never      needs the interpreter lock: the application may hold it, and never let go.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use bicorn_reactor::clock::{HttpDate, monotonic_ns};
use bicorn_reactor::{Crew, Outbox, Socket, Waiter};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::chunk::Chunk;
use crate::front::Front;
use crate::scoreboard::Slot;
use crate::unsignalled::spawn_unsignalled;
use crate::wsgi::push_error;

/// How long after `timeout` the application may still be broken off from within: the arbiter asks for that, and
/// kills the worker a second later.
const ABORT_NS: u64 = 500_000_000;

/// For how long the same sign of life must have been the last one here as well.
const SEEN_NS: u64 = 200_000_000;

/// Who comes this much later than it wanted to from its rest was stopped or frozen, and its worker with it: a container
/// that was paused. The arbiter says the same of itself.
const OVERSLEPT_NS: u64 = 1_000_000_000;

/// How often to look whether it is over, in milliseconds.
const LOOK_MS: u64 = 250;

/// Between two looks that nothing else hangs on than when the worker begins to drain.
const REST_NS_MAX: u64 = 500_000_000;

/// Looks that follow one another at once or after a rest of `REST_NS_MAX`.
pub struct Looks {
    last_ns: u64,
}

impl Looks {
    /// The first one is to come.
    pub fn begin() -> Self {
        Self { last_ns: monotonic_ns() }
    }

    /// A look, after a rest without a bound.
    pub fn begin_again(&mut self) {
        self.last_ns = monotonic_ns();
    }

    /// Another look; gives for how long nothing ran since the last one, 0 if things did.
    pub fn slept_ns(&mut self, now_ns: u64) -> u64 {
        let rest_ns = now_ns.saturating_sub(std::mem::replace(&mut self.last_ns, now_ns));
        if rest_ns > REST_NS_MAX + OVERSLEPT_NS { rest_ns } else { 0 }
    }
}

/// A 504 to a client whose application has not answered in time; `request` is its method and target.
pub fn answer_late(socket: &Socket, server: &[u8], request: &[u8]) {
    let mut outbox = Outbox::<Chunk>::default();
    let with_body = !request.starts_with(b"HEAD ");
    push_error(&mut outbox, 504, server, HttpDate::default().now(), with_body);
    bicorn_reactor::late::send_last(socket, &mut outbox);
}

/// How long a worker may be silent, and leaving.
#[derive(Clone, Copy)]
pub struct Patience {
    /// `timeout`, 0 for none.
    pub timeout: Duration,
    /// `graceful_timeout`.
    pub graceful: Duration,
    /// The state of a worker that was told to drain.
    pub draining_state: u64,
}

/// Sees when a worker is about to be killed because it gives no sign of life.
pub struct Overtime {
    slot: Slot,
    patience: Patience,
    /// The last sign of life, and when it was first seen here.
    beat_ns: u64,
    seen_ns: u64,
    looks: Looks,
    /// When the worker was last seen to run again after it had not; 0 before.
    awake_ns: u64,
    /// When the worker was first seen to drain; 0 before.
    draining_ns: u64,
    /// The last sign of life before everything was done that can be.
    done_ns: u64,
}

impl Overtime {
    /// A look at the worker that has this row of the scoreboard.
    pub fn new(slot: Slot, patience: Patience) -> Self {
        Self {
            slot,
            patience,
            beat_ns: 0,
            seen_ns: 0,
            looks: Looks::begin(),
            awake_ns: 0,
            draining_ns: 0,
            done_ns: u64::MAX,
        }
    }

    /// Whether nothing is to be expected of the worker any more, and nothing has been done about it.
    pub fn is_over(&mut self) -> bool {
        let now_ns = monotonic_ns();
        let row = self.slot.row();
        let beat_ns = row.heartbeat_ns.load(Relaxed);
        if self.draining_ns == 0 && row.state.load(Relaxed) == self.patience.draining_state {
            self.draining_ns = now_ns;
        }
        if self.looks.slept_ns(now_ns) > 0 {
            self.awake_ns = now_ns;
        }
        if beat_ns != self.beat_ns {
            (self.beat_ns, self.seen_ns) = (beat_ns, now_ns);
        }
        let is_silent = now_ns >= self.due_ns() && now_ns - self.seen_ns >= SEEN_NS;
        is_silent && self.done_ns != beat_ns && !self.patience.timeout.is_zero()
    }

    /// Nobody has looked for a while because there was nothing to look at.
    pub fn look_again(&mut self) {
        self.looks.begin_again();
    }

    /// Everything has been done.
    pub fn settle(&mut self) {
        self.done_ns = self.beat_ns;
    }

    /// When the application cannot be broken off any more.
    fn due_ns(&self) -> u64 {
        let silent_ns =
            self.beat_ns.max(self.awake_ns).saturating_add(self.patience.timeout.as_nanos() as u64)
                + ABORT_NS;
        // A worker that drains is not killed for its silence.
        let leaving_ns = self.draining_ns.saturating_add(self.patience.graceful.as_nanos() as u64);
        let leaving_ns = leaving_ns.saturating_sub(REST_NS_MAX + ABORT_NS);
        if self.draining_ns == 0 { silent_ns } else { silent_ns.max(leaving_ns) }
    }

    /// How long nothing can have come of another look.
    pub fn rest(&self) -> Duration {
        let rest_ns = self.due_ns().saturating_sub(monotonic_ns());
        Duration::from_nanos(rest_ns.clamp(LOOK_MS * 500_000, REST_NS_MAX))
    }

    /// Looks, and has the loop give up if it is over.
    pub fn look(&mut self, crew: &Crew<Front>) {
        if self.is_over() && crew.give_up() {
            self.settle();
        }
    }
}

/// Who stands in for a thread that is inside the application, and looks meanwhile whether it is stuck there.
pub struct Lookout<'a> {
    /// The loop.
    pub crew: &'a Crew<Front>,
    /// When it is over.
    pub overtime: Overtime,
}

impl Waiter for Lookout<'_> {
    fn wait<R>(&mut self, block: impl FnOnce() -> R) -> R {
        let result = block();
        self.overtime.look(self.crew);
        result
    }

    fn wait_ms_max(&self) -> u64 {
        LOOK_MS
    }

    fn proves_life(&self) -> bool {
        false
    }
}

/// Looks after a loop that is stepped by somebody who may be stuck, from a thread of its own, until it has ended;
/// `besides` is called with each look.
pub fn look_after(
    crew: Arc<Crew<Front>>,
    mut overtime: Overtime,
    besides: impl Fn() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let look = move || {
        while !crew.has_ended() {
            let rest = overtime.rest();
            let rest = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
            let _ = poll(&mut [PollFd::new(crew.watch_bell(), PollFlags::IN)], Some(&rest));
            overtime.look(&crew);
            besides();
        }
    };
    spawn_unsignalled("bicorn-watch", look)
}
