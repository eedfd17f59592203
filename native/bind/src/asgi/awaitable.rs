//! Awaitables that are done before anybody awaits them.
//!
//! Owns       the two shapes: "done", and "done, with this value".
//! Never      suspends: a step that awaits one of these goes on in the same turn of the loop.

use std::cell::RefCell;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::asgi::guarded::Guarded;

/// What `send` gives when nothing has to wait; one object serves every call.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Done;

#[pymethods]
impl Done {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }
}

/// What `receive` gives when the message is there.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Ready {
    value: Guarded<RefCell<Option<Py<PyAny>>>>,
}

impl Ready {
    /// An awaitable of `value`.
    #[inline]
    pub fn with<'py>(py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let ready = Self { value: Guarded::new(RefCell::new(Some(value.unbind()))) };
        Ok(Bound::new(py, ready)?.into_any())
    }
}

#[pymethods]
impl Ready {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Ends at once; the value travels in the StopIteration, which CPython takes apart without ever
    /// making the exception object.
    fn __next__(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        if let Some(value) = self.value.get(py).take() {
            // SAFETY: both are alive; the error is set and None returned, which together is how an
            // iterator ends with a value. A message is a dict, so it is never taken for a tuple of
            // arguments or for an exception.
            unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()) };
        }
        None
    }
}
