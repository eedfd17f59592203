//! One connection: an asyncio.Protocol that reads requests and runs them.
//!
//! Owns       the bytes that were read and not yet used, where the connection stands between requests, and how
//!            it ends.
//! Never      holds a borrow of its own state while Python code runs, which may come back here.
//! Invariant  at most one request of a connection has an unfinished response; what the client sends ahead of
//!            it waits, and reading stops before that becomes more than `read_ahead` and one read.

mod bodies;
mod endings;
mod moving;
mod protocol;
mod reading;
mod requests;
mod timing;
mod upgrades;
mod waiting;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bicorn_wire::{BodyDecoder, Head, HeadParser, ProxyStep, RefusalKind, parse_proxy_header};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::asgi::exchange::Exchange;
use crate::asgi::outlet::Outlet;
use crate::asgi::scope::Peer;
use crate::asgi::server::{NEVER, Shared};
use crate::asgi::websocket::WebSocket;
use crate::lines::{Line, Place};

pub use protocol::AsgiProtocol;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests: nothing of the next head has come.
    Idle,
    /// A part of a head has come.
    Head,
    /// A request is being answered, or the rest of its body is awaited.
    Busy,
    /// It is a WebSocket now.
    Upgraded,
    /// The last answer has left, and what to do about the connection is to be decided by whoever reads it.
    Ending,
    /// Our side is closed; what the peer still sends is thrown away until it closes too.
    Lingering,
    /// The transport closes when all has been sent.
    Closing,
    /// There is no transport any more.
    Lost,
}

impl Phase {
    fn place(self) -> Place {
        match self {
            Self::Idle => Place::Idle,
            Self::Head | Self::Busy => Place::Request,
            _ => Place::Elsewhere,
        }
    }
}

/// Where a connection stands, said to its watch as well.
struct Standing {
    phase: Cell<Phase>,
    line: Arc<Line>,
}

impl Standing {
    #[inline]
    fn get(&self) -> Phase {
        self.phase.get()
    }

    #[inline]
    fn set(&self, phase: Phase) {
        self.phase.set(phase);
        self.line.stand(phase.place());
    }

    fn replace(&self, phase: Phase) -> Phase {
        self.line.stand(phase.place());
        self.phase.replace(phase)
    }
}

/// Where a connection came from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Came {
    /// Index of its listener.
    pub listener: usize,
    /// Another worker has served a request of it.
    pub served: bool,
}

/// The state of one connection.
pub struct Conn {
    shared: Rc<Shared>,
    key: Cell<usize>,
    /// Where its bytes go.
    pub out: Outlet,
    /// Who is there.
    pub peer: Peer,
    /// Where it came in.
    pub came: Came,
    phase: Standing,
    /// Its place in the table of the watch.
    watched: Cell<Option<usize>>,
    /// What has come of a PROXY header, while one may come.
    preamble: RefCell<Option<Vec<u8>>>,
    input: RefCell<Vec<u8>>,
    parsing: RefCell<(HeadParser, Head)>,
    in_head: Cell<bool>,
    decoder: RefCell<Option<BodyDecoder>>,
    /// Bytes of the body to come, where that is known.
    body_left: Cell<Option<u64>>,
    /// The client waits for a 100 before it sends the body.
    continue_due: Cell<bool>,
    exchange: RefCell<Option<Py<Exchange>>>,
    websocket: RefCell<Option<Py<WebSocket>>>,
    reading_paused: Cell<bool>,
    eof: Cell<bool>,
    /// `drive` is on the stack.
    driving: Cell<bool>,
    resume_due: Cell<bool>,
    /// Bytes that the transport held when its patience was last looked at.
    unsent: Cell<usize>,
    deadline_ms: Cell<u64>,
    /// The loop has had a last look for what was waited for until then.
    looked: Cell<bool>,
    /// When its last answer had left; 0 before the first.
    freed_ns: Cell<u64>,
    /// The protocol's method that goes on reading requests.
    resume: RefCell<Option<Py<PyAny>>>,
}

