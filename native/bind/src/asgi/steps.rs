//! How a request runs as a Task without paying for one.
//!
//! Owns       the prepared tasks, and the coroutine that such a task runs.
//! Never      lets two requests have one task where anybody could tell: a task that was looked at closely
//!            enough to leave a trace is finished with its request (docs/adr/0005-asgi-steps.md).
//! Invariant  while a step of an application runs, asyncio.current_task() is a real asyncio.Task, the one
//!            that will run every later step of the same request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pyo3::exceptions::{PyException, PyStopIteration};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::asgi::exchange::Exchange;
use crate::asgi::guarded::Guarded;
use crate::asgi::server::Shared;

/// Prepared tasks that wait at a time, at most: as many requests may begin to wait in one turn of the
/// loop without any of them having to wait for its first step.
const SPARES_MAX: usize = 64;

/// The coroutine of a task, and at first also the future that it waits for: the one thing that it says
/// when it is asked to go on without a job.
#[pyclass(frozen, weakref, module = "bicorn._core")]
pub struct Steps {
    state: Guarded<State>,
}

struct State {
    shared: Rc<Shared>,
    /// The request that the task runs.
    job: RefCell<Option<Py<Exchange>>>,
    /// What the application waits for since its first step, not yet told to the task.
    yielded: RefCell<Option<Py<PyAny>>>,
    /// Continues the task.
    wakeup: RefCell<Option<Py<PyAny>>>,
    /// The protocol of asyncio's futures: true between "I yield this" and "I wait for it".
    blocking: Cell<bool>,
    /// A first step is going on, in the name of the task.
    stepping: Cell<bool>,
    /// Somebody cancelled the task.
    touched: Cell<bool>,
    /// The job waits for its first step, since the loop's turn before.
    deferred: Cell<bool>,
    ended: Cell<bool>,
}

/// How a step ended.
enum Stepped {
    /// The application waits for this.
    Waits(Py<PyAny>),
    /// It has returned or raised.
    Ended(PyResult<()>),
}

/// A prepared task.
struct Spare {
    task: Py<PyAny>,
    steps: Py<Steps>,
    /// How many references to the task there are while nobody else knows it, and how many weak ones.
    /// Counted when it is used first.
    known: Option<(isize, usize)>,
}

/// The prepared tasks of a worker.
pub struct Tasks {
    task_class: Py<PyAny>,
    enter_task: Py<PyAny>,
    leave_task: Py<PyAny>,
    weak_count: Py<PyAny>,
    name: Py<PyAny>,
    /// The contextvars.Context that the worker made the server in.
    context: Py<PyAny>,
    spares: RefCell<Vec<Spare>>,
    wanted: Cell<usize>,
    closed: Cell<bool>,
}

impl Tasks {
    /// No prepared task yet.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let tasks = py.import("asyncio.tasks")?;
        // SAFETY: gives a new reference or sets an error.
        let context = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent())? };
        Ok(Self {
            task_class: tasks.getattr("Task")?.unbind(),
            enter_task: tasks.getattr("_enter_task")?.unbind(),
            leave_task: tasks.getattr("_leave_task")?.unbind(),
            weak_count: py.import("_weakref")?.getattr("getweakrefcount")?.unbind(),
            name: intern!(py, "bicorn-request").clone().into_any().unbind(),
            context: context.unbind(),
            spares: RefCell::new(Vec::new()),
            wanted: Cell::new(1),
            closed: Cell::new(false),
        })
    }

    /// Prepares as many tasks as are wanted; each is ready after the next turn of the loop.
    pub fn prepare(&self, py: Python<'_>, shared: &Rc<Shared>) -> PyResult<()> {
        while !self.closed.get() && self.spares.borrow().len() < self.wanted.get() {
            let steps = Py::new(py, Steps::new(shared, None))?;
            let task = self.task(py, shared, &steps)?;
            self.spares.borrow_mut().push(Spare { task, steps, known: None });
        }
        Ok(())
    }

    fn task(&self, py: Python<'_>, shared: &Shared, steps: &Py<Steps>) -> PyResult<Py<PyAny>> {
        let kwargs = PyDict::new(py);
        kwargs.set_item(intern!(py, "loop"), &shared.event_loop)?;
        kwargs.set_item(intern!(py, "name"), &self.name)?;
        Ok(self.task_class.bind(py).call((steps,), Some(&kwargs))?.unbind())
    }

    /// Ends the prepared tasks in the next turn of the loop: it is about to end.
    pub fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.closed.set(true);
        for spare in self.spares.take() {
            let state = spare.steps.get().state.get(py);
            state.ended.set(true);
            if let Some(wakeup) = state.wakeup.take() {
                state.shared.call_soon(py, wakeup.bind(py), spare.steps.bind(py))?;
            }
        }
        Ok(())
    }

    fn take(&self, py: Python<'_>) -> Option<Spare> {
        let mut spares = self.spares.borrow_mut();
        let at = spares.iter().rposition(|spare| spare.steps.get().is_parked(py))?;
        Some(spares.swap_remove(at))
    }
}

