//! One WSGI response: what `start_response` was told, and how it goes onto the wire.
//!
//! Owns       the encoding of status and fields, the framing of the body, and the rule that what was
//!            promised is what is sent.
//! Never      calls the application or logs.
//! Invariant  no byte of the head leaves before the first byte of the body, or the end, is known
//!            (PEP 3333); and never more body bytes than Content-Length said.

use std::fs::File;
use std::sync::Arc;

use bicorn_reactor::Outbox;
use bicorn_wire::{LAST_CHUNK, ResponseFraming, Version, may_say_length, push_chunk_head, response_framing};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::chunk::Chunk;
use crate::response_head::{ResponseHead, SWITCHING_PROTOCOLS};

/// What the request decides about its response.
#[derive(Clone, Debug)]
pub struct Terms {
    /// HEAD is answered without a body, CONNECT without framing.
    pub method: Vec<u8>,
    /// Decides whether chunks are understood.
    pub version: Version,
    /// Client and server both want to go on.
    pub keep_alive: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { method: Vec::new(), version: Version::Http11, keep_alive: false }
    }
}

/// How a complete response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As promised.
    Whole {
        /// The connection may serve another request.
        keep_alive: bool,
    },
    /// Fewer bytes than Content-Length said: only a close tells the client.
    Short,
}

/// A response in the making.
pub struct Response {
    /// Set by the request.
    pub terms: Terms,
    /// What `start_response` said.
    pub head: ResponseHead,
    /// The status code, 0 before `start_response`.
    pub status: u16,
    /// The head is in the outbox.
    pub head_sent: bool,
    framing: ResponseFraming,
    keep_alive: bool,
    /// Body bytes handed over, without chunk framing.
    pub body_bytes: u64,
    /// Nothing more may be sent.
    pub ended: bool,
    /// Body bytes that were more than the promise, and were dropped.
    pub dropped: bool,
}

impl Response {
    /// A response that presents itself with this `Server` value.
    pub fn new(server: &[u8]) -> Self {
        Self {
            terms: Terms::default(),
            head: ResponseHead::new(server),
            status: 0,
            head_sent: false,
            framing: ResponseFraming::Empty,
            keep_alive: false,
            body_bytes: 0,
            ended: false,
            dropped: false,
        }
    }

    /// Makes it a fresh response, with its buffers kept.
    #[inline]
    pub fn reset(&mut self) {
        self.status = 0;
        self.head_sent = false;
        self.body_bytes = 0;
        self.ended = false;
        self.dropped = false;
    }

    /// What `start_response(status, headers)` says.
    ///
    /// # Errors
    /// A wrong type, or bytes that no status line or field may hold; the response is not started then.
    #[inline]
    pub fn start(&mut self, status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        self.reset();
        self.head.say(status, headers)?;
        self.status = self.head.status;
        Ok(())
    }

    /// Puts the head into the outbox. `body_bytes` is the length of the body where it is known.
    #[inline]
    pub fn send_head(&mut self, outbox: &mut Outbox<Chunk>, body_bytes: Option<u64>) {
        let length = self.head.content_length.or(body_bytes);
        self.framing = response_framing(&self.terms.method, self.terms.version, self.status, length);
        let closes = self.head.close_wanted
            || self.framing == ResponseFraming::UntilClose
            || self.status == SWITCHING_PROTOCOLS;
        self.keep_alive = self.terms.keep_alive && !closes && !self.head.upgrade_wanted;
        self.head_sent = true;
        let shown = match self.framing {
            ResponseFraming::Length(length) => Some(length),
            ResponseFraming::Empty if may_say_length(&self.terms.method, self.status) => {
                self.head.content_length
            }
            _ => None,
        };
        outbox.push_with(|out| {
            out.extend_from_slice(self.head.bytes());
            if let Some(length) = shown {
                out.extend_from_slice(b"Content-Length: ");
                out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
                out.extend_from_slice(b"\r\n");
            } else if self.framing == ResponseFraming::Chunked {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
            out.extend_from_slice(if self.head.upgrade_wanted {
                b"Connection: upgrade\r\n\r\n"
            } else if self.keep_alive {
                b"Connection: keep-alive\r\n\r\n"
            } else {
                b"Connection: close\r\n\r\n"
            });
        });
    }

    /// Puts one block of the body into the outbox, framed; what exceeds the promise is dropped.
    #[inline]
    pub fn send_body(&mut self, outbox: &mut Outbox<Chunk>, block: Bound<'_, PyBytes>) {
        let len = block.as_bytes().len();
        let mut fits = len;
        match self.framing {
            ResponseFraming::Empty => fits = 0,
            ResponseFraming::Length(promised) => fits = len.min((promised - self.body_bytes) as usize),
            ResponseFraming::Chunked if len > 0 => outbox.push_with(|out| push_chunk_head(out, len)),
            ResponseFraming::Chunked | ResponseFraming::UntilClose => {}
        }
        self.dropped |= fits < len && self.framing != ResponseFraming::Empty;
        if fits == 0 {
            return;
        }
        self.body_bytes += fits as u64;
        outbox.push_chunk(Chunk::new(block, fits));
        if self.framing == ResponseFraming::Chunked {
            outbox.push(b"\r\n");
        }
    }

    /// Puts `len` bytes of a file into the outbox, framed, or as many of them as were promised.
    pub fn send_file(&mut self, outbox: &mut Outbox<Chunk>, file: File, offset: u64, len: u64) {
        let fits = self.allowance(len);
        // What write() sent before the file may have begun a chunked body.
        let chunked = self.framing == ResponseFraming::Chunked && fits > 0;
        if chunked {
            outbox.push_with(|out| push_chunk_head(out, fits as usize));
        }
        outbox.push_file(Arc::new(file), offset, fits);
        if chunked {
            outbox.push(b"\r\n");
        }
        self.body_bytes += fits;
    }

    /// How many bytes of a body of `available` bytes may still be sent.
    fn allowance(&self, available: u64) -> u64 {
        match self.framing {
            ResponseFraming::Empty => 0,
            ResponseFraming::Length(promised) => available.min(promised - self.body_bytes),
            ResponseFraming::Chunked | ResponseFraming::UntilClose => available,
        }
    }

    /// The length that the application promised, if it did.
    pub fn promised(&self) -> Option<u64> {
        self.head.content_length
    }

    /// Whether only the end of the connection shows the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        self.head_sent && self.framing == ResponseFraming::UntilClose
    }

    /// Makes it an error whose bytes come from elsewhere.
    pub fn fail(&mut self, status: u16) {
        self.reset();
        self.head.forget();
        self.status = status;
        self.ended = true;
    }

    /// Ends the body.
    #[inline]
    pub fn end(&mut self, outbox: &mut Outbox<Chunk>) -> End {
        self.ended = true;
        match self.framing {
            ResponseFraming::Chunked => outbox.push(LAST_CHUNK),
            ResponseFraming::Length(promised) if self.body_bytes < promised => return End::Short,
            _ => {}
        }
        End::Whole { keep_alive: self.keep_alive }
    }
}
