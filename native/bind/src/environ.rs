//! The environ of PEP 3333, as Gunicorn builds it.
//!
//! Owns       what a request's head becomes in Python.
//! Never      lets a client set a key that is not its own: every field becomes `HTTP_…`, except the
//!            two names that CGI spells without a prefix (RFC 3875, 4.1).
//! Invariant  keys are made once and the constant ones come with the copy of a template, so a request
//!            pays only for what is its own.

use std::sync::Arc;

use bicorn_reactor::{Job, Request};
use bicorn_wire::{Field, Head, Refusal, RefusalKind, TargetForm};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::front::Front;
use crate::names::{Name, Names, Role};
use crate::peer::Peer;
use crate::text::{Memo, latin1};
use crate::trust::{HeaderMap, Trust};

/// Why a request gets no environ.
pub enum EnvironError {
    /// The request broke a rule that only the settings know.
    Refused(Refusal),
    /// The path does not start with SCRIPT_NAME, a mistake of whoever configured one of the two.
    Misplaced(String),
    /// Python ran out of something.
    Python(PyErr),
}

impl From<PyErr> for EnvironError {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

/// What all environs of a worker have in common.
pub struct EnvironRules {
    /// One template a listener: what does not change between requests.
    pub templates: Vec<Py<PyDict>>,
    /// The listener is a unix socket, so SERVER_NAME and SERVER_PORT come from Host.
    pub nameless: Vec<bool>,
    /// Who may speak for others.
    pub trust: Arc<Trust>,
    /// From the environment; a trusted proxy may say another.
    pub script_name: Vec<u8>,
    /// Methods are put in upper case.
    pub casefold_method: bool,
}

/// Makes environs, for one thread at a time: what it remembers of the last one makes the next one cheap.
pub struct Environs {
    rules: Arc<EnvironRules>,
    names: Names,
    method: Memo,
    target: Memo,
    path: Memo,
    query: Memo,
    get: Py<PyAny>,
    last: Last,
}

/// The last head, and once it has come twice, the environ that it makes: what differs between two
/// requests with the same head is only the connection.
#[derive(Default)]
struct Last {
    bytes: Vec<u8>,
    listener: usize,
    trusted: bool,
    environ: Option<Py<PyDict>>,
}

/// Longer heads are not remembered.
const REMEMBERED_BYTES_MAX: usize = 2048;

impl Last {
    #[inline]
    fn is_again(&self, request: &Request, peer: &Peer) -> bool {
        self.bytes == request.bytes && self.listener == peer.listener && self.trusted == peer.trusted
    }

    fn note(&mut self, request: &Request, peer: &Peer) {
        self.environ = None;
        self.bytes.clear();
        if request.bytes.len() <= REMEMBERED_BYTES_MAX {
            self.bytes.extend_from_slice(&request.bytes);
        }
        self.listener = peer.listener;
        self.trusted = peer.trusted;
    }
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

/// What the fields said about the request as a whole.
#[derive(Default)]
struct Seen<'a> {
    scheme_https: Option<bool>,
    script_name: Option<&'a [u8]>,
}

impl Environs {
    /// Environs by these rules.
    pub fn new(py: Python<'_>, rules: Arc<EnvironRules>) -> Self {
        Self {
            rules,
            names: Names::default(),
            method: Memo::default(),
            target: Memo::default(),
            path: Memo::default(),
            query: Memo::default(),
            get: intern!(py, "GET").clone().unbind().into_any(),
            last: Last::default(),
        }
    }

