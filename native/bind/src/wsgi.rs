//! A WSGI application as the loop's `Application`.
//!
//! Owns       the call of PEP 3333: environ in, `start_response`, iterable out, `close()` always.
//! Never      touches a socket, except through an exchange while the application runs.
//! Invariant  every exchange that entered the application leaves through `leave` exactly once: that
//!            is where its log line is written, its counters are kept and its iterable has been closed.

use std::cell::{Cell, RefCell};
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use bicorn_reactor::clock::HttpDate;
use bicorn_reactor::scoreboard::Slot as Row;
use bicorn_reactor::{Application, Clock, Incident, Outbox, Outcome, Pull, Request, RequestBody, Turn};
use bicorn_wire::Refusal;
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use rustix::net::SocketAddrAny;

use crate::access::{AccessLog, Finished};
use crate::body::{Step, send_all, send_file, sendable_file, step};
use crate::chunk::Chunk;
use crate::environ::{EnvironError, Environs};
use crate::exchange::{Exchange, Handles, WriteRules};
use crate::file_wrapper::FileWrapper;
use crate::input::Inputs;
use crate::peer::Peer;
use crate::response::End;
use crate::scoreboard::Slot;

/// Handles kept for the next requests; one is in use at a time unless readers are slow.
const SPARE_HANDLES_MAX: usize = 16;

/// What the loop needs to know about one WSGI application.
pub struct WsgiSetup {
    /// The application.
    pub app: Py<PyAny>,
    /// The worker, or whoever speaks for it: `workers/sync.py` says what is called on it.
    pub worker: Py<PyAny>,
    /// The worker's row.
    pub slot: Slot,
    /// Makes environs.
    pub environs: Environs,
    /// The native access log, if records go nowhere else.
    pub access: Option<Py<AccessLog>>,
    /// Hooks or a Python access log want to see each request.
    pub observed: bool,
    /// Requests to serve before the worker is replaced.
    pub max_requests: u64,
    /// Files may be sent by the kernel.
    pub sendfile: bool,
    /// The value of the Server field.
    pub server: Vec<u8>,
    /// Bounds of `write()`.
    pub write_rules: WriteRules,
    /// What `drain()` and `stop()` have ordered.
    pub orders: Rc<Cell<Turn>>,
}

/// A WSGI application, being served.
pub struct Wsgi {
    setup: WsgiSetup,
    inputs: Inputs,
    spare: Vec<Handles>,
    date: HttpDate,
    served: u64,
    recycling: bool,
    /// What ends the worker: the application or a signal handler raised something that is no `Exception`.
    pub fatal: RefCell<Option<PyErr>>,
}

/// An exchange inside the application.
pub struct Open {
    handles: Handles,
    environ: Py<PyDict>,
    observer: Option<Py<PyAny>>,
    started_ns: u64,
}

/// An answer that is being pulled.
pub struct Stream {
    open: Open,
    iterator: Py<PyAny>,
    result: Py<PyAny>,
    /// Method and target, to name it by if it hangs.
    name: (Vec<u8>, Vec<u8>),
}

impl Wsgi {
    /// Prepares to serve.
    pub fn new(py: Python<'_>, setup: WsgiSetup) -> PyResult<Self> {
        Ok(Self {
            inputs: Inputs::new(py)?,
            setup,
            spare: Vec::new(),
            date: HttpDate::default(),
            served: 0,
            recycling: false,
            fatal: RefCell::new(None),
        })
    }

