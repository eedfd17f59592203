//! What is kept in Python's terms about one connection.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use rustix::net::SocketAddrAny;
use std::net::{IpAddr, SocketAddr};

/// The other end of a connection.
pub struct Peer {
    /// Index of the listener it came in on.
    pub listener: usize,
    /// It may speak for others.
    pub trusted: bool,
    /// `REMOTE_ADDR`.
    pub remote_addr: Py<PyAny>,
    /// `REMOTE_PORT`, which a unix socket has not.
    pub remote_port: Option<Py<PyAny>>,
    socket: Option<Py<ClientSocket>>,
    open: Arc<AtomicI32>,
}

/// Stands for the descriptor of a connection that is closed.
const CLOSED: RawFd = -1;

impl Peer {
    /// A peer from what accept returned.
    pub fn new(
        py: Python<'_>,
        listener: usize,
        address: Option<SocketAddrAny>,
        trusts: impl Fn(Option<IpAddr>) -> bool,
    ) -> Self {
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        let ip = address.map(|address| address.ip());
        let (remote_addr, remote_port) = match address {
            Some(address) => (
                PyString::new(py, &address.ip().to_string()),
                Some(PyString::new(py, itoa::Buffer::new().format(address.port())).into_any().unbind()),
            ),
            None => (PyString::new(py, ""), None),
        };
        Self {
            listener,
            trusted: trusts(ip),
            remote_addr: remote_addr.into_any().unbind(),
            remote_port,
            socket: None,
            open: Arc::new(AtomicI32::new(CLOSED)),
        }
    }

    /// The value of `gunicorn.socket`: one object a connection, a real socket only when it is used.
    #[inline]
    pub fn socket<'py>(&mut self, py: Python<'py>, socket: BorrowedFd<'_>) -> PyResult<Bound<'py, PyAny>> {
        if self.socket.is_none() {
            self.open.store(socket.as_raw_fd(), Relaxed);
            let object = ClientSocket { open: Arc::clone(&self.open), socket: None };
            self.socket = Some(Py::new(py, object)?);
        }
        let object = self.socket.as_ref().expect("made above");
        Ok(object.bind(py).clone().into_any())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The descriptor's number may be another connection's from now on.
        self.open.store(CLOSED, Relaxed);
    }
}

/// The client's socket, for applications that look at it: a duplicate made at first use.
///
/// The loop owns the connection, so reading from it or writing to it is at the application's own
/// risk; `getpeername`, `getsockopt` and the like are what this is for. An environ may be looked at,
/// and come to its end, in any thread; the interpreter lock keeps them apart.
#[pyclass(module = "bicorn._core")]
pub struct ClientSocket {
    open: Arc<AtomicI32>,
    socket: Option<Py<PyAny>>,
}

#[pymethods]
impl ClientSocket {
    fn __getattr__<'py>(&mut self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        if self.socket.is_none() {
            let fd = self.open.load(Relaxed);
            if fd == CLOSED {
                return Err(PyOSError::new_err("the client's connection is closed"));
            }
            // SAFETY: the connection that owns this descriptor clears it before closing it.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            let copy = rustix::io::fcntl_dupfd_cloexec(borrowed, 0).map_err(|errno| {
                PyOSError::new_err((errno.raw_os_error(), "cannot duplicate the client's socket"))
            })?;
            let socket = py.import("socket")?.getattr("socket")?;
            let kwargs = [("fileno", std::os::fd::IntoRawFd::into_raw_fd(copy))];
            let kwargs = pyo3::types::IntoPyDict::into_py_dict(kwargs, py)?;
            self.socket = Some(socket.call((), Some(&kwargs))?.unbind());
        }
        self.socket.as_ref().expect("made above").bind(py).getattr(name)
    }

    fn __repr__(&self) -> String {
        match self.open.load(Relaxed) {
            CLOSED => "<bicorn client socket, closed>".to_owned(),
            fd => format!("<bicorn client socket fd={fd}>"),
        }
    }
}
