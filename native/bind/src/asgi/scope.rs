//! The scope of an HTTP request, as ASGI 3.0 has it.
//!
//! Owns       what a request's head becomes in Python, and the memory of heads that come again.
//! Never      gives two requests one object that applications write to: the scope, its headers, and the dicts in it.
//! Invariant  a head that is remembered makes the same scope as when it is parsed, but for the
//!            connection's own client and server.

use std::cell::OnceCell;
use std::net::IpAddr;

use bicorn_wire::{Framing, Head, Origin, Refusal, RefusalKind, TargetForm, Version};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::asgi::exchange::Terms;
use crate::environ::{note_scheme, percent_decoded, vouched};
use crate::names::{Names, Role};
use crate::text::Memo;
use crate::trust::{HeaderMap, Trust};

/// Why a request gets no scope.
pub enum ScopeError {
    /// It broke a rule that only the settings know.
    Refused(Refusal),
    /// Python ran out of something.
    Python(PyErr),
}

impl ScopeError {
    /// The same, of a request with this method.
    pub fn of(self, method: &[u8]) -> Self {
        if let Self::Refused(refusal) = self { Self::Refused(refusal.of(method)) } else { self }
    }
}

impl From<PyErr> for ScopeError {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Refusal> for ScopeError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The other end of a connection, and this one.
pub struct Peer {
    /// It may speak for others.
    pub trusted: bool,
    /// It may send a PROXY header.
    pub may_relay: bool,
    /// Its own address.
    pub own: Client,
    /// Whom its PROXY header names.
    pub relayed: OnceCell<Client>,
    /// What its PROXY header says.
    pub origin: OnceCell<Origin>,
    /// `server` of the scope.
    pub server: Py<PyAny>,
}

/// Who the application sees at the other end.
pub struct Client {
    /// The address as text; empty on a unix socket.
    pub remote_addr: Py<PyAny>,
    /// `client` of the scope.
    pub client: Py<PyAny>,
}

impl Peer {
    /// Who is at the other end: by its PROXY header, or itself.
    pub fn client(&self) -> &Client {
        self.relayed.get().unwrap_or(&self.own)
    }

    /// Takes the proxy by its word, if this peer may send it.
    pub fn relays(&self, py: Python<'_>, origin: Origin) -> PyResult<bool> {
        if self.may_relay {
            let _ = self.origin.set(origin);
        }
        if let Origin::Relayed { client, .. } = origin
            && self.may_relay
        {
            let address = PyString::new(py, &client.ip().to_string());
            let pair = (&address, client.port()).into_pyobject(py)?.into_any().unbind();
            let _ = self.relayed.set(Client { remote_addr: address.into_any().unbind(), client: pair });
        }
        Ok(self.may_relay)
    }
}

/// Heads that are remembered at a time.
const MEMORIES: usize = 64;

/// Longer heads are not remembered.
const MEMORY_BYTES_MAX: usize = 2048;

/// A head without a body that came, and once it has come twice, what it means.
#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    trusted: bool,
    made: Option<Made>,
}

/// What a head means.
pub struct Made {
    scope: Py<PyDict>,
    headers: Py<PyList>,
    /// The client came from a trusted proxy.
    forwarded: bool,
    /// What the request decides about its response.
    pub terms: Terms,
    method: (u32, u32),
    target: (u32, u32),
}

/// Makes scopes.
pub struct Scopes {
    template: Py<PyDict>,
    /// Keys of the scope whose values are dicts: middleware writes into them, so each request has its own.
    dicts: Vec<(Py<PyAny>, Py<PyDict>)>,
    trust: Trust,
    casefold_method: bool,
    names: Names,
    method: Memo,
    path: Memo,
    get: Py<PyAny>,
    no_query: Py<PyBytes>,
    memories: Vec<Memory>,
}

/// Where a head would be remembered: by its length and a few of its bytes.
#[inline]
fn place(bytes: &[u8]) -> usize {
    let mut hash = bytes.len() as u64;
    for at in [4, bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(13)] {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes);
        hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash as usize % MEMORIES
}

/// A copy of a dict with room for what follows: CPython copies the table as it is.
#[inline]
fn copy<'py>(py: Python<'py>, dict: &Py<PyDict>) -> PyResult<Bound<'py, PyDict>> {
    // SAFETY: a live dict; the result is a new dict, or an error is set.
    unsafe {
        Bound::from_owned_ptr_or_err(py, ffi::PyDict_Copy(dict.as_ptr()))
            .map(|copy| copy.cast_into_unchecked())
    }
}

