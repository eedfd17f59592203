//! The access log, formatted and written without Python where nobody looks at the records.
//!
//! Owns       the compiled format, and the thread that writes the batches of lines.
//! Never      opens the file that it begins with: the arbiter did, perhaps as another user.
//! Invariant  a line is the same bytes as `bicorn.observe.log.Logger.access` would have written.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bicorn_reactor::batches::{Batches, locked};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::string::PyStringData;
use pyo3::types::{PyDict, PyString};

use crate::lineage::Birthplace;
use crate::response::Response;
use crate::unsignalled::spawn_unsignalled;

/// Part of a format.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Environ(&'static str),
    User,
    Time,
    RequestLine,
    Status,
    SentText,
    SentNumber,
    Seconds,
    Milliseconds,
    Microseconds,
    DecimalSeconds,
    Pid,
    RequestField(String),
    ResponseField(String),
    AnyEnviron(String),
    Dash,
}

fn compile(format: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        literal(&mut pieces, &rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal(&mut pieces, "%");
            rest = after;
            continue;
        }
        let inside = rest.strip_prefix('(').ok_or("a '%' that begins no %(NAME)s")?;
        let (name, after) = inside.split_once(')').ok_or("a '%(' without its ')'")?;
        let piece = atom(name);
        rest = match after.as_bytes().first() {
            Some(b's') => &after[1..],
            Some(b'd') if is_number(&piece) => &after[1..],
            _ => return Err(format!("a conversion of {name:?} other than plain s")),
        };
        pieces.push(piece);
    }
    literal(&mut pieces, rest);
    Ok(pieces)
}

fn literal(pieces: &mut Vec<Piece>, text: &str) {
    if text.is_empty() {
        return;
    }
    match pieces.last_mut() {
        Some(Piece::Literal(bytes)) => bytes.extend_from_slice(text.as_bytes()),
        _ => pieces.push(Piece::Literal(text.as_bytes().to_vec())),
    }
}

fn is_number(piece: &Piece) -> bool {
    matches!(piece, Piece::SentNumber | Piece::Seconds | Piece::Milliseconds | Piece::Microseconds)
}

fn atom(name: &str) -> Piece {
    match name {
        "h" => Piece::Environ("REMOTE_ADDR"),
        "l" => Piece::Literal(b"-".to_vec()),
        "u" => Piece::User,
        "t" => Piece::Time,
        "r" => Piece::RequestLine,
        "s" => Piece::Status,
        "m" => Piece::Environ("REQUEST_METHOD"),
        "U" => Piece::Environ("PATH_INFO"),
        "q" => Piece::Environ("QUERY_STRING"),
        "H" => Piece::Environ("SERVER_PROTOCOL"),
        "b" => Piece::SentText,
        "B" => Piece::SentNumber,
        "f" => Piece::Environ("HTTP_REFERER"),
        "a" => Piece::Environ("HTTP_USER_AGENT"),
        "T" => Piece::Seconds,
        "D" => Piece::Microseconds,
        "M" => Piece::Milliseconds,
        "L" => Piece::DecimalSeconds,
        "p" => Piece::Pid,
        _ => braced(name).unwrap_or(Piece::Dash),
    }
}

fn braced(name: &str) -> Option<Piece> {
    let (inside, kind) = name.strip_prefix('{')?.split_once('}')?;
    let upper = inside.to_ascii_uppercase().replace('-', "_");
    match (kind, upper.as_str()) {
        ("i" | "I", "CONTENT_TYPE" | "CONTENT_LENGTH") => Some(Piece::RequestField(upper)),
        ("i" | "I", _) => Some(Piece::RequestField(format!("HTTP_{upper}"))),
        ("o" | "O", _) => Some(Piece::ResponseField(inside.to_ascii_lowercase())),
        ("e" | "E", _) => Some(Piece::AnyEnviron(inside.to_ascii_lowercase())),
        _ => None,
    }
}

/// Raises ValueError for a format that needs Python's own `%`.
#[pyfunction]
pub fn compile_access_format(format: &str) -> PyResult<()> {
    compile(format)
        .map(drop)
        .map_err(|why| PyValueError::new_err(format!("this format cannot be written natively: {why}")))
}

/// Appends `text` so that it can end neither its field nor its line.
fn push_escaped(line: &mut Vec<u8>, text: &Bound<'_, PyString>) -> PyResult<()> {
    // SAFETY: the string is alive during the call and Python strings do not change.
    match unsafe { text.data() }? {
        PyStringData::Ucs1(bytes) => bytes.iter().for_each(|&byte| push_point(line, u32::from(byte))),
        PyStringData::Ucs2(points) => points.iter().for_each(|&point| push_point(line, u32::from(point))),
        PyStringData::Ucs4(points) => points.iter().for_each(|&point| push_point(line, point)),
    }
    Ok(())
}