impl Spare {
    /// Lets its task end: with the request that it ran, or because nobody needs it.
    fn retire(&self, py: Python<'_>) {
        let state = self.steps.get().state.get(py);
        state.ended.set(true);
        self.steps.get().wake(py, &self.steps);
    }

    /// Whether anybody but us could know the task now.
    fn is_known(&self, py: Python<'_>, tasks: &Tasks) -> PyResult<bool> {
        if self.steps.get().state.get(py).touched.get() {
            return Ok(true);
        }
        let task = self.task.bind(py);
        Ok(self.known != Some(self.count(py, tasks)?)
            || !task.getattr(intern!(py, "_callbacks"))?.is_none()
            || !task.call_method0(intern!(py, "get_name"))?.is(&tasks.name)
            || attributes(task)? > 0)
    }

    fn count(&self, py: Python<'_>, tasks: &Tasks) -> PyResult<(isize, usize)> {
        let weak = tasks.weak_count.bind(py).call1((&self.task,))?.extract::<usize>()?;
        // SAFETY: a live object, under the interpreter lock.
        Ok((unsafe { ffi::Py_REFCNT(self.task.as_ptr()) } as isize, weak))
    }
}

/// The arguments of `cancel()` that made this CancelledError.
fn message_of<'py>(error: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    Ok(error.getattr(intern!(error.py(), "args"))?.cast_into::<PyTuple>()?)
}

/// How many attributes somebody has set on a task of asyncio's: it takes any.
fn attributes(task: &Bound<'_, PyAny>) -> PyResult<usize> {
    // SAFETY: a live object; gives a new reference to its dict, which is made if need be, or sets an error.
    let dict = unsafe { ffi::PyObject_GenericGetDict(task.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: as above.
    unsafe { Bound::from_owned_ptr_or_err(task.py(), dict)? }.len()
}

/// Runs a request from its first step on: at once, in the name of a prepared task, if there is one.
pub fn start(
    py: Python<'_>,
    shared: &Rc<Shared>,
    coroutine: Bound<'_, PyAny>,
    exchange: &Py<Exchange>,
) -> PyResult<()> {
    let tasks = &shared.tasks;
    // The worker's context and not the current one: a pipelined request begins where another one ended.
    // SAFETY: a live context; gives a new reference or sets an error.
    let context = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(tasks.context.as_ptr()))? };
    exchange.get().begin(py, coroutine, context);
    let Some(mut spare) = tasks.take(py) else {
        tasks.wanted.set((tasks.wanted.get() + 1).min(SPARES_MAX));
        let steps = Py::new(py, Steps::new(shared, Some(exchange.clone_ref(py))))?;
        let task = tasks.task(py, shared, &steps)?;
        exchange.get().run_by(py, task);
        return tasks.prepare(py, shared);
    };
    if spare.known.is_none() {
        spare.known = Some(spare.count(py, tasks)?);
    }
    let state = spare.steps.get().state.get(py);
    state.stepping.set(true);
    state.job.replace(Some(exchange.clone_ref(py)));
    tasks.enter_task.bind(py).call1((&shared.event_loop, &spare.task))?;
    let stepped = step(py, exchange.get(), None);
    tasks.leave_task.bind(py).call1((&shared.event_loop, &spare.task))?;
    state.stepping.set(false);
    match stepped {
        Stepped::Ended(result) => {
            state.job.take();
            exchange.get().application_ended(py, result);
            if spare.is_known(py, tasks)? {
                spare.retire(py);
                tasks.prepare(py, shared)
            } else {
                tasks.spares.borrow_mut().push(spare);
                Ok(())
            }
        }
        Stepped::Waits(future) => {
            exchange.get().run_by(py, spare.task.clone_ref(py));
            state.yielded.replace(Some(future));
            // The task takes over where the application stopped: it only learns what to wait for.
            spare.steps.get().wake(py, &spare.steps);
            tasks.prepare(py, shared)
        }
    }
}

