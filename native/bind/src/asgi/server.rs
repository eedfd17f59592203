//! What the connections of one worker share, and the handle that Python has on it.
//!
//! Owns       the settings as the protocol wants them, the table of connections, and the counts that decide
//!            when a worker is full, done, or due for replacement.
//! Never      accepts, or runs the loop: the worker does, and is told through its methods.
//! Invariant  a drained worker is told so once, when neither a connection nor an application is left.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use bicorn_reactor::clock::{Clock, HttpDate};
use bicorn_reactor::scoreboard::Slot as Row;
use bicorn_wire::{ProxyRules, Rules};
use pyo3::exceptions::{PyException, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use slab::Slab;

use crate::access::{AccessLog, Answer, Finished};
use crate::asgi::awaitable::Done;
use crate::asgi::connection::{AsgiProtocol, Conn};
use crate::asgi::exchange::Handles;
use crate::asgi::guarded::Guarded;
use crate::asgi::scope::{Client, Peer, Scopes};
use crate::asgi::steps::Tasks;
use crate::asgi::websocket::WebSocketRules;
use crate::names::Names;
use crate::response_head::ResponseHead;
use crate::scoreboard::Slot;
use crate::text::latin1;
use crate::trust::AllowList;
use crate::wire_options::{WireOptions, milliseconds};

/// A moment that does not come.
pub const NEVER: u64 = u64::MAX;

/// A loop that does not come to look at its clock for so long may have kept requests waiting, or had none.
const HELD_UP_NS: u64 = 10_000_000;

/// For how long after that those who come are asked whether they are still there.
const AFTERMATH_NS: u64 = 1_000_000_000;

/// Exchanges that are kept for further requests.
const SPARE_HANDLES_MAX: usize = 64;

/// How long things may take, in milliseconds; `NEVER` where a setting says 0 and means that.
pub struct Timeouts {
    pub header_ms: u64,
    pub body_ms: u64,
    pub write_ms: u64,
    pub keepalive_ms: u64,
    linger_ms: u64,
    drain_idle_ms: u64,
    pub disconnect_ms: u64,
}

/// Settings by their own names, beside those that decide how a request is read.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Options {
    header_timeout: f64,
    body_timeout: f64,
    write_timeout: f64,
    keepalive: f64,
    linger_timeout: f64,
    drain_idle_timeout: f64,
    asgi_disconnect_grace_period: f64,
    asgi_read_ahead: usize,
    limit_concurrency: usize,
    queue_timeout: f64,
    worker_connections: usize,
    max_requests: u64,
    observed: bool,
    server: String,
}

impl Options {
    fn timeouts(&self) -> Timeouts {
        Timeouts {
            header_ms: milliseconds(self.header_timeout, true),
            body_ms: milliseconds(self.body_timeout, true),
            write_ms: milliseconds(self.write_timeout, true),
            keepalive_ms: milliseconds(self.keepalive, false),
            linger_ms: milliseconds(self.linger_timeout, false),
            drain_idle_ms: milliseconds(self.drain_idle_timeout, false),
            disconnect_ms: milliseconds(self.asgi_disconnect_grace_period, false),
        }
    }
}

/// What every connection of a worker uses.
pub struct Shared {
    pub app: Py<PyAny>,
    pub worker: Py<PyAny>,
    pub event_loop: Py<PyAny>,
    call_soon: Py<PyAny>,
    create_future: Py<PyAny>,
    cancelled_error: Py<PyAny>,
    done: Py<PyAny>,
    slot: Slot,
    pub rules: Rules,
    /// What of the PROXY protocol is looked for, if any of it is.
    pub proxy_rules: Option<ProxyRules>,
    proxies: AllowList,
    pub timeouts: Timeouts,
    pub websocket: WebSocketRules,
    /// What WebSockets that are accepted from now on are closed with at once.
    pub farewell: Cell<Option<u16>>,
    /// Bytes of a body or of further requests that are read before the application asks for them.
    pub read_ahead: usize,
    limit_concurrency: usize,
    /// How long a request may have waited for its turn; `u64::MAX` for ever.
    pub queue_ns: u64,
    connection_limit: usize,
    max_requests: u64,
    pub observed: bool,
    pub server: Vec<u8>,
    access: Option<Py<AccessLog>>,
    /// The encoder of heads, which remembers the last one.
    pub said: RefCell<ResponseHead>,
    pub date: RefCell<HttpDate>,
    pub scopes: RefCell<Scopes>,
    environ_names: RefCell<Names>,
    pub tasks: Tasks,
    pub connections: RefCell<Slab<Rc<Conn>>>,
    open: Cell<usize>,
    full: Cell<bool>,
    /// Applications that have not ended.
    pub running: Cell<usize>,
    served: Cell<u64>,
    draining: Cell<bool>,
    drained: Cell<bool>,
    spare: RefCell<Vec<Handles>>,
    clock: RefCell<Clock>,
    pub now_ns: Cell<u64>,
    /// When the loop was found to have rested, or to have been held up, last.
    held_up_ns: Cell<u64>,
}

