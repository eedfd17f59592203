//! The scoreboard: rows of counters in anonymous memory shared by arbiter and workers.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bicorn_reactor::clock::monotonic_ns;
use bicorn_reactor::scoreboard::Slot as Row;
use pyo3::exceptions::{PyIndexError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// What stands before the rows.
#[repr(C, align(64))]
struct Header {
    /// Rows that were ever taken, counted from the first: whoever looks at all of them touches no more memory.
    used: AtomicU64,
}

struct Mapping {
    header: NonNull<Header>,
    len: usize,
}

// SAFETY: a row holds atomics only, so any thread or process may touch it at any time.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(len: usize) -> rustix::io::Result<Self> {
        let bytes = Self::bytes(len);
        // SAFETY: a new anonymous mapping overlaps nothing that exists.
        let memory = unsafe {
            mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)
        }?;
        let header = NonNull::new(memory.cast()).expect("mmap never returns null");
        Ok(Self { header, len })
    }

    const fn bytes(len: usize) -> usize {
        size_of::<Header>() + len * size_of::<Row>()
    }

    fn row(&self, index: usize) -> &Row {
        assert!(index < self.len);
        // SAFETY: inside the mapping, aligned as the header is, and zeroed memory is a valid row of atomics.
        unsafe { self.header.add(1).cast::<Row>().add(index).as_ref() }
    }

    fn take(&self, index: usize) {
        self.row(index).reset();
        // SAFETY: zeroed memory is a valid header.
        unsafe { self.header.as_ref() }.used.fetch_max(index as u64 + 1, Relaxed);
    }

    fn used(&self) -> usize {
        // SAFETY: as above.
        unsafe { self.header.as_ref() }.used.load(Relaxed) as usize
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped with this size in `new`; every row handle holds an Arc, so none is left.
        let _ = unsafe { munmap(self.header.as_ptr().cast(), Self::bytes(self.len)) };
    }
}

/// Shared counters, one row a worker; made by the arbiter before it forks.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Scoreboard {
    mapping: Arc<Mapping>,
}

#[pymethods]
impl Scoreboard {
    #[new]
    fn new(slots: usize) -> PyResult<Self> {
        if slots == 0 || slots > 65_536 {
            return Err(PyValueError::new_err(format!("a scoreboard has 1 to 65536 slots, not {slots}")));
        }
        let mapping = Mapping::new(slots)
            .map_err(|errno| PyOSError::new_err((errno.raw_os_error(), "cannot map the scoreboard")))?;
        Ok(Self { mapping: Arc::new(mapping) })
    }

    fn __len__(&self) -> usize {
        self.mapping.len
    }

    fn slot(&self, index: usize) -> PyResult<Slot> {
        if index >= self.mapping.len {
            return Err(PyIndexError::new_err(format!(
                "slot {index} of a scoreboard of {}",
                self.mapping.len
            )));
        }
        Ok(Slot { mapping: Arc::clone(&self.mapping), index })
    }
}

/// One worker's row: written by the worker that holds it, read by everybody.
#[pyclass(frozen, module = "bicorn._core")]
#[derive(Clone)]
pub struct Slot {
    mapping: Arc<Mapping>,
    /// Which row this is.
    #[pyo3(get)]
    index: usize,
}

impl Slot {
    /// The row itself.
    pub fn row(&self) -> &Row {
        self.mapping.row(self.index)
    }

    /// The rows of all other workers that are in this state and take connections over.
    pub fn siblings(&self, state: u64) -> impl Iterator<Item = &Row> {
        let others = (0..self.mapping.used()).filter(|index| *index != self.index);
        others
            .map(|index| self.mapping.row(index))
            .filter(move |row| row.state.load(Relaxed) == state && row.capacity.load(Relaxed) > 0)
    }
}

#[pymethods]
impl Slot {
    /// From now on, while this worker is ready, others may hand connections over to it: so many requests can
    /// run at once here. It counts as idle, since nobody says when it is not.
    fn take_over(&self, capacity: u64) {
        self.row().capacity.store(capacity, Relaxed);
        self.row().rests(true);
    }

    /// Whether another worker is in this state and takes connections over.
    fn has_sibling(&self, state: u64) -> bool {
        self.siblings(state).next().is_some()
    }

