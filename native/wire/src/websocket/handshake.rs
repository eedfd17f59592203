//! The opening handshake (RFC 6455 4.2): whether a request is one, and what its answer depends on.

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1::{Digest, Sha1};

use crate::field::Field;
use crate::grammar::{is_token, trim_ows};
use crate::head::{Framing, Head};
use crate::websocket::extension::{Deflate, DeflatePolicy, negotiate};

/// Joined to the key before it is hashed (RFC 6455 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a key that was decoded (RFC 6455 4.1).
const KEY_BYTES: usize = 16;
/// Bytes of a SHA-1 in base64.
const ACCEPT_BYTES: usize = 28;

/// A key is 16 bytes in base64. Its last digit has four bits too many; a client that draws its digits
/// at random fills them, and nothing depends on them.
const KEY_DECODER: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// A valid request for a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The value of Sec-WebSocket-Accept.
    pub accept: [u8; ACCEPT_BYTES],
    /// The subprotocols that the client offers, in the order of its preference.
    pub subprotocols: Vec<String>,
    /// The compression that the answer agrees to.
    pub deflate: Option<Deflate>,
}

/// Why a request for a WebSocket is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeRefusal {
    /// A body that nobody would read as one.
    Body,
    /// No Sec-WebSocket-Key, more than one, or not 16 bytes in base64.
    Key,
    /// No Sec-WebSocket-Version, or more than one.
    Version,
    /// A Sec-WebSocket-Version other than 13. The answer has to name the one that is spoken (4.4).
    UnsupportedVersion,
    /// Sec-WebSocket-Protocol is not a list of tokens.
    Protocol,
    /// Sec-WebSocket-Extensions is not a list of extensions.
    Extensions,
}

impl HandshakeRefusal {
    /// The status that the peer should see; 426 goes with `Sec-WebSocket-Version: 13`.
    pub const fn status(self) -> u16 {
        match self {
            Self::UnsupportedVersion => 426,
            _ => 400,
        }
    }

    /// What was wrong, in words for the log.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Body => "a WebSocket handshake has a body (RFC 6455 4.1)",
            Self::Key => "Sec-WebSocket-Key is not 16 bytes in base64, once (RFC 6455 4.2.1)",
            Self::Version => "Sec-WebSocket-Version does not stand there once (RFC 6455 4.2.1)",
            Self::UnsupportedVersion => "Sec-WebSocket-Version is not 13 (RFC 6455 4.4)",
            Self::Protocol => "Sec-WebSocket-Protocol is not a list of tokens (RFC 6455 4.1)",
            Self::Extensions => "Sec-WebSocket-Extensions is not a list of extensions (RFC 6455 9.1)",
        }
    }
}

/// Does the request ask for a WebSocket? If not, it is a request like any other: a server may ignore
/// an Upgrade (RFC 9110 7.8).
pub fn is_websocket(head: &Head, buf: &[u8]) -> bool {
    head.upgrade
        && head.version.is_http11()
        && head.method.of(buf) == b"GET"
        && named(head, buf, b"upgrade").any(|field| {
            field
                .text(buf)
                .split(|&byte| byte == b',')
                .any(|name| trim_ows(name).eq_ignore_ascii_case(b"websocket"))
        })
}

impl Handshake {
    /// Reads a head for which [`is_websocket`] holds. Without a policy no compression is agreed to.
    pub fn read(head: &Head, buf: &[u8], policy: Option<DeflatePolicy>) -> Result<Self, HandshakeRefusal> {
        if head.framing != Framing::None && head.framing != Framing::Length(0) {
            return Err(HandshakeRefusal::Body);
        }
        match only(head, buf, b"sec-websocket-version") {
            None => return Err(HandshakeRefusal::Version),
            Some(field) if *field.text(buf) != *b"13" => return Err(HandshakeRefusal::UnsupportedVersion),
            Some(_) => {}
        }
        let key = only(head, buf, b"sec-websocket-key").ok_or(HandshakeRefusal::Key)?;
        let accept = accept_of(&key.text(buf)).ok_or(HandshakeRefusal::Key)?;
        let subprotocols = read_subprotocols(head, buf)?;
        let mut deflate = None;
        for field in named(head, buf, b"sec-websocket-extensions") {
            let agreed = negotiate(&field.text(buf), policy).map_err(|_| HandshakeRefusal::Extensions)?;
            deflate = deflate.or(agreed);
        }
        Ok(Self { accept, subprotocols, deflate })
    }
}

fn named<'head>(head: &'head Head, buf: &[u8], name: &'static [u8]) -> impl Iterator<Item = &'head Field> {
    head.fields.iter().filter(move |field| field.name.of(buf).eq_ignore_ascii_case(name))
}

/// The field of that name, unless there are more of them.
fn only<'head>(head: &'head Head, buf: &[u8], name: &'static [u8]) -> Option<&'head Field> {
    let mut fields = named(head, buf, name);
    let first = fields.next();
    if fields.next().is_some() { None } else { first }
}

