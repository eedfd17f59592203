//! The two callables of an exchange, as the application holds them.
//!
//! Owns       their definitions, and when an exchange can serve another request.
//! Never      knows what a message is.

use std::rc::Rc;

use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

use super::Exchange;
use crate::asgi::callables::{callable, none, one};
use crate::asgi::channel::{Channel, Receiving, Sending};
use crate::asgi::server::Shared;

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
        Ok(Self {
            receive: callable(py, &exchange, receive)?,
            send: callable(py, &exchange, send)?,
            exchange,
        })
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

/// `await receive()`: the next message of the request (ASGI, HTTP).
fn receive(
    py: Python<'_>,
    owner: *mut ffi::PyObject,
    arguments: &[*mut ffi::PyObject],
) -> PyResult<*mut ffi::PyObject> {
    none(arguments)?;
    // SAFETY: `callable` was given an Exchange.
    let exchange = unsafe { Borrowed::from_ptr(py, owner).cast_unchecked::<Exchange>() };
    Receiving::from(py, Channel::Request(exchange.to_owned().unbind())).map(Bound::into_ptr)
}

/// `await send(message)`: a message of the response is taken (ASGI, HTTP).
fn send(
    py: Python<'_>,
    owner: *mut ffi::PyObject,
    arguments: &[*mut ffi::PyObject],
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: `callable` was given an Exchange; the argument is alive as long as the call.
    let (exchange, message) = unsafe {
        (Borrowed::from_ptr(py, owner).cast_unchecked::<Exchange>(), Borrowed::from_ptr(py, one(arguments)?))
    };
    if exchange.get().state.get(py).shared.is_elsewhere() {
        let channel = Channel::Request(exchange.to_owned().unbind());
        return Sending::through(channel, &message).map(Bound::into_ptr);
    }
    exchange.get().send(py, &exchange, &message).map(Bound::into_ptr)
}
