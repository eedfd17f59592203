//! Sockets and time around the wire.
#![forbid(unsafe_code)]
