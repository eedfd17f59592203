//! One field line: its name, its value, and the two values that need more than comparing.

use std::borrow::Cow;

use crate::grammar::{OWS, TOKEN, find_control, is, span_of, trim_ows};
use crate::limits::Leniency;
use crate::refusal::RefusalKind;
use crate::span::Span;

/// One field of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The name, a token, in the case it was sent.
    pub name: Span,
    /// The value without the white space around it.
    pub value: Span,
    /// The value goes over several lines (only with `obsolete_folding`): read it with [`unfold`].
    pub folded: bool,
}

impl Field {
    /// The value as one line, whether it was folded or not.
    pub fn text<'buf>(&self, buf: &'buf [u8]) -> Cow<'buf, [u8]> {
        let value = self.value.of(buf);
        if self.folded { Cow::Owned(unfold(value)) } else { Cow::Borrowed(value) }
    }

    /// Reads `buf[start..end]`, a field line without its CRLF and without controls but HTAB.
    #[inline]
    pub(crate) fn parse(
        buf: &[u8],
        start: usize,
        end: usize,
        leniency: &Leniency,
    ) -> Result<Self, RefusalKind> {
        let line = &buf[start..end];
        let name = span_of(line, TOKEN);
        let colon = match line.get(name) {
            Some(b':') if name > 0 => name,
            _ => find_colon(line, name, leniency)?,
        };
        let value = trim_span(buf, start + colon + 1, end);
        Ok(Self { name: Span::new(start, start + name), value, folded: false })
    }

    /// Adds `buf[start..end]`, a line that began with white space, to the value.
    pub(crate) fn extend(&mut self, buf: &[u8], start: usize, end: usize) {
        let more = trim_span(buf, start, end);
        if more.is_empty() {
            return;
        }
        if self.value.is_empty() {
            self.value = more;
        } else {
            self.value.end = more.end;
            self.folded = true;
        }
    }
}

/// The colon of a line whose name is not directly followed by it, or what is wrong with the line.
#[cold]
fn find_colon(line: &[u8], name: usize, leniency: &Leniency) -> Result<usize, RefusalKind> {
    let spaces = span_of(&line[name..], OWS);
    let colon = name + spaces;
    if name > 0 && spaces > 0 && line.get(colon) == Some(&b':') {
        return if leniency.header_spaces { Ok(colon) } else { Err(RefusalKind::SpaceBeforeColon) };
    }
    match memchr::memchr(b':', line) {
        None => Err(RefusalKind::MissingColon),
        Some(_) => Err(RefusalKind::InvalidFieldName),
    }
}

#[inline]
fn trim_span(buf: &[u8], mut start: usize, mut end: usize) -> Span {
    while start < end && is(buf[start], OWS) {
        start += 1;
    }
    while end > start && is(buf[end - 1], OWS) {
        end -= 1;
    }
    Span::new(start, end)
}

/// A folded value as one line: each line break with the white space around it becomes one space
/// (RFC 9112 5.2).
pub fn unfold(value: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        let end = find_control(value, at);
        let piece = trim_ows(&value[at..end]);
        if !piece.is_empty() {
            if !line.is_empty() {
                line.push(b' ');
            }
            line.extend_from_slice(piece);
        }
        at = end + 1;
    }
    line
}

/// The number in a Content-Length: ASCII digits and nothing else (no sign, no list, no space),
/// below 2^63 so that it fits an `off_t`.
pub fn parse_content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let mut length: u64 = 0;
    for byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        length = length.checked_mul(10)?.checked_add(u64::from(digit))?;
        if length > i64::MAX as u64 {
            return None;
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[u8], leniency: Leniency) -> Result<(Vec<u8>, Vec<u8>), RefusalKind> {
        let field = Field::parse(line, 0, line.len(), &leniency)?;
        Ok((field.name.of(line).to_vec(), field.value.of(line).to_vec()))
    }

    fn strict(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), RefusalKind> {
        parse(line, Leniency::default())
    }

    #[test]
    fn a_field_line_is_a_token_a_colon_and_a_trimmed_value() {
        assert_eq!(strict(b"Host: a"), Ok((b"Host".to_vec(), b"a".to_vec())));
        assert_eq!(strict(b"Host:a"), Ok((b"Host".to_vec(), b"a".to_vec())));
        assert_eq!(strict(b"x:\t a b \t"), Ok((b"x".to_vec(), b"a b".to_vec())));
        assert_eq!(strict(b"x:"), Ok((b"x".to_vec(), b"".to_vec())));
        assert_eq!(strict(b"x::y:"), Ok((b"x".to_vec(), b":y:".to_vec())));
    }

    #[test]
    fn each_malformation_has_its_own_refusal() {
        assert_eq!(strict(b"Host"), Err(RefusalKind::MissingColon));
        assert_eq!(strict(b"Ho st"), Err(RefusalKind::MissingColon));
        assert_eq!(strict(b": a"), Err(RefusalKind::InvalidFieldName));
        assert_eq!(strict(b"Ho(st: a"), Err(RefusalKind::InvalidFieldName));
        assert_eq!(strict(b"H\xc3\xb6st: a"), Err(RefusalKind::InvalidFieldName));
        assert_eq!(strict(b"Ho st: a"), Err(RefusalKind::InvalidFieldName));
        assert_eq!(strict(b"Host : a"), Err(RefusalKind::SpaceBeforeColon));
        assert_eq!(strict(b"Host\t: a"), Err(RefusalKind::SpaceBeforeColon));
    }

    #[test]
    fn spaces_before_the_colon_are_dropped_where_that_was_asked_for() {
        let leniency = Leniency { header_spaces: true, ..Leniency::default() };
        assert_eq!(parse(b"Host \t: a", leniency), Ok((b"Host".to_vec(), b"a".to_vec())));
        assert_eq!(parse(b" : a", leniency), Err(RefusalKind::InvalidFieldName));
        assert_eq!(parse(b"Ho st : a", leniency), Err(RefusalKind::InvalidFieldName));
    }

    #[test]
    fn unfolding_puts_one_space_for_each_break() {
        assert_eq!(unfold(b"a\r\n b"), b"a b");
        assert_eq!(unfold(b"a \r\n\t  b\r\n c"), b"a b c");
        assert_eq!(unfold(b"a\r\n \r\n b"), b"a b");
        assert_eq!(unfold(b"a\tb"), b"a\tb");
        assert_eq!(unfold(b""), b"");
    }

    #[test]
    fn a_content_length_is_digits_below_two_to_the_63() {
        assert_eq!(parse_content_length(b"0"), Some(0));
        assert_eq!(parse_content_length(b"007"), Some(7));
        assert_eq!(parse_content_length(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in [
            &b""[..],
            b"9223372036854775808",
            b"18446744073709551616",
            b"+1",
            b"-1",
            b"1 ",
            b"5, 5",
            b"5,5",
            b"0x5",
            b"1_0",
            b"1.0",
            b"\xd9\xa1",
        ] {
            assert_eq!(parse_content_length(bad), None, "{bad:?}");
        }
    }
}
