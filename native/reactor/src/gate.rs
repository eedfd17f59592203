//! Who answers a request: its application, or the watch when the application takes too long.
//!
//! Owns       the right to send the first byte of an answer, given once.
//! Invariant  whoever runs requests is the only one that opens a gate again, and the watch shuts open ones only: so
//!            a gate that has been passed needs no locked instruction until its next request passes.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};

const OPEN: u8 = 0;
const PASSED: u8 = 1;
const SHUT: u8 = 2;
const TAKEN: u8 = 3;
const BROKEN_OFF: u8 = 4;

/// The gate of one connection.
#[derive(Debug, Default)]
pub struct Gate(AtomicU8);

impl Gate {
    /// Another request begins; on a connection that was shut, none does.
    #[inline]
    pub fn reset(&self) {
        if matches!(self.0.load(Relaxed), PASSED | TAKEN | BROKEN_OFF) {
            self.0.store(OPEN, Release);
        }
    }

    /// Whether the application may send; from the first time on, nobody else may answer.
    #[inline]
    pub fn pass(&self) -> bool {
        match self.0.load(Relaxed) {
            PASSED | TAKEN => true,
            SHUT | BROKEN_OFF => false,
            _ => self.0.compare_exchange(OPEN, PASSED, SeqCst, SeqCst).is_ok(),
        }
    }

    /// Gives the connection to the application, which may keep it as long as it likes; false if it has been shut
    /// out.
    pub fn take(&self) -> bool {
        let taken = |state| (!matches!(state, SHUT | BROKEN_OFF)).then_some(TAKEN);
        self.0.fetch_update(SeqCst, SeqCst, taken).is_ok()
    }

    /// Whether the application has taken the connection.
    pub fn is_taken(&self) -> bool {
        self.0.load(SeqCst) == TAKEN
    }

    /// Breaks an answer off that has begun: its application may send no more of it. False where there is none.
    pub fn break_off(&self) -> bool {
        match self.0.compare_exchange(PASSED, BROKEN_OFF, SeqCst, SeqCst) {
            Ok(_) => true,
            Err(state) => state == BROKEN_OFF,
        }
    }

    /// Whether the application has been shut out.
    #[inline]
    pub fn is_shut(&self) -> bool {
        self.0.load(Relaxed) == SHUT
    }

    /// Shuts the application out; false when it has sent something already.
    pub fn shut(&self) -> bool {
        self.0.compare_exchange(OPEN, SHUT, SeqCst, SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_two_answers() {
        let gate = Gate::default();
        assert!(gate.pass() && gate.pass() && !gate.shut());
        gate.reset();
        assert!(gate.shut() && !gate.pass() && !gate.shut());
        assert!(!gate.take() && !gate.is_taken());
    }

    #[test]
    fn a_connection_that_was_shut_serves_no_other_request() {
        let gate = Gate::default();
        assert!(gate.shut());
        gate.reset();
        assert!(!gate.pass());
    }

    #[test]
    fn who_takes_the_connection_is_not_shut_out() {
        let gate = Gate::default();
        assert!(gate.pass() && gate.take() && gate.is_taken());
        assert!(gate.pass() && !gate.shut());
    }

    #[test]
    fn only_an_answer_that_has_begun_is_broken_off() {
        let gate = Gate::default();
        assert!(!gate.break_off() && gate.pass());
        assert!(gate.break_off() && gate.break_off() && !gate.pass() && !gate.take());
        gate.reset();
        assert!(gate.take() && !gate.break_off() && gate.pass());
    }
}
