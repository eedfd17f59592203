//! The callables that an application gets with a request.
//!
//! Owns       `start_response`, the `write` it returns, `wsgi.early_hints` and `gunicorn.socket`: four faces of
//!            one object.
//! Never      outlives its exchange in effect: once the answer is finished, a call says so and does nothing.
//! Invariant  it owns its job's outbox while the job is inside the application, and only then.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use bicorn_reactor::{Flush, Outbox, Socket};
use pyo3::exceptions::{PyAssertionError, PyOSError, PyRuntimeError, PyTypeError};
use pyo3::ffi::{self, PyMethodDef, PyMethodDefPointer};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::callable::{Definition, answer, bound};
use crate::chunk::Chunk;
use crate::client_socket::ClientSocket;
use crate::response::Response;
use crate::response_head::early_hint;

/// Bounds of what `write()` may hold back.
pub struct WriteRules {
    /// Bytes that may wait for a slow reader before `write()` waits itself.
    pub waiting_bytes: u64,
    /// How long it then waits for the reader to take anything, in milliseconds.
    pub patience_ms: u64,
    /// How a greenlet waits, which must not block its thread: called with a descriptor and seconds, true
    /// once the descriptor is writable. None to block.
    pub wait: Option<Py<PyAny>>,
}

struct Wire {
    outbox: Outbox<Chunk>,
    socket: Arc<Socket>,
}

/// The server's side of one exchange; as a Python object it is the `write` callable of PEP 3333.
#[pyclass(module = "bicorn._core")]
pub struct Exchange {
    /// The response.
    pub response: Response,
    wire: Option<Wire>,
    /// The duplicate of the client's socket that `gunicorn.socket` made, if it was used.
    client_socket: Option<Py<PyAny>>,
    /// The application has taken the connection over.
    taken: bool,
    rules: Arc<WriteRules>,
    /// Bytes that left while the application ran, which the loop has not counted.
    sent_early: usize,
    /// Whoever called the application: the only thread that may touch the outbox.
    thread: usize,
}

#[pymethods]
impl Exchange {
    /// `write(data)`.
    fn __call__(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(block) = data.cast::<PyBytes>() else {
            return Err(not_bytes(data));
        };
        slf.try_borrow_mut()?.write(block)?;
        send_now(slf)
    }
}

impl Exchange {
    /// An exchange between two requests.
    pub fn new(server: &[u8], rules: Arc<WriteRules>) -> Self {
        Self {
            response: Response::new(server),
            wire: None,
            client_socket: None,
            taken: false,
            rules,
            sent_early: 0,
            thread: 0,
        }
    }

    /// The application is entered: it may write.
    #[inline]
    pub fn enter(&mut self, outbox: Outbox<Chunk>, socket: Arc<Socket>) {
        self.wire = Some(Wire { outbox, socket });
        self.thread = this_thread();
    }

    /// The application has returned: the job gets its outbox back.
    #[inline]
    pub fn leave(&mut self) -> Outbox<Chunk> {
        self.wire.take().map(|wire| wire.outbox).unwrap_or_default()
    }

    /// The connection's socket, while the job is inside the application.
    pub fn open_socket(&self) -> Option<&Arc<Socket>> {
        self.wire.as_ref().map(|wire| &wire.socket)
    }

