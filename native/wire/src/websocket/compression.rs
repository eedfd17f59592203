//! The two directions of permessage-deflate (RFC 7692 7.2) over the streams of flate2.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::websocket::extension::Deflate;
use crate::websocket::violation::ViolationKind;

/// What a sync flush ends with: cut off by whoever sends, put back by whoever receives (7.2.1).
const FLUSH_TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// An empty message: the first byte of an empty stored block, without its tail (7.2.3.6).
const EMPTY: u8 = 0x00;
/// What the output gets in one step at least. More room is used if there is some.
const INFLATE_STEP_BYTES: usize = 4096;
/// The next levels cost twice the time and save a few percent of JSON.
const LEVEL: u32 = 3;
/// flate2 has no smaller windows; one that is larger than the sender's does no harm.
const INFLATE_WINDOW_BITS_MIN: u8 = 9;

/// Undoes what the client's compression did.
#[derive(Debug)]
pub struct Inflater {
    takeover: bool,
    window_bits: u8,
    /// Some 50 KiB. Without context takeover it lives as long as a message.
    stream: Option<Decompress>,
}

/// What a step of an [`Inflater`] did.
pub(crate) struct Inflated {
    pub(crate) consumed: usize,
    /// The output was filled: there may be more without any input.
    pub(crate) is_filled: bool,
}

impl Inflater {
    /// For the client's direction of what was agreed.
    pub fn new(deflate: &Deflate) -> Self {
        let window_bits = deflate.client_window_bits.max(INFLATE_WINDOW_BITS_MIN);
        Self { takeover: deflate.client_takeover, window_bits, stream: None }
    }

    /// Appends some of what `input` stands for, as much as one allocation holds.
    pub(crate) fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Inflated, ViolationKind> {
        let bits = self.window_bits;
        let stream = self.stream.get_or_insert_with(|| Decompress::new_with_window_bits(false, bits));
        out.reserve(INFLATE_STEP_BYTES);
        let (in_before, len_before) = (stream.total_in(), out.len());
        let status = stream
            .decompress_vec(input, out, FlushDecompress::None)
            .map_err(|_| ViolationKind::InvalidCompression)?;
        let consumed = (stream.total_in() - in_before) as usize;
        if status == Status::StreamEnd {
            // A last block may be followed by others (7.2.3.5). What they could refer to is gone,
            // which no client is known to need: a compressor that goes on ends no stream.
            stream.reset(false);
        } else if consumed == 0 && out.len() == len_before && !input.is_empty() {
            return Err(ViolationKind::InvalidCompression);
        }
        Ok(Inflated { consumed, is_filled: out.len() == out.capacity() })
    }

    /// The bytes that stand for the end of a message.
    pub(crate) const END: &'static [u8] = &FLUSH_TAIL;

    /// The message is whole.
    pub(crate) fn end_message(&mut self) {
        if !self.takeover {
            self.stream = None;
        }
    }
}

/// Compresses messages for the client.
#[derive(Debug)]
pub struct Deflater {
    takeover: bool,
    window_bits: u8,
    /// Some 300 KiB. Without context takeover it lives as long as a call.
    stream: Option<Compress>,
}

impl Deflater {
    /// For the server's direction of what was agreed.
    pub fn new(deflate: &Deflate) -> Self {
        Self { takeover: deflate.server_takeover, window_bits: deflate.server_window_bits, stream: None }
    }

    /// Whether the client's state follows from every message that went through here, so that what
    /// was compressed has to be sent.
    pub fn has_takeover(&self) -> bool {
        self.takeover
    }

