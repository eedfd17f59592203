//! An exchange whose request asks for a WebSocket.
//!
//! Owns       the books of such a request, from its handshake to the end of the WebSocket.
//! Never      sends a frame.

use pyo3::prelude::*;

use super::{Exchange, Stage};
use crate::asgi::websocket::WebSocket;

impl Exchange {
    /// The request asks to become this.
    pub fn attach(&self, py: Python<'_>, websocket: Py<WebSocket>) {
        self.state.get(py).websocket.replace(Some(websocket));
    }

    /// It has become one: this is the answer.
    pub fn upgraded(&self, py: Python<'_>, head: &[u8]) {
        let state = self.state.get(py);
        state.status.set(101);
        let mut noted = state.head.borrow_mut();
        noted.clear();
        noted.extend_from_slice(head);
    }

    /// The WebSocket, which sent so many bytes of messages, is over.
    pub fn conclude(&self, py: Python<'_>, message_bytes: u64) {
        let state = self.state.get(py);
        state.body_bytes.set(message_bytes);
        state.stage.set(Stage::Complete);
        state.leave(py);
    }

    /// The application raised after it had accepted; `gone` says that the client had left before.
    pub fn blame(&self, py: Python<'_>, error: PyErr, gone: bool) {
        let state = self.state.get(py);
        if !gone || !state.shared.is_of_disconnect(py, &error) {
            let scope = state.scope.borrow().as_ref().map(|scope| scope.clone_ref(py));
            state.shared.application_failed(py, error, scope, " after its response had begun");
        }
    }
}
