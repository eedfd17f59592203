//! What `receive` and `send` give: awaitables that cost little where nothing has to wait.
//!
//! Owns       the methods that make a coroutine of each, since applications pass `receive()` and `send()` to
//!            asyncio.create_task() and, from threads, to asyncio.run_coroutine_threadsafe().
//! Never      suspends where there is nothing to wait for: the step goes on in the same turn of the loop.

use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// How a step of an awaitable ended.
pub enum Step<'py> {
    /// The task is to wait for this future; None lets others run.
    Waits(Option<Bound<'py, PyAny>>),
    /// It is done. The value is never a tuple or an exception.
    Done(Option<Bound<'py, PyAny>>),
}

/// One of ours. `as_coroutine!` gives it the methods.
pub trait Awaitable: Sized {
    /// Goes on: for the first time, or since what it waited for is done.
    fn step<'py>(slf: &Bound<'py, Self>) -> PyResult<Step<'py>>;
}

/// What `__next__` says: a future or None to wait for, or the end.
#[inline]
pub fn next(py: Python<'_>, step: Step<'_>) -> Option<Py<PyAny>> {
    match step {
        Step::Waits(future) => Some(future.map_or_else(|| py.None(), Bound::unbind)),
        Step::Done(None) => None,
        Step::Done(Some(value)) => {
            // SAFETY: both are alive; the error is set and None returned, which together is how an
            // iterator ends with a value: CPython takes them apart without ever making the exception object.
            unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()) };
            None
        }
    }
}

/// What `send()` says: the same, with an exception as the end.
pub fn sent(py: Python<'_>, step: Step<'_>) -> PyResult<Py<PyAny>> {
    match step {
        Step::Waits(future) => Ok(future.map_or_else(|| py.None(), Bound::unbind)),
        Step::Done(None) => Err(PyStopIteration::new_err(())),
        Step::Done(Some(value)) => Err(PyStopIteration::new_err((value.unbind(),))),
    }
}

/// What was thrown, in the forms that `throw()` takes.
pub fn thrown(kind: &Bound<'_, PyAny>, value: Option<&Bound<'_, PyAny>>) -> PyResult<PyErr> {
    let error = match value.filter(|value| !value.is_none()) {
        Some(value) => value.clone(),
        None if kind.is_instance_of::<PyType>() => kind.call0()?,
        None => kind.clone(),
    };
    Ok(PyErr::from_value(error))
}

/// A future, as `await` wants it: with the mark that a task has to wait for it.
pub fn waits_for(future: Bound<'_, PyAny>) -> PyResult<Step<'_>> {
    future.setattr(intern!(future.py(), "_asyncio_future_blocking"), true)?;
    Ok(Step::Waits(Some(future)))
}

/// The methods by which collections.abc.Coroutine knows a coroutine. What is thrown into one of ours goes
/// through: there is nothing in it that would have to be cleaned up.
macro_rules! as_coroutine {
    ($class:ident) => {
        #[pymethods]
        impl $class {
            fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
                slf
            }

            fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
                slf
            }

            fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
                let step = <Self as $crate::asgi::awaitable::Awaitable>::step(slf)?;
                Ok($crate::asgi::awaitable::next(slf.py(), step))
            }

            fn send(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
                let _ = value; // Of the task, which has nothing to say.
                let step = <Self as $crate::asgi::awaitable::Awaitable>::step(slf)?;
                $crate::asgi::awaitable::sent(slf.py(), step)
            }

            #[pyo3(signature = (kind, value=None, traceback=None))]
            fn throw(
                &self,
                kind: &Bound<'_, PyAny>,
                value: Option<&Bound<'_, PyAny>>,
                traceback: Option<&Bound<'_, PyAny>>,
            ) -> PyResult<Py<PyAny>> {
                let _ = traceback; // The exception has it.
                Err($crate::asgi::awaitable::thrown(kind, value)?)
            }

            fn close(&self) {}
        }
    };
}
pub(crate) use as_coroutine;

/// What `send` gives when nothing has to wait; one object serves every call.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Done;

impl Awaitable for Done {
    #[inline]
    fn step<'py>(_: &Bound<'py, Self>) -> PyResult<Step<'py>> {
        Ok(Step::Done(None))
    }
}

as_coroutine!(Done);

/// What `send` gives when the client has to take something first.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Waiting {
    future: Py<PyAny>,
}

impl Waiting {
    /// Done when this future is.
    pub fn on<'py>(future: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = future.py();
        Ok(Bound::new(py, Self { future: future.unbind() })?.into_any())
    }
}

impl Awaitable for Waiting {
    fn step<'py>(slf: &Bound<'py, Self>) -> PyResult<Step<'py>> {
        let future = slf.get().future.bind(slf.py());
        if future.call_method0(intern!(slf.py(), "done"))?.is_truthy()? {
            future.call_method0(intern!(slf.py(), "result"))?;
            return Ok(Step::Done(None));
        }
        waits_for(future.clone())
    }
}

as_coroutine!(Waiting);
