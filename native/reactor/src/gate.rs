//! Who answers a request: its application, or the watch when the application takes too long.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

const OPEN: u8 = 0;
const PASSED: u8 = 1;
const SHUT: u8 = 2;
const TAKEN: u8 = 3;
const BROKEN_OFF: u8 = 4;

/// The right to send the first byte of an answer, given once.
#[derive(Debug, Default)]
pub struct Gate(AtomicU8);

impl Gate {
    /// Another request begins.
    pub fn reset(&self) {
        self.0.store(OPEN, SeqCst);
    }

    /// Whether the application may send; from the first time on, nobody else may answer.
    #[inline]
    pub fn pass(&self) -> bool {
        !matches!(self.0.compare_exchange(OPEN, PASSED, SeqCst, SeqCst), Err(SHUT | BROKEN_OFF))
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

    /// Another part of an answer begins, whose first byte was sent long ago.
    pub fn go_on(&self) {
        self.0.store(PASSED, SeqCst);
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
