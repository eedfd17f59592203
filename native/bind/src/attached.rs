//! How a thread that holds the interpreter lock waits: without it.

use bicorn_reactor::Waiter;
use pyo3::prelude::*;

/// Carries a closure or a result over the Send bound of `detach`, which stands for "uses no Python".
struct NoPython<T>(T);

// SAFETY: what waits touches file descriptors and plain memory only, and stays on its thread.
unsafe impl<T> Send for NoPython<T> {}

impl<R, F: FnOnce() -> R> NoPython<F> {
    fn call(self) -> NoPython<R> {
        NoPython((self.0)())
    }
}

/// A thread that holds the interpreter lock whenever it does not wait.
pub struct Attached<'py>(pub Python<'py>);

impl Waiter for Attached<'_> {
    fn wait<R>(&mut self, block: impl FnOnce() -> R) -> R {
        let block = NoPython(block);
        self.0.detach(move || block.call()).0
    }
}
