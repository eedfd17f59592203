//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;

/// An iterable over a file, which the server may replace by `sendfile(2)`.
#[pyclass(dict, module = "bicorn._core")]
pub struct FileWrapper {
    /// The file-like object.
    #[pyo3(get)]
    pub filelike: Py<PyAny>,
    /// Bytes a block.
    #[pyo3(get)]
    blksize: isize,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, blksize=8192))]
    fn new(filelike: Py<PyAny>, blksize: isize) -> Self {
        Self { filelike, blksize }
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self.filelike.bind(py).call_method1("read", (self.blksize,))?;
        Ok(if block.is_truthy()? { Some(block) } else { None })
    }

    /// The iteration protocol of Python 1, which PEP 3333 still names.
    fn __getitem__<'py>(&self, py: Python<'py>, key: isize) -> PyResult<Bound<'py, PyAny>> {
        let _ = key;
        self.__next__(py)?.ok_or_else(|| PyIndexError::new_err("end of file"))
    }

    /// There only if the file has one, as the PEP wants it.
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        if name == "close" {
            return self.filelike.bind(py).getattr("close");
        }
        Err(pyo3::exceptions::PyAttributeError::new_err(format!(
            "'FileWrapper' object has no attribute '{name}'"
        )))
    }
}
