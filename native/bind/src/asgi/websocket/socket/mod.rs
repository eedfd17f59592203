//! One WebSocket, as the application sees it: `receive` and `send`.
//!
//! Owns       the order of messages that ASGI prescribes, the closing handshake, and Pings.
//! Never      blocks or keeps what it cannot bound: reading stops while the application is behind, and
//!            `send` waits while the client is.
//! Invariant  after its Close nothing is sent; the application is told once how the connection ended, and
//!            again each time it asks.

mod handles;
mod receiving;
mod sending;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bicorn_wire::websocket::{Closing, Handshake, Opcode, Reader, code, push_close, push_frame};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::asgi::callables::callable;
use crate::asgi::connection::Conn;
use crate::asgi::exchange::{Exchange, Handles, settle};
use crate::asgi::guarded::Guarded;
use crate::asgi::server::Shared;
use crate::asgi::websocket::frames::Frames;
use crate::asgi::websocket::inbox::Inbox;
use handles::{receive, send};

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
}

impl State {
    fn write_frame(&self, py: Python<'_>, opcode: Opcode, payload: &[u8]) {
        if self.closing.get().may_send() {
            let mut frame = Vec::new();
            push_frame(&mut frame, opcode, false, payload);
            self.conn.out.write(py, &[&frame]);
        }
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