impl Conn {
    /// A connection of which nothing has been read.
    pub fn new(shared: &Rc<Shared>, peer: Peer, came: Came) -> Rc<Self> {
        let line = Arc::new(Line::default());
        Rc::new(Self {
            shared: Rc::clone(shared),
            key: Cell::new(usize::MAX),
            out: Outlet::new(Arc::clone(&line)),
            peer,
            came,
            phase: Standing { phase: Cell::new(Phase::Idle), line },
            watched: Cell::new(None),
            // It comes once.
            preamble: RefCell::new(shared.proxy_rules.filter(|_| !came.served).map(|_| Vec::new())),
            input: RefCell::default(),
            parsing: RefCell::default(),
            in_head: Cell::new(false),
            decoder: RefCell::new(None),
            body_left: Cell::new(Some(0)),
            continue_due: Cell::new(false),
            exchange: RefCell::new(None),
            websocket: RefCell::new(None),
            reading_paused: Cell::new(false),
            eof: Cell::new(false),
            driving: Cell::new(false),
            resume_due: Cell::new(false),
            unsent: Cell::new(0),
            deadline_ms: Cell::new(NEVER),
            looked: Cell::new(false),
            freed_ns: Cell::new(0),
            resume: RefCell::new(None),
        })
    }

    /// What its watch knows of it.
    #[inline]
    pub(super) fn line(&self) -> &Arc<Line> {
        &self.phase.line
    }

    /// Calls this with the request that is being answered, if there is one.
    pub fn while_busy(&self, found: impl FnOnce(&Exchange)) {
        if self.phase.get() == Phase::Busy
            && let Some(exchange) = &*self.exchange.borrow()
        {
            found(exchange.get());
        }
    }

    pub(super) fn exchange(&self, py: Python<'_>) -> Option<Py<Exchange>> {
        self.exchange.borrow().as_ref().map(|exchange| exchange.clone_ref(py))
    }

    pub(super) fn made(
        self: &Rc<Self>,
        py: Python<'_>,
        transport: &Bound<'_, PyAny>,
        resume: Py<PyAny>,
    ) -> PyResult<()> {
        self.shared.read_clock();
        self.out.open(transport)?;
        let watched =
            self.out.descriptor().map(|fd| self.shared.lines.enter(fd, self.came.listener, self.line()));
        self.watched.set(watched);
        self.resume.replace(Some(resume));
        self.key.set(self.shared.connections.borrow_mut().insert(Rc::clone(self)));
        let idle_ms = if self.came.served { self.shared.idle_ms() } else { self.shared.timeouts.header_ms };
        self.patience(idle_ms);
        self.shared.connection_made(py);
        Ok(())
    }

    #[inline]
    pub(super) fn received(self: &Rc<Self>, py: Python<'_>, data: &Bound<'_, PyBytes>) {
        let mut bytes = data.as_bytes();
        self.shared.row().received(bytes.len());
        self.shared.read_clock();
        if matches!(self.phase.get(), Phase::Ending | Phase::Lingering | Phase::Closing | Phase::Lost) {
            return;
        }
        if self.phase.get() == Phase::Upgraded {
            return self.on_websocket(py, |websocket| websocket.received(py, bytes));
        }
        if self.line().gate.is_shut() {
            return self.leave(py); // It was answered in the application's place, or is another worker's now.
        }
        let preamble = self.preamble.take();
        if let Some(held) = preamble {
            return self.read_preamble(py, held, bytes);
        }
        if self.decoder.borrow().is_some() {
            let Some(used) = self.feed(py, bytes, Some(data)) else { return };
            bytes = &bytes[used..];
        }
        if self.is_busy() || self.driving.get() {
            self.hold(py, bytes);
        } else {
            self.drive(py, bytes);
        }
    }

