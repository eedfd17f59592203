//! One connection: an asyncio.Protocol that reads requests and runs them.
//!
//! Owns       the bytes that were read and not yet used, where the connection stands between requests, and how
//!            it ends.
//! Never      holds a borrow of its own state while Python code runs, which may come back here.
//! Invariant  at most one request of a connection has an unfinished response; what the client sends ahead of
//!            it waits, and reading stops before that becomes more than `read_ahead` and one read.

mod waiting;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bicorn_reactor::waiting::Turn;
use bicorn_wire::websocket::{Handshake, HandshakeRefusal};
use bicorn_wire::{
    BodyDecoder, BodyStep, Framing, Head, HeadParser, Progress, ProxyStep, Refusal, RefusalKind,
    parse_proxy_header, push_refusal,
};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::asgi::exchange::{Exchange, Terms};
use crate::asgi::guarded::Guarded;
use crate::asgi::incoming::Incoming;
use crate::asgi::outlet::Outlet;
use crate::asgi::scope::{Peer, ScopeError};
use crate::asgi::server::{NEVER, Shared};
use crate::asgi::steps;
use crate::asgi::websocket::{WebSocket, push_refused_handshake, read_handshake, turn_scope};

/// Requests of one connection that are begun in one turn of the loop.
const REQUESTS_PER_TURN: usize = 16;

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

/// What came of looking at the bytes of a request.
enum Read {
    /// There is not a whole head yet.
    Partial,
    /// A request was begun, and this many bytes belong to it.
    Begun(usize),
    /// The connection takes no more requests.
    Over,
}

/// The state of one connection.
pub struct Conn {
    shared: Rc<Shared>,
    key: Cell<usize>,
    /// Where its bytes go.
    pub out: Outlet,
    /// Who is there.
    pub peer: Peer,
    phase: Cell<Phase>,
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
    /// When its last answer had left; 0 before the first.
    freed_ns: Cell<u64>,
    /// The protocol's method that goes on reading requests.
    resume: RefCell<Option<Py<PyAny>>>,
}

impl Conn {
    /// A connection of which nothing has been read.
    pub fn new(shared: &Rc<Shared>, peer: Peer) -> Rc<Self> {
        Rc::new(Self {
            shared: Rc::clone(shared),
            key: Cell::new(usize::MAX),
            out: Outlet::new(),
            peer,
            phase: Cell::new(Phase::Idle),
            preamble: RefCell::new(shared.proxy_rules.map(|_| Vec::new())),
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
            freed_ns: Cell::new(0),
            resume: RefCell::new(None),
        })
    }

    /// From now it has so long for whatever it is to do.
    pub fn patience(&self, milliseconds: u64) {
        self.deadline_ms.set(self.shared.now_ms().saturating_add(milliseconds));
    }

    fn exchange(&self, py: Python<'_>) -> Option<Py<Exchange>> {
        self.exchange.borrow().as_ref().map(|exchange| exchange.clone_ref(py))
    }

    // -- what the transport tells --------------------------------------------------------------

    fn made(
        self: &Rc<Self>,
        py: Python<'_>,
        transport: &Bound<'_, PyAny>,
        resume: Py<PyAny>,
    ) -> PyResult<()> {
        self.shared.read_clock();
        self.out.open(transport)?;
        self.resume.replace(Some(resume));
        self.key.set(self.shared.connections.borrow_mut().insert(Rc::clone(self)));
        self.patience(self.shared.timeouts.header_ms);
        self.shared.connection_made(py);
        Ok(())
    }

