//! The requests that greenlets run side by side. The one that entered last, which the scoreboard shows, hides those that
//! have waited for longer, and its end takes it away while they are still there.
//!
//! Owns       the names of all of them, in places that are used again.
//! Never      says which of them holds up the others: nobody hears of a switch between greenlets.
//! Invariant  what the row shows as the oldest has not left; which one it is, somebody has to look for now and then.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::scoreboard::{REQUEST_TEXT_BYTES, Slot};

#[derive(Debug, Default)]
struct Place {
    /// When it entered; 0 where there is none.
    entered_ns: u64,
    method: Vec<u8>,
    target: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    places: Vec<Place>,
    free: Vec<usize>,
    /// The place of the one that the row shows.
    shown: Option<usize>,
}

/// See above.
#[derive(Debug, Default)]
pub struct Inside(Mutex<State>);

impl Inside {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request enters the application; gives its place.
    pub fn enter(&self, now_ns: u64, (method, target): (&[u8], &[u8])) -> usize {
        let mut state = self.state();
        let at = state.free.pop().unwrap_or_else(|| {
            state.places.push(Place::default());
            state.places.len() - 1
        });
        let place = &mut state.places[at];
        place.entered_ns = now_ns;
        for (kept, text) in [(&mut place.method, method), (&mut place.target, target)] {
            kept.clear();
            kept.extend_from_slice(&text[..text.len().min(REQUEST_TEXT_BYTES)]); // The row keeps no more.
        }
        at
    }

    /// The one in this place has left.
    pub fn leave(&self, row: &Slot, at: usize) {
        let mut state = self.state();
        state.places[at].entered_ns = 0;
        state.free.push(at);
        if state.shown == Some(at) {
            state.shown = None;
            row.show_oldest(None);
        }
    }

    /// Has the row show the one that has been there longest.
    pub fn look(&self, row: &Slot) {
        let mut state = self.state();
        let taken = state.places.iter().enumerate().filter(|(_, place)| place.entered_ns != 0);
        let oldest = taken.min_by_key(|(_, place)| place.entered_ns);
        row.show_oldest(oldest.map(|(_, place)| (place.entered_ns, &*place.method, &*place.target)));
        state.shown = oldest.map(|(at, _)| at);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn shown(row: &Slot) -> Option<Vec<u8>> {
        (row.oldest.started_ns.load(Relaxed) != 0).then(|| row.oldest.text())
    }

    #[test]
    fn the_oldest_is_shown_until_it_leaves() {
        let (inside, row) = (Inside::default(), Slot::default());
        let first = inside.enter(1, (b"GET", b"/first"));
        let second = inside.enter(2, (b"GET", b"/second"));
        assert_eq!(shown(&row), None, "nobody has looked");
        inside.look(&row);
        assert_eq!(shown(&row).as_deref(), Some(&b"GET /first"[..]));
        inside.leave(&row, second);
        assert_eq!(shown(&row).as_deref(), Some(&b"GET /first"[..]));
        inside.leave(&row, first);
        assert_eq!(shown(&row), None);
        let third = inside.enter(3, (b"GET", b"/third"));
        inside.look(&row);
        assert_eq!(shown(&row).as_deref(), Some(&b"GET /third"[..]));
        inside.leave(&row, third);
        inside.look(&row);
        assert_eq!((shown(&row), inside.state().places.len()), (None, 2));
    }
}
