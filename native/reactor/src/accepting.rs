//! New connections: from the listen queues into the table.
//!
//! Owns       when to accept, how many, and when not to.
//! Never      reads a connection itself: `exchange` does, as soon as there is one.
//! Invariant  with siblings on the same queues each worker takes its turn, and one that cannot serve takes
//!            none.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags, acceptfrom_with, recv};

use crate::application::{Application, Incident};
use crate::connection::{Connection, Stage};
use crate::core::Verdict;
use crate::exchange;
use crate::server::{FIRST_LISTENER, HANDOVER, NOT_A_CONNECTION, Server, special, token_data};
use crate::socket::Socket;
use crate::timer::Token;

/// Connections accepted before those that are open get their turn again.
const ACCEPTS_PER_TURN: usize = 16;

/// How long accepting rests when the process or the machine is out of descriptors or memory.
const ACCEPT_REST_MS: u64 = 250;

/// Idle connections closed to make room when descriptors have run out.
const EVICTIONS: usize = 16;

/// Why no connection is accepted just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Descriptors or memory have run out, or siblings are to have what comes; accepting begins again at this time.
    pub until_ms: Option<u64>,
    /// As many connections are open as may be.
    pub full: bool,
    /// Every thread is busy: siblings are to accept.
    pub busy: bool,
}

impl Closed {
    /// Whether connections are accepted.
    pub fn is_open(self) -> bool {
        self == Self::default()
    }
}

impl<A: Application> Server<A> {
    pub(crate) fn accept(&mut self, listener: usize) {
        if !self.closed.is_open() {
            return; // An event of before.
        }
        // With siblings on the same queue each takes one and lets the next be woken.
        let most = if self.sources.shared { 1 } else { ACCEPTS_PER_TURN };
        for _ in 0..most.min(self.sources.connections_max.saturating_sub(self.connections.len())) {
            if !self.accept_one(listener) {
                break;
            }
        }
        if !self.close_if_full() && self.sources.shared {
            self.step_back(listener);
        }
    }

    /// Whether connections may wait of which nobody is told any more: among siblings the kernel wakes one
    /// for each, and that one may be killed or stopped before it gets there.
    pub(crate) fn seeks_stragglers(&self) -> bool {
        self.sources.shared && self.closed.is_open() && !self.core.draining
    }

    /// Accepts what waits, told of it or not.
    pub(crate) fn accept_stragglers(&mut self) {
        for listener in 0..self.sources.listeners.len() {
            self.accept(listener);
        }
    }

    /// Accepts what waits in each listen queue, at most so many, and lets go of the listeners. While there are no
    /// descriptors it keeps them: with nobody left to accept, the end of a socket resets whoever waits there.
    pub(crate) fn empty_listen_queues(&mut self, accepts_max: usize) {
        for listener in 0..self.sources.listeners.len() {
            for _ in 0..accepts_max {
                if !self.accept_one(listener) {
                    break;
                }
            }
        }
        if self.closed.until_ms.is_some() && self.somebody_waits() {
            return self.ignore_listeners();
        }
        self.closed.until_ms = None;
        // Our descriptors are duplicates, and other processes hold the sockets too, so closing them
        // would leave them in the set: woken first for connections that are its siblings' now, this
        // worker would spin, and they would sleep.
        for listener in self.sources.listeners.drain(..) {
            let _ = epoll::delete(&self.epoll, listener);
        }
    }

