//! The threads of one worker, and the loop that one of them holds at a time.
//!
//! Owns       who holds the loop, who rests until called, and the jobs that come back while somebody else
//!            holds it.
//! Never      runs a job or names Python: both are the caller's.
//! Invariant  whoever has taken a job out of the loop has let go of it; so a loop that is held makes
//!            progress, and one that is free for longer than a tick of the watch has a thread sent to it.
//!
//! A thread takes the loop, serves bytes until a request is complete, lets go and runs the application
//! itself. Quick applications therefore never change threads: the one that is back finds the loop free
//! and takes it again, while the others rest. Only when an application takes its time does the watch
//! call another thread to the loop, or hold it itself while all of them are busy (ADR 0004).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use rustix::io::Errno;

use crate::application::{Application, Next, Waiter};
use crate::bell::Bell;
use crate::job::Job;
use crate::orders::Orders;
use crate::server::Server;
use crate::timer::Token;

/// How long the loop may be left alone while an application runs; also what counts as quick.
pub const TICK: Duration = Duration::from_millis(1);

/// Ticks that the loop is left alone by threads that are all busy before the watch holds it itself: until one
/// of them is back there is nobody to run what comes in, and bytes can wait that long.
const TICKS_ALONE: u32 = 8;

/// Ticks without a new job after which the watch sleeps until it is called.
const TICKS_AWAKE: u32 = 16;

/// The loop, held.
pub type Held<'a, A> = MutexGuard<'a, Server<A>>;

struct Rest<A: Application> {
    /// For each thread, the answers that it has begun and that can go on.
    mail: Vec<VecDeque<Box<Job<A>>>>,
    /// Threads that are called and have not got up yet.
    called: usize,
    /// The loop has ended: there is nothing to get up for.
    ended: bool,
}

/// Why a thread should look around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A signal arrived while it held the loop.
    Signal,
    /// It has rested: a signal that arrived meanwhile has woken whoever held the loop.
    Rested,
}

/// What a thread is to do.
enum Turn<'a, A: Application> {
    /// The loop is free.
    Loop(Held<'a, A>),
    /// An answer goes on that this thread has begun.
    Mail(Box<Job<A>>),
    /// Nothing more.
    Ended,
}

