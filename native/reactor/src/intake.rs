//! A request body on its way in: decoded as it comes, kept in memory, or in a file once it is large.
//!
//! Owns       the bytes of bodies that are not complete yet, and the worker's budget for them.
//! Never      reads a socket.
//! Invariant  memory held for bodies never exceeds `SpoolRules::total_bytes` plus one read of the loop,
//!            whatever clients send; a spool file has no name, so nothing is left behind by a crash.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use bicorn_wire::{BodyDecoder, BodyStep, Refusal};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// Memory reserved ahead for a body of known length; the rest is reserved as bytes really come.
const RESERVE_BYTES_MAX: u64 = 64 * 1024;

/// When a body goes to disk, and where.
#[derive(Clone, Debug)]
pub struct SpoolRules {
    /// A single body larger than this many bytes goes to a file.
    pub body_bytes: usize,
    /// Once bodies in memory sum up to this many bytes, every further byte goes to files.
    pub total_bytes: usize,
    /// Directory for the files.
    pub directory: PathBuf,
}

/// What a worker's bodies hold in memory together.
#[derive(Clone, Debug)]
pub struct Spool {
    rules: Arc<SpoolRules>,
    total: Arc<AtomicUsize>,
}

impl Spool {
    /// A spool that holds nothing yet.
    pub fn new(rules: SpoolRules) -> Self {
        Self { rules: Arc::new(rules), total: Arc::default() }
    }

    /// Room for a body of which nothing is there yet.
    fn room(&self, bytes: usize) -> Held {
        Held { bytes: Vec::with_capacity(bytes), total: Arc::clone(&self.total) }
    }

    /// A body that is there already.
    pub fn hold(&self, data: &[u8]) -> RequestBody {
        let mut held = self.room(data.len());
        held.extend(data);
        RequestBody::Memory(held)
    }
}

/// Bytes of a body in memory, counted among what the worker holds for as long as they live, wherever
/// they go.
#[derive(Debug)]
pub struct Held {
    bytes: Vec<u8>,
    total: Arc<AtomicUsize>,
}

impl Held {
    fn extend(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
        self.total.fetch_add(data.len(), Relaxed);
    }
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes.len(), Relaxed);
    }
}

#[derive(Debug)]
enum Store {
    Memory(Held),
    File(File, u64),
}

/// A complete request body, as the application gets it.
#[derive(Debug, Default)]
pub enum RequestBody {
    /// The request has none.
    #[default]
    Empty,
    /// It was collected in memory.
    Memory(Held),
    /// It was collected in an unnamed file of this length, positioned at its start.
    File(File, u64),
}

/// How far a body has come.
#[derive(Debug)]
pub enum Intake {
    /// All input was used up and more is needed.
    NeedData,
    /// The body is complete; this many bytes of the input belong to it.
    Complete(usize),
}

/// Why a body cannot be taken in.
#[derive(Debug)]
pub enum IntakeError {
    /// The peer broke a rule.
    Refused(Refusal),
    /// The spool file could not be made or written.
    Disk(io::Error),
}

/// One body that is being received.
#[derive(Debug)]
pub struct Body {
    decoder: BodyDecoder,
    store: Store,
    spool: Spool,
}

impl Body {
    /// Starts to receive; `expected` is the announced length, if there is one.
    pub fn new(decoder: BodyDecoder, expected: Option<u64>, spool: &Spool) -> Self {
        let reserve = expected.unwrap_or(0).min(RESERVE_BYTES_MAX).min(spool.rules.body_bytes as u64);
        Self { decoder, store: Store::Memory(spool.room(reserve as usize)), spool: spool.clone() }
    }

    /// Takes what belongs to this body from `input`.
    ///
    /// # Errors
    /// A framing rule was broken, a limit exceeded, or the disk failed.
    pub fn take(&mut self, input: &[u8]) -> Result<Intake, IntakeError> {
        let mut at = 0;
        loop {
            match self.decoder.step(&input[at..]).map_err(IntakeError::Refused)? {
                BodyStep::NeedData { .. } => return Ok(Intake::NeedData),
                BodyStep::Data { start, end } => {
                    self.keep(&input[at + start..at + end]).map_err(IntakeError::Disk)?;
                    at += end;
                }
                BodyStep::End { consumed } => return Ok(Intake::Complete(at + consumed)),
            }
        }
    }

    /// The complete body.
    ///
    /// # Errors
    /// The spool file cannot be rewound.
    pub fn finish(self) -> io::Result<RequestBody> {
        match self.store {
            Store::Memory(held) if held.is_empty() => Ok(RequestBody::Empty),
            Store::Memory(held) => Ok(RequestBody::Memory(held)),
            Store::File(mut file, len) => {
                file.seek(SeekFrom::Start(0))?;
                Ok(RequestBody::File(file, len))
            }
        }
    }

    fn keep(&mut self, data: &[u8]) -> io::Result<()> {
        if let Store::Memory(held) = &mut self.store {
            let rules = &self.spool.rules;
            let total = self.spool.total.load(Relaxed) + data.len();
            if held.len() + data.len() <= rules.body_bytes && total <= rules.total_bytes {
                held.extend(data);
                return Ok(());
            }
            let mut file = unnamed_file(&rules.directory)?;
            file.write_all(held)?;
            let len = held.len() as u64;
            self.store = Store::File(file, len);
        }
        let Store::File(file, len) = &mut self.store else { unreachable!("made a file above") };
        file.write_all(data)?;
        *len += data.len() as u64;
        Ok(())
    }
}

/// A file without a name in `directory`.
fn unnamed_file(directory: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match openat(CWD, directory, flags | OFlags::TMPFILE, mode) {
        Ok(fd) => Ok(File::from(fd)),
        // Some filesystems (overlay on old kernels, NFS) know no O_TMPFILE: make one and unlink it.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            static SERIAL: AtomicU64 = AtomicU64::new(0);
            let serial = SERIAL.fetch_add(1, Relaxed);
            let path = directory.join(format!("bicorn-body-{}-{serial}", std::process::id()));
            let fd = openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
            std::fs::remove_file(&path)?;
            Ok(File::from(fd))
        }
        Err(errno) => Err(errno.into()),
    }
}
