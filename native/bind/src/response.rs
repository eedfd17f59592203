//! One WSGI response: what `start_response` was told, and how it goes onto the wire.
//!
//! Owns       the encoding of status and fields, the framing of the body, and the rule that what was
//!            promised is what is sent.
//! Never      calls the application or logs.
//! Invariant  no byte of the head leaves before the first byte of the body, or the end, is known
//!            (PEP 3333); and never more body bytes than Content-Length said.

use std::fs::File;
use std::sync::Arc;

use bicorn_reactor::Outbox;
use bicorn_reactor::clock::DATE_BYTES;
use bicorn_wire::{LAST_CHUNK, ResponseFraming, Version, push_chunk_head, response_framing};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PySequence, PyString, PyTuple};

use crate::chunk::Chunk;
use crate::text::latin1_bytes;

/// What the request decides about its response.
#[derive(Clone, Debug)]
pub struct Terms {
    /// HEAD is answered without a body, CONNECT without framing.
    pub method: Vec<u8>,
    /// Decides whether chunks are understood.
    pub version: Version,
    /// Client and server both want to go on.
    pub keep_alive: bool,
    /// The Date of the response.
    pub date: [u8; DATE_BYTES],
}

impl Default for Terms {
    fn default() -> Self {
        Self { method: Vec::new(), version: Version::Http11, keep_alive: false, date: [b' '; DATE_BYTES] }
    }
}

/// How a complete response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As promised.
    Whole {
        /// The connection may serve another request.
        keep_alive: bool,
    },
    /// Fewer bytes than Content-Length said: only a close tells the client.
    Short,
}

/// A response in the making.
pub struct Response {
    /// Set by the request.
    pub terms: Terms,
    /// The whole `Server: …\r\n` line, or nothing.
    server_line: Vec<u8>,
    /// Status line and fields, without framing and without the empty line.
    head: Vec<u8>,
    /// The status code, 0 before `start_response`.
    pub status: u16,
    content_length: Option<u64>,
    close_wanted: bool,
    upgrade_wanted: bool,
    /// The head is in the outbox.
    pub head_sent: bool,
    framing: ResponseFraming,
    keep_alive: bool,
    /// Body bytes handed over, without chunk framing.
    pub body_bytes: u64,
    /// Nothing more may be sent.
    pub ended: bool,
    /// Body bytes that were more than the promise, and were dropped.
    pub dropped: bool,
}

fn is(name: &[u8], other: &[u8]) -> bool {
    name.eq_ignore_ascii_case(other)
}

impl Response {
    /// A response that presents itself with this `Server` value.
    pub fn new(server: &[u8]) -> Self {
        let server_line =
            if server.is_empty() { Vec::new() } else { [b"Server: ", server, b"\r\n"].concat() };
        Self {
            terms: Terms::default(),
            server_line,
            head: Vec::with_capacity(512),
            status: 0,
            content_length: None,
            close_wanted: false,
            upgrade_wanted: false,
            head_sent: false,
            framing: ResponseFraming::Empty,
            keep_alive: false,
            body_bytes: 0,
            ended: false,
            dropped: false,
        }
    }

    /// Makes it a fresh response, with its buffers kept.
    #[inline]
    pub fn reset(&mut self) {
        self.head.clear();
        self.status = 0;
        self.content_length = None;
        self.close_wanted = false;
        self.upgrade_wanted = false;
        self.head_sent = false;
        self.body_bytes = 0;
        self.ended = false;
        self.dropped = false;
    }

    /// The status line's content after the version, as the application gave it.
    pub fn status_text(&self) -> &[u8] {
        let line = self.head.get(9..).unwrap_or_default();
        &line[..memchr::memchr(b'\r', line).unwrap_or(line.len())]
    }

    /// The application's fields as they were sent, Content-Length included.
    pub fn fields(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut fields: Vec<_> = self
            .head
            .split(|&byte| byte == b'\n')
            .skip(1)
            .filter_map(|line| {
                let (name, value) = line.split_at(memchr::memchr(b':', line)?);
                Some((name.to_vec(), value[1..].trim_ascii().to_vec()))
            })
            .filter(|(name, _)| !is(name, b"server") && !is(name, b"date"))
            .collect();
        if let Some(length) = self.content_length {
            fields.push((b"Content-Length".to_vec(), length.to_string().into_bytes()));
        }
        fields
    }

    /// What `start_response(status, headers)` says.
    ///
    /// # Errors
    /// A wrong type, or bytes that no status line or field may hold.
    #[inline]
    pub fn start(&mut self, status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        self.reset();
        self.start_line(status)?;
        let result = if let Ok(list) = headers.cast_exact::<PyList>() {
            list.iter().try_for_each(|pair| self.field(&pair))
        } else {
            headers.try_iter().and_then(|mut pairs| pairs.try_for_each(|pair| self.field(&pair?)))
        };
        if result.is_err() {
            self.reset();
        }
        result
    }

