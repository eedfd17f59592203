//! The request target: its four forms (RFC 9112 3.2), and the authority inside it or in Host.

use std::net::Ipv6Addr;

use crate::grammar::{HEX, REG_NAME, TARGET, is, span_of};
use crate::refusal::RefusalKind;
use crate::span::Span;

/// Which of the four forms the target has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`.
    #[default]
    Origin,
    /// `http://host/path?query`, as sent to proxies; its host replaces the Host field.
    Absolute,
    /// `host:port`, of CONNECT.
    Authority,
    /// `*`, of OPTIONS.
    Asterisk,
}

/// What a method means for the form of its target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MethodKind {
    Connect,
    Options,
    Other,
}

/// A target taken apart; all spans lie in the buffer that the head is parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub form: TargetForm,
    pub scheme: Option<Span>,
    pub authority: Option<Span>,
    pub path: Span,
    pub query: Span,
}

/// Takes `buf[span]` apart, or says what is wrong with it.
#[inline]
pub(crate) fn parse_target(buf: &[u8], span: Span, method: MethodKind) -> Result<Target, RefusalKind> {
    match (span.of(buf).first(), method) {
        (None, _) => Err(RefusalKind::MalformedRequestLine),
        (_, MethodKind::Connect) => parse_authority_form(buf, span),
        (Some(b'/'), _) => {
            let (path, query) = split_query(buf, span)?;
            Ok(Target { path, query, ..Target::default() })
        }
        _ => parse_rare_form(buf, span, method),
    }
}

#[cold]
fn parse_rare_form(buf: &[u8], span: Span, method: MethodKind) -> Result<Target, RefusalKind> {
    if span.of(buf) != b"*" {
        return parse_absolute_form(buf, span);
    }
    if method != MethodKind::Options {
        return Err(RefusalKind::MisplacedAsterisk);
    }
    let path = span;
    let query = Span { start: span.end, end: span.end };
    Ok(Target { form: TargetForm::Asterisk, path, query, ..Target::default() })
}

/// `[path]["?" query]`, each byte checked.
#[inline]
fn split_query(buf: &[u8], span: Span) -> Result<(Span, Span), RefusalKind> {
    let bytes = span.of(buf);
    let path_len = span_of(bytes, TARGET);
    let path_end = span.start + path_len as u32;
    let path = Span { start: span.start, end: path_end };
    match bytes.get(path_len) {
        None => Ok((path, Span { start: path_end, end: path_end })),
        Some(b'?') => {
            let query = Span { start: path_end + 1, end: span.end };
            check_query(query.of(buf))?;
            Ok((path, query))
        }
        Some(&byte) => Err(refusal_of(byte)),
    }
}

#[inline]
fn check_query(query: &[u8]) -> Result<(), RefusalKind> {
    match query.iter().find(|&&byte| !is(byte, TARGET) && byte != b'?') {
        None => Ok(()),
        Some(&byte) => Err(refusal_of(byte)),
    }
}

#[cold]
fn refusal_of(byte: u8) -> RefusalKind {
    match byte {
        b'#' => RefusalKind::FragmentInTarget,
        b' ' | b'\t' => RefusalKind::MalformedRequestLine,
        _ => RefusalKind::InvalidTargetByte,
    }
}

/// `scheme://host[:port][path]["?" query]`, with the two schemes this server can be the origin of.
fn parse_absolute_form(buf: &[u8], span: Span) -> Result<Target, RefusalKind> {
    let bytes = span.of(buf);
    // The bytes first: a space or a fragment is named as such wherever in the target it stands.
    check_query(bytes)?;
    let scheme_len = memchr::memchr(b':', bytes).ok_or(RefusalKind::UnknownTargetForm)?;
    let (scheme, rest) = bytes.split_at(scheme_len);
    let known = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    if !known || !rest.starts_with(b"://") {
        return Err(RefusalKind::UnknownTargetForm);
    }
    let authority_len =
        rest[3..].iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len() - 3);
    let scheme = Span { start: span.start, end: span.start + scheme_len as u32 };
    let authority = Span { start: scheme.end + 3, end: scheme.end + 3 + authority_len as u32 };
    // RFC 9110 4.2.1: an empty host is invalid; 4.2.4: so is user information from strangers, and
    // the grammar of host[:port] has no place for it.
    let (host, _) = split_authority(authority.of(buf)).ok_or(RefusalKind::InvalidTargetAuthority)?;
    if host.is_empty() {
        return Err(RefusalKind::InvalidTargetAuthority);
    }
    let (path, query) = split_query(buf, Span { start: authority.end, end: span.end })?;
    Ok(Target { form: TargetForm::Absolute, scheme: Some(scheme), authority: Some(authority), path, query })
}