    /// The environ of `job`'s request; `wsgi.input` is the template's unless the caller sets it.
    #[inline]
    pub fn build<'py>(
        &mut self,
        py: Python<'py>,
        job: &mut Job<Front>,
    ) -> Result<Bound<'py, PyDict>, EnvironError> {
        let peer = job.peer.as_mut().expect("a job that calls has its peer");
        let environ = self.of_head(py, &job.request, peer)?;
        let shown = peer.shown(py);
        environ.set_item(intern!(py, "REMOTE_ADDR"), &shown.remote_addr)?;
        if let Some(port) = &shown.remote_port {
            environ.set_item(intern!(py, "REMOTE_PORT"), port)?;
        }
        if let Some(proxied) = &shown.proxied {
            proxied.show(py, &environ)?;
        }
        Ok(environ)
    }

    /// The part of the environ that only the head decides.
    #[inline]
    fn of_head<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request,
        peer: &Peer,
    ) -> Result<Bound<'py, PyDict>, EnvironError> {
        let again = self.last.is_again(request, peer);
        if again && let Some(environ) = &self.last.environ {
            return Ok(copy(py, environ)?);
        }
        let environ = self.of_new_head(py, request, peer)?;
        if again {
            self.last.environ = Some(environ.copy()?.unbind());
        } else {
            self.last.note(request, peer);
        }
        Ok(environ)
    }

    fn of_new_head<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request,
        peer: &Peer,
    ) -> Result<Bound<'py, PyDict>, EnvironError> {
        let rules = Arc::clone(&self.rules);
        let environ = copy(py, &rules.templates[peer.listener])?;
        let (head, bytes) = (&request.head, request.bytes.as_slice());
        self.request_line(py, &environ, head, bytes)?;
        let seen = self.fields(py, &environ, head, bytes, peer.trusted)?;
        if let Some(authority) = head.authority.filter(|_| head.form == TargetForm::Absolute) {
            // The authority of the target replaces whatever Host says (RFC 9112, 3.2.2).
            environ.set_item(intern!(py, "HTTP_HOST"), latin1(py, authority.of(bytes))?)?;
        }
        let https = seen.scheme_https.unwrap_or(false);
        if https {
            environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
        }
        self.paths(py, &environ, head, bytes, seen.script_name)?;
        if rules.nameless[peer.listener] {
            name_by_host(py, &environ, head, bytes, https)?;
        }
        Ok(environ)
    }

    #[inline]
    fn request_line(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        head: &Head,
        bytes: &[u8],
    ) -> PyResult<()> {
        let method = self.method(py, head, bytes)?;
        if !method.is(&self.get) {
            environ.set_item(intern!(py, "REQUEST_METHOD"), method)?;
        }
        if !head.query.is_empty() {
            environ.set_item(intern!(py, "QUERY_STRING"), self.query.text(py, head.query.of(bytes))?)?;
        }
        if head.version != bicorn_wire::Version::Http11 {
            environ.set_item(intern!(py, "SERVER_PROTOCOL"), protocol(py, head))?;
        }
        environ.set_item(intern!(py, "RAW_URI"), self.target.text(py, head.target.of(bytes))?)
    }

    /// The method, in upper case where the settings ask for that.
    #[inline]
    fn method<'py>(&mut self, py: Python<'py>, head: &Head, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let method = head.method.of(bytes);
        if method == b"GET" {
            return Ok(self.get.bind(py).clone());
        }
        if self.rules.casefold_method {
            return self.method.text(py, &method.to_ascii_uppercase());
        }
        self.method.text(py, method)
    }

    #[inline]
    fn fields<'a>(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        head: &Head,
        bytes: &'a [u8],
        trusted: bool,
    ) -> Result<Seen<'a>, EnvironError> {
        let mut seen = Seen::default();
        for field in &head.fields {
            let name = self.names.get(py, field.name.of(bytes));
            if trusted {
                note_scheme(&self.rules.trust, name, field, bytes, &mut seen.scheme_https)
                    .map_err(EnvironError::Refused)?;
            }
            if name.ambiguous {
                match vouched(&self.rules.trust, name, trusted) {
                    HeaderMap::Drop => continue,
                    HeaderMap::Refuse => {
                        return Err(EnvironError::Refused(RefusalKind::AmbiguousFieldName.into()));
                    }
                    HeaderMap::Dangerous => {
                        if name.upper == b"SCRIPT_NAME" {
                            seen.script_name = Some(field.value.of(bytes));
                        }
                    }
                }
            }
            set_field(py, environ, name, field, bytes)?;
        }
        Ok(seen)
    }

    #[inline]
    fn paths(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        head: &Head,
        bytes: &[u8],
        forwarded: Option<&[u8]>,
    ) -> Result<(), EnvironError> {
        let mut path = head.path.of(bytes);
        let script_name = forwarded.unwrap_or(&self.rules.script_name);
        if !script_name.is_empty() {
            path = path.strip_prefix(script_name).ok_or_else(|| {
                EnvironError::Misplaced(format!(
                    "the path {} does not start with SCRIPT_NAME {}, which {} set",
                    String::from_utf8_lossy(path),
                    String::from_utf8_lossy(script_name),
                    if forwarded.is_some() { "a trusted proxy" } else { "the environment" },
                ))
            })?;
            environ.set_item(intern!(py, "SCRIPT_NAME"), latin1(py, script_name)?)?;
        }
        let path_info = if memchr::memchr(b'%', path).is_some() {
            latin1(py, &percent_decoded(path))?
        } else {
            self.path.text(py, path)?
        };
        environ.set_item(intern!(py, "PATH_INFO"), path_info)?;
        Ok(())
    }
}

