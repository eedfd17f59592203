//! What waits to be sent on one connection.
//!
//! Owns       the order of the bytes, and how far the kernel has taken them.
//! Never      copies a chunk that the application made when the chunk is large, or reads a file into memory.
//! Invariant  bytes leave in the order in which they were pushed, each exactly once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

/// Chunks up to this size are copied behind the head and leave in the same buffer; larger ones are
/// sent from where they are. A copy of 4 KiB costs less than the longer path of `sendmsg`.
const COPY_BYTES_MAX: usize = 4096;

/// Slices given to one `sendmsg`; the kernel's own bound is 1024.
const SLICES_MAX: usize = 16;

/// Bytes asked of one `sendfile`, so that one fast reader of a large file does not hold the loop.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of files that leave in one flush, while others wait.
const FLUSH_FILE_BYTES_MAX: u64 = 4 << 20;

/// An inline buffer that grew beyond this is given back to the allocator once it is empty.
const INLINE_BYTES_KEPT: usize = 64 * 1024;

#[derive(Debug)]
enum Segment<C> {
    Inline(usize),
    Chunk { chunk: C, sent: usize },
    File { file: Arc<File>, offset: u64, left: u64 },
}

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Everything has been taken by the kernel.
    Done,
    /// The socket takes no more for now.
    Blocked,
    /// It takes more, but others wait for their turn.
    Yielded,
}

/// Bytes on their way out. `C` is a chunk owned by the application, sent from where it lies.
#[derive(Debug)]
pub struct Outbox<C> {
    inline: Vec<u8>,
    /// Bytes of `inline` already sent.
    taken: usize,
    /// Inline bytes that stand before the first segment.
    lead: usize,
    segments: VecDeque<Segment<C>>,
}

impl<C> Default for Outbox<C> {
    fn default() -> Self {
        Self { inline: Vec::new(), taken: 0, lead: 0, segments: VecDeque::new() }
    }
}

