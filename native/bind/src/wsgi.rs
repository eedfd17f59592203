//! A WSGI application, called with jobs.
//!
//! Owns       the call of PEP 3333: environ in, `start_response`, iterable out, `close()` always.
//! Never      touches a socket, except through an exchange while the application runs.
//! Invariant  every exchange that entered the application leaves through `leave` exactly once: that
//!            is where its log line is written, its counters are kept and its iterable has been closed.
//!            Nothing is locked or borrowed while the application runs: any thread or greenlet of the
//!            worker may be in here too.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bicorn_reactor::clock::{HttpDate, monotonic_ns};
use bicorn_reactor::scoreboard::Slot as Row;
use bicorn_reactor::{Handler, Job, Left, Order, Orders, Outbox, Outcome, Task};
use pyo3::exceptions::{PyKeyboardInterrupt, PyStopIteration, PySystemExit};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::access::{AccessLog, Finished};
use crate::body::{Step, send_all, send_file, sendable_file, step};
use crate::chunk::Chunk;
use crate::context::Context;
use crate::environ::{EnvironError, EnvironRules, Environs};
use crate::exchange::{Exchange, Handles, WriteRules};
use crate::file_wrapper::FileWrapper;
use crate::front::Front;
use crate::input::Inputs;
use crate::lineage::Birthplace;
use crate::response::End;
use crate::scoreboard::Slot;
use crate::stock::Stock;

/// What is to be known about one WSGI application.
pub struct WsgiSetup {
    /// The application.
    pub app: Py<PyAny>,
    /// The worker, or whoever speaks for it: `workers/gateway.py` says what is called on it.
    pub worker: Py<PyAny>,
    /// The worker's row.
    pub slot: Slot,
    /// What the state in a row is while its worker serves and is not on its way out.
    pub ready_state: u64,
    /// How environs are made.
    pub environ_rules: Arc<EnvironRules>,
    /// The native access log, if records go nowhere else.
    pub access: Option<Py<AccessLog>>,
    /// Hooks or a Python access log want to see each request.
    pub observed: bool,
    /// Files may be sent by the kernel.
    pub sendfile: bool,
    /// The value of the Server field.
    pub server: Vec<u8>,
    /// Bounds of `write()`.
    pub write_rules: Arc<WriteRules>,
    /// What the loop is told.
    pub orders: Arc<Orders>,
    /// Requests after which garbage is collected; 0 leaves that to the interpreter.
    pub requests_between_collections: u64,
}

/// A WSGI application, being served.
pub struct Wsgi {
    setup: WsgiSetup,
    inputs: Inputs,
    environs: Stock<Environs>,
    handles: Stock<Handles>,
    /// What ends the worker: the application or a signal handler raised something that is no `Exception`.
    fatal: Mutex<Option<PyErr>>,
    /// The request that runs has taken too long, and is being broken off.
    aborting: AtomicBool,
    /// Requests answered since garbage was collected.
    uncollected: AtomicU64,
    birthplace: Birthplace,
}

/// An exchange inside the application.
pub struct Open {
    handles: Handles,
    environ: Py<PyDict>,
    context: Context,
    observer: Option<Py<PyAny>>,
    entered_ns: u64,
}

/// An answer that is being pulled.
pub struct Stream {
    open: Open,
    iterator: Py<PyAny>,
    result: Py<PyAny>,
    /// Method and target, to name it by if it hangs.
    name: (Vec<u8>, Vec<u8>),
}

/// What the application gave, before it has been pulled to its end.
enum Given {
    /// The answer is complete, or broken.
    All(Outcome),
    /// An iterator with more, and what it was made from.
    Part(Py<PyAny>, Py<PyAny>),
}

impl Wsgi {
    /// Prepares to serve.
    pub fn new(py: Python<'_>, setup: WsgiSetup) -> PyResult<Self> {
        Ok(Self {
            inputs: Inputs::new(py)?,
            setup,
            environs: Stock::default(),
            handles: Stock::default(),
            fatal: Mutex::new(None),
            aborting: AtomicBool::new(false),
            uncollected: AtomicU64::new(0),
            birthplace: Birthplace::here(),
        })
    }

    /// The worker's row of the scoreboard.
    #[inline]
    pub fn slot(&self) -> &Row {
        self.setup.slot.row()
    }

    /// The same, to keep.
    pub fn shared_slot(&self) -> Slot {
        self.setup.slot.clone()
    }

    /// The rows of the workers that connections can be handed over to.
    pub fn siblings(&self) -> impl Iterator<Item = &Row> {
        self.setup.slot.siblings(self.setup.ready_state)
    }

