//! The worker's idea of now: read once where it matters, passed on as a value.
//!
//! Owns       the last reading of the monotonic clock, and the text of the Date field.
//! Never      calls the kernel: both clocks are read in the vDSO.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Length of an IMF-fixdate, always the same.
pub const DATE_BYTES: usize = 29;

/// Now, on the clock that Python calls `time.monotonic_ns()`.
#[inline]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Monotonic time, as one worker sees it.
#[derive(Debug)]
pub struct Clock {
    now_ns: u64,
}

impl Default for Clock {
    fn default() -> Self {
        let mut clock = Self { now_ns: 0 };
        clock.read();
        clock
    }
}

impl Clock {
    /// Reads the monotonic clock.
    #[inline]
    pub fn read(&mut self) -> u64 {
        self.now_ns = monotonic_ns();
        self.now_ns
    }

    /// Takes over a reading that somebody else has made, unless it is older.
    #[inline]
    pub fn advance(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// The last reading, in nanoseconds.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The last reading, in milliseconds.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.now_ns / 1_000_000
    }
}

/// The value of the Date field (RFC 9110, 6.6.1), formatted once a second.
#[derive(Debug)]
pub struct HttpDate {
    /// The tick of the kernel's clock in which the time was read last.
    tick: Option<Timespec>,
    second: u64,
    text: [u8; DATE_BYTES],
}

impl Default for HttpDate {
    fn default() -> Self {
        Self { tick: None, second: u64::MAX, text: [b' '; DATE_BYTES] }
    }
}

impl HttpDate {
    /// The text for this very moment, or for the beginning of this tick of the kernel: a few milliseconds ago.
    #[inline]
    pub fn now(&mut self) -> &[u8; DATE_BYTES] {
        let tick = clock_gettime(ClockId::MonotonicCoarse); // A fifth of the price of a precise clock.
        if self.tick != Some(tick) {
            self.tick = Some(tick);
            self.look();
        }
        &self.text
    }

    #[cold]
    fn look(&mut self) {
        // By way of libc, so that what stands before it may have the time be another, as in tests.
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second {
            self.format(second);
        }
    }

    /// The text that `now` gave last.
    #[inline]
    pub fn last(&self) -> &[u8; DATE_BYTES] {
        &self.text
    }

    #[cold]
    fn format(&mut self, second: u64) {
        self.second = second;
        // httpdate knows the years 1970 to 9999; a clock beyond that shows the epoch.
        let shown = if second < 253_402_300_800 { second } else { 0 };
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(shown));
        self.text.copy_from_slice(date.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_its_second() {
        let mut date = HttpDate::default();
        date.format(784_111_777);
        assert_eq!(date.last(), b"Sun, 06 Nov 1994 08:49:37 GMT");
        date.format(u64::MAX);
        assert_eq!(date.last(), b"Thu, 01 Jan 1970 00:00:00 GMT");
        date.now();
        assert!(date.last().ends_with(b" GMT"));
    }
}
