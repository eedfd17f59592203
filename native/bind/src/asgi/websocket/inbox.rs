//! Messages on their way to the application.
//!
//! Owns       what was decoded and not yet received, and the bytes behind it that were not decoded.
//! Never      decodes further than its bound: a few bytes that would inflate to a lot wait as a few bytes.
//! Invariant  messages come out in the order in which they came in; at most one more message than the bound
//!            is ever held.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// So many bytes of messages may wait, and one message more: as much as one read brings (uvloop reads
/// up to 256 KiB, asyncio too), so that an application which keeps up never makes reading stop.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// What waits for `receive`.
#[derive(Default)]
pub struct Inbox {
    messages: RefCell<VecDeque<(Py<PyDict>, usize)>>,
    bytes: Cell<usize>,
    /// Bytes from the client that nobody has looked at.
    backlog: RefCell<Vec<u8>>,
}

impl Inbox {
    /// Whether decoding has to stop until the application has received something.
    #[inline]
    pub fn is_full(&self, messages_max: usize) -> bool {
        self.bytes.get() >= WAITING_BYTES_MAX || self.messages.borrow().len() >= messages_max
    }

    /// A message of `bytes` bytes was decoded.
    #[inline]
    pub fn push(&self, message: Bound<'_, PyDict>, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        self.messages.borrow_mut().push_back((message.unbind(), bytes));
    }

    /// The oldest message.
    #[inline]
    pub fn pop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyDict>> {
        let (message, bytes) = self.messages.borrow_mut().pop_front()?;
        self.bytes.set(self.bytes.get() - bytes);
        Some(message.into_bound(py))
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.messages.borrow().is_empty()
    }

    /// Whether bytes wait that were not decoded.
    #[inline]
    pub fn has_backlog(&self) -> bool {
        !self.backlog.borrow().is_empty()
    }

    /// Keeps bytes for later.
    pub fn hold(&self, bytes: &[u8]) {
        self.backlog.borrow_mut().extend_from_slice(bytes);
    }

    /// The bytes that were kept.
    pub fn take_backlog(&self) -> Vec<u8> {
        self.backlog.take()
    }

    /// Nothing that came will be received any more.
    pub fn clear(&self) {
        self.messages.take();
        self.backlog.take();
        self.bytes.set(0);
    }
}
