//! The first line of a head: method, target and version.

use crate::grammar::{CONVENTIONAL, TOKEN, span_of};
use crate::head::{Head, Version};
use crate::limits::Leniency;
use crate::refusal::RefusalKind;
use crate::span::Span;
use crate::target::{MethodKind, parse_target};

/// Bytes of ` HTTP/1.1`, the end of a request line.
const VERSION_TAIL: usize = 9;

/// Reads `buf[start..end]`, a request line without its CRLF and without controls but HTAB.
#[inline]
pub(crate) fn parse_request_line(
    buf: &[u8],
    start: usize,
    end: usize,
    leniency: &Leniency,
    head: &mut Head,
) -> Result<(), RefusalKind> {
    let line = &buf[start..end];
    let method_len = measure_method(line, leniency)?;
    head.method = Span::new(start, start + method_len);
    let target_start = method_len + 1;
    let rest = &line[target_start..];
    let target_len = rest.len().saturating_sub(VERSION_TAIL);
    let target_end = target_start + target_len;
    head.version = match &rest[target_len..] {
        b" HTTP/1.1" => Version::Http11,
        b" HTTP/1.0" => Version::Http10,
        _ => parse_other_version(rest, leniency)?,
    };
    head.target = Span::new(start + target_start, start + target_end);
    let method = kind_of(&line[..method_len], leniency);
    let target = parse_target(buf, head.target, method)?;
    head.form = target.form;
    head.scheme = target.scheme;
    head.authority = target.authority;
    head.path = target.path;
    head.query = target.query;
    Ok(())
}

/// Length of the method that starts the line and is followed by a space.
#[inline]
fn measure_method(line: &[u8], leniency: &Leniency) -> Result<usize, RefusalKind> {
    let conventional = span_of(line, CONVENTIONAL);
    if line.get(conventional) == Some(&b' ') && (3..=20).contains(&conventional) {
        return Ok(conventional);
    }
    measure_unconventional_method(line, leniency)
}

#[cold]
fn measure_unconventional_method(line: &[u8], leniency: &Leniency) -> Result<usize, RefusalKind> {
    let len = span_of(line, TOKEN);
    match line.get(len) {
        Some(b' ') if leniency.unconventional_method => Ok(len),
        Some(b' ') => Err(RefusalKind::UnconventionalMethod),
        None | Some(b'\t') => Err(RefusalKind::MalformedRequestLine),
        Some(_) => Err(RefusalKind::InvalidMethod),
    }
}

#[inline]
fn kind_of(method: &[u8], leniency: &Leniency) -> MethodKind {
    let is = |name: &[u8]| method == name || (leniency.casefold_method && method.eq_ignore_ascii_case(name));
    match method.len() {
        7 if is(b"CONNECT") => MethodKind::Connect,
        7 if is(b"OPTIONS") => MethodKind::Options,
        _ => MethodKind::Other,
    }
}

/// The version at the end of `rest`, what follows the method, when it is not one of the usual two.
#[cold]
fn parse_other_version(rest: &[u8], leniency: &Leniency) -> Result<Version, RefusalKind> {
    let space = memchr::memrchr(b' ', rest).ok_or(RefusalKind::MalformedRequestLine)?;
    let (major, minor) = match &rest[space + 1..] {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] => (*major, *minor),
        [b'H' | b'h', b'T' | b't', b'T' | b't', b'P' | b'p', ..] => {
            return Err(RefusalKind::MalformedVersion);
        }
        _ => return Err(RefusalKind::MalformedRequestLine),
    };
    if !major.is_ascii_digit() || !minor.is_ascii_digit() {
        return Err(RefusalKind::MalformedVersion);
    }
    if !leniency.unconventional_version {
        return Err(RefusalKind::UnsupportedVersion);
    }
    Ok(Version::Other { major: major - b'0', minor: minor - b'0' })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::tests::{lenient, parse_with, refuse};
    use crate::target::TargetForm;

    #[test]
    fn casefolding_alone_lets_no_lowercase_method_in() {
        let request = b"options * HTTP/1.0\r\n\r\n";
        assert_eq!(refuse(request), RefusalKind::UnconventionalMethod);
        let rules = lenient(|leniency| leniency.casefold_method = true);
        assert_eq!(parse_with(request, &rules).unwrap_err().kind, RefusalKind::UnconventionalMethod);
        let rules = lenient(|leniency| leniency.unconventional_method = true);
        assert_eq!(parse_with(request, &rules).unwrap_err().kind, RefusalKind::MisplacedAsterisk);
        let rules = lenient(|leniency| {
            leniency.casefold_method = true;
            leniency.unconventional_method = true;
        });
        assert_eq!(parse_with(request, &rules).unwrap().0.form, TargetForm::Asterisk);
    }

    #[test]
    fn another_version_speaks_the_nearest_that_is_known() {
        let rules = lenient(|leniency| leniency.unconventional_version = true);
        for (version, is_http11) in [("0.9", false), ("1.2", true), ("2.0", true)] {
            let request = format!("GET / HTTP/{version}\r\nHost: h\r\n\r\n");
            let (head, _) = parse_with(request.as_bytes(), &rules).unwrap();
            assert_eq!(head.version.is_http11(), is_http11);
            assert_eq!(head.keep_alive, is_http11);
            assert_eq!(refuse(request.as_bytes()), RefusalKind::UnsupportedVersion);
        }
    }
}
