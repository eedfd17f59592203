//! One worker's row of the scoreboard: plain atomics in memory that arbiter and worker share.
//!
//! Owns       the layout of a row and what each counter means.
//! Never      maps memory (bind does) or reads a clock (the loop passes the time in).
//! Invariant  one writer, the worker that holds the row, so an increment is a load and a store;
//!            readers in other processes may see counters of slightly different moments.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release};

/// Buckets of a duration histogram: bucket `i` counts durations under `2^i` microseconds,
/// the last one everything longer (2^27 µs is 134 s, beyond any sensible request timeout).
pub const HISTOGRAM_BUCKETS: usize = 28;

/// Bytes kept of the current request's method and target, enough to name it in a log line.
pub const REQUEST_TEXT_BYTES: usize = 256;

/// A worker that has shown no life for so long is held up; every loop shows it twice in this time.
const SILENT_NS: u64 = 2_500_000_000;

/// So is one whose requests take this long.
const HELD_UP_NS: u64 = 250_000_000;

/// A row. `repr(C)` and zero-initialised: a fresh anonymous mapping is a valid row.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Slot {
    /// Process id of the worker, 0 when the row is free.
    pub pid: AtomicU64,
    /// State of the worker; the numbers belong to the arbiter's state table.
    pub state: AtomicU64,
    /// `CLOCK_MONOTONIC` in nanoseconds at the last proof of life.
    pub heartbeat_ns: AtomicU64,
    /// Connections open now.
    pub connections: AtomicU64,
    /// Connections accepted since the worker started.
    pub accepted: AtomicU64,
    /// Requests inside the application now.
    pub in_flight: AtomicU64,
    /// Jobs that run now, and how many can run at once; 0 in a worker that takes no connections over.
    pub running: AtomicU64,
    /// See `running`.
    pub capacity: AtomicU64,
    /// 1 while the loop waits for something to do, and always where a loop does not say.
    pub resting: AtomicU64,
    /// Requests answered, refusals included.
    pub requests: AtomicU64,
    /// Requests refused by the wire rules, before any application saw them.
    pub refused: AtomicU64,
    /// Bytes handed to the kernel for clients.
    pub bytes_sent: AtomicU64,
    /// Bytes read from clients.
    pub bytes_received: AtomicU64,
    /// Answers by status class, 1xx to 5xx.
    pub status_classes: [AtomicU64; 5],
    /// How long the application took, in powers of two of a microsecond.
    pub latency: [AtomicU64; HISTOGRAM_BUCKETS],
    /// Sum of the same, in microseconds.
    pub latency_sum_us: AtomicU64,
    /// How long complete requests waited for the application, in powers of two of a microsecond.
    pub waited: [AtomicU64; HISTOGRAM_BUCKETS],
    /// Sum of the same, in microseconds.
    pub waited_sum_us: AtomicU64,
    /// The request that entered the application last.
    pub request: Named,
    /// The one that has been there longest, where several run at once and somebody watches them; written by the
    /// watch alone, now and then.
    pub oldest: Named,
    /// 1 where requests run in steps, one at a time: `request` is the one whose step runs, and none while all of them
    /// wait.
    pub steps: AtomicU64,
    /// How late an event loop of Python's was with its last tick, in microseconds; 0 elsewhere.
    pub loop_lag_us: AtomicU64,
}

/// A request that is inside the application, as a reader can name it.
#[repr(C)]
#[derive(Debug)]
pub struct Named {
    /// When it entered, 0 when there is none.
    pub started_ns: AtomicU64,
    text_len: AtomicU64,
    text: [AtomicU64; REQUEST_TEXT_BYTES / 8],
}

impl Default for Named {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { started_ns: zero(), text_len: zero(), text: std::array::from_fn(|_| zero()) }
    }
}

impl Named {
    /// Names a request by its method and target, cut to what fits.
    pub fn set(&self, started_ns: u64, method: &[u8], target: &[u8]) {
        let mut text = [0; REQUEST_TEXT_BYTES];
        let method = &method[..method.len().min(REQUEST_TEXT_BYTES - 1)];
        let room = &mut text[method.len() + 1..];
        let target = &target[..target.len().min(room.len())];
        room[..target.len()].copy_from_slice(target);
        text[..method.len()].copy_from_slice(method);
        text[method.len()] = b' ';
        let len = method.len() + 1 + target.len();
        for (word, bytes) in self.text.iter().zip(text.chunks_exact(8)).take(len.div_ceil(8)) {
            word.store(u64::from_ne_bytes(bytes.try_into().expect("chunks of eight")), Relaxed);
        }
        self.text_len.store(len as u64, Relaxed);
        self.started_ns.store(started_ns, Release);
    }

    /// There is none any more.
    pub fn clear(&self) {
        self.started_ns.store(0, Relaxed);
    }

    /// Its text, as `METHOD target`; stale once it has left.
    pub fn text(&self) -> Vec<u8> {
        let len = (self.text_len.load(Relaxed) as usize).min(REQUEST_TEXT_BYTES);
        let mut text: Vec<u8> = self.text.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
        text.truncate(len);
        text
    }
}

