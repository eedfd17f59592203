//! The native loop: whoever holds it accepts, reads, times, and hands out jobs.
//!
//! Owns       the epoll set, the listeners and the table of connections.
//! Never      reads or writes a connection itself: `exchange` does. Never runs the application: jobs do,
//!            while others may hold the loop.
//! Invariant  a connection is in the epoll set once, for both directions, edge-triggered: after its
//!            registration no further call is needed to change what is waited for.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use slab::Slab;

use crate::accepting::Closed;
use crate::application::{Application, Next, Waiter};
use crate::connection::{Connection, Stage};
use crate::core::{Core, Verdict};
use crate::ending::DRAINED_ACCEPTS_MAX;
use crate::exchange;
use crate::handover::Handover;
use crate::orders::Orders;
use crate::timer::Token;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;

/// Generation of the tokens that are no connection; the key says which.
pub(crate) const NOT_A_CONNECTION: u32 = u32::MAX;
const WAKE: u32 = 0;
const LIFELINE: u32 = 1;
const ORDERS: u32 = 2;
pub(crate) const HANDOVER: u32 = 3;
pub(crate) const FIRST_LISTENER: u32 = 4;

/// What the loop listens to besides clients.
pub struct Sources {
    /// Listening sockets, non-blocking; duplicates that the loop may close.
    pub listeners: Vec<OwnedFd>,
    /// Readable when a signal has arrived; drained by the loop.
    pub wake: Option<OwnedFd>,
    /// Hangs up when the arbiter is gone.
    pub lifeline: Option<OwnedFd>,
    /// What others tell the loop.
    pub orders: Arc<Orders>,
    /// Other processes accept on the same listeners.
    pub shared: bool,
    /// The queue of connections that change workers.
    pub handover: Option<Handover>,
    /// Connections that may be open; more wait in the listen queue.
    pub connections_max: usize,
}

/// The loop of one worker.
pub struct Server<A: Application> {
    pub(crate) core: Core<A>,
    pub(crate) epoll: OwnedFd,
    pub(crate) sources: Sources,
    pub(crate) connections: Slab<Connection<A>>,
    pub(crate) next_generation: u32,
    pub(crate) closed: Closed,
    /// When the listeners are looked at although the kernel has said nothing of them.
    pub(crate) stragglers_ms: u64,
    /// What the kernel said last, and about whom.
    pub(crate) events: Vec<(Token, EventFlags)>,
    /// How far `events` have been dealt with.
    event: usize,
    /// What follows the events of a round is done too.
    rounded: bool,
    woken: bool,
    signalled: bool,
    pub(crate) stopped: bool,
    /// When connections were counted last, and how long the loop has waited for events since.
    pub(crate) balanced_ns: u64,
    pub(crate) rested_ns: u64,
    /// Connections with a request that a sibling may run sooner, while every thread is busy.
    pub(crate) offered: VecDeque<Token>,
    /// Whose turn was over, or has been put off; it comes before that of `events`.
    pub(crate) resumed: VecDeque<Token>,
    /// How many of them have their turn in this round. The others came while it was under way, and without its end
    /// nobody would look at the listeners.
    pub(crate) turns: usize,
    /// Jobs that have left and are not back.
    pub(crate) out: usize,
    /// Connections that are not waited for at the end.
    pub(crate) written_off: usize,
    pub(crate) answered: u64,
    pub(crate) due: Vec<u32>,
    /// For each place of the table, when the wheel looks at it next, as its last connection left it.
    pub(crate) parked_ms: Vec<u64>,
}

pub(crate) fn token_data(token: Token) -> EventData {
    EventData::new_u64(u64::from(token.generation) << 32 | u64::from(token.key))
}

pub(crate) fn special(key: u32) -> EventData {
    token_data(Token { key, generation: NOT_A_CONNECTION })
}

fn token_of(event: &Event) -> Token {
    let data = event.data.u64();
    Token { key: data as u32, generation: (data >> 32) as u32 }
}

/// Whether both directions of a connection are gone.
fn has_hung_up(flags: EventFlags) -> bool {
    flags.intersects(EventFlags::HUP | EventFlags::ERR)
}

/// Waits, and keeps what came of it in a form that may change threads.
fn gather(epoll: &OwnedFd, timeout: &Timespec, events: &mut Vec<(Token, EventFlags)>) -> Result<(), Errno> {
    let mut places = [MaybeUninit::<Event>::uninit(); EVENTS_MAX];
    let (told, _) = epoll::wait(epoll, &mut places[..], Some(timeout))?;
    events.extend(told.iter().map(|event| (token_of(event), event.flags)));
    Ok(())
}

