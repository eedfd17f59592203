//! One request and its response, as the application sees them: `receive` and `send`.
//!
//! Owns       the order of messages that ASGI prescribes, and what an application is told that breaks it.
//! Never      reads a byte of the request: the connection pushes what has come.
//! Invariant  no byte of the head leaves before the first byte of the body, or the end, is known; never more
//!            body bytes than Content-Length said; after the end nothing of this response touches the
//!            connection, which may be at another request by then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bicorn_reactor::waiting::Turn;
use bicorn_wire::{
    LAST_CHUNK, RefusalKind, ResponseFraming, Version, may_say_length, push_chunk_head, response_framing,
};
use pyo3::Borrowed;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError};
use pyo3::ffi::{self, PyMethodDef, PyMethodDefPointer};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyString};

use crate::asgi::awaitable::Ready;
use crate::asgi::connection::Conn;
use crate::asgi::guarded::Guarded;
use crate::asgi::incoming::Incoming;
use crate::asgi::server::Shared;
use crate::asgi::websocket::WebSocket;
use crate::callable::{Definition, answer, bound};
use crate::response_head::early_hint;

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

/// An exchange and its two callables.
pub struct Handles {
    /// The state.
    pub exchange: Py<Exchange>,
    /// `receive`.
    pub receive: Py<PyAny>,
    /// `send`.
    pub send: Py<PyAny>,
}

impl Handles {
    /// Handles for requests of this server.
    pub fn new(py: Python<'_>, shared: &Rc<Shared>) -> PyResult<Self> {
        let exchange = Py::new(py, Exchange::new(shared))?;
        Ok(Self { receive: bound(py, &RECEIVE, &exchange)?, send: bound(py, &SEND, &exchange)?, exchange })
    }

    /// Whether the application has kept none of them, so that they can serve again.
    #[inline]
    pub fn are_free(&self, py: Python<'_>) -> bool {
        // SAFETY: reads reference counts of objects that are alive, under the interpreter lock. The
        // exchange itself is held here and by the two callables.
        let free = unsafe {
            ffi::Py_REFCNT(self.receive.as_ptr()) == 1
                && ffi::Py_REFCNT(self.send.as_ptr()) == 1
                && ffi::Py_REFCNT(self.exchange.as_ptr()) == 3
        };
        free && self.exchange.get().state.get(py).run.borrow().is_none()
    }
}

static RECEIVE: Definition = Definition(PyMethodDef {
    ml_name: c"receive".as_ptr(),
    ml_meth: PyMethodDefPointer { PyCFunction: receive },
    ml_flags: ffi::METH_NOARGS,
    ml_doc: c"receive(): await the next message of the request (ASGI, HTTP)".as_ptr(),
});

static SEND: Definition = Definition(PyMethodDef {
    ml_name: c"send".as_ptr(),
    ml_meth: PyMethodDefPointer { PyCFunction: send },
    ml_flags: ffi::METH_O,
    ml_doc: c"send(message): await that a message of the response is taken (ASGI, HTTP)".as_ptr(),
});

unsafe extern "C" fn receive(slf: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: Python calls this with the interpreter lock held.
    let py = unsafe { Python::assume_attached() };
    answer(py, || {
        // SAFETY: `bound` gave the function an Exchange as its self.
        let exchange = unsafe { Borrowed::from_ptr(py, slf).cast_unchecked::<Exchange>() };
        exchange.get().receive(py).map(Bound::into_ptr)
    })
}

unsafe extern "C" fn send(slf: *mut ffi::PyObject, message: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: Python calls this with the interpreter lock held.
    let py = unsafe { Python::assume_attached() };
    answer(py, || {
        // SAFETY: `bound` gave the function an Exchange as its self, and METH_O gives one argument.
        let (exchange, message) = unsafe {
            (Borrowed::from_ptr(py, slf).cast_unchecked::<Exchange>(), Borrowed::from_ptr(py, message))
        };
        exchange.get().send(py, &exchange, &message).map(Bound::into_ptr)
    })
}