    /// Looks for a PROXY header in front of the first request: in what has come of one, and in what comes now.
    #[cold]
    pub(super) fn read_preamble(self: &Rc<Self>, py: Python<'_>, mut held: Vec<u8>, bytes: &[u8]) {
        let rules = self.shared.proxy_rules.expect("only with rules for it a preamble is read");
        held.extend_from_slice(bytes);
        match parse_proxy_header(&held, &rules) {
            Ok(ProxyStep::Partial) => {
                self.line().set_ahead(true);
                self.preamble.replace(Some(held));
            }
            Ok(ProxyStep::Absent) => self.drive(py, &held),
            Ok(ProxyStep::Present { origin, len }) => match self.peer.relays(py, origin) {
                Ok(true) => self.drive(py, &held[len..]),
                Ok(false) => self.refuse(py, RefusalKind::ForbiddenProxy.into()),
                Err(error) => drop(self.no_scope(py, error.into())),
            },
            Err(refusal) => self.refuse(py, refusal),
        }
    }

    pub(super) fn eof_received(self: &Rc<Self>, py: Python<'_>) -> bool {
        self.shared.read_clock();
        self.eof.set(true);
        match self.phase.get() {
            Phase::Busy => self.outlives_eof(py),
            // Whole requests may wait for their turn.
            Phase::Idle if !self.input.borrow().is_empty() => true,
            Phase::Closing => true,
            _ => {
                self.phase.set(Phase::Closing);
                false
            }
        }
    }

    /// Whether the request that has begun is still to be answered although nothing more will come.
    pub(super) fn outlives_eof(self: &Rc<Self>, py: Python<'_>) -> bool {
        // It will never be complete: nobody waits for an answer to half of one.
        if self.decoder.borrow().is_some() {
            self.out.closed.set(true);
            return false;
        }
        let Some(exchange) = self.exchange(py) else {
            self.phase.set(Phase::Closing);
            return false;
        };
        // The client may only have closed its own side; so it gets its answer, if that does not take longer
        // than an application may take after its client has left.
        self.patience(self.shared.timeouts.disconnect_ms);
        exchange.get().disconnect(py);
        self.on_websocket(py, |websocket| websocket.disconnected(py));
        true
    }

    pub(super) fn lost(self: &Rc<Self>, py: Python<'_>) {
        self.shared.read_clock();
        if let Some(key) = self.watched.take() {
            self.shared.lines.leave(key);
        }
        self.out.lose();
        self.phase.set(Phase::Lost);
        self.resume.take();
        self.decoder.take();
        self.on_websocket(py, |websocket| websocket.disconnected(py));
        self.websocket.take();
        self.shared.connection_lost(py);
        match self.exchange(py) {
            None => self.forget(py),
            Some(exchange) => {
                // Kept in the table until its application has ended.
                self.patience(self.shared.timeouts.disconnect_ms);
                exchange.get().disconnect(py);
                if self.shared.timeouts.disconnect_ms == 0 {
                    exchange.get().cancel(py);
                }
            }
        }
    }

    pub(super) fn writing_paused(&self, py: Python<'_>) {
        self.out.paused.set(true);
        self.unsent.set(self.buffered(py));
        self.patience(self.shared.timeouts.write_ms);
    }

    pub(super) fn writing_resumed(self: &Rc<Self>, py: Python<'_>) {
        self.out.paused.set(false);
        if self.phase.get() == Phase::Idle {
            self.line().gate.reset();
        }
        if self.phase.get() == Phase::Busy {
            self.deadline_ms.set(NEVER);
            self.await_body();
        }
        if self.phase.get() == Phase::Upgraded {
            self.patience(self.shared.websocket.ping_interval_ms);
            self.on_websocket(py, |websocket| websocket.drained(py));
        } else if let Some(exchange) = self.exchange(py) {
            exchange.get().drained(py);
        } else if !self.input.borrow().is_empty() {
            self.resume_soon(py);
        }
    }

    pub(super) fn buffered(&self, py: Python<'_>) -> usize {
        self.out
            .transport(py)
            .and_then(|transport| transport.call_method0(intern!(py, "get_write_buffer_size")).ok())
            .and_then(|size| size.extract().ok())
            .unwrap_or(0)
    }

    /// What all connections use.
    pub fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }
}
