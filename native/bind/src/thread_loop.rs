//! The loop of the `gthread` worker: threads take turns at it, one more watches, and the main thread says what there
//! is to say.
//!
//! Owns       the threads' posts, and the proof of life: the main thread gets the interpreter now and then.
//! Never      runs the application on the main thread, so signals are never late.
//! Invariant  a thread holds the interpreter lock only while it runs a job.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bicorn_reactor::bell::Bell;
use bicorn_reactor::clock::monotonic_ns;
use bicorn_reactor::crew::TICK;
use bicorn_reactor::{Crew, Job, Notice, Order, Orders, Unattached};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::access::AccessLog;
use crate::deadline::{Patience, watch_thread};
use crate::front::Front;
use crate::late::Overtime;
use crate::options::{Listener, Options, Parts, Site};
use crate::post::{Late, Post};
use crate::scoreboard::Slot;
use crate::sync_loop::Ended;
use crate::unsignalled::spawn_unsignalled;
use crate::wsgi::Wsgi;

/// How often the main thread shows that the worker lives, and the watch looks at the threads.
pub const LOOK: Duration = Duration::from_millis(500);

/// How long a worker that was told to stop now waits for `close()` of the answers that it breaks off.
const CLOSING_NS_MAX: u64 = 1_000_000_000;

/// How long it waits for threads that were in the middle of a request, before it breaks off what they have begun
/// to answer and leaves the others behind.
const RETURNING_NS_MAX: u64 = 100_000_000;

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
    pub crew: Crew<Front>,
    pub wsgi: Arc<Wsgi>,
    pub orders: Arc<Orders>,
    pub posts: Vec<Post>,
    /// How long a request may take; 0 for as long as it likes.
    pub timeout: Duration,
    /// Wakes the main thread: a signal handler is due, or there is something to say.
    pub news: Bell,
    /// Requests that take too long, of which nothing has been said yet.
    late: Mutex<Vec<(usize, Late)>>,
    /// When the worker is about to be killed; taken by the watch.
    overtime: Mutex<Option<Overtime>>,
    /// What kept the watch from waiting.
    broken: Mutex<Option<Errno>>,
    /// The watch is there: no request may hold the interpreter before.
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
        let Parts { server, wsgi, orders, overtime } = site.build(py)?;
        Ok(Self {
            crew: Crew::new(server, Arc::clone(&orders), threads).map_err(Ended::from)?,
            wsgi,
            orders,
            posts: (0..threads).map(|_| Post::default()).collect(),
            timeout: Duration::from_secs_f64(timeout),
            news: Bell::new().map_err(Ended::from)?,
            late: Mutex::default(),
            overtime: Mutex::new(Some(overtime)),
            broken: Mutex::default(),
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
                post.end();
                if job.left.is_some() {
                    self.wsgi.collect_if_due(|| self.is_idle());
                }
            });
        };
        let look = |notice| {
            if notice == Notice::Signal {
                self.news.ring(); // Their handlers run on the main thread only.
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

    /// Waits in the main thread until the loop has ended; raises what ended it early.
    fn watch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let Some(overtime) = this.overtime.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Err(PyRuntimeError::new_err("this loop has run"));
        };
        let owner = slf.clone().unbind();
        let watch = spawn_unsignalled("bicorn-watch", move || {
            let this = owner.get();
            *this.broken.lock().unwrap_or_else(PoisonError::into_inner) = this.watch_threads(overtime).err();
            this.crew.end();
            this.news.ring();
        })?;
        let result = this.attend(py);
        this.crew.end();
        py.detach(|| drop(watch.join()));
        result
    }

    /// Accept nothing new, finish what is there, then end. Safe in a signal handler.
    fn drain(&self) {
        self.orders.give(Order::Drain);
    }

    /// Accept nothing more, not even what waits already: a successor will. Safe in a signal handler.
    fn retire(&self) {
        self.orders.give(Order::Retire);
    }

    /// The worker is about to die because nobody gets the interpreter: every request that has no answer yet gets
    /// one, and idle connections are left to the next worker.
    fn begin_abort(&self) {
        self.crew.give_up();
    }

    /// End at once. Safe in a signal handler.
    fn stop(&self) {
        let _ = self.stopped_ns.compare_exchange(0, monotonic_ns(), SeqCst, SeqCst);
        self.orders.give(Order::Stop);
    }
}

impl ThreadLoop {
    /// Requests that take too long, of which nothing has been said yet.
    pub fn late(&self) -> MutexGuard<'_, Vec<(usize, Late)>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs signal handlers, and says what there is to say. Each round proves that the interpreter can be had.
    fn attend(&self, py: Python<'_>) -> PyResult<()> {
        while !self.crew.has_ended() {
            py.detach(|| self.await_news(LOOK)).map_err(Ended::from)?;
            self.wsgi.slot().heartbeat_ns.fetch_max(monotonic_ns(), SeqCst);
            if let Err(error) = py.check_signals() {
                *self.wsgi.fatal() = Some(error);
                self.stop();
                py.detach(|| self.let_answers_close()).map_err(Ended::from)?;
                break;
            }
            for (thread, late) in std::mem::take(&mut *self.late()) {
                let told = (thread, late.request, late.age.as_secs_f64(), late.socket.is_some());
                self.wsgi.report(py, "request_late", told);
            }
        }
        if let Some(errno) = self.broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Ended::from(errno).into());
        }
        if self.bugged.load(SeqCst) {
            return Err(PyRuntimeError::new_err("a bug in Bicorn: a thread of this worker has panicked"));
        }
        match self.wsgi.fatal().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Waits until there is something to do in the main thread.
    fn await_news(&self, patience: Duration) -> Result<(), Errno> {
        let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(patience.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.news, PollFlags::IN)], Some(&patience)) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            Ok(_) => {
                self.news.silence();
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    fn wait_for_the_watch(&self) {
        let (is_watched, told) = &self.is_watched;
        let guard = is_watched.lock().unwrap_or_else(PoisonError::into_inner);
        drop(told.wait_while(guard, |is_watched| !*is_watched));
    }

    /// Says that the watch is there.
    pub fn let_threads_begin(&self) {
        let (is_watched, told) = &self.is_watched;
        if !std::mem::replace(&mut *is_watched.lock().unwrap_or_else(PoisonError::into_inner), true) {
            told.notify_all();
        }
    }

    /// Waits for the threads that close what the loop has let go of, but no more than a moment for one that
    /// has not begun to answer: the worker was told to stop now.
    fn let_answers_close(&self) -> Result<(), Errno> {
        let (stopped_ns, began_ns) = (self.stopped_ns.load(SeqCst), monotonic_ns());
        let awaited = |post: &Post| {
            let waited_ns = monotonic_ns() - began_ns;
            let entered_ns = post.entered_ns.load(SeqCst);
            let is_closing = entered_ns == 0 || entered_ns > stopped_ns;
            let may_return = is_closing || waited_ns < RETURNING_NS_MAX || post.break_off();
            post.at_work.load(SeqCst) && waited_ns < CLOSING_NS_MAX && may_return
        };
        while self.posts.iter().any(awaited) {
            self.await_news(TICK)?;
        }
        Ok(())
    }

    /// Whether no thread runs a request.
    fn is_idle(&self) -> bool {
        self.posts.iter().all(|post| post.entered_ns.load(Relaxed) == 0)
    }
}