    /// The duplicate that was made for `gunicorn.socket`.
    pub fn client_socket<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.client_socket.as_ref().map(|socket| socket.bind(py).clone())
    }

    /// Keeps it for the rest of the request.
    pub fn keep_client_socket(&mut self, socket: &Bound<'_, PyAny>) {
        self.client_socket = Some(socket.clone().unbind());
    }

    /// Bytes are about to be moved by the application, or a copy is made to move them by.
    ///
    /// # Errors
    /// Its client was sent away because it took too long.
    pub fn take_connection(&mut self) -> PyResult<()> {
        if !self.taken && self.wire.as_ref().is_some_and(|wire| !wire.socket.gate.take()) {
            return Err(PyOSError::new_err(
                "the request took longer than `timeout` and was answered with 504",
            ));
        }
        self.taken = true;
        Ok(())
    }

    /// Whether the application has taken the connection over.
    pub fn is_taken(&self) -> bool {
        self.taken
    }

    /// The request is over: a duplicate of its socket that was only looked at would keep the connection open. One
    /// that an application speaks on ends when nobody has it any more.
    #[inline]
    pub fn let_go_of_socket(&mut self, is_free: bool) -> Option<Py<PyAny>> {
        if self.taken && !is_free {
            return None;
        }
        self.taken = false;
        self.client_socket.take()
    }

    /// Bytes sent so far that nobody has counted.
    #[inline]
    pub fn take_sent_early(&mut self) -> usize {
        std::mem::take(&mut self.sent_early)
    }

    /// The response, and the outbox it goes into. Whoever holds them must not run Python code
    /// meanwhile: it could call `write()`, which takes them too.
    ///
    /// # Errors
    /// The job is not inside the application.
    #[inline]
    pub fn parts(&mut self) -> PyResult<(&mut Response, &mut Outbox<Chunk>)> {
        let wire = self.wire.as_mut().ok_or_else(|| PyRuntimeError::new_err("this request is over"))?;
        Ok((&mut self.response, &mut wire.outbox))
    }

    /// An application that handed `write` or `early_hints` to another thread could call it at any
    /// moment, also while the loop itself uses the outbox.
    fn refuse_other_threads(&self) -> PyResult<()> {
        if this_thread() == self.thread {
            return Ok(());
        }
        Err(PyRuntimeError::new_err("this must be called in the thread that the application was called in"))
    }

    fn write(&mut self, block: &Bound<'_, PyBytes>) -> PyResult<()> {
        self.refuse_other_threads()?;
        let (response, outbox) = self.parts()?;
        if response.ended {
            return Err(PyRuntimeError::new_err("write() was called after the end of the response"));
        }
        if !response.head_sent {
            response.send_head(outbox, None);
        }
        response.send_body(outbox, block.clone());
        Ok(())
    }

    fn start_response(
        &mut self,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        match exc_info.filter(|exc_info| !exc_info.is_none()) {
            Some(exc_info) if self.response.head_sent => return Err(reraised(exc_info)?),
            None if self.response.status != 0 => {
                return Err(PyAssertionError::new_err(
                    "start_response() was called a second time without exc_info (PEP 3333)",
                ));
            }
            _ => {}
        }
        self.response.start(status, headers)
    }

    fn early_hints(&mut self, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        self.refuse_other_threads()?;
        let hint = early_hint(headers)?;
        let Ok((response, outbox)) = self.parts() else { return Ok(()) };
        if response.head_sent || response.ended || !response.terms.version.is_http11() {
            return Ok(());
        }
        outbox.push(&hint);
        Ok(())
    }

    /// Gives the kernel what it takes; the socket, if the caller has to wait until it takes more.
    fn flush(&mut self) -> PyResult<Option<Arc<Socket>>> {
        let Some(Wire { outbox, socket }) = &mut self.wire else { return Ok(None) };
        if !socket.gate.pass() {
            return Err(os_error(Errno::TIMEDOUT)); // Its client was told so long ago.
        }
        let sent = &mut self.sent_early;
        loop {
            match outbox.flush(socket.as_fd(), |count| *sent += count) {
                Ok(Flush::Done) => return Ok(None),
                Ok(Flush::Yielded) => {} // Nobody's turn but this application's.
                Ok(Flush::Blocked) if outbox.waiting_bytes() <= self.rules.waiting_bytes => return Ok(None),
                Ok(Flush::Blocked) => return Ok(Some(Arc::clone(socket))),
                Err(errno) => return Err(os_error(errno)),
            }
        }
    }
}

/// Sends what `write()` or `early_hints()` has put into the outbox; waits only once too much has gathered.
/// Nothing is borrowed meanwhile: the application may well end in another greenlet.
fn send_now(exchange: &Bound<'_, Exchange>) -> PyResult<()> {
    loop {
        let (socket, rules) = {
            let mut borrowed = exchange.try_borrow_mut()?;
            match borrowed.flush()? {
                Some(socket) => (socket, Arc::clone(&borrowed.rules)),
                None => return Ok(()),
            }
        };
        rules.wait_writable(exchange.py(), &socket)?;
    }
}

