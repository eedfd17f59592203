//! Connections that change workers, as the loop sees it.
//!
//! Owns       which connections are given away, and when one is taken.
//! Never      says how they travel: `handover` does.
//! Invariant  only a connection between two requests moves, and nothing of its next request has been read.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;

use crate::application::Application;
use crate::connection::Stage;
use crate::handover::{Handover, Moving};
use crate::orders::Order;
use crate::server::{HANDOVER, NOT_A_CONNECTION, Server, special};
use crate::timer::Token;

/// Connections that wait for their turn, and requests that run meanwhile, that make a crowd.
const CROWD: usize = 8;

/// How often connections are moved for it at most: if the loop has rested for less than half of this time.
const BALANCE_NS: u64 = 50_000_000;

/// The least difference to an even share that is worth moving connections for; otherwise a quarter of it is.
const SURPLUS_MIN: usize = 8;

/// Connections taken out of the queue before those that are here get their turn.
const TAKES_PER_TURN: usize = 16;

/// How long a worker that has given connections away takes none.
const REST_MS: u64 = 50;

impl<A: Application> Server<A> {
    /// Whether connections can change workers.
    pub fn hands_over(&self) -> bool {
        self.sources.handover.is_some()
    }

    /// Hands readable connections to idle siblings, one to each: a request that waits in the queue is run by none of
    /// them sooner than here, and cannot come back.
    pub(crate) fn offer(&mut self) {
        let Some(handover) = &self.sources.handover else { return };
        if self.offered.is_empty() || !handover.is_empty() {
            return;
        }
        let count = self.core.app.idle_siblings().min(self.offered.len());
        self.turns = self.turns.saturating_sub(count);
        for token in self.offered.drain(..count).collect::<Vec<_>>() {
            let is_ours = token.generation == NOT_A_CONNECTION || self.is_open(token);
            if !self.give_away(token) && is_ours {
                self.offered.push_back(token); // The queue was full, or it cannot leave.
            }
        }
    }

    /// The request in a readable connection waits here, until a sibling rests or a thread is back; so does what waits
    /// in the queue or a listener.
    pub(crate) fn keep_to_offer(&mut self, token: Token) {
        if !self.offered.contains(&token) {
            self.offered.push_back(token);
        }
    }

    /// Moves connections to siblings that have fewer, when there is a crowd and the loop has not rested much of late.
    ///
    /// Clients that open all their connections at once leave most of them to the worker that wakes up first, and keep
    /// them for hours.
    #[inline]
    pub(crate) fn balance(&mut self, rested_ns: u64) {
        if !self.closed.busy {
            self.rested_ns += rested_ns;
        }
        if self.waiting() + self.out >= CROWD && !self.core.draining && self.hands_over() {
            self.look_for_a_surplus();
        }
    }

    /// Connections that wait for their turn.
    fn waiting(&self) -> usize {
        self.events.len() + self.resumed.len() + self.offered.len()
    }

    fn look_for_a_surplus(&mut self) {
        let now_ns = self.core.clock.now_ns();
        let since_ns = now_ns - self.balanced_ns;
        if since_ns >= BALANCE_NS {
            let was_busy = self.rested_ns < since_ns / 2;
            self.balanced_ns = now_ns;
            self.rested_ns = 0;
            if was_busy {
                self.give_surplus_away();
            }
        }
    }

    #[cold]
    fn give_surplus_away(&mut self) {
        let surplus = self.surplus();
        if surplus == 0 || !self.sources.handover.as_ref().is_some_and(Handover::is_empty) {
            return;
        }
        // Those whose turn would come last; the siblings get a part of the requests, not only of the connections.
        let told = self.events.iter().rev().map(|(token, _)| token);
        let last = told.chain(self.offered.iter().rev()).chain(self.resumed.iter().rev());
        let last: Vec<Token> = last.take(surplus.min(self.waiting() / 2)).copied().collect();
        for token in last {
            self.give_away(token);
        }
        self.rest_from_taking();
    }

    /// How many connections this worker has beyond an even share; 0 if that is not worth moving them.
    fn surplus(&self) -> usize {
        let (siblings, connections) = self.core.app.siblings();
        let mine = self.connections.len();
        let fair = (mine + connections) / (siblings + 1);
        let surplus = mine.saturating_sub(fair);
        if surplus < SURPLUS_MIN.max(fair / 4) { 0 } else { surplus }
    }

    /// Leaves what comes in the next moment to siblings, this worker's own gifts above all.
    fn rest_from_taking(&mut self) {
        let until_ms = self.core.clock.now_ms() + REST_MS;
        self.ignore_listeners();
        self.closed.until_ms = Some(self.closed.until_ms.map_or(until_ms, |until| until.max(until_ms)));
    }

