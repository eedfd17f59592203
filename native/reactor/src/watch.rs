//! Looks after the loop of a crew whose threads are all inside the application.
//!
//! Owns       when to look next, and when the loop has been alone for too long.
//! Never      takes part in work that goes on without it: while jobs leave and come back it only looks, and
//!            it looks the less often the longer that goes on.
//! Invariant  a job that takes its time is noticed within two looks, each of them at most `TICK_MAX` after
//!            the one before; and from then on there is a look every tick.

use std::time::Duration;

use rustix::io::Errno;

use crate::application::{Application, Waiter};
use crate::bell::Bell;
use crate::crew::{Crew, TICK};

/// The longest time between two looks of a watch that is awake. Each look takes the processor from a thread
/// that is at work, so a busy worker pays for it; a connection that is to be handed over waits for it.
const TICK_MAX: Duration = Duration::from_millis(8);

/// Looks at a loop that is left alone by threads that are all busy before the watch holds it itself: until one
/// of them is back there is nobody to run what comes in, and bytes can wait that long.
const LOOKS_ALONE: u32 = 8;

/// The same where siblings may run what comes in. Not the first look: a thread that the machine has taken the
/// processor from in the middle of a quick job looks like one that takes its time, and it wants the loop back.
const LOOKS_ALONE_BESIDE_SIBLINGS: u32 = 2;

/// Looks at a held loop that no job leaves, after which the watch sleeps until one does.
const LOOKS_SILENT: u32 = 2;

/// The watch over one crew.
pub struct Watch<'a, A: Application> {
    crew: &'a Crew<A>,
    /// Until the next look.
    tick: Duration,
    /// Departures as of the last look.
    seen: u64,
    /// Looks without a departure during which somebody held the loop.
    silent: u32,
    /// Looks at a loop that nobody held, with its last job out for a tick at least.
    alone: u32,
    /// Of those, how many before the watch holds the loop.
    patience: u32,
}

impl<'a, A: Application> Watch<'a, A> {
    /// A watch that has seen nothing yet.
    pub fn new(crew: &'a Crew<A>) -> Self {
        let patience = if crew.hands_over() { LOOKS_ALONE_BESIDE_SIBLINGS } else { LOOKS_ALONE };
        Self { crew, tick: TICK, seen: 0, silent: 0, alone: 0, patience }
    }

    /// The descriptor to poll between two turns, together with whatever else the thread listens to.
    pub fn bell(&self) -> &Bell {
        self.crew.watch_bell()
    }

    /// How long to poll; none for as long as nothing rings.
    pub fn patience(&mut self) -> Option<Duration> {
        if self.silent < LOOKS_SILENT {
            return Some(self.tick);
        }
        self.tick = TICK; // What wakes it may take its time.
        self.crew.let_watch_sleep();
        // A job that left before that was seen has rung for nobody.
        let departed = self.crew.departures() != self.seen;
        departed.then_some(TICK)
    }

    /// One turn: has the loop been left alone for a tick, somebody is sent to it. True when something outside
    /// asked for attention meanwhile.
    ///
    /// # Errors
    /// The kernel refused to wait.
    pub fn turn(&mut self, waiter: &mut impl Waiter) -> Result<bool, Errno> {
        let was_asleep = self.crew.take_watch_awake();
        let departures = self.crew.departures();
        let moves = departures != self.seen;
        if moves {
            self.seen = departures;
            self.silent = 0;
            self.alone = 0;
        }
        if self.crew.out_ns() < TICK.as_nanos() as u64 {
            if moves && !was_asleep {
                self.tick = (self.tick * 2).min(TICK_MAX);
            }
            return Ok(false);
        }
        let Some(server) = self.crew.try_take() else {
            self.silent = (self.silent + u32::from(!moves)).min(LOOKS_SILENT);
            return Ok(false); // Somebody holds the loop.
        };
        drop(server);
        self.tick = TICK;
        self.silent = 0;
        self.alone += 1;
        if self.crew.call_one() || self.alone < self.patience {
            Ok(false)
        } else {
            self.crew.stand_in(waiter)
        }
    }
}