impl Default for Slot {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            pid: zero(),
            state: zero(),
            heartbeat_ns: zero(),
            connections: zero(),
            accepted: zero(),
            in_flight: zero(),
            running: zero(),
            capacity: zero(),
            resting: zero(),
            requests: zero(),
            refused: zero(),
            bytes_sent: zero(),
            bytes_received: zero(),
            status_classes: std::array::from_fn(|_| zero()),
            latency: std::array::from_fn(|_| zero()),
            latency_sum_us: zero(),
            waited: std::array::from_fn(|_| zero()),
            waited_sum_us: zero(),
            request: Named::default(),
            oldest: Named::default(),
            steps: zero(),
            loop_lag_us: zero(),
        }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    // One writer: no locked instruction is needed, only an untorn store.
    counter.store(counter.load(Relaxed).wrapping_add(amount), Relaxed);
}

fn bucket(elapsed_us: u64) -> usize {
    (64 - elapsed_us.leading_zeros() as usize).min(HISTOGRAM_BUCKETS - 1)
}

impl Slot {
    /// Gives every counter back its zero, before the row is handed to a new worker.
    pub fn reset(&self) {
        for counter in [
            &self.pid,
            &self.state,
            &self.heartbeat_ns,
            &self.connections,
            &self.accepted,
            &self.in_flight,
            &self.running,
            &self.capacity,
            &self.resting,
            &self.requests,
            &self.refused,
            &self.bytes_sent,
            &self.bytes_received,
            &self.latency_sum_us,
            &self.waited_sum_us,
            &self.request.started_ns,
            &self.request.text_len,
            &self.oldest.started_ns,
            &self.oldest.text_len,
            &self.steps,
            &self.loop_lag_us,
        ]
        .into_iter()
        .chain(&self.status_classes)
        .chain(&self.latency)
        .chain(&self.waited)
        {
            counter.store(0, Relaxed);
        }
    }

    /// Takes this worker from the list of those that take connections over, where no arbiter is left to do it: for its
    /// siblings the row is nobody's from now on.
    pub fn leave(&self) {
        self.state.store(0, Relaxed);
    }

    /// Proof of life at `now_ns`.
    pub fn beat(&self, now_ns: u64) {
        self.heartbeat_ns.store(now_ns, Relaxed);
    }

    /// A request enters the application. That is a sign of life too: the worker's patience with it
    /// begins now, however long the loop had waited for it.
    pub fn request_entered(&self, now_ns: u64, method: &[u8], target: &[u8]) {
        add(&self.in_flight, 1);
        self.request_resumed(now_ns, method, target);
    }

    /// The application goes on with a request whose answer had waited for its reader.
    pub fn request_resumed(&self, now_ns: u64, method: &[u8], target: &[u8]) {
        self.beat(now_ns);
        self.request.set(now_ns, method, target);
    }

    /// The application has given a part of its answer and waits for the reader.
    pub fn request_paused(&self) {
        self.request.clear();
    }

    /// This one has been there longest; None: there is none that is worth a look.
    pub fn show_oldest(&self, oldest: Option<(u64, &[u8], &[u8])>) {
        match oldest {
            Some((started_ns, ..)) if self.oldest.started_ns.load(Relaxed) == started_ns => {}
            Some((started_ns, method, target)) => self.oldest.set(started_ns, method, target),
            None => self.oldest.clear(),
        }
    }

    /// A job has left the loop.
    pub fn job_left(&self) {
        add(&self.running, 1);
    }

