//! A connection that is a WebSocket now, or is asked to be.
//!
//! Owns       the change from requests to frames, and what the WebSocket says to its connection.
//! Never      looks at a frame.

use std::rc::Rc;

use pyo3::prelude::*;

use super::{Conn, Phase};
use crate::asgi::websocket::WebSocket;

impl Conn {
    /// The WebSocket that the connection is, or is asked to be.
    pub fn attach(&self, websocket: Py<WebSocket>) {
        self.websocket.replace(Some(websocket));
    }

    #[inline]
    pub fn on_websocket(&self, py: Python<'_>, act: impl FnOnce(&WebSocket)) {
        let websocket = self.websocket.borrow().as_ref().map(|websocket| websocket.clone_ref(py));
        if let Some(websocket) = websocket {
            act(websocket.get());
        }
    }

    /// The handshake is answered: from here on the bytes are frames. Gives those that have come already.
    pub fn upgrade(&self, py: Python<'_>) -> Vec<u8> {
        self.phase.set(Phase::Upgraded);
        self.patience(self.shared.websocket.ping_interval_ms);
        self.resume_reading(py);
        self.input.take()
    }

    /// Both sides have said that they close, or the client cannot be talked to (`broken`): then it may go on
    /// sending, and a close with unread input behind it would take our last words with it.
    pub fn hang_up(self: &Rc<Self>, py: Python<'_>, broken: bool) {
        if self.phase.get() != Phase::Upgraded {
            return;
        }
        self.shared.row().sent(self.out.take_sent() as usize);
        if broken { self.linger(py) } else { self.end(py, false) }
    }

    /// The application of the WebSocket has ended.
    pub fn application_left(&self, py: Python<'_>) {
        self.exchange.take();
        if self.phase.get() == Phase::Lost {
            self.forget(py);
        }
    }
}
