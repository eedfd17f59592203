//! What follows an answer: the next request, or the connection's end.
//!
//! Owns       the ways in which a connection ends, and the server's own answers before that.
//! Never      closes with unread input behind it, unless that is meant to be a reset.

use std::rc::Rc;

use bicorn_wire::{Refusal, push_refusal};
use pyo3::prelude::*;

use super::{Conn, Phase};
use crate::asgi::server::NEVER;

impl Conn {
    /// A response has left.
    #[inline]
    pub fn answered(self: &Rc<Self>, py: Python<'_>, keep_alive: bool) {
        self.exchange.take();
        self.shared.row().sent(self.out.take_sent() as usize);
        if self.phase.get() == Phase::Lost {
            return self.forget(py);
        }
        // While `drive` is on the stack it has the input, and looks for the end itself.
        let over = self.eof.get() && !self.driving.get() && self.input.borrow().is_empty();
        if !keep_alive || over {
            self.phase.set(Phase::Ending);
            if !self.driving.get() {
                let unread = !self.input.borrow().is_empty();
                self.end(py, unread);
            }
        } else if self.decoder.borrow().is_some() {
            self.resume_reading(py);
            self.await_body();
        } else {
            self.idle(py);
        }
    }

    /// Ready for the next request.
    #[inline]
    pub(super) fn idle(self: &Rc<Self>, py: Python<'_>) {
        self.phase.set(Phase::Idle);
        if !self.out.paused.get() {
            self.line().gate.reset();
        }
        self.freed_ns.set(self.shared.now_ns.get());
        self.patience(self.shared.idle_ms());
        if self.reading_paused.get() && self.input.borrow().len() <= self.shared.read_ahead {
            self.resume_reading(py);
        }
        if !self.driving.get() && !self.input.borrow().is_empty() {
            self.resume_soon(py);
        }
    }

    /// Breaks the connection off in the middle of an answer. Where its end is the end of the body, a plain
    /// close would look like all of it: the client gets a reset.
    pub fn break_off(self: &Rc<Self>, py: Python<'_>, reset: bool) {
        self.exchange.take();
        self.shared.row().sent(self.out.take_sent() as usize);
        if self.phase.get() == Phase::Lost {
            return self.forget(py);
        }
        self.phase.set(Phase::Closing);
        self.patience(self.shared.timeouts.write_ms);
        if reset {
            self.out.reset_on_close();
            self.out.tell(py, "abort");
        } else {
            self.out.tell(py, "close");
        }
    }

    /// Closes after the last answer.
    pub(super) fn end(self: &Rc<Self>, py: Python<'_>, unread: bool) {
        self.input.take();
        if !self.eof.get() && (unread || self.decoder.take().is_some() || self.out.has_unread()) {
            return self.linger(py);
        }
        self.phase.set(Phase::Closing);
        self.patience(self.shared.timeouts.write_ms);
        self.out.tell(py, "close");
    }

    /// Closes our side, and leaves the peer time to read: a close with unread input behind it would reset the
    /// connection and take the answer with it (RFC 9112, 9.6).
    pub(super) fn linger(self: &Rc<Self>, py: Python<'_>) {
        self.input.take();
        self.decoder.take();
        self.phase.set(Phase::Lingering);
        self.patience(self.shared.linger_ms());
        self.out.tell(py, "write_eof");
        self.resume_reading(py);
        self.reading_paused.set(false);
    }

    /// Answers a request that broke a rule, and ends the connection.
    pub(super) fn refuse(self: &Rc<Self>, py: Python<'_>, refusal: Refusal) {
        self.shared.row().request_refused(refusal.status);
        self.tell_refusal(py, refusal);
    }

    pub(super) fn tell_refusal(self: &Rc<Self>, py: Python<'_>, refusal: Refusal) {
        self.send_error(py, refusal.status, !refusal.to_head);
        self.shared.report(
            py,
            "request_refused",
            (&self.peer.client().remote_addr, refusal.status, refusal.to_string()),
        );
        self.linger(py);
    }

    /// The body broke a rule. If the application has said nothing yet, the client learns which.
    pub(super) fn refuse_body(self: &Rc<Self>, py: Python<'_>, refusal: Refusal) {
        self.decoder.take();
        let Some(exchange) = self.exchange.take() else { return self.linger(py) };
        let unanswered = exchange.get().is_unanswered(py);
        exchange.get().supersede(py, refusal.status);
        if unanswered {
            self.tell_refusal(py, refusal);
        } else {
            self.break_off(py, false);
        }
    }

    /// Sends an answer of the server's own that ends the connection.
    pub fn send_error(&self, py: Python<'_>, status: u16, with_body: bool) {
        let mut answer = Vec::new();
        push_refusal(
            &mut answer,
            status,
            &self.shared.server,
            self.shared.date.borrow_mut().now(),
            with_body,
        );
        self.out.write(py, &[&answer]);
    }

    pub(super) fn forget(&self, py: Python<'_>) {
        self.exchange.take();
        self.deadline_ms.set(NEVER);
        let key = self.key.replace(usize::MAX);
        if key != usize::MAX {
            self.shared.connections.borrow_mut().remove(key);
            self.shared.check_drained(py);
        }
    }
}
