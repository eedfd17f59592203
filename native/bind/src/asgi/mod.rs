//! ASGI over asyncio: a native protocol whose applications run inline.
//!
//! Owns       HTTP/1.1 connections on the transports of asyncio and uvloop, and the messages of ASGI.
//! Never      accepts a connection or runs a loop: `bicorn.workers.asgi` does.

mod awaitable;
mod callables;
mod channel;
mod connection;
mod exchange;
mod file_send;
mod guarded;
mod incoming;
mod outlet;
mod scope;
pub mod server;
mod steps;
mod websocket;

pub use exchange::WsgiHead;
