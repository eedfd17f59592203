//! One WebSocket, as the application sees it: `receive` and `send`.
//!
//! Owns       the order of messages that ASGI prescribes, the closing handshake, and Pings.
//! Never      blocks or keeps what it cannot bound: reading stops while the application is behind, and
//!            `send` waits while the client is.
//! Invariant  after its Close nothing is sent; the application is told once how the connection ended, and
//!            again each time it asks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bicorn_wire::websocket::{
    CLOSE_REASON_BYTES_MAX, Closing, Event, Handshake, Opcode, Reader, code, is_sendable, push_close,
    push_frame,
};
use pyo3::Borrowed;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::asgi::awaitable::Waiting;
use crate::asgi::callables::{callable, none, one};
use crate::asgi::channel::{Channel, Receiving, Sending};
use crate::asgi::connection::Conn;
use crate::asgi::exchange::{Exchange, Handles, settle};
use crate::asgi::guarded::Guarded;
use crate::asgi::server::Shared;
use crate::asgi::websocket::frames::Frames;
use crate::asgi::websocket::inbox::Inbox;
use crate::asgi::websocket::opening::accept_head;

/// How far the application has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The handshake waits for its answer.
    Opening,
    /// It is answered with a response instead.
    Denying,
    /// It was accepted.
    Open,
    /// The application has closed.
    Closed,
    /// The application refused to open it.
    Refused,
}

/// The state behind `receive` and `send`.
#[pyclass(frozen, module = "bicorn._core")]
pub struct WebSocket {
    state: Guarded<State>,
}

struct State {
    shared: Rc<Shared>,
    conn: Rc<Conn>,
    /// The request that asked for it: its books stay open as long as the WebSocket is.
    exchange: RefCell<Option<Py<Exchange>>>,
    handshake: Handshake,
    stage: Cell<Stage>,
    /// `websocket.connect` was received.
    connect_told: Cell<bool>,
    reader: RefCell<Reader>,
    frames: RefCell<Frames>,
    closing: Cell<Closing>,
    inbox: Inbox,
    /// How it ended, for `websocket.disconnect`.
    end: RefCell<Option<(u16, String)>>,
    /// The connection is gone.
    lost: Cell<bool>,
    receiving: RefCell<Vec<Py<PyAny>>>,
    draining: RefCell<Vec<Py<PyAny>>>,
    /// The last Ping that came while nothing could be sent; those before it need no answer (RFC 6455, 5.5.3).
    pong: RefCell<Option<Vec<u8>>>,
    heard_ms: Cell<u64>,
    /// Bytes of messages that were sent.
    sent_bytes: Cell<u64>,
    /// A Ping of ours went out since something was heard.
    pinged: Cell<bool>,
}

/// `await receive()`: the next message from the client (ASGI, WebSocket).
fn receive(
    py: Python<'_>,
    owner: *mut ffi::PyObject,
    arguments: &[*mut ffi::PyObject],
) -> PyResult<*mut ffi::PyObject> {
    none(arguments)?;
    // SAFETY: `callable` was given a WebSocket.
    let socket = unsafe { Borrowed::from_ptr(py, owner).cast_unchecked::<WebSocket>() };
    Receiving::from(py, Channel::Socket(socket.to_owned().unbind())).map(Bound::into_ptr)
}

/// `await send(message)`: a message to the client is taken (ASGI, WebSocket).
fn send(
    py: Python<'_>,
    owner: *mut ffi::PyObject,
    arguments: &[*mut ffi::PyObject],
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: `callable` was given a WebSocket; the argument is alive as long as the call.
    let (socket, message) = unsafe {
        (Borrowed::from_ptr(py, owner).cast_unchecked::<WebSocket>(), Borrowed::from_ptr(py, one(arguments)?))
    };
    if socket.get().state.get(py).shared.is_elsewhere() {
        return Sending::through(Channel::Socket(socket.to_owned().unbind()), &message).map(Bound::into_ptr);
    }
    socket.get().send(py, &message).map(Bound::into_ptr)
}

impl WebSocket {
    /// For a handshake that waits for the application's answer. Gives the handles of its request.
    pub fn open(
        py: Python<'_>,
        conn: &Rc<Conn>,
        exchange: Py<Exchange>,
        handshake: Handshake,
    ) -> PyResult<Handles> {
        let shared = conn.shared();
        let state = State {
            shared: Rc::clone(shared),
            conn: Rc::clone(conn),
            exchange: RefCell::new(Some(exchange.clone_ref(py))),
            stage: Cell::new(Stage::Opening),
            connect_told: Cell::new(false),
            reader: RefCell::new(Reader::new(shared.websocket.message_bytes_max, handshake.deflate.as_ref())),
            frames: RefCell::new(Frames::new(handshake.deflate.as_ref())),
            handshake,
            closing: Cell::new(Closing::Open),
            inbox: Inbox::default(),
            end: RefCell::new(None),
            lost: Cell::new(false),
            receiving: RefCell::default(),
            draining: RefCell::default(),
            pong: RefCell::new(None),
            heard_ms: Cell::new(0),
            sent_bytes: Cell::new(0),
            pinged: Cell::new(false),
        };
        let socket = Py::new(py, Self { state: Guarded::new(state) })?;
        let (receive, send) = (callable(py, &socket, receive)?, callable(py, &socket, send)?);
        exchange.get().attach(py, socket.clone_ref(py));
        conn.attach(socket);
        Ok(Handles { exchange, receive, send })
    }

