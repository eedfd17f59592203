//! The way of one connection to another worker.
//!
//! Owns       whether it can go, and what is left of it here.
//! Invariant  nothing that was read of it, or is to be written to it, is here when it goes.

use pyo3::prelude::*;

use super::{Conn, Phase};

impl Conn {
    /// Whether it has served a request, here or elsewhere.
    pub fn has_served(&self) -> bool {
        self.came.served || self.freed_ns.get() != 0
    }

    /// Whether another worker can go on with it: it is between two requests.
    pub fn is_movable(&self) -> bool {
        let told_once = self.shared.proxy_rules.is_some() && self.has_served(); // What a PROXY header said stays here.
        let is_idle = self.phase.get() == Phase::Idle && !self.driving.get() && !self.eof.get();
        let is_empty =
            self.input.borrow().is_empty() && self.preamble.borrow().as_ref().is_none_or(Vec::is_empty);
        is_idle && is_empty && !self.out.paused.get() && !told_once
    }

    /// Another worker has it.
    pub fn leave(&self, py: Python<'_>) {
        self.phase.set(Phase::Closing);
        // At once, so that nothing that comes now is read here.
        self.out.tell(py, "abort");
    }
}