/// The threads of one worker.
pub struct Crew<A: Application> {
    server: Mutex<Server<A>>,
    orders: Arc<Orders>,
    /// Jobs that have run while somebody else held the loop.
    back: Mutex<Vec<Box<Job<A>>>>,
    /// Connections whose jobs are not waited for.
    written_off: Mutex<Vec<Token>>,
    /// Not zero while there is something in the two lists above that nobody has seen.
    left: AtomicUsize,
    /// Whoever holds the loop may be waiting in the kernel.
    asleep: AtomicBool,
    rest: Mutex<Rest<A>>,
    call: Condvar,
    /// Jobs in the mail of all threads.
    letters: AtomicUsize,
    /// Threads that rest, called or not.
    resting: AtomicUsize,
    /// The watch holds the loop, or is about to take it.
    watch_holds: AtomicBool,
    /// The watch sleeps until a job leaves.
    watch_sleeps: AtomicBool,
    watch_bell: Bell,
    hands_over: bool,
    /// A signal arrived while the watch held the loop.
    signal_due: AtomicBool,
    /// Jobs that have left the loop.
    departures: AtomicU64,
    /// The last application call took longer than a tick: more are to be expected.
    slow: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends its worker; what it leaves is looked at only on the way out.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A: Application> Crew<A> {
    /// A crew of this many threads around a loop.
    ///
    /// # Errors
    /// The kernel gave no descriptor.
    pub fn new(server: Server<A>, orders: Arc<Orders>, threads: usize) -> Result<Self, Errno> {
        Ok(Self {
            hands_over: server.hands_over(),
            server: Mutex::new(server),
            orders,
            back: Mutex::new(Vec::new()),
            written_off: Mutex::new(Vec::new()),
            left: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            rest: Mutex::new(Rest {
                mail: (0..threads).map(|_| VecDeque::new()).collect(),
                called: 0,
                ended: false,
            }),
            call: Condvar::new(),
            letters: AtomicUsize::new(0),
            resting: AtomicUsize::new(0),
            watch_holds: AtomicBool::new(false),
            watch_sleeps: AtomicBool::new(false),
            watch_bell: Bell::new()?,
            signal_due: AtomicBool::new(false),
            departures: AtomicU64::new(0),
            slow: AtomicBool::new(false),
        })
    }

    /// Serves in this thread, the one with this number, until the loop has ended. `run` runs a job;
    /// `look` is told when there may be something outside the loop to look at.
    ///
    /// # Errors
    /// The kernel refused to wait, or what `look` gives.
    pub fn work<W: Waiter, E: From<Errno>>(
        &self,
        thread: usize,
        waiter: &mut W,
        mut run: impl FnMut(&mut Job<A>, &mut W),
        mut look: impl FnMut(Notice) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut held = None;
        loop {
            if self.signal_due.load(Relaxed) && self.signal_due.swap(false, SeqCst) {
                drop(held.take()); // Signal handlers may take their time.
                look(Notice::Signal)?;
            }
            if self.letters.load(SeqCst) > 0 {
                held = None; // One of them may be for this thread: `take` looks.
            }
            let mut server = match held.take() {
                Some(server) => server,
                None => match self.take(thread, waiter, &mut look)? {
                    Turn::Loop(server) => server,
                    Turn::Mail(mut job) => {
                        run(&mut job, waiter);
                        held = self.give_back(job);
                        continue;
                    }
                    Turn::Ended => return Ok(()),
                },
            };
            match self.next(&mut server, waiter) {
                Ok(Next::Job(job)) if job.home.is_some_and(|home| home != thread) => {
                    self.departures.fetch_add(1, Relaxed);
                    // Before the loop is free: its home may find the loop ended and leave.
                    self.send_home(job);
                    drop(server);
                }
                Ok(Next::Job(mut job)) => {
                    self.departures.fetch_add(1, Relaxed);
                    drop(server);
                    self.look_after_the_loop();
                    job.home = Some(thread);
                    run(&mut job, waiter);
                    held = self.give_back(job);
                }
                Ok(Next::Woken | Next::Idle(_)) => held = Some(server),
                Ok(Next::Signal) => {
                    drop(server); // Signal handlers may take their time, and may want the loop looked after.
                    look(Notice::Signal)?;
                }
                Ok(Next::Ended) => {
                    drop(server);
                    self.end(); // `take` says what is left for this thread.
                }
                Err(errno) => {
                    drop(server);
                    self.end();
                    return Err(errno.into());
                }
            }
        }
    }

    /// The rest of an answer runs in the thread that began it: its application may have left things there.
    fn send_home(&self, job: Box<Job<A>>) {
        let home = job.home.unwrap_or_default();
        self.letters.fetch_add(1, SeqCst);
        lock(&self.rest).mail[home].push_back(job);
        self.call.notify_all();
        self.orders.ring(); // It may be the one that is about to wait in the loop.
    }

    /// Whether connections can change workers.
    pub fn hands_over(&self) -> bool {
        self.hands_over
    }

    /// Goes on with the loop after taking in what has come back.
    ///
    /// # Errors
    /// The kernel refused to wait.
    pub fn next(&self, server: &mut Server<A>, waiter: &mut impl Waiter) -> Result<Next<A>, Errno> {
        self.take_back(server);
        self.asleep.store(true, SeqCst);
        // Given back after the look above and before the flag: nobody has rung for it.
        self.take_back(server);
        let next = server.next(waiter);
        self.asleep.store(false, SeqCst);
        next
    }

    #[inline]
    fn take_back(&self, server: &mut Server<A>) {
        if self.left.load(SeqCst) > 0 {
            self.take_back_what_is_left(server);
        }
    }

    #[cold]
    fn take_back_what_is_left(&self, server: &mut Server<A>) {
        self.left.store(0, SeqCst); // Before the look: what is left from here on is seen the next time.
        // Taken first: what follows may run Python code, and that may give jobs back.
        let written_off = std::mem::take(&mut *lock(&self.written_off));
        for token in written_off {
            server.write_off(token);
        }
        let back = std::mem::take(&mut *lock(&self.back));
        for job in back {
            server.complete(job);
        }
    }

    /// Gives a job back; with it comes the loop, if nobody else holds it.
    pub fn give_back(&self, job: Box<Job<A>>) -> Option<Held<'_, A>> {
        if let Some(left) = job.left {
            let took_ns = left.left_ns.saturating_sub(left.entered_ns);
            self.slow.store(took_ns > TICK.as_nanos() as u64, Relaxed);
        }
        if let Some(mut server) = self.try_take() {
            server.complete(job);
            return Some(server);
        }
        lock(&self.back).push(job);
        self.left.fetch_add(1, SeqCst);
        if self.asleep.load(SeqCst) {
            self.orders.ring();
        }
        // The holder may have let go without having seen the job.
        self.try_take()
    }