    /// See `Slot::share`.
    pub fn share(&self) -> (usize, usize) {
        self.setup.slot.share(self.setup.ready_state)
    }

    /// The value of the Server field.
    pub fn server(&self) -> &[u8] {
        &self.setup.server
    }

    /// Whether a peer may speak for others.
    pub fn trusts(&self, address: Option<IpAddr>) -> bool {
        self.setup.environ_rules.trust.trusts(address)
    }

    /// What has ended the worker, if anything has.
    pub fn fatal(&self) -> MutexGuard<'_, Option<PyErr>> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn py(&self) -> Python<'static> {
        // SAFETY: jobs are run by threads that hold the interpreter lock.
        unsafe { Python::assume_attached() }
    }

    /// Prepares the exchange: terms, environ, input.
    #[inline]
    fn open(&self, py: Python<'static>, job: &mut Job<Front>) -> Result<Open, EnvironError> {
        let entered_ns = monotonic_ns();
        let mut environs = match self.environs.take() {
            Some(environs) => environs,
            None => Environs::new(py, Arc::clone(&self.setup.environ_rules)),
        };
        let environ = environs.build(py, job);
        self.environs.put(environs);
        let environ = environ?;
        if let Some(input) = self.inputs.input(py, std::mem::take(&mut job.request.body))? {
            environ.set_item(intern!(py, "wsgi.input"), input)?;
        }
        let handles = match self.handles.take() {
            Some(handles) => handles,
            None => Handles::new(py, &self.setup.server, &self.setup.write_rules)?,
        };
        {
            let mut exchange = handles.exchange.bind(py).borrow_mut();
            exchange.response.reset();
            let (terms, request) = (&mut exchange.response.terms, &job.request);
            terms.method.clear();
            terms.method.extend_from_slice(request.head.method.of(&request.bytes));
            if self.setup.environ_rules.casefold_method {
                terms.method.make_ascii_uppercase(); // What the application is told decides the framing too.
            }
            terms.version = request.head.version;
            terms.keep_alive = request.may_keep_alive && request.head.keep_alive;
        }
        environ.set_item(intern!(py, "wsgi.early_hints"), &handles.early_hints)?;
        environ.set_item(intern!(py, "gunicorn.socket"), &handles.socket)?;
        let context = Context::copy(py)?;
        Ok(Open { handles, environ: environ.unbind(), context, observer: None, entered_ns })
    }

    /// Calls the application and takes what it gives at once.
    #[inline]
    fn run(&self, py: Python<'static>, open: &mut Open) -> PyResult<Given> {
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
        if self.setup.orders.current() != Order::Serve {
            // The worker was told to go while the application ran: this is the connection's last answer.
            open.exchange(py).borrow_mut().response.terms.keep_alive = false;
        }
        if result.is_exact_instance_of::<PyList>() || result.is_exact_instance_of::<PyTuple>() {
            return send_all(open.exchange(py), &result).map(|end| Given::All(self.ended(py, open, end)));
        }
        let given = self.begin(py, open, &result);
        if !matches!(given, Ok(Given::Part(..))) {
            self.close(py, &result);
        }
        given
    }

