//! Things that are costly to make and serve one user at a time.

use std::sync::{Mutex, PoisonError};

/// What is kept when nobody uses it; more are made only while their uses overlap.
const KEPT_MAX: usize = 64;

/// A stock of things of one kind, for all threads of a worker.
pub struct Stock<T>(Mutex<Vec<T>>);

impl<T> Default for Stock<T> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<T> Stock<T> {
    /// The one that came back last, if there is one.
    #[inline]
    pub fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Puts one back.
    #[inline]
    pub fn put(&self, thing: T) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(thing);
        }
    }
}