    fn py(&self) -> Python<'static> {
        // SAFETY: the loop runs on a thread that holds the interpreter lock, except inside `wait`.
        unsafe { Python::assume_attached() }
    }

    #[inline]
    fn handles(&mut self, py: Python<'_>) -> PyResult<Handles> {
        match self.spare.pop() {
            Some(handles) => Ok(handles),
            None => Handles::new(py, &self.setup.server, self.setup.write_rules),
        }
    }

    /// Prepares the exchange: terms, environ, input, observers.
    #[inline]
    fn open(
        &mut self,
        py: Python<'static>,
        request: &mut Request<'_, Peer>,
        clock: &Clock,
    ) -> Result<Open, EnvironError> {
        let environ = self.setup.environs.build(py, request)?;
        let body = std::mem::replace(&mut request.body, RequestBody::Empty);
        if let Some(input) = self.inputs.input(py, body)? {
            environ.set_item(intern!(py, "wsgi.input"), input)?;
        }
        let handles = self.handles(py)?;
        {
            let mut exchange = handles.exchange.bind(py).borrow_mut();
            exchange.response.reset();
            let terms = &mut exchange.response.terms;
            terms.method.clear();
            terms.method.extend_from_slice(request.head.method.of(request.bytes));
            if self.setup.environs.casefold_method {
                terms.method.make_ascii_uppercase(); // What the application is told decides the framing too.
            }
            terms.version = request.head.version;
            terms.keep_alive = request.may_keep_alive && request.head.keep_alive && !self.is_last();
        }
        environ.set_item(intern!(py, "wsgi.early_hints"), &handles.early_hints)?;
        Ok(Open { handles, environ: environ.unbind(), observer: None, started_ns: clock.now_ns() })
    }

    fn is_last(&self) -> bool {
        self.recycling || self.served + 1 >= self.setup.max_requests
    }

    /// Calls the application and takes what it gives at once.
    #[inline]
    fn run(&mut self, py: Python<'static>, open: &mut Open) -> PyResult<Outcome<(Py<PyAny>, Py<PyAny>)>> {
        if self.setup.observed {
            let observer =
                self.setup.worker.bind(py).call_method1(intern!(py, "request_entered"), (&open.environ,))?;
            open.observer = Some(observer.unbind());
        }
        let arguments = [open.environ.as_ptr(), open.handles.start_response.as_ptr()];
        // SAFETY: two live arguments; the result is a new reference or an error is set.
        let result = unsafe {
            let result = ffi::PyObject_Vectorcall(
                self.setup.app.as_ptr(),
                arguments.as_ptr(),
                2,
                std::ptr::null_mut(),
            );
            Bound::from_owned_ptr_or_err(py, result)
        }?;
        if result.is_exact_instance_of::<PyList>() || result.is_exact_instance_of::<PyTuple>() {
            return send_all(open.exchange(py), &result).map(|end| self.ended(py, open, end));
        }
        match self.send_iterable(py, open, &result) {
            Ok(None) => {
                let iterator = result.try_iter().inspect_err(|_| self.close(py, &result))?;
                match step(open.exchange(py), &iterator) {
                    Ok(Step::More) => Ok(Outcome::Stream((iterator.into_any().unbind(), result.unbind()))),
                    Ok(Step::End(end)) => {
                        self.close(py, &result);
                        Ok(self.ended(py, open, end))
                    }
                    Err(error) => {
                        self.close(py, &result);
                        Err(error)
                    }
                }
            }
            Ok(Some(end)) => {
                self.close(py, &result);
                Ok(self.ended(py, open, end))
            }
            Err(error) => {
                self.close(py, &result);
                Err(error)
            }
        }
    }

    /// Sends what needs no iteration: a wrapped file that the kernel can send.
    fn send_iterable(&self, py: Python<'_>, open: &Open, result: &Bound<'_, PyAny>) -> PyResult<Option<End>> {
        match result.cast_exact::<FileWrapper>() {
            Ok(wrapper) if self.setup.sendfile => {
                let file = sendable_file(wrapper.borrow().filelike.bind(py))?;
                file.map(|(file, offset, len)| send_file(open.exchange(py), file, offset, len)).transpose()
            }
            _ => Ok(None),
        }
    }

    fn ended<S>(&self, py: Python<'_>, open: &Open, end: End) -> Outcome<S> {
        match end {
            End::Whole { keep_alive } => Outcome::Done { keep_alive },
            End::Short => {
                let exchange = open.exchange(py).borrow();
                self.report(
                    py,
                    "response_short",
                    (&open.environ, exchange.response.promised(), exchange.response.body_bytes),
                );
                Outcome::Aborted
            }
        }
    }

    /// The iterable's `close()`, if it has one.
    fn close(&mut self, py: Python<'_>, result: &Bound<'_, PyAny>) {
        let closed = match result.getattr_opt(intern!(py, "close")) {
            Ok(Some(close)) => close.call0().map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = closed {
            self.report(py, "close_failed", (exception(py, &error),));
            self.keep_if_fatal(py, error);
        }
    }

    /// Tells the worker. Its methods only log, so an error of theirs has nowhere better to go than stderr;
    /// but a signal handler may have run in one of them, and what it raised ends the worker.
    fn report<'py>(&self, py: Python<'py>, method: &str, arguments: impl pyo3::call::PyCallArgs<'py>) {
        let worker = self.setup.worker.bind(py);
        if let Err(error) = worker.call_method1(method, arguments) {
            if error.is_instance_of::<PyException>(py) {
                error.write_unraisable(py, Some(worker));
            } else {
                self.fatal.replace(Some(error));
            }
        }
    }

    fn keep_if_fatal(&self, py: Python<'_>, error: PyErr) {
        if !error.is_instance_of::<PyException>(py) {
            self.fatal.replace(Some(error));
        }
    }

    /// The application raised: 500 if nothing has been sent, otherwise the answer breaks off.
    fn failed<S>(&mut self, py: Python<'_>, open: &Open, error: PyErr) -> Outcome<S> {
        let head_sent = open.exchange(py).borrow().response.head_sent;
        self.report(py, "application_failed", (exception(py, &error), &open.environ, head_sent));
        self.keep_if_fatal(py, error);
        let mut exchange = open.exchange(py).borrow_mut();
        match exchange.parts() {
            Ok((response, outbox)) if !head_sent => {
                response.fail();
                let terms = &response.terms;
                push_error(outbox, 500, &self.setup.server, self.date.now(), terms.method != b"HEAD");
                Outcome::Done { keep_alive: false }
            }
            _ => Outcome::Aborted,
        }
    }

    /// The exchange is over, however it ended.
    #[inline]
    fn leave(&mut self, py: Python<'_>, open: Open, clock: &mut Clock) {
        let now_ns = clock.read();
        self.served += 1;
        let mut exchange = open.exchange(py).borrow_mut();
        exchange.leave();
        let status = exchange.response.status;
        self.setup.slot.row().sent(exchange.take_sent_early());
        self.setup.slot.row().request_left(open.started_ns, now_ns, status);
        if exchange.response.dropped {
            self.report(py, "response_long", (&open.environ, exchange.response.promised()));
        }
        let elapsed_ns = now_ns.saturating_sub(open.started_ns);
        if let Some(access) = &self.setup.access {
            let finished =
                Finished { environ: open.environ.bind(py), response: &exchange.response, elapsed_ns, now_ns };
            if let Err(error) = access.bind(py).borrow().add(py, &finished) {
                error.write_unraisable(py, None);
            }
        }
        drop(exchange);
        if let Some(observer) = &open.observer {
            self.tell_observer(py, &open, observer, elapsed_ns);
        }
        if !self.recycling && self.served >= self.setup.max_requests {
            self.recycling = true;
            self.report(py, "recycle", ());
        }
        let Open { handles, environ, .. } = open;
        drop(environ);
        if self.spare.len() < SPARE_HANDLES_MAX && handles.are_free() {
            self.spare.push(handles);
        }
    }

    #[cold]
    fn tell_observer(&self, py: Python<'_>, open: &Open, observer: &Py<PyAny>, elapsed_ns: u64) {
        let (status, fields, body_bytes) = {
            let response = &open.exchange(py).borrow().response;
            let latin1 = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
            let fields: Vec<(String, String)> =
                response.head.fields().iter().map(|(name, value)| (latin1(name), latin1(value))).collect();
            let status = if response.head.status_text().is_empty() {
                format!("{} {}", response.status, bicorn_wire::reason_phrase(response.status))
            } else {
                latin1(response.head.status_text())
            };
            (status, fields, response.body_bytes)
        };
        let elapsed_us = elapsed_ns / 1_000;
        self.report(py, "request_left", (observer, &open.environ, status, fields, body_bytes, elapsed_us));
    }

    /// Answers a request for which no environ could be made.
    fn unopened<S>(
        &mut self,
        py: Python<'_>,
        request: &Request<'_, Peer>,
        why: EnvironError,
        outbox: &mut Outbox<Chunk>,
        clock: &mut Clock,
    ) -> Outcome<S> {
        let started_ns = clock.now_ns();
        match why {
            EnvironError::Refused(refusal) => {
                self.setup.slot.row().request_withdrawn();
                return Outcome::Refused(refusal);
            }
            EnvironError::Misplaced(text) => self.report(py, "request_misplaced", (text,)),
            EnvironError::Python(error) => {
                self.report(py, "application_failed", (exception(py, &error), py.None(), false));
            }
        }
        let with_body = request.head.method.of(request.bytes) != b"HEAD";
        push_error(outbox, 500, &self.setup.server, self.date.now(), with_body);
        self.setup.slot.row().request_left(started_ns, clock.read(), 500);
        Outcome::Done { keep_alive: false }
    }
}

