//! One request on its way through the application, owned: it can run on any thread or greenlet.
//!
//! Owns       everything that the application needs of a request, and what becomes of it.
//! Never      touches the loop: it is made there, and given back there when it has run.
//! Invariant  a job is out at most once a connection, and its connection is neither read nor closed while
//!            it is out.

use std::os::fd::AsFd;
use std::sync::Arc;

use bicorn_wire::{Head, Refusal, RefusalKind};
use rustix::io::Errno;

use crate::application::{Application, Handler, Outcome};
use crate::connection::Then;
use crate::intake::RequestBody;
use crate::outbox::{Flush, Outbox};
use crate::socket::Socket;
use crate::timer::Token;

/// Pulls of one streamed answer before the other connections get their turn.
const PULLS_PER_TURN: usize = 16;

/// A complete request.
#[derive(Debug, Default)]
pub struct Request {
    /// The parsed head.
    pub head: Head,
    /// The bytes of the head, which its spans point into.
    pub bytes: Vec<u8>,
    /// The complete body.
    pub body: RequestBody,
    /// Whether the connection may serve another request as far as the server is concerned.
    pub may_keep_alive: bool,
}

impl Request {
    /// Why this request is not answered by the application.
    pub fn refused(&self, kind: RefusalKind) -> Refusal {
        Refusal::from(kind).of(self.head.method.of(&self.bytes))
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// Call the application.
    #[default]
    Call,
    /// Go on with an answer.
    Pull,
    /// Let go of an answer whose reader is gone.
    Abandon,
}

/// What has become of it.
#[derive(Debug, Default)]
pub enum Fate {
    /// The answer has left completely.
    Answered(Then),
    /// A part of the answer is left, in the outbox or in the stream.
    Unsent {
        /// What follows once all of it has left.
        then: Then,
        /// The socket takes no more for now; otherwise only its turn is over.
        blocked: bool,
    },
    /// A rule was broken.
    Refused(Refusal),
    /// The connection cannot go on.
    #[default]
    Broken,
}

/// An exchange that has come to its end.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// When the application was entered, on the monotonic clock.
    pub entered_ns: u64,
    /// When it was left.
    pub left_ns: u64,
    /// The status of the answer.
    pub status: u16,
}

/// A request, or the rest of an answer.
pub struct Job<A: Application> {
    /// The connection.
    pub token: Token,
    /// What is to be done.
    pub task: Task,
    /// The request; meaningful for a call.
    pub request: Request,
    /// The answer that is being pulled.
    pub stream: Option<A::Stream>,
    /// What the application keeps about the connection; always there while the job is out.
    pub peer: Option<A::Peer>,
    /// What waits to be sent.
    pub outbox: Outbox<A::Chunk>,
    /// When the request was complete, on the monotonic clock.
    pub ready_ns: u64,
    /// Set by the handler when the exchange has ended.
    pub left: Option<Left>,
    /// Bytes sent while the job was out.
    pub sent: usize,
    /// What has become of it.
    pub fate: Fate,
    /// The client is willing to go on after this answer.
    pub client_keeps_alive: bool,
    /// The number of the thread or greenlet that began the answer, and has to go on with it.
    pub home: Option<usize>,
    /// What follows if the stream ends here.
    pub then: Then,
    /// The connection's socket, which stays open while the job is out; none for an answer to abandon.
    pub socket: Option<Arc<Socket>>,
}

impl<A: Application> Default for Job<A> {
    fn default() -> Self {
        Self {
            token: Token { key: 0, generation: 0 },
            task: Task::Call,
            request: Request::default(),
            stream: None,
            peer: None,
            outbox: Outbox::default(),
            ready_ns: 0,
            left: None,
            sent: 0,
            fate: Fate::Broken,
            client_keeps_alive: false,
            home: None,
            then: Then::Close,
            socket: None,
        }
    }
}

impl<A: Application> Job<A> {
    /// Does what is to be done, and sends what comes of it as far as the socket takes it: usually all.
    pub fn run(&mut self, handler: &impl Handler<A>) {
        let mut outcome = match self.task {
            Task::Call => handler.call(self),
            Task::Pull => handler.pull(self),
            Task::Abandon => return handler.abandon(self),
        };
        for _ in 0..PULLS_PER_TURN {
            match outcome {
                Outcome::Done { keep_alive } => {
                    self.then = Then::after(keep_alive, self.client_keeps_alive);
                    self.fate = match self.flush() {
                        Ok(Flush::Done) => Fate::Answered(self.then),
                        Ok(flush) => self.unsent(flush),
                        Err(_) => Fate::Broken,
                    };
                    return;
                }
                Outcome::More => match self.flush() {
                    Ok(Flush::Done) => outcome = handler.pull(self),
                    Ok(flush) => {
                        self.fate = self.unsent(flush);
                        return;
                    }
                    Err(_) => {
                        handler.abandon(self);
                        self.fate = Fate::Broken;
                        return;
                    }
                },
                Outcome::Refused(refusal) => {
                    self.fate = Fate::Refused(refusal);
                    return;
                }
                Outcome::Aborted { reset } => return self.break_off(reset),
            }
        }
        self.end_turn(outcome);
    }

    /// Whether the application has more to give.
    pub fn goes_on(&self) -> bool {
        self.stream.is_some() && matches!(self.fate, Fate::Unsent { .. })
    }

    /// Others wait: the rest of a quick reader's answer comes in its next turn.
    fn end_turn(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done { keep_alive } => {
                self.then = Then::after(keep_alive, self.client_keeps_alive);
                self.fate = Fate::Unsent { then: self.then, blocked: false };
            }
            Outcome::More => self.fate = Fate::Unsent { then: self.then, blocked: false },
            Outcome::Refused(refusal) => self.fate = Fate::Refused(refusal),
            Outcome::Aborted { reset } => self.break_off(reset),
        }
    }

    fn unsent(&self, flush: Flush) -> Fate {
        Fate::Unsent { then: self.then, blocked: flush == Flush::Blocked }
    }

    /// What was sent before the break still goes out; the missing end tells the peer.
    fn break_off(&mut self, reset: bool) {
        let _ = self.flush();
        if reset && let Some(socket) = &self.socket {
            crate::respond::reset_at_close(socket.as_fd());
        }
        self.fate = Fate::Broken;
    }

    fn flush(&mut self) -> Result<Flush, Errno> {
        let Some(socket) = &self.socket else { return Ok(Flush::Done) };
        if !socket.gate.pass() {
            return Err(Errno::TIMEDOUT); // Its client was told so long ago.
        }
        let sent = &mut self.sent;
        self.outbox.flush(socket.as_fd(), |count| *sent += count)
    }

    /// Makes it ready for another request; the bytes and the head of the last one stay, because the same
    /// bytes mean the same head and clients mostly send the same.
    pub(crate) fn reset(&mut self) {
        self.request.body = RequestBody::Empty;
        self.stream = None;
        self.peer = None;
        self.socket = None;
        self.home = None;
        self.left = None;
        self.sent = 0;
        self.fate = Fate::Broken;
        if !self.outbox.is_empty() {
            self.outbox = Outbox::default();
        }
    }
}
