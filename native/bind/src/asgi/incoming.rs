//! The body of a request on its way to the application.
//!
//! Owns       what has come and was not yet asked for.
//! Never      bounds itself: the connection stops reading when `waiting` says that enough has come.

use std::cell::{Cell, RefCell};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    /// One piece, as it was read: the application gets this very object.
    One(Py<PyBytes>),
    /// Several, joined: many small reads do not become many objects.
    Joined(Vec<u8>),
}

/// A body in transit.
#[derive(Default)]
pub struct Incoming {
    held: RefCell<Held>,
    waiting: Cell<usize>,
    ended: Cell<bool>,
    told: Cell<bool>,
}

impl Incoming {
    /// Nothing has come.
    #[inline]
    pub fn reset(&self) {
        if self.waiting.replace(0) > 0 {
            self.held.take();
        }
        self.ended.set(false);
        self.told.set(false);
    }

    /// Bytes that wait to be asked for.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// More has come.
    pub fn push(&self, piece: &Bound<'_, PyBytes>) {
        let bytes = piece.as_bytes();
        self.waiting.set(self.waiting.get() + bytes.len());
        let mut held = self.held.borrow_mut();
        *held = match std::mem::take(&mut *held) {
            Held::Nothing => Held::One(piece.clone().unbind()),
            Held::One(first) => Held::Joined([first.bind(piece.py()).as_bytes(), bytes].concat()),
            Held::Joined(mut joined) => {
                joined.extend_from_slice(bytes);
                Held::Joined(joined)
            }
        };
    }

    /// Nothing more will come.
    #[inline]
    pub fn end(&self) {
        self.ended.set(true);
    }

    /// Whether there is something to say.
    #[inline]
    pub fn is_ready(&self) -> bool {
        !self.told.get() && (self.waiting.get() > 0 || self.ended.get())
    }

    /// All that has come, and whether more will: None if there is nothing to say now.
    #[inline]
    pub fn take<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyBytes>, bool)> {
        if !self.is_ready() {
            return None;
        }
        self.waiting.set(0);
        self.told.set(self.ended.get());
        let body = match self.held.take() {
            Held::Nothing => PyBytes::new(py, b""),
            Held::One(piece) => piece.into_bound(py),
            Held::Joined(joined) => PyBytes::new(py, &joined),
        };
        Some((body, !self.ended.get()))
    }
}
