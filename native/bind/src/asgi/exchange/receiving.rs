//! `receive`: the messages of the request, in their order.
//!
//! Owns       which message is next, and who waits for it.
//! Never      reads from the connection: what has come lies in `Incoming`.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{Exchange, Stage, State, settle};
use crate::asgi::awaitable::Ready;

impl Exchange {
    /// Hands what has come to whoever waits for it.
    pub fn deliver(&self, py: Python<'_>) {
        let state = self.state.get(py);
        while !state.receiving.borrow().is_empty() {
            let message = match state.next_message(py) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(error) => return error.write_unraisable(py, None),
            };
            let waiting = state.receiving.borrow_mut().remove(0);
            if !settle(py, &waiting, Ok(&message)) {
                state.incoming.give_back(py, &message);
            }
        }
    }

    pub(super) fn receive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state.get(py);
        if let Some(message) = state.next_message(py)? {
            let conn = state.conn.borrow().clone();
            if let Some(conn) = conn {
                conn.body_taken(py, &state.incoming);
            }
            return Ready::with(py, message);
        }
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
    /// The next message of the request, if there is one now.
    pub(super) fn next_message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
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
