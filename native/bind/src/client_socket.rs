//! `gunicorn.socket`: the client's socket, for applications that look at it or take it over.
//!
//! Owns       what of a socket moves bytes, and so takes the connection over.
//! Never      makes a socket before somebody asks for something of it; then it is a duplicate, which the
//!            exchange owns.
//! Invariant  a duplicate that only was looked at ends with its request, so that the connection's end is the
//!            end of the connection.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::exchange::Exchange;

/// The client's socket.
///
/// The loop leaves the connection alone while the application runs, so an application may take it over:
/// it speaks on it as long as it likes, and ends with StopIteration.
#[pyclass(frozen, module = "bicorn._core")]
pub struct ClientSocket(Py<Exchange>);

impl ClientSocket {
    /// The socket of whatever request the exchange is in.
    pub fn new(exchange: Py<Exchange>) -> Self {
        Self(exchange)
    }

    /// The duplicate, made at its first use. Nothing is borrowed while Python code makes it.
    fn duplicate<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let exchange = self.0.bind(py);
        let open = {
            let borrowed = exchange.try_borrow()?;
            if let Some(socket) = borrowed.client_socket(py) {
                return Ok(socket);
            }
            borrowed.open_socket().cloned()
        };
        let open = open.ok_or_else(|| PyOSError::new_err("the client's connection is closed"))?;
        let copy = rustix::io::fcntl_dupfd_cloexec(&*open, 0).map_err(|errno| {
            PyOSError::new_err((errno.raw_os_error(), "cannot duplicate the client's socket"))
        })?;
        let socket = python_socket(py, copy)?;
        exchange.try_borrow_mut()?.keep_client_socket(&socket);
        Ok(socket)
    }
}

/// Beginnings of the names by which an application gets at the connection's bytes.
const MOVES_BYTES: [&str; 6] = ["recv", "send", "makefile", "fileno", "dup", "detach"];

/// The longest timeout that CPython's `socket.settimeout` takes is INT_MAX milliseconds, 24.8 days.
const BLOCKING_S: u32 = 24 * 24 * 3600;

fn python_socket(py: Python<'_>, copy: OwnedFd) -> PyResult<Bound<'_, PyAny>> {
    let class = py.import("socket")?.getattr("socket")?;
    let kwargs = pyo3::types::IntoPyDict::into_py_dict([("fileno", copy.into_raw_fd())], py)?;
    wait_like_a_blocking_one(class.call((), Some(&kwargs))?)
}

/// Makes the calls of a socket wait as those of a blocking one do, with a timeout: clearing O_NONBLOCK would
/// clear it for the loop as well, which shares it. The sockets of gevent and eventlet wait by themselves.
fn wait_like_a_blocking_one(socket: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let class = socket.get_type();
    if class.module()?.to_str()? == "socket" && socket.call_method0("gettimeout")?.is_none() {
        socket.call_method1("settimeout", (BLOCKING_S,))?;
    }
    Ok(socket)
}

#[pymethods]
impl ClientSocket {
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let socket = self.duplicate(py)?;
        if MOVES_BYTES.iter().any(|beginning| name.starts_with(beginning)) {
            self.0.bind(py).try_borrow_mut()?.take_connection()?;
        }
        socket.getattr(name)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let exchange = self.0.bind(py).try_borrow();
        match exchange.as_ref().ok().and_then(|exchange| exchange.open_socket()) {
            None => "<bicorn client socket, closed>".to_owned(),
            Some(fd) => format!("<bicorn client socket fd={}>", fd.as_raw_fd()),
        }
    }
}