    /// Appends a message's payload, compressed: it goes into a frame that is marked so.
    pub fn push(&mut self, message: &[u8], out: &mut Vec<u8>) {
        if message.is_empty() {
            return out.push(EMPTY);
        }
        let bits = self.window_bits;
        let stream = self
            .stream
            .get_or_insert_with(|| Compress::new_with_window_bits(Compression::new(LEVEL), false, bits));
        let mut rest = message;
        out.reserve(message.len() / 2 + 64);
        loop {
            let in_before = stream.total_in();
            // Compressing into memory fails only for a stream that was broken before.
            stream.compress_vec(rest, out, FlushCompress::Sync).expect("a deflate stream in good order");
            rest = &rest[(stream.total_in() - in_before) as usize..];
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(rest.len() / 2 + 64);
        }
        debug_assert!(out.ends_with(&FLUSH_TAIL));
        out.truncate(out.len() - FLUSH_TAIL.len());
        if !self.takeover {
            self.stream = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::extension::{DeflatePolicy, negotiate};

    fn agreed(offer: &str, policy: DeflatePolicy) -> Deflate {
        negotiate(offer.as_bytes(), Some(policy)).unwrap().unwrap()
    }

    fn inflate(inflater: &mut Inflater, compressed: &[u8]) -> Result<Vec<u8>, ViolationKind> {
        let mut out = Vec::new();
        for mut input in [compressed, Inflater::END] {
            loop {
                let step = inflater.step(input, &mut out)?;
                input = &input[step.consumed..];
                if input.is_empty() && !step.is_filled {
                    break;
                }
            }
        }
        inflater.end_message();
        Ok(out)
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7692 7.2.3.1 to 7.2.3.5.
        let deflate = agreed("permessage-deflate", DeflatePolicy::Connection);
        let mut inflater = Inflater::new(&deflate);
        for compressed in [
            &b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..],
            b"\xf2\x00\x11\x00\x00",
            b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
            b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        ] {
            assert_eq!(inflate(&mut inflater, compressed).as_deref(), Ok(&b"Hello"[..]), "{compressed:x?}");
        }
        assert_eq!(inflate(&mut inflater, &[EMPTY]).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn what_is_compressed_is_what_comes_out() {
        let noise: Vec<u8> = (0..40_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let messages = [&b"Hello"[..], b"", b"Hello", &[b'x'; 70_000], &noise, b"", &noise[..300]];
        for policy in [DeflatePolicy::Connection, DeflatePolicy::Message] {
            for offer in ["permessage-deflate", "permessage-deflate; server_max_window_bits=9"] {
                let mut deflate = agreed(offer, policy);
                deflate.client_window_bits = deflate.server_window_bits;
                let (mut deflater, mut inflater) = (Deflater::new(&deflate), Inflater::new(&deflate));
                for message in messages {
                    let mut compressed = Vec::new();
                    deflater.push(message, &mut compressed);
                    assert!(!compressed.ends_with(&FLUSH_TAIL));
                    assert_eq!(inflate(&mut inflater, &compressed).as_deref(), Ok(message));
                }
            }
        }
    }

    #[test]
    fn a_message_refers_to_the_last_one_only_with_takeover() {
        let lens = [DeflatePolicy::Connection, DeflatePolicy::Message].map(|policy| {
            let mut deflater = Deflater::new(&agreed("permessage-deflate", policy));
            [(); 2].map(|()| {
                let mut out = Vec::new();
                deflater.push(b"the same words in the same order", &mut out);
                out.len()
            })
        });
        assert!(lens[0][1] < lens[0][0] && lens[1][0] == lens[1][1], "{lens:?}");
    }

    #[test]
    fn nothing_is_kept_without_takeover() {
        let deflate = agreed("permessage-deflate", DeflatePolicy::Message);
        let (mut deflater, mut inflater) = (Deflater::new(&deflate), Inflater::new(&deflate));
        let mut out = Vec::new();
        deflater.push(b"hello", &mut out);
        inflate(&mut inflater, &out).unwrap();
        assert!(deflater.stream.is_none() && inflater.stream.is_none());
    }

    #[test]
    fn what_is_no_deflate_is_refused() {
        let mut inflater = Inflater::new(&agreed("permessage-deflate", DeflatePolicy::Message));
        assert_eq!(inflate(&mut inflater, b"\xff\xff\xff"), Err(ViolationKind::InvalidCompression));
    }
}
