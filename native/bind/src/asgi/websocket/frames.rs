//! Messages on their way to the client.
//!
//! Owns       which message is compressed.
//! Never      keeps a message: it is written, or handed to the transport, before `write` returns.

use bicorn_wire::websocket::{Deflate, Deflater, Opcode, push_frame_head};

/// Shorter messages are sent as they are where each is compressed for itself: a deflate stream of its
/// own makes them hardly shorter, and costs more than sending them.
const COMPRESSED_BYTES_MIN: usize = 128;
/// A silent connection keeps at most this much of the memory that its last message took.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// Makes frames out of messages.
#[derive(Debug)]
pub struct Frames {
    deflater: Option<Deflater>,
    compressed: Vec<u8>,
}

impl Frames {
    /// With the compression that was agreed on, if any.
    pub fn new(deflate: Option<&Deflate>) -> Self {
        Self { deflater: deflate.map(Deflater::new), compressed: Vec::new() }
    }

    /// Gives `send` the pieces of the frame that is this message.
    #[inline]
    pub fn write(&mut self, opcode: Opcode, message: &[u8], send: impl FnOnce(&[&[u8]])) {
        let is_compressed = self.compress(message);
        let payload = if is_compressed { &self.compressed[..] } else { message };
        let mut head = Vec::with_capacity(10);
        push_frame_head(&mut head, opcode, is_compressed, payload.len());
        send(&[&head, payload]);
        if is_compressed {
            self.compressed.shrink_to(KEPT_BYTES_MAX);
        }
    }

    /// Whether `compressed` now holds the message, and is what to send.
    fn compress(&mut self, message: &[u8]) -> bool {
        let Some(deflater) = &mut self.deflater else { return false };
        // With takeover the client's window has to see all that went through ours.
        let must = deflater.has_takeover();
        if !must && message.len() < COMPRESSED_BYTES_MIN {
            return false;
        }
        self.compressed.clear();
        deflater.push(message, &mut self.compressed);
        must || self.compressed.len() < message.len()
    }
}
