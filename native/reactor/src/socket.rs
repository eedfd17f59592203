//! A client's socket, with the right to answer on it.
//!
//! Owns       the descriptor, for as long as its connection or a job of it is there.
//! Never      reads or writes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::gate::Gate;

/// The socket of one connection, non-blocking.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// Who may answer the request under way.
    pub gate: Gate,
}

impl Socket {
    /// A socket on which nothing has been answered.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, gate: Gate::default() }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
