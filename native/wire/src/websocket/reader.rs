//! Messages and control frames out of the bytes that a client sends.

use crate::websocket::close::parse_close;
use crate::websocket::compression::Inflater;
use crate::websocket::extension::Deflate;
use crate::websocket::frame::{
    CONTROL_BYTES_MAX, Compressed, FrameHead, FrameHeadParser, Opcode, Surroundings,
};
use crate::websocket::mask;
use crate::websocket::violation::{Violation, ViolationKind};

/// A silent connection keeps at most this much of the memory that its last message took.
const KEPT_BYTES_MAX: usize = 16 * 1024;
/// Compressed bytes are unmasked in pieces of this size.
const PIECE_BYTES: usize = 1024;

/// What [`Reader::step`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet: all of the input is done with.
    NeedData,
    /// A text message, valid UTF-8: [`Reader::message`] until the next step.
    Text,
    /// A binary message: [`Reader::message`] until the next step.
    Binary,
    /// A Ping: [`Reader::control`] goes back in a Pong.
    Ping,
    /// A Pong: [`Reader::control`] says which Ping it answers.
    Pong,
    /// A Close, with its code if it has one: [`Reader::close_reason`]. Nothing follows.
    Close(Option<u16>),
}

/// How far a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// What they came to.
    pub event: Event,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// Inside a payload.
    Payload,
    /// After a Close: whatever comes is not looked at (RFC 6455 5.5.1).
    Closed,
    Failed(Violation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    is_text: bool,
    compressed: Compressed,
}

/// Reads one connection.
#[derive(Debug)]
pub struct Reader {
    state: State,
    head_parser: FrameHeadParser,
    head: FrameHead,
    /// Bytes of the frame's payload that have come.
    offset: u64,
    /// The message whose last fragment has not come yet.
    message: Option<Message>,
    payload: Vec<u8>,
    /// So much of the payload is whole characters of UTF-8.
    checked: usize,
    control: [u8; CONTROL_BYTES_MAX],
    control_len: usize,
    message_bytes_max: u64,
    inflater: Option<Inflater>,
}

impl Reader {
    /// A message may have `message_bytes_max` bytes, measured after decompression; 0 is no bound.
    pub fn new(message_bytes_max: u64, deflate: Option<&Deflate>) -> Self {
        Self {
            state: State::Head,
            head_parser: FrameHeadParser::default(),
            head: FrameHead::default(),
            offset: 0,
            message: None,
            payload: Vec::new(),
            checked: 0,
            control: [0; CONTROL_BYTES_MAX],
            control_len: 0,
            message_bytes_max: if message_bytes_max == 0 { u64::MAX } else { message_bytes_max },
            inflater: deflate.map(Inflater::new),
        }
    }

