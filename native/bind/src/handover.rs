//! The queue of connections that change workers, for loops that are Python's.
//!
//! Owns       both ends of the queue, as descriptors of its own.
//! Never      decides who gives and who takes.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};

use bicorn_reactor::handover::{Handover as Queue, Moving};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::io::Errno;

use crate::options::duplicate;

/// Where connections are put in, and where they come out.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Handover {
    queue: Queue,
}

#[pymethods]
impl Handover {
    #[new]
    fn new(fds: (i32, i32), listeners: Vec<String>) -> PyResult<Self> {
        Ok(Self { queue: Queue { put: duplicate(fds.0)?, take: duplicate(fds.1)?, listeners } })
    }

    /// The descriptor that is readable when there is a connection to take.
    fn fileno(&self) -> i32 {
        self.queue.take.as_raw_fd()
    }

    /// Puts a connection in; whoever does that closes its own descriptor then. False when it cannot be: the
    /// queue is full, most likely, and the connection stays.
    pub fn put(&self, fd: i32, served: bool, listener: usize, address: Option<(String, u16)>) -> bool {
        // SAFETY: the caller's descriptor, used only for this call.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        let address = address.and_then(|(host, port)| {
            let ip = host.split('%').next()?.parse::<IpAddr>().ok()?;
            Some(SocketAddr::new(ip, port))
        });
        self.queue.put(&Moving { socket, served, listener, address }).is_ok()
    }

    /// Takes the next connection out: its descriptor, which is the caller's now, whether it has served a
    /// request already, and the index of its listener. None when there is none. OSError when there are no
    /// descriptors left.
    fn take(&self) -> PyResult<Option<(i32, bool, usize)>> {
        loop {
            match self.queue.take() {
                Ok(moving) => {
                    return Ok(Some((moving.socket.into_raw_fd(), moving.served, moving.listener)));
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::PROTO) => {}
                Err(errno) => {
                    return Err(PyOSError::new_err((
                        errno.raw_os_error(),
                        "a connection that changes workers cannot be taken",
                    )));
                }
            }
        }
    }
}
