//! Telling logs and hooks of finished responses.
//!
//! Owns       the request by the names of CGI, which the formats of access logs are written in.
//! Never      costs a worker without an access log and without hooks anything.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::Shared;
use crate::access::{Answer, Finished};
use crate::text::latin1;

/// A response that has left, for the logs.
pub struct Left<'a, 'py> {
    pub scope: &'a Bound<'py, PyDict>,
    pub line: &'a (Vec<u8>, Vec<u8>),
    pub remote_addr: &'a Bound<'py, PyAny>,
    pub status: u16,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body_bytes: u64,
    pub elapsed_ns: u64,
    pub now_ns: u64,
    pub observer: Option<Py<PyAny>>,
}

impl Answer for Left<'_, '_> {
    fn status(&self) -> u16 {
        self.status
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    fn fields(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.fields.clone()
    }
}

impl Shared {
    /// Whether anybody wants to hear of finished responses.
    #[inline]
    pub fn is_logging(&self) -> bool {
        self.observed || self.access.is_some()
    }

    /// Tells whoever wants to hear of it.
    #[cold]
    pub fn log(&self, py: Python<'_>, left: &Left<'_, '_>) {
        let result = self.environ(py, left).and_then(|environ| {
            if let Some(access) = &self.access {
                let finished = Finished {
                    environ: &environ,
                    response: left,
                    elapsed_ns: left.elapsed_ns,
                    now_ns: left.now_ns,
                };
                access.bind(py).borrow().add(py, &finished)?;
            }
            let Some(observer) = &left.observer else { return Ok(()) };
            let fields = left.fields.iter().map(|(name, value)| Ok((latin1(py, name)?, latin1(py, value)?)));
            let fields = fields.collect::<PyResult<Vec<_>>>()?;
            let status = format!("{} {}", left.status, bicorn_wire::reason_phrase(left.status));
            let elapsed_us = left.elapsed_ns / 1_000;
            self.report(
                py,
                "request_left",
                (observer, &environ, status, fields, left.body_bytes, elapsed_us),
            );
            Ok(())
        });
        if let Err(error) = result {
            error.write_unraisable(py, None);
        }
    }

    /// The request by the names of CGI, which the formats of access logs are written in.
    fn environ<'py>(&self, py: Python<'py>, left: &Left<'_, 'py>) -> PyResult<Bound<'py, PyDict>> {
        let (environ, scope) = (PyDict::new(py), left.scope);
        environ.set_item(intern!(py, "REMOTE_ADDR"), left.remote_addr)?;
        environ.set_item(intern!(py, "REQUEST_METHOD"), latin1(py, &left.line.0)?)?;
        environ.set_item(intern!(py, "RAW_URI"), latin1(py, &left.line.1)?)?;
        for (key, of_scope) in
            [("PATH_INFO", "path"), ("wsgi.url_scheme", "scheme"), ("SCRIPT_NAME", "root_path")]
        {
            environ.set_item(key, scope.get_item(of_scope)?)?;
        }
        let bytes = |name: &str| -> PyResult<Bound<'py, PyAny>> {
            match scope.get_item(name)?.map(|value| value.cast_into::<PyBytes>()) {
                Some(Ok(value)) => latin1(py, value.as_bytes()),
                _ => Ok(PyString::new(py, "").into_any()),
            }
        };
        environ.set_item(intern!(py, "QUERY_STRING"), bytes("query_string")?)?;
        if let Some(version) = scope.get_item(intern!(py, "http_version"))? {
            environ.set_item(intern!(py, "SERVER_PROTOCOL"), format!("HTTP/{version}"))?;
        }
        if let Some(Ok(headers)) =
            scope.get_item(intern!(py, "headers"))?.map(|list| list.cast_into::<PyList>())
        {
            let mut names = self.environ_names.borrow_mut();
            for pair in headers.iter() {
                let (name, value) = pair.extract::<(Bound<'_, PyBytes>, Bound<'_, PyBytes>)>()?;
                let name = names.get(py, name.as_bytes());
                environ.set_item(&name.key, name.value.text(py, value.as_bytes())?)?;
            }
        }
        Ok(environ)
    }
}