    /// Looks at the bytes that follow those already consumed, up to the end of a message or control
    /// frame. A violation is final: every later step repeats it.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Violation> {
        let mut at = 0;
        loop {
            match self.advance(input, &mut at) {
                Ok(Some(event)) => return Ok(Step { consumed: at, event }),
                Ok(None) => {}
                Err(kind) => {
                    self.state = State::Failed(kind.into());
                    self.payload = Vec::new();
                }
            }
            if let State::Failed(violation) = self.state {
                return Err(violation);
            }
        }
    }

    /// The message that the last step found.
    pub fn message(&self) -> &[u8] {
        &self.payload
    }

    /// The message has been dealt with: gives back its memory, but for what most messages need.
    pub fn release_message(&mut self) {
        if self.message.is_none() {
            self.payload.clear();
            self.payload.shrink_to(KEPT_BYTES_MAX);
        }
    }

    /// The payload of the control frame that the last step found.
    pub fn control(&self) -> &[u8] {
        &self.control[..self.control_len]
    }

    /// Why the client closes, in its words.
    pub fn close_reason(&self) -> &str {
        parse_close(self.control()).map_or("", |(_, reason)| reason)
    }

    /// One byte of a head, or what there is of a payload.
    #[inline]
    fn advance(&mut self, input: &[u8], at: &mut usize) -> Result<Option<Event>, ViolationKind> {
        match self.state {
            State::Head => {
                let Some(&byte) = input.get(*at) else {
                    return Ok(Some(Event::NeedData));
                };
                *at += 1;
                if let Some(head) = self.head_parser.push(byte, &self.surroundings())? {
                    self.begin_frame(head);
                }
                Ok(None)
            }
            State::Payload => {
                let left = usize::try_from(self.head.len - self.offset).unwrap_or(usize::MAX);
                let here = left.min(input.len() - *at);
                self.take(&input[*at..*at + here])?;
                *at += here;
                match here == left {
                    true => self.end_frame(),
                    false => Ok(Some(Event::NeedData)),
                }
            }
            State::Closed => {
                *at = input.len();
                Ok(Some(Event::NeedData))
            }
            State::Failed(_) => Ok(None),
        }
    }

    fn surroundings(&self) -> Surroundings {
        let len = if self.message.is_some() { self.payload.len() as u64 } else { 0 };
        Surroundings {
            message: self.message.map(|message| message.compressed),
            deflate: self.inflater.is_some(),
            room: self.message_bytes_max - len,
        }
    }

    fn begin_frame(&mut self, head: FrameHead) {
        self.state = State::Payload;
        self.head = head;
        self.offset = 0;
        match head.opcode {
            Opcode::Text | Opcode::Binary => {
                let is_text = head.opcode == Opcode::Text;
                self.message = Some(Message { is_text, compressed: Compressed(head.rsv1) });
                self.payload.clear();
                self.checked = 0;
            }
            Opcode::Continuation => {}
            Opcode::Close | Opcode::Ping | Opcode::Pong => self.control_len = 0,
        }
    }

    /// Takes in the next bytes of a frame's payload.
    fn take(&mut self, masked: &[u8]) -> Result<(), ViolationKind> {
        let offset = self.offset;
        self.offset += masked.len() as u64;
        match self.message {
            _ if self.head.opcode.is_control() => {
                let end = self.control_len + masked.len();
                let here = &mut self.control[self.control_len..end];
                here.copy_from_slice(masked);
                mask::apply(here, self.head.key, offset);
                self.control_len = end;
                Ok(())
            }
            Some(Message { compressed: Compressed(true), .. }) => self.take_compressed(masked, offset),
            _ => {
                mask::push_unmasked(&mut self.payload, masked, self.head.key, offset);
                self.check_text()
            }
        }
    }

    fn take_compressed(&mut self, masked: &[u8], mut offset: u64) -> Result<(), ViolationKind> {
        let mut piece = [0; PIECE_BYTES];
        for masked in masked.chunks(PIECE_BYTES) {
            let plain = &mut piece[..masked.len()];
            plain.copy_from_slice(masked);
            mask::apply(plain, self.head.key, offset);
            offset += masked.len() as u64;
            self.inflate(plain)?;
        }
        Ok(())
    }

    /// Each step's output is judged before the next one: what a bomb costs is one step too many.
    fn inflate(&mut self, mut input: &[u8]) -> Result<(), ViolationKind> {
        loop {
            let inflater = self.inflater.as_mut().expect("RSV1 is refused unless deflate was agreed on");
            let step = inflater.step(input, &mut self.payload);
            let len_max = usize::try_from(self.message_bytes_max).unwrap_or(usize::MAX);
            let is_too_big = self.payload.len() > len_max;
            // What came out before something went wrong is judged first, and cut where it is too long:
            // so the rule that was broken first is the same one however the bytes were split.
            self.payload.truncate(len_max);
            self.check_text()?;
            if is_too_big {
                return Err(ViolationKind::MessageTooBig);
            }
            let step = step?;
            input = &input[step.consumed..];
            if input.is_empty() && !step.is_filled {
                return Ok(());
            }
        }
    }

    fn check_text(&mut self) -> Result<(), ViolationKind> {
        if let Some(Message { is_text: true, .. }) = self.message {
            self.checked = check_utf8(&self.payload, self.checked)?;
        }
        Ok(())
    }

    fn end_frame(&mut self) -> Result<Option<Event>, ViolationKind> {
        self.state = State::Head;
        match self.head.opcode {
            Opcode::Ping => Ok(Some(Event::Ping)),
            Opcode::Pong => Ok(Some(Event::Pong)),
            Opcode::Close => {
                let (code, _) = parse_close(self.control())?;
                self.state = State::Closed;
                self.message = None;
                self.payload = Vec::new();
                Ok(Some(Event::Close(code)))
            }
            _ if !self.head.fin => Ok(None),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => self.end_message().map(Some),
        }
    }

    fn end_message(&mut self) -> Result<Event, ViolationKind> {
        let message = self.message.expect("a data frame stands in a message");
        if message.compressed == Compressed(true) {
            self.inflate(Inflater::END)?;
            if let Some(inflater) = &mut self.inflater {
                inflater.end_message();
            }
        }
        self.message = None;
        match message.is_text {
            true if self.checked < self.payload.len() => Err(ViolationKind::InvalidText),
            true => Ok(Event::Text),
            false => Ok(Event::Binary),
        }
    }
}