    /// The loop, if nobody holds it.
    pub fn try_take(&self) -> Option<Held<'_, A>> {
        match self.server.try_lock() {
            Ok(server) => Some(server),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// What this thread is to do next. Rests until there is something.
    fn take<E>(
        &self,
        thread: usize,
        waiter: &mut impl Waiter,
        look: &mut impl FnMut(Notice) -> Result<(), E>,
    ) -> Result<Turn<'_, A>, E> {
        loop {
            let mut rest = lock(&self.rest);
            if let Some(job) = rest.mail[thread].pop_front() {
                self.letters.fetch_sub(1, SeqCst);
                return Ok(Turn::Mail(job));
            }
            let has_ended = rest.ended;
            drop(rest);
            if has_ended {
                // A job of this thread that came back while the loop was ending has been taken in by nobody.
                let is_left = !lock(&self.back).is_empty();
                return Ok(if is_left { Turn::Loop(lock(&self.server)) } else { Turn::Ended });
            }
            if let Some(server) = self.try_take() {
                return Ok(Turn::Loop(server));
            }
            self.lie_down();
            if self.watch_holds.load(SeqCst) {
                self.orders.ring(); // It lets go for whoever rests.
            }
            waiter.wait(|| {
                let mut rest = lock(&self.rest);
                while rest.called == 0 && rest.mail[thread].is_empty() && !rest.ended {
                    rest = self.call.wait(rest).unwrap_or_else(PoisonError::into_inner);
                }
                if rest.mail[thread].is_empty() {
                    rest.called = rest.called.saturating_sub(1);
                }
                // With the lock held: whoever calls must not count on one that is up already.
                self.resting.fetch_sub(1, SeqCst);
            });
            look(Notice::Rested)?;
        }
    }

    fn lie_down(&self) {
        let _rest = lock(&self.rest);
        self.resting.fetch_add(1, SeqCst);
    }

    /// A thread is about to leave the loop for an application.
    fn look_after_the_loop(&self) {
        if self.watch_sleeps.load(SeqCst) {
            self.watch_bell.ring();
        }
        if self.slow.load(Relaxed) {
            self.call_one();
        }
    }

    /// Sends a resting thread to the loop; false when there is none.
    fn call_one(&self) -> bool {
        let mut rest = lock(&self.rest);
        if rest.called < self.resting.load(SeqCst) {
            rest.called += 1;
            self.call.notify_one();
        }
        rest.called > 0
    }

    /// Leaves a signal that the watch has seen to the threads of the crew.
    pub fn pass_signal_on(&self) {
        self.signal_due.store(true, SeqCst);
        self.orders.ring();
    }