/// The value of a key of a message.
#[inline]
fn value<'py>(
    message: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    message.get_item(key)
}

#[inline]
fn flag(message: &Bound<'_, PyDict>, key: &Bound<'_, PyString>) -> PyResult<bool> {
    match value(message, key)? {
        None => Ok(false),
        Some(given) => match given.cast_exact::<PyBool>() {
            Ok(exact) => Ok(exact.is_true()),
            Err(_) => given.is_truthy(),
        },
    }
}

/// The bytes of a message's body, whatever object holds them.
enum Block<'py> {
    Bytes(Bound<'py, PyBytes>),
    Copied(Vec<u8>),
}

impl<'py> Block<'py> {
    #[inline]
    fn of(py: Python<'py>, message: &Bound<'py, PyDict>) -> PyResult<Self> {
        let Some(given) = value(message, intern!(py, "body"))? else {
            return Ok(Self::Copied(Vec::new()));
        };
        match given.cast_into::<PyBytes>() {
            Ok(bytes) => Ok(Self::Bytes(bytes)),
            Err(error) => {
                let other = error.into_inner();
                let buffer = PyBuffer::<u8>::get(&other).map_err(|_| {
                    let kind =
                        other.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
                    PyTypeError::new_err(format!("the body of a message must be bytes, not {kind}"))
                })?;
                Ok(Self::Copied(buffer.to_vec(py)?))
            }
        }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes(),
            Self::Copied(bytes) => bytes,
        }
    }
}

