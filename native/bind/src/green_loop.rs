//! The loop of the greenlet workers: stepped by their hub, its jobs run in greenlets.
//!
//! Never      blocks: the hub waits for the loop's descriptor among all others.
//! Invariant  one thread: whoever steps holds the loop, and nothing that runs meanwhile switches greenlets.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bicorn_reactor::clock::monotonic_ns;
use bicorn_reactor::inside::Inside;
use bicorn_reactor::{Crew, Job, Next, Order, Orders, Waiter};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::access::AccessLog;
use crate::deadline::{Patience, watch_thread};
use crate::front::Front;
use crate::late::look_after;
use crate::options::{Listener, Options, Parts, Site};
use crate::scoreboard::Slot;
use crate::sync_loop::Ended;
use crate::wsgi::{Wsgi, name};

/// Never waits.
struct Hurried;

impl Waiter for Hurried {
    fn wait<R>(&mut self, block: impl FnOnce() -> R) -> R {
        block()
    }

    fn may_block(&self) -> bool {
        false
    }
}

struct Shared {
    crew: Arc<Crew<Front>>,
    wsgi: Arc<Wsgi>,
    orders: Arc<Orders>,
    inside: Arc<Inside>,
}

/// The loop of one worker whose requests run in greenlets.
#[pyclass(frozen, module = "bicorn._core")]
pub struct GreenLoop {
    shared: Arc<Shared>,
    descriptor: i32,
    /// Looks whether the hub is stuck, until the loop has ended.
    watch: Mutex<Option<JoinHandle<()>>>,
}

#[pymethods]
impl GreenLoop {
    #[new]
    #[pyo3(signature = (app, worker, slot, listeners, options, access=None, wake_fd=None, lifeline_fd=None))]
    #[allow(clippy::too_many_arguments, reason = "the keyword arguments of a Python constructor")]
    fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        worker: Py<PyAny>,
        slot: PyRef<'_, Slot>,
        listeners: Vec<Listener>,
        options: Options,
        access: Option<Py<AccessLog>>,
        wake_fd: Option<i32>,
        lifeline_fd: Option<i32>,
    ) -> PyResult<Self> {
        let slot = slot.clone();
        let site = Site { app, worker, slot, listeners, options, access, wake_fd, lifeline_fd };
        let Parts { server, wsgi, orders, overtime } = site.build(py)?;
        let descriptor = server.set().as_raw_fd();
        let crew = Arc::new(Crew::new(server, Arc::clone(&orders), 1).map_err(Ended::from)?);
        let inside = Arc::new(Inside::default());
        let (seen, row) = (Arc::clone(&inside), wsgi.shared_slot());
        let thread = look_after(Arc::clone(&crew), overtime, move || seen.look(row.row()))?;
        let watch = Mutex::new(Some(thread));
        watch_thread(Patience::Endless);
        Ok(Self { shared: Arc::new(Shared { crew, wsgi, orders, inside }), descriptor, watch })
    }

    /// The descriptor that is readable when there is something to do.
    fn fileno(&self) -> i32 {
        self.descriptor
    }

    /// Does what there is to do: the jobs that have come of it, and the seconds after which to step again
    /// even if the descriptor is silent; none when the loop has ended. Raises what ended it early.
    fn step(&self, py: Python<'_>) -> PyResult<(Vec<GreenJob>, Option<f64>)> {
        let Shared { crew, wsgi, .. } = &*self.shared;
        let mut jobs = Vec::new();
        // Held already: something that the loop calls has switched greenlets, and this one came by.
        let Some(mut server) = crew.try_take() else { return Ok((jobs, Some(RETRY_S))) };
        loop {
            match crew.next(&mut server, &mut Hurried).map_err(Ended::from)? {
                Next::Job(job) => jobs.push(GreenJob::new(&self.shared, job)),
                Next::Woken | Next::Signal => {}
                Next::Idle(wait) => return Ok((jobs, Some(wait.as_secs_f64()))),
                Next::Ended => {
                    drop(server);
                    self.end(py);
                    return match wsgi.fatal().take() {
                        Some(error) => Err(error),
                        None => Ok((jobs, None)),
                    };
                }
            }
        }
    }

    /// Accept nothing new, finish what is there, then end. Safe in a signal handler.
    fn drain(&self) {
        self.shared.orders.give(Order::Drain);
    }

    /// Accept nothing more, not even what waits already: a successor will. Safe in a signal handler.
    fn retire(&self) {
        self.shared.orders.give(Order::Retire);
    }

    /// The worker is about to die because its hub is stuck: every request that has no answer yet gets one, and idle
    /// connections are left to the next worker.
    fn begin_abort(&self) {
        self.shared.crew.give_up();
    }

    /// End at once. Safe in a signal handler.
    fn stop(&self) {
        self.shared.orders.give(Order::Stop);
    }
}

impl GreenLoop {
    fn end(&self, py: Python<'_>) {
        self.shared.crew.end();
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| watch.map(JoinHandle::join).map(drop));
    }
}

/// How soon to step again when the loop was held, in seconds.
const RETRY_S: f64 = 0.001;

/// A request, or the next part of an answer: called once, in a greenlet of its own or in its home.
#[pyclass(frozen, module = "bicorn._core")]
pub struct GreenJob {
    shared: Arc<Shared>,
    job: Mutex<Option<Box<Job<Front>>>>,
    /// The number given to the greenlet that began the answer; it comes back with every further part.
    #[pyo3(get)]
    home: Option<usize>,
}

impl GreenJob {
    fn new(shared: &Arc<Shared>, job: Box<Job<Front>>) -> Self {
        Self { shared: Arc::clone(shared), home: job.home, job: Mutex::new(Some(job)) }
    }
}

#[pymethods]
impl GreenJob {
    /// Runs it in this greenlet, whose number is `home`. True when the reader is slow and the application
    /// has more to give: then the loop gives another job with this number, to be called here.
    fn __call__(&self, home: usize) -> PyResult<bool> {
        let job = self.job.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut job = job.ok_or_else(|| PyRuntimeError::new_err("this job has run"))?;
        let Shared { crew, wsgi, orders, inside } = &*self.shared;
        job.home = Some(home);
        let place = inside.enter(monotonic_ns(), name(&job));
        job.run(&**wsgi);
        inside.leave(wsgi.slot(), place);
        let goes_on = job.goes_on();
        if crew.give_back(job).is_none_or(|server| server.wants_attention()) {
            orders.ring();
        }
        Ok(goes_on)
    }
}