    /// Makes the watch take a turn.
    pub fn wake_watch(&self) {
        self.watch_bell.ring();
    }

    /// Somebody else has answered for the job of this connection: the loop's end does not wait for it.
    pub fn write_off(&self, token: Token) {
        lock(&self.written_off).push(token);
        self.left.fetch_add(1, SeqCst);
        self.orders.ring();
    }

    /// Ends the crew: its threads come back as soon as they have run what they run.
    pub fn end(&self) {
        lock(&self.rest).ended = true;
        self.call.notify_all();
        self.watch_bell.ring();
    }

    /// Whether the loop has ended.
    pub fn has_ended(&self) -> bool {
        lock(&self.rest).ended
    }
}

/// Looks after the loop of a crew whose threads are all inside the application.
pub struct Watch<'a, A: Application> {
    crew: &'a Crew<A>,
    seen: u64,
    /// Ticks without a departure during which somebody held the loop.
    unchanged: u32,
    /// Ticks without a departure during which nobody did.
    alone: u32,
    /// Of those, how many before the watch holds the loop.
    patience: u32,
}

impl<'a, A: Application> Watch<'a, A> {
    /// A watch that has seen nothing yet.
    pub fn new(crew: &'a Crew<A>) -> Self {
        // With siblings there may be somebody to run what comes in: it is handed over.
        let patience = if crew.hands_over { 1 } else { TICKS_ALONE };
        Self { crew, seen: 0, unchanged: 0, alone: 0, patience }
    }

    /// The descriptor to poll between two turns, together with whatever else the thread listens to.
    pub fn bell(&self) -> &Bell {
        &self.crew.watch_bell
    }

    /// How long to poll; none for as long as nothing rings.
    pub fn patience(&mut self) -> Option<Duration> {
        if self.unchanged < TICKS_AWAKE {
            return Some(TICK);
        }
        self.crew.watch_sleeps.store(true, SeqCst);
        // A job that left before the flag was seen has rung for nobody.
        let departed = self.crew.departures.load(SeqCst) != self.seen;
        departed.then_some(TICK)
    }

    /// One turn: has the loop been left alone since the last one, somebody is sent to it. True when
    /// something outside asked for attention meanwhile.
    ///
    /// # Errors
    /// The kernel refused to wait.
    pub fn turn(&mut self, waiter: &mut impl Waiter) -> Result<bool, Errno> {
        let crew = self.crew;
        crew.watch_sleeps.store(false, SeqCst);
        crew.watch_bell.silence();
        let departures = crew.departures.load(SeqCst);
        if departures != self.seen {
            self.seen = departures;
            self.unchanged = 0;
            self.alone = 0;
            return Ok(false);
        }
        let Some(server) = crew.try_take() else {
            self.unchanged = (self.unchanged + 1).min(TICKS_AWAKE);
            return Ok(false); // Somebody holds the loop.
        };
        drop(server);
        self.unchanged = 0;
        self.alone += 1;
        if crew.call_one() || self.alone < self.patience { Ok(false) } else { self.stand_in(waiter) }
    }

    /// Holds the loop while every thread is busy, until somebody wants it: bytes move and time passes,
    /// but no job leaves.
    fn stand_in(&mut self, waiter: &mut impl Waiter) -> Result<bool, Errno> {
        let crew = self.crew;
        crew.watch_holds.store(true, SeqCst);
        let mut tended = Ok(false);
        if let Some(mut server) = crew.try_take()
            && crew.resting.load(SeqCst) == 0
        {
            crew.take_back(&mut server);
            crew.asleep.store(true, SeqCst);
            crew.take_back(&mut server);
            tended = server.tend(waiter);
            crew.asleep.store(false, SeqCst);
            if server.is_over() && !server.take_what_nobody_else_will() {
                crew.end();
            }
        }
        crew.watch_holds.store(false, SeqCst);
        crew.call_one();
        tended
    }
}