/// `SERVER_PROTOCOL`.
pub fn protocol<'py>(py: Python<'py>, head: &Head) -> Bound<'py, PyString> {
    match head.version {
        bicorn_wire::Version::Http11 => intern!(py, "HTTP/1.1").clone(),
        bicorn_wire::Version::Http10 => intern!(py, "HTTP/1.0").clone(),
        bicorn_wire::Version::Other { major, minor } => PyString::new(py, &format!("HTTP/{major}.{minor}")),
    }
}

/// What is to happen to a name with an underscore.
pub fn vouched(trust: &Trust, name: &Name, trusted: bool) -> HeaderMap {
    if trusted && trust.may_forward(&name.upper) { HeaderMap::Dangerous } else { trust.header_map }
}

/// Takes the scheme from a trusted proxy; two that disagree are refused, because one of them lies.
pub fn note_scheme(
    trust: &Trust,
    name: &Name,
    field: &Field,
    bytes: &[u8],
    scheme_https: &mut Option<bool>,
) -> Result<(), Refusal> {
    for (scheme_name, secure_value) in &trust.secure_scheme_headers {
        if *scheme_name == name.upper {
            let https = *secure_value == *field.text(bytes);
            if scheme_https.is_some_and(|before| before != https) {
                return Err(RefusalKind::ContradictoryScheme.into());
            }
            *scheme_https = Some(https);
        }
    }
    Ok(())
}

#[inline]
fn set_field(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    name: &mut Name,
    field: &Field,
    bytes: &[u8],
) -> PyResult<()> {
    let value = if field.folded {
        latin1(py, &bicorn_wire::unfold(field.value.of(bytes)))?
    } else {
        name.value.text(py, field.value.of(bytes))?
    };
    let before = environ.len();
    // SAFETY: all three are alive; the result is borrowed from the dict, or null with an error set.
    let present = unsafe { ffi::PyDict_SetDefault(environ.as_ptr(), name.key.as_ptr(), value.as_ptr()) };
    if present.is_null() {
        return Err(PyErr::fetch(py));
    }
    // The size, not the value, tells: equal values may well be the same object.
    if environ.len() == before {
        // SAFETY: borrowed from the dict, which keeps it alive while this reference is taken.
        let present = unsafe { Bound::from_borrowed_ptr(py, present) };
        return join(py, environ, name, &present, &value);
    }
    Ok(())
}

/// A field that came before is joined to one value (RFC 9110, 5.3).
#[cold]
fn join(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    name: &Name,
    present: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let separator = if name.role == Role::Cookie { intern!(py, "; ") } else { intern!(py, ",") };
    let joined = separator.call_method1(intern!(py, "join"), ((present, value),))?;
    environ.set_item(&name.key, joined)
}

/// On a unix socket only the client knows what the server is called.
#[cold]
fn name_by_host(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    head: &Head,
    bytes: &[u8],
    https: bool,
) -> PyResult<()> {
    let Some(host) = head.effective_host().map(|host| host.of(bytes)).filter(|host| !host.is_empty()) else {
        return Ok(());
    };
    // The last colon separates the port, unless it is one inside an IPv6 literal.
    let colon = host.iter().rposition(|&byte| byte == b':').filter(|&at| !host[at..].contains(&b']'));
    let default_port: &[u8] = if https { b"443" } else { b"80" };
    let (name, port) = colon.map_or((host, default_port), |at| (&host[..at], &host[at + 1..]));
    // An empty port is the default one (RFC 3986, 6.2.3), and SERVER_PORT is never empty (PEP 3333).
    let port = if port.is_empty() { default_port } else { port };
    environ.set_item(intern!(py, "SERVER_NAME"), latin1(py, name)?)?;
    environ.set_item(intern!(py, "SERVER_PORT"), latin1(py, port)?)
}

/// The path with its escapes resolved; what is no escape stays as it is.
pub fn percent_decoded(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%'
            && let [high, low, after @ ..] = tail
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            decoded.push(high << 4 | low);
            rest = after;
        } else {
            decoded.push(byte);
        }
    }
    decoded
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::percent_decoded;

    #[test]
    fn escapes_are_resolved_and_everything_else_is_kept() {
        for (path, expected) in [
            (&b"/plain"[..], &b"/plain"[..]),
            (b"/a%20b", b"/a b"),
            (b"/%E2%82%AC", b"/\xe2\x82\xac"),
            (b"/100%", b"/100%"),
            (b"/%4", b"/%4"),
            (b"/%zz%41", b"/%zzA"),
            (b"/%2541", b"/%41"),
        ] {
            assert_eq!(percent_decoded(path), expected);
        }
    }
}
