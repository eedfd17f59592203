//! The loop of the `sync` worker, as Python starts and stops it.
//!
//! Owns       the conversion of settings into the options of reactor and wire.
//! Never      handles an event: `bicorn_reactor::Server` does.

use std::cell::{Cell, RefCell};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use bicorn_reactor::{Core, Server, Sources, Spool, SpoolRules, Timeouts, Turn};
use bicorn_wire::{Leniency, Limits, Rules};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::access::AccessLog;
use crate::environ::Environs;
use crate::exchange::WriteRules;
use crate::scoreboard::Slot;
use crate::trust::Trust;
use crate::wsgi::{Wsgi, WsgiSetup};

/// Everything the loop is told, by the names of the settings; `workers/sync.py` fills it in.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Options {
    limit_request_line: usize,
    limit_request_fields: usize,
    limit_request_field_size: usize,
    limit_request_head: usize,
    limit_request_body: u64,
    limit_chunk_extension: usize,
    limit_request_trailers: usize,
    permit_obsolete_folding: bool,
    strip_header_spaces: bool,
    permit_unconventional_http_method: bool,
    permit_unconventional_http_version: bool,
    casefold_http_method: bool,
    header_map: String,
    forwarder_headers: Vec<String>,
    forwarded_allow_ips: Vec<String>,
    secure_scheme_headers: Vec<(String, String)>,
    script_name: String,
    header_timeout: f64,
    body_timeout: f64,
    write_timeout: f64,
    keepalive: f64,
    linger_timeout: f64,
    drain_idle_timeout: f64,
    body_buffer_size: usize,
    body_buffer_total: usize,
    spool_directory: PathBuf,
    max_requests: u64,
    sendfile: bool,
    observed: bool,
    server: String,
    shared_listeners: bool,
}

/// Seconds as milliseconds; 0 stands for "no timeout" where `unbounded` says so.
fn milliseconds(seconds: f64, unbounded: bool) -> u64 {
    if unbounded && seconds == 0.0 { u64::MAX } else { (seconds * 1_000.0) as u64 }
}

impl Options {
    fn rules(&self) -> Rules {
        Rules {
            limits: Limits {
                request_line_bytes: self.limit_request_line,
                field_bytes: self.limit_request_field_size,
                fields: self.limit_request_fields,
                head_bytes: self.limit_request_head,
                body_bytes: self.limit_request_body,
                chunk_extension_bytes: self.limit_chunk_extension,
                trailer_bytes: self.limit_request_trailers,
                trailer_fields: self.limit_request_fields,
            },
            leniency: Leniency {
                obsolete_folding: self.permit_obsolete_folding,
                header_spaces: self.strip_header_spaces,
                unconventional_method: self.permit_unconventional_http_method,
                unconventional_version: self.permit_unconventional_http_version,
                casefold_method: self.casefold_http_method,
            },
        }
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts {
            header_ms: milliseconds(self.header_timeout, true),
            body_ms: milliseconds(self.body_timeout, true),
            write_ms: milliseconds(self.write_timeout, true),
            keepalive_ms: milliseconds(self.keepalive, false),
            linger_ms: milliseconds(self.linger_timeout, false),
            drain_idle_ms: milliseconds(self.drain_idle_timeout, false),
        }
    }

    fn spool(&self) -> Spool {
        Spool::new(SpoolRules {
            body_bytes: self.body_buffer_size,
            total_bytes: self.body_buffer_total,
            directory: self.spool_directory.clone(),
        })
    }

    fn environs(&self, py: Python<'_>, listeners: &[Listener]) -> PyResult<Environs> {
        let trust = Trust::new(
            &self.forwarded_allow_ips,
            self.secure_scheme_headers.clone(),
            self.forwarder_headers.clone(),
            &self.header_map,
        )?;
        let templates = listeners.iter().map(|listener| listener.template.clone_ref(py)).collect();
        let nameless = listeners.iter().map(|listener| listener.nameless).collect();
        Ok(Environs::new(py, templates, nameless, trust, self.script_name.clone(), self.casefold_http_method))
    }
}

