//! One request and its response, as the application sees them: `receive` and `send`.
//!
//! Owns       the order of messages that ASGI prescribes, and what an application is told that breaks it.
//! Never      reads a byte of the request: the connection pushes what has come.
//! Invariant  no byte of the head leaves before the first byte of the body, or the end, is known; never more
//!            body bytes than Content-Length said; after the end nothing of this response touches the
//!            connection, which may be at another request by then.

mod files;
mod handles;
mod leaving;
mod message;
mod receiving;
mod running;
mod sending;
mod upgrades;
mod wsgi;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bicorn_wire::{ResponseFraming, Version};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::asgi::connection::Conn;
use crate::asgi::guarded::Guarded;
use crate::asgi::incoming::Incoming;
use crate::asgi::server::Shared;
use crate::asgi::websocket::WebSocket;

pub use handles::Handles;
pub use wsgi::WsgiHead;

/// What the request decides about its response.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// HEAD is answered without a body.
    pub is_head: bool,
    /// 2xx to CONNECT is answered without framing.
    pub is_connect: bool,
    /// Decides whether chunks are understood.
    pub version: Version,
    /// The client is willing to go on.
    pub keep_alive: bool,
}

impl Terms {
    fn method(self) -> &'static [u8] {
        match (self.is_head, self.is_connect) {
            (true, _) => b"HEAD",
            (_, true) => b"CONNECT",
            _ => b"GET",
        }
    }
}

/// How far the response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has been said.
    Fresh,
    /// The head is known and held back.
    Started,
    /// The head has left.
    Sending,
    /// The body has ended, trailers are to come.
    Trailers,
    /// Everything has left.
    Complete,
}

/// The application's coroutine and the contextvars.Context that it runs in.
struct Run {
    coroutine: Py<PyAny>,
    context: Py<PyAny>,
}

/// The state behind `receive` and `send`.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Exchange {
    state: Guarded<State>,
}

struct State {
    shared: Rc<Shared>,
    /// None once the response has left, or before the first request.
    conn: RefCell<Option<Rc<Conn>>>,
    scope: RefCell<Option<Py<PyDict>>>,
    observer: RefCell<Option<Py<PyAny>>>,
    run: RefCell<Option<Run>>,
    /// The task, once the application has waited for something.
    task: RefCell<Option<Py<PyAny>>>,
    terms: Cell<Terms>,
    stage: Cell<Stage>,
    head: RefCell<Vec<u8>>,
    status: Cell<u16>,
    content_length: Cell<Option<u64>>,
    close_wanted: Cell<bool>,
    trailers_promised: Cell<bool>,
    framing: Cell<ResponseFraming>,
    keep_alive: Cell<bool>,
    body_bytes: Cell<u64>,
    dropped: Cell<bool>,
    incoming: Incoming,
    /// What the request asks to become.
    websocket: RefCell<Option<Py<WebSocket>>>,
    /// The client is gone, or will send nothing more.
    disconnected: Cell<bool>,
    receiving: RefCell<Vec<Py<PyAny>>>,
    draining: RefCell<Vec<Py<PyAny>>>,
    started_ns: Cell<u64>,
    /// Method and target, for the scoreboard.
    line: RefCell<(Vec<u8>, Vec<u8>)>,
}

impl Exchange {
    pub(super) fn new(shared: &Rc<Shared>) -> Self {
        let terms = Terms { is_head: false, is_connect: false, version: Version::Http11, keep_alive: false };
        Self {
            state: Guarded::new(State {
                shared: Rc::clone(shared),
                conn: RefCell::new(None),
                scope: RefCell::new(None),
                observer: RefCell::new(None),
                run: RefCell::new(None),
                task: RefCell::new(None),
                terms: Cell::new(terms),
                stage: Cell::new(Stage::Fresh),
                head: RefCell::new(Vec::with_capacity(512)),
                status: Cell::new(0),
                content_length: Cell::new(None),
                close_wanted: Cell::new(false),
                trailers_promised: Cell::new(false),
                framing: Cell::new(ResponseFraming::Empty),
                keep_alive: Cell::new(false),
                body_bytes: Cell::new(0),
                dropped: Cell::new(false),
                incoming: Incoming::default(),
                websocket: RefCell::new(None),
                disconnected: Cell::new(false),
                receiving: RefCell::new(Vec::new()),
                draining: RefCell::new(Vec::new()),
                started_ns: Cell::new(0),
                line: RefCell::new((Vec::new(), Vec::new())),
            }),
        }
    }

