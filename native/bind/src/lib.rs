//! `bicorn._core`: the native half of Bicorn, as Python sees it.
//!
//! Owns       every conversion between Python objects and the values of `wire` and `reactor`.
//! Never      decides what a request means (wire) or when a socket is touched (reactor).
//! Invariant  no panic crosses into Python except as an exception, and no Python error is lost.

use pyo3::prelude::*;

mod scoreboard;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<scoreboard::Scoreboard>()?;
    module.add_class::<scoreboard::Slot>()?;
    Ok(())
}