    /// Puts a connection between two requests into the queue; false where that cannot be.
    pub(crate) fn give_away(&mut self, token: Token) -> bool {
        let Some(connection) = self.connections.get(token.key as usize) else { return false };
        if connection.token != token || !matches!(connection.stage, Stage::Idle) {
            return false;
        }
        if self.core.proxy.is_some() && connection.served {
            return false; // The other worker would wait for a PROXY header, which comes once.
        }
        let Some(peer) = &connection.peer else { return false };
        if !self.queue(connection.socket.as_fd(), peer, connection.served) {
            return false;
        }
        // The socket lives on, so closing our descriptor would not take it out of the set.
        let _ = epoll::delete(&self.epoll, &*connection.socket);
        self.close(token);
        true
    }

    /// Puts a connection into the queue; false if it has to stay here.
    fn queue(&self, socket: BorrowedFd<'_>, peer: &A::Peer, served: bool) -> bool {
        let Some(handover) = &self.sources.handover else { return false };
        let Some((listener, address)) = self.core.app.movable(peer) else { return false };
        handover.put(&Moving { socket, served, listener, address }).is_ok() // Full, most likely.
    }

    /// A worker on its way out leaves what it has just accepted to others: its own threads may be busy for
    /// as long as graceful_timeout.
    pub(crate) fn pass_on(&self, socket: &OwnedFd, peer: &A::Peer) -> bool {
        self.core.app.has_ready_sibling() && self.queue(socket.as_fd(), peer, false)
    }

    /// Takes out of the queue what no other worker is there for; false when that is nothing. Without descriptors it
    /// stays there, and the drain goes on until there are some.
    ///
    /// Whoever puts something in looks here once more before it ends, so nothing is left behind when all
    /// workers end together.
    pub(crate) fn take_what_nobody_else_will(&mut self) -> bool {
        let is_told = self.sources.orders.current() == Order::Drain; // The other orders leave it to a successor.
        let is_needed = is_told && !self.core.app.has_ready_sibling();
        let mut found = false;
        // Asked first: without descriptors, taking does not say whether there is anything to take.
        while is_needed && self.sources.handover.as_ref().is_some_and(|handover| !handover.is_empty()) {
            found = true;
            if !self.take_over() {
                break;
            }
        }
        found
    }

    /// Takes one connection out of the queue, and leaves the next to others; as many as wait here already, if those
    /// in the queue would have to wait for the end of that line each.
    pub(crate) fn take_some_over(&mut self) {
        let most = if self.surplus() > 0 { 1 } else { (1 + self.waiting()).min(TAKES_PER_TURN) };
        for _ in 0..most {
            if !self.closed.is_open() || !self.take_over() || self.close_if_full() {
                return;
            }
        }
        self.queue_again();
    }

    /// Takes one connection out of the queue; false when there is none.
    pub(crate) fn take_over(&mut self) -> bool {
        let Some(handover) = &self.sources.handover else { return false };
        match handover.take() {
            Ok(Moving { socket, served, listener, address }) => {
                let peer = self.core.app.peer(listener, address);
                self.open(socket, peer, served);
                true
            }
            Err(Errno::AGAIN) => false,
            Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)) => {
                self.rest_from_accepting(errno);
                false
            }
            Err(_) => true,
        }
    }

    /// As `step_back`, for the queue of connections that change workers.
    pub(crate) fn queue_again(&self) {
        let Some(handover) = &self.sources.handover else { return };
        if self.closed.is_open() && epoll::delete(&self.epoll, handover.source()).is_ok() {
            let _ = epoll::add(
                &self.epoll,
                handover.source(),
                special(HANDOVER),
                EventFlags::IN | EventFlags::EXCLUSIVE,
            );
        }
    }

    /// A worker on its way out lets others go on with its idle connections.
    pub(crate) fn give_idle_away(&mut self) {
        if self.hands_over() && self.core.app.has_ready_sibling() {
            self.leave_idle_behind();
        }
    }

    /// Puts idle connections into the queue, whoever may be there for them: a worker that is about to be killed
    /// will have a successor.
    pub fn leave_idle_behind(&mut self) {
        let idle = self.connections.iter().filter(|(_, connection)| matches!(connection.stage, Stage::Idle));
        let idle: Vec<Token> = idle.map(|(_, connection)| connection.token).collect();
        for token in idle {
            if !self.give_away(token) {
                break;
            }
        }
    }
}