impl WriteRules {
    fn wait_writable(&self, py: Python<'_>, socket: &Socket) -> PyResult<()> {
        let Some(wait) = &self.wait else { return self.poll_writable(py, socket) };
        let seconds = self.patience_ms as f64 / 1_000.0;
        let ready = wait.bind(py).call1((socket.as_raw_fd(), seconds))?.is_truthy()?;
        if ready { Ok(()) } else { Err(os_error(Errno::TIMEDOUT)) }
    }

    fn poll_writable(&self, py: Python<'_>, socket: &Socket) -> PyResult<()> {
        let patience = Timespec {
            tv_sec: (self.patience_ms / 1_000) as i64,
            tv_nsec: (self.patience_ms % 1_000 * 1_000_000) as i64,
        };
        loop {
            let ready = py.detach(|| poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&patience)));
            match ready {
                Ok(0) => return Err(os_error(Errno::TIMEDOUT)),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => py.check_signals()?,
                Err(errno) => return Err(os_error(errno)),
            }
        }
    }
}

/// Tells one living thread from another, for less than its id costs.
#[inline]
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here) as usize)
}

fn os_error(errno: Errno) -> PyErr {
    PyOSError::new_err((errno.raw_os_error(), std::io::Error::from(errno).to_string()))
}

/// What a body may consist of.
pub fn not_bytes(value: &Bound<'_, PyAny>) -> PyErr {
    let kind = value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("a response body is made of bytes, not of {kind}"))
}

/// The exception of an `exc_info` tuple, with its traceback.
fn reraised(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let value = exc_info.get_item(1)?;
    let traceback = exc_info.get_item(2)?;
    Ok(PyErr::from_value(value.call_method1("with_traceback", (traceback,))?))
}

/// One exchange with the callables bound to it, kept for the next request when nobody holds them.
pub struct Handles {
    /// The state.
    pub exchange: Py<Exchange>,
    /// `start_response`.
    pub start_response: Py<PyAny>,
    /// `wsgi.early_hints`.
    pub early_hints: Py<PyAny>,
    /// `gunicorn.socket`.
    pub socket: Py<ClientSocket>,
}

impl Handles {
    /// Fresh handles.
    pub fn new(py: Python<'_>, server: &[u8], rules: &Arc<WriteRules>) -> PyResult<Self> {
        let exchange = Py::new(py, Exchange::new(server, Arc::clone(rules)))?;
        Ok(Self {
            start_response: bound(py, &START_RESPONSE, &exchange)?,
            early_hints: bound(py, &EARLY_HINTS, &exchange)?,
            socket: Py::new(py, ClientSocket::new(exchange.clone_ref(py)))?,
            exchange,
        })
    }

    /// Whether the application has kept none of them, so that they can serve again.
    #[inline]
    pub fn are_free(&self) -> bool {
        // SAFETY: reads reference counts of objects that are alive, under the interpreter lock. The
        // exchange itself is held here and by the three others.
        unsafe {
            ffi::Py_REFCNT(self.start_response.as_ptr()) == 1
                && ffi::Py_REFCNT(self.early_hints.as_ptr()) == 1
                && ffi::Py_REFCNT(self.socket.as_ptr()) == 1
                && ffi::Py_REFCNT(self.exchange.as_ptr()) == 4
        }
    }
}

// PyO3's own methods of a class go through a tuple for each call; a builtin function with the fast
// calling convention is what an application's call of `start_response(status, headers)` costs least on.
static START_RESPONSE: Definition = Definition(PyMethodDef {
    ml_name: c"start_response".as_ptr(),
    ml_meth: PyMethodDefPointer { PyCFunctionFastWithKeywords: start_response },
    ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
    ml_doc: c"start_response(status, response_headers, exc_info=None) -> write  (PEP 3333)".as_ptr(),
});