    fn start_line(&mut self, status: &Bound<'_, PyAny>) -> PyResult<()> {
        let text = latin1_bytes(status.as_borrowed(), "the status")?;
        let code = match text {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']
            | [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(invalid_status(status)),
        };
        if !bicorn_wire::is_reason(&text[3..]) {
            return Err(invalid_status(status));
        }
        self.status = code;
        self.head.extend_from_slice(b"HTTP/1.1 ");
        self.head.extend_from_slice(text);
        if text.len() == 3 {
            self.head.push(b' '); // The space stands even without a reason (RFC 9112, 4).
        }
        self.head.extend_from_slice(b"\r\n");
        self.head.extend_from_slice(&self.server_line);
        self.head.extend_from_slice(b"Date: ");
        self.head.extend_from_slice(&self.terms.date);
        self.head.extend_from_slice(b"\r\n");
        Ok(())
    }

    #[inline]
    fn field(&mut self, pair: &Bound<'_, PyAny>) -> PyResult<()> {
        let (name, value) = pair_of(pair)?;
        let name_bytes = latin1_bytes(name.as_borrowed(), "a header name")?;
        let value_bytes = latin1_bytes(value.as_borrowed(), "a header value")?;
        if !bicorn_wire::is_token(name_bytes) {
            return Err(PyValueError::new_err(format!("invalid header name {}", name.repr()?)));
        }
        if !bicorn_wire::is_field_value(value_bytes) {
            // The name only: a value may be a secret, and errors travel far.
            return Err(PyValueError::new_err(format!(
                "invalid characters in the value of header {}",
                name.repr()?
            )));
        }
        let value_bytes = value_bytes.trim_ascii();
        if self.is_ours(name_bytes, value_bytes)? {
            return Ok(());
        }
        push_field(&mut self.head, name_bytes, value_bytes);
        Ok(())
    }

    /// Whether a field is the server's to send; what it says about the message is noted.
    #[inline]
    fn is_ours(&mut self, name: &[u8], value: &[u8]) -> PyResult<bool> {
        match name.len() {
            14 if is(name, b"content-length") => {
                let length = bicorn_wire::parse_content_length(value).ok_or_else(|| {
                    PyValueError::new_err(format!(
                        "invalid Content-Length {:?}",
                        String::from_utf8_lossy(value)
                    ))
                })?;
                self.content_length = Some(length);
                // Written with the framing, once it is known that a length may be sent at all.
                Ok(true)
            }
            10 if is(name, b"connection") => {
                self.close_wanted |=
                    value.split(|&byte| byte == b',').any(|token| is(token.trim_ascii(), b"close"));
                self.upgrade_wanted |= is(value, b"upgrade");
                Ok(true)
            }
            7 if is(name, b"upgrade") => Ok(!is(value, b"websocket")),
            6 if is(name, b"server") => Ok(true),
            4 if is(name, b"date") => Ok(true),
            _ => Ok(bicorn_wire::is_hop_by_hop(name)),
        }
    }

    /// Puts the head into the outbox. `body_bytes` is the length of the body where it is known.
    #[inline]
    pub fn send_head(&mut self, outbox: &mut Outbox<Chunk>, body_bytes: Option<u64>) {
        let length = self.content_length.or(body_bytes);
        self.framing = response_framing(&self.terms.method, self.terms.version, self.status, length);
        let closes = self.close_wanted || self.framing == ResponseFraming::UntilClose;
        self.keep_alive = self.terms.keep_alive && !closes && !self.upgrade_wanted;
        self.head_sent = true;
        let shown = match self.framing {
            ResponseFraming::Length(length) => Some(length),
            // HEAD and 304 may say what GET would; 1xx and 204 must not (RFC 9110, 8.6).
            ResponseFraming::Empty if self.status >= 200 && self.status != 204 => self.content_length,
            _ => None,
        };
        outbox.push_with(|out| {
            out.extend_from_slice(&self.head);
            if let Some(length) = shown {
                out.extend_from_slice(b"Content-Length: ");
                out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
                out.extend_from_slice(b"\r\n");
            } else if self.framing == ResponseFraming::Chunked {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
            out.extend_from_slice(if self.upgrade_wanted {
                b"Connection: upgrade\r\n\r\n"
            } else if self.keep_alive {
                b"Connection: keep-alive\r\n\r\n"
            } else {
                b"Connection: close\r\n\r\n"
            });
        });
    }

    /// Puts one block of the body into the outbox, framed; what exceeds the promise is dropped.
    #[inline]
    pub fn send_body(&mut self, outbox: &mut Outbox<Chunk>, block: Bound<'_, PyBytes>) {
        let len = block.as_bytes().len();
        let mut fits = len;
        match self.framing {
            ResponseFraming::Empty => fits = 0,
            ResponseFraming::Length(promised) => fits = len.min((promised - self.body_bytes) as usize),
            ResponseFraming::Chunked if len > 0 => outbox.push_with(|out| push_chunk_head(out, len)),
            ResponseFraming::Chunked | ResponseFraming::UntilClose => {}
        }
        self.dropped |= fits < len && self.framing != ResponseFraming::Empty;
        if fits == 0 {
            return;
        }
        self.body_bytes += fits as u64;
        outbox.push_chunk(Chunk::new(block, fits));
        if self.framing == ResponseFraming::Chunked {
            outbox.push(b"\r\n");
        }
    }

    /// Puts `len` bytes of a file into the outbox, framed, or as many of them as were promised.
    pub fn send_file(&mut self, outbox: &mut Outbox<Chunk>, file: File, offset: u64, len: u64) {
        let fits = self.allowance(len);
        // What write() sent before the file may have begun a chunked body.
        let chunked = self.framing == ResponseFraming::Chunked && fits > 0;
        if chunked {
            outbox.push_with(|out| push_chunk_head(out, fits as usize));
        }
        outbox.push_file(Arc::new(file), offset, fits);
        if chunked {
            outbox.push(b"\r\n");
        }
        self.body_bytes += fits;
    }

    /// How many bytes of a body of `available` bytes may still be sent.
    fn allowance(&self, available: u64) -> u64 {
        match self.framing {
            ResponseFraming::Empty => 0,
            ResponseFraming::Length(promised) => available.min(promised - self.body_bytes),
            ResponseFraming::Chunked | ResponseFraming::UntilClose => available,
        }
    }

    /// The length that the application promised, if it did.
    pub fn promised(&self) -> Option<u64> {
        self.content_length
    }

    /// Makes it a 500 whose bytes come from elsewhere.
    pub fn fail(&mut self) {
        self.reset();
        self.status = 500;
        self.ended = true;
    }

    /// Ends the body.
    #[inline]
    pub fn end(&mut self, outbox: &mut Outbox<Chunk>) -> End {
        self.ended = true;
        match self.framing {
            ResponseFraming::Chunked => outbox.push(LAST_CHUNK),
            ResponseFraming::Length(promised) if self.body_bytes < promised => return End::Short,
            _ => {}
        }
        End::Whole { keep_alive: self.keep_alive }
    }
}

/// A 103 with these fields (RFC 8297).
///
/// # Errors
/// As for `Response::start`.
pub fn early_hint(headers: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut hint = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
    for pair in headers.try_iter()? {
        let (name, value) = pair_of(&pair?)?;
        let name = text_or_bytes(&name, "a header name")?;
        let value = text_or_bytes(&value, "a header value")?;
        if !bicorn_wire::is_token(&name) || !bicorn_wire::is_field_value(&value) {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(PyValueError::new_err(format!("invalid early hint {name:?}")));
        }
        push_field(&mut hint, &name, value.trim_ascii());
    }
    hint.extend_from_slice(b"\r\n");
    Ok(hint)
}

fn push_field(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    head.reserve(name.len() + value.len() + 4);
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

#[cold]
fn invalid_status(status: &Bound<'_, PyAny>) -> PyErr {
    match status.repr() {
        Ok(repr) => PyValueError::new_err(format!("invalid status {repr}: it must read like '200 OK'")),
        Err(error) => error,
    }
}

#[inline]
fn pair_of<'py>(pair: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    if let Ok(tuple) = pair.cast_exact::<PyTuple>()
        && tuple.len() == 2
    {
        return Ok((tuple.get_item(0)?, tuple.get_item(1)?));
    }
    // Gunicorn unpacks whatever gives two items, and applications give lists.
    match pair.cast::<PySequence>() {
        Ok(sequence) if !pair.is_instance_of::<PyString>() && sequence.len()? == 2 => {
            Ok((sequence.get_item(0)?, sequence.get_item(1)?))
        }
        // The type only, as with values: what it holds may be a secret.
        _ => Err(PyTypeError::new_err(format!(
            "a header must be a (name, value) pair, not {} of another length or kind",
            pair.get_type().name()?
        ))),
    }
}

fn text_or_bytes(value: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<u8>> {
    match value.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().to_vec()),
        Err(_) => latin1_bytes(value.as_borrowed(), what).map(<[u8]>::to_vec),
    }
}
