//! The connections of a loop that is Python's, as Python tells of them.
//!
//! Owns       the classes `Lines` and `Line`.
//! Never      decides anything: the table does.

use std::sync::Arc;

use bicorn_reactor::handover::Handover as Queue;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::io::Errno;

use super::{Line as Watched, Lines as Table, Place, abort};
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

    /// A connection was made: it is between two requests.
    fn enter(&self, fd: i32, listener: usize) -> Line {
        let line = Arc::new(Watched::default());
        let key = self.0.enter(fd, listener, &line);
        Line { table: Arc::clone(&self.0), key, line }
    }

    /// The worker is about to die: answers what has no answer yet, and leaves idle connections behind.
    fn give_up(&self) {
        self.0.give_up();
    }
}

/// One connection, for a loop that reads and writes in Python.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Line {
    table: Arc<Table>,
    key: usize,
    line: Arc<Watched>,
}

#[pymethods]
impl Line {
    /// It is between two requests, and nothing of the next one is here.
    fn rest(&self) {
        self.line.stand(Place::Idle);
    }

    /// Bytes of a request have come.
    fn begin(&self) {
        self.line.stand(Place::Request);
    }

    /// It is to be left alone.
    fn leave_alone(&self) {
        self.line.stand(Place::Elsewhere);
    }

    /// Its request is one to HEAD, or not.
    fn set_bodiless(&self, is_bodiless: bool) {
        self.line.set_bodiless(is_bodiless);
    }

    /// All that was written belongs to what came before the answer that is awaited: another one, or an interim one.
    fn reset(&self) {
        self.line.gate.reset();
    }

    /// Whether bytes may be written; from the first time on, nobody else writes any.
    fn may_write(&self) -> bool {
        self.line.gate.pass()
    }

    /// Its descriptor is about to be closed.
    fn leave(&self) {
        self.table.leave(self.key);
    }
}