    // -- what the connection does --------------------------------------------------------------

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

    /// The connection is gone. The application learns it after what came before.
    pub fn disconnected(&self, py: Python<'_>) {
        let state = self.state.get(py);
        state.lost.set(true);
        self.deliver(py);
        self.drained(py);
        state.over(py);
    }

    /// The connection takes bytes again, or never will.
    pub fn drained(&self, py: Python<'_>) {
        let state = self.state.get(py);
        if let Some(pong) = state.pong.take() {
            state.write_frame(py, Opcode::Pong, &pong);
        }
        for waiting in state.draining.take() {
            if state.lost.get() {
                settle(py, &waiting, Err(client_gone()));
            } else {
                settle(py, &waiting, Ok(py.None().bind(py)));
            }
        }
    }

    /// Its deadline has passed: for the next Ping, for the answer to one, or for the answer to our Close.
    pub fn tick(&self, py: Python<'_>) {
        let state = self.state.get(py);
        let rules = &state.shared.websocket;
        let silent_ms = state.shared.now_ms().saturating_sub(state.heard_ms.get());
        if state.closing.get() != Closing::Open {
            state.conn.out.tell(py, "abort");
        } else if state.conn.is_reading_paused() {
            // Whether the client answers cannot be seen while nothing is read.
            state.conn.patience(rules.ping_timeout_ms);
        } else if state.pinged.get() {
            state.finish(code::ABNORMAL, "the client answered no Ping");
            state.close(py, Some(code::INTERNAL_ERROR), "no answer to a Ping");
            state.conn.hang_up(py, true);
            self.deliver(py);
        } else if silent_ms < rules.ping_interval_ms {
            state.conn.patience(rules.ping_interval_ms - silent_ms);
        } else {
            state.pinged.set(true);
            state.conn.patience(rules.ping_timeout_ms);
            state.write_frame(py, Opcode::Ping, b"");
        }
    }

    /// The worker finishes: closes with this code, and the application learns it from the client's answer.
    pub fn go_away(&self, py: Python<'_>, code: u16) {
        let state = self.state.get(py);
        if self.is_accepted(py) {
            state.close(py, Some(code), "");
        }
    }

    /// Whether the application has accepted.
    pub fn is_accepted(&self, py: Python<'_>) -> bool {
        matches!(self.state.get(py).stage.get(), Stage::Open | Stage::Closed)
    }

    /// The application has returned or raised, after it had accepted.
    pub fn application_ended(&self, py: Python<'_>, result: PyResult<()>) {
        let state = self.state.get(py);
        let exchange = state.exchange.borrow().as_ref().map(|exchange| exchange.clone_ref(py));
        let code = match result {
            Ok(()) => code::NORMAL,
            Err(error) => {
                if let Some(exchange) = &exchange {
                    exchange.get().blame(py, error, state.lost.get() || state.end.borrow().is_some());
                }
                code::INTERNAL_ERROR
            }
        };
        state.stage.set(Stage::Closed);
        state.close(py, Some(code), "");
        state.inbox.clear();
        state.over(py);
        state.conn.application_left(py);
    }

    /// Wakes whoever waits for a message, if there is something to say.
    fn deliver(&self, py: Python<'_>) {
        let state = self.state.get(py);
        if state.is_over() || !state.inbox.is_empty() {
            for waiting in state.receiving.take() {
                settle(py, &waiting, Ok(py.None().bind(py)));
            }
        }
    }

    // -- what the application does -------------------------------------------------------------

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

    fn write_frame(&self, py: Python<'_>, opcode: Opcode, payload: &[u8]) {
        if self.closing.get().may_send() {
            let mut frame = Vec::new();
            push_frame(&mut frame, opcode, false, payload);
            self.conn.out.write(py, &[&frame]);
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

    /// Whether the application can be told how it ended.
    fn is_over(&self) -> bool {
        self.lost.get() || self.end.borrow().is_some()
    }

    /// Decides how it ended: the first word counts.
    fn finish(&self, code: u16, reason: &str) {
        self.end.borrow_mut().get_or_insert_with(|| (code, reason.to_owned()));
    }

    /// Sends our Close, unless it has been sent. The client has so long to answer it as it has for a Ping.
    fn close(&self, py: Python<'_>, code: Option<u16>, reason: &str) {
        if !self.closing.get().may_close() {
            return;
        }
        self.closing.set(self.closing.get().after_sending());
        let mut frame = Vec::new();
        push_close(&mut frame, code, reason);
        self.conn.out.write(py, &[&frame]);
        self.conn.patience(self.shared.websocket.ping_timeout_ms);
    }

    // -- messages of the application -----------------------------------------------------------

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

    /// Closes the books: once, when nobody will say anything more.
    fn over(&self, py: Python<'_>) {
        if matches!(self.stage.get(), Stage::Opening | Stage::Denying) {
            return; // The exchange closes its own.
        }
        if let Some(exchange) = self.exchange.take() {
            exchange.get().conclude(py, self.sent_bytes.get());
        }
    }
}

/// What `send` raises once the client has left (ASGI WebSocket, "Disconnected Client").
fn client_gone() -> PyErr {
    PyOSError::new_err("the client has closed the WebSocket")
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