impl<A: Application> Server<A> {
    /// A loop that listens but has not run yet.
    ///
    /// # Errors
    /// The kernel refused the epoll set or one of the sources.
    pub fn new(core: Core<A>, sources: Sources) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        if let Some(wake) = &sources.wake {
            epoll::add(&epoll, wake, special(WAKE), EventFlags::IN)?;
        }
        if let Some(lifeline) = &sources.lifeline {
            // A hang-up is always reported; nothing else can happen on it.
            epoll::add(&epoll, lifeline, special(LIFELINE), EventFlags::empty())?;
        }
        epoll::add(&epoll, sources.orders.bell(), special(ORDERS), EventFlags::IN)?;
        let server = Self {
            balanced_ns: core.clock.now_ns(),
            core,
            epoll,
            sources,
            connections: Slab::new(),
            next_generation: 0,
            closed: Closed::default(),
            stragglers_ms: 0,
            events: Vec::with_capacity(EVENTS_MAX),
            event: 0,
            rounded: true,
            woken: false,
            signalled: false,
            stopped: false,
            rested_ns: 0,
            offered: VecDeque::new(),
            resumed: VecDeque::new(),
            turns: 0,
            out: 0,
            written_off: 0,
            answered: 0,
            due: Vec::new(),
            parked_ms: Vec::new(),
        };
        server.watch_listeners()?;
        Ok(server)
    }

    /// Serves until there is something for the caller to do.
    ///
    /// A drain ends when the last connection has.
    ///
    /// # Errors
    /// The kernel refused to wait.
    pub fn next(&mut self, waiter: &mut impl Waiter) -> Result<Next<A>, Errno> {
        if !waiter.may_block() {
            self.core.app.slot().rests(false);
        }
        loop {
            self.follow_orders();
            if let Some(job) = self.depart() {
                return Ok(Next::Job(job));
            }
            if std::mem::take(&mut self.signalled) {
                return Ok(Next::Signal);
            }
            if std::mem::take(&mut self.woken) {
                return Ok(Next::Woken);
            }
            if self.move_on() {
                continue;
            }
            if self.is_over() {
                if self.take_what_nobody_else_will() {
                    continue;
                }
                return Ok(Next::Ended);
            }
            if waiter.proves_life() {
                self.core.app.slot().beat(self.core.clock.now_ns());
            }
            if !self.wait(waiter)? {
                self.core.app.slot().rests(true);
                return Ok(Next::Idle(Duration::from_millis(self.wait_ms())));
            }
        }
    }

    /// Moves bytes and time until woken, without letting a job leave; true when a signal has arrived.
    ///
    /// # Errors
    /// The kernel refused to wait.
    pub fn tend(&mut self, waiter: &mut impl Waiter) -> Result<bool, Errno> {
        // Where the number of requests is bounded, what no sibling can take is refused rather than left waiting.
        let is_bounded = self.core.concurrency_max != usize::MAX;
        let leaves_it = !is_bounded || self.core.app.idle_siblings() > 0;
        let hands_over = self.hands_over() && !self.core.draining && leaves_it;
        if hands_over {
            self.turns += self.events.len() - self.event;
            self.closed.busy = true;
            self.ignore_listeners();
        }
        let result = self.tend_until_woken(waiter);
        if hands_over {
            while self.move_on() {} // So that all who wait do so in one line.
            self.closed.busy = false;
            self.reopen();
            // Nobody took them, and they have waited for longer than those who come now.
            self.offered.append(&mut self.resumed);
            std::mem::swap(&mut self.offered, &mut self.resumed);
            self.turns = self.turns.min(self.resumed.len());
        }
        result?;
        Ok(std::mem::take(&mut self.signalled))
    }

    fn tend_until_woken(&mut self, waiter: &mut impl Waiter) -> Result<(), Errno> {
        while !self.signalled && !std::mem::take(&mut self.woken) {
            self.follow_orders();
            if self.connections.is_empty() || self.is_over() {
                break;
            }
            if self.move_on() {
                continue;
            }
            self.offer();
            self.wait(waiter)?;
        }
        Ok(())
    }

    /// Deals with one connection, or with what follows the last one; false when the round is over.
    #[inline]
    fn move_on(&mut self) -> bool {
        if (self.turns > 0 || self.closed.busy)
            && let Some(token) = self.resumed.pop_front()
        {
            self.turns -= usize::from(!self.closed.busy);
            self.resume(token);
            return true;
        }
        if self.event < self.events.len() {
            self.event += 1;
            self.dispatch(self.event - 1);
            return true;
        }
        if self.rounded {
            return false;
        }
        self.rounded = true;
        self.expire();
        if self.core.draining {
            self.give_idle_away();
        }
        true
    }

    /// The loop's clock, which a job that comes back moves on.
    pub(crate) fn now_ns(&self) -> u64 {
        self.core.clock.now_ns()
    }

    /// Whether there is work that no event will announce.
    pub fn wants_attention(&self) -> bool {
        let is_rounded = self.resumed.is_empty() && self.core.unfinished.is_empty();
        !self.core.ready.is_empty() || !is_rounded || self.core.draining
    }

    /// The epoll set, readable when there is something to do: for loops that wait on it among others.
    pub fn set(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Fills `events`; false when there are none and the waiter may not block.
    fn wait(&mut self, waiter: &mut impl Waiter) -> Result<bool, Errno> {
        self.resumed.extend(self.core.unfinished.drain(..));
        let timeout_ms = if waiter.may_block() { self.wait_ms().min(waiter.wait_ms_max()) } else { 0 };
        let timeout = Timespec {
            tv_sec: (timeout_ms / 1_000) as i64,
            tv_nsec: (timeout_ms % 1_000 * 1_000_000) as i64,
        };
        self.events.clear();
        self.event = 0;
        let began_ns = self.core.clock.now_ns();
        let (epoll, events) = (&self.epoll, &mut self.events);
        let mut wait = || gather(epoll, &timeout, events);
        let result = if timeout_ms == 0 {
            wait()
        } else {
            self.core.app.slot().rests(true);
            let result = waiter.wait(wait);
            self.core.app.slot().rests(false);
            result
        };
        self.core.clock.read();
        match result {
            Ok(()) => {}
            Err(Errno::INTR) => self.signalled = true,
            Err(errno) => return Err(errno),
        }
        self.turns = self.turns.max(if self.closed.busy { 0 } else { self.resumed.len() });
        self.balance(self.core.clock.now_ns() - began_ns);
        let due = self.next_look_ms().is_some_and(|at| at <= self.core.clock.now_ms());
        self.rounded = self.events.is_empty() && self.resumed.is_empty() && !due;
        Ok(!self.rounded || waiter.may_block())
    }

    #[inline]
    fn dispatch(&mut self, event: usize) {
        let (token, flags) = self.events[event];
        if token.generation == NOT_A_CONNECTION {
            return self.dispatch_source(token);
        }
        let Some(connection) = self.connections.get_mut(token.key as usize) else { return };
        if connection.token != token {
            return; // An event of a connection that was closed earlier in this very round.
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            connection.readable = true;
        }
        connection.half_closed |= flags.contains(EventFlags::RDHUP);
        let verdict = match connection.stage {
            Stage::Idle if self.closed.busy && connection.readable && !has_hung_up(flags) => {
                return self.keep_to_offer(token);
            }
            Stage::Serving(_) => {
                connection.writable |= flags.contains(EventFlags::OUT);
                connection.gone |= has_hung_up(flags);
                return;
            }
            Stage::Responding(_) if has_hung_up(flags) => Verdict::Close,
            Stage::Responding(_) if flags.contains(EventFlags::OUT) => {
                exchange::resume(connection, &mut self.core)
            }
            _ if connection.readable => exchange::readable(connection, &mut self.core),
            _ => Verdict::Keep,
        };
        self.settle(token, verdict);
    }

    #[inline]
    pub(crate) fn settle(&mut self, token: Token, verdict: Verdict) {
        if verdict == Verdict::Close {
            self.close(token);
        }
    }

    pub(crate) fn is_open(&self, token: Token) -> bool {
        self.connections.get(token.key as usize).is_some_and(|connection| connection.token == token)
    }

    pub(crate) fn close_if_open(&mut self, token: Token) {
        if self.is_open(token) {
            self.close(token);
        }
    }

    pub(crate) fn close(&mut self, token: Token) {
        let connection = self.connections.remove(token.key as usize);
        self.parked_ms[token.key as usize] = connection.parked_ms;
        self.core.app.slot().connection_closed();
        self.written_off -= usize::from(connection.written_off);
        if let Stage::Responding(responding) = connection.stage
            && responding.stream.is_some()
        {
            let mut job = self.core.spare_job();
            job.stream = responding.stream;
            job.home = responding.home;
            self.abandon(job);
        }
        if self.closed.full {
            self.closed.full = false;
            self.reopen();
        }
    }

    fn dispatch_source(&mut self, source: Token) {
        match source.key {
            HANDOVER.. if self.closed.busy => self.keep_to_offer(source),
            HANDOVER => self.take_some_over(),
            ORDERS => {
                self.sources.orders.bell().silence();
                self.woken = true;
            }
            WAKE => {
                self.signalled = true;
                let wake = self.sources.wake.as_ref().expect("only a registered source wakes");
                let mut scratch = [0; 64];
                while matches!(rustix::io::read(wake, &mut scratch[..]), Ok(count) if count == scratch.len())
                {
                }
            }
            LIFELINE => {
                // Closing our descriptor would not take it out of the set: it is a duplicate.
                if let Some(lifeline) = self.sources.lifeline.take() {
                    let _ = epoll::delete(&self.epoll, lifeline);
                }
                self.drain(DRAINED_ACCEPTS_MAX);
            }
            listener => self.accept((listener - FIRST_LISTENER) as usize),
        }
    }

    fn resume(&mut self, token: Token) {
        if token.generation == NOT_A_CONNECTION {
            return self.dispatch_source(token);
        }
        if let Some(connection) = self.connections.get_mut(token.key as usize)
            && connection.token == token
        {
            if self.closed.busy && connection.readable && matches!(connection.stage, Stage::Idle) {
                return self.keep_to_offer(token);
            }
            let verdict = exchange::resume(connection, &mut self.core);
            self.settle(token, verdict);
        }
    }
}
