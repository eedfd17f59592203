//! Bytes that come on a connection: heads of requests, and what comes ahead of its time.
//!
//! Owns       what was read and not yet used, and when reading pauses.
//! Never      begins more than so many requests in one turn of the loop.

use std::rc::Rc;

use bicorn_wire::{Framing, Progress};
use pyo3::prelude::*;

use super::{Conn, Phase};
use crate::asgi::websocket::read_handshake;

/// Requests of one connection that are begun in one turn of the loop.
const REQUESTS_PER_TURN: usize = 16;

/// What came of looking at the bytes of a request.
pub(super) enum Read {
    /// There is not a whole head yet.
    Partial,
    /// A request was begun, and this many bytes belong to it.
    Begun(usize),
    /// The connection takes no more requests.
    Over,
}

impl Conn {
    pub(super) fn is_busy(&self) -> bool {
        self.phase.get() == Phase::Busy
    }

    /// Keeps bytes that came ahead of their time.
    pub(super) fn hold(&self, py: Python<'_>, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut input = self.input.borrow_mut();
        input.extend_from_slice(bytes);
        self.line().set_ahead(true);
        if input.len() > self.shared.read_ahead {
            drop(input);
            self.pause_reading(py);
        }
    }

    /// Stops reading until somebody has caught up.
    pub fn pause_reading(&self, py: Python<'_>) {
        if !self.reading_paused.replace(true) {
            self.out.tell(py, "pause_reading");
        }
    }

    /// Whether somebody has to catch up.
    pub fn is_reading_paused(&self) -> bool {
        self.reading_paused.get()
    }

    /// Reads again.
    pub fn resume_reading(&self, py: Python<'_>) {
        if self.reading_paused.replace(false) {
            self.out.tell(py, "resume_reading");
        }
    }

    /// Goes on with what waits, in a turn of its own.
    pub(super) fn resume_soon(&self, py: Python<'_>) {
        let resume = self.resume.borrow().as_ref().map(|resume| resume.clone_ref(py));
        if let Some(resume) = resume
            && !self.resume_due.replace(true)
            && let Err(error) = self.shared.call_soon0(py, resume.bind(py))
        {
            error.write_unraisable(py, None);
        }
    }

    pub(super) fn resumed(self: &Rc<Self>, py: Python<'_>) {
        self.resume_due.set(false);
        self.shared.read_clock();
        if matches!(self.phase.get(), Phase::Idle | Phase::Head) && !self.driving.get() {
            self.drive(py, b"");
        }
    }

    /// Begins requests as long as whole ones are there and each is answered at once.
    pub(super) fn drive(self: &Rc<Self>, py: Python<'_>, bytes: &[u8]) {
        self.driving.set(true);
        let mut held = self.input.take();
        let waited = !held.is_empty();
        if waited {
            held.extend_from_slice(bytes);
        }
        let all: &[u8] = if waited { &held } else { bytes };
        let mut at = 0;
        let mut begun = 0;
        while at < all.len() {
            if begun == REQUESTS_PER_TURN || self.out.paused.get() {
                break;
            }
            match self.read_request(py, &all[at..]) {
                Read::Partial => {
                    self.await_head();
                    break;
                }
                Read::Begun(consumed) => at += consumed,
                Read::Over => at = all.len(),
            }
            begun += 1;
            if !matches!(self.phase.get(), Phase::Idle | Phase::Head) {
                break;
            }
        }
        self.driving.set(false);
        let rest = &all[at..];
        if waited || !rest.is_empty() {
            self.line().set_ahead(!rest.is_empty());
        }
        if self.eof.get() {
            self.drive_past_eof(py, rest.is_empty());
        }
        if self.phase.get() == Phase::Ending {
            return self.end(py, !rest.is_empty());
        }
        if self.phase.get() == Phase::Upgraded && !rest.is_empty() {
            return self.on_websocket(py, |websocket| websocket.received(py, rest));
        }
        if rest.is_empty() || matches!(self.phase.get(), Phase::Lingering | Phase::Closing | Phase::Lost) {
            return;
        }
        if waited {
            held.drain(..at);
            self.input.replace(held);
        } else {
            self.input.borrow_mut().extend_from_slice(rest);
        }
        if self.phase.get() == Phase::Idle && !self.out.paused.get() {
            self.resume_soon(py);
        }
        if self.input.borrow().len() > self.shared.read_ahead && self.phase.get() != Phase::Head {
            self.pause_reading(py);
        }
    }

    /// Nothing comes after what was read: `all` of it has been begun, or a part waits.
    #[cold]
    fn drive_past_eof(self: &Rc<Self>, py: Python<'_>, all: bool) {
        match self.phase.get() {
            Phase::Busy if !self.outlives_eof(py) => self.out.tell(py, "close"),
            Phase::Idle if all => self.phase.set(Phase::Ending),
            Phase::Head => self.phase.set(Phase::Ending), // The rest of it will never come.
            _ => {}
        }
    }

    /// The time for a head runs from its first byte.
    pub(super) fn await_head(&self) {
        if self.phase.replace(Phase::Head) == Phase::Idle {
            self.patience(self.shared.timeouts.header_ms);
        }
    }

    #[inline]
    pub(super) fn read_request(self: &Rc<Self>, py: Python<'_>, bytes: &[u8]) -> Read {
        if !self.in_head.get() {
            let known = {
                let scopes = self.shared.scopes.borrow();
                scopes
                    .recall(bytes, &self.peer)
                    .map(|made| (scopes.scope(py, made, &self.peer), made.terms, made.line(bytes)))
            };
            if let Some((scope, terms, line)) = known {
                return match scope {
                    Ok(scope) => self.begin(py, &scope, terms, line, Framing::None, bytes.len(), bytes),
                    Err(error) => self.no_scope(py, error.into()),
                };
            }
        }
        self.parse_request(py, bytes)
    }

    pub(super) fn parse_request(self: &Rc<Self>, py: Python<'_>, bytes: &[u8]) -> Read {
        let mut parsing = self.parsing.borrow_mut();
        let (parser, head) = &mut *parsing;
        match parser.parse(bytes, &self.shared.rules, head) {
            Ok(Progress::Partial) => {
                self.in_head.set(true);
                return Read::Partial;
            }
            Ok(Progress::Complete) => {}
            Err(refusal) => {
                drop(parsing);
                self.refuse(py, refusal);
                return Read::Over;
            }
        }
        parser.reset();
        self.in_head.set(false);
        let handshake = read_handshake(&self.shared, head, bytes);
        // No two handshakes are alike.
        let alone = bytes.len() == head.len && handshake.is_none();
        let made = {
            let mut scopes = self.shared.scopes.borrow_mut();
            scopes
                .make(py, head, bytes, &self.peer, alone)
                .and_then(|made| Ok((scopes.scope(py, &made, &self.peer)?, made.terms, made.line(bytes))))
        };
        let made = made.map_err(|error| error.of(head.method.of(bytes)));
        let (framing, consumed) = (head.framing, head.len);
        self.continue_due.set(head.expects_continue);
        // What runs from here on may come back to this connection.
        drop(parsing);
        match (made, handshake) {
            (Err(error), _) => self.no_scope(py, error),
            (Ok(_), Some(Err(refusal))) => self.refuse_handshake(py, refusal),
            (Ok((scope, terms, line)), Some(Ok(handshake))) => {
                self.begin_websocket(py, &scope, terms, line, handshake, consumed)
            }
            (Ok((scope, terms, line)), None) => self.begin(py, &scope, terms, line, framing, consumed, bytes),
        }
    }
}
