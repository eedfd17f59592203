//! Latin-1 text between bytes and Python strings, the "native strings" of PEP 3333.
//!
//! Owns       the two conversions, and the memory of what was converted last.
//! Never      guesses an encoding: a byte is a code point, a code point over 255 is an error.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::types::string::PyStringData;
use pyo3::{Borrowed, ffi};

/// Values longer than this are not remembered: they rarely come twice.
const MEMO_BYTES_MAX: usize = 256;

/// A string of one code point a byte.
#[inline]
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: pointer and length describe `bytes`; the result is a new reference or an error is set.
    unsafe {
        let text = ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), bytes.len() as isize, std::ptr::null());
        Bound::from_owned_ptr_or_err(py, text)
    }
}

/// The bytes of a native string: `what` names it in the error.
#[inline]
pub fn latin1_bytes<'a>(text: Borrowed<'a, '_, PyAny>, what: &str) -> PyResult<&'a [u8]> {
    let Ok(string) = text.cast::<PyString>() else {
        let kind = text.get_type().name()?;
        return Err(PyTypeError::new_err(format!("{what} must be a str, not {kind}: {}", text.repr()?)));
    };
    // SAFETY: the string is alive for 'a, and Python strings do not change.
    match unsafe { string.data() }? {
        // SAFETY: the slice lies inside the string object, which outlives 'a.
        PyStringData::Ucs1(bytes) => Ok(unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) }),
        PyStringData::Ucs2(_) | PyStringData::Ucs4(_) => Err(PyValueError::new_err(format!(
            "{what} has a character that is not in Latin-1 and so cannot be sent: {}",
            text.repr()?
        ))),
    }
}

/// The last string made in one place, given again when the same bytes come again.
#[derive(Default)]
pub struct Memo {
    bytes: Vec<u8>,
    text: Option<Py<PyAny>>,
}

impl Memo {
    /// The string for `bytes`.
    #[inline]
    pub fn text<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        if let Some(text) = &self.text
            && self.bytes == bytes
        {
            return Ok(text.bind(py).clone());
        }
        self.renew(py, bytes)
    }

    #[cold]
    fn renew<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let text = latin1(py, bytes)?;
        if bytes.len() <= MEMO_BYTES_MAX {
            self.bytes.clear();
            self.bytes.extend_from_slice(bytes);
            self.text = Some(text.clone().unbind());
        }
        Ok(text)
    }
}
