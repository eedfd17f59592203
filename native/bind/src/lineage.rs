//! Whether this process is the worker, or a copy that the application made of it.
//!
//! Owns       the count of forks on the way to this process.
//! Invariant  a copy shares the worker's sockets and its epoll set, so it must not serve, and it has the
//!            worker's unwritten log lines, so it must not write them.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

static FORKS: AtomicU32 = AtomicU32::new(0);
static COUNTING: Once = Once::new();

extern "C" fn count() {
    FORKS.fetch_add(1, Relaxed);
}

/// The process in which something was made.
#[derive(Clone, Copy, Debug)]
pub struct Birthplace(u32);

impl Birthplace {
    /// This process.
    pub fn here() -> Self {
        COUNTING.call_once(|| {
            // SAFETY: the handler is a function of this library, which is never unloaded, and only counts.
            unsafe { libc::pthread_atfork(None, None, Some(count)) };
        });
        Self(FORKS.load(Relaxed))
    }

    /// Whether this still is that process.
    #[inline]
    pub fn is_here(self) -> bool {
        FORKS.load(Relaxed) == self.0
    }
}
