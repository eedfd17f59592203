//! One frame (RFC 6455 5.2): its head, byte by byte, and how one is written.

use crate::websocket::mask;
use crate::websocket::violation::ViolationKind;

/// The most that a control frame carries (RFC 6455 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_RSV3: u8 = 0x30;
const MASK: u8 = 0x80;
/// The 7-bit lengths that announce one of 16 and one of 64 bits.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
/// Two bytes, a length of 64 bits, a masking key.
const HEAD_BYTES_MAX: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with the message that a Text or Binary frame began.
    #[default]
    Continuation = 0x0,
    /// Begins a message of UTF-8.
    Text = 0x1,
    /// Begins a message of bytes.
    Binary = 0x2,
    /// Says that nothing more comes.
    Close = 0x8,
    /// Wants a Pong.
    Ping = 0x9,
    /// Answers a Ping, or a sign of life.
    Pong = 0xa,
}

impl Opcode {
    fn parse(bits: u8) -> Option<Self> {
        [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong]
            .into_iter()
            .find(|opcode| *opcode as u8 == bits)
    }

    /// Whether it may stand between the fragments of a message, and may not be one.
    pub fn is_control(self) -> bool {
        self as u8 >= 0x8
    }
}

/// What a frame's head is judged by beside its own bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    /// A message has begun and not ended; is it a compressed one?
    pub(crate) message: Option<Compressed>,
    /// permessage-deflate was agreed on.
    pub(crate) deflate: bool,
    /// What the message may still grow by. It bounds only frames that are not compressed: what the
    /// others hold shows when they are inflated.
    pub(crate) room: u64,
}

/// Whether a message is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compressed(pub(crate) bool);

/// The head of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) opcode: Opcode,
    /// The last one of its message.
    pub(crate) fin: bool,
    /// Set on the first frame of a compressed message (RFC 7692 6).
    pub(crate) rsv1: bool,
    /// Bytes of payload.
    pub(crate) len: u64,
    pub(crate) key: [u8; 4],
}

/// Takes a head apart as its bytes come.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameHeadParser {
    head: FrameHead,
    bytes: [u8; HEAD_BYTES_MAX],
    have: usize,
    /// Bytes of the head up to the masking key; known after the second.
    len_end: usize,
}

impl FrameHeadParser {
    /// Takes one byte; gives the head with its last one.
    #[inline]
    pub(crate) fn push(
        &mut self,
        byte: u8,
        around: &Surroundings,
    ) -> Result<Option<FrameHead>, ViolationKind> {
        self.bytes[self.have] = byte;
        self.have += 1;
        match self.have {
            1 => self.read_first(byte, around)?,
            2 => self.read_second(byte, around)?,
            have if have == self.len_end => self.read_long_length(around)?,
            have if have == self.len_end + 4 => {
                self.head.key.copy_from_slice(&self.bytes[self.len_end..have]);
                self.have = 0;
                return Ok(Some(self.head));
            }
            _ => {}
        }
        Ok(None)
    }

    fn read_first(&mut self, byte: u8, around: &Surroundings) -> Result<(), ViolationKind> {
        let opcode = Opcode::parse(byte & 0x0f).ok_or(ViolationKind::ReservedOpcode)?;
        let (fin, rsv1) = (byte & FIN != 0, byte & RSV1 != 0);
        // Only the first frame of a message may say that the message is compressed (RFC 7692 6.1).
        let may_be_compressed = around.deflate && matches!(opcode, Opcode::Text | Opcode::Binary);
        if byte & RSV2_RSV3 != 0 || rsv1 && !may_be_compressed {
            return Err(ViolationKind::ReservedBit);
        }
        match (opcode, around.message) {
            (Opcode::Continuation, None) => return Err(ViolationKind::NothingToContinue),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(ViolationKind::MessageInterrupted),
            _ if opcode.is_control() && !fin => return Err(ViolationKind::FragmentedControl),
            _ => {}
        }
        self.head = FrameHead { opcode, fin, rsv1, ..FrameHead::default() };
        Ok(())
    }

    fn read_second(&mut self, byte: u8, around: &Surroundings) -> Result<(), ViolationKind> {
        if byte & MASK == 0 {
            return Err(ViolationKind::NotMasked);
        }
        let length = byte & !MASK;
        if self.head.opcode.is_control() && usize::from(length) > CONTROL_BYTES_MAX {
            return Err(ViolationKind::ControlTooLong);
        }
        self.len_end = match length {
            LENGTH_16 => 4,
            LENGTH_64 => 10,
            _ => {
                self.accept_length(u64::from(length), around)?;
                2
            }
        };
        Ok(())
    }

