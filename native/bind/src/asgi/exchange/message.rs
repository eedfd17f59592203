//! Reading the dicts of ASGI messages.
//!
//! Owns       what counts as true, and as bytes.
//! Never      keeps anything of a message.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyString};

/// The value of a key of a message.
#[inline]
pub(super) fn value<'py>(
    message: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    message.get_item(key)
}

#[inline]
pub(super) fn flag(message: &Bound<'_, PyDict>, key: &Bound<'_, PyString>) -> PyResult<bool> {
    match value(message, key)? {
        None => Ok(false),
        Some(given) => match given.cast_exact::<PyBool>() {
            Ok(exact) => Ok(exact.is_true()),
            Err(_) => given.is_truthy(),
        },
    }
}

/// The bytes of a message's body, whatever object holds them.
pub(super) enum Block<'py> {
    Bytes(Bound<'py, PyBytes>),
    Copied(Vec<u8>),
}

impl<'py> Block<'py> {
    #[inline]
    pub(super) fn of(py: Python<'py>, message: &Bound<'py, PyDict>) -> PyResult<Self> {
        let Some(given) = value(message, intern!(py, "body"))? else {
            return Ok(Self::Copied(Vec::new()));
        };
        match given.cast_into::<PyBytes>() {
            Ok(bytes) => Ok(Self::Bytes(bytes)),
            Err(error) => {
                let other = error.into_inner();
                let buffer = PyBuffer::<u8>::get(&other).map_err(|_| {
                    let kind =
                        other.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
                    PyTypeError::new_err(format!("the body of a message must be bytes, not {kind}"))
                })?;
                Ok(Self::Copied(buffer.to_vec(py)?))
            }
        }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes(),
            Self::Copied(bytes) => bytes,
        }
    }
}
