//! An exchange whose application speaks WSGI: what its environ and its head have that no scope and no message has.
//!
//! Owns       the head as `start_response` said it, and the keys of the environ that only the connection knows.
//! Never      runs the application, which a thread of its own calls.
//! Invariant  both are those of the native loop's own workers: they are made by the same functions.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{Exchange, Stage, State};
use crate::peer::Proxied;
use crate::response_head::ResponseHead;
use crate::text::latin1;

/// Status and fields of a response, checked; made in whichever thread calls `start_response`.
#[pyclass(frozen, module = "bicorn._core")]
pub struct WsgiHead {
    bytes: Vec<u8>,
    status: u16,
    content_length: Option<u64>,
    close_wanted: bool,
}

#[pymethods]
impl WsgiHead {
    /// What was said, by a server of this name; raises for what cannot go on the wire.
    #[new]
    fn new(server: &str, status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut head = ResponseHead::new(server.as_bytes());
        head.say(status, headers)?;
        if head.status < 200 {
            // Only the application could speak what follows, and this worker keeps its connections.
            return Err(PyValueError::new_err(format!("invalid status {}: it ends no request", head.status)));
        }
        Ok(Self {
            bytes: head.bytes().to_vec(),
            status: head.status,
            content_length: head.content_length,
            close_wanted: head.close_wanted,
        })
    }
}

impl Exchange {
    /// Takes the head of the response, as the message `http.response.start` would give it.
    pub(super) fn take_head(&self, py: Python<'_>, head: &WsgiHead) -> PyResult<()> {
        self.state.get(py).take_head(head)
    }

    /// Puts into an environ what its scope does not say: the target as it was sent, and the other end.
    pub(super) fn fill_environ(&self, py: Python<'_>, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        let state = self.state.get(py);
        environ.set_item(intern!(py, "RAW_URI"), latin1(py, &state.line.borrow().1)?)?;
        let Some(conn) = state.conn.borrow().clone() else { return Ok(()) };
        let client = conn.peer.client();
        environ.set_item(intern!(py, "REMOTE_ADDR"), &client.remote_addr)?;
        if let Ok((_, port)) = client.client.extract::<(Bound<'_, PyAny>, u16)>(py) {
            environ.set_item(intern!(py, "REMOTE_PORT"), port.to_string())?;
        } else if environ.contains(intern!(py, "REMOTE_PORT"))? {
            environ.del_item(intern!(py, "REMOTE_PORT"))?; // Of a client that X-Forwarded-For names.
        }
        conn.peer.origin.get().map_or(Ok(()), |&origin| Proxied::new(py, origin).show(py, environ))
    }
}

impl State {
    fn take_head(&self, said: &WsgiHead) -> PyResult<()> {
        if self.conn.borrow().as_ref().is_none_or(|conn| conn.out.closed.get()) {
            return Err(super::client_gone());
        }
        if self.stage.get() != Stage::Fresh {
            return Err(PyRuntimeError::new_err("the response has started already"));
        }
        let mut head = self.head.borrow_mut();
        head.clear();
        head.extend_from_slice(&said.bytes);
        self.status.set(said.status);
        self.content_length.set(said.content_length);
        self.close_wanted.set(said.close_wanted);
        self.trailers_promised.set(false);
        self.stage.set(Stage::Started);
        Ok(())
    }
}