    /// Takes what an iterable gives first.
    fn begin(&self, py: Python<'_>, open: &Open, result: &Bound<'_, PyAny>) -> PyResult<Given> {
        if let Some(end) = self.send_iterable(py, open, result)? {
            return Ok(Given::All(self.ended(py, open, end)));
        }
        let iterator = result.try_iter()?;
        match step(open.exchange(py), &iterator)? {
            Step::More => Ok(Given::Part(iterator.into_any().unbind(), result.clone().unbind())),
            Step::End(end) => Ok(Given::All(self.ended(py, open, end))),
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

    fn ended(&self, py: Python<'_>, open: &Open, end: End) -> Outcome {
        match end {
            End::Whole { keep_alive } => Outcome::Done { keep_alive },
            End::Short => {
                let exchange = open.exchange(py).borrow();
                let (promised, sent) = (exchange.response.promised(), exchange.response.body_bytes);
                drop(exchange);
                self.report(py, "response_short", (&open.environ, promised, sent));
                Outcome::Aborted { reset: false }
            }
        }
    }

    /// The iterable's `close()`, if it has one.
    fn close(&self, py: Python<'_>, result: &Bound<'_, PyAny>) {
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
    pub fn report<'py>(&self, py: Python<'py>, method: &str, arguments: impl pyo3::call::PyCallArgs<'py>) {
        let worker = self.setup.worker.bind(py);
        if let Err(error) = worker.call_method1(method, arguments) {
            if ends_process(py, &error) {
                self.end_with(error);
            } else {
                error.write_unraisable(py, Some(worker));
            }
        }
    }

    /// The application forked, and the copy came back from the call as well. The client, its socket and the
    /// loop are the parent's: the copy ends here.
    #[cold]
    fn end_copy(&self, py: Python<'_>, error: Option<PyErr>) -> ! {
        let error = error.map(|error| exception(py, &error));
        self.report(py, "copy_returned", (error,)); // Which does not come back.
        std::process::abort();
    }

    /// A request has been answered: garbage is collected now, if it is time and nobody else is in the
    /// middle of something, and at the latest when it is twice the time.
    #[inline]
    pub fn collect_if_due(&self, is_idle: impl FnOnce() -> bool) {
        let between = self.setup.requests_between_collections;
        if between == 0 {
            return;
        }
        let uncollected = self.uncollected.fetch_add(1, Relaxed) + 1;
        if uncollected >= between && (is_idle() || uncollected >= between.saturating_mul(2)) {
            self.uncollected.store(0, Relaxed);
            self.report(self.py(), "collect_garbage", ());
        }
    }

    /// From here on what the application raises comes of a request that has taken too long.
    pub fn begin_abort(&self) {
        self.aborting.store(true, Relaxed);
    }

    /// What the application raised ends the worker, but not the requests of others.
    fn end_with(&self, error: PyErr) {
        *self.fatal() = Some(error);
        self.setup.orders.give(Order::Retire);
    }

    fn keep_if_fatal(&self, py: Python<'_>, error: PyErr) {
        if ends_process(py, &error) {
            self.end_with(error);
        }
    }

    /// The application raised: 500 if nothing has been sent, or 504 if it was broken off for its time; otherwise
    /// the answer breaks off.
    fn failed(&self, py: Python<'_>, open: &Open, error: PyErr) -> Outcome {
        if error.is_instance_of::<PyStopIteration>(py) && open.exchange(py).borrow().is_taken() {
            return Outcome::Aborted { reset: false };
        }
        let head_sent = open.exchange(py).borrow().response.head_sent;
        self.report(py, "application_failed", (exception(py, &error), &open.environ, head_sent));
        self.keep_if_fatal(py, error);
        let mut exchange = open.exchange(py).borrow_mut();
        match exchange.parts() {
            Ok((response, outbox)) if !head_sent => {
                let status = if self.aborting.load(Relaxed) { 504 } else { 500 };
                response.fail(status);
                let with_body = response.terms.method != b"HEAD";
                push_error(outbox, status, &self.setup.server, HttpDate::default().now(), with_body);
                Outcome::Done { keep_alive: false }
            }
            Ok((response, _)) => Outcome::Aborted { reset: response.ends_with_connection() },
            Err(_) => Outcome::Aborted { reset: false },
        }
    }

    /// The exchange is over, however it ended.
    #[inline]
    fn leave(&self, py: Python<'_>, open: Open, job: &mut Job<Front>) {
        let left_ns = monotonic_ns();
        let mut exchange = open.exchange(py).borrow_mut();
        job.outbox = exchange.leave();
        job.sent += exchange.take_sent_early();
        let status = exchange.response.status;
        job.left = Some(Left { entered_ns: open.entered_ns, left_ns, status });
        let dropped = exchange.response.dropped.then(|| exchange.response.promised());
        let elapsed_ns = left_ns.saturating_sub(open.entered_ns);
        if let Some(access) = &self.setup.access {
            let environ = open.environ.bind(py);
            let finished = Finished { environ, response: &exchange.response, elapsed_ns, now_ns: left_ns };
            if let Err(error) = access.get().add(py, &finished) {
                error.write_unraisable(py, None);
            }
        }
        drop(exchange);
        if let Some(promised) = dropped {
            self.report(py, "response_long", (&open.environ, promised));
        }
        if let Some(observer) = &open.observer {
            self.tell_observer(py, &open, observer, elapsed_ns);
        }
        let Open { handles, environ, context, .. } = open;
        drop((environ, context)); // What they held may have been the last hold on a handle.
        let is_free = handles.are_free();
        let socket = handles.exchange.bind(py).borrow_mut().let_go_of_socket(is_free);
        drop(socket); // Which may run Python code, so nothing is borrowed any more.
        if is_free {
            self.handles.put(handles);
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
    #[cold]
    fn unopened(&self, py: Python<'_>, job: &mut Job<Front>, why: EnvironError) -> Outcome {
        match why {
            EnvironError::Refused(refusal) => return Outcome::Refused(job.request.refused(refusal.kind)),
            EnvironError::Misplaced(text) => self.report(py, "request_misplaced", (text,)),
            EnvironError::Python(error) => {
                self.report(py, "application_failed", (exception(py, &error), py.None(), false));
            }
        }
        let with_body = job.request.head.method.of(&job.request.bytes) != b"HEAD";
        push_error(&mut job.outbox, 500, &self.setup.server, HttpDate::default().now(), with_body);
        let now_ns = monotonic_ns();
        job.left = Some(Left { entered_ns: now_ns, left_ns: now_ns, status: 500 });
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

/// Whether Python ends a program with it: raised by a signal handler, or by an application that wants to go.
/// Others that are no `Exception` (GreenletExit, gevent.Timeout) end what they were raised in.
pub fn ends_process(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// Puts an answer of the server's own into the outbox.
pub fn push_error(outbox: &mut Outbox<Chunk>, status: u16, server: &[u8], date: &[u8], with_body: bool) {
    outbox.push_with(|out| bicorn_wire::push_refusal(out, status, server, date, with_body));
}

impl Handler<Front> for Wsgi {
    #[inline]
    fn call(&self, job: &mut Job<Front>) -> Outcome {
        let py = self.py();
        let mut open = match self.open(py, job) {
            Ok(open) => open,
            Err(why) => return self.unopened(py, job, why),
        };
        enter(open.exchange(py), job);
        open.context.enter(py);
        let given = self.run(py, &mut open);
        if !self.birthplace.is_here() {
            self.end_copy(py, given.err());
        }
        let outcome = match given {
            Ok(Given::Part(iterator, result)) => {
                open.context.exit(py);
                job.outbox = open.exchange(py).borrow_mut().leave();
                self.slot().request_paused();
                let (method, target) = name(job);
                let name = (method.to_vec(), target.to_vec());
                job.stream = Some(Stream { open, iterator, result, name });
                return Outcome::More;
            }
            Ok(Given::All(outcome)) => outcome,
            Err(error) => self.failed(py, &open, error),
        };
        open.context.exit(py);
        self.leave(py, open, job);
        outcome
    }

    fn pull(&self, job: &mut Job<Front>) -> Outcome {
        let py = self.py();
        let Some(stream) = job.stream.take() else { return Outcome::Aborted { reset: false } };
        self.slot().request_resumed(monotonic_ns(), &stream.name.0, &stream.name.1);
        enter(stream.open.exchange(py), job);
        stream.open.context.enter(py);
        let given = step(stream.open.exchange(py), stream.iterator.bind(py));
        if !self.birthplace.is_here() {
            self.end_copy(py, given.err());
        }
        let outcome = match given {
            Ok(Step::More) => {
                stream.open.context.exit(py);
                job.outbox = stream.open.exchange(py).borrow_mut().leave();
                self.slot().request_paused();
                job.stream = Some(stream);
                return Outcome::More;
            }
            Ok(Step::End(end)) => self.ended(py, &stream.open, end),
            Err(error) => self.failed(py, &stream.open, error),
        };
        let Stream { open, result, iterator, .. } = stream;
        drop(iterator);
        self.close(py, result.bind(py));
        open.context.exit(py);
        self.leave(py, open, job);
        outcome
    }

    fn abandon(&self, job: &mut Job<Front>) {
        let py = self.py();
        let Some(Stream { open, result, .. }) = job.stream.take() else { return };
        open.context.enter(py);
        self.close(py, result.bind(py));
        open.context.exit(py);
        self.leave(py, open, job);
    }
}

/// The application may write: its exchange has the job's outbox meanwhile.
#[inline]
fn enter(exchange: &Bound<'_, Exchange>, job: &mut Job<Front>) {
    let outbox = std::mem::take(&mut job.outbox);
    let socket = job.socket.clone().expect("only a job that abandons has no socket");
    exchange.borrow_mut().enter(outbox, socket);
}

/// Method and target of the request that a job belongs to; empty where there is nothing to name.
pub fn name(job: &Job<Front>) -> (&[u8], &[u8]) {
    let request = &job.request;
    match (job.task, &job.stream) {
        (Task::Call, _) => (request.head.method.of(&request.bytes), request.head.target.of(&request.bytes)),
        (_, Some(stream)) => (&stream.name.0, &stream.name.1),
        (_, None) => (b"", b""),
    }
}
