//! The body of the request under way.
//!
//! Owns       the way from the decoder to the exchange, and when the client is asked or made to wait.
//! Never      keeps a piece: the exchange does, until the application asks for it.

use std::rc::Rc;

use bicorn_wire::{BodyDecoder, BodyStep, Framing};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::Conn;
use crate::asgi::incoming::Incoming;
use crate::asgi::server::NEVER;

impl Conn {
    #[inline]
    pub(super) fn open_body(self: &Rc<Self>, py: Python<'_>, framing: Framing, rest: &[u8]) -> Option<usize> {
        if matches!(framing, Framing::None | Framing::Length(0)) {
            if let Some(exchange) = &*self.exchange.borrow() {
                exchange.get().incoming(py).end();
            }
            self.body_left.set(Some(0));
            return Some(0);
        }
        match BodyDecoder::new(framing, &self.shared.rules.limits) {
            Ok(decoder) => self.decoder.replace(Some(decoder)),
            Err(refusal) => {
                self.refuse_body(py, refusal);
                return None;
            }
        };
        self.body_left.set(if let Framing::Length(length) = framing { Some(length) } else { None });
        self.feed(py, rest, None)
    }

    /// Takes what belongs to the body out of `bytes`, and says how many that were; None if the body was refused.
    pub(super) fn feed(
        self: &Rc<Self>,
        py: Python<'_>,
        bytes: &[u8],
        whole: Option<&Bound<'_, PyBytes>>,
    ) -> Option<usize> {
        let mut at = 0;
        let mut data: Vec<&[u8]> = Vec::new();
        let ended = {
            let mut decoder = self.decoder.borrow_mut();
            let decoder = decoder.as_mut()?;
            loop {
                match decoder.step(&bytes[at..]) {
                    Ok(BodyStep::Data { start, end }) => {
                        data.push(&bytes[at + start..at + end]);
                        at += end;
                    }
                    Ok(BodyStep::NeedData { consumed }) => {
                        at += consumed;
                        break Ok(false);
                    }
                    Ok(BodyStep::End { consumed }) => {
                        at += consumed;
                        break Ok(true);
                    }
                    Err(refusal) => break Err(refusal),
                }
            }
        };
        self.take_in(py, &data, whole);
        match ended {
            Ok(false) => self.await_body(),
            Ok(true) => self.body_ended(py),
            Err(refusal) => {
                self.refuse_body(py, refusal);
                return None;
            }
        }
        Some(at)
    }

    pub(super) fn take_in(&self, py: Python<'_>, data: &[&[u8]], whole: Option<&Bound<'_, PyBytes>>) {
        let length: usize = data.iter().map(|piece| piece.len()).sum();
        if length == 0 {
            return;
        }
        self.continue_due.set(false);
        self.body_left.set(self.body_left.get().map(|left| left.saturating_sub(length as u64)));
        let Some(exchange) = self.exchange(py) else { return };
        let incoming = exchange.get().incoming(py);
        match (whole, data) {
            // All that was read is data: the application gets the object that it was read into.
            (Some(whole), [piece]) if piece.len() == whole.as_bytes().len() => incoming.push(whole),
            (_, [piece]) => incoming.push(&PyBytes::new(py, piece)),
            _ => incoming.push(&PyBytes::new(py, &data.concat())),
        }
        // Who waits for it takes it in the loop's next turn, before more can be read.
        let is_awaited = exchange.get().deliver(py);
        if !is_awaited && incoming.waiting() > self.shared.read_ahead {
            self.pause_reading(py);
            self.deadline_ms.set(NEVER);
        }
    }

    /// A silent client has so long to go on with its body.
    pub(super) fn await_body(&self) {
        if self.decoder.borrow().is_some() && !self.reading_paused.get() && !self.out.paused.get() {
            self.patience(self.shared.timeouts.body_ms);
        }
    }

    pub(super) fn body_ended(self: &Rc<Self>, py: Python<'_>) {
        self.decoder.take();
        self.deadline_ms.set(NEVER);
        match self.exchange(py) {
            Some(exchange) => {
                exchange.get().incoming(py).end();
                exchange.get().deliver(py);
            }
            // The rest of a body that nobody wanted: the next request may come.
            None => self.idle(py),
        }
    }

    /// The application has taken what had come.
    #[inline]
    pub fn body_taken(&self, py: Python<'_>, incoming: &Incoming) {
        if self.reading_paused.get()
            && incoming.waiting() == 0
            && self.input.borrow().len() <= self.shared.read_ahead
        {
            self.resume_reading(py);
            self.await_body();
        }
    }

    /// The application waits for the body: a client that waits too is told to go on (RFC 9110, 10.1.1).
    pub fn want_body(&self, py: Python<'_>) {
        if self.continue_due.replace(false) && self.decoder.borrow().is_some() {
            self.out.write_interim(py, &[b"HTTP/1.1 100 Continue\r\n\r\n"]);
        }
    }

    /// Whether a response that begins now may promise that the connection goes on.
    pub fn may_go_on(&self, _incoming: &Incoming) -> bool {
        // The rest of a body that the application does not want has to be read before the next request. A short
        // one is; instead of a long one, or one that still waits for its 100, the connection ends.
        let readable = self.decoder.borrow().is_none()
            || (!self.continue_due.get()
                && self.body_left.get().is_some_and(|left| left <= self.shared.read_ahead as u64));
        readable && self.shared.may_go_on()
    }
}
