//! `wsgi.input`: the complete request body as a file.
//!
//! Owns       the empty input, which every request without a body shares.
//! Never      waits: a request reaches its application only with its whole body.

use std::fs::File;
use std::os::fd::{IntoRawFd, OwnedFd};

use bicorn_reactor::RequestBody;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

/// The input of a request without a body. It has no state, so one object serves all of them.
#[pyclass(frozen, module = "bicorn._core")]
pub struct EmptyInput;

#[pymethods]
impl EmptyInput {
    #[new]
    fn new() -> Self {
        Self
    }

    #[pyo3(signature = (size=None))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> Bound<'py, PyBytes> {
        let _ = size;
        PyBytes::new(py, b"")
    }

    #[pyo3(signature = (size=None))]
    fn read1<'py>(&self, py: Python<'py>, size: Option<isize>) -> Bound<'py, PyBytes> {
        self.read(py, size)
    }

    #[pyo3(signature = (size=None))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> Bound<'py, PyBytes> {
        self.read(py, size)
    }

    #[pyo3(signature = (hint=None))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> Bound<'py, PyList> {
        let _ = hint;
        PyList::empty(py)
    }

    fn readinto(&self, buffer: &Bound<'_, PyAny>) -> usize {
        let _ = buffer;
        0
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }

    fn tell(&self) -> u64 {
        0
    }

    #[pyo3(signature = (offset, whence=0))]
    fn seek(&self, offset: i64, whence: i32) -> u64 {
        let _ = (offset, whence);
        0
    }

    fn readable(&self) -> bool {
        true
    }

    fn seekable(&self) -> bool {
        true
    }

    fn writable(&self) -> bool {
        false
    }

    fn flush(&self) {}

    fn close(&self) {}

    #[getter]
    fn closed(&self) -> bool {
        false
    }
}

/// Makes the input of a request that has a body.
pub struct Inputs {
    bytes_io: Py<PyAny>,
    open_file: Py<PyAny>,
}

impl Inputs {
    /// Looks up what Python offers for bytes and files.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let io = py.import("io")?;
        Ok(Self { bytes_io: io.getattr("BytesIO")?.unbind(), open_file: io.getattr("open")?.unbind() })
    }

    /// The input for `body`, or none when it is empty.
    pub fn input<'py>(&self, py: Python<'py>, body: RequestBody) -> PyResult<Option<Bound<'py, PyAny>>> {
        let bytes = match body {
            RequestBody::Empty => return Ok(None),
            RequestBody::Memory(bytes) => PyBytes::new(py, &bytes),
            RequestBody::File(file, _) => return self.file(py, file).map(Some),
        };
        // BytesIO shares the bytes object until somebody writes: this is not a second copy.
        self.bytes_io.bind(py).call1((bytes,)).map(Some)
    }

    fn file<'py>(&self, py: Python<'py>, file: File) -> PyResult<Bound<'py, PyAny>> {
        let fd = OwnedFd::from(file).into_raw_fd();
        self.open_file.bind(py).call1((fd, "rb"))
    }
}