impl Open {
    fn exchange<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, Exchange> {
        self.handles.exchange.bind(py)
    }
}

/// The exception object with its traceback attached, as `logging` wants it; before Python 3.12 the two
/// travel apart.
fn exception<'py>(py: Python<'py>, error: &PyErr) -> Bound<'py, PyAny> {
    let value = error.value(py).clone().into_any();
    if let Some(traceback) = error.traceback(py) {
        let _ = value.setattr(intern!(py, "__traceback__"), traceback);
    }
    value
}

fn push_error(outbox: &mut Outbox<Chunk>, status: u16, server: &[u8], date: &[u8], with_body: bool) {
    outbox.push_with(|out| bicorn_wire::push_refusal(out, status, server, date, with_body));
}

impl Application for Wsgi {
    type Chunk = Chunk;
    type Stream = Stream;
    type Peer = Peer;

    #[inline]
    fn slot(&self) -> &Row {
        self.setup.slot.row()
    }

    fn peer(&mut self, listener: usize, address: Option<SocketAddrAny>) -> Peer {
        Peer::new(self.py(), listener, address, |address| self.setup.environs.trusts(address))
    }

    #[inline]
    fn call(
        &mut self,
        mut request: Request<'_, Peer>,
        outbox: &mut Outbox<Chunk>,
        clock: &mut Clock,
    ) -> Outcome<Stream> {
        let py = self.py();
        let (method, target) = (request.head.method.of(request.bytes), request.head.target.of(request.bytes));
        self.slot().request_entered(clock.now_ns(), method, target);
        let mut open = match self.open(py, &mut request, clock) {
            Ok(open) => open,
            Err(why) => return self.unopened(py, &request, why, outbox, clock),
        };
        open.exchange(py).borrow_mut().enter(outbox, request.socket);
        let outcome = match self.run(py, &mut open) {
            Ok(outcome) => outcome,
            Err(error) => self.failed(py, &open, error),
        };
        match outcome {
            Outcome::Stream((iterator, result)) => {
                open.exchange(py).borrow_mut().leave();
                self.slot().request_paused();
                let name = (method.to_vec(), target.to_vec());
                Outcome::Stream(Stream { open, iterator, result, name })
            }
            Outcome::Done { keep_alive } => {
                self.leave(py, open, clock);
                Outcome::Done { keep_alive }
            }
            Outcome::Aborted | Outcome::Refused(_) => {
                self.leave(py, open, clock);
                Outcome::Aborted
            }
        }
    }

