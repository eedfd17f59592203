//! `send`: the messages of the response, in their order.
//!
//! Owns       what an application is told that breaks the order, and the framing of head and body.
//! Never      lets more of a body out than its Content-Length said.

use std::rc::Rc;

use bicorn_wire::{LAST_CHUNK, ResponseFraming, may_say_length, push_chunk_head, response_framing};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::message::{Block, flag, value};
use super::{Exchange, Stage, State, client_gone, out_of_order};
use crate::asgi::awaitable::Waiting;
use crate::asgi::connection::Conn;
use crate::response_head::early_hint;

impl Exchange {
    /// Sends a message of the application's.
    #[inline]
    pub fn send<'py>(
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
    pub(super) fn body<'py>(
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
            return Waiting::on(state.shared.wait(py, &state.draining)?);
        }
        Ok(state.shared.done(py))
    }

    /// Sends one block of the body, behind the head if that has not left, and ends the body after the last.
    #[inline]
    pub(super) fn put(&self, py: Python<'_>, conn: &Rc<Conn>, block: &[u8], more: bool) {
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

    /// The body has ended.
    #[inline]
    pub(super) fn end_body(&self, py: Python<'_>, conn: &Rc<Conn>) {
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

    pub(super) fn trailers(
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

impl State {
    #[inline]
    pub(super) fn start(
        &self,
        py: Python<'_>,
        message: &Bound<'_, PyDict>,
        kind: &Bound<'_, PyString>,
    ) -> PyResult<()> {
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
    pub(super) fn finish_head(&self, conn: &Conn, body_bytes: Option<u64>) {
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
    pub(super) fn allowance(&self, available: u64) -> u64 {
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
    pub(super) fn tell_length(&self, py: Python<'_>, short: bool) {
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

    pub(super) fn hint(&self, py: Python<'_>, conn: &Conn, message: &Bound<'_, PyDict>) -> PyResult<()> {
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
            conn.out.write_interim(py, &[&early_hint(pairs.into_pyobject(py)?.as_any())?]);
        }
        Ok(())
    }
}