    fn read_long_length(&mut self, around: &Surroundings) -> Result<(), ViolationKind> {
        let mut bytes = [0; 8];
        let length = &self.bytes[2..self.len_end];
        bytes[8 - length.len()..].copy_from_slice(length);
        let len = u64::from_be_bytes(bytes);
        let len_min = if self.len_end == 4 { u64::from(LENGTH_16) } else { 1 << 16 };
        if len > i64::MAX as u64 {
            return Err(ViolationKind::LengthTooLarge);
        }
        if len < len_min {
            return Err(ViolationKind::LengthNotMinimal);
        }
        self.accept_length(len, around)
    }

    fn accept_length(&mut self, len: u64, around: &Surroundings) -> Result<(), ViolationKind> {
        let is_inflated = self.head.rsv1 || around.message == Some(Compressed(true));
        if len > around.room && !is_inflated && !self.head.opcode.is_control() {
            return Err(ViolationKind::MessageTooBig);
        }
        self.head.len = len;
        Ok(())
    }
}

/// Appends the head of a whole message or a control frame, as a server sends it: final, not masked.
pub fn push_frame_head(out: &mut Vec<u8>, opcode: Opcode, is_compressed: bool, len: usize) {
    push_head(out, FIN | if is_compressed { RSV1 } else { 0 } | opcode as u8, 0, len);
}

