//! What asyncio and uvloop call.
//!
//! Owns       the methods of an `asyncio.Protocol`, for one connection from its transport to its loss.
//! Never      decides anything: the connection does.

use std::cell::RefCell;
use std::rc::Rc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{Came, Conn};
use crate::asgi::guarded::Guarded;
use crate::asgi::server::Shared;

/// The protocol of one connection.
#[pyclass(frozen, module = "bicorn._core")]
pub struct AsgiProtocol {
    conn: Guarded<RefCell<Option<Rc<Conn>>>>,
    shared: Guarded<Rc<Shared>>,
    came: Came,
}

impl AsgiProtocol {
    /// A protocol without a transport yet.
    pub fn new(shared: &Rc<Shared>, came: Came) -> Self {
        let shared = Guarded::new(Rc::clone(shared));
        Self { conn: Guarded::new(RefCell::new(None)), shared, came }
    }

    #[inline]
    fn conn(&self, py: Python<'_>) -> Option<Rc<Conn>> {
        self.conn.get(py).borrow().clone()
    }
}

#[pymethods]
impl AsgiProtocol {
    fn connection_made(slf: &Bound<'_, Self>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let shared = slf.get().shared.get(py);
        let conn = Conn::new(shared, shared.peer(transport)?, slf.get().came);
        slf.get().conn.get(py).replace(Some(Rc::clone(&conn)));
        conn.made(py, transport, slf.getattr(intern!(py, "resume"))?.unbind())
    }

    fn data_received(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) {
        if let Some(conn) = self.conn(py) {
            conn.received(py, data);
        }
    }

    fn eof_received(&self, py: Python<'_>) -> bool {
        self.conn(py).is_some_and(|conn| conn.eof_received(py))
    }

    fn connection_lost(&self, py: Python<'_>, error: Option<Py<PyAny>>) {
        drop(error); // Whatever broke the connection, what follows is the same.
        if let Some(conn) = self.conn.get(py).take() {
            conn.lost(py);
        }
    }

    fn pause_writing(&self, py: Python<'_>) {
        if let Some(conn) = self.conn(py) {
            conn.writing_paused(py);
        }
    }

    fn resume_writing(&self, py: Python<'_>) {
        if let Some(conn) = self.conn(py) {
            conn.writing_resumed(py);
        }
    }

    /// Goes on with requests that were read already.
    fn resume(&self, py: Python<'_>) {
        if let Some(conn) = self.conn(py) {
            conn.resumed(py);
        }
    }
}
