//! The patience of the server with one connection.
//!
//! Owns       what happens when its deadline has passed, by where it stands.
//! Never      reads the clock or sets a timer: the worker's beat looks at every connection.

use std::rc::Rc;

use bicorn_wire::RefusalKind;
use pyo3::prelude::*;

use super::{Conn, Phase};
use crate::asgi::server::NEVER;

impl Conn {
    /// From now it has so long for whatever it is to do.
    pub fn patience(&self, milliseconds: u64) {
        self.deadline_ms.set(self.shared.now_ms().saturating_add(milliseconds));
        self.looked.set(false);
    }

    /// Whether its deadline has passed.
    #[inline]
    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.deadline_ms.get()
    }

    /// Its deadline has passed. What was waited for may have come all the same, while the process was stopped or the
    /// loop computed; so the loop gets until the next beat to find it.
    pub fn expire(self: &Rc<Self>, py: Python<'_>) {
        if !self.looked.replace(true) && self.may_have_come() {
            return;
        }
        self.deadline_ms.set(NEVER);
        match self.phase.get() {
            Phase::Idle if !self.out.paused.get() => self.close_idle(py),
            Phase::Head => self.refuse(py, RefusalKind::HeadTimeout.into()),
            _ if self.out.paused.get() && !matches!(self.phase.get(), Phase::Lost) => self.expire_writing(py),
            Phase::Busy if self.decoder.borrow().is_some() && !self.eof.get() => {
                self.refuse_body(py, RefusalKind::BodyTimeout.into());
            }
            Phase::Busy if self.eof.get() => self.give_up(py),
            Phase::Lost => {
                if let Some(exchange) = self.exchange(py) {
                    exchange.get().cancel(py);
                }
            }
            Phase::Upgraded => self.on_websocket(py, |websocket| websocket.tick(py)),
            Phase::Busy | Phase::Ending => {}
            Phase::Idle | Phase::Lingering | Phase::Closing => self.out.tell(py, "abort"),
        }
    }

    /// Whether the loop may find what is waited for when it turns: bytes that nobody has read, or room for an answer.
    fn may_have_come(&self) -> bool {
        match self.phase.get() {
            _ if self.out.paused.get() => true,
            Phase::Idle | Phase::Head | Phase::Upgraded => self.out.has_unread(),
            Phase::Busy => {
                self.decoder.borrow().is_some() && !self.reading_paused.get() && self.out.has_unread()
            }
            Phase::Ending | Phase::Lingering | Phase::Closing | Phase::Lost => false,
        }
    }

    /// The client has closed its side and the application took too long about it.
    pub(super) fn give_up(&self, py: Python<'_>) {
        if let Some(exchange) = self.exchange(py) {
            exchange.get().cancel(py);
        }
        self.out.tell(py, "close");
    }

    pub(super) fn expire_writing(&self, py: Python<'_>) {
        let unsent = self.buffered(py);
        if unsent < self.unsent.replace(unsent) {
            self.patience(self.shared.timeouts.write_ms);
        } else {
            self.out.tell(py, "abort");
        }
    }

    /// Whether it has had an answer, and nothing of another request has come.
    pub fn is_idle(&self) -> bool {
        let is_between = self.phase.get() == Phase::Idle && self.freed_ns.get() != 0;
        is_between && self.input.borrow().is_empty() && !self.out.has_unread()
    }

    /// Closes it between two requests.
    pub fn close_idle(&self, py: Python<'_>) {
        self.phase.set(Phase::Closing);
        self.patience(self.shared.timeouts.write_ms);
        self.out.tell(py, "close");
    }

    /// The worker finishes: what is idle ends soon, what is busy after its answer.
    pub fn drain(&self) {
        match self.phase.get() {
            Phase::Idle => self.patience(self.shared.idle_ms()),
            Phase::Lingering => self.patience(self.shared.linger_ms()),
            _ => {}
        }
    }
}