impl<C: AsRef<[u8]>> Outbox<C> {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lead == 0 && self.segments.is_empty()
    }

    /// Bytes of memory that wait; a file waits on disk and counts nothing.
    pub fn waiting_bytes(&self) -> u64 {
        let behind: usize = self
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Inline(len) => *len,
                Segment::Chunk { chunk, sent } => chunk.as_ref().len() - sent,
                Segment::File { .. } => 0,
            })
            .sum();
        (self.lead + behind) as u64
    }

    /// Appends what `write` appends to the inline buffer.
    #[inline]
    pub fn push_with<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let before = self.inline.len();
        let result = write(&mut self.inline);
        let added = self.inline.len() - before;
        match self.segments.back_mut() {
            None => self.lead += added,
            Some(Segment::Inline(len)) => *len += added,
            Some(_) => self.segments.push_back(Segment::Inline(added)),
        }
        result
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.push_with(|inline| inline.extend_from_slice(bytes));
    }

    /// Appends a chunk of the application, without a copy when it is large.
    #[inline]
    pub fn push_chunk(&mut self, chunk: C) {
        let len = chunk.as_ref().len();
        if len <= COPY_BYTES_MAX {
            self.push(chunk.as_ref());
        } else {
            self.segments.push_back(Segment::Chunk { chunk, sent: 0 });
        }
    }

    /// Appends `len` bytes of a file from `offset`; they go from the page cache to the socket.
    pub fn push_file(&mut self, file: Arc<File>, offset: u64, len: u64) {
        if len > 0 {
            self.segments.push_back(Segment::File { file, offset, left: len });
        }
    }

    /// Gives the kernel as much as it takes. `sent` is told of each portion.
    ///
    /// # Errors
    /// What the kernel said when the connection is broken; the rest can never be sent.
    #[inline]
    pub fn flush(&mut self, socket: BorrowedFd<'_>, mut sent: impl FnMut(usize)) -> Result<Flush, Errno> {
        let mut file_bytes = 0;
        while !self.is_empty() {
            if file_bytes >= FLUSH_FILE_BYTES_MAX {
                return Ok(Flush::Yielded);
            }
            let is_file = self.lead == 0 && matches!(self.segments.front(), Some(Segment::File { .. }));
            match self.send_some(socket) {
                Ok(count) => {
                    sent(count);
                    file_bytes += if is_file { count as u64 } else { 0 };
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Flush::Blocked),
                Err(errno) => return Err(errno),
            }
        }
        Ok(Flush::Done)
    }

    #[inline]
    fn send_some(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        if self.segments.is_empty() {
            let count = send(socket, &self.inline[self.taken..], SendFlags::NOSIGNAL)?;
            self.lead -= count;
            self.take_inline(count);
            return Ok(count);
        }
        if self.lead == 0
            && let Some(Segment::File { .. }) = self.segments.front()
        {
            return self.send_file(socket);
        }
        self.send_gathered(socket)
    }

    fn send_gathered(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        let mut slices: [IoSlice<'_>; SLICES_MAX] = std::array::from_fn(|_| IoSlice::new(&[]));
        let mut used = 0;
        let mut at = self.taken;
        let mut flags = SendFlags::NOSIGNAL;
        if self.lead > 0 {
            slices[0] = IoSlice::new(&self.inline[at..at + self.lead]);
            at += self.lead;
            used = 1;
        }
        for segment in &self.segments {
            if used == SLICES_MAX {
                break;
            }
            match segment {
                Segment::Inline(len) => {
                    slices[used] = IoSlice::new(&self.inline[at..at + len]);
                    at += len;
                }
                Segment::Chunk { chunk, sent } => slices[used] = IoSlice::new(&chunk.as_ref()[*sent..]),
                Segment::File { .. } => {
                    // The file follows at once: let the kernel fill the packet with it.
                    flags |= SendFlags::MORE;
                    break;
                }
            }
            used += 1;
        }
        let count = sendmsg(socket, &slices[..used], &mut SendAncillaryBuffer::default(), flags)?;
        self.advance(count);
        Ok(count)
    }

    fn advance(&mut self, mut count: usize) {
        let total = count.min(self.lead);
        self.lead -= total;
        count -= total;
        let mut inline_taken = total;
        while count > 0 {
            let finished = match self.segments.front_mut().expect("the kernel took only what was offered") {
                Segment::Inline(len) => {
                    let step = count.min(*len);
                    *len -= step;
                    count -= step;
                    inline_taken += step;
                    *len == 0
                }
                Segment::Chunk { chunk, sent } => {
                    let step = count.min(chunk.as_ref().len() - *sent);
                    *sent += step;
                    count -= step;
                    *sent == chunk.as_ref().len()
                }
                Segment::File { .. } => unreachable!("a file is never gathered"),
            };
            if finished {
                self.segments.pop_front();
            }
        }
        self.take_inline(inline_taken);
    }

    fn send_file(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        let Some(Segment::File { file, offset, left }) = self.segments.front_mut() else {
            unreachable!("checked by the caller");
        };
        let want = (*left).min(FILE_BYTES_MAX) as usize;
        let count = rustix::fs::sendfile(socket, &**file, Some(offset), want)?;
        if count == 0 {
            // The file is shorter than it was: the promised length cannot be kept any more.
            return Err(Errno::IO);
        }
        *left -= count as u64;
        if *left == 0 {
            self.segments.pop_front();
        }
        Ok(count)
    }

    fn take_inline(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.inline.len() {
            self.taken = 0;
            self.inline.clear();
            if self.inline.capacity() > INLINE_BYTES_KEPT {
                self.inline = Vec::new();
            }
        } else if self.taken > INLINE_BYTES_KEPT && self.taken > self.inline.len() / 2 {
            // A writer that always stays ahead of its reader would keep every byte it ever wrote.
            self.inline.drain(..self.taken);
            self.taken = 0;
        }
    }
}
