//! Values that belong to the interpreter lock.
//!
//! Owns       the argument why plain cells may live in a Python object.
//! Never      gives out a value to code that does not hold the lock.

use pyo3::prelude::*;

/// A value that is touched with the interpreter lock held and at no other time, so that any thread of
/// the application may hold, call and drop the Python object that it lives in.
pub struct Guarded<T>(T);

// SAFETY: `get` wants proof of the lock, and Python drops objects with the lock held.
unsafe impl<T> Send for Guarded<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    /// Keeps `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value.
    #[inline]
    pub fn get(&self, _py: Python<'_>) -> &T {
        &self.0
    }
}
