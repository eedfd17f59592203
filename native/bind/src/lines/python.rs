//! The connections of a loop that is Python's, as Python tells of them.
//!
//! Owns       the class `Lines`.
//! Never      decides anything: the table does.

use std::sync::Arc;

use bicorn_reactor::handover::Handover as Queue;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::io::Errno;

use super::{Lines as Table, abort};
use crate::options::duplicate;

/// The connections of one worker, which are given up at SIGABRT.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Lines(Arc<Table>);

impl Lines {
    /// The table.
    pub fn shared(&self) -> Arc<Table> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl Lines {
    #[new]
    fn new(server: &str, handover: Option<(i32, i32)>, listeners: Vec<String>) -> PyResult<Self> {
        let queue = match handover {
            Some((put, take)) => Some(Queue { put: duplicate(put)?, take: duplicate(take)?, listeners }),
            None => None,
        };
        let unusable = |errno: Errno| PyOSError::new_err((errno.raw_os_error(), "cannot watch connections"));
        let table = Arc::new(Table::new(queue, server.as_bytes()).map_err(unusable)?);
        abort::arm(Arc::clone(&table)).map_err(unusable)?;
        Ok(Self(table))
    }

    /// The worker is about to die: answers what has no answer yet, and leaves idle connections behind.
    fn give_up(&self) {
        self.0.give_up();
    }
}
