//! Status line and fields of a response, as `start_response` was told them.
//!
//! Owns       their validation and their encoding.
//! Never      decides how the body is framed: it only notes what the fields say about that.
//! Invariant  what cannot be sent safely is an error for the application, never a byte on the wire.

use bicorn_reactor::clock::HttpDate;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PySequence, PyString, PyTuple};

use crate::said::{Again, Said};
use crate::text::latin1_bytes;

/// The only 1xx status that a response may end with: what follows is another protocol's.
pub const SWITCHING_PROTOCOLS: u16 = 101;

/// Status line and fields.
pub struct ResponseHead {
    /// The whole `Server: …\r\n` line, or nothing.
    server_line: Vec<u8>,
    /// Encoded, without framing and without the empty line.
    bytes: Vec<u8>,
    /// The status code.
    pub status: u16,
    /// What Content-Length says.
    pub content_length: Option<u64>,
    /// Connection says close.
    pub close_wanted: bool,
    /// Connection says upgrade.
    pub upgrade_wanted: bool,
    /// What `bytes` was made from.
    said: Said,
    date: HttpDate,
}

fn is(name: &[u8], other: &[u8]) -> bool {
    name.eq_ignore_ascii_case(other)
}

impl ResponseHead {
    /// Nothing said yet; it will present itself with this `Server` value.
    pub fn new(server: &[u8]) -> Self {
        let server_line =
            if server.is_empty() { Vec::new() } else { [b"Server: ", server, b"\r\n"].concat() };
        Self {
            server_line,
            bytes: Vec::with_capacity(512),
            status: 0,
            content_length: None,
            close_wanted: false,
            upgrade_wanted: false,
            said: Said::nothing(),
            date: HttpDate::default(),
        }
    }

    /// Nothing has been said.
    pub fn forget(&mut self) {
        self.bytes.clear();
        self.status = 0;
        self.content_length = None;
        self.close_wanted = false;
        self.upgrade_wanted = false;
        self.said.forget();
    }

    /// Encoded, without framing and without the empty line.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes in a status and fields.
    ///
    /// # Errors
    /// A wrong type, or bytes that no status line or field may hold.
    #[inline]
    pub fn say(&mut self, status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let list = headers.cast_exact::<PyList>().ok();
        if self.said.is_status(status) && self.is_again(list) {
            return Ok(());
        }
        self.forget();
        let result = self.status_line(status).and_then(|()| match list {
            Some(list) => list.iter().try_for_each(|pair| self.field(&pair)),
            None => headers.try_iter().and_then(|mut pairs| pairs.try_for_each(|pair| self.field(&pair?))),
        });
        self.note_or_forget(Some(status), list, result)
    }

    /// Takes in the status and the fields of an ASGI response: a number, and pairs of byte strings.
    ///
    /// # Errors
    /// A wrong type, or bytes that no status line or field may hold.
    #[inline]
    pub fn say_in_bytes(
        &mut self,
        status: &Bound<'_, PyAny>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let list = headers.and_then(|headers| headers.cast_exact::<PyList>().ok());
        let code = status_code(status)?;
        if self.status == code && self.is_again(list) {
            return Ok(());
        }
        self.forget();
        self.begin_with(code);
        let result = match (list, headers) {
            (Some(list), _) => list.iter().try_for_each(|pair| self.field_in_bytes(&pair)),
            (None, Some(headers)) => headers
                .try_iter()
                .and_then(|mut pairs| pairs.try_for_each(|pair| self.field_in_bytes(&pair?))),
            (None, None) => Ok(()),
        };
        self.note_or_forget(None, list, result)
    }

    /// Whether these fields make the head that is there already; then only its length may be another.
    #[inline]
    fn is_again(&mut self, list: Option<&Bound<'_, PyList>>) -> bool {
        let Some(Again(length)) = list.and_then(|list| self.said.again(list, self.date.now())) else {
            return false;
        };
        self.content_length = length;
        true
    }

    #[inline]
    fn note_or_forget(
        &mut self,
        status: Option<&Bound<'_, PyAny>>,
        list: Option<&Bound<'_, PyList>>,
        result: PyResult<()>,
    ) -> PyResult<()> {
        match (&result, list) {
            (Ok(()), Some(list)) => self.said.note(status, list, self.date.last(), self.bytes.len()),
            (Ok(()), None) => {}
            (Err(_), _) => self.forget(),
        }
        result
    }

    /// The status line's content after the version, as the application gave it.
    pub fn status_text(&self) -> &[u8] {
        let line = self.bytes.get(9..).unwrap_or_default();
        &line[..memchr::memchr(b'\r', line).unwrap_or(line.len())]
    }

