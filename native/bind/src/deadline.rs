//! `bicorn.deadline` in the environ and the scope: when a request has to be done, and more time for it.
//!
//! Owns       the way from a thread to the patience with the request that it runs.
//! Never      costs a request that does not use it anything: there is one object for all requests, and it
//!            looks up what the running thread is doing when it is asked.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bicorn_reactor::clock::monotonic_ns;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::scoreboard::Slot;

/// A year: more than anybody means, and far from the end of a clock in nanoseconds.
const EXTENSION_S_MAX: f64 = 86_400.0 * 365.0;

/// When the request of one thread has to be done, on the monotonic clock; 0 while there is none, or no
/// timeout.
#[derive(Debug, Default)]
pub struct Due(pub AtomicU64);

/// Who watches over the requests of a thread.
#[derive(Clone)]
pub enum Patience {
    /// The arbiter, by the worker's last sign of life.
    Heartbeat(Slot, Duration),
    /// The worker's main thread.
    Watch(Arc<Due>),
    /// Nobody: greenlets and the requests of an event loop may take their time.
    Endless,
}

impl Patience {
    /// When it ends; none without a request or without a timeout.
    fn ends_ns(&self) -> Option<u64> {
        match self {
            Self::Heartbeat(slot, timeout) => {
                let row = slot.row();
                let watched = !timeout.is_zero() && row.request.started_ns.load(SeqCst) != 0;
                watched.then(|| row.heartbeat_ns.load(SeqCst) + timeout.as_nanos() as u64)
            }
            Self::Endless => None,
            Self::Watch(due) => Some(due.0.load(SeqCst)).filter(|&due_ns| due_ns != 0),
        }
    }

    fn extend(&self, by: Duration) {
        let by_ns = by.as_nanos() as u64;
        let ends = match self {
            // A sign of life in the future: the arbiter's patience begins there.
            Self::Heartbeat(slot, _) => &slot.row().heartbeat_ns,
            Self::Watch(due) => &due.0,
            Self::Endless => return,
        };
        ends.fetch_add(by_ns, SeqCst);
    }
}

thread_local!(static HERE: RefCell<Option<Patience>> = const { RefCell::new(None) });

/// From now on this thread runs requests, under this patience.
pub fn watch_thread(patience: Patience) {
    HERE.set(Some(patience));
}

/// The deadline of the request that the calling thread runs; where requests are not watched, of any.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Deadline {
    /// Whether the threads that run requests are under somebody's patience. An asgi worker's are not, so there
    /// any thread or task that a request is passed on to may ask.
    watched: bool,
}

#[pymethods]
impl Deadline {
    #[new]
    #[pyo3(signature = (watched=true))]
    fn new(watched: bool) -> Self {
        Self { watched }
    }

    /// A scope may be copied, however deep, and sent to other processes.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (bool,)) {
        (slf.get_type(), (slf.get().watched,))
    }

    /// When `timeout` is over for this request, in seconds of `time.monotonic()`; None if it never is.
    #[getter]
    fn at(&self) -> PyResult<Option<f64>> {
        Ok(self.patience()?.ends_ns().map(|ends_ns| ends_ns as f64 / 1e9))
    }

    /// Seconds that are left, less than 0 if it is too late; None if there is no end.
    fn remaining(&self) -> PyResult<Option<f64>> {
        let ends_ns = self.patience()?.ends_ns();
        Ok(ends_ns.map(|ends_ns| (ends_ns as f64 - monotonic_ns() as f64) / 1e9))
    }

    /// Moves the deadline `seconds` further away.
    fn extend(&self, seconds: f64) -> PyResult<()> {
        if !(0.0..=EXTENSION_S_MAX).contains(&seconds) {
            return Err(PyValueError::new_err("a deadline is extended by seconds, 0 or more of them"));
        }
        let patience = self.patience()?;
        if patience.ends_ns().is_some() {
            patience.extend(Duration::from_secs_f64(seconds));
        }
        Ok(())
    }

    fn __repr__(&self) -> String {
        match self.remaining() {
            Ok(Some(seconds)) => format!("<Deadline in {seconds:.3} s>"),
            Ok(None) => "<Deadline: never>".to_owned(),
            Err(_) => "<Deadline of another thread>".to_owned(),
        }
    }
}

impl Deadline {
    fn patience(&self) -> PyResult<Patience> {
        if !self.watched {
            return Ok(Patience::Endless);
        }
        HERE.with_borrow(Clone::clone).ok_or_else(|| {
            PyRuntimeError::new_err(
                "bicorn.deadline must be used in the thread that the application was called in",
            )
        })
    }
}
