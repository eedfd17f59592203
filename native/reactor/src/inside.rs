//! The requests that greenlets run side by side. The one that entered last, which the scoreboard shows, hides those that
//! have waited for longer, and its end takes it away while they are still there.
//!
//! Owns       the names of all of them, in the order in which they entered.
//! Never      reads a clock, and never says which of them holds up the others: nobody hears of a switch between greenlets.
//! Invariant  the row shows the oldest one while there are several, and from then on until none is left.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::scoreboard::Named;

#[derive(Debug)]
struct Entered {
    at_ns: u64,
    method: Box<[u8]>,
    target: Box<[u8]>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    entered: BTreeMap<u64, Entered>,
    shown: Option<u64>,
}

/// See above.
#[derive(Debug, Default)]
pub struct Inside(Mutex<State>);

impl Inside {
    /// A request enters the application; gives its number here.
    pub fn enter(&self, row: &Named, at_ns: u64, (method, target): (&[u8], &[u8])) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.next;
        state.next += 1;
        state.entered.insert(number, Entered { at_ns, method: method.into(), target: target.into() });
        if state.entered.len() > 1 {
            state.show(row);
        }
        number
    }

    /// It has left.
    pub fn leave(&self, row: &Named, number: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.entered.remove(&number);
        if !state.entered.is_empty() {
            state.show(row);
        } else if state.shown.take().is_some() {
            row.clear();
        }
    }
}

impl State {
    fn show(&mut self, row: &Named) {
        if let Some((&number, oldest)) = self.entered.first_key_value()
            && self.shown != Some(number)
        {
            row.set(oldest.at_ns, &oldest.method, &oldest.target);
            self.shown = Some(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn shown(row: &Named) -> Option<Vec<u8>> {
        (row.started_ns.load(Relaxed) != 0).then(|| row.text())
    }

    #[test]
    fn the_oldest_of_several_is_shown_until_none_is_left() {
        let (inside, row) = (Inside::default(), Named::default());
        let first = inside.enter(&row, 1, (b"GET", b"/first"));
        assert_eq!(shown(&row), None, "the row's own place is enough for one");
        let second = inside.enter(&row, 2, (b"GET", b"/second"));
        let third = inside.enter(&row, 3, (b"GET", b"/third"));
        assert_eq!(shown(&row).as_deref(), Some(&b"GET /first"[..]));
        inside.leave(&row, second);
        assert_eq!(shown(&row).as_deref(), Some(&b"GET /first"[..]));
        inside.leave(&row, first);
        assert_eq!(shown(&row).as_deref(), Some(&b"GET /third"[..]));
        inside.leave(&row, third);
        assert_eq!(shown(&row), None);
    }
}