impl Exchange {
    fn new(shared: &Rc<Shared>) -> Self {
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

    // -- what the connection does --------------------------------------------------------------

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

    /// Cancels the application, which had its time after the client left.
    pub fn cancel(&self, py: Python<'_>) {
        let task = self.state.get(py).task.borrow().as_ref().map(|task| task.clone_ref(py));
        if let Some(task) = task
            && let Err(error) = task.bind(py).call_method0(intern!(py, "cancel"))
        {
            error.write_unraisable(py, None);
        }
    }

    /// Whether nothing of the response has left yet.
    pub fn is_unanswered(&self, py: Python<'_>) -> bool {
        matches!(self.state.get(py).stage.get(), Stage::Fresh | Stage::Started)
    }

    /// The connection answered in the application's place; what that still says goes nowhere.
    pub fn supersede(&self, py: Python<'_>, status: u16) {
        let state = self.state.get(py);
        state.status.set(status);
        state.stage.set(Stage::Complete);
        state.incoming.reset();
        state.leave(py);
        self.disconnect(py);
    }

    /// Whether the request, which has waited since it was read, is still to be run. If not, its client has been
    /// told, or has gone, and the application must not be called.
    pub fn is_wanted(&self, py: Python<'_>) -> bool {
        let state = self.state.get(py);
        let waited_ns = state.shared.read_clock().saturating_sub(state.started_ns.get());
        let Some(conn) = state.conn.borrow().clone() else { return true };
        let turn = if conn.is_lost() { Turn::Forget } else { conn.judge(waited_ns) };
        if turn == Turn::Run {
            return true;
        }
        state.stage.set(Stage::Complete);
        state.status.set(RefusalKind::WaitedTooLong.status());
        state.incoming.reset();
        state.withdraw(py);
        conn.dismiss(py, turn, state.terms.get());
        false
    }

    // -- as the request of a WebSocket ---------------------------------------------------------

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
            state.shared.application_failed(py, error, scope, true);
        }
    }

    // -- what the steps do ---------------------------------------------------------------------

    /// The application was called and has given its coroutine.
    #[inline]
    pub fn begin(&self, py: Python<'_>, coroutine: Bound<'_, PyAny>, context: Bound<'_, PyAny>) {
        let run = Run { coroutine: coroutine.unbind(), context: context.unbind() };
        self.state.get(py).run.replace(Some(run));
    }

    /// The application's coroutine, until it has ended.
    pub fn coroutine(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.get(py).run.borrow().as_ref().map(|run| run.coroutine.clone_ref(py))
    }

    /// A step begins: what it runs, and in which context.
    #[inline]
    pub fn resumed(&self, py: Python<'_>) -> Option<(Py<PyAny>, Py<PyAny>)> {
        let state = self.state.get(py);
        {
            let (method, target) = &*state.line.borrow();
            state.shared.row().request_resumed(state.shared.read_clock(), method, target);
        }
        state.run.borrow().as_ref().map(|run| (run.coroutine.clone_ref(py), run.context.clone_ref(py)))
    }

    /// A step has ended.
    #[inline]
    pub fn paused(&self, py: Python<'_>) {
        self.state.get(py).shared.row().request_paused();
    }

    /// From now on this task runs the application.
    pub fn run_by(&self, py: Python<'_>, task: Py<PyAny>) {
        self.state.get(py).task.replace(Some(task));
    }

    /// The application has returned or raised.
    #[inline]
    pub fn application_ended(&self, py: Python<'_>, result: PyResult<()>) {
        let state = self.state.get(py);
        state.run.take();
        state.task.take();
        state.shared.running.set(state.shared.running.get() - 1);
        let websocket = state.websocket.take();
        match websocket.filter(|websocket| websocket.get().is_accepted(py)) {
            Some(websocket) => websocket.get().application_ended(py, result),
            None if result.is_err() || state.stage.get() != Stage::Complete => self.ended_badly(py, result),
            None => {}
        }
        state.scope.take();
        state.shared.check_drained(py);
    }

    #[cold]
    fn ended_badly(&self, py: Python<'_>, result: PyResult<()>) {
        let state = self.state.get(py);
        let answered = !self.is_unanswered(py);
        let complete = state.stage.get() == Stage::Complete;
        let gone = state.conn.borrow().as_ref().is_none_or(|conn| conn.out.closed.get());
        let scope = state.scope.borrow().as_ref().map(|scope| scope.clone_ref(py));
        match result {
            Err(error) if gone && state.shared.is_of_disconnect(py, &error) => {}
            Err(error) => state.shared.application_failed(py, error, scope, answered),
            Ok(()) if gone => {}
            Ok(()) => state.shared.report(py, "response_missing", (scope, answered)),
        }
        let conn = state.conn.borrow().clone();
        let Some(conn) = conn.filter(|_| !complete) else { return };
        state.incoming.reset();
        if answered {
            // Only a close tells the client that this is not the whole answer.
            state.stage.set(Stage::Complete);
            state.leave(py);
            conn.break_off(py, state.framing.get() == ResponseFraming::UntilClose);
        } else {
            state.status.set(500);
            state.stage.set(Stage::Complete);
            conn.send_error(py, 500, !state.terms.get().is_head);
            state.leave(py);
            conn.answered(py, false);
        }
    }

    // -- what the application does -------------------------------------------------------------

    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
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

    #[inline]
    fn send<'py>(
        &self,
        py: Python<'py>,
        itself: &Bound<'py, Self>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let message =
            message.cast::<PyDict>().map_err(|_| PyTypeError::new_err("an ASGI message must be a dict"))?;
        let Some(kind) = value(message, intern!(py, "type"))? else {
            return Err(PyRuntimeError::new_err("an ASGI message must have a type"));
        };
        let kind = kind
            .cast_into::<PyString>()
            .map_err(|_| PyTypeError::new_err("a message's type must be a str"))?;
        self.act(py, itself, message, &kind, kind.to_str()?)
    }

    /// Sends a message of the response; `name` is its type among those of HTTP.
    #[inline]
    pub fn act<'py>(
        &self,
        py: Python<'py>,
        itself: &Bound<'py, Self>,
        message: &Bound<'py, PyDict>,
        kind: &Bound<'py, PyString>,
        name: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state.get(py);
        let conn = state.conn.borrow().clone();
        let Some(conn) = conn else {
            return if state.disconnected.get() {
                Err(client_gone())
            } else {
                Err(out_of_order(kind, "already complete"))
            };
        };
        if conn.out.closed.get() {
            return Err(client_gone());
        }
        match name {
            "http.response.start" => state.start(py, message, kind)?,
            "http.response.body" => return self.body(py, &conn, message, kind),
            "http.response.early_hint" => state.hint(py, &conn, message)?,
            "http.response.trailers" => self.trailers(py, &conn, message, kind)?,
            "http.response.pathsend" => return crate::asgi::file_send::path(py, itself, message),
            "http.response.zerocopysend" => return crate::asgi::file_send::file(py, itself, message),
            _ => return Err(PyRuntimeError::new_err(format!("unknown ASGI message type {}", kind.repr()?))),
        }
        Ok(state.shared.done(py))
    }

    #[inline]
    fn body<'py>(
        &self,
        py: Python<'py>,
        conn: &Rc<Conn>,
        message: &Bound<'py, PyDict>,
        kind: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state.get(py);
        if !matches!(state.stage.get(), Stage::Started | Stage::Sending) {
            return Err(out_of_order(kind, state.stage.get().text()));
        }
        let block = Block::of(py, message)?;
        let more = flag(message, intern!(py, "more_body"))?;
        if state.stage.get() == Stage::Started {
            let whole = (!more && !state.trailers_promised.get()).then_some(block.as_bytes().len() as u64);
            state.finish_head(conn, whole);
        }
        self.put(py, conn, block.as_bytes(), more);
        if more && conn.out.paused.get() {
            return state.shared.wait(py, &state.draining);
        }
        Ok(state.shared.done(py))
    }

    /// Sends one block of the body, behind the head if that has not left, and ends the body after the last.
    #[inline]
    fn put(&self, py: Python<'_>, conn: &Rc<Conn>, block: &[u8], more: bool) {
        let state = self.state.get(py);
        let first = state.stage.replace(Stage::Sending) == Stage::Started;
        {
            let head = state.head.borrow();
            let head: &[u8] = if first { &head } else { b"" };
            let fits = state.allowance(block.len() as u64) as usize;
            let chunked = state.framing.get() == ResponseFraming::Chunked;
            let end: &[u8] = match (chunked, fits, more || state.trailers_promised.get()) {
                (true, 0, true) | (false, _, _) => b"",
                (true, 0, false) => LAST_CHUNK,
                (true, _, true) => b"\r\n",
                (true, _, false) => b"\r\n0\r\n\r\n",
            };
            let mut size = Vec::new();
            if chunked && fits > 0 {
                push_chunk_head(&mut size, fits);
            }
            state.body_bytes.set(state.body_bytes.get() + fits as u64);
            conn.out.write(py, &[head, &size, &block[..fits], end]);
        }
        if !more {
            self.end_body(py, conn);
        }
    }

    // -- what a file on its way does -----------------------------------------------------------

    /// Raises unless a block of the body may come now.
    pub fn expect_body(&self, py: Python<'_>) -> PyResult<()> {
        let stage = self.state.get(py).stage.get();
        if matches!(stage, Stage::Started | Stage::Sending) {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!("a file is out of order: the response is {}", stage.text())))
    }

    /// The body is about to begin; `whole` is its length where that is known.
    pub fn begin_body(&self, py: Python<'_>, whole: Option<u64>) {
        let state = self.state.get(py);
        let conn = state.conn.borrow().clone();
        if let Some(conn) = conn
            && state.stage.get() == Stage::Started
        {
            state.finish_head(&conn, whole.filter(|_| !state.trailers_promised.get()));
        }
    }

    /// Sends one more block.
    pub fn put_more(&self, py: Python<'_>, block: &[u8], more: bool) -> PyResult<()> {
        let state = self.state.get(py);
        let conn = state.conn.borrow().clone();
        let conn = conn.filter(|conn| !conn.out.closed.get()).ok_or_else(client_gone)?;
        self.expect_body(py)?;
        self.put(py, &conn, block, more);
        Ok(())
    }

    /// What to wait for before the next block, if the connection takes no more now.
    pub fn until_drained<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let state = self.state.get(py);
        let paused = state.conn.borrow().as_ref().is_some_and(|conn| conn.out.paused.get());
        if paused { state.shared.wait(py, &state.draining).map(Some) } else { Ok(None) }
    }

    /// The body has ended.
    #[inline]
    fn end_body(&self, py: Python<'_>, conn: &Rc<Conn>) {
        let state = self.state.get(py);
        if state.trailers_promised.get() {
            state.stage.set(Stage::Trailers);
            if state.framing.get() == ResponseFraming::Chunked {
                conn.out.write(py, &[b"0\r\n"]);
            }
            return;
        }
        state.stage.set(Stage::Complete);
        let short = matches!(state.framing.get(), ResponseFraming::Length(promised) if state.body_bytes.get() < promised);
        if short || state.dropped.get() {
            state.tell_length(py, short);
        }
        state.leave(py);
        if short {
            conn.break_off(py, false);
        } else {
            conn.answered(py, state.keep_alive.get());
        }
        self.deliver(py);
    }

    fn trailers(
        &self,
        py: Python<'_>,
        conn: &Rc<Conn>,
        message: &Bound<'_, PyDict>,
        kind: &Bound<'_, PyString>,
    ) -> PyResult<()> {
        let state = self.state.get(py);
        if state.stage.get() != Stage::Trailers {
            return Err(out_of_order(kind, state.stage.get().text()));
        }
        let chunked = state.framing.get() == ResponseFraming::Chunked;
        if let Some(headers) = value(message, intern!(py, "headers"))?
            && chunked
        {
            let fields = crate::response_head::trailers(&headers)?;
            conn.out.write(py, &[&fields]);
        }
        if !flag(message, intern!(py, "more_trailers"))? {
            if chunked {
                conn.out.write(py, &[b"\r\n"]);
            }
            state.trailers_promised.set(false);
            self.end_body(py, conn);
        }
        Ok(())
    }
}

