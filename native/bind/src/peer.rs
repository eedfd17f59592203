//! What is kept in Python's terms about one connection.

use std::net::{IpAddr, SocketAddr};

use bicorn_wire::Origin;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

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
}

/// What an environ says of a PROXY header.
pub struct Proxied {
    /// `PROXY_PROTOCOL`.
    pub protocol: &'static str,
    /// `PROXY_ADDR` and `PROXY_PORT`, where the header names them.
    pub address: Option<(Py<PyString>, Py<PyString>)>,
}

impl Proxied {
    /// What an environ says of this header.
    pub fn new(py: Python<'_>, origin: Origin) -> Self {
        let address = if let Origin::Relayed { proxy, .. } = origin {
            Some((PyString::new(py, &proxy.ip().to_string()).unbind(), port_text(py, proxy.port())))
        } else {
            None
        };
        Self { protocol: origin.protocol(), address }
    }

    /// Says it.
    pub fn show(&self, py: Python<'_>, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        environ.set_item(intern!(py, "PROXY_PROTOCOL"), self.protocol)?;
        if let Some((address, port)) = &self.address {
            environ.set_item(intern!(py, "PROXY_ADDR"), address)?;
            environ.set_item(intern!(py, "PROXY_PORT"), port)?;
        }
        Ok(())
    }
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

    /// What Python shows of it.
    #[inline]
    pub fn shown(&mut self, py: Python<'_>) -> &Shown {
        if self.shown.is_none() {
            let port = self.client().map(|address| address.port());
            self.shown = Some(Shown {
                remote_addr: PyString::new(py, &self.address_text()).unbind(),
                remote_port: port.map(|port| port_text(py, port)),
                proxied: self.origin.map(|origin| Proxied::new(py, origin)),
            });
        }
        self.shown.as_ref().expect("made above")
    }
}

fn port_text(py: Python<'_>, port: u16) -> Py<PyString> {
    PyString::new(py, itoa::Buffer::new().format(port)).unbind()
}