impl Scopes {
    /// Scopes from `template`, whose keys this module fills in, and with copies of `state`.
    pub fn new(
        py: Python<'_>,
        template: Py<PyDict>,
        state: Py<PyDict>,
        trust: Trust,
        casefold_method: bool,
    ) -> Self {
        let dicts_of_template = template.bind(py).iter().filter_map(|(key, value)| {
            let dict = value.cast_into::<PyDict>().ok()?;
            Some((key.unbind(), dict.unbind()))
        });
        let state = (intern!(py, "state").clone().into_any().unbind(), state);
        Self {
            dicts: dicts_of_template.chain([state]).collect(),
            template,
            trust,
            casefold_method,
            names: Names::default(),
            method: Memo::default(),
            path: Memo::default(),
            get: intern!(py, "GET").clone().unbind().into_any(),
            no_query: PyBytes::new(py, b"").unbind(),
            memories: (0..MEMORIES).map(|_| Memory::default()).collect(),
        }
    }

    /// Whether a peer may speak for others.
    pub fn trusts(&self, address: Option<IpAddr>) -> bool {
        self.trust.trusts(address)
    }

    /// What these bytes mean, if they are the head of a request without a body that came before.
    #[inline]
    pub fn recall(&self, bytes: &[u8], peer: &Peer) -> Option<&Made> {
        let memory = &self.memories[place(bytes)];
        if memory.bytes == bytes && memory.trusted == peer.trusted { memory.made.as_ref() } else { None }
    }