    /// The application's fields as they were sent, Content-Length included.
    pub fn fields(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut fields = fields_of(&self.bytes);
        if let Some(length) = self.content_length {
            fields.push((b"Content-Length".to_vec(), length.to_string().into_bytes()));
        }
        fields
    }

    fn status_line(&mut self, status: &Bound<'_, PyAny>) -> PyResult<()> {
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
        // The client would take the answer to its next request for the answer to this one (RFC 9110, 15.2).
        if code < 200 && code != SWITCHING_PROTOCOLS {
            return Err(PyValueError::new_err(format!("invalid status {code}: it ends no request")));
        }
        self.begin(code, text);
        Ok(())
    }

    fn begin_with(&mut self, code: u16) {
        let mut digits = itoa::Buffer::new();
        let text =
            [digits.format(code).as_bytes(), b" ", bicorn_wire::reason_phrase(code).as_bytes()].concat();
        self.begin(code, &text);
    }

    /// The status line and the fields that are always there.
    fn begin(&mut self, code: u16, text: &[u8]) {
        self.status = code;
        self.bytes.extend_from_slice(b"HTTP/1.1 ");
        self.bytes.extend_from_slice(text);
        if text.len() == 3 {
            self.bytes.push(b' '); // The space stands even without a reason (RFC 9112, 4).
        }
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes.extend_from_slice(&self.server_line);
        self.bytes.extend_from_slice(b"Date: ");
        self.bytes.extend_from_slice(self.date.now());
        self.bytes.extend_from_slice(b"\r\n");
    }

    #[inline]
    fn field(&mut self, pair: &Bound<'_, PyAny>) -> PyResult<()> {
        let (name, value) = pair_of(pair)?;
        let name_bytes = latin1_bytes(name.as_borrowed(), "a header name")?;
        let value_bytes = latin1_bytes(value.as_borrowed(), "a header value")?;
        self.put(&name, name_bytes, value_bytes)
    }

    #[inline]
    fn field_in_bytes(&mut self, pair: &Bound<'_, PyAny>) -> PyResult<()> {
        let (name, value) = pair_of(pair)?;
        let (Ok(name_bytes), Ok(value_bytes)) = (name.cast::<PyBytes>(), value.cast::<PyBytes>()) else {
            // The types only, as with values: what they hold may be a secret.
            return Err(PyTypeError::new_err(format!(
                "a header must be a pair of byte strings, not of {} and {}",
                name.get_type().name()?,
                value.get_type().name()?
            )));
        };
        self.put(&name, name_bytes.as_bytes(), value_bytes.as_bytes())
    }

    /// Checks one field and takes it in, unless it is the server's to send.
    #[inline]
    fn put(&mut self, name: &Bound<'_, PyAny>, name_bytes: &[u8], value_bytes: &[u8]) -> PyResult<()> {
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
        push_field(&mut self.bytes, name_bytes, value_bytes);
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
}

fn status_code(status: &Bound<'_, PyAny>) -> PyResult<u16> {
    status.extract::<u16>().ok().filter(|code| (200..1000).contains(code)).ok_or_else(|| {
        let shown = status.repr().map_or_else(|_| "?".to_owned(), |repr| repr.to_string());
        PyValueError::new_err(format!("invalid status {shown}: it must be a number from 200 to 999"))
    })
}

/// The fields of an encoded head, but for those that every answer has from the server.
pub fn fields_of(head: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    head.split(|&byte| byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let (name, value) = line.split_at(memchr::memchr(b':', line)?);
            Some((name.to_vec(), value[1..].trim_ascii().to_vec()))
        })
        .filter(|(name, _)| !is(name, b"server") && !is(name, b"date") && !is(name, b"connection"))
        .collect()
}

/// Fields of an application, encoded, without those that are the server's to send.
///
/// # Errors
/// As for `ResponseHead::say_in_bytes`.
pub fn fields_in_bytes(headers: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut fields = ResponseHead::new(b"");
    headers.try_iter()?.try_for_each(|pair| fields.field_in_bytes(&pair?))?;
    Ok(fields.bytes)
}

/// Trailer fields, encoded. What speaks about the connection has no place among them (RFC 9110, 6.5.1).
///
/// # Errors
/// As for `ResponseHead::say_in_bytes`.
pub fn trailers(headers: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut fields = ResponseHead::new(b"");
    headers.try_iter()?.try_for_each(|pair| fields.field_in_bytes(&pair?))?;
    Ok(fields.bytes)
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
        // A 1xx is framed by its status alone, and must not say otherwise (RFC 9110, 8.6; RFC 9112, 6.1).
        if bicorn_wire::is_hop_by_hop(&name) || is(&name, b"content-length") {
            continue;
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
