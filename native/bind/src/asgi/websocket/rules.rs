//! The settings of WebSockets.
//!
//! Owns       their conversion into what the code counts in.
//! Never      knows a default: `bicorn.config` does.

use bicorn_wire::websocket::DeflatePolicy;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::asgi::server::NEVER;
use crate::wire_options::milliseconds;

/// Settings by their own names, out of the dictionary that a worker fills in.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Options {
    websocket_max_message_size: u64,
    websocket_max_queue: usize,
    websocket_compression: String,
    websocket_ping_interval: f64,
    websocket_ping_timeout: f64,
}

/// What a WebSocket may cost, and how long it may be silent.
#[derive(Clone, Copy, Debug)]
pub struct WebSocketRules {
    /// Bytes of a message, after decompression; 0 is no bound.
    pub message_bytes_max: u64,
    /// Messages that are decoded ahead of the application.
    pub queue_max: usize,
    /// What is kept for compression, or None for none at all.
    pub deflate: Option<DeflatePolicy>,
    /// Silence after which a Ping goes out.
    pub ping_interval_ms: u64,
    /// How long the client may take to answer a Ping or a Close.
    pub ping_timeout_ms: u64,
}

impl FromPyObject<'_, '_> for WebSocketRules {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let options: Options = given.extract()?;
        let deflate = match options.websocket_compression.as_str() {
            "off" => None,
            "message" => Some(DeflatePolicy::Message),
            "connection" => Some(DeflatePolicy::Connection),
            other => {
                return Err(PyValueError::new_err(format!(
                    "websocket_compression is {other:?}; it must be off, message or connection"
                )));
            }
        };
        Ok(Self {
            message_bytes_max: options.websocket_max_message_size,
            queue_max: options.websocket_max_queue.max(1),
            deflate,
            ping_interval_ms: match milliseconds(options.websocket_ping_interval, true) {
                u64::MAX => NEVER,
                interval => interval,
            },
            ping_timeout_ms: milliseconds(options.websocket_ping_timeout, false),
        })
    }
}