    /// A job is back.
    pub fn job_came_back(&self) {
        self.running.store(self.running.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// The loop waits for something to do, or no longer does.
    pub fn rests(&self, resting: bool) {
        self.resting.store(u64::from(resting), Relaxed);
    }

    /// Whether this worker would run a job at once: between two jobs of many it would not.
    pub fn is_idle(&self) -> bool {
        self.resting.load(Relaxed) != 0 && self.running.load(Relaxed) < self.capacity.load(Relaxed)
    }

    /// Whether this worker would be long in running a job: it shows no life, or all that it can run at once runs, and
    /// the last of them has done so for some time.
    pub fn is_held_up(&self, now_ns: u64) -> bool {
        let age_ns = |since_ns: &AtomicU64| now_ns.saturating_sub(since_ns.load(Relaxed));
        let is_full = self.running.load(Relaxed) >= self.capacity.load(Relaxed);
        let is_in_one = self.request.started_ns.load(Relaxed) != 0;
        age_ns(&self.heartbeat_ns) > SILENT_NS
            || is_full && is_in_one && age_ns(&self.request.started_ns) > HELD_UP_NS
    }

    /// A complete request has waited this long for the application.
    pub fn request_waited(&self, waited_ns: u64) {
        let waited_us = waited_ns / 1_000;
        add(&self.waited[bucket(waited_us)], 1);
        add(&self.waited_sum_us, waited_us);
    }

    /// The same request left the application with an answer of this `status`.
    pub fn request_left(&self, started_ns: u64, now_ns: u64, status: u16) {
        self.request_withdrawn();
        if self.steps.load(Relaxed) != 0 && self.oldest.started_ns.load(Relaxed) == started_ns {
            self.oldest.clear();
        }
        let elapsed_us = now_ns.saturating_sub(started_ns) / 1_000;
        add(&self.latency[bucket(elapsed_us)], 1);
        add(&self.latency_sum_us, elapsed_us);
        self.answered(status);
    }

    /// The request that entered was refused after all, and is counted as refused.
    pub fn request_withdrawn(&self) {
        self.request.clear();
        self.in_flight.store(self.in_flight.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// A request was refused by the wire rules with `status`.
    pub fn request_refused(&self, status: u16) {
        add(&self.refused, 1);
        self.answered(status);
    }

    /// A connection was accepted.
    pub fn connection_opened(&self) {
        add(&self.accepted, 1);
        add(&self.connections, 1);
    }

    /// A connection was closed.
    pub fn connection_closed(&self) {
        self.connections.store(self.connections.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// Bytes went out.
    pub fn sent(&self, bytes: usize) {
        add(&self.bytes_sent, bytes as u64);
    }

    /// Bytes came in.
    pub fn received(&self, bytes: usize) {
        add(&self.bytes_received, bytes as u64);
    }

    fn answered(&self, status: u16) {
        add(&self.requests, 1);
        if let Some(class) = (usize::from(status) / 100).checked_sub(1)
            && class < 5
        {
            add(&self.status_classes[class], 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_requests_run_in_steps_the_oldest_is_shown_until_it_leaves() {
        let slot = Slot::default();
        slot.steps.store(1, Relaxed);
        slot.show_oldest(Some((7, b"GET", b"/first")));
        slot.show_oldest(Some((7, b"GET", b"/not-written-again")));
        assert_eq!(slot.oldest.text(), b"GET /first");
        slot.request_left(8, 9, 200);
        assert_eq!(slot.oldest.started_ns.load(Relaxed), 7);
        slot.request_left(7, 9, 200);
        assert_eq!(slot.oldest.started_ns.load(Relaxed), 0);
    }

    #[test]
    fn a_request_is_named_while_it_is_served_and_counted_afterwards() {
        let slot = Slot::default();
        slot.request_entered(1_000, b"GET", b"/a?b=1");
        assert_eq!(slot.request.text(), b"GET /a?b=1");
        assert_eq!(slot.heartbeat_ns.load(Relaxed), 1_000);
        assert_eq!(slot.in_flight.load(Relaxed), 1);
        slot.request_left(1_000, 5_000_000, 404);
        assert_eq!(slot.in_flight.load(Relaxed), 0);
        assert_eq!(slot.requests.load(Relaxed), 1);
        assert_eq!(slot.status_classes[3].load(Relaxed), 1);
        // 4999 µs lie between 2^12 and 2^13.
        assert_eq!(slot.latency[13].load(Relaxed), 1);
    }

    #[test]
    fn a_worker_is_held_up_in_a_long_request_or_without_a_sign_of_life() {
        let slot = Slot::default();
        slot.capacity.store(1, Relaxed);
        let now_ns = 10 * SILENT_NS;
        assert!(slot.is_held_up(now_ns));
        slot.beat(now_ns);
        assert!(!slot.is_held_up(now_ns + SILENT_NS) && slot.is_held_up(now_ns + SILENT_NS + 1));
        slot.request_entered(now_ns, b"GET", b"/");
        assert!(!slot.is_held_up(now_ns + HELD_UP_NS + 1), "another could run beside it");
        slot.job_left();
        assert!(!slot.is_held_up(now_ns + HELD_UP_NS) && slot.is_held_up(now_ns + HELD_UP_NS + 1));
        slot.job_came_back();
        slot.request_left(now_ns, now_ns + 1, 200);
        assert!(!slot.is_held_up(now_ns + HELD_UP_NS + 1));
    }

    #[test]
    fn a_name_that_does_not_fit_is_cut() {
        let slot = Slot::default();
        slot.request_entered(0, b"GET", &[b'x'; 1_000]);
        assert_eq!(slot.request.text().len(), REQUEST_TEXT_BYTES);
        slot.request_entered(0, &[b'M'; 1_000], b"/");
        assert_eq!(slot.request.text().len(), REQUEST_TEXT_BYTES);
    }

    #[test]
    fn a_reset_row_is_a_fresh_one() {
        let slot = Slot::default();
        slot.connection_opened();
        slot.request_entered(7, b"GET", b"/");
        slot.request_left(7, 9, 200);
        slot.reset();
        assert_eq!(format!("{:?}", slot.latency), format!("{:?}", Slot::default().latency));
        assert_eq!(slot.connections.load(Relaxed) + slot.requests.load(Relaxed), 0);
    }
}
