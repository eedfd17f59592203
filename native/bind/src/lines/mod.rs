//! The connections of a loop that is Python's, as far as somebody has to know them who cannot get the interpreter.
//!
//! Owns       for each connection its descriptor, where it stands, and who may answer on it; and what is done for all of
//!            them when the worker is about to be killed because its loop is stuck.
//! Never      reads a byte. Writes one only where nothing has been written and nothing waits to be: the gate decides.
//! Invariant  a descriptor is in the table only while its transport has it open, because whoever closes it takes it out
//!            before; and while one is used here, the table is locked. What a signal handler does here allocates nothing
//!            and waits for nothing.

mod abort;
pub mod python;

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bicorn_reactor::Gate;
use bicorn_reactor::handover::{Handover, Moving};
use bicorn_wire::push_refusal;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, getpeername, send, shutdown, socketpair,
};
use slab::Slab;

/// Where a connection stands, for who watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// Between two requests.
    Idle,
    /// In a request, of which perhaps only a part has come.
    Request,
    /// Where it is to be left alone: a WebSocket, or about to end.
    Elsewhere,
}

/// One connection. Its loop writes, with plain stores; who watches reads.
#[derive(Debug, Default)]
pub struct Line {
    place: AtomicU8,
    /// Bytes have been read that belong to its next request.
    ahead: AtomicBool,
    /// Its request is answered without a body.
    bodiless: AtomicBool,
    /// Who may answer.
    pub gate: Gate,
}

impl Line {
    /// From now on it stands there.
    #[inline]
    pub fn stand(&self, place: Place) {
        self.place.store(place as u8, Relaxed);
    }

    /// Whether a part of its next request is here, so that nobody else could go on with it.
    #[inline]
    pub fn set_ahead(&self, is_ahead: bool) {
        self.ahead.store(is_ahead, Relaxed);
    }

    /// Whether its request is one to HEAD.
    #[inline]
    pub fn set_bodiless(&self, is_bodiless: bool) {
        self.bodiless.store(is_bodiless, Relaxed);
    }

    fn stands(&self, place: Place) -> bool {
        self.place.load(Relaxed) == place as u8
    }

    fn is_between_requests(&self) -> bool {
        self.stands(Place::Idle) && !self.ahead.load(Relaxed)
    }
}

struct Entry {
    fd: RawFd,
    listener: usize,
    line: Arc<Line>,
}

/// The connections of one worker.
pub struct Lines {
    table: Mutex<Slab<Entry>>,
    /// Where connections go that the next worker is to take.
    queue: Option<Handover>,
    /// A socket without another end: what the transport of a connection holds that is another worker's.
    dead: OwnedFd,
    answer: Vec<u8>,
    answer_to_head: Vec<u8>,
}

impl Lines {
    /// No connections yet. Without a queue none can be left to another worker.
    ///
    /// # Errors
    /// The kernel gave no descriptor.
    pub fn new(queue: Option<Handover>, server: &[u8]) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (dead, _) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let (mut answer, mut answer_to_head) = (Vec::new(), Vec::new());
        // A 504 may come without a Date (RFC 9110, 6.6.1), which nobody could format in a signal handler.
        push_refusal(&mut answer, 504, server, b"", true);
        push_refusal(&mut answer_to_head, 504, server, b"", false);
        Ok(Self { table: Mutex::default(), queue, dead, answer, answer_to_head })
    }

    fn table(&self) -> MutexGuard<'_, Slab<Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was made, on the listener with this index; gives its place in the table.
    pub fn enter(&self, fd: RawFd, listener: usize, line: &Arc<Line>) -> usize {
        self.table().insert(Entry { fd, listener, line: Arc::clone(line) })
    }

    /// Its descriptor is about to be closed.
    pub fn leave(&self, key: usize) {
        self.table().try_remove(key);
    }

    /// Answers every request of which nothing has been answered, and leaves connections between two requests to
    /// the worker that follows.
    pub fn give_up(&self) {
        self.give_each_up(&self.table());
    }

    /// The same from a signal handler, if it has interrupted nobody who changes the table.
    pub fn try_give_up(&self) {
        if let Ok(table) = self.table.try_lock() {
            self.give_each_up(&table);
        }
    }

    fn give_each_up(&self, table: &Slab<Entry>) {
        for (_, Entry { fd, listener, line }) in table {
            // SAFETY: open by the invariant of this module, and the table is locked.
            let socket = unsafe { BorrowedFd::borrow_raw(*fd) };
            if line.is_between_requests() {
                self.leave_behind(socket, *listener, line);
            } else if !line.stands(Place::Elsewhere) && line.gate.shut() {
                let answer = if line.bodiless.load(Relaxed) { &self.answer_to_head } else { &self.answer };
                // Nothing else is on its way: a socket that does not take so little is broken.
                let _ = send(socket, answer, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
                let _ = shutdown(socket, Shutdown::Write);
            }
        }
    }

    fn leave_behind(&self, socket: BorrowedFd<'_>, listener: usize, line: &Line) {
        let Some(queue) = &self.queue else { return };
        let Ok(peer) = getpeername(socket) else { return }; // It has gone.
        let address = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        let moving = Moving { socket, served: true, listener, address };
        // Shut first: from then on it is not this worker's. The queue may be full, at the worst.
        if line.gate.shut() && queue.put(&moving).is_ok() {
            self.sever(socket);
        }
    }

    /// A loop that comes back after all reads no byte of what is another worker's: its transport finds an end.
    fn sever(&self, socket: BorrowedFd<'_>) {
        // SAFETY: both are open. Whoever uses the number from here on uses the other socket, and closes that.
        unsafe { libc::dup3(self.dead.as_raw_fd(), socket.as_raw_fd(), libc::O_CLOEXEC) };
    }
}
