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
use crate::clock::monotonic_ns;
use crate::job::Job;
use crate::orders::Orders;
use crate::server::Server;
use crate::timer::Token;

/// What counts as quick: an application that takes longer has its loop looked after.
pub const TICK: Duration = Duration::from_millis(1);

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
    /// The loop is to do what can be done for the connections of a worker that is about to be killed.
    given_up: AtomicBool,
    /// Not zero while there is something in the lists above that nobody has seen.
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
    /// Jobs that have left the loop, and when the last one did.
    departures: AtomicU64,
    departed_ns: AtomicU64,
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
            given_up: AtomicBool::new(false),
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
            departed_ns: AtomicU64::new(0),
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
                    self.note_departure(&server);
                    // Before the loop is free: its home may find the loop ended and leave.
                    self.send_home(job);
                    drop(server);
                }
                Ok(Next::Job(mut job)) => {
                    self.note_departure(&server);
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

    fn note_departure(&self, server: &Server<A>) {
        self.departed_ns.store(server.now_ns(), Relaxed);
        // After the time, and before the look at whether the watch sleeps.
        self.departures.fetch_add(1, SeqCst);
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
        if self.given_up.swap(false, SeqCst) {
            server.give_up();
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
            if let Some(job) = self.letter_for(thread) {
                return Ok(Turn::Mail(job));
            }
            if self.has_ended() {
                return Ok(self.last_turn(thread));
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

    fn letter_for(&self, thread: usize) -> Option<Box<Job<A>>> {
        let job = lock(&self.rest).mail[thread].pop_front()?;
        self.letters.fetch_sub(1, SeqCst);
        Some(job)
    }

    /// What is left for this thread although the loop has ended.
    fn last_turn(&self, thread: usize) -> Turn<'_, A> {
        // A job of this thread that came back while the loop was ending may have been taken in by whoever held the
        // loop: a thread, which sends it home, or the watch, which leaves it there.
        let server = lock(&self.server);
        if let Some(job) = self.letter_for(thread) {
            return Turn::Mail(job);
        }
        let is_left = server.has_answers_to_close() || !lock(&self.back).is_empty();
        if is_left { Turn::Loop(server) } else { Turn::Ended }
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
    pub(crate) fn call_one(&self) -> bool {
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

    /// Somebody else has answered for the job of this connection: the loop's end does not wait for it.
    pub fn write_off(&self, token: Token) {
        lock(&self.written_off).push(token);
        self.left.fetch_add(1, SeqCst);
        self.orders.ring();
    }

    /// Has the loop give up, by whoever holds it; false if nobody has done it yet, so that one has to ask again.
    pub fn give_up(&self) -> bool {
        self.given_up.store(true, SeqCst);
        self.left.fetch_add(1, SeqCst);
        match self.try_take() {
            Some(mut server) => self.take_back(&mut server),
            None => self.orders.ring(),
        }
        !self.given_up.load(SeqCst)
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

    /// What wakes the watch.
    pub fn watch_bell(&self) -> &Bell {
        &self.watch_bell
    }

    /// Jobs that have left the loop so far.
    pub(crate) fn departures(&self) -> u64 {
        self.departures.load(SeqCst)
    }

    /// For how long the job has been out that left last, in nanoseconds.
    pub(crate) fn out_ns(&self) -> u64 {
        monotonic_ns().saturating_sub(self.departed_ns.load(Relaxed))
    }

    /// From now on a job that leaves rings for the watch.
    pub(crate) fn let_watch_sleep(&self) {
        self.watch_sleeps.store(true, SeqCst);
    }

    /// Whether the watch was asleep until now.
    pub(crate) fn take_watch_awake(&self) -> bool {
        self.watch_bell.silence();
        self.watch_sleeps.swap(false, SeqCst)
    }

    /// The watch holds the loop while every thread is busy, until somebody wants it: bytes move and time
    /// passes, but no job leaves.
    pub(crate) fn stand_in(&self, waiter: &mut impl Waiter) -> Result<bool, Errno> {
        self.watch_holds.store(true, SeqCst);
        let mut tended = Ok(false);
        if let Some(mut server) = self.try_take()
            && self.resting.load(SeqCst) == 0
        {
            self.take_back(&mut server);
            self.asleep.store(true, SeqCst);
            self.take_back(&mut server);
            tended = server.tend(waiter);
            self.asleep.store(false, SeqCst);
            if server.is_over() && !server.take_what_nobody_else_will() {
                self.end();
            }
        }
        self.watch_holds.store(false, SeqCst);
        self.call_one();
        tended
    }
}
