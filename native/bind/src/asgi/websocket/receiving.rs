//! What `receive` gives.
//!
//! Owns       the wait for a message, if there has to be one.
//! Never      takes a message before the application goes on with it: one that gives up waiting, with
//!            asyncio.wait_for say, loses nothing.

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use crate::asgi::websocket::WebSocket;

/// An awaitable of the next message.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Receiving {
    socket: Py<WebSocket>,
}

impl Receiving {
    /// Of this WebSocket.
    #[inline]
    pub fn of<'py>(socket: &Bound<'py, WebSocket>) -> PyResult<Bound<'py, PyAny>> {
        let receiving = Self { socket: socket.clone().unbind() };
        Ok(Bound::new(socket.py(), receiving)?.into_any())
    }
}

#[pymethods]
impl Receiving {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Ends with the message if there is one, else gives the future that the task is to wait for.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(message) = self.socket.get().take_message(py)? {
            // SAFETY: both are alive; the error is set and None returned, which together is how an
            // iterator ends with a value. A message is a dict, so it is never taken for a tuple of
            // arguments or for an exception.
            unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, message.as_ptr()) };
            return Ok(None);
        }
        let future = self.socket.get().wait_for_message(py)?;
        // As `await future` would have it: the mark of a future that a task has to wait for.
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        Ok(Some(future))
    }
}
