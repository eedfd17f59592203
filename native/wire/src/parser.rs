//! Parses a head line by line, as the lines arrive.
//!
//! Owns       the position in the buffer, and the order in which limits and rules are applied.
//! Never      looks at a byte after the one that decides.
//! Invariant  after any call the state is a function of the bytes so far, not of how they came.

use crate::field::Field;
use crate::grammar::{OWS, TOKEN, is};
use crate::head::Head;
use crate::limits::{Leniency, Limits, Rules};
use crate::line::{Bound, find_line_end};
use crate::notable::Notable;
use crate::refusal::{Refusal, RefusalKind};
use crate::request_line::parse_request_line;

/// Empty lines that are skipped before a request line. RFC 9112 2.2 asks for one at least; old
/// clients send one after a body that they miscounted, and some send two.
const EMPTY_LINES_MAX: u8 = 2;

/// How far a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is not all there yet.
    Partial,
    /// All of it is there and valid.
    Complete,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing but empty lines so far.
    #[default]
    Start,
    /// Inside the request line.
    RequestLine,
    /// At or inside a field line, or the empty line after the last.
    Fields,
}

/// Parses one head out of a buffer that grows.
///
/// Between calls the buffer may only get longer and `head` must be left alone. Every complete line
/// is read once, and the bytes of an unfinished line are looked at once. After `Complete` or a
/// refusal, [`reset`](Self::reset) makes it ready for the next head.
#[derive(Clone, Debug, Default)]
pub struct HeadParser {
    stage: Stage,
    empty_lines: u8,
    /// Where the line being read starts.
    line: usize,
    /// How far that line has been looked at.
    scanned: usize,
    notable: Notable,
}

impl HeadParser {
    /// A parser that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything, for the next head.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Goes on with `buf`, which starts where it did in the last call and may have more bytes.
    #[inline]
    pub fn parse(&mut self, buf: &[u8], rules: &Rules, head: &mut Head) -> Result<Progress, Refusal> {
        self.advance(buf, rules, head).map_err(|kind| self.refused(kind, buf, head))
    }

    #[cold]
    fn refused(&self, kind: RefusalKind, buf: &[u8], head: &Head) -> Refusal {
        // Before the request line the head is still the one of the request before.
        let method = if self.stage == Stage::Start { b"" } else { head.method.of(buf) };
        Refusal::from(kind).of(method)
    }

    fn advance(&mut self, buf: &[u8], rules: &Rules, head: &mut Head) -> Result<Progress, RefusalKind> {
        if self.stage == Stage::Start {
            if !self.skip_empty_lines(buf)? {
                return Ok(Progress::Partial);
            }
            head.clear();
            self.stage = Stage::RequestLine;
        }
        let head_bound = head_bound(&rules.limits);
        if self.stage == Stage::RequestLine {
            let bound = line_bound(self.line, &rules.limits).or_nearer(head_bound);
            let Some(end) = find_line_end(buf, &mut self.scanned, bound)? else {
                return Ok(Progress::Partial);
            };
            parse_request_line(buf, self.line, end, &rules.leniency, head)?;
            self.start_line(end + 2);
            self.stage = Stage::Fields;
        }
        self.read_fields(buf, rules, head_bound, head)
    }

    #[inline]
    fn start_line(&mut self, at: usize) {
        self.line = at;
        self.scanned = at;
    }

    /// True when the first byte of a request line is there. A byte that can start none is refused
    /// at once: a TLS hello or a binary protocol gets its answer without waiting for a line end.
    #[inline]
    fn skip_empty_lines(&mut self, buf: &[u8]) -> Result<bool, RefusalKind> {
        loop {
            match buf.get(self.line..).unwrap_or_default() {
                [] => return Ok(false),
                [first, ..] if is(*first, TOKEN) => return Ok(true),
                [b'\r', ..] if self.empty_lines == EMPTY_LINES_MAX => {
                    return Err(RefusalKind::TooManyEmptyLines);
                }
                [b'\r'] => return Ok(false),
                [b'\r', b'\n', ..] => {
                    self.empty_lines += 1;
                    self.start_line(self.line + 2);
                }
                [b'\r', ..] => return Err(RefusalKind::BareCr),
                [b'\n', ..] => return Err(RefusalKind::BareLf),
                _ => return Err(RefusalKind::NotARequest),
            }
        }
    }