    /// The scope of a new request with a head that means this.
    #[inline]
    pub fn scope<'py>(&self, py: Python<'py>, made: &Made, peer: &Peer) -> PyResult<Bound<'py, PyDict>> {
        let scope = copy(py, &made.scope)?;
        // SAFETY: a live list; the result is a new list, or an error is set.
        let headers = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyList_GetSlice(made.headers.as_ptr(), 0, isize::MAX))?
        };
        scope.set_item(intern!(py, "headers"), headers)?;
        for (key, dict) in &self.dicts {
            scope.set_item(key, copy(py, dict)?)?;
        }
        scope.set_item(intern!(py, "server"), &peer.server)?;
        if !made.forwarded {
            scope.set_item(intern!(py, "client"), &peer.client().client)?;
        }
        Ok(scope)
    }

    /// What a parsed head means. `alone` says that `bytes` are this head and nothing else.
    pub fn make(
        &mut self,
        py: Python<'_>,
        head: &Head,
        bytes: &[u8],
        peer: &Peer,
        alone: bool,
    ) -> Result<Made, ScopeError> {
        let scope = copy(py, &self.template)?;
        self.request_line(py, &scope, head, bytes)?;
        let headers = PyList::empty(py);
        let seen = self.fields(py, &headers, head, bytes, peer.trusted)?;
        if seen.https {
            scope.set_item(intern!(py, "scheme"), intern!(py, "https"))?;
        }
        let client = seen.forwarded_for.as_deref().and_then(|list| self.trust.client(list));
        if let Some(client) = client {
            // The port of a client behind a proxy is not known.
            scope.set_item(intern!(py, "client"), (client, 0))?;
        }
        let made = Made {
            scope: scope.unbind(),
            headers: headers.unbind(),
            forwarded: client.is_some(),
            terms: Terms {
                is_head: self.is_method(head.method.of(bytes), b"HEAD"),
                is_connect: self.is_method(head.method.of(bytes), b"CONNECT"),
                version: head.version,
                keep_alive: head.keep_alive,
            },
            method: (head.method.start, head.method.end),
            target: (head.target.start, head.target.end),
        };
        if alone
            && matches!(head.framing, Framing::None | Framing::Length(0))
            && bytes.len() <= MEMORY_BYTES_MAX
        {
            self.note(py, bytes, peer, &made);
        }
        Ok(made)
    }

    /// What the application is told decides the framing too.
    fn is_method(&self, sent: &[u8], method: &[u8]) -> bool {
        sent == method || (self.casefold_method && sent.eq_ignore_ascii_case(method))
    }

    fn note(&mut self, py: Python<'_>, bytes: &[u8], peer: &Peer, made: &Made) {
        let memory = &mut self.memories[place(bytes)];
        if memory.bytes == bytes && memory.trusted == peer.trusted {
            memory.made = Some(made.clone_ref(py));
            return;
        }
        memory.made = None;
        memory.bytes.clear();
        memory.bytes.extend_from_slice(bytes);
        memory.trusted = peer.trusted;
    }

    fn request_line(
        &mut self,
        py: Python<'_>,
        scope: &Bound<'_, PyDict>,
        head: &Head,
        bytes: &[u8],
    ) -> PyResult<()> {
        let method = head.method.of(bytes);
        let method = match method {
            b"GET" => self.get.bind(py).clone(),
            _ if self.casefold_method => self.method.text(py, &method.to_ascii_uppercase())?,
            _ => self.method.text(py, method)?,
        };
        scope.set_item(intern!(py, "method"), method)?;
        let version = match head.version {
            Version::Http11 => intern!(py, "1.1").clone(),
            Version::Http10 => intern!(py, "1.0").clone(),
            Version::Other { major, minor } => PyString::new(py, &format!("{major}.{minor}")),
        };
        scope.set_item(intern!(py, "http_version"), version)?;
        let query = head.query.of(bytes);
        if query.is_empty() {
            scope.set_item(intern!(py, "query_string"), &self.no_query)?;
        } else {
            scope.set_item(intern!(py, "query_string"), PyBytes::new(py, query))?;
        }
        let mut path = head.path.of(bytes);
        if path.is_empty() && head.form == TargetForm::Absolute {
            // RFC 9112, 3.2.1 and 3.2.4.
            path = if head.method.of(bytes) == b"OPTIONS" { b"*" } else { b"/" };
        }
        scope.set_item(intern!(py, "raw_path"), PyBytes::new(py, path))?;
        let text = if memchr::memchr(b'%', path).is_some() {
            String::from_utf8_lossy(&percent_decoded(path)).into_pyobject(py)?.into_any()
        } else {
            self.path.text(py, path)?
        };
        scope.set_item(intern!(py, "path"), text)
    }

    fn fields(
        &mut self,
        py: Python<'_>,
        headers: &Bound<'_, PyList>,
        head: &Head,
        bytes: &[u8],
        trusted: bool,
    ) -> Result<Seen, ScopeError> {
        let (mut https, mut forwarded_for) = (None, None::<Vec<u8>>);
        // The authority of the target replaces whatever Host says (RFC 9112, 3.2.2).
        let authority =
            head.authority.filter(|_| head.form == TargetForm::Absolute).map(|span| span.of(bytes));
        if let Some(authority) = authority {
            headers.append(self.names.get(py, b"host").pair(py, authority)?)?;
        }
        for field in &head.fields {
            let name = self.names.get(py, field.name.of(bytes));
            if trusted {
                note_scheme(&self.trust, name, field, bytes, &mut https)?;
                if name.upper == b"X-FORWARDED-FOR" {
                    let before = forwarded_for.take();
                    let value = field.text(bytes);
                    forwarded_for = Some(
                        before.map_or_else(|| value.to_vec(), |list| [&list, &b","[..], &value].concat()),
                    );
                }
            }
            if name.ambiguous {
                match vouched(&self.trust, name, trusted) {
                    HeaderMap::Drop => continue,
                    HeaderMap::Refuse => return Err(Refusal::from(RefusalKind::AmbiguousFieldName).into()),
                    HeaderMap::Dangerous => {}
                }
            }
            if name.role == Role::Host && authority.is_some() {
                continue;
            }
            headers.append(name.pair(py, &field.text(bytes))?)?;
        }
        Ok(Seen { https: https.unwrap_or(false), forwarded_for })
    }
}

/// What the fields said about the request as a whole.
struct Seen {
    https: bool,
    forwarded_for: Option<Vec<u8>>,
}

impl Made {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            scope: self.scope.clone_ref(py),
            headers: self.headers.clone_ref(py),
            forwarded: self.forwarded,
            terms: self.terms,
            method: self.method,
            target: self.target,
        }
    }

    /// Method and target, in the bytes of the head.
    #[inline]
    pub fn line<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let part = |(start, end): (u32, u32)| &bytes[start as usize..end as usize];
        (part(self.method), part(self.target))
    }
}
