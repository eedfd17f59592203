//! What others tell the loop: signal handlers, threads, a worker that ends.
//!
//! Owns       the order in force, and the bell that wakes whoever holds the loop.
//! Never      goes back: an order gives way only to a stricter one.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use rustix::io::Errno;

use crate::bell::Bell;

/// What the loop is to do; the stricter one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Order {
    /// Go on.
    Serve,
    /// Accept nothing more, because a successor will, and leave idle connections to it; finish what is there; end.
    Retire,
    /// Take what waits in the listen queues, which may be nobody's soon; finish what is there; end.
    Drain,
    /// End now.
    Stop,
}

/// The order in force. Everything here may be called from a signal handler or another thread.
#[derive(Debug)]
pub struct Orders {
    order: AtomicU8,
    bell: Bell,
}

impl Orders {
    /// Nothing is ordered yet.
    ///
    /// # Errors
    /// The kernel gave no descriptor.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { order: AtomicU8::new(Order::Serve as u8), bell: Bell::new()? })
    }

    /// Orders, unless something stricter is in force.
    pub fn give(&self, order: Order) {
        self.order.fetch_max(order as u8, SeqCst);
        self.ring();
    }

    /// The order in force.
    #[inline]
    pub fn current(&self) -> Order {
        match self.order.load(SeqCst) {
            0 => Order::Serve,
            1 => Order::Retire,
            2 => Order::Drain,
            _ => Order::Stop,
        }
    }

    /// Wakes whoever waits in the loop.
    pub fn ring(&self) {
        self.bell.ring();
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }
}
