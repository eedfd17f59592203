//! The loop of the `gthread` worker: threads take turns at it, the main thread watches.
//!
//! Owns       what each thread is doing and since when; the 504 for a request that takes too long.
//! Never      runs the application on the main thread, so signals and timeouts are never late.
//! Invariant  a thread holds the interpreter lock only while it runs a job.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bicorn_reactor::clock::monotonic_ns;
use bicorn_reactor::crew::TICK;
use bicorn_reactor::timer::Token;
use bicorn_reactor::{Crew, Gate, Job, Notice, Order, Orders, Task, Unattached, Waiter, Watch};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::access::AccessLog;
use crate::deadline::{Due, Patience, watch_thread};
use crate::front::Front;
use crate::late::answer_late;
use crate::options::{Listener, Options, Parts, Site};
use crate::scoreboard::Slot;
use crate::sync_loop::Ended;
use crate::wsgi::{Wsgi, name};

/// How often the main thread looks at its threads, and shows that the worker lives.
const LOOK: Duration = Duration::from_millis(500);

/// How long a worker that was told to stop now waits for `close()` of the answers that it breaks off.
const CLOSING_NS_MAX: u64 = 1_000_000_000;

/// How long it waits for threads that were in the middle of a request, before it breaks off what they have begun
/// to answer and leaves the others behind.
const RETURNING_NS_MAX: u64 = 100_000_000;

/// What one thread is doing.
#[derive(Default)]
struct Post {
    /// When the request entered that it runs; 0 while it runs none.
    entered_ns: AtomicU64,
    /// When it has to be done.
    due: Arc<Due>,
    /// Its thread is there.
    at_work: AtomicBool,
    gate: Arc<Gate>,
    doing: Mutex<Doing>,
}

#[derive(Default)]
struct Doing {
    token: Option<Token>,
    socket: Option<Arc<OwnedFd>>,
    request: Vec<u8>,
    /// It is too late already, and that has been said.
    late: bool,
}

impl Post {
    fn is_late(&self, now_ns: u64) -> bool {
        let due_ns = self.due.0.load(SeqCst);
        // A connection that the application has taken over (a WebSocket) lives as long as its two ends like.
        due_ns != 0 && now_ns > due_ns && !self.gate.is_taken()
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, job: &mut Job<Front>, timeout: Duration) {
        let mut doing = self.doing();
        self.gate.reset();
        doing.token = Some(job.token);
        doing.socket.clone_from(&job.socket);
        doing.late = false;
        doing.request.clear();
        let (method, target) = name(job);
        doing.request.extend_from_slice(method);
        doing.request.push(b' ');
        doing.request.extend_from_slice(target);
        if job.task != Task::Call {
            self.gate.pass(); // Its answer has begun.
        }
        job.gate = Some(Arc::clone(&self.gate));
        let now_ns = monotonic_ns();
        self.entered_ns.store(now_ns, SeqCst);
        self.due.0.store(if timeout.is_zero() { 0 } else { now_ns + timeout.as_nanos() as u64 }, SeqCst);
    }

    fn end(&self, job: &mut Job<Front>) {
        let mut doing = self.doing();
        doing.late = false;
        self.entered_ns.store(0, SeqCst);
        self.due.0.store(0, SeqCst);
        doing.socket = None;
        job.gate = None;
    }
}

/// A request that takes too long.
struct Late {
    request: String,
    age: Duration,
    token: Option<Token>,
    /// There if nothing has been sent yet.
    socket: Option<Arc<OwnedFd>>,
}

/// A thread that is lost to a bug of ours takes its job with it: the worker ends, and another takes its place.
struct Unwound<'a>(&'a ThreadLoop);

impl Drop for Unwound<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.bugged.store(true, SeqCst);
            self.0.crew.end();
        }
    }
}

/// The loop of one worker with threads.
#[pyclass(frozen, module = "bicorn._core")]
pub struct ThreadLoop {
    crew: Crew<Front>,
    wsgi: Arc<Wsgi>,
    orders: Arc<Orders>,
    posts: Vec<Post>,
    /// How long a request may take; 0 for as long as it likes.
    timeout: Duration,
    /// Signal handlers may be due on the main thread.
    signalled: AtomicBool,
    /// The main thread watches, without the interpreter lock: no request may take that from it before.
    is_watched: (Mutex<bool>, Condvar),
    /// A thread has panicked.
    bugged: AtomicBool,
    /// When it was told to end at once; 0 before.
    stopped_ns: AtomicU64,
}

