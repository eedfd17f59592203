//! `receive`: the messages of the request, in their order.
//!
//! Owns       which message is next, and who waits for it.
//! Never      reads from the connection: what has come lies in `Incoming`.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{Exchange, Stage, State, settle};

impl Exchange {
    /// Wakes whoever waits for a message, if there is one; whether anybody did.
    pub fn deliver(&self, py: Python<'_>) -> bool {
        let state = self.state.get(py);
        let mut woken = false;
        if state.has_message() {
            for waiting in state.receiving.take() {
                woken |= settle(py, &waiting, Ok(py.None().bind(py)));
            }
        }
        woken
    }

    /// The next message, if there is one now.
    #[inline]
    pub fn take_message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let state = self.state.get(py);
        let message = state.next_message(py)?;
        let conn = message.as_ref().and_then(|_| state.conn.borrow().clone());
        if let Some(conn) = conn {
            conn.body_taken(py, &state.incoming);
        }
        Ok(message)
    }

    /// A future that is done when there may be one. The client may wait to be asked for it.
    pub fn wait_for_message<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state.get(py);
        let conn = state.conn.borrow().clone();
        if let Some(conn) = conn
            && state.stage.get() == Stage::Fresh
        {
            conn.want_body(py);
        }
        state.shared.wait(py, &state.receiving)
    }
}

impl State {
    fn has_message(&self) -> bool {
        self.stage.get() == Stage::Complete || self.disconnected.get() || self.incoming.is_ready()
    }

    /// The next message of the request, if there is one now.
    fn next_message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let over = self.stage.get() == Stage::Complete;
        if !over && let Some((body, more)) = self.incoming.take(py) {
            return self.shared.request_message(py, body, more).map(Some);
        }
        if over || self.disconnected.get() {
            let message = PyDict::new(py);
            message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
            return Ok(Some(message.into_any()));
        }
        Ok(None)
    }
}