fn accept_of(key: &[u8]) -> Option<[u8; ACCEPT_BYTES]> {
    let decoded = KEY_DECODER.decode(key).ok()?;
    if decoded.len() != KEY_BYTES {
        return None;
    }
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT_BYTES];
    let len = STANDARD.encode_slice(hash, &mut accept).ok()?;
    debug_assert_eq!(len, ACCEPT_BYTES);
    Some(accept)
}

fn read_subprotocols(head: &Head, buf: &[u8]) -> Result<Vec<String>, HandshakeRefusal> {
    let mut subprotocols = Vec::new();
    for field in named(head, buf, b"sec-websocket-protocol") {
        for name in field.text(buf).split(|&byte| byte == b',').map(trim_ows) {
            if name.is_empty() {
                continue; // An empty element of a list means nothing (RFC 9110 5.6.1.2).
            }
            if !is_token(name) {
                return Err(HandshakeRefusal::Protocol);
            }
            subprotocols.push(name.iter().copied().map(char::from).collect());
        }
    }
    Ok(subprotocols)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeadParser, Progress, Rules};

    const VALID: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    fn parse(start: &str, fields: &str) -> (Head, Vec<u8>) {
        let bytes = format!("{start} / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
        let mut head = Head::default();
        assert_eq!(HeadParser::new().parse(&bytes, &Rules::default(), &mut head), Ok(Progress::Complete));
        (head, bytes)
    }

    fn read(fields: &str) -> Result<Handshake, HandshakeRefusal> {
        let (head, buf) = parse("GET", &format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{fields}"));
        assert!(is_websocket(&head, &buf));
        Handshake::read(&head, &buf, Some(DeflatePolicy::Message))
    }

    #[test]
    fn the_handshake_of_the_rfc_gets_its_answer() {
        // RFC 6455 1.3.
        let handshake = read(&format!(
            "{VALID}Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Protocol: third\r\n"
        ))
        .unwrap();
        assert_eq!(&handshake.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(handshake.subprotocols, ["chat", "superchat", "third"]);
        assert_eq!(handshake.deflate, None);
    }

    #[test]
    fn only_an_upgrade_to_websocket_is_one() {
        let connection = "Connection: keep-alive, Upgrade\r\n";
        for (method, fields, expected) in [
            ("GET", "Upgrade: WebSocket\r\n", true),
            ("GET", "Upgrade: h2c, websocket\r\n", true),
            ("GET", "Upgrade: h2c\r\nUpgrade: websocket\r\n", true),
            ("GET", "Upgrade: h2c\r\n", false),
            ("GET", "Upgrade: websockets\r\n", false),
            ("POST", "Upgrade: websocket\r\n", false),
        ] {
            let (head, buf) = parse(method, &format!("{connection}{fields}"));
            assert_eq!(is_websocket(&head, &buf), expected, "{method} {fields}");
        }
        let (head, buf) = parse("GET", "Upgrade: websocket\r\n");
        assert!(!is_websocket(&head, &buf), "Connection does not name it");
    }

    #[test]
    fn a_wrong_version_is_told_the_right_one() {
        for version in ["12", "8", "0", "14", "013", "x", "13, 8"] {
            let refusal = read(&VALID.replace("13", version)).unwrap_err();
            assert_eq!((refusal, refusal.status()), (HandshakeRefusal::UnsupportedVersion, 426));
        }
    }

    #[test]
    fn what_is_missing_malformed_or_doubled_is_refused() {
        use HandshakeRefusal::{Body, Extensions, Key, Protocol, Version};
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let version = "Sec-WebSocket-Version: 13\r\n";
        for (fields, expected) in [
            (key.to_owned(), Version),
            (format!("{VALID}{version}"), Version),
            (version.to_owned(), Key),
            (format!("{VALID}{key}"), Key),
            (format!("{version}Sec-WebSocket-Key:\r\n"), Key),
            (format!("{version}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n"), Key),
            (format!("{version}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n"), Key),
            (format!("{version}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSA=\r\n"), Key),
            (format!("{version}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25!ZQ==\r\n"), Key),
            (format!("{VALID}Sec-WebSocket-Protocol: a b\r\n"), Protocol),
            (format!("{VALID}Sec-WebSocket-Protocol: a, (\r\n"), Protocol),
            (format!("{VALID}Sec-WebSocket-Extensions: a; b=\r\n"), Extensions),
            (format!("{VALID}Content-Length: 1\r\n"), Body),
            (format!("{VALID}Transfer-Encoding: chunked\r\n"), Body),
        ] {
            let refusal = read(&fields).unwrap_err();
            assert_eq!((refusal, refusal.status()), (expected, 400), "{fields}");
            assert!(refusal.text().contains("RFC 6455"));
        }
        assert!(read(&format!("{VALID}Content-Length: 0\r\n")).is_ok());
        assert!(read(&format!("{version}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZZ==\r\n")).is_ok());
    }

    #[test]
    fn offers_may_be_spread_over_several_fields() {
        let handshake = read(&format!(
            "{VALID}Sec-WebSocket-Extensions: foo\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        ));
        assert!(handshake.unwrap().deflate.is_some());
    }
}