#[pymethods]
impl ThreadLoop {
    #[new]
    #[pyo3(signature = (app, worker, slot, listeners, options, threads, timeout, access=None, wake_fd=None, lifeline_fd=None))]
    #[allow(clippy::too_many_arguments, reason = "the keyword arguments of a Python constructor")]
    fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        worker: Py<PyAny>,
        slot: PyRef<'_, Slot>,
        listeners: Vec<Listener>,
        options: Options,
        threads: usize,
        timeout: f64,
        access: Option<Py<AccessLog>>,
        wake_fd: Option<i32>,
        lifeline_fd: Option<i32>,
    ) -> PyResult<Self> {
        if threads == 0 {
            return Err(PyValueError::new_err("a loop needs one thread at least"));
        }
        let slot = slot.clone();
        let site = Site { app, worker, slot, listeners, options, access, wake_fd, lifeline_fd };
        let Parts { server, wsgi, orders } = site.build(py)?;
        Ok(Self {
            crew: Crew::new(server, Arc::clone(&orders), threads).map_err(Ended::from)?,
            wsgi,
            orders,
            posts: (0..threads).map(|_| Post::default()).collect(),
            timeout: Duration::from_secs_f64(timeout),
            signalled: AtomicBool::new(false),
            is_watched: Default::default(),
            bugged: AtomicBool::new(false),
            stopped_ns: AtomicU64::new(0),
        })
    }

    /// Serves in the calling thread, the one with this number, until the loop has ended.
    fn work(&self, py: Python<'_>, thread: usize) -> PyResult<()> {
        let _guard = Unwound(self);
        let post = self.posts.get(thread).ok_or_else(|| PyValueError::new_err("no such thread"))?;
        post.at_work.store(true, SeqCst);
        let run = |job: &mut Job<Front>, _: &mut Unattached| {
            post.begin(job, self.timeout);
            Python::attach(|_| {
                job.run(&*self.wsgi);
                post.end(job);
                if job.left.is_some() {
                    self.wsgi.collect_if_due(|| self.is_idle());
                }
            });
        };
        let look = |notice| {
            if notice == Notice::Signal {
                self.signalled.store(true, SeqCst); // Their handlers run on the main thread only.
                self.crew.wake_watch();
            }
            Ok::<(), Errno>(())
        };
        watch_thread(Patience::Watch(Arc::clone(&post.due)));
        let result = py.detach(|| {
            self.wait_for_the_watch();
            self.crew.work(thread, &mut Unattached::default(), run, look)
        });
        post.at_work.store(false, SeqCst);
        Ok(result.map_err(Ended::from)?)
    }

    /// Watches in the main thread until the loop has ended; raises what ended it early.
    fn watch(&self, py: Python<'_>) -> PyResult<()> {
        let mut watch = Watch::new(&self.crew);
        let mut lookout = Lookout { threads: self, looked_ns: 0, late: Vec::new() };
        while !self.crew.has_ended() {
            py.detach(|| {
                self.let_threads_begin();
                self.watch_until_due(&mut watch, &mut lookout)
            })
            .map_err(Ended::from)?;
            if let Err(error) = py.check_signals() {
                *self.wsgi.fatal() = Some(error);
                self.stop();
                py.detach(|| self.let_answers_close(&mut watch)).map_err(Ended::from)?;
                break;
            }
            for (thread, late) in lookout.late.drain(..) {
                let answered = late.socket.is_some();
                self.wsgi.report(
                    py,
                    "request_late",
                    (thread, late.request, late.age.as_secs_f64(), answered),
                );
            }
        }
        if self.bugged.load(SeqCst) {
            return Err(PyRuntimeError::new_err("a bug in Bicorn: a thread of this worker has panicked"));
        }
        match self.wsgi.fatal().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Accept nothing new, finish what is there, then end. Safe in a signal handler.
    fn drain(&self) {
        self.orders.give(Order::Drain);
    }

    /// Accept nothing more, not even what waits already: a successor will. Safe in a signal handler.
    fn retire(&self) {
        self.orders.give(Order::Retire);
    }

    /// End at once. Safe in a signal handler.
    fn stop(&self) {
        let _ = self.stopped_ns.compare_exchange(0, monotonic_ns(), SeqCst, SeqCst);
        self.orders.give(Order::Stop);
    }
}

/// The main thread, which may hold the loop for as long as all others are busy, and looks at them meanwhile.
struct Lookout<'a> {
    threads: &'a ThreadLoop,
    looked_ns: u64,
    /// Requests that take too long, of which nothing has been said yet.
    late: Vec<(usize, Late)>,
}

impl Lookout<'_> {
    /// Looks, if it is time.
    fn look(&mut self) {
        let now_ns = monotonic_ns();
        if now_ns.saturating_sub(self.looked_ns) < LOOK.as_nanos() as u64 {
            return;
        }
        self.looked_ns = now_ns;
        self.threads.wsgi.slot().beat(now_ns);
        self.threads.name_oldest();
        self.late.extend(self.threads.shut_out_late_requests());
        if !self.late.is_empty() {
            self.threads.orders.ring(); // Whoever holds the loop lets go of it.
        }
    }
}

impl Waiter for Lookout<'_> {
    fn wait<R>(&mut self, block: impl FnOnce() -> R) -> R {
        let result = block();
        self.look();
        result
    }

    fn wait_ms_max(&self) -> u64 {
        LOOK.as_millis() as u64 / 2
    }

    fn proves_life(&self) -> bool {
        false // look() does.
    }
}