#[pymethods]
impl Exchange {
    /// What `is_wanted` says, for a request that waits outside the loop; to be asked in the loop's thread.
    #[pyo3(name = "is_wanted")]
    fn is_wanted_py(&self, py: Python<'_>) -> bool {
        self.is_wanted(py)
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

impl State {
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

    #[inline]
    fn start(&self, py: Python<'_>, message: &Bound<'_, PyDict>, kind: &Bound<'_, PyString>) -> PyResult<()> {
        if self.stage.get() != Stage::Fresh {
            return Err(out_of_order(kind, self.stage.get().text()));
        }
        let status = value(message, intern!(py, "status"))?
            .ok_or_else(|| PyRuntimeError::new_err("http.response.start must have a status"))?;
        let headers = value(message, intern!(py, "headers"))?;
        let trailers = flag(message, intern!(py, "trailers"))?;
        let mut said = self.shared.said.borrow_mut();
        said.say_in_bytes(&status, headers.as_ref())?;
        let mut head = self.head.borrow_mut();
        head.clear();
        head.extend_from_slice(said.bytes());
        self.status.set(said.status);
        self.content_length.set(said.content_length);
        self.close_wanted.set(said.close_wanted);
        self.trailers_promised.set(trailers);
        self.stage.set(Stage::Started);
        Ok(())
    }

    /// Frames the body and ends the head. `body_bytes` is the length of the body where it is known.
    #[inline]
    fn finish_head(&self, conn: &Conn, body_bytes: Option<u64>) {
        let terms = self.terms.get();
        let length = self.content_length.get().or(body_bytes);
        let framing = response_framing(terms.method(), terms.version, self.status.get(), length);
        self.framing.set(framing);
        let closes = self.close_wanted.get() || framing == ResponseFraming::UntilClose;
        self.keep_alive.set(terms.keep_alive && !closes && conn.may_go_on(&self.incoming));
        let shown = match framing {
            ResponseFraming::Length(length) => Some(length),
            ResponseFraming::Empty if may_say_length(terms.method(), self.status.get()) => {
                self.content_length.get()
            }
            _ => None,
        };
        let mut head = self.head.borrow_mut();
        if let Some(length) = shown {
            head.extend_from_slice(b"Content-Length: ");
            head.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            head.extend_from_slice(b"\r\n");
        } else if framing == ResponseFraming::Chunked {
            head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        head.extend_from_slice(if self.keep_alive.get() {
            b"Connection: keep-alive\r\n\r\n"
        } else {
            b"Connection: close\r\n\r\n"
        });
    }

    /// How many of `available` bytes of the body may be sent.
    #[inline]
    fn allowance(&self, available: u64) -> u64 {
        match self.framing.get() {
            ResponseFraming::Empty => 0,
            ResponseFraming::Length(promised) => {
                let fits = available.min(promised - self.body_bytes.get());
                if fits < available {
                    self.dropped.set(true);
                }
                fits
            }
            ResponseFraming::Chunked | ResponseFraming::UntilClose => available,
        }
    }

    #[cold]
    fn tell_length(&self, py: Python<'_>, short: bool) {
        let scope = self.scope.borrow().as_ref().map(|scope| scope.clone_ref(py));
        if short {
            self.shared.report(
                py,
                "response_short",
                (scope, self.content_length.get(), self.body_bytes.get()),
            );
        } else {
            self.shared.report(py, "response_long", (scope, self.content_length.get()));
        }
    }

    fn hint(&self, py: Python<'_>, conn: &Conn, message: &Bound<'_, PyDict>) -> PyResult<()> {
        if self.stage.get() != Stage::Fresh {
            return Err(PyRuntimeError::new_err("an early hint comes before the response"));
        }
        let Some(links) = value(message, intern!(py, "links"))? else { return Ok(()) };
        let pairs = links
            .try_iter()?
            .map(|link| Ok((PyBytes::new(py, b"Link"), link?)))
            .collect::<PyResult<Vec<_>>>()?;
        // An HTTP/1.0 client knows no interim answers (RFC 9110, 15.2).
        if self.terms.get().version.is_http11() {
            conn.out.write(py, &[&early_hint(pairs.into_pyobject(py)?.as_any())?]);
        }
        Ok(())
    }

    /// The response has left, however it ended: the books are closed.
    #[inline]
    fn leave(&self, py: Python<'_>) {
        let now_ns = self.shared.read_clock();
        let conn = self.conn.take();
        self.shared.row().request_left(self.started_ns.get(), now_ns, self.status.get());
        self.shared.served(py);
        if self.shared.is_logging() {
            self.log(py, conn.as_deref(), now_ns);
        }
    }

    /// The request was not run. Only who saw it come in is shown how it went out.
    fn withdraw(&self, py: Python<'_>) {
        let conn = self.conn.take();
        self.shared.row().request_withdrawn();
        if self.observer.borrow().is_some() {
            self.log(py, conn.as_deref(), self.shared.now_ns.get());
        }
    }

    #[cold]
    fn log(&self, py: Python<'_>, conn: Option<&Conn>, now_ns: u64) {
        let (Some(conn), Some(scope)) = (conn, self.scope.borrow().as_ref().map(|scope| scope.clone_ref(py)))
        else {
            return;
        };
        let fields = crate::response_head::fields_of(&self.head.borrow());
        let observer = self.observer.take();
        self.shared.log(
            py,
            &crate::asgi::server::Left {
                scope: scope.bind(py),
                line: &self.line.borrow(),
                remote_addr: conn.peer.client().remote_addr.bind(py),
                status: self.status.get(),
                fields,
                body_bytes: self.body_bytes.get(),
                elapsed_ns: now_ns.saturating_sub(self.started_ns.get()),
                now_ns,
                observer,
            },
        );
    }
}
