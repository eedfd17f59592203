//! One connection: its socket, its place in the life of an exchange, its deadline.
//!
//! Owns       the states a connection can be in.
//! Never      touches the kernel: `exchange` moves the states, `server` watches the sockets.
//! Invariant  an idle connection holds no buffer: what a request needs is made when its first byte comes.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bicorn_wire::{Head, HeadParser};

use crate::application::Application;
use crate::intake::Body;
use crate::outbox::Outbox;
use crate::socket::Socket;
use crate::timer::Token;

/// A request of which only a part has arrived.
#[derive(Debug)]
pub struct Reading {
    /// The bytes of the head so far, exactly the head once `body` is there.
    pub inbox: Vec<u8>,
    /// Where the parser stands in `inbox`.
    pub parser: HeadParser,
    /// The head so far.
    pub head: Head,
    /// The body, once the head is complete.
    pub body: Option<Body>,
}

/// What happens to a connection when its outbox has been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// It waits for another request.
    KeepAlive,
    /// It is closed: the client asked for that, and so sends nothing more.
    #[default]
    Close,
    /// Our side is closed, and the socket goes once the peer has had time to read the answer.
    Linger,
}

impl Then {
    /// What follows an answer, by what the server decided and what the client had asked for.
    pub fn after(keep_alive: bool, client_keeps_alive: bool) -> Self {
        match (keep_alive, client_keeps_alive) {
            (true, _) => Self::KeepAlive,
            (false, true) => Self::Linger,
            (false, false) => Self::Close,
        }
    }
}

/// An answer that the socket would not take at once.
pub struct Responding<A: Application> {
    /// What waits to be sent.
    pub outbox: Outbox<A::Chunk>,
    /// Where more of it comes from.
    pub stream: Option<A::Stream>,
    /// Who has to go on with the stream.
    pub home: Option<usize>,
    /// What follows; meaningful once `stream` is gone.
    pub then: Then,
    /// Bytes of the next requests, as in [`Stage::Serving`].
    pub pending: Vec<u8>,
}

impl<A: Application> Responding<A> {
    /// An answer without a stream.
    pub fn of(outbox: Outbox<A::Chunk>, then: Then, pending: Vec<u8>) -> Self {
        Self { outbox, stream: None, home: None, then, pending }
    }
}

/// Where a connection is in its life.
pub enum Stage<A: Application> {
    /// Before the first request, where a PROXY header may stand: what has come of it.
    Preamble(Vec<u8>),
    /// Between two requests, or before the first.
    Idle,
    /// A part of a request has arrived.
    Reading(Box<Reading>),
    /// A job is out, or waits for its turn; here are the bytes of the next requests, which arrived in the
    /// same read. Never more than one read holds, because a connection is not read meanwhile.
    Serving(Vec<u8>),
    /// An answer is on its way.
    Responding(Box<Responding<A>>),
    /// Our side is closed; the peer is given time to read what was sent before the socket goes.
    Lingering,
}

/// A connection.
pub struct Connection<A: Application> {
    /// What the application keeps about the other end; with the job while one is out. It goes before the
    /// socket does, because it may have told others the descriptor's number.
    pub peer: Option<A::Peer>,
    /// Its socket.
    pub socket: Arc<Socket>,
    /// Where it is in its life.
    pub stage: Stage<A>,
    /// Its name in the epoll set and on the timer wheel.
    pub token: Token,
    /// When its patience ends, on the loop's clock; `u64::MAX` for never.
    pub deadline_ms: u64,
    /// When the wheel looks at its place next; `u64::MAX` when that is not on the wheel.
    pub parked_ms: u64,
    /// An edge said that there is something to read, and no read has come back short since.
    pub readable: bool,
    /// An edge said that the socket takes bytes, while a job was out that may have been told it does not.
    pub writable: bool,
    /// It has served a request, so its silence is measured by the keep-alive timeout.
    pub served: bool,
    /// Both directions are gone: whatever is still computed for it has no reader.
    pub gone: bool,
    /// The peer has closed its side, and may have gone.
    pub half_closed: bool,
    /// When its last answer had left, on the monotonic clock; 0 before the first.
    pub freed_ns: u64,
    /// Somebody else has answered for the application, which may never come back.
    pub written_off: bool,
    /// The request under way is answered without a body.
    pub bodiless: bool,
    /// Requests begun since others had their turn.
    pub begun: u8,
}

impl<A: Application> Connection<A> {
    /// A fresh connection, which may well have sent its request already.
    pub fn new(socket: OwnedFd, peer: A::Peer, token: Token) -> Self {
        Self {
            peer: Some(peer),
            socket: Arc::new(Socket::new(socket)),
            stage: Stage::Idle,
            token,
            deadline_ms: u64::MAX,
            parked_ms: u64::MAX,
            readable: true,
            writable: false,
            served: false,
            gone: false,
            half_closed: false,
            freed_ns: 0,
            written_off: false,
            bodiless: false,
            begun: 0,
        }
    }
}
