//! The `contextvars.Context` of one exchange.
//!
//! Owns       entering and leaving it, which C offers without a Python call.
//! Invariant  what a request sets is seen by all of its own code, also by the parts of its answer that are
//!            pulled later, and by no other request that the same thread serves in between.

use pyo3::ffi;
use pyo3::prelude::*;

/// A context.
pub struct Context(Py<PyAny>);

impl Context {
    /// A copy of the thread's own context.
    #[inline]
    pub fn copy(py: Python<'_>) -> PyResult<Self> {
        // SAFETY: gives a new reference, or null with an error set.
        unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
            .map(|copy| Self(copy.unbind()))
    }

    /// What follows in this thread runs inside it.
    #[inline]
    pub fn enter(&self, py: Python<'_>) {
        // SAFETY: a live context.
        if unsafe { ffi::PyContext_Enter(self.0.as_ptr()) } != 0 {
            PyErr::fetch(py).write_unraisable(py, None);
        }
    }

    /// Ends what `enter` began.
    #[inline]
    pub fn exit(&self, py: Python<'_>) {
        // SAFETY: a live context. An application that has left the thread in another one is told so.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } != 0 {
            PyErr::fetch(py).write_unraisable(py, None);
        }
    }
}
