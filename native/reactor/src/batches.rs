//! Lines on their way into a file, many at a time.
//!
//! Owns       the buffer of finished lines, the file, and what is said about lines that it did not take.
//! Never      blocks the loop on a slow disk before a megabyte of lines has gathered.
//! Invariant  a line is in the file at the latest one interval after it was added, or counted as lost; stderr hears of
//!            those at most once a minute.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines beyond this are written at once, by the loop itself, which waits for the writer if it must:
/// an output that takes nothing is not to fill the memory.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// How often there is a word about lost lines; the handlers in Python have the same (`observe.log_file`).
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

struct Pending {
    lines: Vec<u8>,
    /// The lines being written now; its memory is used again.
    writing: Vec<u8>,
    file: Option<File>,
    closing: bool,
    /// The file ends in the middle of a line.
    torn: bool,
    lost: Lost,
}

/// Lines that the file did not take.
#[derive(Default)]
struct Lost {
    lines: usize,
    /// Why, until somebody has asked.
    failure: Option<String>,
    told_at: Option<Instant>,
}

/// The lines of one process.
pub struct Batches {
    pending: Mutex<Pending>,
    /// Where the file is opened again; None for one that has no name.
    path: Option<PathBuf>,
    gathered: Condvar,
    /// Whoever was writing is done.
    written: Condvar,
    interval: Duration,
}

/// The lock, whatever became of its last holder: a panic in the middle leaves at worst half a line.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Batches {
    /// Lines into this file, together with those that come within `interval`.
    pub fn new(file: File, path: Option<PathBuf>, interval: Duration) -> Self {
        let pending = Pending {
            lines: Vec::new(),
            writing: Vec::new(),
            file: Some(file),
            closing: false,
            torn: false,
            lost: Lost::default(),
        };
        Self {
            pending: Mutex::new(pending),
            path,
            gathered: Condvar::new(),
            written: Condvar::new(),
            interval,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        locked(&self.pending)
    }

    /// Adds a line; true if so many wait that `make_room` is due.
    pub fn add(&self, line: &[u8]) -> bool {
        let mut pending = self.lock();
        let first = pending.lines.is_empty();
        pending.lines.extend_from_slice(line);
        let full = pending.lines.len() > PENDING_BYTES_MAX;
        drop(pending);
        if first && !full {
            self.gathered.notify_one();
        }
        full
    }

    /// Returns once less than the bound waits.
    pub fn make_room(&self) {
        let mut pending = self.lock();
        while pending.lines.len() > PENDING_BYTES_MAX {
            pending = if pending.file.is_some() {
                self.write_out(pending)
            } else {
                self.written.wait(pending).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// The writer thread: waits for the first line, lets more gather, writes them together.
    pub fn write_until_closed(&self) {
        let mut pending = self.lock();
        while !pending.closing {
            if pending.lines.is_empty() {
                pending = self.gathered.wait(pending).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (after, _) = self
                .gathered
                .wait_timeout_while(pending, self.interval, |pending| !pending.closing)
                .unwrap_or_else(PoisonError::into_inner);
            pending = self.write_out(after);
        }
    }

    /// Ends the writer thread.
    pub fn close(&self) {
        self.lock().closing = true;
        self.gathered.notify_one();
    }

    /// Writes out what has gathered.
    pub fn flush(&self) {
        drop(self.write_out(self.lock()));
    }

    /// Writes out what has gathered and opens the file anew: it was rotated.
    pub fn reopen(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let mut pending = self.write_out(self.lock());
        pending.file = Some(file);
        pending.torn = false;
        Ok(())
    }

    /// Why lines could not be written lately, once.
    pub fn take_failure(&self) -> Option<String> {
        self.lock().lost.failure.take()
    }

    /// Writes what has gathered, without keeping the loop from adding to it meanwhile.
    fn write_out<'a>(&'a self, mut pending: MutexGuard<'a, Pending>) -> MutexGuard<'a, Pending> {
        let Some(file) = pending.file.take() else { return pending };
        let spare = std::mem::take(&mut pending.writing);
        let mut batch = std::mem::replace(&mut pending.lines, spare);
        let torn = std::mem::take(&mut pending.torn) && !batch.is_empty();
        drop(pending);
        if torn {
            batch.insert(0, b'\n');
        }
        let (written, result) = write_all(&file, &batch);
        let unwritten = lines_in(&batch[written..]);
        let torn = batch[..written].last().is_some_and(|last| *last != b'\n');
        batch.clear();
        let mut pending = self.lock();
        pending.writing = batch;
        // Reopened meanwhile: the new file stays, this one was the rotated one.
        if pending.file.is_none() {
            pending.file = Some(file);
            pending.torn |= torn;
        }
        if let Err(error) = result {
            self.count(&mut pending.lost, unwritten, &error);
        }
        self.written.notify_all();
        pending
    }

    /// Says that lines were lost, unless it was said a short while ago. Not to the error log: it often lies on the same
    /// disk.
    fn count(&self, lost: &mut Lost, lines: usize, error: &io::Error) {
        lost.lines += lines;
        lost.failure = Some(error.to_string());
        if lost.told_at.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
            lost.told_at = Some(Instant::now());
            let name = self.path.as_ref().map_or_else(|| "-".into(), |path| path.to_string_lossy());
            let line =
                format!("Cannot write to the log file '{name}': {error}; lines lost: {}\n", lost.lines);
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// Writes as much as the file takes: how much that was, and why it was not all.
fn write_all(mut file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Lines that end in these bytes.
fn lines_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn read_all(mut from: &UnixStream) -> Vec<u8> {
        let mut all = Vec::new();
        let error = from.read_to_end(&mut all).expect_err("the other end is open");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        all
    }

    #[test]
    fn a_line_that_was_torn_is_ended_before_the_next_one() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).unwrap();
        }
        // A file that takes no more than it has room for.
        let batches = Batches::new(File::from(OwnedFd::from(theirs)), None, Duration::ZERO);
        let line = [&vec![b'x'; 4 << 20][..], b"\n"].concat();
        batches.add(&line);
        batches.add(b"behind it\n");
        batches.flush();
        assert_eq!(batches.lock().lost.lines, 2);
        assert!(batches.take_failure().is_some());
        let torn = read_all(&ours);
        assert!(!torn.is_empty() && line.starts_with(&torn));
        batches.add(b"next\n");
        batches.flush();
        assert_eq!(read_all(&ours), b"\nnext\n");
        assert_eq!(batches.take_failure(), None);
    }
}