    fn read_fields(
        &mut self,
        buf: &[u8],
        rules: &Rules,
        head_bound: Bound,
        head: &mut Head,
    ) -> Result<Progress, RefusalKind> {
        loop {
            let Some(&first) = buf.get(self.line) else {
                return Ok(Progress::Partial);
            };
            let is_continuation = is(first, OWS);
            if is_continuation {
                check_continuation(&rules.leniency, head)?;
            } else if first != b'\r' && head.fields.len() >= rules.limits.fields {
                return Err(RefusalKind::TooManyFields);
            }
            let bound = match (first, head.fields.last()) {
                (b'\r', _) => head_bound,
                // A folded field is bounded as a whole: a continuation counts from the field's name.
                (_, Some(field)) if is_continuation => {
                    field_bound(field.name.start as usize, &rules.limits).or_nearer(head_bound)
                }
                _ => field_bound(self.line, &rules.limits).or_nearer(head_bound),
            };
            let Some(end) = find_line_end(buf, &mut self.scanned, bound)? else {
                return Ok(Progress::Partial);
            };
            if end == self.line {
                head.len = end + 2;
                self.notable.conclude(buf, head)?;
                return Ok(Progress::Complete);
            }
            if is_continuation {
                extend_last(buf, self.line, end, head);
            } else {
                let field = Field::parse(buf, self.line, end, &rules.leniency)?;
                self.notable.notice(field.name.of(buf), head.fields.len())?;
                head.fields.push(field);
            }
            self.start_line(end + 2);
        }
    }
}

