//! What the connections of one worker share.
//!
//! Owns       the table of connections, the clock that they go by, and the counts that decide
//!            when a worker is full, done, or due for replacement.
//! Never      accepts, or runs the loop: the worker does, and is told through its methods.
//! Invariant  a drained worker is told so once, when neither a connection nor an application is left.

mod logging;
mod options;
mod python;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::ThreadId;

use bicorn_reactor::clock::{Clock, HttpDate};
use bicorn_reactor::scoreboard::Slot as Row;
use bicorn_wire::{ProxyRules, Rules};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};
use slab::Slab;

use crate::access::AccessLog;
use crate::asgi::connection::Conn;
use crate::asgi::exchange::Handles;
use crate::asgi::scope::{Client, Peer, Scopes};
use crate::asgi::steps::Tasks;
use crate::asgi::websocket::WebSocketRules;
use crate::lines::Lines;
use crate::names::Names;
use crate::response_head::ResponseHead;
use crate::scoreboard::Slot;
use crate::trust::AllowList;
use options::Timeouts;

pub use logging::Left;
pub use python::AsgiServer;

/// A moment that does not come.
pub const NEVER: u64 = u64::MAX;

/// A loop that does not come to look at its clock for so long may have kept requests waiting, or had none.
const HELD_UP_NS: u64 = 100_000_000;

/// For how long after that, and after each that has gone, requests are asked whether their clients are there.
const AFTERMATH_NS: u64 = 100_000_000;

/// How far an error is followed to what it was made of.
const ERROR_DEPTH_MAX: usize = 8;

/// Exchanges that are kept for further requests.
const SPARE_HANDLES_MAX: usize = 64;

/// What every connection of a worker uses.
pub struct Shared {
    pub app: Py<PyAny>,
    pub worker: Py<PyAny>,
    pub event_loop: Py<PyAny>,
    call_soon: Py<PyAny>,
    create_future: Py<PyAny>,
    cancelled_error: Py<PyAny>,
    done: Py<PyAny>,
    /// The thread that the loop runs in.
    thread: ThreadId,
    slot: Slot,
    /// Its connections, as their watch knows them.
    pub lines: Arc<Lines>,
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
    /// When the loop was last found to have rested, or been held up, or a client to have gone.
    held_up_ns: Cell<u64>,
}

impl Shared {
    /// This worker's row of the scoreboard.
    #[inline]
    pub fn row(&self) -> &Row {
        self.slot.row()
    }

    /// Shows which request has been waiting longest for its answer to begin: while it awaits something, no step of it
    /// shows itself.
    pub fn show_oldest(&self, py: Python<'_>) {
        let mut oldest: Option<(u64, Vec<u8>, Vec<u8>)> = None;
        for (_, conn) in &*self.connections.borrow() {
            conn.while_busy(|exchange| {
                exchange.while_awaited(py, |started_ns, method, target| {
                    if oldest.as_ref().is_none_or(|&(before_ns, ..)| started_ns < before_ns) {
                        oldest = Some((started_ns, method.to_vec(), target.to_vec()));
                    }
                });
            });
        }
        self.row().show_oldest(oldest.as_ref().map(|(ns, method, target)| (*ns, &**method, &**target)));
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

    /// Whether requests may have waited in the kernel. A loop that had nothing to do says so too, and then the
    /// question costs nobody anything; one that is busy with short steps asks only while it finds some gone.
    #[inline]
    pub fn was_held_up(&self) -> bool {
        self.now_ns.get() - self.held_up_ns.get() < AFTERMATH_NS
    }

    /// A request was found whose client has gone: it will not be the only one.
    pub fn found_gone(&self) {
        self.held_up_ns.set(self.now_ns.get());
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

    /// Whether this is not the loop's thread.
    #[inline]
    pub fn is_elsewhere(&self) -> bool {
        self.thread != std::thread::current().id()
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

    /// Whether an error is only what a client that left brings about: what we raised for it, an error that a
    /// framework made of that, or a group of such.
    pub fn is_of_disconnect(&self, py: Python<'_>, error: &PyErr) -> bool {
        self.comes_of_disconnect(error.value(py).as_any(), ERROR_DEPTH_MAX).unwrap_or(false)
    }

    fn comes_of_disconnect(&self, error: &Bound<'_, PyAny>, depth: usize) -> PyResult<bool> {
        let py = error.py();
        if error.is_instance(self.cancelled_error.bind(py))? || error.is_instance_of::<PyOSError>() {
            return Ok(true);
        }
        if depth == 0 {
            return Ok(false);
        }
        if let Some(Ok(group)) = error.getattr_opt("exceptions")?.map(|group| group.cast_into::<PyTuple>()) {
            return group.iter().try_fold(!group.is_empty(), |so_far, error| {
                Ok(so_far && self.comes_of_disconnect(&error, depth - 1)?)
            });
        }
        let cause = error.getattr(intern!(py, "__cause__"))?;
        let before = if cause.is_none() { error.getattr(intern!(py, "__context__"))? } else { cause };
        Ok(!before.is_none() && self.comes_of_disconnect(&before, depth - 1)?)
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
            origin: OnceCell::new(),
            server,
        })
    }

    /// A connection was made.
    pub fn connection_made(&self, py: Python<'_>) {
        self.drained.set(false); // After all: one that no other worker was there to take.
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
    pub fn application_failed(&self, py: Python<'_>, error: PyErr, scope: Option<Py<PyDict>>, when: &str) {
        let value = error.value(py).clone().into_any();
        if let Some(traceback) = error.traceback(py) {
            let _ = value.setattr(intern!(py, "__traceback__"), traceback);
        }
        let fatal = crate::wsgi::ends_process(py, &error);
        self.report(py, "application_failed", (value, scope, when, fatal));
    }
}