/// A response that has left, for the logs.
pub struct Left<'a, 'py> {
    pub scope: &'a Bound<'py, PyDict>,
    pub line: &'a (Vec<u8>, Vec<u8>),
    pub remote_addr: &'a Bound<'py, PyAny>,
    pub status: u16,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body_bytes: u64,
    pub elapsed_ns: u64,
    pub now_ns: u64,
    pub observer: Option<Py<PyAny>>,
}

impl Answer for Left<'_, '_> {
    fn status(&self) -> u16 {
        self.status
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    fn fields(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.fields.clone()
    }
}

impl Shared {
    /// This worker's row of the scoreboard.
    #[inline]
    pub fn row(&self) -> &Row {
        self.slot.row()
    }

    /// Reads the clock: now, in nanoseconds.
    #[inline]
    pub fn read_clock(&self) -> u64 {
        let now = self.clock.borrow_mut().read();
        if now - self.now_ns.replace(now) > HELD_UP_NS {
            self.held_up_ns.set(now);
        }
        now
    }

    /// Whether requests may have waited in the kernel. One that rests says so too: then a question costs nobody
    /// anything, and a loop that is always busy with short steps never asks.
    #[inline]
    pub fn was_held_up(&self) -> bool {
        self.now_ns.get() - self.held_up_ns.get() < AFTERMATH_NS
    }

    /// The last reading, in milliseconds.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.now_ns.get() / 1_000_000
    }

    /// How long an idle connection is kept.
    #[inline]
    pub fn idle_ms(&self) -> u64 {
        if self.draining.get() { self.timeouts.drain_idle_ms } else { self.timeouts.keepalive_ms }
    }

    /// How long a peer may take to read a last answer.
    pub fn linger_ms(&self) -> u64 {
        let linger_ms = self.timeouts.linger_ms;
        if self.draining.get() { linger_ms.min(self.timeouts.drain_idle_ms) } else { linger_ms }
    }

    /// Whether connections may go on after the response that begins now.
    #[inline]
    pub fn may_go_on(&self) -> bool {
        !self.draining.get() && self.timeouts.keepalive_ms > 0
    }

    /// Whether there are as many requests as there may be.
    #[inline]
    pub fn is_crowded(&self) -> bool {
        self.limit_concurrency > 0 && self.running.get() >= self.limit_concurrency
    }

    // -- Python's loop -------------------------------------------------------------------------

