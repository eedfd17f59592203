//! What goes back: how a response is framed, its small constant parts, and whole refusals.

use crate::head::Version;

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the line before a chunk of `len` bytes. `len` must not be 0, which would end the body;
/// the chunk is followed by CRLF.
pub fn push_chunk_head(out: &mut Vec<u8>, len: usize) {
    debug_assert!(len > 0, "an empty chunk ends the body");
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(DIGITS[len >> (digit * 4) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

/// How the end of a response's body is shown to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// No byte of a body is sent, whatever the fields say: HEAD, 1xx, 204, 304, 2xx to CONNECT.
    Empty,
    /// As many bytes as the response's Content-Length says.
    Length(u64),
    /// In chunks.
    Chunked,
    /// The connection closes after it: an HTTP/1.0 client knows no chunks.
    UntilClose,
}

/// RFC 9112 6.3, seen from the sender.
pub fn response_framing(
    method: &[u8],
    version: Version,
    status: u16,
    content_length: Option<u64>,
) -> ResponseFraming {
    if method == b"HEAD" || is_tunnel(method, status) || matches!(status, 100..=199 | 204 | 304) {
        return ResponseFraming::Empty;
    }
    match content_length {
        Some(length) => ResponseFraming::Length(length),
        None if version.is_http11() => ResponseFraming::Chunked,
        None => ResponseFraming::UntilClose,
    }
}

/// May a response without a body say how long its body would be (RFC 9110, 8.6)? HEAD and 304 may tell what
/// GET would get. 1xx, 204 and the 2xx that makes a tunnel of CONNECT must not.
pub fn may_say_length(method: &[u8], status: u16) -> bool {
    !is_tunnel(method, status) && !matches!(status, 100..=199 | 204)
}

fn is_tunnel(method: &[u8], status: u16) -> bool {
    method == b"CONNECT" && (200..300).contains(&status)
}

/// When a client may try again that was sent away because the server has too much to do.
const RETRY_AFTER_S: &[u8] = b"1";

/// Appends a whole response for a refusal: a few lines of HTML and a close. `server` and `date` are
/// left out when empty; `include_body` is false when the request was a HEAD. A 503 says when to try again.
pub fn push_refusal(out: &mut Vec<u8>, refusal_status: u16, server: &[u8], date: &[u8], include_body: bool) {
    let mut digits = itoa::Buffer::new();
    let status = digits.format(refusal_status).as_bytes();
    let reason = reason_phrase(refusal_status).as_bytes();
    let title = [status, b" ", reason].concat();
    let body = [
        &b"<!doctype html>\n<html>\n  <head><title>"[..],
        &title,
        b"</title></head>\n  <body><h1>",
        &title,
        b"</h1></body>\n</html>\n",
    ]
    .concat();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&title);
    for (name, value) in [(&b"Server"[..], server), (b"Date", date)] {
        if !value.is_empty() {
            push_field(out, name, value);
        }
    }
    push_field(out, b"Connection", b"close");
    if refusal_status == 503 {
        push_field(out, b"Retry-After", RETRY_AFTER_S); // RFC 9110, 10.2.3
    }
    push_field(out, b"Content-Type", b"text/html; charset=utf-8");
    push_field(out, b"Content-Length", digits.format(body.len()).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    if include_body {
        out.extend_from_slice(&body);
    }
}

/// A field with the CRLF that ends the line before it.
fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for piece in [b"\r\n", name, b": ", value] {
        out.extend_from_slice(piece);
    }
}

/// Does the field speak about this connection only (RFC 9110 7.6.1)? PEP 3333 forbids applications
/// to send such fields: the connection is the server's. The list is the one of `wsgiref.util`, with
/// Proxy-Connection, which RFC 9110 adds.
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 9] = [
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    ];
    // Most fields are told apart by their first byte.
    matches!(name.first().map(u8::to_ascii_lowercase), Some(b'c' | b'k' | b'p' | b't' | b'u'))
        && NAMES.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

/// The registered reason phrase of a status (RFC 9110 15 and the IANA registry), empty if there is
/// none: the phrase may be empty, and nobody reads it.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a Teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_head_is_the_size_in_hex() {
        for (len, expected) in
            [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (65_536, "10000\r\n"), (0xabcde, "abcde\r\n")]
        {
            let mut out = Vec::new();
            push_chunk_head(&mut out, len);
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn framing_depends_on_method_status_version_and_length() {
        use ResponseFraming::{Chunked, Empty, Length, UntilClose};
        for (method, version, status, length, expected) in [
            (&b"GET"[..], Version::Http11, 200, Some(5), Length(5)),
            (b"GET", Version::Http11, 200, None, Chunked),
            (b"GET", Version::Http10, 200, None, UntilClose),
            (b"GET", Version::Other { major: 1, minor: 2 }, 200, None, Chunked),
            (b"GET", Version::Other { major: 0, minor: 9 }, 200, None, UntilClose),
            (b"HEAD", Version::Http11, 200, Some(5), Empty),
            (b"GET", Version::Http11, 101, None, Empty),
            (b"GET", Version::Http11, 204, Some(5), Empty),
            (b"GET", Version::Http11, 304, Some(5), Empty),
            (b"GET", Version::Http11, 205, Some(0), Length(0)),
            (b"CONNECT", Version::Http11, 200, None, Empty),
            (b"CONNECT", Version::Http11, 403, Some(1), Length(1)),
        ] {
            assert_eq!(response_framing(method, version, status, length), expected, "{method:?} {status}");
        }
    }

    #[test]
    fn a_length_without_a_body_is_said_only_where_it_means_the_body_of_get() {
        for (method, status, expected) in [
            (&b"HEAD"[..], 200, true),
            (b"GET", 304, true),
            (b"CONNECT", 404, true),
            (b"HEAD", 204, false),
            (b"GET", 101, false),
            (b"CONNECT", 200, false),
        ] {
            assert_eq!(may_say_length(method, status), expected, "{method:?} {status}");
        }
    }

    #[test]
    fn a_refusal_is_a_whole_response_that_closes() {
        let mut out = Vec::new();
        push_refusal(&mut out, 400, b"bicorn", b"Thu, 01 Jan 1970 00:00:00 GMT", true);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\nServer: bicorn\r\nDate: Thu, 01"), "{head}");
        assert!(head.contains("\r\nConnection: close\r\n"));
        assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())));
        assert!(body.contains("<h1>400 Bad Request</h1>"));
    }

    #[test]
    fn a_refused_head_request_gets_the_length_but_no_body() {
        let mut out = b"before".to_vec();
        push_refusal(&mut out, 431, b"", b"", false);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("beforeHTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n")
        );
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn every_status_of_a_refusal_has_a_phrase() {
        for kind in crate::RefusalKind::ALL {
            assert_ne!(reason_phrase(kind.status()), "", "{kind:?}");
        }
        assert_ne!(reason_phrase(408), "");
        assert_eq!(reason_phrase(299), "");
    }

    #[test]
    fn hop_by_hop_fields_are_known_in_any_case() {
        for name in [
            &b"Connection"[..],
            b"KEEP-ALIVE",
            b"te",
            b"Trailers",
            b"Transfer-Encoding",
            b"Upgrade",
            b"Proxy-Authenticate",
        ] {
            assert!(is_hop_by_hop(name), "{name:?}");
        }
        for name in [&b""[..], b"Content-Type", b"Trailer", b"Server", b"Date", b"Close"] {
            assert!(!is_hop_by_hop(name), "{name:?}");
        }
    }
}
