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

#[cfg(test)]
mod tests {
    use bicorn_wire::websocket::{DeflatePolicy, Handshake};
    use bicorn_wire::{Head, HeadParser, Rules};

    use super::*;

    fn frames(policy: Option<DeflatePolicy>) -> Frames {
        let request = b"GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        let mut head = Head::default();
        HeadParser::new().parse(request, &Rules::default(), &mut head).expect("a head");
        let handshake = Handshake::read(&head, request, policy).expect("a handshake");
        Frames::new(handshake.deflate.as_ref())
    }

    fn written(frames: &mut Frames, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frames.write(Opcode::Text, message, |pieces| out = pieces.concat());
        out
    }

    #[test]
    fn without_agreement_nothing_is_compressed() {
        let frame = written(&mut frames(None), &[b'x'; 200]);
        assert_eq!((&frame[..4], frame.len()), (&b"\x81\x7e\x00\xc8"[..], 204));
    }

    #[test]
    fn what_gains_nothing_is_sent_as_it_is() {
        let mut frames = frames(Some(DeflatePolicy::Message));
        assert_eq!(written(&mut frames, b"short")[0], 0x81);
        let mut word = 88_172_645_463_325_252_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            // Xorshift: nothing that deflate could make shorter.
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word as u8
        })
        .take(1000)
        .collect();
        assert_eq!(written(&mut frames, &noise)[0], 0x81);
        let frame = written(&mut frames, &[b'x'; 1000]);
        assert!(frame[0] == 0xc1 && frame.len() < 50);
    }

    #[test]
    fn with_takeover_everything_goes_through_the_window() {
        let mut frames = frames(Some(DeflatePolicy::Connection));
        let [first, second] = [(); 2].map(|()| written(&mut frames, b"the same words in the same order"));
        assert_eq!((first[0], second[0]), (0xc1, 0xc1));
        assert!(second.len() < first.len() / 2);
    }
}
