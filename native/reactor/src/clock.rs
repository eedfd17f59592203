//! The worker's idea of now: read once where it matters, passed on as a value.
//!
//! Owns       the last reading of the monotonic clock and the text of the Date field.
//! Never      reads the wall clock more than once a second.
//! Invariant  the Date text is that of the wall second of the last reading (RFC 9110, 6.6.1).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Length of an IMF-fixdate, always the same.
pub const DATE_BYTES: usize = 29;

/// Time, as one worker sees it.
#[derive(Debug)]
pub struct Clock {
    now_ns: u64,
    date: [u8; DATE_BYTES],
    date_valid_until_ns: u64,
}

impl Default for Clock {
    fn default() -> Self {
        let mut clock = Self { now_ns: 0, date: [b' '; DATE_BYTES], date_valid_until_ns: 0 };
        clock.read();
        clock
    }
}

impl Clock {
    /// Reads the monotonic clock (the one Python calls `time.monotonic_ns()`).
    #[inline]
    pub fn read(&mut self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        self.now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        if self.now_ns >= self.date_valid_until_ns {
            self.renew_date();
        }
        self.now_ns
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

    /// The value of the Date field.
    #[inline]
    pub fn date(&self) -> &[u8; DATE_BYTES] {
        &self.date
    }

    fn renew_date(&mut self) {
        let wall = SystemTime::now();
        let since_epoch = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let left_of_second = 1_000_000_000 - u64::from(since_epoch.subsec_nanos());
        self.date_valid_until_ns = self.now_ns + left_of_second;
        // httpdate knows the years 1970 to 9999; a clock beyond that shows the epoch.
        let shown = if since_epoch.as_secs() < 253_402_300_800 { wall } else { UNIX_EPOCH };
        self.date.copy_from_slice(httpdate::fmt_http_date(shown).as_bytes());
    }
}