    /// An awaitable that is done.
    #[inline]
    pub fn done<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.done.bind(py).clone()
    }

    /// A future that somebody settles who finds it in `waiting`.
    pub fn wait<'py>(
        &self,
        py: Python<'py>,
        waiting: &RefCell<Vec<Py<PyAny>>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let future = self.create_future.bind(py).call0()?;
        let mut waiting = waiting.borrow_mut();
        // An application that gives up waiting again and again leaves nothing behind.
        waiting.retain(|future| {
            let done = future.bind(py).call_method0(intern!(py, "done"));
            !done.and_then(|done| done.is_truthy()).unwrap_or(false)
        });
        waiting.push(future.clone().unbind());
        Ok(future)
    }

    /// Calls `callback(argument)` in the next turn of the loop.
    pub fn call_soon(
        &self,
        py: Python<'_>,
        callback: &Bound<'_, PyAny>,
        argument: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.call_soon.bind(py).call1((callback, argument)).map(drop)
    }

    /// Calls `callback()` in the next turn of the loop.
    pub fn call_soon0(&self, py: Python<'_>, callback: &Bound<'_, PyAny>) -> PyResult<()> {
        self.call_soon.bind(py).call1((callback,)).map(drop)
    }

    /// Whether an error is asyncio's CancelledError.
    pub fn is_cancellation(&self, py: Python<'_>, error: &PyErr) -> bool {
        error.is_instance(py, self.cancelled_error.bind(py))
    }

    /// Whether an error is only what a client that left brings about.
    pub fn is_of_disconnect(&self, py: Python<'_>, error: &PyErr) -> bool {
        self.is_cancellation(py, error) || error.is_instance_of::<PyOSError>(py)
    }

    // -- messages ------------------------------------------------------------------------------

    /// `http.request`.
    pub fn request_message<'py>(
        &self,
        py: Python<'py>,
        body: Bound<'py, PyBytes>,
        more: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
        message.set_item(intern!(py, "body"), body)?;
        message.set_item(intern!(py, "more_body"), more)?;
        Ok(message.into_any())
    }

    // -- connections and requests --------------------------------------------------------------

    /// What a transport says about its two ends.
    pub fn peer(&self, transport: &Bound<'_, PyAny>) -> PyResult<Peer> {
        let py = transport.py();
        let named = |name: &str| transport.call_method1(intern!(py, "get_extra_info"), (name,));
        let (peer, own) = (named("peername")?, named("sockname")?);
        let host_and_port = |address: &Bound<'_, PyAny>| -> PyResult<Option<Py<PyAny>>> {
            match address.cast::<PyTuple>() {
                Ok(address) if address.len() >= 2 => Ok(Some(address.get_slice(0, 2).into_any().unbind())),
                _ => Ok(None),
            }
        };
        let client = host_and_port(&peer)?;
        let address = match &client {
            Some(client) => client.bind(py).get_item(0)?,
            None => PyString::new(py, "").into_any(),
        };
        let ip = address.extract::<String>()?.split('%').next().and_then(|text| text.parse().ok());
        let server = match host_and_port(&own)? {
            Some(server) => server,
            // A unix socket: its path, and no port (ASGI HTTP, "server").
            None => (own, py.None()).into_pyobject(py)?.into_any().unbind(),
        };
        let own = Client { remote_addr: address.unbind(), client: client.unwrap_or_else(|| py.None()) };
        Ok(Peer {
            trusted: self.scopes.borrow().trusts(ip),
            may_relay: self.proxies.allows(ip),
            own,
            relayed: OnceCell::new(),
            server,
        })
    }

    /// A connection was made.
    pub fn connection_made(&self, py: Python<'_>) {
        self.row().connection_opened();
        self.open.set(self.open.get() + 1);
        if self.open.get() >= self.connection_limit && !self.full.replace(true) {
            self.report(py, "connections_full", ());
        }
    }

    /// A connection is gone.
    pub fn connection_lost(&self, py: Python<'_>) {
        self.row().connection_closed();
        self.open.set(self.open.get() - 1);
        if self.open.get() < self.connection_limit && self.full.replace(false) {
            self.report(py, "connections_free", ());
        }
    }

    /// An exchange for a new request.
    #[inline]
    pub fn handles(self: &Rc<Self>, py: Python<'_>) -> PyResult<Handles> {
        let spare = self.spare.borrow_mut().pop();
        spare.map_or_else(|| Handles::new(py, self), Ok)
    }

    /// The request has left the stack: its handles serve again if nobody else has them.
    #[inline]
    pub fn give_back(&self, py: Python<'_>, handles: Handles) {
        if self.spare.borrow().len() < SPARE_HANDLES_MAX && handles.are_free(py) {
            self.spare.borrow_mut().push(handles);
        }
    }

    /// A request was answered.
    #[inline]
    pub fn served(&self, py: Python<'_>) {
        let served = self.served.get() + 1;
        self.served.set(served);
        if served == self.max_requests {
            self.report(py, "recycle", ());
        }
    }

    /// Tells the worker if this was the last thing that it waited for.
    #[inline]
    pub fn check_drained(&self, py: Python<'_>) {
        if self.draining.get()
            && self.running.get() == 0
            && self.connections.borrow().is_empty()
            && !self.drained.replace(true)
        {
            self.report(py, "drained", ());
        }
    }

    // -- what the worker is told ---------------------------------------------------------------

    /// Tells the worker. Its methods only log and set things in motion, so an error of theirs has nowhere better
    /// to go than stderr.
    pub fn report<'py>(&self, py: Python<'py>, method: &str, arguments: impl pyo3::call::PyCallArgs<'py>) {
        let worker = self.worker.bind(py);
        if let Err(error) = worker.call_method1(method, arguments) {
            error.write_unraisable(py, Some(worker));
        }
    }

    /// The application raised.
    #[cold]
    pub fn application_failed(
        &self,
        py: Python<'_>,
        error: PyErr,
        scope: Option<Py<PyDict>>,
        answered: bool,
    ) {
        let value = error.value(py).clone().into_any();
        if let Some(traceback) = error.traceback(py) {
            let _ = value.setattr(intern!(py, "__traceback__"), traceback);
        }
        let fatal = !error.is_instance_of::<PyException>(py) && !self.is_cancellation(py, &error);
        self.report(py, "application_failed", (value, scope, answered, fatal));
    }

    /// Whether anybody wants to hear of finished responses.
    #[inline]
    pub fn is_logging(&self) -> bool {
        self.observed || self.access.is_some()
    }

    /// Tells whoever wants to hear of it.
    #[cold]
    pub fn log(&self, py: Python<'_>, left: &Left<'_, '_>) {
        let result = self.environ(py, left).and_then(|environ| {
            if let Some(access) = &self.access {
                let finished = Finished {
                    environ: &environ,
                    response: left,
                    elapsed_ns: left.elapsed_ns,
                    now_ns: left.now_ns,
                };
                access.bind(py).borrow().add(py, &finished)?;
            }
            let Some(observer) = &left.observer else { return Ok(()) };
            let fields = left.fields.iter().map(|(name, value)| Ok((latin1(py, name)?, latin1(py, value)?)));
            let fields = fields.collect::<PyResult<Vec<_>>>()?;
            let status = format!("{} {}", left.status, bicorn_wire::reason_phrase(left.status));
            let elapsed_us = left.elapsed_ns / 1_000;
            self.report(
                py,
                "request_left",
                (observer, &environ, status, fields, left.body_bytes, elapsed_us),
            );
            Ok(())
        });
        if let Err(error) = result {
            error.write_unraisable(py, None);
        }
    }

    /// The request by the names of CGI, which the formats of access logs are written in.
    fn environ<'py>(&self, py: Python<'py>, left: &Left<'_, 'py>) -> PyResult<Bound<'py, PyDict>> {
        let (environ, scope) = (PyDict::new(py), left.scope);
        environ.set_item(intern!(py, "REMOTE_ADDR"), left.remote_addr)?;
        environ.set_item(intern!(py, "REQUEST_METHOD"), latin1(py, &left.line.0)?)?;
        environ.set_item(intern!(py, "RAW_URI"), latin1(py, &left.line.1)?)?;
        for (key, of_scope) in
            [("PATH_INFO", "path"), ("wsgi.url_scheme", "scheme"), ("SCRIPT_NAME", "root_path")]
        {
            environ.set_item(key, scope.get_item(of_scope)?)?;
        }
        let bytes = |name: &str| -> PyResult<Bound<'py, PyAny>> {
            match scope.get_item(name)?.map(|value| value.cast_into::<PyBytes>()) {
                Some(Ok(value)) => latin1(py, value.as_bytes()),
                _ => Ok(PyString::new(py, "").into_any()),
            }
        };
        environ.set_item(intern!(py, "QUERY_STRING"), bytes("query_string")?)?;
        if let Some(version) = scope.get_item(intern!(py, "http_version"))? {
            environ.set_item(intern!(py, "SERVER_PROTOCOL"), format!("HTTP/{version}"))?;
        }
        if let Some(Ok(headers)) =
            scope.get_item(intern!(py, "headers"))?.map(|list| list.cast_into::<PyList>())
        {
            let mut names = self.environ_names.borrow_mut();
            for pair in headers.iter() {
                let (name, value) = pair.extract::<(Bound<'_, PyBytes>, Bound<'_, PyBytes>)>()?;
                let name = names.get(py, name.as_bytes());
                environ.set_item(&name.key, name.value.text(py, value.as_bytes())?)?;
            }
        }
        Ok(environ)
    }
}

