//! The fields that the server itself reads, and what they say together once the head is whole.

use crate::field::{Field, parse_content_length};
use crate::grammar::{is_token, trim_ows};
use crate::head::{Framing, Head};
use crate::refusal::RefusalKind;
use crate::span::Span;
use crate::target::{TargetForm, split_authority};

/// Fields of one name that the server itself reads: where the first stands, and how many there are.
#[derive(Clone, Copy, Debug, Default)]
struct Occurrences {
    first: u32,
    count: u32,
}

impl Occurrences {
    #[inline]
    fn note(&mut self, index: usize) {
        if self.count == 0 {
            self.first = index as u32;
        }
        self.count += 1;
    }

    /// For a field that must stand once.
    #[inline]
    fn note_only(&mut self, index: usize, refusal: RefusalKind) -> Result<(), RefusalKind> {
        if self.count > 0 {
            return Err(refusal);
        }
        self.note(index);
        Ok(())
    }

    #[inline]
    fn first<'head>(&self, head: &'head Head) -> Option<&'head Field> {
        if self.count == 0 { None } else { head.fields.get(self.first as usize) }
    }

    /// All of them. Looking stops at the last one, so a single early field costs one step.
    fn each<'head>(&self, head: &'head Head, buf: &[u8], name: &[u8]) -> impl Iterator<Item = &'head Field> {
        head.fields
            .get(self.first as usize..)
            .unwrap_or_default()
            .iter()
            .filter(|field| field.name.of(buf).eq_ignore_ascii_case(name))
            .take(self.count as usize)
    }
}

/// The fields that decide framing, routing and persistence. Their names are noticed as the lines
/// arrive; their values are read when the head is whole, because a value may still be folded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Notable {
    host: Occurrences,
    connection: Occurrences,
    upgrade: Occurrences,
    expect: Occurrences,
    content_type: Occurrences,
    content_length: Occurrences,
    transfer_encoding: Occurrences,
}

impl Notable {
    #[inline]
    pub(crate) fn notice(&mut self, name: &[u8], index: usize) -> Result<(), RefusalKind> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.host.note_only(index, RefusalKind::DuplicateHost)?;
            }
            6 if name.eq_ignore_ascii_case(b"expect") => self.expect.note(index),
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade.note(index),
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection.note(index),
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                self.content_type.note_only(index, RefusalKind::DuplicateContentType)?;
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.content_length.note_only(index, RefusalKind::DuplicateContentLength)?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.transfer_encoding.note_only(index, RefusalKind::DuplicateTransferEncoding)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The head is whole: what do its fields say together?
    #[inline]
    pub(crate) fn conclude(&self, buf: &[u8], head: &mut Head) -> Result<(), RefusalKind> {
        head.host = read_host(self, buf, head)?;
        head.framing = read_framing(self, buf, head)?;
        head.keep_alive = head.version.is_http11();
        if self.connection.count > 0 {
            read_connection(self, buf, head);
        }
        // After CONNECT the connection may carry anything but a next request (RFC 9110 9.3.6).
        if head.form == TargetForm::Authority {
            head.keep_alive = false;
        }
        if self.expect.count > 0 {
            read_expectation(self, buf, head)?;
        }
        Ok(())
    }
}

/// Host: once in HTTP/1.1, at most once in HTTP/1.0, and valid wherever it stands (RFC 9112 3.2).
///
/// The grammar of RFC 9110 7.2 lets a host be empty, and 9112 3.2 wants the field empty when the
/// target's URI has no authority. But the URI that an origin form stands for is an http URI, whose
/// host must not be empty (RFC 9110 4.2.1: a recipient MUST reject it). So an empty Host is valid
/// only where no URI is made from it: beside a target that brings its own authority, and with `*`.
#[inline]
fn read_host(notable: &Notable, buf: &[u8], head: &Head) -> Result<Option<Span>, RefusalKind> {
    let Some(field) = notable.host.first(head) else {
        return if head.version.is_http11() { Err(RefusalKind::MissingHost) } else { Ok(None) };
    };
    // A folded value holds a CR, which no host may, so it needs no unfolding to be refused.
    match split_authority(field.value.of(buf)) {
        None => Err(RefusalKind::InvalidHost),
        Some((host, _)) if !host.is_empty() => Ok(Some(field.value)),
        Some((_, Some(_))) => Err(RefusalKind::InvalidHost),
        Some((_, None)) if head.form == TargetForm::Origin => Err(RefusalKind::EmptyHost),
        Some((_, None)) => Ok(Some(field.value)),
    }
}