/// How many bytes from the start are whole characters, if `checked` are known to be; what follows
/// them can only be the beginning of one more.
fn check_utf8(text: &[u8], checked: usize) -> Result<usize, ViolationKind> {
    match simdutf8::compat::from_utf8(&text[checked..]) {
        Ok(_) => Ok(text.len()),
        Err(error) if error.error_len().is_none() => Ok(checked + error.valid_up_to()),
        Err(_) => Err(ViolationKind::InvalidText),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::DeflatePolicy;
    use crate::websocket::extension::negotiate;
    use crate::websocket::frame::push_masked_frame;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// What came of some bytes, in order: each event with its payload, and how it ended.
    type Story = (Vec<(Event, Vec<u8>)>, Option<ViolationKind>);

    fn read(bytes: &[u8], piece_len: usize, message_bytes_max: u64, deflate: Option<&Deflate>) -> Story {
        let mut reader = Reader::new(message_bytes_max, deflate);
        let mut events = Vec::new();
        for mut piece in bytes.chunks(piece_len.max(1)) {
            while !piece.is_empty() {
                let step = match reader.step(piece) {
                    Ok(step) => step,
                    Err(violation) => return (events, Some(violation.kind)),
                };
                piece = &piece[step.consumed..];
                let payload = match step.event {
                    Event::NeedData => continue,
                    Event::Text | Event::Binary => reader.message(),
                    Event::Ping | Event::Pong | Event::Close(_) => reader.control(),
                };
                events.push((step.event, payload.to_vec()));
                reader.release_message();
            }
        }
        (events, None)
    }

    fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (first, payload) in frames {
            push_masked_frame(&mut out, *first, KEY, payload);
        }
        out
    }

    fn story(bytes: &[u8], message_bytes_max: u64, deflate: Option<&Deflate>) -> Story {
        let whole = read(bytes, bytes.len(), message_bytes_max, deflate);
        for piece_len in 1..bytes.len().min(12) {
            assert_eq!(read(bytes, piece_len, message_bytes_max, deflate), whole, "in pieces of {piece_len}");
        }
        whole
    }

    fn deflate() -> Deflate {
        negotiate(b"permessage-deflate", Some(DeflatePolicy::Connection)).unwrap().unwrap()
    }

    #[test]
    fn messages_come_whole_with_control_frames_between_their_fragments() {
        let bytes = frames(&[
            (0x81, b"Hello"),
            (0x02, b"a"),
            (0x00, b""),
            (0x89, b"ping"),
            (0x00, b"b"),
            (0x8a, b""),
            (0x80, b"c"),
            (0x82, b""),
        ]);
        let (events, end) = story(&bytes, 5, None);
        let expected = [
            (Event::Text, &b"Hello"[..]),
            (Event::Ping, b"ping"),
            (Event::Pong, b""),
            (Event::Binary, b"abc"),
            (Event::Binary, b""),
        ];
        assert_eq!(events, expected.map(|(event, payload)| (event, payload.to_vec())));
        assert_eq!(end, None);
    }

    #[test]
    fn nothing_is_read_after_a_close() {
        let bytes = frames(&[(0x88, b"\x03\xe8bye"), (0x81, b"\xff"), (0xff, b"")]);
        let (events, end) = story(&bytes, 0, None);
        assert_eq!(events, [(Event::Close(Some(1000)), b"\x03\xe8bye".to_vec())]);
        assert_eq!(end, None);
        let mut reader = Reader::new(0, None);
        reader.step(&bytes).unwrap();
        assert_eq!(reader.close_reason(), "bye");
    }

    #[test]
    fn text_is_refused_at_the_first_byte_that_cannot_be_utf8() {
        for (text, len) in [
            (&b"\xff..."[..], 1),
            (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", 13),
            (b"\xf4\x90\x80\x80", 2),
            (b"\xc0\xaf", 1),
            (b"abc\x80", 4),
        ] {
            let bytes = frames(&[(0x01, text)]);
            assert_eq!(story(&bytes, 0, None).1, Some(ViolationKind::InvalidText));
            assert_eq!(story(&bytes[..6 + len], 0, None).1, Some(ViolationKind::InvalidText));
            assert_eq!(story(&bytes[..6 + len - 1], 0, None).1, None, "{text:x?} up to {len}");
        }
    }

    #[test]
    fn characters_may_be_cut_by_fragments_and_not_by_the_end() {
        let snowman = "\u{2603}".as_bytes();
        let bytes = frames(&[(0x01, &snowman[..1]), (0x00, &snowman[1..2]), (0x80, &snowman[2..])]);
        assert_eq!(story(&bytes, 0, None).0, [(Event::Text, snowman.to_vec())]);
        let bytes = frames(&[(0x01, &snowman[..1]), (0x80, &snowman[1..2])]);
        assert_eq!(story(&bytes, 0, None), (vec![], Some(ViolationKind::InvalidText)));
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused_by_the_head_that_exceeds_it() {
        let bytes = frames(&[(0x02, b"abc"), (0x00, b"de"), (0x80, b"f")]);
        assert_eq!(story(&bytes, 6, None).1, None);
        assert_eq!(story(&bytes, 5, None).1, Some(ViolationKind::MessageTooBig));
        assert_eq!(story(&bytes[..bytes.len() - 5], 5, None).1, Some(ViolationKind::MessageTooBig));
        let mut reader = Reader::new(1 << 40, None);
        reader.step(b"\x82\xff\x00\x00\x00\x10\x00\x00\x00\x00abcd").unwrap();
        assert_eq!(reader.payload.capacity(), 0, "an announced length reserves nothing");
    }

    #[test]
    fn compressed_messages_are_read_in_fragments_too() {
        // RFC 7692 7.2.3.1, whole and in two frames; then an uncompressed message.
        let bytes = frames(&[
            (0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00"),
            (0x42, b"\xf2\x48\xcd"),
            (0x89, b"x"),
            (0x80, b"\xc9\xc9\x07\x00"),
            (0x81, b"plain"),
        ]);
        let (events, end) = story(&bytes, 5, Some(&deflate()));
        let events: Vec<_> = events.iter().map(|(event, payload)| (*event, &payload[..])).collect();
        let expected: [(Event, &[u8]); 4] = [
            (Event::Text, b"Hello"),
            (Event::Ping, b"x"),
            (Event::Binary, b"Hello"),
            (Event::Text, b"plain"),
        ];
        assert_eq!((&events[..], end), (&expected[..], None));
        assert_eq!(story(&bytes, 4, Some(&deflate())).1, Some(ViolationKind::MessageTooBig));
        assert_eq!(story(&bytes, 5, None).1, Some(ViolationKind::ReservedBit));
    }

    #[test]
    fn a_bomb_is_refused_when_it_has_filled_the_limit() {
        let mut zeros = Vec::new();
        let deflate = deflate();
        crate::websocket::Deflater::new(&deflate).push(&vec![0; 32 << 20], &mut zeros);
        assert!(zeros.len() < 200_000);
        let bytes = frames(&[(0xc2, &zeros)]);
        let mut reader = Reader::new(1 << 20, Some(&deflate));
        let mut most = 0;
        let refused = bytes.chunks(64).find_map(|piece| {
            let refused = reader.step(piece).err();
            most = most.max(reader.payload.capacity());
            refused
        });
        assert_eq!(refused.map(|violation| violation.code), Some(1009));
        assert!(most <= 3 << 20, "{most} bytes were allocated");
        assert_eq!(reader.payload.capacity(), 0, "and none are kept");
    }

    #[test]
    fn compressed_text_is_text() {
        let deflate = deflate();
        for (text, expected) in [
            (&b"fine \xe2\x98\x83"[..], None),
            (b"cut \xe2\x98", Some(ViolationKind::InvalidText)),
            (b"bad \xff but long enough to go on for a while", Some(ViolationKind::InvalidText)),
        ] {
            let mut compressed = Vec::new();
            crate::websocket::Deflater::new(&deflate).push(text, &mut compressed);
            assert_eq!(story(&frames(&[(0xc1, &compressed)]), 0, Some(&deflate)).1, expected);
        }
        let bytes = frames(&[(0xc1, b"\xff\xff\xff")]);
        assert_eq!(story(&bytes, 0, Some(&deflate)).1, Some(ViolationKind::InvalidCompression));
    }

    #[test]
    fn a_violation_is_final_and_a_large_message_is_not_kept() {
        let mut reader = Reader::new(0, None);
        let violation = reader.step(b"\x83").unwrap_err();
        assert_eq!(reader.step(&frames(&[(0x81, b"fine")])), Err(violation));
        let mut reader = Reader::new(0, None);
        reader.step(&frames(&[(0x82, &[0; 1 << 20])])).unwrap();
        assert_eq!(reader.message().len(), 1 << 20);
        reader.release_message();
        assert!(reader.payload.capacity() <= KEPT_BYTES_MAX);
    }
}
