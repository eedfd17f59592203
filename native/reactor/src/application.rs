//! The seam between the loop and whoever answers requests.
//!
//! Owns       the two traits that bind implements: what the loop asks while it holds the sockets, and what
//!            runs a job while it does not.
//! Never      names Python: the reactor is tested with an application written in Rust.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use bicorn_wire::{Origin, Refusal};
use rustix::io::Errno;

use crate::job::Job;
use crate::outbox::Outbox;
use crate::scoreboard::Slot;

/// What became of one step of an answer.
#[derive(Debug)]
pub enum Outcome {
    /// The whole answer is in the outbox.
    Done {
        /// Whether the connection may serve another request.
        keep_alive: bool,
    },
    /// The answer has begun, and the job's stream has the rest: it is pulled as the socket takes it.
    More,
    /// The request broke a rule that only the application's settings know.
    Refused(Refusal),
    /// Nothing more can be sent: the answer broke off and the peer must see that.
    Aborted {
        /// Only a reset shows it, because the answer ends where its connection does.
        reset: bool,
    },
}

/// Something that went wrong outside any request.
#[derive(Debug)]
pub enum Incident {
    /// A connection could not be accepted; accepting rests for a moment.
    Accept(Errno),
    /// A request body could not be written to its spool file.
    Spool(std::io::Error),
}

/// What the kernel knows of the request that a socket's peer has sent last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// For how long the peer has sent no data, in nanoseconds; 0 where the kernel does not tell.
    pub silent_ns: u64,
    /// The peer closed its side, and not together with its last data: it has given up.
    pub left_early: bool,
    /// Both sides are closed.
    pub gone: bool,
}

/// What the loop asks. It is asked with the loop held, so it answers from memory.
pub trait Application: Sized {
    /// Bytes of an answer, sent from where they lie.
    type Chunk: AsRef<[u8]>;
    /// An answer that is being pulled.
    type Stream;
    /// What the application keeps about a connection.
    type Peer;

    /// The worker's row of the scoreboard.
    fn slot(&self) -> &Slot;

    /// A connection came in on the listener with this index.
    fn peer(&mut self, listener: usize, address: Option<SocketAddr>) -> Self::Peer;

    /// Where a connection came in and from where, if another worker can know as much of it.
    fn movable(&self, peer: &Self::Peer) -> Option<(usize, Option<SocketAddr>)>;

    /// How many other workers that take connections over have nothing to do.
    fn idle_siblings(&self) -> usize;

    /// How many other workers take connections over and are not held up, and how many connections they have together.
    fn siblings(&self) -> (usize, usize);

    /// Whether there is another worker that takes connections over, and goes on.
    fn has_ready_sibling(&self) -> bool;

    /// A PROXY header says for whom the connection was opened; false if this peer may not send one.
    fn relays(&mut self, peer: &mut Self::Peer, origin: Origin) -> bool;

    /// Writes the answer to a refused request, and whatever log line is due.
    fn refuse(&mut self, refusal: &Refusal, peer: &mut Self::Peer, outbox: &mut Outbox<Self::Chunk>);

    /// Writes the answer to a request that nobody has answered in time.
    fn answer_late(&mut self, outbox: &mut Outbox<Self::Chunk>, with_body: bool);

    /// When the last bytes of this connection came, and whether its peer is still there.
    fn arrival(&self, socket: BorrowedFd<'_>) -> Arrival;

    /// Is told of trouble outside any request.
    fn incident(&mut self, incident: Incident);

    /// As many requests as this worker is to serve have been answered.
    fn recycle(&mut self);
}

/// Runs jobs; shared by all threads that do.
pub trait Handler<A: Application> {
    /// Calls the application with a complete request.
    fn call(&self, job: &mut Job<A>) -> Outcome;

    /// Continues an answer; called only when everything before has been sent. Takes the job's stream
    /// when the answer ends, well or not.
    fn pull(&self, job: &mut Job<A>) -> Outcome;

    /// The peer went away before its answer was complete.
    fn abandon(&self, job: &mut Job<A>);
}

/// How the loop waits for the kernel, which depends on what the waiting thread holds.
pub trait Waiter {
    /// Runs `block`, which may block, in whatever way lets the process's other threads run.
    fn wait<R>(&mut self, block: impl FnOnce() -> R) -> R;

    /// Whether to wait at all; if not, the loop says that it is idle, and for how long it would have waited.
    fn may_block(&self) -> bool {
        true
    }

    /// The longest wait, in milliseconds: for a thread that has something else to look at every now and then.
    fn wait_ms_max(&self) -> u64 {
        u64::MAX
    }

    /// Whether a turn of the loop shows that the worker is alive: not where others run the application.
    fn proves_life(&self) -> bool {
        true
    }
}

/// A thread that holds nothing which others need.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unattached {
    /// See [`Waiter::proves_life`].
    pub proves_life: bool,
}

impl Waiter for Unattached {
    fn wait<R>(&mut self, block: impl FnOnce() -> R) -> R {
        block()
    }

    fn proves_life(&self) -> bool {
        self.proves_life
    }
}

/// What a call of the loop gave.
pub enum Next<A: Application> {
    /// A job to run, and to give back.
    Job(Box<Job<A>>),
    /// Another thread asks for attention, or an order has come.
    Woken,
    /// A signal has arrived.
    Signal,
    /// There is nothing to do before this much time has passed; given only to a waiter that may not block.
    Idle(Duration),
    /// The drain is over, or the loop was stopped.
    Ended,
}