    #[inline]
    fn received(self: &Rc<Self>, py: Python<'_>, data: &Bound<'_, PyBytes>) {
        let mut bytes = data.as_bytes();
        self.shared.row().received(bytes.len());
        self.shared.read_clock();
        if matches!(self.phase.get(), Phase::Ending | Phase::Lingering | Phase::Closing | Phase::Lost) {
            return;
        }
        if self.phase.get() == Phase::Upgraded {
            return self.on_websocket(py, |websocket| websocket.received(py, bytes));
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
    fn read_preamble(self: &Rc<Self>, py: Python<'_>, mut held: Vec<u8>, bytes: &[u8]) {
        let rules = self.shared.proxy_rules.expect("only with rules for it a preamble is read");
        held.extend_from_slice(bytes);
        match parse_proxy_header(&held, &rules) {
            Ok(ProxyStep::Partial) => {
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

    fn eof_received(self: &Rc<Self>, py: Python<'_>) -> bool {
        self.shared.read_clock();
        self.eof.set(true);
        match self.phase.get() {
            // The request will never be complete: nobody waits for an answer to half of one.
            Phase::Busy if self.decoder.borrow().is_some() => {
                self.out.closed.set(true);
                false
            }
            Phase::Busy if self.exchange.borrow().is_some() => {
                // The client may only have closed its own side; so it gets its answer, if that does not
                // take longer than an application may take after its client has left.
                self.patience(self.shared.timeouts.disconnect_ms);
                if let Some(exchange) = self.exchange(py) {
                    exchange.get().disconnect(py);
                }
                self.on_websocket(py, |websocket| websocket.disconnected(py));
                true
            }
            Phase::Closing => true,
            _ => {
                self.phase.set(Phase::Closing);
                false
            }
        }
    }

    fn lost(self: &Rc<Self>, py: Python<'_>) {
        self.shared.read_clock();
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

    fn writing_paused(&self, py: Python<'_>) {
        self.out.paused.set(true);
        self.unsent.set(self.buffered(py));
        self.patience(self.shared.timeouts.write_ms);
    }

    fn writing_resumed(self: &Rc<Self>, py: Python<'_>) {
        self.out.paused.set(false);
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

    fn buffered(&self, py: Python<'_>) -> usize {
        self.out
            .transport(py)
            .and_then(|transport| transport.call_method0(intern!(py, "get_write_buffer_size")).ok())
            .and_then(|size| size.extract().ok())
            .unwrap_or(0)
    }

    // -- reading requests ----------------------------------------------------------------------

    fn is_busy(&self) -> bool {
        self.phase.get() == Phase::Busy
    }

    /// Keeps bytes that came ahead of their time.
    fn hold(&self, py: Python<'_>, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut input = self.input.borrow_mut();
        input.extend_from_slice(bytes);
        if input.len() > self.shared.read_ahead {
            drop(input);
            self.pause_reading(py);
        }
    }

    /// Stops reading until somebody has caught up.
    pub fn pause_reading(&self, py: Python<'_>) {
        if !self.reading_paused.replace(true) {
            self.out.tell(py, "pause_reading");
        }
    }

    /// Whether somebody has to catch up.
    pub fn is_reading_paused(&self) -> bool {
        self.reading_paused.get()
    }

    /// Reads again.
    pub fn resume_reading(&self, py: Python<'_>) {
        if self.reading_paused.replace(false) {
            self.out.tell(py, "resume_reading");
        }
    }

    /// Goes on with what waits, in a turn of its own.
    fn resume_soon(&self, py: Python<'_>) {
        let resume = self.resume.borrow().as_ref().map(|resume| resume.clone_ref(py));
        if let Some(resume) = resume
            && !self.resume_due.replace(true)
            && let Err(error) = self.shared.call_soon0(py, resume.bind(py))
        {
            error.write_unraisable(py, None);
        }
    }

    fn resumed(self: &Rc<Self>, py: Python<'_>) {
        self.resume_due.set(false);
        self.shared.read_clock();
        if matches!(self.phase.get(), Phase::Idle | Phase::Head) && !self.driving.get() {
            self.drive(py, b"");
        }
    }

    /// Begins requests as long as whole ones are there and each is answered at once.
    fn drive(self: &Rc<Self>, py: Python<'_>, bytes: &[u8]) {
        self.driving.set(true);
        let mut held = self.input.take();
        let waited = !held.is_empty();
        if waited {
            held.extend_from_slice(bytes);
        }
        let all: &[u8] = if waited { &held } else { bytes };
        let mut at = 0;
        let mut begun = 0;
        while at < all.len() {
            if begun == REQUESTS_PER_TURN || self.out.paused.get() {
                break;
            }
            match self.read_request(py, &all[at..]) {
                Read::Partial => {
                    self.await_head();
                    break;
                }
                Read::Begun(consumed) => at += consumed,
                Read::Over => at = all.len(),
            }
            begun += 1;
            if !matches!(self.phase.get(), Phase::Idle | Phase::Head) {
                break;
            }
        }
        self.driving.set(false);
        let rest = &all[at..];
        if self.phase.get() == Phase::Ending {
            return self.end(py, !rest.is_empty());
        }
        if self.phase.get() == Phase::Upgraded && !rest.is_empty() {
            return self.on_websocket(py, |websocket| websocket.received(py, rest));
        }
        if rest.is_empty() || matches!(self.phase.get(), Phase::Lingering | Phase::Closing | Phase::Lost) {
            return;
        }
        if waited {
            held.drain(..at);
            self.input.replace(held);
        } else {
            self.input.borrow_mut().extend_from_slice(rest);
        }
        if self.phase.get() == Phase::Idle && !self.out.paused.get() {
            self.resume_soon(py);
        }
        if self.input.borrow().len() > self.shared.read_ahead && self.phase.get() != Phase::Head {
            self.pause_reading(py);
        }
    }

    /// The time for a head runs from its first byte.
    fn await_head(&self) {
        if self.phase.replace(Phase::Head) == Phase::Idle {
            self.patience(self.shared.timeouts.header_ms);
        }
    }

    #[inline]
    fn read_request(self: &Rc<Self>, py: Python<'_>, bytes: &[u8]) -> Read {
        if !self.in_head.get() {
            let known = {
                let scopes = self.shared.scopes.borrow();
                scopes
                    .recall(bytes, &self.peer)
                    .map(|made| (scopes.scope(py, made, &self.peer), made.terms, made.line(bytes)))
            };
            if let Some((scope, terms, line)) = known {
                return match scope {
                    Ok(scope) => self.begin(py, &scope, terms, line, Framing::None, bytes.len(), bytes),
                    Err(error) => self.no_scope(py, error.into()),
                };
            }
        }
        self.parse_request(py, bytes)
    }

    fn parse_request(self: &Rc<Self>, py: Python<'_>, bytes: &[u8]) -> Read {
        let mut parsing = self.parsing.borrow_mut();
        let (parser, head) = &mut *parsing;
        match parser.parse(bytes, &self.shared.rules, head) {
            Ok(Progress::Partial) => {
                self.in_head.set(true);
                return Read::Partial;
            }
            Ok(Progress::Complete) => {}
            Err(refusal) => {
                drop(parsing);
                self.refuse(py, refusal);
                return Read::Over;
            }
        }
        parser.reset();
        self.in_head.set(false);
        let handshake = read_handshake(&self.shared, head, bytes);
        // No two handshakes are alike.
        let alone = bytes.len() == head.len && handshake.is_none();
        let made = {
            let mut scopes = self.shared.scopes.borrow_mut();
            scopes
                .make(py, head, bytes, &self.peer, alone)
                .and_then(|made| Ok((scopes.scope(py, &made, &self.peer)?, made.terms, made.line(bytes))))
        };
        let made = made.map_err(|error| error.of(head.method.of(bytes)));
        let (framing, consumed) = (head.framing, head.len);
        self.continue_due.set(head.expects_continue);
        // What runs from here on may come back to this connection.
        drop(parsing);
        match (made, handshake) {
            (Err(error), _) => self.no_scope(py, error),
            (Ok(_), Some(Err(refusal))) => self.refuse_handshake(py, refusal),
            (Ok((scope, terms, line)), Some(Ok(handshake))) => {
                self.begin_websocket(py, &scope, terms, line, handshake, consumed)
            }
            (Ok((scope, terms, line)), None) => self.begin(py, &scope, terms, line, framing, consumed, bytes),
        }
    }

    #[cold]
    fn no_scope(self: &Rc<Self>, py: Python<'_>, error: ScopeError) -> Read {
        match error {
            ScopeError::Refused(refusal) => self.refuse(py, refusal),
            ScopeError::Python(error) => {
                self.shared.application_failed(py, error, None, false);
                self.send_error(py, 500, true);
                self.linger(py);
            }
        }
        Read::Over
    }

    /// Begins a request: takes in what is there of its body, and runs the application's first step.
    #[inline]
    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of a head, which a struct would only carry from here to here"
    )]
    fn begin(
        self: &Rc<Self>,
        py: Python<'_>,
        scope: &Bound<'_, PyDict>,
        terms: Terms,
        line: (&[u8], &[u8]),
        framing: Framing,
        head_bytes: usize,
        bytes: &[u8],
    ) -> Read {
        if let Some(over) = self.dismissed(py, terms) {
            return over;
        }
        self.phase.set(Phase::Busy);
        self.deadline_ms.set(NEVER);
        let handles = match self.shared.handles(py) {
            Ok(handles) => handles,
            Err(error) => return self.no_scope(py, error.into()),
        };
        handles.exchange.get().open(py, self, scope, terms, line);
        self.exchange.replace(Some(handles.exchange.clone_ref(py)));
        let mut consumed = head_bytes;
        match self.open_body(py, framing, &bytes[head_bytes..]) {
            Some(used) => consumed += used,
            None => {
                self.shared.running.set(self.shared.running.get() - 1);
                return Read::Over;
            }
        }
        if let Err(error) = self.run(py, scope, &handles) {
            handles.exchange.get().application_ended(py, Err(error));
        }
        self.shared.give_back(py, handles);
        Read::Begun(consumed)
    }

    /// Ends the connection if its request has come too late, or on top of too many.
    #[inline]
    fn dismissed(self: &Rc<Self>, py: Python<'_>, terms: Terms) -> Option<Read> {
        let mut turn = self.judge(0);
        if turn == Turn::Run && self.shared.is_crowded() {
            turn = Turn::Refuse(RefusalKind::TooManyAtOnce);
        }
        if turn == Turn::Run {
            return None;
        }
        self.dismiss(py, turn, terms);
        Some(Read::Over)
    }

    /// Begins a request for a WebSocket. Until the application has accepted, it is one like any other.
    fn begin_websocket(
        self: &Rc<Self>,
        py: Python<'_>,
        scope: &Bound<'_, PyDict>,
        terms: Terms,
        line: (&[u8], &[u8]),
        handshake: Handshake,
        head_bytes: usize,
    ) -> Read {
        if let Some(over) = self.dismissed(py, terms) {
            return over;
        }
        let opened = turn_scope(py, scope, &handshake)
            .and_then(|()| self.shared.handles(py))
            .and_then(|spare| WebSocket::open(py, self, spare.exchange, handshake));
        let handles = match opened {
            Ok(handles) => handles,
            Err(error) => return self.no_scope(py, error.into()),
        };
        self.phase.set(Phase::Busy);
        self.deadline_ms.set(NEVER);
        let exchange = handles.exchange.get();
        exchange.open(py, self, scope, Terms { keep_alive: false, ..terms }, line);
        exchange.incoming(py).end();
        self.body_left.set(Some(0));
        self.exchange.replace(Some(handles.exchange.clone_ref(py)));
        if let Err(error) = self.run(py, scope, &handles) {
            exchange.application_ended(py, Err(error));
        }
        Read::Begun(head_bytes)
    }

    #[cold]
    fn refuse_handshake(self: &Rc<Self>, py: Python<'_>, refusal: HandshakeRefusal) -> Read {
        self.shared.row().request_refused(refusal.status());
        let mut answer = Vec::new();
        let mut date = self.shared.date.borrow_mut();
        push_refused_handshake(&mut answer, refusal, &self.shared.server, date.now());
        drop(date);
        self.out.write(py, &[&answer]);
        let arguments = (&self.peer.client().remote_addr, refusal.status(), refusal.text());
        self.shared.report(py, "request_refused", arguments);
        self.linger(py);
        Read::Over
    }

    // -- as a WebSocket ------------------------------------------------------------------------

    /// What all connections use.
    pub fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    /// The WebSocket that the connection is, or is asked to be.
    pub fn attach(&self, websocket: Py<WebSocket>) {
        self.websocket.replace(Some(websocket));
    }

    #[inline]
    pub fn on_websocket(&self, py: Python<'_>, act: impl FnOnce(&WebSocket)) {
        let websocket = self.websocket.borrow().as_ref().map(|websocket| websocket.clone_ref(py));
        if let Some(websocket) = websocket {
            act(websocket.get());
        }
    }

    /// The handshake is answered: from here on the bytes are frames. Gives those that have come already.
    pub fn upgrade(&self, py: Python<'_>) -> Vec<u8> {
        self.phase.set(Phase::Upgraded);
        self.patience(self.shared.websocket.ping_interval_ms);
        self.resume_reading(py);
        self.input.take()
    }

    /// Both sides have said that they close, or the client cannot be talked to (`broken`): then it may go on
    /// sending, and a close with unread input behind it would take our last words with it.
    pub fn hang_up(self: &Rc<Self>, py: Python<'_>, broken: bool) {
        if self.phase.get() != Phase::Upgraded {
            return;
        }
        self.shared.row().sent(self.out.take_sent() as usize);
        if broken { self.linger(py) } else { self.end(py, false) }
    }

    /// The application of the WebSocket has ended.
    pub fn application_left(&self, py: Python<'_>) {
        self.exchange.take();
        if self.phase.get() == Phase::Lost {
            self.forget(py);
        }
    }

    // -- bodies --------------------------------------------------------------------------------

    #[inline]
    fn open_body(self: &Rc<Self>, py: Python<'_>, framing: Framing, rest: &[u8]) -> Option<usize> {
        if matches!(framing, Framing::None | Framing::Length(0)) {
            if let Some(exchange) = &*self.exchange.borrow() {
                exchange.get().incoming(py).end();
            }
            self.body_left.set(Some(0));
            return Some(0);
        }
        match BodyDecoder::new(framing, &self.shared.rules.limits) {
            Ok(decoder) => self.decoder.replace(Some(decoder)),
            Err(refusal) => {
                self.refuse_body(py, refusal);
                return None;
            }
        };
        self.body_left.set(if let Framing::Length(length) = framing { Some(length) } else { None });
        self.feed(py, rest, None)
    }

    /// Calls the application and runs what it gives.
    #[inline]
    fn run(
        &self,
        py: Python<'_>,
        scope: &Bound<'_, PyDict>,
        handles: &crate::asgi::exchange::Handles,
    ) -> PyResult<()> {
        if self.shared.observed {
            handles.exchange.get().observe(py)?;
        }
        let arguments = [scope.as_ptr(), handles.receive.as_ptr(), handles.send.as_ptr()];
        // SAFETY: three live arguments; the result is a new reference or an error is set.
        let coroutine = unsafe {
            let result = ffi::PyObject_Vectorcall(
                self.shared.app.as_ptr(),
                arguments.as_ptr(),
                3,
                std::ptr::null_mut(),
            );
            Bound::from_owned_ptr_or_err(py, result)
        }?;
        // SAFETY: only looks at the type.
        let plain = unsafe { ffi::PyCoro_CheckExact(coroutine.as_ptr()) } != 0;
        let coroutine = if plain { coroutine } else { coroutine.call_method0(intern!(py, "__await__"))? };
        steps::start(py, &self.shared, coroutine, &handles.exchange)
    }

    /// Takes what belongs to the body out of `bytes`, and says how many that were; None if the body was refused.
    fn feed(
        self: &Rc<Self>,
        py: Python<'_>,
        bytes: &[u8],
        whole: Option<&Bound<'_, PyBytes>>,
    ) -> Option<usize> {
        let mut at = 0;
        let mut data: Vec<&[u8]> = Vec::new();
        let ended = {
            let mut decoder = self.decoder.borrow_mut();
            let decoder = decoder.as_mut()?;
            loop {
                match decoder.step(&bytes[at..]) {
                    Ok(BodyStep::Data { start, end }) => {
                        data.push(&bytes[at + start..at + end]);
                        at += end;
                    }
                    Ok(BodyStep::NeedData { consumed }) => {
                        at += consumed;
                        break Ok(false);
                    }
                    Ok(BodyStep::End { consumed }) => {
                        at += consumed;
                        break Ok(true);
                    }
                    Err(refusal) => break Err(refusal),
                }
            }
        };
        self.take_in(py, &data, whole);
        match ended {
            Ok(false) => self.await_body(),
            Ok(true) => self.body_ended(py),
            Err(refusal) => {
                self.refuse_body(py, refusal);
                return None;
            }
        }
        Some(at)
    }

    fn take_in(&self, py: Python<'_>, data: &[&[u8]], whole: Option<&Bound<'_, PyBytes>>) {
        let length: usize = data.iter().map(|piece| piece.len()).sum();
        if length == 0 {
            return;
        }
        self.continue_due.set(false);
        self.body_left.set(self.body_left.get().map(|left| left.saturating_sub(length as u64)));
        let Some(exchange) = self.exchange(py) else { return };
        let incoming = exchange.get().incoming(py);
        match (whole, data) {
            // All that was read is data: the application gets the object that it was read into.
            (Some(whole), [piece]) if piece.len() == whole.as_bytes().len() => incoming.push(whole),
            (_, [piece]) => incoming.push(&PyBytes::new(py, piece)),
            _ => incoming.push(&PyBytes::new(py, &data.concat())),
        }
        exchange.get().deliver(py);
        if incoming.waiting() > self.shared.read_ahead {
            self.pause_reading(py);
            self.deadline_ms.set(NEVER);
        }
    }

    /// A silent client has so long to go on with its body.
    fn await_body(&self) {
        if self.decoder.borrow().is_some() && !self.reading_paused.get() && !self.out.paused.get() {
            self.patience(self.shared.timeouts.body_ms);
        }
    }

    fn body_ended(self: &Rc<Self>, py: Python<'_>) {
        self.decoder.take();
        self.deadline_ms.set(NEVER);
        match self.exchange(py) {
            Some(exchange) => {
                exchange.get().incoming(py).end();
                exchange.get().deliver(py);
            }
            // The rest of a body that nobody wanted: the next request may come.
            None => self.idle(py),
        }
    }

    /// The application has taken what had come.
    #[inline]
    pub fn body_taken(&self, py: Python<'_>, incoming: &Incoming) {
        if self.reading_paused.get()
            && incoming.waiting() == 0
            && self.input.borrow().len() <= self.shared.read_ahead
        {
            self.resume_reading(py);
            self.await_body();
        }
    }

    /// The application waits for the body: a client that waits too is told to go on (RFC 9110, 10.1.1).
    pub fn want_body(&self, py: Python<'_>) {
        if self.continue_due.replace(false) && self.decoder.borrow().is_some() {
            self.out.write(py, &[b"HTTP/1.1 100 Continue\r\n\r\n"]);
        }
    }

    /// Whether a response that begins now may promise that the connection goes on.
    pub fn may_go_on(&self, _incoming: &Incoming) -> bool {
        // The rest of a body that the application does not want has to be read before the next request. A short
        // one is; instead of a long one, or one that still waits for its 100, the connection ends.
        let readable = self.decoder.borrow().is_none()
            || (!self.continue_due.get()
                && self.body_left.get().is_some_and(|left| left <= self.shared.read_ahead as u64));
        readable && !self.eof.get() && self.shared.may_go_on()
    }

    // -- answers and ends ----------------------------------------------------------------------

    /// A response has left.
    #[inline]
    pub fn answered(self: &Rc<Self>, py: Python<'_>, keep_alive: bool) {
        self.exchange.take();
        self.shared.row().sent(self.out.take_sent() as usize);
        if self.phase.get() == Phase::Lost {
            return self.forget(py);
        }
        if !keep_alive || self.eof.get() {
            self.phase.set(Phase::Ending);
            if !self.driving.get() {
                let unread = !self.input.borrow().is_empty();
                self.end(py, unread);
            }
        } else if self.decoder.borrow().is_some() {
            self.resume_reading(py);
            self.await_body();
        } else {
            self.idle(py);
        }
    }

    /// Ready for the next request.
    #[inline]
    fn idle(self: &Rc<Self>, py: Python<'_>) {
        self.phase.set(Phase::Idle);
        self.freed_ns.set(self.shared.now_ns.get());
        self.patience(self.shared.idle_ms());
        if self.reading_paused.get() && self.input.borrow().len() <= self.shared.read_ahead {
            self.resume_reading(py);
        }
        if !self.driving.get() && !self.input.borrow().is_empty() {
            self.resume_soon(py);
        }
    }

    /// Breaks the connection off in the middle of an answer. Where its end is the end of the body, a plain
    /// close would look like all of it: the client gets a reset.
    pub fn break_off(self: &Rc<Self>, py: Python<'_>, reset: bool) {
        self.exchange.take();
        self.shared.row().sent(self.out.take_sent() as usize);
        if self.phase.get() == Phase::Lost {
            return self.forget(py);
        }
        self.phase.set(Phase::Closing);
        self.patience(self.shared.timeouts.write_ms);
        if reset {
            self.out.reset_on_close();
            self.out.tell(py, "abort");
        } else {
            self.out.tell(py, "close");
        }
    }

    /// Closes after the last answer.
    fn end(self: &Rc<Self>, py: Python<'_>, unread: bool) {
        self.input.take();
        if !self.eof.get() && (unread || self.decoder.take().is_some() || self.out.has_unread()) {
            return self.linger(py);
        }
        self.phase.set(Phase::Closing);
        self.patience(self.shared.timeouts.write_ms);
        self.out.tell(py, "close");
    }

    /// Closes our side, and leaves the peer time to read: a close with unread input behind it would reset the
    /// connection and take the answer with it (RFC 9112, 9.6).
    fn linger(self: &Rc<Self>, py: Python<'_>) {
        self.input.take();
        self.decoder.take();
        self.phase.set(Phase::Lingering);
        self.patience(self.shared.linger_ms());
        self.out.tell(py, "write_eof");
        self.resume_reading(py);
        self.reading_paused.set(false);
    }

    /// Answers a request that broke a rule, and ends the connection.
    fn refuse(self: &Rc<Self>, py: Python<'_>, refusal: Refusal) {
        self.shared.row().request_refused(refusal.status);
        self.tell_refusal(py, refusal);
    }

    fn tell_refusal(self: &Rc<Self>, py: Python<'_>, refusal: Refusal) {
        self.send_error(py, refusal.status, !refusal.to_head);
        self.shared.report(
            py,
            "request_refused",
            (&self.peer.client().remote_addr, refusal.status, refusal.to_string()),
        );
        self.linger(py);
    }

    /// The body broke a rule. If the application has said nothing yet, the client learns which.
    fn refuse_body(self: &Rc<Self>, py: Python<'_>, refusal: Refusal) {
        self.decoder.take();
        let Some(exchange) = self.exchange.take() else { return self.linger(py) };
        let unanswered = exchange.get().is_unanswered(py);
        exchange.get().supersede(py, refusal.status);
        if unanswered {
            self.tell_refusal(py, refusal);
        } else {
            self.break_off(py, false);
        }
    }

    /// Sends an answer of the server's own that ends the connection.
    pub fn send_error(&self, py: Python<'_>, status: u16, with_body: bool) {
        let mut answer = Vec::new();
        push_refusal(
            &mut answer,
            status,
            &self.shared.server,
            self.shared.date.borrow_mut().now(),
            with_body,
        );
        self.out.write(py, &[&answer]);
    }

    fn forget(&self, py: Python<'_>) {
        self.exchange.take();
        self.deadline_ms.set(NEVER);
        let key = self.key.replace(usize::MAX);
        if key != usize::MAX {
            self.shared.connections.borrow_mut().remove(key);
            self.shared.check_drained(py);
        }
    }

    // -- time ----------------------------------------------------------------------------------

    /// Whether its deadline has passed.
    #[inline]
    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.deadline_ms.get()
    }

    /// Its deadline has passed.
    pub fn expire(self: &Rc<Self>, py: Python<'_>) {
        self.deadline_ms.set(NEVER);
        match self.phase.get() {
            Phase::Idle if !self.out.paused.get() => self.close_idle(py),
            Phase::Head => self.refuse(py, RefusalKind::HeadTimeout.into()),
            _ if self.out.paused.get() && !matches!(self.phase.get(), Phase::Lost) => self.expire_writing(py),
            Phase::Busy if self.decoder.borrow().is_some() && !self.eof.get() => {
                self.refuse_body(py, RefusalKind::BodyTimeout.into());
            }
            Phase::Busy if self.eof.get() => self.give_up(py),
            Phase::Lost => {
                if let Some(exchange) = self.exchange(py) {
                    exchange.get().cancel(py);
                }
            }
            Phase::Upgraded => self.on_websocket(py, |websocket| websocket.tick(py)),
            Phase::Busy | Phase::Ending => {}
            Phase::Idle | Phase::Lingering | Phase::Closing => self.out.tell(py, "abort"),
        }
    }

    /// The client has closed its side and the application took too long about it.
    fn give_up(&self, py: Python<'_>) {
        if let Some(exchange) = self.exchange(py) {
            exchange.get().cancel(py);
        }
        self.out.tell(py, "close");
    }

    fn expire_writing(&self, py: Python<'_>) {
        let unsent = self.buffered(py);
        if unsent < self.unsent.replace(unsent) {
            self.patience(self.shared.timeouts.write_ms);
        } else {
            self.out.tell(py, "abort");
        }
    }

    /// Whether it has had an answer, and nothing of another request has come.
    pub fn is_idle(&self) -> bool {
        self.phase.get() == Phase::Idle && self.freed_ns.get() != 0 && self.input.borrow().is_empty()
    }

    /// Closes it between two requests.
    pub fn close_idle(&self, py: Python<'_>) {
        self.phase.set(Phase::Closing);
        self.patience(self.shared.timeouts.write_ms);
        self.out.tell(py, "close");
    }

    /// The worker finishes: what is idle ends soon, what is busy after its answer.
    pub fn drain(&self) {
        match self.phase.get() {
            Phase::Idle => self.patience(self.shared.idle_ms()),
            Phase::Lingering => self.patience(self.shared.linger_ms()),
            _ => {}
        }
    }
}

/// The protocol of one connection.
#[pyclass(frozen, module = "bicorn._core")]
pub struct AsgiProtocol {
    conn: Guarded<RefCell<Option<Rc<Conn>>>>,
    shared: Guarded<Rc<Shared>>,
}

impl AsgiProtocol {
    /// A protocol without a transport yet.
    pub fn new(shared: &Rc<Shared>) -> Self {
        Self { conn: Guarded::new(RefCell::new(None)), shared: Guarded::new(Rc::clone(shared)) }
    }

    #[inline]
    fn conn(&self, py: Python<'_>) -> Option<Rc<Conn>> {
        self.conn.get(py).borrow().clone()
    }
}

#[pymethods]
impl AsgiProtocol {
    fn connection_made(slf: &Bound<'_, Self>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let shared = slf.get().shared.get(py);
        let conn = Conn::new(shared, shared.peer(transport)?);
        slf.get().conn.get(py).replace(Some(Rc::clone(&conn)));
        conn.made(py, transport, slf.getattr(intern!(py, "resume"))?.unbind())
    }

    fn data_received(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) {
        if let Some(conn) = self.conn(py) {
            conn.received(py, data);
        }
    }

    fn eof_received(&self, py: Python<'_>) -> bool {
        self.conn(py).is_some_and(|conn| conn.eof_received(py))
    }

    fn connection_lost(&self, py: Python<'_>, error: Option<Py<PyAny>>) {
        drop(error); // Whatever broke the connection, what follows is the same.
        if let Some(conn) = self.conn.get(py).take() {
            conn.lost(py);
        }
    }

    fn pause_writing(&self, py: Python<'_>) {
        if let Some(conn) = self.conn(py) {
            conn.writing_paused(py);
        }
    }

    fn resume_writing(&self, py: Python<'_>) {
        if let Some(conn) = self.conn(py) {
            conn.writing_resumed(py);
        }
    }

    /// Goes on with requests that were read already.
    fn resume(&self, py: Python<'_>) {
        if let Some(conn) = self.conn(py) {
            conn.resumed(py);
        }
    }
}