impl ThreadLoop {
    fn wait_for_the_watch(&self) {
        let (is_watched, told) = &self.is_watched;
        let guard = is_watched.lock().unwrap_or_else(PoisonError::into_inner);
        drop(told.wait_while(guard, |is_watched| !*is_watched));
    }

    fn let_threads_begin(&self) {
        let (is_watched, told) = &self.is_watched;
        if !std::mem::replace(&mut *is_watched.lock().unwrap_or_else(PoisonError::into_inner), true) {
            told.notify_all();
        }
    }

    /// Returns when Python has something to do: a signal, a late request, the end.
    fn watch_until_due(&self, watch: &mut Watch<'_, Front>, lookout: &mut Lookout<'_>) -> Result<(), Errno> {
        loop {
            let patience = watch.patience().map_or(LOOK, |patience| patience.min(LOOK));
            let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(patience.subsec_nanos()) };
            match poll(&mut [PollFd::new(watch.bell(), PollFlags::IN)], Some(&patience)) {
                Ok(_) => {}
                Err(Errno::INTR) => self.signalled.store(true, SeqCst),
                Err(errno) => return Err(errno),
            }
            if watch.turn(lookout)? {
                self.signalled.store(true, SeqCst);
            }
            lookout.look();
            if !lookout.late.is_empty() {
                return Ok(());
            }
            if self.signalled.swap(false, SeqCst) || self.crew.has_ended() {
                return Ok(());
            }
        }
    }

    /// Shows which request has been running longest: the one that entered last hides it from the scoreboard.
    fn name_oldest(&self) {
        let oldest = &self.wsgi.slot().oldest;
        let running = |post: &&Post| post.entered_ns.load(Relaxed) != 0;
        let Some(post) = self.posts.iter().filter(running).min_by_key(|post| post.entered_ns.load(Relaxed))
        else {
            return oldest.clear();
        };
        let doing = post.doing(); // Its thread can begin or end nothing meanwhile.
        match post.entered_ns.load(Relaxed) {
            0 => oldest.clear(),
            entered_ns => {
                let blank =
                    doing.request.iter().position(|&byte| byte == b' ').unwrap_or(doing.request.len());
                let (method, target) = doing.request.split_at(blank);
                oldest.set(entered_ns, method, target.get(1..).unwrap_or_default());
            }
        }
    }

    /// Waits for the threads that close what the loop has let go of, but no more than a moment for one that
    /// has not begun to answer: the worker was told to stop now.
    fn let_answers_close(&self, watch: &mut Watch<'_, Front>) -> Result<(), Errno> {
        let (stopped_ns, began_ns) = (self.stopped_ns.load(SeqCst), monotonic_ns());
        let awaited = |post: &Post| {
            let waited_ns = monotonic_ns() - began_ns;
            let entered_ns = post.entered_ns.load(SeqCst);
            let is_closing = entered_ns == 0 || entered_ns > stopped_ns;
            let may_return = is_closing || waited_ns < RETURNING_NS_MAX || post.gate.break_off();
            post.at_work.load(SeqCst) && waited_ns < CLOSING_NS_MAX && may_return
        };
        let tick = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
        while self.posts.iter().any(awaited) {
            match poll(&mut [PollFd::new(watch.bell(), PollFlags::IN)], Some(&tick)) {
                Ok(_) | Err(Errno::INTR) => watch.turn(&mut Unattached::default())?,
                Err(errno) => return Err(errno),
            };
        }
        Ok(())
    }

    /// Whether no thread runs a request.
    fn is_idle(&self) -> bool {
        self.posts.iter().all(|post| post.entered_ns.load(Relaxed) == 0)
    }

    /// Answers for requests that take too long, without the interpreter lock, which one of them may hold; the
    /// worker asks for a successor, because a thread cannot be taken back, and serves on with the threads that
    /// are left.
    fn shut_out_late_requests(&self) -> Vec<(usize, Late)> {
        let posts = self.posts.iter().enumerate();
        let late: Vec<_> = posts.filter_map(|(thread, post)| Some((thread, self.shut_out(post)?))).collect();
        for (_, late) in &late {
            if let Some(socket) = &late.socket {
                answer_late(socket, self.wsgi.server(), late.request.as_bytes());
            }
            if let Some(token) = late.token {
                self.crew.write_off(token);
            }
        }
        if !late.is_empty() && self.posts.iter().all(|post| post.doing().late) {
            self.orders.give(Order::Retire); // What it accepted now would find no thread.
        }
        late
    }

    /// Takes the right to answer from a request that takes too long; none where it does not.
    fn shut_out(&self, post: &Post) -> Option<Late> {
        let mut doing = post.doing(); // Its thread can begin or end nothing meanwhile.
        let now_ns = monotonic_ns();
        if !post.is_late(now_ns) || std::mem::replace(&mut doing.late, true) {
            return None;
        }
        Some(Late {
            request: String::from_utf8_lossy(&doing.request).into_owned(),
            age: Duration::from_nanos(now_ns.saturating_sub(post.entered_ns.load(Relaxed))),
            token: doing.token,
            socket: doing.socket.clone().filter(|_| post.gate.shut()),
        })
    }
}
