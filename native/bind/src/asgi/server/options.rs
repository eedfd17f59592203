//! The settings of an asgi worker, as its connections want them.
//!
//! Owns       the names of the options that Python gives, and the units in which they are kept.
//! Never      knows the options of the wire and of WebSockets: they have types of their own.

use pyo3::prelude::*;

use crate::wire_options::milliseconds;

/// How long things may take, in milliseconds; `NEVER` where a setting says 0 and means that.
pub struct Timeouts {
    pub header_ms: u64,
    pub body_ms: u64,
    pub write_ms: u64,
    pub keepalive_ms: u64,
    pub linger_ms: u64,
    pub drain_idle_ms: u64,
    pub disconnect_ms: u64,
}

/// Settings by their own names, beside those that decide how a request is read.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct Options {
    header_timeout: f64,
    body_timeout: f64,
    write_timeout: f64,
    keepalive: f64,
    linger_timeout: f64,
    drain_idle_timeout: f64,
    asgi_disconnect_grace_period: f64,
    pub(super) asgi_read_ahead: usize,
    pub(super) limit_concurrency: usize,
    pub(super) queue_timeout: f64,
    pub(super) worker_connections: usize,
    pub(super) max_requests: u64,
    pub(super) observed: bool,
    pub(super) server: String,
}

impl Options {
    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts {
            header_ms: milliseconds(self.header_timeout, true),
            body_ms: milliseconds(self.body_timeout, true),
            write_ms: milliseconds(self.write_timeout, true),
            keepalive_ms: milliseconds(self.keepalive, false),
            linger_ms: milliseconds(self.linger_timeout, false),
            drain_idle_ms: milliseconds(self.drain_idle_timeout, false),
            disconnect_ms: milliseconds(self.asgi_disconnect_grace_period, false),
        }
    }
}
