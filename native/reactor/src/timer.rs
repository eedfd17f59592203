//! One timer wheel for every connection of a worker.
//!
//! Owns       which place of the connection table is to be looked at when. A place and not a connection: when
//!            one connection closes and the next takes its place, the look that was due serves both, so
//!            that short connections by the thousand leave nothing behind here.
//! Never      decides that a deadline has passed: a connection's deadline lives in the connection,
//!            and moving it later costs nothing here, because the wheel only says "look again".
//! Invariant  a parked place is looked at no earlier than its slot and at most one tick late.

/// Milliseconds one slot of the wheel stands for. A keep-alive of 2 s is met within 2.5 %.
const TICK_MS: u64 = 50;

/// Slots of the wheel: 51 s ahead; what is parked further away is looked at early, and parked again.
const SLOTS: usize = 1024;

/// Names a connection across the reuse of its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Place in the connection table.
    pub key: u32,
    /// How often that place had been used before.
    pub generation: u32,
}

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<u32>>,
    occupied: [u64; SLOTS / 64],
    /// The tick that will be expired next.
    tick: u64,
}

impl Wheel {
    /// An empty wheel whose time starts at `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; SLOTS / 64],
            tick: now_ms / TICK_MS,
        }
    }

    /// Asks that the place `key` be looked at when `deadline_ms` has come; returns the time it is parked at.
    pub fn park(&mut self, key: u32, deadline_ms: u64) -> u64 {
        let wanted = deadline_ms / TICK_MS + 1;
        let tick = wanted.clamp(self.tick, self.tick + SLOTS as u64 - 1);
        let slot = tick as usize % SLOTS;
        self.slots[slot].push(key);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        tick * TICK_MS
    }

    /// Moves time on to `now_ms` and collects whom to look at.
    pub fn expire(&mut self, now_ms: u64, due: &mut Vec<u32>) {
        let now = now_ms / TICK_MS;
        // After a long pause (a request of minutes, a suspended machine) one round visits every slot.
        let last = now.min(self.tick + SLOTS as u64 - 1);
        while self.tick <= last {
            let slot = self.tick as usize % SLOTS;
            if self.occupied[slot / 64] & (1 << (slot % 64)) != 0 {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
                due.append(&mut self.slots[slot]);
            }
            self.tick += 1;
        }
        self.tick = now + 1;
    }

    /// When somebody has to be looked at next, if anybody.
    pub fn next_ms(&self) -> Option<u64> {
        let start = self.tick as usize % SLOTS;
        let words = self.occupied.len();
        for step in 0..=words {
            let index = (start / 64 + step) % words;
            let mut word = self.occupied[index];
            if step == 0 {
                word &= u64::MAX << (start % 64);
            } else if step == words {
                word &= !(u64::MAX << (start % 64));
            }
            if word != 0 {
                let slot = index * 64 + word.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - start) % SLOTS;
                return Some((self.tick + ahead as u64) * TICK_MS);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u32 = 7;

    fn due_at(wheel: &mut Wheel, now_ms: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.expire(now_ms, &mut due);
        due
    }

    #[test]
    fn a_parked_place_is_due_after_its_deadline_and_not_before() {
        let mut wheel = Wheel::new(1_000);
        let parked = wheel.park(KEY, 3_000);
        assert!((3_000..=3_000 + TICK_MS).contains(&parked));
        assert!(due_at(&mut wheel, 2_999).is_empty());
        assert_eq!(due_at(&mut wheel, parked), [KEY]);
        assert!(due_at(&mut wheel, 9_000).is_empty());
    }

    #[test]
    fn what_lies_beyond_the_horizon_is_looked_at_early_rather_than_never() {
        let mut wheel = Wheel::new(0);
        let parked = wheel.park(KEY, 3_600_000);
        assert!(parked <= SLOTS as u64 * TICK_MS);
        assert_eq!(wheel.next_ms(), Some(parked));
        assert_eq!(due_at(&mut wheel, parked), [KEY]);
    }

    #[test]
    fn a_deadline_already_passed_is_due_at_the_next_expiry() {
        let mut wheel = Wheel::new(10_000);
        wheel.park(KEY, 0);
        assert_eq!(due_at(&mut wheel, 10_000), [KEY]);
    }

    #[test]
    fn a_jump_of_hours_loses_nobody() {
        let mut wheel = Wheel::new(0);
        wheel.park(KEY, 20_000);
        assert_eq!(due_at(&mut wheel, 86_400_000), [KEY]);
        let parked = wheel.park(KEY, 86_401_000);
        assert_eq!(wheel.next_ms(), Some(parked));
        assert_eq!(due_at(&mut wheel, parked), [KEY]);
    }

    #[test]
    fn the_next_look_is_found_wherever_the_wheel_stands() {
        for start in (0..SLOTS as u64 * TICK_MS * 2).step_by(1_237) {
            let mut wheel = Wheel::new(start);
            assert_eq!(wheel.next_ms(), None);
            for ahead in [0, 49, 50, 2_000, 30_000, 51_000] {
                let mut wheel = Wheel::new(start);
                let parked = wheel.park(KEY, start + ahead);
                assert_eq!(wheel.next_ms(), Some(parked), "start {start}, ahead {ahead}");
            }
            wheel.park(KEY, start);
        }
    }
}
