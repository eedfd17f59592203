//! `bicorn._core`: the native half of Bicorn, as Python sees it.
//!
//! Owns       every conversion between Python objects and the values of `wire` and `reactor`.
//! Never      decides what a request means (wire) or when a socket is touched (reactor).
//! Invariant  no panic crosses into Python except as an exception, and no Python error is lost.

use pyo3::prelude::*;

mod access;
mod arrival;
mod asgi;
mod attached;
mod body;
mod callable;
mod chunk;
mod client_socket;
mod context;
mod deadline;
mod environ;
mod exchange;
mod file_wrapper;
mod front;
mod green_loop;
mod handover;
mod input;
mod late;
mod lineage;
mod lines;
mod names;
mod options;
mod peer;
mod post;
mod response;
mod response_head;
mod said;
mod scoreboard;
mod stock;
mod sync_loop;
mod text;
mod thread_loop;
mod thread_watch;
mod trust;
mod turn;
mod unsignalled;
mod wire_options;
mod wsgi;

#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<access::AccessLog>()?;
    module.add_class::<asgi::server::AsgiServer>()?;
    module.add_class::<asgi::WsgiHead>()?;
    module.add_class::<deadline::Deadline>()?;
    module.add_class::<file_wrapper::FileWrapper>()?;
    module.add_class::<green_loop::GreenLoop>()?;
    module.add_class::<green_loop::GreenJob>()?;
    module.add_class::<handover::Handover>()?;
    module.add_class::<input::EmptyInput>()?;
    module.add_class::<lines::python::Line>()?;
    module.add_class::<lines::python::Lines>()?;
    module.add_class::<scoreboard::Scoreboard>()?;
    module.add_class::<scoreboard::Slot>()?;
    module.add_class::<sync_loop::SyncLoop>()?;
    module.add_class::<thread_loop::ThreadLoop>()?;
    module.add_class::<turn::Turn>()?;
    module.add_function(wrap_pyfunction!(access::compile_access_format, module)?)?;
    module.add_function(wrap_pyfunction!(turn::judge, module)?)?;
    Ok(())
}
