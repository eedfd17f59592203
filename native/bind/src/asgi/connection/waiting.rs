//! Requests whose turn has come: whether the application is called with them.
//!
//! Owns       what is known of the time that a request has waited, and the end of one that is not run.
//! Never      has a rule of its own: it is the reactor's, for every worker.
//!
//! A loop that is busy reads late, so its requests wait in the kernel, which knows since when; those that have
//! been read wait for a Task's first step, or for a thread.

use std::rc::Rc;

use bicorn_reactor::waiting::{Turn, WAITED_NS, weigh};
use bicorn_wire::RefusalKind;
use pyo3::prelude::*;

use super::reading::Read;
use super::{Conn, Phase};
use crate::asgi::exchange::Terms;

impl Conn {
    /// Judges a request that was read so long ago.
    #[inline]
    pub fn judge(&self, waited_ns: u64) -> Turn {
        let is_first = self.freed_ns.get() == 0;
        let bounded = self.shared.queue_ns != u64::MAX;
        if !is_first && !bounded && waited_ns < WAITED_NS && !self.shared.was_held_up() {
            return Turn::Run;
        }
        let since_answer_ns = self.shared.now_ns.get().saturating_sub(self.freed_ns.get());
        weigh(self.out.arrival(), waited_ns, since_answer_ns, self.shared.queue_ns)
    }

    /// Whether the connection is ready for what the request may become: a lost one is not.
    pub fn is_lost(&self) -> bool {
        self.phase.get() == Phase::Lost
    }

    /// The request is not run: its client learns why, or has gone.
    #[cold]
    pub fn dismiss(self: &Rc<Self>, py: Python<'_>, turn: Turn, terms: Terms) {
        self.exchange.take();
        if turn == Turn::Forget {
            self.shared.found_gone();
        }
        match turn {
            _ if self.is_lost() => self.forget(py),
            Turn::Refuse(kind) => self.turn_away(py, terms, kind),
            Turn::Run | Turn::Forget => self.close_idle(py),
        }
    }

    /// Answers 503: there is too much to do.
    pub(super) fn turn_away(self: &Rc<Self>, py: Python<'_>, terms: Terms, kind: RefusalKind) {
        self.shared.row().request_refused(kind.status());
        self.send_error(py, kind.status(), !terms.is_head);
        self.shared.report(py, "request_turned_away", (&self.peer.client().remote_addr, kind.text()));
        if self.eof.get() { self.end(py, false) } else { self.linger(py) }
    }

    /// Ends the connection if its request has come too late, or on top of too many.
    #[inline]
    pub(super) fn dismissed(self: &Rc<Self>, py: Python<'_>, terms: Terms) -> Option<Read> {
        let mut turn = self.judge(0);
        if turn == Turn::Run && self.shared.is_crowded() {
            turn = Turn::Refuse(RefusalKind::TooManyAtOnce);
        }
        if turn == Turn::Run {
            return None;
        }
        self.dismiss(py, turn, terms);
        Some(Read::Over)
    }
}
