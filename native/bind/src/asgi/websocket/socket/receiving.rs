//! `receive`: from the client's frames to the application's messages.
//!
//! Owns       what each frame means, and when reading stops because the application is behind.
//! Never      takes frames apart itself: `bicorn_wire::websocket` does.

use bicorn_wire::websocket::{Closing, Event, Opcode, code, push_frame};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::{Stage, State, WebSocket};
use crate::asgi::exchange::settle;

impl WebSocket {
    /// Bytes from the client, after the handshake.
    #[inline]
    pub fn received(&self, py: Python<'_>, bytes: &[u8]) {
        let state = self.state.get(py);
        state.heard_ms.set(state.shared.now_ms());
        state.pinged.set(false);
        if state.inbox.has_backlog() {
            state.inbox.hold(bytes);
        } else {
            state.decode(py, bytes);
        }
        self.deliver(py);
    }

    /// Wakes whoever waits for a message, if there is something to say.
    pub(super) fn deliver(&self, py: Python<'_>) {
        let state = self.state.get(py);
        if state.is_over() || !state.inbox.is_empty() {
            for waiting in state.receiving.take() {
                settle(py, &waiting, Ok(py.None().bind(py)));
            }
        }
    }

    /// The next message, if there is one now.
    #[inline]
    pub fn take_message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.state.get(py).next_message(py)
    }

    /// A future that is done when there may be one.
    pub fn wait_for_message<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state.get(py);
        state.shared.wait(py, &state.receiving)
    }
}

impl State {
    /// Takes frames apart until the application is too far behind.
    #[inline]
    fn decode(&self, py: Python<'_>, bytes: &[u8]) {
        let mut at = 0;
        let mut pongs = Vec::new();
        while at < bytes.len() {
            if self.inbox.is_full(self.shared.websocket.queue_max) {
                self.inbox.hold(&bytes[at..]);
                self.conn.pause_reading(py);
                break;
            }
            let step = self.reader.borrow_mut().step(&bytes[at..]);
            match step {
                Ok(step) => {
                    at += step.consumed;
                    self.heed(py, step.event, &mut pongs);
                }
                Err(violation) => {
                    self.finish(code::ABNORMAL, violation.kind.text());
                    self.write_pongs(py, &mut pongs);
                    self.close(py, Some(violation.code), violation.kind.text());
                    return self.conn.hang_up(py, true);
                }
            }
        }
        self.write_pongs(py, &mut pongs);
    }

    #[inline]
    fn heed(&self, py: Python<'_>, event: Event, pongs: &mut Vec<u8>) {
        match event {
            Event::NeedData | Event::Pong => {}
            Event::Text | Event::Binary => {
                // After our own Close nobody waits for messages any more.
                if self.closing.get() == Closing::Open
                    && let Err(error) = self.keep_message(py, event == Event::Text)
                {
                    // No memory for it: a message must not be missing without anybody knowing.
                    error.write_unraisable(py, None);
                    self.finish(code::ABNORMAL, "the server could not take a message");
                    self.close(py, Some(code::INTERNAL_ERROR), "");
                    self.conn.hang_up(py, true);
                }
                self.reader.borrow_mut().release_message();
            }
            Event::Ping if !self.closing.get().may_send() => {}
            Event::Ping if self.conn.out.paused.get() => {
                self.pong.replace(Some(self.reader.borrow().control().to_vec()));
            }
            Event::Ping => push_frame(pongs, Opcode::Pong, false, self.reader.borrow().control()),
            Event::Close(code) => {
                self.write_pongs(py, pongs);
                self.closing.set(self.closing.get().after_receiving());
                let reason = self.reader.borrow().close_reason().to_owned();
                self.finish(code.unwrap_or(code::NONE_RECEIVED), &reason);
                self.close(py, code, "");
                self.conn.hang_up(py, false);
            }
        }
    }

    #[inline]
    fn keep_message(&self, py: Python<'_>, is_text: bool) -> PyResult<()> {
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), intern!(py, "websocket.receive"))?;
        let reader = self.reader.borrow();
        let payload = reader.message();
        if is_text {
            message.set_item(intern!(py, "text"), PyString::from_bytes(py, payload)?)?;
        } else {
            message.set_item(intern!(py, "bytes"), PyBytes::new(py, payload))?;
        }
        self.inbox.push(message, payload.len());
        Ok(())
    }

    /// All Pongs of one read leave in one piece: a flood of Pings costs one call.
    fn write_pongs(&self, py: Python<'_>, pongs: &mut Vec<u8>) {
        if !pongs.is_empty() {
            self.conn.out.write(py, &[pongs]);
            pongs.clear();
        }
    }

    /// The next message for the application, if there is one now.
    fn next_message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        if !self.connect_told.replace(true) {
            let message = PyDict::new(py);
            message.set_item(intern!(py, "type"), intern!(py, "websocket.connect"))?;
            return Ok(Some(message));
        }
        if self.stage.get() == Stage::Open {
            if let Some(message) = self.inbox.pop(py) {
                return Ok(Some(message));
            }
            if self.inbox.has_backlog() {
                self.decode(py, &self.inbox.take_backlog());
                if !self.inbox.has_backlog() {
                    self.conn.resume_reading(py);
                }
                if let Some(message) = self.inbox.pop(py) {
                    return Ok(Some(message));
                }
            }
        }
        if !self.is_over() {
            return Ok(None);
        }
        let end = self.end.borrow();
        let (code, reason) = end.as_ref().map_or((code::ABNORMAL, ""), |(code, reason)| (*code, reason));
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), intern!(py, "websocket.disconnect"))?;
        message.set_item(intern!(py, "code"), code)?;
        message.set_item(intern!(py, "reason"), reason)?;
        Ok(Some(message))
    }
}
