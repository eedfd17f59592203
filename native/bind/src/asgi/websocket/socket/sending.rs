//! `send`: the application's messages, in their order.
//!
//! Owns       what an application is told that breaks the order, and how a handshake is answered.
//! Never      frames a message itself: `Frames` does.

use bicorn_wire::websocket::{CLOSE_REASON_BYTES_MAX, Opcode, code, is_sendable};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::{Stage, State, WebSocket, client_gone};
use crate::asgi::awaitable::Waiting;
use crate::asgi::websocket::opening::accept_head;

impl WebSocket {
    /// Sends a message of the application's.
    #[inline]
    pub fn send<'py>(&self, py: Python<'py>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let message =
            message.cast::<PyDict>().map_err(|_| PyTypeError::new_err("an ASGI message must be a dict"))?;
        let kind = message
            .get_item(intern!(py, "type"))?
            .ok_or_else(|| PyRuntimeError::new_err("an ASGI message must have a type"))?
            .cast_into::<PyString>()
            .map_err(|_| PyTypeError::new_err("a message's type must be a str"))?;
        let state = self.state.get(py);
        match (kind.to_str()?, state.stage.get()) {
            ("websocket.send", Stage::Open) => return state.send_message(py, message),
            ("websocket.accept", Stage::Opening) => self.accept(py, message)?,
            ("websocket.close", Stage::Open) => state.close_as_told(py, message)?,
            ("websocket.close", Stage::Opening) => state.refuse(py),
            ("websocket.http.response.start", Stage::Opening)
            | ("websocket.http.response.body", Stage::Denying) => return state.deny(py, message, &kind),
            (known, stage) => return Err(out_of_order(known, stage)),
        }
        Ok(state.shared.done(py))
    }

    fn accept(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let state = self.state.get(py);
        if state.lost.get() || state.conn.out.closed.get() {
            return Err(client_gone());
        }
        let head = accept_head(&state.shared, &state.handshake, message)?;
        state.stage.set(Stage::Open);
        state.heard_ms.set(state.shared.now_ms());
        state.conn.out.write(py, &[&head]);
        if let Some(exchange) = state.exchange.borrow().as_ref() {
            exchange.get().upgraded(py, &head);
        }
        let early = state.conn.upgrade(py);
        if let Some(code) = state.shared.farewell.get() {
            state.close(py, Some(code), "");
        }
        if !early.is_empty() {
            self.received(py, &early);
        }
        Ok(())
    }
}

impl State {
    #[inline]
    fn send_message<'py>(
        &self,
        py: Python<'py>,
        message: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let given = |key| Ok::<_, PyErr>(message.get_item(key)?.filter(|given| !given.is_none()));
        let (opcode, payload) = match given(intern!(py, "text"))? {
            Some(text) => (Opcode::Text, text),
            None => match given(intern!(py, "bytes"))? {
                Some(bytes) => (Opcode::Binary, bytes),
                None => return Err(PyRuntimeError::new_err("websocket.send must have text or bytes")),
            },
        };
        let wrong = |must: &str| {
            let kind = payload.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
            PyTypeError::new_err(format!("{must} in websocket.send, not {kind}"))
        };
        match opcode {
            Opcode::Text => {
                let text = payload.cast::<PyString>().map_err(|_| wrong("text must be a str"))?;
                self.send_payload(py, opcode, text.to_str()?.as_bytes())
            }
            _ => match payload.cast::<PyBytes>() {
                Ok(bytes) => self.send_payload(py, opcode, bytes.as_bytes()),
                Err(_) => {
                    let buffer = PyBuffer::<u8>::get(&payload).map_err(|_| wrong("bytes must be bytes"))?;
                    self.send_payload(py, opcode, &buffer.to_vec(py)?)
                }
            },
        }
    }

    #[inline]
    fn send_payload<'py>(
        &self,
        py: Python<'py>,
        opcode: Opcode,
        payload: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        if !self.closing.get().may_send() || self.conn.out.closed.get() {
            return Err(client_gone());
        }
        self.sent_bytes.set(self.sent_bytes.get() + payload.len() as u64);
        self.frames.borrow_mut().write(opcode, payload, |pieces| self.conn.out.write(py, pieces));
        if self.conn.out.paused.get() {
            return Waiting::on(self.shared.wait(py, &self.draining)?);
        }
        Ok(self.shared.done(py))
    }

    fn close_as_told(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let given = |key| Ok::<_, PyErr>(message.get_item(key)?.filter(|given| !given.is_none()));
        let code = given(intern!(py, "code"))?.map_or(Ok(code::NORMAL), |code| code.extract::<u16>())?;
        let reason =
            given(intern!(py, "reason"))?.map_or(Ok(String::new()), |reason| reason.extract::<String>())?;
        if !is_sendable(code) {
            return Err(PyValueError::new_err(format!("close code {code} must not be sent (RFC 6455, 7.4)")));
        }
        if reason.len() > CLOSE_REASON_BYTES_MAX {
            return Err(PyValueError::new_err(format!(
                "a close reason has at most {CLOSE_REASON_BYTES_MAX} bytes, not {}",
                reason.len()
            )));
        }
        self.stage.set(Stage::Closed);
        self.close(py, Some(code), &reason);
        self.inbox.clear();
        self.conn.resume_reading(py);
        Ok(())
    }

    /// Closed before it was accepted: 403 (ASGI, WebSocket, "Close").
    fn refuse(&self, py: Python<'_>) {
        self.stage.set(Stage::Refused);
        self.finish(code::ABNORMAL, "");
        let Some(exchange) = self.exchange.take() else { return };
        if !self.conn.out.closed.get() {
            self.conn.send_error(py, 403, true);
        }
        exchange.get().supersede(py, 403);
        self.conn.answered(py, false);
    }

    /// A response instead of a WebSocket: the exchange of the request sends it.
    fn deny<'py>(
        &self,
        py: Python<'py>,
        message: &Bound<'py, PyDict>,
        kind: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let exchange = self.exchange.borrow().as_ref().map(|exchange| exchange.clone_ref(py));
        let Some(exchange) = exchange else { return Err(client_gone()) };
        let name = kind.to_str()?.trim_start_matches("websocket.");
        let sent = exchange.get().act(py, exchange.bind(py), message, kind, name)?;
        self.stage.set(Stage::Denying);
        Ok(sent)
    }
}

fn out_of_order(kind: &str, stage: Stage) -> PyErr {
    let stage = match stage {
        Stage::Opening => "not accepted yet",
        Stage::Denying => "denied",
        Stage::Open => "open",
        Stage::Closed => "closed",
        Stage::Refused => "refused",
    };
    PyRuntimeError::new_err(format!(
        "the message {kind} is unknown or out of order: the WebSocket is {stage}"
    ))
}
