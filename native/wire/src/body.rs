//! The body of a request: which of the bytes after a head belong to it, and which of those are data.

use crate::field::Field;
use crate::grammar::{HEX, OWS, TEXT, TOKEN, is};
use crate::head::Framing;
use crate::limits::{Leniency, Limits};
use crate::refusal::{Refusal, RefusalKind};

/// What [`BodyDecoder::step`] found in its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyStep {
    /// No data, and not the end: go on with what follows these bytes.
    NeedData {
        /// Bytes of the input that are done with.
        consumed: usize,
    },
    /// `input[start..end]` is data, never empty; everything up to `end` is done with.
    Data {
        /// Where the data starts.
        start: usize,
        /// Where it ends.
        end: usize,
    },
    /// The body has ended; the next message starts after these bytes.
    End {
        /// Bytes of the input that are done with.
        consumed: usize,
    },
}

/// Inside a chunk extension: what may come next (RFC 9112 7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// White space; only a semicolon may follow.
    BeforeSemicolon,
    /// After the semicolon, white space or a name.
    BeforeName,
    Name,
    /// White space after a name: an equals sign, a semicolon or the end.
    AfterName,
    /// After the equals sign, white space or a value.
    BeforeValue,
    Token,
    Quoted,
    /// After a backslash inside quotes.
    QuotedPair,
    AfterValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This much of a body with a Content-Length is to come.
    Length(u64),
    ChunkSize {
        digits: u8,
        size: u64,
    },
    ChunkExtension {
        size: u64,
        bytes: usize,
        inside: Extension,
    },
    ChunkSizeLf {
        size: u64,
    },
    /// This much of a chunk is to come.
    ChunkData(u64),
    ChunkDataCr,
    ChunkDataLf,
    /// At the first byte of a trailer line, or of the empty line that ends them.
    TrailerStart,
    Trailer,
    TrailerLf,
    FinalLf,
    Finished,
    Refused(Refusal),
}

/// Finds data and end of one body. It keeps no data, only the trailers.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// Sum of the chunk sizes so far.
    total: u64,
    body_bytes: u64,
    chunk_extension_bytes: usize,
    trailer_bytes: usize,
    trailer_fields: usize,
    trailer_line: Vec<u8>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Trailers that would change how the message is framed, routed or authenticated, after the fact.
/// RFC 9110 6.5.1 forbids to send them; they are not dropped but refused, as whoever sends one
/// hopes that somebody merges it into the head.
const FORBIDDEN_TRAILERS: [&[u8]; 6] =
    [b"host", b"content-length", b"transfer-encoding", b"trailer", b"authorization", b"te"];

impl BodyDecoder {
    /// For a body framed like this. Refuses a Content-Length above the limit before a byte of it
    /// is read.
    pub fn new(framing: Framing, limits: &Limits) -> Result<Self, Refusal> {
        let state = match framing {
            Framing::None => State::Finished,
            Framing::Length(0) => State::Finished,
            Framing::Length(length) if limits.body_bytes != 0 && length > limits.body_bytes => {
                return Err(RefusalKind::BodyTooLarge.into());
            }
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize { digits: 0, size: 0 },
        };
        Ok(Self {
            state,
            total: 0,
            body_bytes: limits.body_bytes,
            chunk_extension_bytes: limits.chunk_extension_bytes,
            trailer_bytes: limits.trailer_bytes,
            trailer_fields: limits.trailer_fields,
            trailer_line: Vec::new(),
            trailers: Vec::new(),
        })
    }

    /// Looks at the bytes that follow those already consumed, and stops at the first data, at the
    /// end of the body or at the end of the input. A refusal is final: every later step repeats it.
    #[inline]
    pub fn step(&mut self, input: &[u8]) -> Result<BodyStep, Refusal> {
        match self.state {
            State::Finished => Ok(BodyStep::End { consumed: 0 }),
            State::Length(left) => Ok(self.take_data(input, 0, left, State::Length, State::Finished)),
            _ => self.step_chunked(input),
        }
    }