/// Appends a whole frame, as a server sends it.
pub fn push_frame(out: &mut Vec<u8>, opcode: Opcode, is_compressed: bool, payload: &[u8]) {
    push_frame_head(out, opcode, is_compressed, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a frame as a client sends it; `first` is its first byte, valid or not. Tests and fuzzers
/// are the clients.
pub fn push_masked_frame(out: &mut Vec<u8>, first: u8, key: [u8; 4], payload: &[u8]) {
    push_head(out, first, MASK, payload.len());
    out.extend_from_slice(&key);
    mask::push_unmasked(out, payload, key, 0);
}

fn push_head(out: &mut Vec<u8>, first: u8, mask: u8, len: usize) {
    match len {
        0..=CONTROL_BYTES_MAX => out.extend_from_slice(&[first, mask | len as u8]),
        126..=0xffff => {
            out.extend_from_slice(&[first, mask | LENGTH_16]);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[first, mask | LENGTH_64]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: Surroundings = Surroundings { message: None, deflate: false, room: u64::MAX };
    const INSIDE: Surroundings = Surroundings { message: Some(Compressed(false)), ..OUTSIDE };
    const DEFLATE: Surroundings = Surroundings { deflate: true, ..OUTSIDE };

    /// The head, or the violation and how many bytes it took.
    fn parse(bytes: &[u8], around: Surroundings) -> Result<FrameHead, (ViolationKind, usize)> {
        let mut parser = FrameHeadParser::default();
        for (at, byte) in bytes.iter().enumerate() {
            match parser.push(*byte, &around) {
                Ok(None) => {}
                Ok(Some(head)) => {
                    assert_eq!(at + 1, bytes.len(), "the head ends with its last byte");
                    return Ok(head);
                }
                Err(kind) => return Err((kind, at + 1)),
            }
        }
        panic!("{bytes:?} is no whole head");
    }

    fn refused(bytes: &[u8], around: Surroundings) -> (ViolationKind, usize) {
        parse(bytes, around).unwrap_err()
    }

    #[test]
    fn a_head_has_three_sizes_of_length() {
        let key = [1, 2, 3, 4];
        for (len, bytes) in [
            (0_u64, &b"\x81\x80\x01\x02\x03\x04"[..]),
            (125, b"\x81\xfd\x01\x02\x03\x04"),
            (126, b"\x81\xfe\x00\x7e\x01\x02\x03\x04"),
            (65535, b"\x81\xfe\xff\xff\x01\x02\x03\x04"),
            (65536, b"\x81\xff\x00\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04"),
            (i64::MAX as u64, b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04"),
        ] {
            let expected = FrameHead { opcode: Opcode::Text, fin: true, rsv1: false, len, key };
            assert_eq!(parse(bytes, OUTSIDE), Ok(expected));
        }
    }

    #[test]
    fn a_length_has_one_encoding() {
        for bytes in [&b"\x82\xfe\x00\x7d"[..], b"\x82\xfe\x00\x00"] {
            assert_eq!(refused(bytes, OUTSIDE), (ViolationKind::LengthNotMinimal, 4));
        }
        let bytes = b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff";
        assert_eq!(refused(bytes, OUTSIDE), (ViolationKind::LengthNotMinimal, 10));
        let bytes = b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(refused(bytes, OUTSIDE), (ViolationKind::LengthTooLarge, 10));
    }

    #[test]
    fn reserved_bits_and_opcodes_are_refused_at_the_first_byte() {
        for bits in [0x10, 0x20, 0x40, 0x50, 0x70] {
            assert_eq!(refused(&[0x81 | bits], OUTSIDE), (ViolationKind::ReservedBit, 1));
        }
        for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
            assert_eq!(refused(&[0x80 | opcode], OUTSIDE), (ViolationKind::ReservedOpcode, 1));
        }
    }

    #[test]
    fn rsv1_is_for_the_first_frame_of_a_message_with_deflate() {
        assert!(parse(b"\xc1\x80\0\0\0\0", DEFLATE).unwrap().rsv1);
        assert!(parse(b"\x42\x80\0\0\0\0", DEFLATE).unwrap().rsv1);
        for first in [0xc8, 0xc9, 0xca, 0xe1] {
            assert_eq!(refused(&[first], DEFLATE), (ViolationKind::ReservedBit, 1));
        }
        let inside = Surroundings { message: Some(Compressed(true)), ..DEFLATE };
        assert_eq!(refused(&[0xc0], inside), (ViolationKind::ReservedBit, 1));
    }

    #[test]
    fn fragments_follow_a_beginning_and_beginnings_an_end() {
        assert_eq!(refused(&[0x80], OUTSIDE), (ViolationKind::NothingToContinue, 1));
        assert_eq!(refused(&[0x00], OUTSIDE), (ViolationKind::NothingToContinue, 1));
        assert_eq!(refused(&[0x81], INSIDE), (ViolationKind::MessageInterrupted, 1));
        assert_eq!(refused(&[0x02], INSIDE), (ViolationKind::MessageInterrupted, 1));
        assert!(parse(b"\x80\x80\0\0\0\0", INSIDE).is_ok());
    }

    #[test]
    fn control_frames_are_whole_and_short_and_stand_anywhere() {
        for opcode in [8, 9, 0xa] {
            assert_eq!(refused(&[opcode], OUTSIDE), (ViolationKind::FragmentedControl, 1));
            assert_eq!(refused(&[0x80 | opcode, 0xfe], OUTSIDE), (ViolationKind::ControlTooLong, 2));
            assert_eq!(refused(&[0x80 | opcode, 0xff], INSIDE), (ViolationKind::ControlTooLong, 2));
            assert!(parse(&[0x80 | opcode, 0xfd, 0, 0, 0, 0], INSIDE).is_ok());
        }
    }

    #[test]
    fn a_client_masks() {
        assert_eq!(refused(b"\x81\x00", OUTSIDE), (ViolationKind::NotMasked, 2));
        assert_eq!(refused(b"\x89\x05", OUTSIDE), (ViolationKind::NotMasked, 2));
    }

    #[test]
    fn a_frame_that_does_not_fit_the_message_is_refused_by_its_length() {
        let around = Surroundings { room: 5, ..OUTSIDE };
        assert!(parse(b"\x81\x85\0\0\0\0", around).is_ok());
        assert_eq!(refused(b"\x81\x86", around), (ViolationKind::MessageTooBig, 2));
        assert_eq!(refused(b"\x81\xfe\x00\x7e", around), (ViolationKind::MessageTooBig, 4));
        assert!(parse(b"\x89\x86\0\0\0\0", around).is_ok());
        let around = Surroundings { deflate: true, ..around };
        assert!(parse(b"\xc1\x86\0\0\0\0", around).is_ok());
    }

    #[test]
    fn a_server_writes_the_shortest_length_and_no_mask() {
        for (len, head) in [
            (0, &b"\xc2\x00"[..]),
            (125, b"\xc2\x7d"),
            (126, b"\xc2\x7e\x00\x7e"),
            (65535, b"\xc2\x7e\xff\xff"),
            (65536, b"\xc2\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ] {
            let mut out = Vec::new();
            push_frame_head(&mut out, Opcode::Binary, true, len);
            assert_eq!(out, head);
        }
        let mut out = Vec::new();
        push_frame(&mut out, Opcode::Pong, false, b"hi");
        assert_eq!(out, b"\x8a\x02hi");
    }

    #[test]
    fn the_masked_frame_of_the_rfc_comes_out() {
        // RFC 6455 5.7.
        let mut out = Vec::new();
        push_masked_frame(&mut out, 0x81, [0x37, 0xfa, 0x21, 0x3d], b"Hello");
        assert_eq!(out, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    }
}
