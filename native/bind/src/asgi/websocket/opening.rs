//! From a request to a WebSocket.
//!
//! Owns       the scope of a handshake, and the 101 that answers it.
//! Never      takes a request for a handshake that asks for something else: it is then served as HTTP.

use std::rc::Rc;

use bicorn_wire::Head;
use bicorn_wire::websocket::{Handshake, HandshakeRefusal};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::asgi::server::Shared;
use crate::response_head::fields_in_bytes;

/// Makes the scope of an HTTP request that of a WebSocket (ASGI, WebSocket, "Connection Scope").
pub fn turn_scope(py: Python<'_>, scope: &Bound<'_, PyDict>, handshake: &Handshake) -> PyResult<()> {
    scope.set_item(intern!(py, "type"), intern!(py, "websocket"))?;
    scope.del_item(intern!(py, "method"))?;
    let scheme = scope.get_item(intern!(py, "scheme"))?;
    let is_https = scheme.is_some_and(|scheme| scheme.eq("https").unwrap_or(false));
    let scheme = if is_https { intern!(py, "wss") } else { intern!(py, "ws") };
    scope.set_item(intern!(py, "scheme"), scheme)?;
    scope.set_item(intern!(py, "subprotocols"), PyList::new(py, &handshake.subprotocols)?)?;
    let extensions = PyDict::new(py);
    extensions.set_item(intern!(py, "websocket.http.response"), PyDict::new(py))?;
    scope.set_item(intern!(py, "extensions"), extensions)
}

/// The answer to a handshake that cannot be one. It names the version that is spoken here where that is
/// what was wrong (RFC 6455, 4.4).
pub fn push_refused_handshake(out: &mut Vec<u8>, refusal: HandshakeRefusal, server: &[u8], date: &[u8]) {
    let start = out.len();
    bicorn_wire::push_refusal(out, refusal.status(), server, date, true);
    if refusal == HandshakeRefusal::UnsupportedVersion {
        let line_end = memchr::memchr(b'\n', &out[start..]).map_or(start, |at| start + at + 1);
        let version = b"Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n";
        out.splice(line_end..line_end, version.iter().copied());
    }
}

/// The 101 with what the application adds to it.
///
/// # Errors
/// A subprotocol that is no token, or fields that no response may have or that are the server's here.
pub fn accept_head(
    shared: &Rc<Shared>,
    handshake: &Handshake,
    message: &Bound<'_, PyDict>,
) -> PyResult<Vec<u8>> {
    let py = message.py();
    let mut head = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    let mut field = |name: &[u8], value: &[u8]| {
        for piece in [name, b": ", value, b"\r\n"] {
            head.extend_from_slice(piece);
        }
    };
    if !shared.server.is_empty() {
        field(b"Server", &shared.server);
    }
    field(b"Date", shared.date.borrow_mut().now());
    field(b"Connection", b"Upgrade");
    field(b"Upgrade", b"websocket");
    field(b"Sec-WebSocket-Accept", &handshake.accept);
    if let Some(name) = chosen_subprotocol(message)? {
        field(b"Sec-WebSocket-Protocol", name.to_str()?.as_bytes());
    }
    if let Some(deflate) = &handshake.deflate {
        let mut value = Vec::new();
        deflate.push_value(&mut value);
        field(b"Sec-WebSocket-Extensions", &value);
    }
    if let Some(headers) = message.get_item(intern!(py, "headers"))?.filter(|headers| !headers.is_none()) {
        let fields = fields_in_bytes(&headers)?;
        refuse_own_fields(&fields)?;
        head.extend_from_slice(&fields);
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

fn chosen_subprotocol<'py>(message: &Bound<'py, PyDict>) -> PyResult<Option<Bound<'py, PyString>>> {
    let given = message.get_item(intern!(message.py(), "subprotocol"))?.filter(|given| !given.is_none());
    let Some(given) = given else { return Ok(None) };
    let name = given
        .cast_into::<PyString>()
        .map_err(|_| PyTypeError::new_err("the subprotocol of websocket.accept must be a str or None"))?;
    if name.to_str().is_ok_and(|name| bicorn_wire::is_token(name.as_bytes())) {
        return Ok(Some(name));
    }
    Err(PyValueError::new_err(format!("invalid subprotocol {}: it is not a token", name.repr()?)))
}

/// What the handshake says is between the server and the client.
fn refuse_own_fields(fields: &[u8]) -> PyResult<()> {
    let is_own = |line: &[u8]| {
        let name = &line[..memchr::memchr(b':', line).unwrap_or(line.len())];
        name.len() > 14 && name[..14].eq_ignore_ascii_case(b"sec-websocket-")
    };
    match fields.split(|&byte| byte == b'\n').find(|line| is_own(line)) {
        None => Ok(()),
        Some(line) => Err(PyRuntimeError::new_err(format!(
            "websocket.accept must not set {}: the server does",
            String::from_utf8_lossy(&line[..memchr::memchr(b':', line).unwrap_or(line.len())])
        ))),
    }
}

/// The handshake that a head asks for, if it asks for one.
pub fn read_handshake(
    shared: &Shared,
    head: &Head,
    bytes: &[u8],
) -> Option<Result<Handshake, HandshakeRefusal>> {
    bicorn_wire::websocket::is_websocket(head, bytes)
        .then(|| Handshake::read(head, bytes, shared.websocket.deflate))
}
