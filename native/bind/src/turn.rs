//! Requests whose turn has come, for loops whose HTTP is not ours.
//!
//! Owns       nothing: the rule is the reactor's, for every worker.
//! Never      knows what the request is.

use std::os::fd::BorrowedFd;

use bicorn_reactor::waiting::{self, weigh};
use pyo3::prelude::*;

use crate::arrival::arrival;

/// What becomes of a request whose turn has come.
#[pyclass(frozen, eq, eq_int, module = "bicorn._core", rename_all = "SCREAMING_SNAKE_CASE")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The application answers it.
    Run,
    /// It has waited for too long.
    Refuse,
    /// Its client has gone.
    Forget,
}

/// Judges a request by what the kernel knows of its socket. It was read `waited_ns` ago, and the answer before it on its
/// connection had left `since_answer_ns` ago; it may wait for `queue_ns`, None for ever.
#[pyfunction]
#[pyo3(name = "judge_turn")]
pub fn judge(fd: i32, waited_ns: u64, since_answer_ns: u64, queue_ns: Option<u64>) -> Turn {
    // SAFETY: the caller's descriptor, used only for this call.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    match weigh(arrival(socket), waited_ns, since_answer_ns, queue_ns.unwrap_or(u64::MAX)) {
        waiting::Turn::Run => Turn::Run,
        waiting::Turn::Refuse(_) => Turn::Refuse,
        waiting::Turn::Forget => Turn::Forget,
    }
}
