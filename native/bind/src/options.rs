//! What Python tells a loop: settings, listeners, who answers.
//!
//! Owns       the conversion of settings into the values of reactor and wire, the same for every loop.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bicorn_reactor::{Core, Handover, Orders, Server, Sources, Spool, SpoolRules, Timeouts};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::access::AccessLog;
use crate::environ::EnvironRules;
use crate::exchange::WriteRules;
use crate::front::Front;
use crate::late::{Overtime, Patience};
use crate::scoreboard::Slot;
use crate::wire_options::{WireOptions, milliseconds};
use crate::wsgi::{Wsgi, WsgiSetup};

/// Everything the loop is told, by the names of the settings; `workers/native.py` fills it in.
pub struct Options {
    wire: WireOptions,
    driver: DriverOptions,
}

impl<'a, 'py> FromPyObject<'a, 'py> for Options {
    type Error = PyErr;

    fn extract(settings: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self { wire: settings.extract()?, driver: settings.extract()? })
    }
}

/// What is not about reading requests.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct DriverOptions {
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
    connections_max: usize,
    /// Requests that can run at once, for those who hand connections over.
    capacity: u64,
    ready_state: u64,
    /// Both ends of the queue of connections that change workers: in, out.
    handover_fds: Option<(i32, i32)>,
    /// How a greenlet waits for a slow reader: see `WriteRules`.
    wait_writable: Option<Py<PyAny>>,
    queue_timeout: f64,
    timeout: f64,
    draining_state: u64,
    graceful_timeout: f64,
    limit_concurrency: usize,
    gc_out_of_band: u64,
}

impl DriverOptions {
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

    fn environ_rules(
        &self,
        py: Python<'_>,
        listeners: &[Listener],
        wire: &WireOptions,
    ) -> PyResult<EnvironRules> {
        Ok(EnvironRules {
            templates: listeners.iter().map(|listener| listener.template.clone_ref(py)).collect(),
            nameless: listeners.iter().map(|listener| listener.nameless).collect(),
            trust: Arc::new(wire.trust()?),
            script_name: self.script_name.clone().into_bytes(),
            casefold_method: wire.casefold_http_method,
        })
    }
}

/// One listening socket.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Listener {
    /// Its descriptor; duplicated, so Python may close its own whenever it likes.
    fd: i32,
    /// The constant part of the environ of requests that come in there.
    template: Py<PyDict>,
    /// It has no name and port of its own: a unix socket.
    nameless: bool,
    /// What it is called among the workers of one arbiter.
    name: String,
}

/// A descriptor of our own for the same thing.
pub fn duplicate(fd: i32) -> PyResult<OwnedFd> {
    // SAFETY: the caller's descriptor, used only for this call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 0).map_err(|errno| {
        PyOSError::new_err((errno.raw_os_error(), format!("descriptor {fd} cannot be used")))
    })
}

/// What a loop serves, and what it listens to besides.
pub struct Site {
    /// The application.
    pub app: Py<PyAny>,
    /// The worker.
    pub worker: Py<PyAny>,
    /// Its row of the scoreboard.
    pub slot: Slot,
    /// Where connections come in.
    pub listeners: Vec<Listener>,
    /// The settings.
    pub options: Options,
    /// The native access log.
    pub access: Option<Py<AccessLog>>,
    /// Readable when a signal has arrived.
    pub wake_fd: Option<i32>,
    /// Hangs up when the arbiter is gone.
    pub lifeline_fd: Option<i32>,
}

/// A loop that has not run yet, with what it runs.
pub struct Parts {
    /// The loop.
    pub server: Server<Front>,
    /// Who runs its jobs.
    pub wsgi: Arc<Wsgi>,
    /// What it is told.
    pub orders: Arc<Orders>,
    /// When it is about to be killed.
    pub overtime: Overtime,
}

impl Site {
    /// Makes the loop.
    ///
    /// # Errors
    /// A setting or a descriptor that cannot be used.
    pub fn build(self, py: Python<'_>) -> PyResult<Parts> {
        let Options { wire, driver: options } = self.options;
        let environ_rules = Arc::new(options.environ_rules(py, &self.listeners, &wire)?);
        let (rules, timeouts, spool) = (wire.rules(), options.timeouts(), options.spool());
        let (proxy, proxies) = (wire.proxy_rules(), wire.proxies()?);
        let write_rules = Arc::new(WriteRules {
            waiting_bytes: options.body_buffer_size as u64,
            patience_ms: timeouts.write_ms,
            wait: options.wait_writable,
        });
        let unusable =
            |what| move |errno: rustix::io::Errno| PyOSError::new_err((errno.raw_os_error(), what));
        let orders = Arc::new(Orders::new().map_err(unusable("cannot make an event descriptor"))?);
        let wsgi = Arc::new(Wsgi::new(
            py,
            WsgiSetup {
                app: self.app,
                worker: self.worker,
                slot: self.slot,
                ready_state: options.ready_state,
                environ_rules,
                access: self.access,
                observed: options.observed,
                sendfile: options.sendfile,
                server: options.server.into_bytes(),
                write_rules,
                orders: Arc::clone(&orders),
                requests_between_collections: options.gc_out_of_band,
            },
        )?);
        let overtime = Overtime::new(
            wsgi.shared_slot(),
            Patience {
                timeout: Duration::from_secs_f64(options.timeout),
                graceful: Duration::from_secs_f64(options.graceful_timeout),
                draining_state: options.draining_state,
            },
        );
        let front = Front::new(Arc::clone(&wsgi), proxies);
        let mut core = Core::new(front, rules, timeouts, spool, options.max_requests);
        core.proxy = proxy;
        let handover = match options.handover_fds {
            Some((put, take)) => {
                let listeners = self.listeners.iter().map(|listener| listener.name.clone()).collect();
                Some(Handover { put: duplicate(put)?, take: duplicate(take)?, listeners })
            }
            None => None,
        };
        wsgi.slot().capacity.store(options.capacity, Relaxed);
        core.queue_ns = milliseconds(options.queue_timeout, true).saturating_mul(1_000_000);
        if options.limit_concurrency > 0 {
            core.concurrency_max = options.limit_concurrency;
        }
        let sources = Sources {
            listeners: self
                .listeners
                .iter()
                .map(|listener| duplicate(listener.fd))
                .collect::<PyResult<_>>()?,
            wake: self.wake_fd.map(duplicate).transpose()?,
            lifeline: self.lifeline_fd.map(duplicate).transpose()?,
            orders: Arc::clone(&orders),
            shared: options.shared_listeners,
            handover,
            connections_max: options.connections_max,
        };
        let server = Server::new(core, sources).map_err(unusable("cannot watch the listeners"))?;
        Ok(Parts { server, wsgi, orders, overtime })
    }
}