/// The HTTP side of one `asgi` worker: calling it gives the protocol of a new connection.
#[pyclass(frozen, module = "bicorn._core")]
pub struct AsgiServer {
    shared: Guarded<Rc<Shared>>,
}

#[pymethods]
impl AsgiServer {
    #[new]
    #[pyo3(signature = (app, worker, event_loop, slot, template, state, options, access=None))]
    #[allow(clippy::too_many_arguments, reason = "the keyword arguments of a Python constructor")]
    fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        worker: Py<PyAny>,
        event_loop: &Bound<'_, PyAny>,
        slot: PyRef<'_, Slot>,
        template: Py<PyDict>,
        state: Py<PyDict>,
        options: &Bound<'_, PyAny>,
        access: Option<Py<AccessLog>>,
    ) -> PyResult<Self> {
        let wire = options.extract::<WireOptions>()?;
        let websocket = options.extract::<WebSocketRules>()?;
        let options = options.extract::<Options>()?;
        let server = options.server.clone().into_bytes();
        let shared = Rc::new(Shared {
            app,
            worker,
            call_soon: event_loop.getattr("call_soon")?.unbind(),
            create_future: event_loop.getattr("create_future")?.unbind(),
            event_loop: event_loop.clone().unbind(),
            cancelled_error: py.import("asyncio")?.getattr("CancelledError")?.unbind(),
            done: Py::new(py, Done)?.into_any(),
            slot: slot.clone(),
            rules: wire.rules(),
            proxy_rules: wire.proxy_rules(),
            proxies: wire.proxies()?,
            timeouts: options.timeouts(),
            websocket,
            farewell: Cell::new(None),
            read_ahead: options.asgi_read_ahead,
            limit_concurrency: options.limit_concurrency,
            queue_ns: milliseconds(options.queue_timeout, true).saturating_mul(1_000_000),
            connection_limit: options.worker_connections.max(1),
            max_requests: options.max_requests,
            observed: options.observed,
            said: RefCell::new(ResponseHead::new(&server)),
            server,
            access,
            date: RefCell::new(HttpDate::default()),
            scopes: RefCell::new(Scopes::new(py, template, state, wire.trust()?, wire.casefold_http_method)),
            environ_names: RefCell::new(Names::default()),
            tasks: Tasks::new(py)?,
            connections: RefCell::new(Slab::new()),
            open: Cell::new(0),
            full: Cell::new(false),
            running: Cell::new(0),
            served: Cell::new(0),
            draining: Cell::new(false),
            drained: Cell::new(false),
            spare: RefCell::new(Vec::new()),
            clock: RefCell::new(Clock::default()),
            now_ns: Cell::new(0),
            held_up_ns: Cell::new(0),
        });
        shared.tasks.prepare(py, &shared)?;
        Ok(Self { shared: Guarded::new(shared) })
    }

    fn __call__(&self, py: Python<'_>) -> AsgiProtocol {
        AsgiProtocol::new(self.shared.get(py))
    }

    /// Looks at every connection's patience; to be called every now and then.
    fn tick(&self, py: Python<'_>) {
        let shared = self.shared.get(py);
        shared.read_clock();
        let now_ms = shared.now_ms();
        let due: Vec<Rc<Conn>> = shared
            .connections
            .borrow()
            .iter()
            .filter(|(_, conn)| conn.is_due(now_ms))
            .map(|(_, conn)| Rc::clone(conn))
            .collect();
        for conn in due {
            conn.expire(py);
        }
    }

    /// Closes up to so many connections that have had an answer and wait for their next request: somebody needs
    /// their descriptors.
    fn close_idle(&self, py: Python<'_>, most: usize) {
        let shared = self.shared.get(py);
        let idle: Vec<Rc<Conn>> = shared
            .connections
            .borrow()
            .iter()
            .filter(|(_, conn)| conn.is_idle())
            .take(most)
            .map(|(_, conn)| Rc::clone(conn))
            .collect();
        for conn in idle {
            conn.close_idle(py);
        }
    }

    /// From now on connections end: idle ones soon, busy ones after their answer. `worker.drained()` is called
    /// when none is left and every application has ended, which may be in this call.
    fn drain(&self, py: Python<'_>) {
        let shared = self.shared.get(py);
        shared.read_clock();
        shared.draining.set(true);
        shared.connections.borrow().iter().for_each(|(_, conn)| conn.drain());
        shared.check_drained(py);
    }

    /// Closes every WebSocket with this code, also those that are accepted later; each ends when its client has closed it too, or has not in time.
    fn close_websockets(&self, py: Python<'_>, code: u16) {
        let shared = self.shared.get(py);
        shared.read_clock();
        shared.farewell.set(Some(code));
        let all: Vec<Rc<Conn>> =
            shared.connections.borrow().iter().map(|(_, conn)| Rc::clone(conn)).collect();
        for conn in all {
            conn.on_websocket(py, |websocket| websocket.go_away(py, code));
        }
    }

    /// Lets go of the loop: it is about to end.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let shared = self.shared.get(py);
        shared.spare.take();
        shared.tasks.close(py)
    }

    /// Connections that are open.
    #[getter]
    fn connections(&self, py: Python<'_>) -> usize {
        self.shared.get(py).open.get()
    }

    /// Applications that have not ended.
    #[getter]
    fn running(&self, py: Python<'_>) -> usize {
        self.shared.get(py).running.get()
    }
}
