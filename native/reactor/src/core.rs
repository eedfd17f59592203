//! What all connections of a worker share.
//!
//! Owns       the rules, the timeouts, the clock, and the buffers that serve whoever is served just now.
//! Never      knows which connections there are.

use std::collections::VecDeque;

use bicorn_wire::{HeadParser, ProxyRules, Rules};

use crate::application::Application;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::intake::Spool;
use crate::job::Job;
use crate::outbox::Outbox;
use crate::timer::{Token, Wheel};

/// Bytes read from a socket at once; also the most that is held of requests that came early.
pub const READ_BYTES: usize = 64 * 1024;

/// Jobs kept for the next requests: more are out only while requests overlap.
const SPARE_JOBS_MAX: usize = 16;

/// Every timeout of a connection, in milliseconds; `u64::MAX` for none.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte waited for to the end of the head.
    pub header_ms: u64,
    /// Between two reads of a body.
    pub body_ms: u64,
    /// Between two bytes the socket takes of an answer.
    pub write_ms: u64,
    /// Idle time after an answer; 0 means that every answer closes its connection.
    pub keepalive_ms: u64,
    /// For the peer to read an answer that closes, before the socket goes.
    pub linger_ms: u64,
    /// Idle time of a connection of a draining worker: long enough for a request that was sent
    /// before the client could know.
    pub drain_idle_ms: u64,
}

/// What all exchanges of a worker share.
pub struct Core<A: Application> {
    /// Who answers.
    pub app: A,
    /// The rules of the wire.
    pub rules: Rules,
    /// What of the PROXY protocol is looked for at the beginning of a connection; none, if it is not.
    pub proxy: Option<ProxyRules>,
    /// The timeouts.
    pub timeouts: Timeouts,
    /// Time.
    pub clock: Clock,
    /// Who is to be looked at when.
    pub wheel: Wheel,
    /// Bodies on their way in.
    pub spool: Spool,
    /// Connections with more to pull whose turn is over.
    pub unfinished: Vec<Token>,
    /// No request may keep its connection: the worker is on its way out.
    pub draining: bool,
    /// Requests that are complete, in the order in which they became so.
    pub(crate) ready: VecDeque<Box<Job<A>>>,
    /// Jobs that are back. The last one knows the last head: see `exchange::begin`.
    pub(crate) spare: Vec<Box<Job<A>>>,
    /// Jobs made so far that call the application, and how many may be.
    pub(crate) calls: u64,
    pub(crate) calls_max: u64,
    /// How long a request may wait for its turn, in nanoseconds; `u64::MAX` for as long as it likes.
    pub queue_ns: u64,
    /// Requests that may wait or run at a time.
    pub concurrency_max: usize,
    /// Requests that wait or run.
    pub(crate) concurrency: usize,
    /// The parser of heads that come whole.
    pub(crate) parser: HeadParser,
    /// Answers of the server's own.
    pub(crate) outbox: Outbox<A::Chunk>,
    /// What the last read gave.
    pub(crate) buffer: Vec<u8>,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays in the table.
    Keep,
    /// It is to be closed now.
    Close,
}

impl<A: Application> Core<A> {
    /// The shared state of a worker that has served nothing yet, and answers `calls_max` requests at most
    /// before it asks to be replaced.
    pub fn new(app: A, rules: Rules, timeouts: Timeouts, spool: Spool, calls_max: u64) -> Self {
        let clock = Clock::default();
        Self {
            app,
            rules,
            proxy: None,
            timeouts,
            wheel: Wheel::new(clock.now_ms()),
            clock,
            spool,
            unfinished: Vec::new(),
            draining: false,
            ready: VecDeque::new(),
            spare: Vec::new(),
            calls: 0,
            calls_max,
            queue_ns: u64::MAX,
            concurrency_max: usize::MAX,
            concurrency: 0,
            parser: HeadParser::new(),
            outbox: Outbox::default(),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// A job to fill in: the one that came back last, where there is one.
    #[inline]
    pub(crate) fn spare_job(&mut self) -> Box<Job<A>> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a job back whose connection has what it needs of it.
    #[inline]
    pub(crate) fn keep_job(&mut self, mut job: Box<Job<A>>) {
        if self.spare.len() < SPARE_JOBS_MAX {
            job.reset();
            self.spare.push(job);
        }
    }

    /// Gives `connection` `patience_ms` from now.
    #[inline]
    pub fn patience(&mut self, connection: &mut Connection<A>, patience_ms: u64) {
        let deadline_ms = self.clock.now_ms().saturating_add(patience_ms);
        connection.deadline_ms = deadline_ms;
        // A later look is not undone: it finds the deadline moved and parks the connection again.
        if deadline_ms < connection.parked_ms {
            connection.parked_ms = self.wheel.park(connection.token.key, deadline_ms);
        }
    }
}