/// Content-Length and Transfer-Encoding, RFC 9112 6.3, with every ambiguity refused.
#[inline]
fn read_framing(notable: &Notable, buf: &[u8], head: &Head) -> Result<Framing, RefusalKind> {
    let length = notable.content_length.first(head);
    if let Some(field) = notable.transfer_encoding.first(head) {
        if !head.version.is_http11() {
            return Err(RefusalKind::TransferEncodingInOldVersion);
        }
        if length.is_some() {
            return Err(RefusalKind::TransferEncodingWithContentLength);
        }
        return read_transfer_codings(&field.text(buf));
    }
    let Some(field) = length else {
        return Ok(Framing::None);
    };
    let length = parse_content_length(&field.text(buf)).ok_or(RefusalKind::InvalidContentLength)?;
    Ok(Framing::Length(length))
}

/// `chunked` once and last is served. Any other coding that is well-formed is not implemented here;
/// one after `chunked`, a parameter of `chunked` or an empty member is malformed.
#[cold]
fn read_transfer_codings(value: &[u8]) -> Result<Framing, RefusalKind> {
    let mut is_chunked = false;
    let mut is_supported = true;
    for coding in value.split(|&byte| byte == b',').map(trim_ows) {
        if is_chunked {
            return Err(RefusalKind::InvalidTransferEncoding);
        }
        if coding.eq_ignore_ascii_case(b"chunked") {
            is_chunked = true;
            continue;
        }
        let name = coding.split(|&byte| byte == b';').next().map(trim_ows).unwrap_or_default();
        if !is_token(name) || name.eq_ignore_ascii_case(b"chunked") {
            return Err(RefusalKind::InvalidTransferEncoding);
        }
        is_supported = false;
    }
    if is_supported { Ok(Framing::Chunked) } else { Err(RefusalKind::UnsupportedTransferCoding) }
}

/// Connection's options (RFC 9110 7.6.1, RFC 9112 9.3): `close` wins over `keep-alive`.
fn read_connection(notable: &Notable, buf: &[u8], head: &mut Head) {
    let (mut close, mut keep_alive, mut upgrade) = (false, false, false);
    for field in notable.connection.each(head, buf, b"connection") {
        for option in field.text(buf).split(|&byte| byte == b',').map(trim_ows) {
            match option.len() {
                5 => close |= option.eq_ignore_ascii_case(b"close"),
                7 => upgrade |= option.eq_ignore_ascii_case(b"upgrade"),
                10 => keep_alive |= option.eq_ignore_ascii_case(b"keep-alive"),
                _ => {}
            }
        }
    }
    head.keep_alive = !close && (head.keep_alive || keep_alive);
    // RFC 9110 7.8: an Upgrade in an HTTP/1.0 request is ignored.
    head.upgrade = upgrade && notable.upgrade.count > 0 && head.version.is_http11();
}

