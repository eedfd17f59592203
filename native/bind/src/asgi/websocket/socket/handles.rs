//! The two callables of a WebSocket, as the application holds them.
//!
//! Owns       how they are called.
//! Never      knows what a message is.

use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

use super::WebSocket;
use crate::asgi::callables::{none, one};
use crate::asgi::channel::{Channel, Receiving, Sending};

/// `await receive()`: the next message from the client (ASGI, WebSocket).
pub(super) fn receive(
    py: Python<'_>,
    owner: *mut ffi::PyObject,
    arguments: &[*mut ffi::PyObject],
) -> PyResult<*mut ffi::PyObject> {
    none(arguments)?;
    // SAFETY: `callable` was given a WebSocket.
    let socket = unsafe { Borrowed::from_ptr(py, owner).cast_unchecked::<WebSocket>() };
    Receiving::from(py, Channel::Socket(socket.to_owned().unbind())).map(Bound::into_ptr)
}

/// `await send(message)`: a message to the client is taken (ASGI, WebSocket).
pub(super) fn send(
    py: Python<'_>,
    owner: *mut ffi::PyObject,
    arguments: &[*mut ffi::PyObject],
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: `callable` was given a WebSocket; the argument is alive as long as the call.
    let (socket, message) = unsafe {
        (Borrowed::from_ptr(py, owner).cast_unchecked::<WebSocket>(), Borrowed::from_ptr(py, one(arguments)?))
    };
    if socket.get().state.get(py).shared.is_elsewhere() {
        return Sending::through(Channel::Socket(socket.to_owned().unbind()), &message).map(Bound::into_ptr);
    }
    socket.get().send(py, &message).map(Bound::into_ptr)
}