    /// Whether the end of the body has been consumed.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Names and values of the trailer fields, in the order they came; complete at the end.
    pub fn trailers(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.trailers
    }

    /// Gives out what there is of the `left` bytes of data that are due at `at`.
    #[inline]
    fn take_data(
        &mut self,
        input: &[u8],
        at: usize,
        left: u64,
        more: fn(u64) -> State,
        done: State,
    ) -> BodyStep {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
        if here == 0 {
            return BodyStep::NeedData { consumed: at };
        }
        self.state = if here as u64 == left { done } else { more(left - here as u64) };
        BodyStep::Data { start: at, end: at + here }
    }

    fn step_chunked(&mut self, input: &[u8]) -> Result<BodyStep, Refusal> {
        let mut at = 0;
        loop {
            match self.state {
                State::Finished => return Ok(BodyStep::End { consumed: at }),
                State::Refused(refusal) => return Err(refusal),
                State::ChunkData(left) => {
                    return Ok(self.take_data(input, at, left, State::ChunkData, State::ChunkDataCr));
                }
                _ => {}
            }
            let Some(&byte) = input.get(at) else {
                return Ok(BodyStep::NeedData { consumed: at });
            };
            at += 1;
            self.state = match self.after(byte) {
                Ok(state) => state,
                Err(kind) => State::Refused(kind.into()),
            };
        }
    }

    /// The state after one byte of chunked framing. The lines are short; data never comes here.
    fn after(&mut self, byte: u8) -> Result<State, RefusalKind> {
        match self.state {
            State::ChunkSize { digits, size } => self.after_size(byte, digits, size),
            State::ChunkExtension { size, bytes, inside } => self.after_extension(byte, size, bytes, inside),
            State::ChunkSizeLf { size } => {
                expect_lf(byte)?;
                self.begin_chunk(size)
            }
            State::ChunkDataCr if byte == b'\r' => Ok(State::ChunkDataLf),
            State::ChunkDataLf if byte == b'\n' => Ok(State::ChunkSize { digits: 0, size: 0 }),
            State::ChunkDataCr | State::ChunkDataLf => Err(RefusalKind::MissingChunkEnd),
            State::TrailerStart => self.start_trailer(byte),
            State::Trailer => self.after_trailer_byte(byte),
            State::TrailerLf => {
                expect_lf(byte)?;
                self.end_trailer()
            }
            State::FinalLf => expect_lf(byte).map(|()| State::Finished),
            State::Length(_) | State::ChunkData(_) | State::Finished | State::Refused(_) => {
                unreachable!("these states read no framing byte")
            }
        }
    }

    fn after_size(&self, byte: u8, digits: u8, size: u64) -> Result<State, RefusalKind> {
        if is(byte, HEX) {
            if digits == 16 {
                return Err(RefusalKind::InvalidChunkSize);
            }
            let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
            return Ok(State::ChunkSize { digits: digits + 1, size: size << 4 | digit });
        }
        if digits == 0 {
            return Err(RefusalKind::InvalidChunkSize);
        }
        match byte {
            b'\r' => Ok(State::ChunkSizeLf { size }),
            b'\n' => Err(RefusalKind::BareLf),
            b';' | b' ' | b'\t' => self.after_extension(byte, size, 0, Extension::BeforeSemicolon),
            _ => Err(RefusalKind::InvalidChunkSize),
        }
    }

    fn after_extension(
        &self,
        byte: u8,
        size: u64,
        bytes: usize,
        inside: Extension,
    ) -> Result<State, RefusalKind> {
        match byte {
            b'\r' if inside.may_end() => return Ok(State::ChunkSizeLf { size }),
            b'\n' => return Err(RefusalKind::BareLf),
            _ if bytes == self.chunk_extension_bytes => {
                return Err(RefusalKind::ChunkExtensionTooLong);
            }
            _ => {}
        }
        let inside = inside.after(byte).ok_or(RefusalKind::InvalidChunkExtension)?;
        Ok(State::ChunkExtension { size, bytes: bytes + 1, inside })
    }

