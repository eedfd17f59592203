//! Bytes that the application made, on their way to a client.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Bytes of an answer, sent from where they lie.
pub struct Chunk {
    bytes: Py<PyBytes>,
    len: usize,
}

impl Chunk {
    /// The first `len` bytes of a bytes object.
    #[inline]
    pub fn new(bytes: Bound<'_, PyBytes>, len: usize) -> Self {
        debug_assert!(len <= bytes.as_bytes().len());
        Self { bytes: bytes.unbind(), len }
    }
}

impl AsRef<[u8]> for Chunk {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: reading a bytes object needs no interpreter lock: it never changes or moves, and
        // the reference held here keeps it alive. The loop holds the lock anyway.
        let py = unsafe { Python::assume_attached() };
        &self.bytes.as_bytes(py)[..self.len]
    }
}
