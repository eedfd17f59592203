//! A body that comes from a file, a block at a time.
//!
//! Owns       what the task that reads the file may do to the response.
//! Never      reads the file: `file_send` does.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::{Exchange, Stage, client_gone};

impl Exchange {
    /// Raises unless a block of the body may come now.
    pub fn expect_body(&self, py: Python<'_>) -> PyResult<()> {
        let stage = self.state.get(py).stage.get();
        if matches!(stage, Stage::Started | Stage::Sending) {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!("a file is out of order: the response is {}", stage.text())))
    }

    /// The body is about to begin; `whole` is its length where that is known.
    pub fn begin_body(&self, py: Python<'_>, whole: Option<u64>) {
        let state = self.state.get(py);
        let conn = state.conn.borrow().clone();
        if let Some(conn) = conn
            && state.stage.get() == Stage::Started
        {
            state.finish_head(&conn, whole.filter(|_| !state.trailers_promised.get()));
        }
    }

    /// Sends one more block.
    pub fn put_more(&self, py: Python<'_>, block: &[u8], more: bool) -> PyResult<()> {
        let state = self.state.get(py);
        let conn = state.conn.borrow().clone();
        let conn = conn.filter(|conn| !conn.out.closed.get()).ok_or_else(client_gone)?;
        self.expect_body(py)?;
        self.put(py, &conn, block, more);
        Ok(())
    }

    /// What to wait for before the next block, if the connection takes no more now.
    pub fn until_drained<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let state = self.state.get(py);
        let paused = state.conn.borrow().as_ref().is_some_and(|conn| conn.out.paused.get());
        if paused { state.shared.wait(py, &state.draining).map(Some) } else { Ok(None) }
    }
}