/// Expect (RFC 9110 10.1.1). The only expectation there is means something in HTTP/1.1, and only
/// while a body is still to come.
#[cold]
fn read_expectation(notable: &Notable, buf: &[u8], head: &mut Head) -> Result<(), RefusalKind> {
    for field in notable.expect.each(head, buf, b"expect") {
        if !field.text(buf).eq_ignore_ascii_case(b"100-continue") {
            return Err(RefusalKind::UnknownExpectation);
        }
    }
    let has_body = !matches!(head.framing, Framing::None | Framing::Length(0));
    head.expects_continue = has_body && head.version.is_http11();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Rules;
    use crate::parser::tests::{accept, lenient, parse_with, refuse};

    #[test]
    fn a_folded_value_is_read_whole() {
        let rules = lenient(|leniency| leniency.obsolete_folding = true);
        for (fields, kind) in [
            ("Host: h\r\nContent-Length: 1\r\n 2", RefusalKind::InvalidContentLength),
            ("Host: h\r\nTransfer-Encoding: chunked\r\n , gzip", RefusalKind::InvalidTransferEncoding),
            ("Host: h\r\n i", RefusalKind::InvalidHost),
            ("Host: h\r\nExpect: 100-continue\r\n or", RefusalKind::UnknownExpectation),
        ] {
            let bytes = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(parse_with(bytes.as_bytes(), &rules).unwrap_err().kind, kind, "{fields}");
        }
        let bytes = b"GET / HTTP/1.1\r\nHost: h\r\nConnection:\r\n close\r\n\r\n";
        assert!(!parse_with(bytes, &rules).unwrap().0.keep_alive);
    }

    #[test]
    fn keep_alive_follows_version_and_connection() {
        for (version, connection, keep_alive) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: keep-alive, close\r\n", false),
            ("1.1", "Connection: x, CLOSE\r\n", false),
            ("1.1", "Connection: x\r\nA: b\r\nConnection: close\r\n", false),
            ("1.1", "Connection: closed\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ] {
            let head = accept(format!("GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n").as_bytes());
            assert_eq!(head.keep_alive, keep_alive, "{version} {connection}");
        }
    }

    #[test]
    fn an_expectation_matters_only_while_a_body_is_to_come() {
        for (version, body, expects) in [
            ("1.1", "Content-Length: 1\r\n", true),
            ("1.1", "Transfer-Encoding: chunked\r\n", true),
            ("1.1", "Content-Length: 0\r\n", false),
            ("1.1", "", false),
            ("1.0", "Content-Length: 1\r\n", false),
        ] {
            let head = accept(
                format!("PUT / HTTP/{version}\r\nHost: h\r\n{body}Expect: 100-Continue\r\n\r\n").as_bytes(),
            );
            assert_eq!(head.expects_continue, expects, "{version} {body}");
        }
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_http11() {
        for (request, upgrade) in [
            ("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, upgrade\r\nUpgrade: x\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", false),
        ] {
            assert_eq!(accept(request.as_bytes()).upgrade, upgrade, "{request}");
        }
    }

    #[test]
    fn an_empty_host_stands_only_beside_a_target_that_needs_none() {
        assert_eq!(refuse(b"GET / HTTP/1.1\r\nHost:\r\n\r\n"), RefusalKind::EmptyHost);
        assert_eq!(refuse(b"GET / HTTP/1.0\r\nHost:\r\n\r\n"), RefusalKind::EmptyHost);
        assert_eq!(refuse(b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n"), RefusalKind::InvalidHost);
        let bytes = b"GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n";
        assert_eq!(accept(bytes).effective_host().unwrap().of(bytes), b"a");
        accept(b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n");
        accept(b"CONNECT a:1 HTTP/1.1\r\nHost:\r\n\r\n");
    }

    #[test]
    fn after_connect_the_connection_is_not_kept() {
        assert!(!accept(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").keep_alive);
    }

    #[test]
    fn transfer_codings_other_than_one_last_chunked_are_refused() {
        for (value, status) in [
            ("chunked", 0),
            ("CHUNKED", 0),
            ("gzip", 501),
            ("identity", 501),
            ("gzip, chunked", 501),
            ("gzip;q=1, chunked", 501),
            ("chunked, gzip", 400),
            ("chunked, chunked", 400),
            ("chunked;q=1", 400),
            ("chunked,", 400),
            (",chunked", 400),
            ("", 400),
            ("\"chunked\"", 400),
            ("xchunked", 501),
        ] {
            let request = format!("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: {value}\r\n\r\n");
            let got = parse_with(request.as_bytes(), &Rules::default())
                .map_or_else(|refusal| refusal.status, |_| 0);
            assert_eq!(got, status, "{value}");
        }
    }
}