/// Runs the application until it waits, returns or raises; `thrown` is raised where it waits.
fn step(py: Python<'_>, exchange: &Exchange, thrown: Option<Bound<'_, PyAny>>) -> Stepped {
    let Some((coroutine, context)) = exchange.resumed(py) else { return Stepped::Ended(Ok(())) };
    // SAFETY: a live context, entered and left in pairs on this thread; a live coroutine.
    let (status, result) = unsafe {
        if ffi::PyContext_Enter(context.as_ptr()) != 0 {
            return Stepped::Ended(Err(PyErr::fetch(py)));
        }
        let mut result = std::ptr::null_mut();
        let status = match thrown {
            None => ffi::PyIter_Send(coroutine.as_ptr(), ffi::Py_None(), &raw mut result),
            Some(error) => throw(py, &coroutine, &error, &mut result),
        };
        // The exception of the step, if there is one, must not meet the call that leaves the context.
        let error = if status == ffi::PySendResult::PYGEN_ERROR { Some(PyErr::fetch(py)) } else { None };
        ffi::PyContext_Exit(context.as_ptr());
        match error {
            Some(error) => (status, Err(error)),
            None => (status, Ok(Bound::from_owned_ptr(py, result))),
        }
    };
    exchange.paused(py);
    match (status, result) {
        (_, Err(error)) => Stepped::Ended(Err(error)),
        (ffi::PySendResult::PYGEN_NEXT, Ok(future)) => Stepped::Waits(future.unbind()),
        (_, Ok(_)) => Stepped::Ended(Ok(())),
    }
}

/// Raises `error` where the coroutine waits.
fn throw(
    py: Python<'_>,
    coroutine: &Py<PyAny>,
    error: &Bound<'_, PyAny>,
    result: &mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    match coroutine.bind(py).call_method1(intern!(py, "throw"), (error,)) {
        Ok(yielded) => {
            *result = yielded.into_ptr();
            ffi::PySendResult::PYGEN_NEXT
        }
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            *result = py.None().into_ptr();
            ffi::PySendResult::PYGEN_RETURN
        }
        Err(error) => {
            error.restore(py);
            ffi::PySendResult::PYGEN_ERROR
        }
    }
}

impl Steps {
    fn new(shared: &Rc<Shared>, job: Option<Py<Exchange>>) -> Self {
        Self {
            state: Guarded::new(State {
                shared: Rc::clone(shared),
                deferred: Cell::new(job.is_some()),
                job: RefCell::new(job),
                yielded: RefCell::new(None),
                wakeup: RefCell::new(None),
                blocking: Cell::new(false),
                stepping: Cell::new(false),
                touched: Cell::new(false),
                ended: Cell::new(false),
            }),
        }
    }

    fn is_parked(&self, py: Python<'_>) -> bool {
        let state = self.state.get(py);
        state.wakeup.borrow().is_some() && !state.ended.get() && !state.touched.get()
    }

    /// Continues the task now, in this call.
    fn wake(&self, py: Python<'_>, itself: &Py<Self>) {
        let wakeup = self.state.get(py).wakeup.take();
        if let Some(wakeup) = wakeup
            && let Err(error) = wakeup.bind(py).call1((itself,))
        {
            error.write_unraisable(py, None);
        }
    }