    fn pull(
        &mut self,
        stream: &mut Option<Stream>,
        socket: BorrowedFd<'_>,
        outbox: &mut Outbox<Chunk>,
        clock: &mut Clock,
    ) -> Pull {
        let py = self.py();
        let Some(pulled) = stream else { return Pull::Aborted };
        self.slot().request_resumed(clock.read(), &pulled.name.0, &pulled.name.1);
        pulled.open.exchange(py).borrow_mut().enter(outbox, socket);
        let result = step(pulled.open.exchange(py), pulled.iterator.bind(py));
        if let Ok(Step::More) = result {
            pulled.open.exchange(py).borrow_mut().leave();
            self.slot().request_paused();
            return Pull::More;
        }
        let Stream { open, result: iterable, iterator, .. } = stream.take().expect("looked at above");
        drop(iterator);
        let outcome: Outcome<()> = match result {
            Ok(Step::End(end)) => self.ended(py, &open, end),
            Ok(Step::More) => unreachable!("returned above"),
            Err(error) => self.failed(py, &open, error),
        };
        self.close(py, iterable.bind(py));
        self.leave(py, open, clock);
        match outcome {
            Outcome::Done { keep_alive } => Pull::Done { keep_alive },
            _ => Pull::Aborted,
        }
    }

    fn abandon(&mut self, stream: Stream, clock: &mut Clock) {
        let py = self.py();
        self.close(py, stream.result.bind(py));
        self.leave(py, stream.open, clock);
    }

    fn refuse(&mut self, refusal: &Refusal, peer: &mut Peer, outbox: &mut Outbox<Chunk>) {
        push_error(outbox, refusal.status, &self.setup.server, self.date.now(), true);
        self.report(self.py(), "request_refused", (&peer.remote_addr, refusal.status, refusal.to_string()));
    }

    fn incident(&mut self, incident: Incident) {
        let py = self.py();
        match incident {
            Incident::Accept(errno) => {
                self.report(py, "accept_failed", (std::io::Error::from(errno).to_string(),));
            }
            Incident::Spool(error) => self.report(py, "spool_failed", (error.to_string(),)),
        }
    }

    fn wait<R>(&mut self, block: impl FnOnce() -> R) -> R {
        /// Carries the closure over the Send bound of `detach`, which stands for "uses no Python".
        struct NoPython<T>(T);
        // SAFETY: the wait of the loop touches file descriptors and plain memory only, and stays on
        // this thread.
        unsafe impl<T> Send for NoPython<T> {}
        impl<R, F: FnOnce() -> R> NoPython<F> {
            fn call(self) -> NoPython<R> {
                NoPython((self.0)())
            }
        }
        let block = NoPython(block);
        self.py().detach(move || block.call()).0
    }

    #[inline]
    fn turn(&mut self) -> Turn {
        if let Err(error) = self.py().check_signals() {
            self.fatal.replace(Some(error));
            return Turn::Stop;
        }
        match self.setup.orders.get() {
            // What the application raised ends the worker, but not the requests of others.
            Turn::Continue if self.fatal.borrow().is_some() => Turn::Retire,
            order => order,
        }
    }
}
