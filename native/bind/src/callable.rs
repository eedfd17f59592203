//! Builtin functions bound to one of our objects.
//!
//! Owns       their definitions' shape, and the rule that no panic leaves one of them.
//! Never      knows what they do.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi::{self, PyMethodDef};
use pyo3::prelude::*;

/// A method definition; Python keeps a pointer to it, so it lives for ever.
pub struct Definition(pub PyMethodDef);

// SAFETY: never written after its creation.
unsafe impl Sync for Definition {}

/// A builtin function whose `self` is `object`.
pub fn bound<T>(py: Python<'_>, definition: &'static Definition, object: &Py<T>) -> PyResult<Py<PyAny>> {
    // SAFETY: the definition lives for ever and is not written through this pointer; the function
    // takes its own reference to the object.
    unsafe {
        let function = ffi::PyCFunction_NewEx(
            (&raw const definition.0).cast_mut(),
            object.as_ptr(),
            std::ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(py, function).map(Bound::unbind)
    }
}

/// Runs a callable's body; an error or a panic becomes the exception that Python sees.
#[inline]
pub fn answer(py: Python<'_>, body: impl FnOnce() -> PyResult<*mut ffi::PyObject>) -> *mut ffi::PyObject {
    let error = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(result)) => return result,
        Ok(Err(error)) => error,
        Err(_) => PyRuntimeError::new_err("a bug in Bicorn: a panic inside one of its callables"),
    };
    error.restore(py);
    std::ptr::null_mut()
}
