//! What the last response head was made from.
//!
//! Owns       the strings that an application gave, to tell whether it gives the same again: most of its
//!            answers have a head like the one before, but for the length of the body.
//! Never      keeps anything alive that could hold on to something else: plain strings and bytes only, and
//!            few and short ones.
//! Invariant  what is the same again reads byte for byte like what was noted, except for the value of
//!            Content-Length, which is read anew.

use bicorn_reactor::clock::DATE_BYTES;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::text::latin1_bytes;

/// Heads with more fields, or more bytes, are not remembered.
const FIELDS_MAX: usize = 16;
const HEAD_BYTES_MAX: usize = 2048;

/// A name and a value.
struct Field {
    name: Py<PyAny>,
    value: Py<PyAny>,
    is_length: bool,
}

/// The strings of one head, and the second that it was made in.
pub struct Said {
    /// The status line's, where that is a string.
    status: Option<Py<PyAny>>,
    fields: Vec<Field>,
    date: Option<[u8; DATE_BYTES]>,
}

/// The same was said again, with this Content-Length.
pub struct Again(pub Option<u64>);

impl Said {
    /// Nothing has been said.
    pub fn nothing() -> Self {
        Self { status: None, fields: Vec::with_capacity(FIELDS_MAX), date: None }
    }

    /// Forgets what was said.
    #[inline]
    pub fn forget(&mut self) {
        self.status = None;
        self.fields.clear();
        self.date = None;
    }

    /// Whether this is the status string that was noted.
    #[inline]
    pub fn is_status(&self, status: &Bound<'_, PyAny>) -> bool {
        self.status.as_ref().is_some_and(|said| is_same(said, status.as_borrowed()))
    }

    /// Whether these fields make the same head in this second.
    #[inline]
    pub fn again(&self, headers: &Bound<'_, PyList>, date: &[u8; DATE_BYTES]) -> Option<Again> {
        if self.date.as_ref() != Some(date) || self.fields.len() != headers.len() {
            return None;
        }
        let mut length = None;
        for (said, pair) in self.fields.iter().zip(headers.iter()) {
            let (name, value) = strings(&pair)?;
            if !is_same(&said.name, name) {
                return None;
            }
            if said.is_length {
                length = Some(bicorn_wire::parse_content_length(bytes_of(value)?.trim_ascii())?);
            } else if !is_same(&said.value, value) {
                return None;
            }
        }
        Some(Again(length))
    }

    /// Notes what a head of so many bytes was made from, if it can be told when it comes again.
    pub fn note(
        &mut self,
        status: Option<&Bound<'_, PyAny>>,
        headers: &Bound<'_, PyList>,
        date: &[u8; DATE_BYTES],
        head_bytes: usize,
    ) {
        let is_plain = status.is_none_or(|status| bytes_of(status.as_borrowed()).is_some());
        if !is_plain || headers.len() > FIELDS_MAX || head_bytes > HEAD_BYTES_MAX {
            return;
        }
        for pair in headers.iter() {
            let field = strings(&pair).and_then(|(name, value)| {
                let (is_length, _) = (is_length(bytes_of(name)?), bytes_of(value)?);
                Some(Field { name: name.to_owned().unbind(), value: value.to_owned().unbind(), is_length })
            });
            match field {
                Some(field) => self.fields.push(field),
                None => return self.forget(),
            }
        }
        self.status = status.map(|status| status.clone().unbind());
        self.date = Some(*date);
    }
}

fn is_length(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"content-length")
}

/// The two items of a tuple.
#[inline]
fn strings<'a, 'py>(
    pair: &'a Bound<'py, PyAny>,
) -> Option<(Borrowed<'a, 'py, PyAny>, Borrowed<'a, 'py, PyAny>)> {
    let pair = pair.cast_exact::<PyTuple>().ok().filter(|pair| pair.len() == 2)?;
    Some((pair.get_borrowed_item(0).ok()?, pair.get_borrowed_item(1).ok()?))
}

/// The bytes of a plain string or bytes object; none for anything else, subclasses included.
#[inline]
fn bytes_of<'a>(text: Borrowed<'a, '_, PyAny>) -> Option<&'a [u8]> {
    if text.is_exact_instance_of::<PyString>() {
        return latin1_bytes(text, "").ok();
    }
    // SAFETY: a bytes object, which is alive for 'a and does not change.
    text.is_exact_instance_of::<PyBytes>().then(|| unsafe {
        let (start, len) = (ffi::PyBytes_AsString(text.as_ptr()), ffi::PyBytes_Size(text.as_ptr()));
        std::slice::from_raw_parts(start.cast(), len as usize)
    })
}

#[inline]
fn is_same(said: &Py<PyAny>, now: Borrowed<'_, '_, PyAny>) -> bool {
    if said.as_ptr() == now.as_ptr() {
        return true;
    }
    let said = said.bind_borrowed(now.py());
    said.get_type_ptr() == now.get_type_ptr()
        && matches!((bytes_of(said), bytes_of(now)), (Some(said), Some(now)) if said == now)
}
