//! The handle that Python has on the connections of its worker.
//!
//! Owns       what the worker tells them: to look at the time, to drain, to close.
//! Never      accepts, or runs the loop.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use bicorn_reactor::clock::{Clock, HttpDate};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use slab::Slab;

use super::Shared;
use super::options::Options;
use crate::access::AccessLog;
use crate::asgi::awaitable::Done;
use crate::asgi::connection::{AsgiProtocol, Came, Conn};
use crate::asgi::guarded::Guarded;
use crate::asgi::scope::Scopes;
use crate::asgi::steps::Tasks;
use crate::asgi::websocket::WebSocketRules;
use crate::handover::Handover;
use crate::lines::python::Lines;
use crate::names::Names;
use crate::response_head::ResponseHead;
use crate::scoreboard::Slot;
use crate::wire_options::{WireOptions, milliseconds};

/// The HTTP side of one `asgi` worker.
#[pyclass(frozen, module = "bicorn._core")]
pub struct AsgiServer {
    shared: Guarded<Rc<Shared>>,
}

#[pymethods]
impl AsgiServer {
    #[new]
    #[pyo3(signature = (app, worker, event_loop, slot, lines, template, state, options, access=None))]
    #[allow(clippy::too_many_arguments, reason = "the keyword arguments of a Python constructor")]
    fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        worker: Py<PyAny>,
        event_loop: &Bound<'_, PyAny>,
        slot: PyRef<'_, Slot>,
        lines: PyRef<'_, Lines>,
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
            thread: std::thread::current().id(),
            slot: slot.clone(),
            lines: lines.shared(),
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
        shared.row().steps.store(1, Relaxed);
        shared.tasks.prepare(py, &shared)?;
        Ok(Self { shared: Guarded::new(shared) })
    }

    /// The protocol of a connection that came in on this listener; `served`: in another worker, which has
    /// served a request of it.
    fn protocol(&self, py: Python<'_>, listener: usize, served: bool) -> AsgiProtocol {
        AsgiProtocol::new(self.shared.get(py), Came { listener, served })
    }

    /// Puts connections that are between two requests into the queue, as far as it takes them: all, or so many.
    #[pyo3(signature = (queue, most=None))]
    fn give_idle_away(&self, py: Python<'_>, queue: &Handover, most: Option<usize>) {
        let shared = self.shared.get(py);
        let idle: Vec<Rc<Conn>> = shared
            .connections
            .borrow()
            .iter()
            .filter(|(_, conn)| conn.is_movable())
            .take(most.unwrap_or(usize::MAX))
            .map(|(_, conn)| Rc::clone(conn))
            .collect();
        for conn in idle {
            let Some(fd) = conn.out.descriptor() else { continue };
            let address = conn.peer.own.client.extract::<(String, u16)>(py).ok();
            if !queue.put(fd, conn.has_served(), conn.came.listener, address) {
                break;
            }
            conn.leave(py);
        }
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
        shared.show_oldest(py);
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
