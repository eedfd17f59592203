//! The loop of the `sync` worker: one application call at a time, on the main thread.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bicorn_reactor::{Crew, Order, Orders, Watch};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::access::AccessLog;
use crate::attached::Attached;
use crate::deadline::{Patience, watch_thread};
use crate::front::Front;
use crate::late::{Lookout, Overtime};
use crate::options::{Listener, Options, Parts, Site};
use crate::scoreboard::Slot;
use crate::unsignalled::spawn_unsignalled;
use crate::wsgi::Wsgi;

/// What ends a loop early.
pub enum Ended {
    /// Python code raised.
    Raised(PyErr),
    /// The kernel refused to wait.
    Kernel(Errno),
}

impl From<Errno> for Ended {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

impl From<Ended> for PyErr {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Raised(error) => error,
            Ended::Kernel(errno) => {
                PyOSError::new_err((errno.raw_os_error(), "the loop cannot wait for events"))
            }
        }
    }
}

/// Looks after the loop while the main thread is inside the application: it never takes the interpreter
/// lock unless a log line is due, hands connections over to siblings that are idle, and answers for an
/// application that is stuck where no Python runs.
struct Watchman(JoinHandle<()>);

impl Watchman {
    fn start(crew: &Arc<Crew<Front>>, overtime: Overtime) -> std::io::Result<Self> {
        let crew = Arc::clone(crew);
        let watch = move || {
            let mut watch = Watch::new(&crew);
            let mut lookout = Lookout { crew: &crew, overtime };
            while !crew.has_ended() {
                let patience = watch
                    .patience()
                    .map(|patience| Timespec { tv_sec: 0, tv_nsec: i64::from(patience.subsec_nanos()) });
                // Whatever keeps it from waiting or holding the loop, the main thread meets as well.
                let rung = poll(&mut [PollFd::new(watch.bell(), PollFlags::IN)], patience.as_ref());
                if rung.is_err_and(|errno| errno != Errno::INTR) {
                    return;
                }
                if patience.is_none() {
                    lookout.overtime.look_again();
                }
                match watch.turn(&mut lookout) {
                    Ok(true) => crew.pass_signal_on(),
                    Ok(false) => {}
                    Err(_) => return,
                }
                lookout.overtime.look(&crew);
            }
        };
        spawn_unsignalled("bicorn-watch", watch).map(Self)
    }
}

/// The loop of one `sync` worker.
#[pyclass(frozen, module = "bicorn._core")]
pub struct SyncLoop {
    crew: Arc<Crew<Front>>,
    wsgi: Arc<Wsgi>,
    orders: Arc<Orders>,
    /// When the worker is about to be killed; taken by the watch.
    overtime: Mutex<Option<Overtime>>,
    /// How long a request may take before the arbiter ends the worker; 0 for as long as it likes.
    timeout: Duration,
}

#[pymethods]
impl SyncLoop {
    #[new]
    #[pyo3(signature = (app, worker, slot, listeners, options, timeout, access=None, wake_fd=None, lifeline_fd=None))]
    #[allow(clippy::too_many_arguments, reason = "the keyword arguments of a Python constructor")]
    fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        worker: Py<PyAny>,
        slot: PyRef<'_, Slot>,
        listeners: Vec<Listener>,
        options: Options,
        timeout: f64,
        access: Option<Py<AccessLog>>,
        wake_fd: Option<i32>,
        lifeline_fd: Option<i32>,
    ) -> PyResult<Self> {
        let slot = slot.clone();
        let site = Site { app, worker, slot, listeners, options, access, wake_fd, lifeline_fd };
        let Parts { server, wsgi, orders, overtime } = site.build(py)?;
        let crew = Crew::new(server, Arc::clone(&orders), 1).map_err(Ended::from)?;
        let (timeout, overtime) = (Duration::from_secs_f64(timeout), Mutex::new(Some(overtime)));
        Ok(Self { crew: Arc::new(crew), wsgi, orders, overtime, timeout })
    }

    /// Serves until drained or stopped; raises what ended it otherwise.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        if self.crew.has_ended() {
            return Err(PyRuntimeError::new_err("this loop has run"));
        }
        let mut waiter = Attached(py);
        let overtime = self.overtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        let watchman = overtime.filter(|_| self.crew.hands_over());
        let watchman = watchman.map(|overtime| Watchman::start(&self.crew, overtime)).transpose()?;
        watch_thread(Patience::Heartbeat(self.wsgi.shared_slot(), self.timeout));
        let slot = self.wsgi.slot();
        let result = self.crew.work(
            0,
            &mut waiter,
            |job, _| {
                job.run(&*self.wsgi);
                if let Some(left) = job.left {
                    // A round of the loop may hold hundreds of calls: each of them proves life.
                    slot.beat(left.left_ns);
                    self.wsgi.collect_if_due(|| true);
                }
            },
            |_| self.look_around(py),
        );
        self.crew.end();
        if let Some(Watchman(thread)) = watchman {
            let _ = py.detach(|| thread.join());
        }
        match self.wsgi.fatal().take() {
            Some(error) => Err(error),
            None => Ok(result?),
        }
    }

    /// Accept nothing new, finish what is there, then return from `run`. Safe in a signal handler.
    fn drain(&self) {
        self.orders.give(Order::Drain);
    }

    /// Accept nothing more, not even what waits already: a successor will. Safe in a signal handler.
    fn retire(&self) {
        self.orders.give(Order::Retire);
    }

    /// The request that runs is about to be broken off because it takes too long: its client is told so.
    fn begin_abort(&self) {
        self.wsgi.begin_abort();
    }

    /// Return from `run` at once. Safe in a signal handler.
    fn stop(&self) {
        self.orders.give(Order::Stop);
    }
}

impl SyncLoop {
    /// Runs the signal handlers that are due.
    fn look_around(&self, py: Python<'_>) -> Result<(), Ended> {
        if let Err(error) = py.check_signals() {
            *self.wsgi.fatal() = Some(error);
            self.orders.give(Order::Stop);
        }
        Ok(())
    }
}