static EARLY_HINTS: Definition = Definition(PyMethodDef {
    ml_name: c"early_hints".as_ptr(),
    ml_meth: PyMethodDefPointer { PyCFunction: early_hints },
    ml_flags: ffi::METH_O,
    ml_doc: c"early_hints(headers): send a 103 with these fields before the response (RFC 8297)".as_ptr(),
});

unsafe extern "C" fn start_response(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: Python calls this with the interpreter lock held.
    let py = unsafe { Python::assume_attached() };
    answer(py, || {
        // SAFETY: the vectorcall convention: `positional` arguments, then one a name in `keywords`.
        let given = unsafe { Given::new(py, arguments, positional, keywords) };
        let [status, headers, exc_info] = given.named(["status", "response_headers", "exc_info"])?;
        let missing = |name| PyTypeError::new_err(format!("start_response() misses its argument {name}"));
        let status = status.ok_or_else(|| missing("status"))?;
        let headers = headers.ok_or_else(|| missing("response_headers"))?;
        // SAFETY: `bound` gave the function an Exchange as its self.
        let exchange = unsafe { Borrowed::from_ptr(py, slf).cast_unchecked::<Exchange>() };
        exchange.try_borrow_mut()?.start_response(&status, &headers, exc_info.as_ref())?;
        Ok(exchange.to_owned().into_ptr())
    })
}

unsafe extern "C" fn early_hints(slf: *mut ffi::PyObject, headers: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: Python calls this with the interpreter lock held.
    let py = unsafe { Python::assume_attached() };
    answer(py, || {
        // SAFETY: `bound` gave the function an Exchange as its self, and METH_O gives one argument.
        let (exchange, headers) = unsafe {
            (Borrowed::from_ptr(py, slf).cast_unchecked::<Exchange>(), Borrowed::from_ptr(py, headers))
        };
        exchange.try_borrow_mut()?.early_hints(&headers)?;
        send_now(&exchange)?;
        Ok(py.None().into_ptr())
    })
}

/// The arguments of one call.
struct Given<'a, 'py> {
    positional: Vec4<'a, 'py>,
    keywords: Option<Bound<'py, PyDict>>,
    too_many: bool,
}

type Vec4<'a, 'py> = [Option<Borrowed<'a, 'py, PyAny>>; 3];

impl<'py> Given<'_, 'py> {
    /// SAFETY: the pointers are those of a vectorcall that is going on.
    unsafe fn new(
        py: Python<'py>,
        arguments: *const *mut ffi::PyObject,
        positional: ffi::Py_ssize_t,
        keywords: *mut ffi::PyObject,
    ) -> Self {
        let count = positional as usize;
        let mut taken: Vec4<'_, 'py> = [None; 3];
        for (index, place) in taken.iter_mut().enumerate().take(count) {
            // SAFETY: there are `count` of them.
            *place = Some(unsafe { Borrowed::from_ptr(py, *arguments.add(index)) });
        }
        let mut named = None;
        if !keywords.is_null() {
            let dict = PyDict::new(py);
            // SAFETY: a tuple of names, as the convention says.
            let names = unsafe { Borrowed::from_ptr(py, keywords) };
            for (index, name) in names.try_iter().into_iter().flatten().enumerate() {
                // SAFETY: one value a name, behind the positional ones.
                let value = unsafe { Borrowed::from_ptr(py, *arguments.add(count + index)) };
                if let Ok(name) = name {
                    let _ = dict.set_item(name, value);
                }
            }
            named = Some(dict);
        }
        Self { positional: taken, keywords: named, too_many: count > 3 }
    }

    #[inline]
    fn named(self, names: [&str; 3]) -> PyResult<[Option<Bound<'py, PyAny>>; 3]> {
        if self.too_many {
            return Err(PyTypeError::new_err("start_response() takes at most three arguments"));
        }
        let mut values = self.positional.map(|argument| argument.map(|argument| argument.to_owned()));
        if let Some(keywords) = &self.keywords {
            for (value, name) in values.iter_mut().zip(names) {
                if let Some(given) = keywords.get_item(name)? {
                    *value = Some(given);
                }
            }
        }
        Ok(values)
    }
}