    /// A whole size line has been read.
    fn begin_chunk(&mut self, size: u64) -> Result<State, RefusalKind> {
        if size == 0 {
            return Ok(State::TrailerStart);
        }
        self.total = self
            .total
            .checked_add(size)
            .filter(|total| *total <= i64::MAX as u64)
            .ok_or(RefusalKind::ChunkSizeTooLarge)?;
        if self.body_bytes != 0 && self.total > self.body_bytes {
            return Err(RefusalKind::BodyTooLarge);
        }
        Ok(State::ChunkData(size))
    }

    fn start_trailer(&mut self, byte: u8) -> Result<State, RefusalKind> {
        match byte {
            b'\r' => return Ok(State::FinalLf),
            b' ' | b'\t' if self.trailers.is_empty() => return Err(RefusalKind::LeadingWhitespace),
            b' ' | b'\t' => return Err(RefusalKind::ObsoleteFolding),
            _ if self.trailers.len() == self.trailer_fields => {
                return Err(RefusalKind::TooManyTrailers);
            }
            _ => {}
        }
        self.trailer_line.clear();
        self.after_trailer_byte(byte)
    }

    fn after_trailer_byte(&mut self, byte: u8) -> Result<State, RefusalKind> {
        // What is left has to hold the line's CRLF too.
        if byte != b'\r' && self.trailer_line.len() + 2 >= self.trailer_bytes {
            return Err(RefusalKind::TrailersTooLong);
        }
        match byte {
            b'\r' => return Ok(State::TrailerLf),
            b'\n' => return Err(RefusalKind::BareLf),
            _ if !is(byte, TEXT) => return Err(RefusalKind::ControlByte),
            _ => self.trailer_line.push(byte),
        }
        Ok(State::Trailer)
    }

    fn end_trailer(&mut self) -> Result<State, RefusalKind> {
        let line = &self.trailer_line[..];
        let field = Field::parse(line, 0, line.len(), &Leniency::default())?;
        let (name, value) = (field.name.of(line), field.value.of(line));
        if FORBIDDEN_TRAILERS.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
            return Err(RefusalKind::ForbiddenTrailer);
        }
        self.trailers.push((name.to_vec(), value.to_vec()));
        self.trailer_bytes -= line.len() + 2;
        Ok(State::TrailerStart)
    }
}

fn expect_lf(byte: u8) -> Result<(), RefusalKind> {
    if byte == b'\n' { Ok(()) } else { Err(RefusalKind::BareCr) }
}

impl Extension {
    /// Whether the line may end here.
    fn may_end(self) -> bool {
        matches!(self, Self::Name | Self::AfterName | Self::Token | Self::AfterValue)
    }

