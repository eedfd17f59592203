//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692) as values, seen from the server.
//!
//! Owns       which handshakes are valid, what the bytes after one mean, and the close code that
//!            the peer gets when they mean nothing.
//! Never      touches a socket, a clock or Python; decides when to answer a ping or to give up.
//! Invariant  fed at any split, the same bytes give the same messages, the same control frames and
//!            the same violation, found at the same byte. Memory is spent on bytes that came, never
//!            on a length that was announced, and on no message beyond the limit.

mod close;
mod compression;
mod extension;
mod frame;
mod handshake;
mod mask;
mod reader;
mod violation;

pub use close::{CLOSE_REASON_BYTES_MAX, Closing, code, is_sendable, push_close};
pub use compression::{Deflater, Inflater};
pub use extension::{Deflate, DeflatePolicy};
pub use frame::{CONTROL_BYTES_MAX, Opcode, push_frame, push_frame_head, push_masked_frame};
pub use handshake::{Handshake, HandshakeRefusal, is_websocket};
pub use reader::{Event, Reader, Step};
pub use violation::{Violation, ViolationKind};