    /// One step of the task.
    fn go_on(slf: &Bound<'_, Self>, thrown: Option<Bound<'_, PyAny>>) -> PyResult<Option<Py<PyAny>>> {
        let py = slf.py();
        let state = slf.get().state.get(py);
        let job = state.job.borrow().as_ref().map(|job| job.clone_ref(py));
        let Some(job) = job else {
            return match thrown {
                Some(error) => Err(PyErr::from_value(error)),
                None if state.ended.get() => Ok(None),
                None => {
                    state.blocking.set(true);
                    Ok(Some(slf.clone().into_any().unbind()))
                }
            };
        };
        if state.deferred.take() && thrown.is_none() && !job.get().is_wanted(py) {
            let closed = Self::close(slf); // It has not begun, and does not complain that nobody waited for it.
            job.get().application_ended(py, closed);
            return Ok(None);
        }
        state.stepping.set(true);
        let stepped = step(py, job.get(), thrown);
        state.stepping.set(false);
        match stepped {
            Stepped::Waits(future) => Ok(Some(future)),
            Stepped::Ended(result) => {
                state.ended.set(true);
                // The task, too, has to be seen as cancelled; any other error has been reported.
                let cancelled = match &result {
                    Err(error) if !error.is_instance_of::<PyException>(py) => Some(error.clone_ref(py)),
                    _ => None,
                };
                state.job.take();
                job.get().application_ended(py, result);
                cancelled.map_or(Ok(None), |error| {
                    if state.shared.is_cancellation(py, &error) { Err(error) } else { Ok(None) }
                })
            }
        }
    }

    fn of_coroutine<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let job = self.state.get(py).job.borrow().as_ref().map(|job| job.clone_ref(py));
        match job.and_then(|job| job.get().coroutine(py)) {
            Some(coroutine) => coroutine.bind(py).getattr(name),
            None => Ok(py.None().into_bound(py)),
        }
    }
}

#[pymethods]
impl Steps {
    // -- a coroutine ---------------------------------------------------------------------------

    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let yielded = slf.get().state.get(slf.py()).yielded.take();
        if yielded.is_some() { Ok(yielded) } else { Self::go_on(slf, None) }
    }

    fn send(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        Self::__next__(slf)?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        slf: &Bound<'_, Self>,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let (py, _) = (slf.py(), traceback);
        let error = match value.filter(|value| !value.is_none()) {
            Some(value) => value.clone(),
            None if kind.is_instance_of::<pyo3::types::PyType>() => kind.call0()?,
            None => kind.clone(),
        };
        // Cancelled between its first step and now: the cancellation belongs to what it waits for.
        if let Some(future) = slf.get().state.get(py).yielded.take()
            && let Ok(cancelled) = future.bind(py).call_method1(intern!(py, "cancel"), message_of(&error)?)
            && cancelled.is_truthy()?
        {
            return Ok(future);
        }
        Self::go_on(slf, Some(error))?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let state = slf.get().state.get(py);
        state.ended.set(true);
        match state.job.take() {
            Some(job) => match job.get().coroutine(py) {
                Some(coroutine) => coroutine.bind(py).call_method0(intern!(py, "close")).map(drop),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    #[getter]
    fn cr_running(&self, py: Python<'_>) -> bool {
        self.state.get(py).stepping.get()
    }

    #[getter]
    fn __name__(&self) -> &'static str {
        "request"
    }

    #[getter]
    fn __qualname__(&self) -> &'static str {
        "bicorn.request"
    }

    #[getter]
    fn cr_suspended<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.of_coroutine(py, "cr_suspended")
    }

    #[getter]
    fn cr_frame<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.of_coroutine(py, "cr_frame")
    }

    #[getter]
    fn cr_await<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.of_coroutine(py, "cr_await")
    }

    #[getter]
    fn cr_code<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.of_coroutine(py, "cr_code")
    }

    // -- the future that a task without a job waits for ----------------------------------------

    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self, py: Python<'_>) -> bool {
        self.state.get(py).blocking.get()
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, py: Python<'_>, blocking: bool) {
        self.state.get(py).blocking.set(blocking);
    }

    fn get_loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.state.get(py).shared.event_loop.clone_ref(py)
    }

    #[pyo3(signature = (callback, *, context=None))]
    fn add_done_callback(&self, py: Python<'_>, callback: Py<PyAny>, context: Option<Py<PyAny>>) {
        drop(context); // The task's own; the request brings its own to each step.
        self.state.get(py).wakeup.replace(Some(callback));
    }

    fn result(&self) {}

    /// Told by a task that is cancelled. "No" makes the task remember it for its next step, as it does
    /// when its coroutine is running: it is, or it has none and ends with that step.
    #[pyo3(signature = (msg=None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let (py, _) = (slf.py(), msg);
        let state = slf.get().state.get(py);
        state.touched.set(true);
        if !state.stepping.get()
            && let Some(wakeup) = state.wakeup.take()
        {
            state.shared.call_soon(py, wakeup.bind(py), slf.as_any())?;
        }
        Ok(false)
    }
}
