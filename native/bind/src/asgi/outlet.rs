//! The way out of one connection.
//!
//! Owns       what is handed to the kernel and what to the transport, and their order.
//! Never      keeps a byte itself: what the kernel does not take at once waits in the transport's buffer.
//! Invariant  the socket is written to directly only while the transport's buffer is empty and the
//!            transport has not told that the connection is lost, which both loops do before they close
//!            the descriptor.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use bicorn_reactor::Arrival;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::arrival::arrival;
use crate::lines::Line;

/// Stands for "no descriptor to write to".
const NONE: RawFd = -1;

/// Where the bytes of one connection go.
pub struct Outlet {
    transport: RefCell<Option<Py<PyAny>>>,
    fd: Cell<RawFd>,
    /// The transport has asked to wait; with its high-water mark at 0 that means "its buffer is not empty".
    pub paused: Cell<bool>,
    /// Nothing more may be written.
    pub closed: Cell<bool>,
    sent: Cell<u64>,
    line: Arc<Line>,
}

impl Outlet {
    /// An outlet without a transport yet.
    pub fn new(line: Arc<Line>) -> Self {
        Self {
            transport: RefCell::new(None),
            fd: Cell::new(NONE),
            paused: Cell::new(false),
            closed: Cell::new(true),
            sent: Cell::new(0),
            line,
        }
    }

    /// Begins to write to `transport`.
    pub fn open(&self, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = transport.py();
        // Whatever the transport has to keep, it asks to wait for: memory is bounded by one message.
        transport.call_method1(intern!(py, "set_write_buffer_limits"), (0,))?;
        let socket = transport.call_method1(intern!(py, "get_extra_info"), (intern!(py, "socket"),))?;
        let fd = if socket.is_none() {
            NONE
        } else {
            socket.call_method0(intern!(py, "fileno"))?.extract::<RawFd>()?
        };
        self.fd.set(fd);
        self.closed.set(false);
        self.transport.replace(Some(transport.clone().unbind()));
        Ok(())
    }

    /// The connection is lost: from here on the descriptor may be somebody else's.
    pub fn lose(&self) {
        self.closed.set(true);
        self.fd.set(NONE);
        self.transport.replace(None);
    }

    /// The descriptor of its socket, until the connection is lost.
    pub fn descriptor(&self) -> Option<RawFd> {
        Some(self.fd.get()).filter(|&fd| fd != NONE)
    }

    /// The transport, until the connection is lost.
    pub fn transport<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.transport.borrow().as_ref().map(|transport| transport.bind(py).clone())
    }

    /// Calls a method of the transport that neither gives nor fails, if there is still a transport.
    pub fn tell(&self, py: Python<'_>, method: &str) {
        if let Some(transport) = self.transport(py)
            && let Err(error) = transport.call_method0(method)
        {
            error.write_unraisable(py, Some(&transport));
        }
    }

    /// Writes the pieces in their order; what comes after a close goes nowhere.
    #[inline]
    pub fn write(&self, py: Python<'_>, pieces: &[&[u8]]) {
        if self.closed.get() {
            return;
        }
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.sent.set(self.sent.get() + total as u64);
        if total == 0 {
            return;
        }
        if !self.line.gate.pass() {
            self.closed.set(true); // Its client was answered in the application's place.
            return;
        }
        let direct = !self.paused.get() && self.fd.get() != NONE;
        let written = if direct { self.try_write(pieces) } else { Ok(0) };
        let taken = written.unwrap_or(0);
        if taken < total {
            self.hand_over(py, pieces, taken);
        }
        if written.is_err_and(|errno| !matches!(errno, Errno::AGAIN | Errno::INTR)) {
            // The transport now finds out too, but tells only in the loop's next turn, which an application that
            // never waits would not let come.
            self.closed.set(true);
        }
    }

    /// Writes an answer that another one follows, which somebody else may still give.
    pub fn write_interim(&self, py: Python<'_>, pieces: &[&[u8]]) {
        self.write(py, pieces);
        if !self.paused.get() {
            self.line.gate.reset();
        }
    }

    /// Bytes written since the last call.
    #[inline]
    pub fn take_sent(&self) -> u64 {
        self.sent.replace(0)
    }

    /// How much the kernel takes at once.
    #[inline]
    fn try_write(&self, pieces: &[&[u8]]) -> Result<usize, Errno> {
        // SAFETY: open by the invariant of this module, and borrowed for this call only.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd.get()) };
        let mut slices = [IoSlice::new(b""); 4];
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
        }
        rustix::io::writev(fd, &slices[..pieces.len().min(4)])
    }

    #[cold]
    fn hand_over(&self, py: Python<'_>, pieces: &[&[u8]], taken: usize) {
        let Some(transport) = self.transport(py) else { return };
        let rest: Vec<u8> = pieces.concat().split_off(taken);
        let written = transport.call_method1(intern!(py, "write"), (PyBytes::new(py, &rest),));
        if let Err(error) = written {
            error.write_unraisable(py, Some(&transport));
        }
    }

    /// Whether the peer has sent something that nobody has read: a close now would be a reset to it.
    pub fn has_unread(&self) -> bool {
        if self.fd.get() == NONE {
            return false;
        }
        // SAFETY: as in `try_write`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd.get()) };
        let mut byte = [0];
        match rustix::net::recv(fd, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, count)) => count > 0,
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => false,
        }
    }

    /// When the peer's last bytes came, and whether it is still there.
    pub fn arrival(&self) -> Arrival {
        if self.fd.get() == NONE {
            return Arrival::default();
        }
        // SAFETY: as in `try_write`.
        arrival(unsafe { BorrowedFd::borrow_raw(self.fd.get()) })
    }

    /// Makes the close of this connection a reset.
    pub fn reset_on_close(&self) {
        if self.fd.get() != NONE {
            // SAFETY: as in `try_write`.
            let fd = unsafe { BorrowedFd::borrow_raw(self.fd.get()) };
            // A connection that is broken already needs no reset.
            let _ = rustix::net::sockopt::set_socket_linger(fd, Some(std::time::Duration::ZERO));
        }
    }
}