/// `host:port`. RFC 9110 9.3.6 wants an empty or invalid port refused.
fn parse_authority_form(buf: &[u8], span: Span) -> Result<Target, RefusalKind> {
    check_query(span.of(buf))?;
    match split_authority(span.of(buf)) {
        Some((host, Some(port))) if !host.is_empty() && !port.is_empty() => Ok(Target {
            form: TargetForm::Authority,
            authority: Some(span),
            path: Span { start: span.end, end: span.end },
            query: Span { start: span.end, end: span.end },
            ..Target::default()
        }),
        _ => Err(RefusalKind::InvalidConnectTarget),
    }
}

/// Host and port of `uri-host [":" port]` (RFC 9110 7.2), None if it is not that. Host and port may
/// be empty, as RFC 3986 3.2.2 and 3.2.3 allow; a port that no socket can have is refused.
#[inline]
pub(crate) fn split_authority(bytes: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let plain = span_of(bytes, REG_NAME);
    let host_len = match bytes.get(plain) {
        None => return Some((bytes, None)),
        Some(b':') => plain,
        Some(_) => measure_unusual_host(bytes)?,
    };
    let (host, rest) = bytes.split_at(host_len);
    match rest.split_first() {
        None => Some((host, None)),
        Some((b':', port)) if is_port(port) => Some((host, Some(port))),
        _ => None,
    }
}

/// Length of a host in brackets, or of one with percent-encoded bytes.
#[cold]
fn measure_unusual_host(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&b'[') {
        let close = memchr::memchr(b']', bytes)?;
        return is_ip_literal(&bytes[1..close]).then_some(close + 1);
    }
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b':' => break,
            b'%' if bytes.get(at + 1..at + 3)?.iter().all(|&digit| is(digit, HEX)) => 3,
            _ if is(byte, REG_NAME) => 1,
            _ => return None,
        };
    }
    Some(at)
}