    /// Makes it the exchange of a new request.
    #[inline]
    pub fn open(
        &self,
        py: Python<'_>,
        conn: &Rc<Conn>,
        scope: &Bound<'_, PyDict>,
        terms: Terms,
        line: (&[u8], &[u8]),
    ) {
        let state = self.state.get(py);
        state.conn.replace(Some(Rc::clone(conn)));
        state.scope.replace(Some(scope.clone().unbind()));
        state.terms.set(terms);
        state.stage.set(Stage::Fresh);
        state.status.set(0);
        state.body_bytes.set(0);
        state.dropped.set(false);
        state.disconnected.set(false);
        state.trailers_promised.set(false);
        state.head.borrow_mut().clear();
        state.incoming.reset();
        {
            let (method, target) = &mut *state.line.borrow_mut();
            method.clear();
            method.extend_from_slice(line.0);
            target.clear();
            target.extend_from_slice(line.1);
            state.started_ns.set(state.shared.now_ns.get());
            state.shared.row().request_entered(state.shared.now_ns.get(), method, target);
        }
        state.shared.running.set(state.shared.running.get() + 1);
    }

    /// Tells whoever observes requests.
    pub fn observe(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state.get(py);
        let scope = state.scope.borrow().as_ref().map(|scope| scope.clone_ref(py));
        let observer = state.shared.worker.bind(py).call_method1(intern!(py, "request_entered"), (scope,))?;
        state.observer.replace(Some(observer.unbind()));
        Ok(())
    }

    /// What has come of the request's body.
    pub fn incoming(&self, py: Python<'_>) -> &Incoming {
        &self.state.get(py).incoming
    }

    /// The client has left. The application learns it where it asks.
    pub fn disconnect(&self, py: Python<'_>) {
        let state = self.state.get(py);
        state.disconnected.set(true);
        self.deliver(py);
        self.drained(py);
    }

    /// The connection takes bytes again, or never will.
    pub fn drained(&self, py: Python<'_>) {
        let state = self.state.get(py);
        let gone = state.conn.borrow().as_ref().is_none_or(|conn| conn.out.closed.get());
        for waiting in state.draining.take() {
            if gone {
                settle(py, &waiting, Err(client_gone()));
            } else {
                settle(py, &waiting, Ok(py.None().bind(py)));
            }
        }
    }

    /// Calls this with when the request entered, its method and its target, if its client waits for an answer of
    /// which nothing has left, and nobody waits for the client.
    pub fn while_awaited(&self, py: Python<'_>, found: impl FnOnce(u64, &[u8], &[u8])) {
        let state = self.state.get(py);
        let reads = !state.receiving.borrow().is_empty() && !state.incoming.has_ended();
        if self.is_unanswered(py) && !reads {
            let (method, target) = &*state.line.borrow();
            found(state.started_ns.get(), method, target);
        }
    }

    /// Whether nothing of the response has left yet.
    pub fn is_unanswered(&self, py: Python<'_>) -> bool {
        matches!(self.state.get(py).stage.get(), Stage::Fresh | Stage::Started)
    }
}

/// Gives a waiting future its result, unless it is done: cancelled, most likely.
pub fn settle(py: Python<'_>, future: &Py<PyAny>, result: Result<&Bound<'_, PyAny>, PyErr>) -> bool {
    let future = future.bind(py);
    let settled = future.call_method0(intern!(py, "done")).and_then(|done| {
        if done.is_truthy()? {
            return Ok(false);
        }
        match result {
            Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
            Err(error) => future.call_method1(intern!(py, "set_exception"), (error.value(py),))?,
        };
        Ok(true)
    });
    settled.unwrap_or_else(|error| {
        error.write_unraisable(py, Some(future));
        false
    })
}

/// What `send` raises once the client has left (ASGI HTTP, "Disconnected Client").
fn client_gone() -> PyErr {
    PyOSError::new_err("the client has closed the connection")
}

fn out_of_order(kind: &Bound<'_, PyString>, why: &str) -> PyErr {
    PyRuntimeError::new_err(format!("the message {kind} is out of order: the response is {why}"))
}

impl Stage {
    fn text(self) -> &'static str {
        match self {
            Self::Fresh => "not started",
            Self::Started | Self::Sending => "started",
            Self::Trailers => "at its trailers",
            Self::Complete => "already complete",
        }
    }
}
