//! The seam between the loop and whoever answers requests.
//!
//! Owns       the trait that bind implements, and the values that cross it.
//! Never      names Python: the reactor is tested with an application written in Rust.

use bicorn_wire::{Head, Refusal};
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use crate::clock::Clock;
use crate::intake::RequestBody;
use crate::outbox::Outbox;
use crate::scoreboard::Slot;
use std::os::fd::BorrowedFd;

/// A complete request.
#[derive(Debug)]
pub struct Request<'a, P> {
    /// The parsed head.
    pub head: &'a Head,
    /// The bytes that the head's spans point into.
    pub bytes: &'a [u8],
    /// The complete body.
    pub body: RequestBody<'a>,
    /// What the application keeps about the connection.
    pub peer: &'a mut P,
    /// The connection, for an application that has to write before it returns.
    pub socket: BorrowedFd<'a>,
    /// Whether the connection may serve another request as far as the server is concerned.
    pub may_keep_alive: bool,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome<S> {
    /// The whole answer is in the outbox.
    Done {
        /// Whether the connection may serve another request.
        keep_alive: bool,
    },
    /// The answer has begun; the rest is pulled as the socket takes it.
    Stream(S),
    /// The request broke a rule that only the application's settings know.
    Refused(Refusal),
    /// Nothing more can be sent: the answer broke off and the peer must see that.
    Aborted,
}

/// What one pull of a streamed answer gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Something was appended, or nothing this time; there is more.
    More,
    /// The answer is complete.
    Done {
        /// Whether the connection may serve another request.
        keep_alive: bool,
    },
    /// The answer broke off.
    Aborted,
}

/// What the loop is told between two rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Go on.
    Continue,
    /// Take what waits in the listen queues, which may be nobody's soon; finish what is there; end.
    Drain,
    /// Accept nothing more, because others do; finish what is there; end.
    Retire,
    /// End now.
    Stop,
}

/// Something that went wrong outside any request.
#[derive(Debug)]
pub enum Incident {
    /// A connection could not be accepted; accepting rests for a moment.
    Accept(Errno),
    /// A request body could not be written to its spool file.
    Spool(std::io::Error),
}

/// Who answers requests.
pub trait Application: Sized {
    /// Bytes of an answer, sent from where they lie.
    type Chunk: AsRef<[u8]>;
    /// An answer that is being pulled.
    type Stream;
    /// What the application keeps about a connection.
    type Peer;

    /// The worker's row of the scoreboard.
    fn slot(&self) -> &Slot;

    /// A connection was accepted on the listener with this index.
    fn peer(&mut self, listener: usize, address: Option<SocketAddrAny>) -> Self::Peer;

    /// Answers one complete request.
    fn call(
        &mut self,
        request: Request<'_, Self::Peer>,
        outbox: &mut Outbox<Self::Chunk>,
        clock: &mut Clock,
    ) -> Outcome<Self::Stream>;

    /// Continues an answer; called only when the socket can take more. Takes the stream when the
    /// answer ends, well or not; one that is left is pulled again, or abandoned.
    fn pull(
        &mut self,
        stream: &mut Option<Self::Stream>,
        socket: BorrowedFd<'_>,
        outbox: &mut Outbox<Self::Chunk>,
        clock: &mut Clock,
    ) -> Pull;

    /// The peer went away before its answer was complete.
    fn abandon(&mut self, stream: Self::Stream, clock: &mut Clock);

    /// Writes the answer to a refused request, and whatever log line is due.
    fn refuse(&mut self, refusal: &Refusal, peer: &mut Self::Peer, outbox: &mut Outbox<Self::Chunk>);

    /// Is told of trouble outside any request.
    fn incident(&mut self, incident: Incident);

    /// Runs `block`, which may block, in whatever way lets the process's other threads run.
    fn wait<R>(&mut self, block: impl FnOnce() -> R) -> R;

    /// Called once a round of the loop: signals, orders, work of its own.
    fn turn(&mut self) -> Turn;
}