    /// Where one more byte leads, None if it may not stand here.
    fn after(self, byte: u8) -> Option<Self> {
        let is_space = is(byte, OWS);
        let is_tchar = is(byte, TOKEN);
        match (self, byte) {
            (Self::BeforeSemicolon | Self::Name | Self::AfterName | Self::Token | Self::AfterValue, b';') => {
                Some(Self::BeforeName)
            }
            (Self::Name | Self::AfterName, b'=') => Some(Self::BeforeValue),
            (Self::BeforeName | Self::Name, _) if is_tchar => Some(Self::Name),
            (Self::BeforeValue | Self::Token, _) if is_tchar => Some(Self::Token),
            (Self::BeforeValue, b'"') => Some(Self::Quoted),
            (Self::Quoted, b'"') => Some(Self::AfterValue),
            (Self::Quoted, b'\\') => Some(Self::QuotedPair),
            (Self::Quoted | Self::QuotedPair, _) if is(byte, TEXT) => Some(Self::Quoted),
            (Self::BeforeSemicolon | Self::BeforeName | Self::BeforeValue, _) if is_space => Some(self),
            (Self::Name | Self::AfterName, _) if is_space => Some(Self::AfterName),
            (Self::Token | Self::AfterValue, _) if is_space => Some(Self::AfterValue),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Decoded {
        data: Vec<u8>,
        trailers: Vec<(Vec<u8>, Vec<u8>)>,
        consumed: usize,
        finished: bool,
    }

    /// Feeds the pieces one after the other, each joined to what the step before left over.
    fn decode(framing: Framing, limits: &Limits, pieces: &[&[u8]]) -> Result<Decoded, RefusalKind> {
        let mut decoder = BodyDecoder::new(framing, limits).map_err(|refusal| refusal.kind)?;
        let mut data = Vec::new();
        let mut consumed = 0;
        'pieces: for piece in pieces {
            let mut rest = *piece;
            loop {
                match decoder.step(rest).map_err(|refusal| refusal.kind)? {
                    BodyStep::NeedData { consumed: taken } => {
                        assert_eq!(taken, rest.len(), "framing is never left unread");
                        consumed += taken;
                        continue 'pieces;
                    }
                    BodyStep::Data { start, end } => {
                        assert!(start < end);
                        data.extend_from_slice(&rest[start..end]);
                        consumed += end;
                        rest = &rest[end..];
                    }
                    BodyStep::End { consumed: taken } => {
                        consumed += taken;
                        break 'pieces;
                    }
                }
            }
        }
        let trailers = decoder.trailers().to_vec();
        Ok(Decoded { data, trailers, consumed, finished: decoder.is_finished() })
    }

    fn chunked(bytes: &[u8]) -> Result<Decoded, RefusalKind> {
        decode(Framing::Chunked, &Limits::default(), &[bytes])
    }

    fn data_of(bytes: &[u8]) -> Vec<u8> {
        let decoded = chunked(bytes).expect("an accepted body");
        assert!(decoded.finished);
        decoded.data
    }

    #[test]
    fn a_body_without_bytes_has_ended_at_once() {
        for framing in [Framing::None, Framing::Length(0)] {
            let mut decoder = BodyDecoder::new(framing, &Limits::default()).unwrap();
            assert!(decoder.is_finished());
            assert_eq!(decoder.step(b"next"), Ok(BodyStep::End { consumed: 0 }));
        }
    }

    #[test]
    fn a_length_takes_its_bytes_and_no_more() {
        let decoded = decode(Framing::Length(5), &Limits::default(), &[b"hel", b"", b"lo!"]).unwrap();
        assert_eq!((&decoded.data[..], decoded.consumed, decoded.finished), (&b"hello"[..], 5, true));
        let decoded = decode(Framing::Length(5), &Limits::default(), &[b"hell"]).unwrap();
        assert!(!decoded.finished);
    }

    #[test]
    fn chunks_are_joined_and_the_next_message_is_left_alone() {
        let decoded = chunked(b"5\r\nhello\r\n006\r\n world\r\n0\r\n\r\nGET /").unwrap();
        assert_eq!(decoded.data, b"hello world");
        assert_eq!(decoded.consumed, b"5\r\nhello\r\n006\r\n world\r\n0\r\n\r\n".len());
        assert!(decoded.finished);
        assert_eq!(data_of(b"A\r\n0123456789\r\n00\r\n\r\n"), b"0123456789");
    }

    #[test]
    fn chunk_sizes_are_one_to_sixteen_hex_digits() {
        assert_eq!(data_of(b"0000000000000001\r\na\r\n0000000000000000\r\n\r\n"), b"a");
        for (bytes, kind) in [
            (&b"00000000000000001"[..], RefusalKind::InvalidChunkSize),
            (b"0x1", RefusalKind::InvalidChunkSize),
            (b"+1", RefusalKind::InvalidChunkSize),
            (b"-1", RefusalKind::InvalidChunkSize),
            (b" 1", RefusalKind::InvalidChunkSize),
            (b"\r\n", RefusalKind::InvalidChunkSize),
            (b";", RefusalKind::InvalidChunkSize),
            (b"g", RefusalKind::InvalidChunkSize),
            (b"1_0", RefusalKind::InvalidChunkSize),
            (b"ffffffffffffffff\r\n", RefusalKind::ChunkSizeTooLarge),
            (b"8000000000000000\r\n", RefusalKind::ChunkSizeTooLarge),
            (b"1\r\na\r\n7fffffffffffffff\r\n", RefusalKind::ChunkSizeTooLarge),
            (b"1\n", RefusalKind::BareLf),
            (b"1\ra", RefusalKind::BareCr),
            (b"1\r\nab", RefusalKind::MissingChunkEnd),
            (b"1\r\na\n", RefusalKind::MissingChunkEnd),
            (b"1\r\na\ra", RefusalKind::MissingChunkEnd),
            (b"1\r\na1\r\n", RefusalKind::MissingChunkEnd),
        ] {
            assert_eq!(chunked(bytes), Err(kind), "{bytes:?}");
        }
    }

    #[test]
    fn chunk_extensions_are_checked_and_ignored() {
        for extension in [
            ";a",
            ";a=b",
            ";a=\"b\"",
            ";a=\"\"",
            ";a=\"b;\\\"c\\\\\"",
            " ;a",
            "\t;\ta\t=\tb\t;c",
            ";a;b=c;d",
            ";a=\"\u{e9}\"",
            ";a ",
            ";a=b ",
        ] {
            let body = format!("1{extension}\r\na\r\n0{extension}\r\n\r\n");
            assert_eq!(data_of(body.as_bytes()), b"a", "{extension}");
        }
        for (extension, kind) in [
            (" \r", RefusalKind::InvalidChunkExtension),
            (" a", RefusalKind::InvalidChunkExtension),
            (";\r", RefusalKind::InvalidChunkExtension),
            (";=", RefusalKind::InvalidChunkExtension),
            (";a=\r", RefusalKind::InvalidChunkExtension),
            (";a==", RefusalKind::InvalidChunkExtension),
            (";a b", RefusalKind::InvalidChunkExtension),
            (";a=b c", RefusalKind::InvalidChunkExtension),
            (";a=\"b\"c", RefusalKind::InvalidChunkExtension),
            (";a=\"b\r", RefusalKind::InvalidChunkExtension),
            (";a=\"b\\\r", RefusalKind::InvalidChunkExtension),
            (";a=\"\0", RefusalKind::InvalidChunkExtension),
            (";a\0", RefusalKind::InvalidChunkExtension),
            (";a\n", RefusalKind::BareLf),
            (";a=\"\n", RefusalKind::BareLf),
            (";a\rb", RefusalKind::BareCr),
        ] {
            assert_eq!(chunked(format!("1{extension}").as_bytes()), Err(kind), "{extension:?}");
        }
    }

    #[test]
    fn each_chunk_may_have_extensions_up_to_the_limit() {
        let limits = Limits { chunk_extension_bytes: 4, ..Limits::default() };
        let body = b"1;a=b\r\nx\r\n1;c=d\r\ny\r\n0\r\n\r\n";
        assert_eq!(decode(Framing::Chunked, &limits, &[body]).unwrap().data, b"xy");
        let refusal = decode(Framing::Chunked, &limits, &[b"1;a=bc"]).unwrap_err();
        assert_eq!(refusal, RefusalKind::ChunkExtensionTooLong);
        let limits = Limits { chunk_extension_bytes: 0, ..Limits::default() };
        assert_eq!(
            decode(Framing::Chunked, &limits, &[b"1;"]).unwrap_err(),
            RefusalKind::ChunkExtensionTooLong
        );
    }

    #[test]
    fn trailers_are_kept_apart() {
        let decoded = chunked(b"0\r\nDigest:  abc \r\nX-Empty:\r\n\r\n").unwrap();
        assert!(decoded.finished);
        let expected = [(b"Digest".to_vec(), b"abc".to_vec()), (b"X-Empty".to_vec(), Vec::new())];
        assert_eq!(decoded.trailers, expected);
    }

    #[test]
    fn trailers_follow_the_rules_of_fields() {
        for (trailers, kind) in [
            ("a b: c\r\n", RefusalKind::InvalidFieldName),
            ("a : c\r\n", RefusalKind::SpaceBeforeColon),
            ("a\r\n", RefusalKind::MissingColon),
            (": a\r\n", RefusalKind::InvalidFieldName),
            (" a: b", RefusalKind::LeadingWhitespace),
            ("a: b\r\n c", RefusalKind::ObsoleteFolding),
            ("a: b\n", RefusalKind::BareLf),
            ("\n", RefusalKind::BareLf),
            ("a: b\rc", RefusalKind::BareCr),
            ("\ra", RefusalKind::BareCr),
            ("a: \0", RefusalKind::ControlByte),
            ("\0", RefusalKind::ControlByte),
            ("Content-Length: 1\r\n", RefusalKind::ForbiddenTrailer),
            ("TRANSFER-ENCODING: chunked\r\n", RefusalKind::ForbiddenTrailer),
            ("Host: h\r\n", RefusalKind::ForbiddenTrailer),
            ("Authorization: x\r\n", RefusalKind::ForbiddenTrailer),
        ] {
            assert_eq!(chunked(format!("0\r\n{trailers}").as_bytes()), Err(kind), "{trailers:?}");
        }
    }

    #[test]
    fn trailers_are_bounded_in_bytes_and_number() {
        let limits = Limits { trailer_bytes: 12, ..Limits::default() };
        assert!(decode(Framing::Chunked, &limits, &[b"0\r\na: b\r\nc: d\r\n\r\n"]).unwrap().finished);
        for bytes in [&b"0\r\na: b\r\nc: de"[..], b"0\r\na: bcdefghi", b"0\r\na: b\r\nc: d\r\ne"] {
            assert_eq!(
                decode(Framing::Chunked, &limits, &[bytes]).unwrap_err(),
                RefusalKind::TrailersTooLong
            );
        }
        let limits = Limits { trailer_fields: 1, ..Limits::default() };
        assert!(decode(Framing::Chunked, &limits, &[b"0\r\na: b\r\n\r\n"]).unwrap().finished);
        let refusal = decode(Framing::Chunked, &limits, &[b"0\r\na: b\r\nc"]).unwrap_err();
        assert_eq!(refusal, RefusalKind::TooManyTrailers);
    }

    #[test]
    fn a_body_beyond_its_limit_is_refused_before_it_is_read() {
        let limits = Limits { body_bytes: 5, ..Limits::default() };
        assert!(BodyDecoder::new(Framing::Length(5), &limits).is_ok());
        assert_eq!(BodyDecoder::new(Framing::Length(6), &limits).unwrap_err().status, 413);
        assert!(decode(Framing::Chunked, &limits, &[b"5\r\nhello\r\n0\r\n\r\n"]).unwrap().finished);
        assert_eq!(decode(Framing::Chunked, &limits, &[b"6\r\n"]).unwrap_err(), RefusalKind::BodyTooLarge);
        assert_eq!(
            decode(Framing::Chunked, &limits, &[b"3\r\nabc\r\n3\r\n"]).unwrap_err(),
            RefusalKind::BodyTooLarge
        );
    }

    #[test]
    fn a_refusal_is_final() {
        let mut decoder = BodyDecoder::new(Framing::Chunked, &Limits::default()).unwrap();
        let refusal = decoder.step(b"x").unwrap_err();
        assert_eq!(decoder.step(b"0\r\n\r\n"), Err(refusal));
        assert!(!decoder.is_finished());
    }
}
