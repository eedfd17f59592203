//! Responses out of files: the extensions `http.response.pathsend` and `http.response.zerocopysend`.
//!
//! Owns       reading the file piece by piece, as fast as the client takes it.
//! Never      holds more of a file in memory than one piece, nor the loop for more than a few.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::asgi::awaitable::{Awaitable, Step, as_coroutine};
use crate::asgi::exchange::Exchange;
use crate::asgi::guarded::Guarded;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Pieces that are sent before other tasks get their turn.
const PIECES_PER_TURN: usize = 16;

/// A file on its way: an awaitable that ends when the connection has taken it.
#[pyclass(frozen, module = "bicorn._core")]
pub struct FileSend {
    sending: Guarded<Sending>,
}

struct Sending {
    exchange: Py<Exchange>,
    file: File,
    offset: Cell<u64>,
    left: Cell<u64>,
    /// The length of the body, where this file is all of it.
    whole: Option<u64>,
    more_body: bool,
    /// The future that is awaited, as an iterator.
    waiting: RefCell<Option<Py<PyAny>>>,
    piece: RefCell<Vec<u8>>,
}

/// `http.response.pathsend`: the whole file is the whole body.
pub fn path<'py>(
    py: Python<'py>,
    exchange: &Bound<'py, Exchange>,
    message: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let path = message
        .get_item(intern!(py, "path"))?
        .ok_or_else(|| PyRuntimeError::new_err("http.response.pathsend must have a path"))?
        .extract::<std::path::PathBuf>()?;
    let file = File::open(&path)?;
    let left = file.metadata()?.len();
    FileSend::begin(py, exchange, file, 0, left, false)
}

/// `http.response.zerocopysend`: a part of an open file is a part of the body.
pub fn file<'py>(
    py: Python<'py>,
    exchange: &Bound<'py, Exchange>,
    message: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let given = |name: &str| Ok::<_, PyErr>(message.get_item(name)?.filter(|value| !value.is_none()));
    let object = given("file")?
        .ok_or_else(|| PyRuntimeError::new_err("http.response.zerocopysend must have a file"))?;
    let fd = match object.extract::<RawFd>() {
        Ok(fd) => fd,
        Err(_) => object.call_method0(intern!(py, "fileno"))?.extract::<RawFd>()?,
    };
    // SAFETY: the application's descriptor, used only for this call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let failed =
        |errno: rustix::io::Errno| PyOSError::new_err((errno.raw_os_error(), "the file cannot be sent"));
    let own: OwnedFd = rustix::io::fcntl_dupfd_cloexec(borrowed, 0).map_err(failed)?;
    let offset = match given("offset")? {
        Some(offset) => offset.extract::<u64>()?,
        None => rustix::fs::seek(borrowed, rustix::fs::SeekFrom::Current(0)).map_err(failed)?,
    };
    let file = File::from(own);
    let available = file.metadata()?.len().saturating_sub(offset);
    let left = given("count")?
        .map(|count| count.extract::<u64>())
        .transpose()?
        .map_or(available, |count| count.min(available));
    let more_body = given("more_body")?.map(|more| more.is_truthy()).transpose()?.unwrap_or(false);
    FileSend::begin(py, exchange, file, offset, left, more_body)
}

impl FileSend {
    fn begin<'py>(
        py: Python<'py>,
        exchange: &Bound<'py, Exchange>,
        file: File,
        offset: u64,
        left: u64,
        more_body: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        exchange.get().expect_body(py)?;
        let sending = Sending {
            exchange: exchange.clone().unbind(),
            file,
            offset: Cell::new(offset),
            left: Cell::new(left),
            whole: (!more_body).then_some(left),
            more_body,
            waiting: RefCell::new(None),
            piece: RefCell::new(vec![0; PIECE_BYTES.min(left as usize)]),
        };
        Ok(Bound::new(py, Self { sending: Guarded::new(sending) })?.into_any())
    }

    /// Sends one piece; false when it was the last.
    fn send_piece(&self, py: Python<'_>) -> PyResult<bool> {
        let sending = self.sending.get(py);
        let piece = &mut *sending.piece.borrow_mut();
        let wanted = piece.len().min(sending.left.get() as usize);
        let count = sending.file.read_at(&mut piece[..wanted], sending.offset.get())?;
        sending.offset.set(sending.offset.get() + count as u64);
        // A file that became shorter ends here; the length that was promised then breaks the connection.
        sending.left.set(if count == 0 { 0 } else { sending.left.get() - count as u64 });
        let more = sending.left.get() > 0;
        // Not before: a file that cannot be read leaves the application free to answer otherwise.
        sending.exchange.get().begin_body(py, sending.whole);
        sending.exchange.get().put_more(py, &piece[..count], more || sending.more_body)?;
        Ok(more)
    }
}

impl Awaitable for FileSend {
    fn step<'py>(slf: &Bound<'py, Self>) -> PyResult<Step<'py>> {
        let (py, file) = (slf.py(), slf.get());
        let sending = file.sending.get(py);
        for _ in 0..PIECES_PER_TURN {
            let waiting = sending.waiting.take();
            if let Some(waiting) = waiting {
                // Raises what the future was settled with; None means that it is.
                let mut iterator = waiting.bind(py).try_iter()?;
                if let Some(future) = iterator.next() {
                    sending.waiting.replace(Some(waiting));
                    return Ok(Step::Waits(Some(future?)));
                }
            }
            if !file.send_piece(py)? {
                return Ok(Step::Done(None));
            }
            if let Some(future) = sending.exchange.get().until_drained(py)? {
                let waiting = future.call_method0(intern!(py, "__await__"))?;
                sending.waiting.replace(Some(waiting.unbind()));
            }
        }
        // A bare None is how a coroutine lets others run.
        Ok(Step::Waits(None))
    }
}

as_coroutine!(FileSend);
