//! From a head that is complete to an application that runs.
//!
//! Owns       the calls of the application, for requests and for WebSockets, and the answers to those that get none.
//! Never      waits: what an application waits for is the business of its steps.

use std::rc::Rc;

use bicorn_wire::Framing;
use bicorn_wire::websocket::{Handshake, HandshakeRefusal};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{ffi, intern};

use super::reading::Read;
use super::{Conn, Phase};
use crate::asgi::exchange::{Handles, Terms};
use crate::asgi::scope::ScopeError;
use crate::asgi::server::NEVER;
use crate::asgi::steps;
use crate::asgi::websocket::{WebSocket, push_refused_handshake, turn_scope};

impl Conn {
    #[cold]
    pub(super) fn no_scope(self: &Rc<Self>, py: Python<'_>, error: ScopeError) -> Read {
        match error {
            ScopeError::Refused(refusal) => self.refuse(py, refusal),
            ScopeError::Python(error) => {
                self.shared.application_failed(py, error, None, "");
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
    pub(super) fn begin(
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
        self.line().set_bodiless(terms.is_head);
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
        if consumed < bytes.len() {
            self.line().set_ahead(true);
        }
        if let Err(error) = self.run(py, scope, &handles) {
            handles.exchange.get().application_ended(py, Err(error));
        }
        self.shared.give_back(py, handles);
        Read::Begun(consumed)
    }

    /// Begins a request for a WebSocket. Until the application has accepted, it is one like any other.
    pub(super) fn begin_websocket(
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
    pub(super) fn refuse_handshake(self: &Rc<Self>, py: Python<'_>, refusal: HandshakeRefusal) -> Read {
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

    /// Calls the application and runs what it gives.
    #[inline]
    pub(super) fn run(&self, py: Python<'_>, scope: &Bound<'_, PyDict>, handles: &Handles) -> PyResult<()> {
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
}