/// A limit where zero means none.
#[inline]
fn or_unbounded(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

#[inline]
fn head_bound(limits: &Limits) -> Bound {
    // Spans hold 32 bits, so a head is shorter than that whatever the limit says.
    let head_bytes = limits.head_bytes.min(i32::MAX as usize);
    Bound { end: head_bytes.saturating_sub(2), refusal: RefusalKind::HeadTooLong }
}

#[inline]
fn line_bound(line: usize, limits: &Limits) -> Bound {
    let end = line.saturating_add(or_unbounded(limits.request_line_bytes));
    Bound { end, refusal: RefusalKind::RequestLineTooLong }
}

#[inline]
fn field_bound(field: usize, limits: &Limits) -> Bound {
    // The limit of a field counts its CRLF, as Gunicorn's does.
    let end = field.saturating_add(or_unbounded(limits.field_bytes)).saturating_sub(2);
    Bound { end, refusal: RefusalKind::FieldTooLong }
}

/// May the next line, which starts with white space, be a continuation?
#[cold]
fn check_continuation(leniency: &Leniency, head: &Head) -> Result<(), RefusalKind> {
    match (head.fields.is_empty(), leniency.obsolete_folding) {
        (true, _) => Err(RefusalKind::LeadingWhitespace),
        (false, false) => Err(RefusalKind::ObsoleteFolding),
        (false, true) => Ok(()),
    }
}

#[cold]
fn extend_last(buf: &[u8], start: usize, end: usize, head: &mut Head) {
    if let Some(field) = head.fields.last_mut() {
        field.extend(buf, start, end);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn parse_with(bytes: &[u8], rules: &Rules) -> Result<(Head, Progress), Refusal> {
        let mut head = Head::default();
        let progress = HeadParser::new().parse(bytes, rules, &mut head)?;
        Ok((head, progress))
    }

    pub(crate) fn accept(bytes: &[u8]) -> Head {
        let (head, progress) = parse_with(bytes, &Rules::default()).expect("an accepted head");
        assert_eq!(progress, Progress::Complete);
        head
    }

    pub(crate) fn refuse(bytes: &[u8]) -> RefusalKind {
        parse_with(bytes, &Rules::default()).expect_err("a refusal").kind
    }

    #[test]
    fn a_refusal_knows_whether_it_answers_a_head() {
        for (request, to_head) in [
            (&b"HEAD / HTTP/1.1\r\n\r\n"[..], true),
            (b"HEAD / HTTP/1.1\r\nA b\r\n", true),
            (b"HEAD x HTTP/1.1\r\n", true),
            (b"HEAD / HTTP/3\r\n", true),
            (b"GET / HTTP/1.1\r\n\r\n", false),
            (b"\0", false),
        ] {
            let mut head = Head::default();
            let mut parser = HeadParser::new();
            parser.parse(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", &Rules::default(), &mut head).unwrap();
            parser.reset();
            let refusal = parser.parse(request, &Rules::default(), &mut head).unwrap_err();
            assert_eq!(refusal.to_head, to_head, "{request:?}");
        }
    }

    pub(crate) fn lenient(change: impl FnOnce(&mut Leniency)) -> Rules {
        let mut rules = Rules::default();
        change(&mut rules.leniency);
        rules
    }

    pub(crate) fn limited(change: impl FnOnce(&mut Limits)) -> Rules {
        let mut rules = Rules::default();
        change(&mut rules.limits);
        rules
    }

    #[test]
    fn the_parts_of_a_head_are_spans_of_its_buffer() {
        let bytes = b"\r\nPOST /a?b HTTP/1.1\r\nHost: h\r\nX: \t y z \r\n\r\nbody";
        let head = accept(bytes);
        assert_eq!(head.method.of(bytes), b"POST");
        assert_eq!(head.target.of(bytes), b"/a?b");
        assert_eq!(head.path.of(bytes), b"/a");
        assert_eq!(head.query.of(bytes), b"b");
        assert_eq!(head.fields.len(), 2);
        assert_eq!(head.fields[1].name.of(bytes), b"X");
        assert_eq!(head.fields[1].value.of(bytes), b"y z");
        assert_eq!(head.host.unwrap().of(bytes), b"h");
        assert_eq!(&bytes[head.len..], b"body");
    }

    #[test]
    fn a_head_and_a_parser_can_be_used_again() {
        let mut head = Head::default();
        let mut parser = HeadParser::new();
        let first =
            b"POST http://other/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
        assert_eq!(parser.parse(first, &Rules::default(), &mut head), Ok(Progress::Complete));
        parser.reset();
        let second = b"GET / HTTP/1.0\r\n\r\n";
        assert_eq!(parser.parse(second, &Rules::default(), &mut head), Ok(Progress::Complete));
        assert_eq!(head, parse_with(second, &Rules::default()).unwrap().0);
    }

    #[test]
    fn bytes_are_looked_at_once_however_they_arrive() {
        let bytes = b"GET /a HTTP/1.1\r\nHost: h\r\nA: 1\r\n\r\n";
        let mut head = Head::default();
        let mut parser = HeadParser::new();
        for end in 0..bytes.len() {
            let progress = parser.parse(&bytes[..end], &Rules::default(), &mut head);
            assert_eq!(progress, Ok(Progress::Partial), "{end}");
            assert!(parser.scanned + 2 >= end, "all but a pending CR LF has been scanned");
        }
        assert_eq!(parser.parse(bytes, &Rules::default(), &mut head), Ok(Progress::Complete));
        assert_eq!(head, accept(bytes));
    }

    #[test]
    fn what_cannot_start_a_request_is_refused_at_its_first_byte() {
        for (bytes, kind) in [
            (&b"\x16\x03\x01"[..], RefusalKind::NotARequest),
            (b" ", RefusalKind::NotARequest),
            (b"\0", RefusalKind::NotARequest),
            (b"\xff", RefusalKind::NotARequest),
            (b"\n", RefusalKind::BareLf),
            (b"\rG", RefusalKind::BareCr),
            (b"\r\n\r\n\r", RefusalKind::TooManyEmptyLines),
        ] {
            assert_eq!(refuse(bytes), kind, "{bytes:?}");
        }
    }

    #[test]
    fn a_refusal_repeats_until_the_reset() {
        let mut head = Head::default();
        let mut parser = HeadParser::new();
        let bad = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n";
        for _ in 0..2 {
            let refusal = parser.parse(bad, &Rules::default(), &mut head).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::DuplicateHost);
        }
    }

    #[test]
    fn limits_hold_at_the_byte_that_exceeds_them() {
        let rules = limited(|limits| limits.request_line_bytes = 14);
        assert!(parse_with(b"GET / HTTP/1.1\r\n", &rules).is_ok());
        assert!(parse_with(b"GET /aHTTP/1.1", &rules).is_ok());
        assert_eq!(parse_with(b"GET /aa TTP/1.1", &rules).unwrap_err().status, 414);

        let rules = limited(|limits| limits.field_bytes = 8);
        assert!(parse_with(b"GET / HTTP/1.1\r\nHost:a\r\n", &rules).is_ok());
        assert_eq!(parse_with(b"GET / HTTP/1.1\r\nHost:ab", &rules).unwrap_err().status, 431);

        let rules = limited(|limits| limits.fields = 1);
        let head = b"GET / HTTP/1.1\r\nHost:a\r\n\r\n";
        assert!(parse_with(head, &rules).is_ok());
        let refusal = parse_with(b"GET / HTTP/1.1\r\nHost:a\r\nB", &rules).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::TooManyFields);

        for missing in 0..head.len() {
            let rules = limited(|limits| limits.head_bytes = missing);
            assert_eq!(parse_with(head, &rules).unwrap_err().kind, RefusalKind::HeadTooLong, "{missing}");
        }
        assert!(parse_with(head, &limited(|limits| limits.head_bytes = head.len())).is_ok());
    }

    #[test]
    fn zero_is_no_bound_for_a_line_or_a_field_but_the_head_is_still_bounded() {
        let rules = limited(|limits| {
            limits.request_line_bytes = 0;
            limits.field_bytes = 0;
            limits.head_bytes = 20_000;
        });
        let long =
            format!("GET /{} HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "a".repeat(9000), "b".repeat(9000));
        assert!(parse_with(long.as_bytes(), &rules).is_ok());
        let longer = format!("GET /{}", "a".repeat(20_000));
        assert_eq!(parse_with(longer.as_bytes(), &rules).unwrap_err().kind, RefusalKind::HeadTooLong);
    }

    #[test]
    fn the_empty_line_is_no_field() {
        let rules = limited(|limits| limits.field_bytes = 1);
        assert!(parse_with(b"GET / HTTP/1.0\r\n\r\n", &rules).is_ok());
    }

    #[test]
    fn folded_values_are_one_value_where_that_was_asked_for() {
        let rules = lenient(|leniency| leniency.obsolete_folding = true);
        let bytes = b"GET / HTTP/1.1\r\nHost: h\r\nA: 1 \r\n\t 2\r\n \r\nB:\r\n 3\r\n\r\n";
        let (head, _) = parse_with(bytes, &rules).unwrap();
        assert_eq!(&*head.fields[1].text(bytes), b"1 2");
        assert!(head.fields[1].folded);
        assert_eq!(head.fields[2].value.of(bytes), b"3");
        assert!(!head.fields[2].folded);
    }

    #[test]
    fn a_folded_field_is_bounded_as_a_whole() {
        let rules = Rules {
            limits: Limits { field_bytes: 12, ..Limits::default() },
            leniency: Leniency { obsolete_folding: true, ..Leniency::default() },
        };
        assert!(parse_with(b"GET / HTTP/1.0\r\nA: 1\r\n 234\r\n\r\n", &rules).is_ok());
        let refusal = parse_with(b"GET / HTTP/1.0\r\nA: 1\r\n 2345", &rules).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::FieldTooLong);
    }
}
