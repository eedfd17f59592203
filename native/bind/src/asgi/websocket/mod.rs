//! WebSocket, on a connection that began as HTTP.
//!
//! Owns       the handshake's place among requests, the messages of ASGI's WebSocket, and when a silent or
//!            greedy client is given up.
//! Never      reads a frame itself: `bicorn_wire::websocket` does.

mod frames;
mod inbox;
mod opening;
mod rules;
mod socket;

pub use opening::{push_refused_handshake, read_handshake, turn_scope};
pub use rules::WebSocketRules;
pub use socket::WebSocket;