/// `IPv6address / IPvFuture` of RFC 3986 3.2.2; no zone identifier, which means something to its
/// sender only.
fn is_ip_literal(literal: &[u8]) -> bool {
    if let Some((b'v' | b'V', future)) = literal.split_first() {
        let version = span_of(future, HEX);
        let Some((b'.', address)) = future[version..].split_first() else {
            return false;
        };
        return version > 0
            && !address.is_empty()
            && address.iter().all(|&byte| is(byte, REG_NAME) || byte == b':');
    }
    std::str::from_utf8(literal).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// `*DIGIT` (RFC 3986 3.2.3): zeros in front change nothing about the number.
fn is_port(digits: &[u8]) -> bool {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    let digits = &digits[zeros..];
    digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && digits.iter().fold(0_u32, |port, digit| port * 10 + u32::from(digit - b'0')) <= 65_535
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(target: &[u8], method: MethodKind) -> Result<Target, RefusalKind> {
        parse_target(target, Span::new(0, target.len()), method)
    }

    fn parts(target: &[u8]) -> (TargetForm, &[u8], &[u8]) {
        let parsed = parse(target, MethodKind::Other).expect("a valid target");
        (parsed.form, parsed.path.of(target), parsed.query.of(target))
    }

    #[test]
    fn the_origin_form_is_split_at_the_first_question_mark() {
        assert_eq!(parts(b"/"), (TargetForm::Origin, &b"/"[..], &b""[..]));
        assert_eq!(parts(b"/a?"), (TargetForm::Origin, &b"/a"[..], &b""[..]));
        assert_eq!(parts(b"/a/b?c=d?e/f"), (TargetForm::Origin, &b"/a/b"[..], &b"c=d?e/f"[..]));
        assert_eq!(parts(b"//a//"), (TargetForm::Origin, &b"//a//"[..], &b""[..]));
        assert_eq!(parts(b"/a|{}\"<>^`\\%zz"), (TargetForm::Origin, &b"/a|{}\"<>^`\\%zz"[..], &b""[..]));
    }

    #[test]
    fn the_absolute_form_gives_scheme_and_authority() {
        let target = b"HTTP://Example.com:80/a?b";
        let parsed = parse(target, MethodKind::Other).unwrap();
        assert_eq!(parsed.form, TargetForm::Absolute);
        assert_eq!(parsed.scheme.unwrap().of(target), b"HTTP");
        assert_eq!(parsed.authority.unwrap().of(target), b"Example.com:80");
        assert_eq!((parsed.path.of(target), parsed.query.of(target)), (&b"/a"[..], &b"b"[..]));
        assert_eq!(parts(b"https://h"), (TargetForm::Absolute, &b""[..], &b""[..]));
        assert_eq!(parts(b"http://h?q"), (TargetForm::Absolute, &b""[..], &b"q"[..]));
    }

    #[test]
    fn each_bad_target_has_its_own_refusal() {
        for (target, refusal) in [
            (&b""[..], RefusalKind::MalformedRequestLine),
            (b"/a b", RefusalKind::MalformedRequestLine),
            (b"/a#b", RefusalKind::FragmentInTarget),
            (b"/a?b#c", RefusalKind::FragmentInTarget),
            (b"/\xe9", RefusalKind::InvalidTargetByte),
            (b"/?\xe9", RefusalKind::InvalidTargetByte),
            (b"*", RefusalKind::MisplacedAsterisk),
            (b"a/b", RefusalKind::UnknownTargetForm),
            (b"example.com:80", RefusalKind::UnknownTargetForm),
            (b"ftp://a/", RefusalKind::UnknownTargetForm),
            (b"http:/a", RefusalKind::UnknownTargetForm),
            (b"?q", RefusalKind::UnknownTargetForm),
            (b"http:///a", RefusalKind::InvalidTargetAuthority),
            (b"http://u@h/", RefusalKind::InvalidTargetAuthority),
            (b"http://h:x/", RefusalKind::InvalidTargetAuthority),
        ] {
            assert_eq!(parse(target, MethodKind::Other), Err(refusal), "{target:?}");
        }
    }

    #[test]
    fn connect_takes_host_and_port_and_nothing_else() {
        let parsed = parse(b"example.com:443", MethodKind::Connect).unwrap();
        assert_eq!((parsed.form, parsed.authority), (TargetForm::Authority, Some(Span::new(0, 15))));
        assert!(parse(b"[::1]:443", MethodKind::Connect).is_ok());
        for target in [&b"/"[..], b"*", b"example.com", b"example.com:", b":443", b"h:65536", b"http://h:1/"]
        {
            assert_eq!(
                parse(target, MethodKind::Connect),
                Err(RefusalKind::InvalidConnectTarget),
                "{target:?}"
            );
        }
    }

    #[test]
    fn the_asterisk_belongs_to_options() {
        assert_eq!(parse(b"*", MethodKind::Options).unwrap().form, TargetForm::Asterisk);
        assert_eq!(parse(b"**", MethodKind::Options), Err(RefusalKind::UnknownTargetForm));
    }

    #[test]
    fn an_authority_is_host_and_port_by_rfc_3986() {
        for good in [
            &b""[..],
            b":",
            b":80",
            b"a",
            b"a.b-c_d~",
            b"a:",
            b"a:0",
            b"a:65535",
            b"a:000080",
            b"a:00000000000000000000065535",
            b"[::1]:0080",
            b"127.0.0.1:8000",
            b"[::1]",
            b"[::1]:80",
            b"[::ffff:1.2.3.4]",
            b"[v1.a:b]",
            b"%41b",
            b"%41:80",
            b"a,b",
        ] {
            assert!(split_authority(good).is_some(), "{good:?}");
        }
        for bad in [
            &b"a b"[..],
            b"a/b",
            b"a@b",
            b"a:b",
            b"a:-1",
            b"a:+1",
            b"a:65536",
            b"a:00065536",
            b"a:100000",
            b"a:99999999999999999999",
            b"a:0x50",
            b"a:00:80",
            b"a:80:80",
            b"[::1",
            b"::1",
            b"[1.2.3.4]",
            b"[]",
            b"[::1%25eth0]",
            b"[::1]80",
            b"[::1]a",
            b"%4",
            b"%zz",
            b"%",
            b"a%",
            b"a?b",
            b"\"a\"",
            b"a\\b",
            b"\xc3\xa4",
            b"[v.a]",
            b"[v1.]",
            b"[v1a]",
            b"a[::1]",
        ] {
            assert!(split_authority(bad).is_none(), "{bad:?}");
        }
    }
}