/// One listening socket.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Listener {
    /// Its descriptor; duplicated, so Python may close its own whenever it likes.
    fd: i32,
    /// The constant part of the environ of requests that come in there.
    template: Py<PyDict>,
    /// It has no name and port of its own: a unix socket.
    nameless: bool,
}

fn duplicate(fd: i32) -> PyResult<OwnedFd> {
    // SAFETY: the caller's descriptor, used only for this call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 0).map_err(|errno| {
        PyOSError::new_err((errno.raw_os_error(), format!("descriptor {fd} cannot be used")))
    })
}

/// The loop of one `sync` worker.
#[pyclass(unsendable, module = "bicorn._core")]
pub struct SyncLoop {
    server: RefCell<Option<Server<Wsgi>>>,
    orders: Rc<Cell<Turn>>,
}

#[pymethods]
impl SyncLoop {
    #[new]
    #[pyo3(signature = (app, worker, slot, listeners, options, access=None, wake_fd=None, lifeline_fd=None))]
    #[allow(clippy::too_many_arguments, reason = "the keyword arguments of a Python constructor")]
    fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        worker: Py<PyAny>,
        slot: PyRef<'_, Slot>,
        listeners: Vec<Listener>,
        options: Options,
        access: Option<Py<AccessLog>>,
        wake_fd: Option<i32>,
        lifeline_fd: Option<i32>,
    ) -> PyResult<Self> {
        let orders = Rc::new(Cell::new(Turn::Continue));
        let timeouts = options.timeouts();
        let setup = WsgiSetup {
            app,
            worker,
            slot: slot.clone(),
            environs: options.environs(py, &listeners)?,
            access,
            observed: options.observed,
            max_requests: options.max_requests,
            sendfile: options.sendfile,
            server: options.server.clone().into_bytes(),
            write_rules: WriteRules {
                waiting_bytes: options.body_buffer_size as u64,
                patience_ms: timeouts.write_ms,
            },
            orders: Rc::clone(&orders),
        };
        let core = Core::new(Wsgi::new(py, setup)?, options.rules(), timeouts, options.spool());
        let sources = Sources {
            listeners: listeners.iter().map(|listener| duplicate(listener.fd)).collect::<PyResult<_>>()?,
            wake: wake_fd.map(duplicate).transpose()?,
            lifeline: lifeline_fd.map(duplicate).transpose()?,
            shared: options.shared_listeners,
        };
        let server = Server::new(core, sources)
            .map_err(|errno| PyOSError::new_err((errno.raw_os_error(), "cannot watch the listeners")))?;
        Ok(Self { server: RefCell::new(Some(server)), orders })
    }

    /// Serves until drained or stopped; raises what ended it otherwise.
    fn run(&self) -> PyResult<()> {
        let mut server = self
            .server
            .borrow_mut()
            .take()
            .ok_or_else(|| PyRuntimeError::new_err("this loop runs already, or has run"))?;
        let result = server.run();
        if let Some(error) = server.application().fatal.take() {
            return Err(error);
        }
        result.map_err(|errno| PyOSError::new_err((errno.raw_os_error(), "the loop cannot wait for events")))
    }

    /// Accept nothing new, finish what is there, then return from `run`. Safe in a signal handler.
    fn drain(&self) {
        if self.orders.get() == Turn::Continue {
            self.orders.set(Turn::Drain);
        }
    }

    /// Accept nothing more, not even what waits already: a successor will. Safe in a signal handler.
    fn retire(&self) {
        if self.orders.get() == Turn::Continue {
            self.orders.set(Turn::Retire);
        }
    }

    /// Return from `run` at once. Safe in a signal handler.
    fn stop(&self) {
        self.orders.set(Turn::Stop);
    }
}