    /// Among how many others in this state connections can be shared out, and how many they have: whoever is held up
    /// is left out.
    #[pyo3(name = "siblings")]
    pub fn share(&self, state: u64) -> (usize, usize) {
        let now_ns = monotonic_ns();
        self.siblings(state)
            .filter(|row| !row.is_held_up(now_ns))
            .fold((0, 0), |(count, open), row| (count + 1, open + row.connections.load(Relaxed) as usize))
    }

    fn take(&self) {
        self.mapping.take(self.index);
    }

    fn beat(&self) {
        // A deadline that was extended is a sign of life in the future: this one does not take it back.
        self.row().heartbeat_ns.fetch_max(monotonic_ns(), Relaxed);
    }

    #[getter]
    fn heartbeat_ns(&self) -> u64 {
        self.row().heartbeat_ns.load(Relaxed)
    }

    #[getter]
    fn state(&self) -> u64 {
        self.row().state.load(Relaxed)
    }

    #[setter]
    fn set_state(&self, state: u64) {
        self.row().state.store(state, Relaxed);
    }

    #[getter]
    fn pid(&self) -> u64 {
        self.row().pid.load(Relaxed)
    }

    #[setter]
    fn set_pid(&self, pid: u64) {
        self.row().pid.store(pid, Relaxed);
    }

    #[getter]
    fn connections(&self) -> u64 {
        self.row().connections.load(Relaxed)
    }

    /// How many connections are open, from a loop that counts them itself.
    #[setter]
    fn set_connections(&self, open: u64) {
        self.row().connections.store(open, Relaxed);
    }

    #[getter]
    fn loop_lag_us(&self) -> u64 {
        self.row().loop_lag_us.load(Relaxed)
    }

    #[setter]
    fn set_loop_lag_us(&self, lag_us: u64) {
        self.row().loop_lag_us.store(lag_us, Relaxed);
    }

    /// A request enters the application, which was complete at `ready_ns`; gives the moment. From a loop that runs its
    /// requests itself.
    fn enter_request(&self, method: &str, target: &str, ready_ns: u64) -> u64 {
        let now_ns = monotonic_ns();
        self.row().request_waited(now_ns.saturating_sub(ready_ns));
        self.row().request_entered(now_ns, method.as_bytes(), target.as_bytes());
        now_ns
    }

    /// A request that entered at `started_ns` leaves the application, with an answer of this `status`.
    fn leave_request(&self, started_ns: u64, status: u16) {
        self.row().request_left(started_ns, monotonic_ns(), status);
    }

    /// Of several requests inside the application this is the one that entered first; 0: there are not several.
    fn show_oldest(&self, started_ns: u64, method: &str, target: &str) {
        let oldest = (started_ns, method.as_bytes(), target.as_bytes());
        self.row().show_oldest((started_ns != 0).then_some(oldest));
    }

    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let row = self.row();
        let counters = PyDict::new(py);
        for (name, counter) in [
            ("pid", &row.pid),
            ("state", &row.state),
            ("heartbeat_ns", &row.heartbeat_ns),
            ("connections", &row.connections),
            ("accepted", &row.accepted),
            ("in_flight", &row.in_flight),
            ("running", &row.running),
            ("requests", &row.requests),
            ("refused", &row.refused),
            ("bytes_sent", &row.bytes_sent),
            ("bytes_received", &row.bytes_received),
            ("latency_sum_us", &row.latency_sum_us),
            ("waited_sum_us", &row.waited_sum_us),
            ("request_started_ns", &row.request.started_ns),
            ("oldest_started_ns", &row.oldest.started_ns),
            ("steps", &row.steps),
            ("loop_lag_us", &row.loop_lag_us),
        ] {
            counters.set_item(name, counter.load(Relaxed))?;
        }
        for (class, counter) in row.status_classes.iter().enumerate() {
            counters.set_item(format!("status_{}xx", class + 1), counter.load(Relaxed))?;
        }
        let latency: Vec<u64> = row.latency.iter().map(|bucket| bucket.load(Relaxed)).collect();
        counters.set_item("latency_buckets", latency)?;
        let waited: Vec<u64> = row.waited.iter().map(|bucket| bucket.load(Relaxed)).collect();
        counters.set_item("waited_buckets", waited)?;
        for (name, request) in [("request", &row.request), ("oldest", &row.oldest)] {
            counters.set_item(name, String::from_utf8_lossy(&request.text()).into_owned())?;
        }
        Ok(counters)
    }
}