#[inline]
fn push_point(line: &mut Vec<u8>, point: u32) {
    match point {
        0x22 | 0x5c => line.extend_from_slice(&[b'\\', point as u8]),
        0x20..=0x7e => line.push(point as u8),
        _ => push_unprintable(line, point),
    }
}

#[cold]
fn push_unprintable(line: &mut Vec<u8>, point: u32) {
    let text = match point {
        0..0x100 => format!("\\x{point:02x}"),
        0x100..0x1_0000 => format!("\\u{point:04x}"),
        _ => format!("\\U{point:08x}"),
    };
    line.extend_from_slice(text.as_bytes());
}

/// What is used again from line to line.
#[derive(Default)]
struct Scratch {
    line: Vec<u8>,
    now_text: Vec<u8>,
    now_valid_until_ns: u64,
}

/// The access log of one worker, for all of its threads. No lock is held while Python code runs: a line
/// takes some, a signal handler may run there, and one of them reopens this very log.
#[pyclass(frozen, module = "bicorn._core")]
pub struct AccessLog {
    pieces: Vec<Piece>,
    batches: Arc<Batches>,
    writer: Mutex<Option<JoinHandle<()>>>,
    scratch: Mutex<Scratch>,
    pid: String,
    birthplace: Birthplace,
    user_of: Py<PyAny>,
    now: Py<PyAny>,
}

#[pymethods]
impl AccessLog {
    /// A log to the file that is open as `fd`, and after a rotation to the one at `path`, if it has a path. `now()`
    /// gives the text of `%(t)s`, `user_of(text)` the user of an Authorization field.
    #[new]
    fn new(
        format: &str,
        fd: i32,
        path: Option<PathBuf>,
        flush_interval_ms: u64,
        now: Py<PyAny>,
        user_of: Py<PyAny>,
    ) -> PyResult<Self> {
        let pieces = compile(format).map_err(PyValueError::new_err)?;
        // SAFETY: the caller has it open, and it is borrowed for this call only.
        let file = File::from(unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?);
        let batches = Arc::new(Batches::new(file, path, Duration::from_millis(flush_interval_ms)));
        let of_thread = Arc::clone(&batches);
        let writer = spawn_unsignalled("access-log", move || of_thread.write_until_closed())?;
        Ok(Self {
            pieces,
            batches,
            writer: Mutex::new(Some(writer)),
            scratch: Mutex::default(),
            pid: format!("<{}>", std::process::id()),
            birthplace: Birthplace::here(),
            user_of,
            now,
        })
    }

    /// Writes out what has gathered and opens the file anew: it was rotated.
    fn reopen(&self) -> PyResult<()> {
        Ok(self.batches.reopen()?)
    }

    /// Writes out what has gathered.
    fn flush(&self) {
        self.batches.flush();
    }

    /// Writes the rest and ends the writer thread; the log takes no more lines.
    fn close(&self) {
        if !self.birthplace.is_here() {
            return; // The lines are the worker's, and so is the thread.
        }
        self.batches.close();
        if let Some(writer) = locked(&self.writer).take() {
            let _ = writer.join();
        }
        self.flush();
    }

