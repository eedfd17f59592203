//! Who answers a request: its application, or the watch when the application takes too long.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

const OPEN: u8 = 0;
const PASSED: u8 = 1;
const SHUT: u8 = 2;

/// The right to send the first byte of an answer, given once.
#[derive(Debug, Default)]
pub struct Gate(AtomicU8);

impl Gate {
    /// Another request begins.
    pub fn reset(&self) {
        self.0.store(OPEN, SeqCst);
    }

    /// Whether the application may send; from the first time on, nobody else may.
    #[inline]
    pub fn pass(&self) -> bool {
        self.0.compare_exchange(OPEN, PASSED, SeqCst, SeqCst) != Err(SHUT)
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
    }
}
