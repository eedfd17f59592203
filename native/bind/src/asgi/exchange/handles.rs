//! The two callables of an exchange, as the application holds them.
//!
//! Owns       their definitions, and when an exchange can serve another request.
//! Never      knows what a message is.

use std::rc::Rc;

use pyo3::ffi::{PyMethodDef, PyMethodDefPointer};
use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

use super::Exchange;
use crate::asgi::channel::{Channel, Receiving, Sending};
use crate::asgi::server::Shared;
use crate::callable::{Definition, answer, bound};

/// An exchange and its two callables.
pub struct Handles {
    /// The state.
    pub exchange: Py<Exchange>,
    /// `receive`.
    pub receive: Py<PyAny>,
    /// `send`.
    pub send: Py<PyAny>,
}

impl Handles {
    /// Handles for requests of this server.
    pub fn new(py: Python<'_>, shared: &Rc<Shared>) -> PyResult<Self> {
        let exchange = Py::new(py, Exchange::new(shared))?;
        Ok(Self { receive: bound(py, &RECEIVE, &exchange)?, send: bound(py, &SEND, &exchange)?, exchange })
    }

    /// Whether the application has kept none of them, so that they can serve again.
    #[inline]
    pub fn are_free(&self, py: Python<'_>) -> bool {
        // SAFETY: reads reference counts of objects that are alive, under the interpreter lock. The
        // exchange itself is held here and by the two callables.
        let free = unsafe {
            ffi::Py_REFCNT(self.receive.as_ptr()) == 1
                && ffi::Py_REFCNT(self.send.as_ptr()) == 1
                && ffi::Py_REFCNT(self.exchange.as_ptr()) == 3
        };
        free && self.exchange.get().state.get(py).run.borrow().is_none()
    }
}

static RECEIVE: Definition = Definition(PyMethodDef {
    ml_name: c"receive".as_ptr(),
    ml_meth: PyMethodDefPointer { PyCFunction: receive },
    ml_flags: ffi::METH_NOARGS,
    ml_doc: c"receive(): await the next message of the request (ASGI, HTTP)".as_ptr(),
});

static SEND: Definition = Definition(PyMethodDef {
    ml_name: c"send".as_ptr(),
    ml_meth: PyMethodDefPointer { PyCFunction: send },
    ml_flags: ffi::METH_O,
    ml_doc: c"send(message): await that a message of the response is taken (ASGI, HTTP)".as_ptr(),
});

unsafe extern "C" fn receive(slf: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: Python calls this with the interpreter lock held.
    let py = unsafe { Python::assume_attached() };
    answer(py, || {
        // SAFETY: `bound` gave the function an Exchange as its self.
        let exchange = unsafe { Borrowed::from_ptr(py, slf).cast_unchecked::<Exchange>() };
        Receiving::from(py, Channel::Request(exchange.to_owned().unbind())).map(Bound::into_ptr)
    })
}

unsafe extern "C" fn send(slf: *mut ffi::PyObject, message: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: Python calls this with the interpreter lock held.
    let py = unsafe { Python::assume_attached() };
    answer(py, || {
        // SAFETY: `bound` gave the function an Exchange as its self, and METH_O gives one argument.
        let (exchange, message) = unsafe {
            (Borrowed::from_ptr(py, slf).cast_unchecked::<Exchange>(), Borrowed::from_ptr(py, message))
        };
        if exchange.get().state.get(py).shared.is_elsewhere() {
            let channel = Channel::Request(exchange.to_owned().unbind());
            return Sending::through(channel, &message).map(Bound::into_ptr);
        }
        exchange.get().send(py, &exchange, &message).map(Bound::into_ptr)
    })
}