    /// Whether there is a connection in a listen queue. Without descriptors, accept() does not say.
    fn somebody_waits(&self) -> bool {
        let mut queues: Vec<_> =
            self.sources.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
        poll(&mut queues, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
    }

    /// Accepts nothing more while as many connections are open as may be.
    pub(crate) fn close_if_full(&mut self) -> bool {
        if self.connections.len() >= self.sources.connections_max && !self.closed.full {
            self.closed.full = true;
            self.ignore_listeners();
        }
        self.closed.full
    }

    /// Goes to the end of the listener's line of waiters: the kernel wakes the first exclusive
    /// waiter that sleeps, so without this the same worker would get nearly every connection.
    pub(crate) fn step_back(&self, listener: usize) {
        let Some(socket) = self.sources.listeners.get(listener) else { return };
        let data = special(FIRST_LISTENER + listener as u32);
        if epoll::delete(&self.epoll, socket).is_ok() {
            let _ = epoll::add(&self.epoll, socket, data, EventFlags::IN | EventFlags::EXCLUSIVE);
        }
    }

    /// Accepts and serves one connection; false when there is none, or none can be taken.
    pub(crate) fn accept_one(&mut self, listener: usize) -> bool {
        let Some(socket) = self.sources.listeners.get(listener) else { return false };
        match acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((socket, address)) => {
                let address = address.and_then(|address| SocketAddr::try_from(address).ok());
                let peer = self.core.app.peer(listener, address);
                if !(self.core.draining && self.pass_on(&socket, &peer)) {
                    self.open(socket, peer, false);
                }
                true
            }
            Err(Errno::AGAIN) => false,
            // The client went away while it waited, or a signal came: the next one may be fine.
            Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => true,
            Err(errno) => {
                self.rest_from_accepting(errno);
                false
            }
        }
    }

    pub(crate) fn open(&mut self, socket: OwnedFd, peer: A::Peer, served: bool) {
        let entry = self.connections.vacant_entry();
        let token = Token { key: entry.key() as u32, generation: self.next_generation };
        self.next_generation = (self.next_generation + 1) % NOT_A_CONNECTION;
        self.core.app.slot().connection_opened();
        let connection = entry.insert(Connection::new(socket, peer, token));
        if self.core.proxy.is_some() {
            connection.stage = Stage::Preamble(Vec::new());
        }
        match self.parked_ms.get(token.key as usize) {
            Some(parked_ms) => connection.parked_ms = *parked_ms,
            None => self.parked_ms.resize(token.key as usize + 1, u64::MAX),
        }
        connection.served = served;
        let t = &self.core.timeouts;
        let idle_ms = if self.core.draining { t.drain_idle_ms } else { t.keepalive_ms };
        let patience_ms = if served { idle_ms } else { t.header_ms };
        self.core.patience(connection, patience_ms);
        // The request has often arrived with the connection: try before asking to be told.
        let verdict = exchange::readable(connection, &mut self.core);
        if verdict == Verdict::Keep {
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            if epoll::add(&self.epoll, &*connection.socket, token_data(token), flags).is_ok() {
                return;
            }
        }
        self.close(token);
    }

    /// Out of descriptors or memory: an event loop that just tried again would spin.
    pub(crate) fn rest_from_accepting(&mut self, errno: Errno) {
        self.core.app.incident(Incident::Accept(errno));
        self.ignore_listeners();
        self.closed.until_ms = Some(self.core.clock.now_ms() + ACCEPT_REST_MS);
        let idle: Vec<Token> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.served && matches!(connection.stage, Stage::Idle))
            .filter(|(_, connection)| !has_sent(&connection.socket))
            .map(|(_, connection)| connection.token)
            .take(EVICTIONS)
            .collect();
        for token in idle {
            self.close(token);
        }
    }

    pub(crate) fn ignore_listeners(&self) {
        for listener in &self.sources.listeners {
            let _ = epoll::delete(&self.epoll, listener);
        }
        if let Some(handover) = &self.sources.handover {
            let _ = epoll::delete(&self.epoll, handover.source());
        }
    }

    pub(crate) fn reopen(&self) {
        if self.closed.is_open() {
            let _ = self.watch_listeners();
        }
    }

    pub(crate) fn watch_listeners(&self) -> Result<(), Errno> {
        if self.core.draining {
            return Ok(()); // What comes now is for others.
        }
        let exclusive = if self.sources.shared { EventFlags::EXCLUSIVE } else { EventFlags::empty() };
        for (index, listener) in self.sources.listeners.iter().enumerate() {
            let data = special(FIRST_LISTENER + index as u32);
            epoll::add(&self.epoll, listener, data, EventFlags::IN | exclusive)?;
        }
        if let Some(handover) = &self.sources.handover {
            let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
            epoll::add(&self.epoll, handover.source(), special(HANDOVER), flags)?;
        }
        Ok(())
    }
}

/// Whether a peer has sent something that nobody has read yet: its request may be on its way.
fn has_sent(socket: &Socket) -> bool {
    recv(socket, &mut [0; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok_and(|(_, count)| count > 0)
}