    /// Why lines could not be written lately, once.
    fn take_failure(&self) -> Option<String> {
        self.batches.take_failure()
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// A response, as the log sees it.
pub trait Answer {
    /// The status code.
    fn status(&self) -> u16;
    /// Bytes of the body, without framing.
    fn body_bytes(&self) -> u64;
    /// The application's fields.
    fn fields(&self) -> Vec<(Vec<u8>, Vec<u8>)>;
}

impl Answer for Response {
    fn status(&self) -> u16 {
        self.status
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    fn fields(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.head.fields()
    }
}

/// One finished exchange, as the log sees it.
pub struct Finished<'a, 'py> {
    /// The request.
    pub environ: &'a Bound<'py, PyDict>,
    /// The response.
    pub response: &'a dyn Answer,
    /// How long it took, in nanoseconds.
    pub elapsed_ns: u64,
    /// When it ended, on the loop's clock.
    pub now_ns: u64,
}

impl AccessLog {
    /// Adds the line of one exchange.
    pub fn add(&self, py: Python<'_>, finished: &Finished<'_, '_>) -> PyResult<()> {
        let mut line = std::mem::take(&mut locked(&self.scratch).line);
        line.clear(); // Another thread's line may be in the making: then this one has its own memory.
        let result = self.format(py, finished, &mut line);
        if result.is_ok() {
            line.push(b'\n');
            self.hand_over(py, &line);
        }
        locked(&self.scratch).line = line;
        result
    }

    fn hand_over(&self, py: Python<'_>, line: &[u8]) {
        if self.batches.add(line) {
            py.detach(|| self.batches.make_room());
        }
    }

    fn format(&self, py: Python<'_>, finished: &Finished<'_, '_>, line: &mut Vec<u8>) -> PyResult<()> {
        let micros = finished.elapsed_ns / 1_000;
        self.pieces.iter().try_for_each(|piece| {
            match piece {
                Piece::Literal(text) => line.extend_from_slice(text),
                Piece::Environ(key) => push_environ(py, line, finished.environ, key)?,
                Piece::User => self.push_user(py, line, finished.environ)?,
                Piece::Time => self.push_time(py, line, finished.now_ns)?,
                Piece::RequestLine => {
                    push_environ(py, line, finished.environ, "REQUEST_METHOD")?;
                    line.push(b' ');
                    push_environ(py, line, finished.environ, "RAW_URI")?;
                    line.push(b' ');
                    push_environ(py, line, finished.environ, "SERVER_PROTOCOL")?;
                }
                Piece::Status => push_number(line, u64::from(finished.response.status())),
                Piece::SentText | Piece::SentNumber => push_number(line, finished.response.body_bytes()),
                Piece::Seconds => push_number(line, micros / 1_000_000),
                Piece::Milliseconds => push_number(line, micros / 1_000),
                Piece::Microseconds => push_number(line, micros),
                Piece::DecimalSeconds => {
                    line.extend_from_slice(
                        format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000).as_bytes(),
                    );
                }
                Piece::Pid => line.extend_from_slice(self.pid.as_bytes()),
                Piece::RequestField(key) => push_environ(py, line, finished.environ, key)?,
                Piece::ResponseField(name) => push_response_field(line, finished.response, name),
                Piece::AnyEnviron(name) => push_any_environ(line, finished.environ, name)?,
                Piece::Dash => line.push(b'-'),
            }
            Ok(())
        })
    }

    fn push_time(&self, py: Python<'_>, line: &mut Vec<u8>, now_ns: u64) -> PyResult<()> {
        let stale = now_ns >= locked(&self.scratch).now_valid_until_ns;
        if stale {
            let text = self.now.bind(py).call0()?.extract::<String>()?;
            let mut scratch = locked(&self.scratch);
            scratch.now_text = text.into_bytes();
            let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            scratch.now_valid_until_ns = now_ns + 1_000_000_000 - u64::from(wall.subsec_nanos());
        }
        line.extend_from_slice(&locked(&self.scratch).now_text);
        Ok(())
    }

    fn push_user(&self, py: Python<'_>, line: &mut Vec<u8>, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        let user = match environ.get_item(intern!(py, "HTTP_AUTHORIZATION"))? {
            Some(field) => self.user_of.bind(py).call1((field,))?,
            None => py.None().into_bound(py),
        };
        match user.cast::<PyString>() {
            Ok(user) if !user.is_empty()? => push_escaped(line, user),
            _ => {
                line.push(b'-');
                Ok(())
            }
        }
    }
}

fn push_number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_value(line: &mut Vec<u8>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match value.cast::<PyString>() {
        Ok(text) => push_escaped(line, text),
        Err(_) => push_escaped(line, &value.str()?),
    }
}

fn push_environ(py: Python<'_>, line: &mut Vec<u8>, environ: &Bound<'_, PyDict>, key: &str) -> PyResult<()> {
    match environ.get_item(PyString::intern(py, key))? {
        Some(value) => push_value(line, &value),
        None => {
            line.push(b'-');
            Ok(())
        }
    }
}

fn push_any_environ(line: &mut Vec<u8>, environ: &Bound<'_, PyDict>, name: &str) -> PyResult<()> {
    let mut found = None;
    for (key, value) in environ.iter() {
        // As in the dictionary that Python builds: of two keys that differ in case only, the last counts.
        if key.cast::<PyString>().is_ok_and(|key| key.to_string_lossy().eq_ignore_ascii_case(name)) {
            found = Some(value);
        }
    }
    match found {
        Some(value) => push_value(line, &value),
        None => {
            line.push(b'-');
            Ok(())
        }
    }
}

fn push_response_field(line: &mut Vec<u8>, response: &dyn Answer, name: &str) {
    let value =
        response.fields().into_iter().rev().find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()));
    match value {
        Some((_, value)) => value.iter().for_each(|&byte| push_point(line, u32::from(byte))),
        None => line.push(b'-'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_compile_to_pieces() {
        let pieces = compile("%(h)s \"%(r)s\" %(D)d %% %({X-Id}i)s%(zz)s").unwrap();
        assert_eq!(
            pieces,
            [
                Piece::Environ("REMOTE_ADDR"),
                Piece::Literal(b" \"".to_vec()),
                Piece::RequestLine,
                Piece::Literal(b"\" ".to_vec()),
                Piece::Microseconds,
                Piece::Literal(b" % ".to_vec()),
                Piece::RequestField("HTTP_X_ID".to_owned()),
                Piece::Dash,
            ]
        );
    }

    #[test]
    fn what_needs_python_is_refused() {
        for format in ["%(h)10s", "%h", "%(h", "%(h)d", "100%", "%(r)r"] {
            assert!(compile(format).is_err(), "{format}");
        }
    }
}
