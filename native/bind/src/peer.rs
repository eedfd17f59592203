//! What is kept in Python's terms about one connection.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};

use bicorn_reactor::Gate;
use bicorn_wire::Origin;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// The other end of a connection. Made where no Python may run; what Python shows of it is made with
/// the first request.
pub struct Peer {
    /// Index of the listener it came in on.
    pub listener: usize,
    /// It may speak for others.
    pub trusted: bool,
    /// None for a unix socket.
    pub address: Option<SocketAddr>,
    /// For whom it opened the connection, by its own PROXY header.
    pub origin: Option<Origin>,
    shown: Option<Shown>,
}

/// What an environ says of a peer.
pub struct Shown {
    /// `REMOTE_ADDR`.
    pub remote_addr: Py<PyString>,
    /// `REMOTE_PORT`, which a unix socket has not.
    pub remote_port: Option<Py<PyString>>,
    /// What came of a PROXY header.
    pub proxied: Option<Proxied>,
    /// `gunicorn.socket`: one object a connection, a real socket only when it is used.
    pub socket: Py<ClientSocket>,
}

/// What an environ says of a PROXY header.
pub struct Proxied {
    /// `PROXY_PROTOCOL`.
    pub protocol: &'static str,
    /// `PROXY_ADDR` and `PROXY_PORT`, where the header names them.
    pub address: Option<(Py<PyString>, Py<PyString>)>,
}

impl Peer {
    /// A peer from what accept returned.
    pub fn new(
        listener: usize,
        address: Option<SocketAddr>,
        trusts: impl Fn(Option<IpAddr>) -> bool,
    ) -> Self {
        let trusted = trusts(address.map(|address| address.ip()));
        Self { listener, trusted, address, origin: None, shown: None }
    }

    /// The client: who the proxy says it is, or the peer itself; none behind a unix socket.
    pub fn client(&self) -> Option<SocketAddr> {
        match self.origin {
            Some(Origin::Relayed { client, .. }) => Some(client),
            _ => self.address,
        }
    }

    /// The client's address as text, empty for a unix socket.
    pub fn address_text(&self) -> String {
        self.client().map(|address| address.ip().to_string()).unwrap_or_default()
    }

    fn proxied(&self, py: Python<'_>) -> Option<Proxied> {
        let origin = self.origin?;
        let address = if let Origin::Relayed { proxy, .. } = origin {
            Some((PyString::new(py, &proxy.ip().to_string()).unbind(), port_text(py, proxy.port())))
        } else {
            None
        };
        Some(Proxied { protocol: origin.protocol(), address })
    }

    /// What Python shows of it.
    #[inline]
    pub fn shown(&mut self, py: Python<'_>, socket: Option<&Arc<OwnedFd>>) -> PyResult<&Shown> {
        if self.shown.is_none() {
            let port = self.client().map(|address| address.port());
            let socket = socket.map(Arc::downgrade).unwrap_or_default();
            self.shown = Some(Shown {
                remote_addr: PyString::new(py, &self.address_text()).unbind(),
                remote_port: port.map(|port| port_text(py, port)),
                proxied: self.proxied(py),
                socket: Py::new(py, ClientSocket { open: socket, socket: None, gate: None, taken: false })?,
            });
        }
        Ok(self.shown.as_ref().expect("made above"))
    }
}

fn port_text(py: Python<'_>, port: u16) -> Py<PyString> {
    PyString::new(py, itoa::Buffer::new().format(port)).unbind()
}

/// The client's socket, for applications that look at it: a duplicate made at first use.
///
/// The loop leaves the connection alone while the application runs, so an application may take it over:
/// it speaks on it as long as it likes, and ends with StopIteration. An environ may be looked at,
/// and come to its end, in any thread; the interpreter lock keeps them apart.
#[pyclass(module = "bicorn._core")]
pub struct ClientSocket {
    open: Weak<OwnedFd>,
    socket: Option<Py<PyAny>>,
    gate: Option<Arc<Gate>>,
    taken: bool,
}

impl ClientSocket {
    /// Another request of this connection begins.
    pub fn begin(&mut self, gate: Arc<Gate>) {
        self.gate = Some(gate);
    }

    /// Whether the application has taken the connection over.
    pub fn is_taken(&self) -> bool {
        self.taken
    }

    /// Notes that bytes are about to be moved, or that a copy is made to move them by.
    fn take(&mut self) -> PyResult<()> {
        if !self.taken && self.gate.as_ref().is_some_and(|gate| !gate.take()) {
            return Err(PyOSError::new_err(
                "the request took longer than `timeout` and was answered with 504",
            ));
        }
        self.taken = true;
        Ok(())
    }
}

/// Beginnings of the names by which an application gets at the connection's bytes.
const MOVES_BYTES: [&str; 6] = ["recv", "send", "makefile", "fileno", "dup", "detach"];

/// The longest timeout that CPython's `socket.settimeout` takes is INT_MAX milliseconds, 24.8 days.
const BLOCKING_S: u32 = 24 * 24 * 3600;

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
    fn __getattr__<'py>(&mut self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        if self.socket.is_none() {
            let Some(open) = self.open.upgrade() else {
                return Err(PyOSError::new_err("the client's connection is closed"));
            };
            let copy = rustix::io::fcntl_dupfd_cloexec(&*open, 0).map_err(|errno| {
                PyOSError::new_err((errno.raw_os_error(), "cannot duplicate the client's socket"))
            })?;
            let socket = py.import("socket")?.getattr("socket")?;
            let kwargs = [("fileno", std::os::fd::IntoRawFd::into_raw_fd(copy))];
            let kwargs = pyo3::types::IntoPyDict::into_py_dict(kwargs, py)?;
            let socket = wait_like_a_blocking_one(socket.call((), Some(&kwargs))?)?;
            self.socket = Some(socket.unbind());
        }
        if MOVES_BYTES.iter().any(|beginning| name.starts_with(beginning)) {
            self.take()?;
        }
        self.socket.as_ref().expect("made above").bind(py).getattr(name)
    }

    fn __repr__(&self) -> String {
        match self.open.upgrade() {
            None => "<bicorn client socket, closed>".to_owned(),
            Some(fd) => format!("<bicorn client socket fd={}>", fd.as_raw_fd()),
        }
    }
}
