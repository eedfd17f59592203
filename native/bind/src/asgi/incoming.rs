//! The body of a request on its way to the application.
//!
//! Owns       what has come and was not yet asked for.
//! Never      bounds itself: the connection stops reading when `waiting` says that enough has come.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Pieces are joined up to so many bytes: many small reads do not become many objects, and large ones are not copied.
const JOINED_BYTES_MAX: usize = 16 * 1024;

enum Piece {
    /// As it was read: the application gets this very object.
    Whole(Py<PyBytes>),
    /// Several in one.
    Joined(Vec<u8>),
}

/// A body in transit.
#[derive(Default)]
pub struct Incoming {
    pieces: RefCell<VecDeque<Piece>>,
    waiting: Cell<usize>,
    ended: Cell<bool>,
    told: Cell<bool>,
}

impl Incoming {
    /// Nothing has come.
    #[inline]
    pub fn reset(&self) {
        if self.waiting.replace(0) > 0 {
            self.pieces.borrow_mut().clear();
        }
        self.ended.set(false);
        self.told.set(false);
    }

    /// Whether all of it has come.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Bytes that wait to be asked for.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// More has come: at least one byte.
    pub fn push(&self, piece: &Bound<'_, PyBytes>) {
        let bytes = piece.as_bytes();
        self.waiting.set(self.waiting.get() + bytes.len());
        let mut pieces = self.pieces.borrow_mut();
        match pieces.back_mut() {
            Some(last) if last.as_bytes(piece.py()).len() + bytes.len() <= JOINED_BYTES_MAX => {
                last.join(piece.py(), bytes);
            }
            _ => pieces.push_back(Piece::Whole(piece.clone().unbind())),
        }
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

    /// The next part of what has come, and whether more will: None if there is nothing to say now.
    #[inline]
    pub fn take<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyBytes>, bool)> {
        if !self.is_ready() {
            return None;
        }
        let body = match self.pieces.borrow_mut().pop_front() {
            None => PyBytes::new(py, b""),
            Some(Piece::Whole(piece)) => piece.into_bound(py),
            Some(Piece::Joined(joined)) => PyBytes::new(py, &joined),
        };
        self.waiting.set(self.waiting.get() - body.as_bytes().len());
        let is_last = self.ended.get() && self.waiting.get() == 0;
        self.told.set(is_last);
        Some((body, !is_last))
    }
}

impl Piece {
    fn as_bytes<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match self {
            Self::Whole(piece) => piece.as_bytes(py),
            Self::Joined(joined) => joined,
        }
    }

    fn join(&mut self, py: Python<'_>, bytes: &[u8]) {
        match self {
            Self::Whole(piece) => *self = Self::Joined([piece.as_bytes(py), bytes].concat()),
            Self::Joined(joined) => joined.extend_from_slice(bytes),
        }
    }
}
