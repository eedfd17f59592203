//! The PROXY protocol, which tells for whom a proxy opened a connection: its line (version 1) and its
//! binary header (version 2), as haproxy's proxy-protocol.txt of 2020 defines them.
//!
//! Owns       what the first bytes of a connection mean where a PROXY header may stand.
//! Never      decides who may send one: that takes the peer's address, which drivers know.
//! Invariant  fed at any split, the same bytes give the same step; no byte behind the header is looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::refusal::{Refusal, RefusalKind};

/// The first bytes of a line, and what nothing else in HTTP begins with but a method of that name.
const LINE_START: &[u8] = b"PROXY ";

/// Line and CRLF together: the longest that the specification knows (2.1).
const LINE_BYTES_MAX: usize = 107;

/// The first bytes of a binary header (2.2). As HTTP they are two empty lines and a control byte.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and protocol, length of what follows.
const FIXED_BYTES: usize = 16;

/// The type of a checksum among the TLVs (2.2.3).
const TYPE_CRC32C: u8 = 0x03;

/// Which versions are looked for, and how long a binary header may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyRules {
    /// The line.
    pub v1: bool,
    /// The binary header.
    pub v2: bool,
    /// Bytes of a binary header with all that it carries; a longer one is refused.
    pub header_bytes: usize,
}

impl Default for ProxyRules {
    fn default() -> Self {
        // The specification wants headers that fit a TCP segment of 536 bytes; nginx takes 4096.
        Self { v1: true, v2: true, header_bytes: 4096 }
    }
}

/// Who is at the other end, by the word of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client, and the address of the proxy that it connected to; both of one family.
    Relayed {
        /// Where the connection comes from.
        client: SocketAddr,
        /// Where it went.
        proxy: SocketAddr,
    },
    /// The proxy itself: it checks our health (2.2, LOCAL).
    Local,
    /// The line says UNKNOWN: the addresses of the connection hold.
    Unknown,
    /// The header names no address of TCP (UNSPEC, UDP, unix): the addresses of the connection hold.
    Unspecified,
}

impl Origin {
    /// The name of the protocol, as Gunicorn's environ has it.
    pub fn protocol(&self) -> &'static str {
        match self {
            Self::Relayed { client: SocketAddr::V4(_), .. } => "TCP4",
            Self::Relayed { client: SocketAddr::V6(_), .. } => "TCP6",
            Self::Local => "LOCAL",
            Self::Unknown => "UNKNOWN",
            Self::Unspecified => "UNSPEC",
        }
    }
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyStep {
    /// Too few to tell, or the beginning of a header.
    Partial,
    /// No header: all of them belong to the first request.
    Absent,
    /// A header of `len` bytes; the first request begins behind it.
    Present {
        /// What it says.
        origin: Origin,
        /// Its length in bytes.
        len: usize,
    },
}

/// Looks for a header at the beginning of `buf`, which holds all bytes of the connection so far.
pub fn parse_proxy_header(buf: &[u8], rules: &ProxyRules) -> Result<ProxyStep, Refusal> {
    if rules.v2 && starts_alike(buf, SIGNATURE) {
        return if buf.len() < SIGNATURE.len() {
            Ok(ProxyStep::Partial)
        } else {
            parse_binary(buf, rules).map_err(Refusal::from)
        };
    }
    if rules.v1 && starts_alike(buf, LINE_START) {
        return if buf.len() < LINE_START.len() {
            Ok(ProxyStep::Partial)
        } else {
            parse_line(buf).map_err(Refusal::from)
        };
    }
    Ok(ProxyStep::Absent)
}

/// Whether `buf` is as much of `start` as there can be in so many bytes; of none, nobody can tell.
fn starts_alike(buf: &[u8], start: &[u8]) -> bool {
    buf.iter().zip(start).all(|(byte, expected)| byte == expected)
}

// -- version 1 ------------------------------------------------------------------------------------

fn parse_line(buf: &[u8]) -> Result<ProxyStep, RefusalKind> {
    let within = &buf[..buf.len().min(LINE_BYTES_MAX)];
    match memchr::memchr2(b'\r', b'\n', within) {
        Some(end) if within[end] == b'\n' => Err(RefusalKind::InvalidProxyLine),
        Some(end) if within.get(end + 1).is_some_and(|&byte| byte != b'\n') => {
            Err(RefusalKind::InvalidProxyLine)
        }
        Some(end) if end + 1 < within.len() => {
            let origin = parse_words(&within[LINE_START.len()..end]).ok_or(RefusalKind::InvalidProxyLine)?;
            Ok(ProxyStep::Present { origin, len: end + 2 })
        }
        _ if within.len() == LINE_BYTES_MAX => Err(RefusalKind::ProxyLineTooLong),
        _ => Ok(ProxyStep::Partial),
    }
}

/// What stands between `PROXY ` and the CRLF.
fn parse_words(line: &[u8]) -> Option<Origin> {
    let mut words = line.split(|&byte| byte == b' ');
    let family = words.next()?;
    if family == b"UNKNOWN" {
        return Some(Origin::Unknown); // Whatever follows is to be ignored.
    }
    let address: fn(&[u8]) -> Option<IpAddr> = match family {
        b"TCP4" => |word| text_of(word)?.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        b"TCP6" => |word| text_of(word)?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return None,
    };
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    Some(Origin::Relayed {
        client: SocketAddr::new(source, source_port),
        proxy: SocketAddr::new(destination, destination_port),
    })
}

fn text_of(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok()
}

/// A port in plain digits: no sign, and no zero in front that could mean octal.
fn port(word: &[u8]) -> Option<u16> {
    let is_plain = word.iter().all(u8::is_ascii_digit) && (word == b"0" || !word.starts_with(b"0"));
    if is_plain { text_of(word)?.parse().ok() } else { None }
}

// -- version 2 ------------------------------------------------------------------------------------

/// A header behind its signature.
fn parse_binary(buf: &[u8], rules: &ProxyRules) -> Result<ProxyStep, RefusalKind> {
    // Each of the bytes that are checked alone is refused as soon as it is there.
    let is_local = match buf.get(SIGNATURE.len()) {
        None => return Ok(ProxyStep::Partial),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(RefusalKind::InvalidProxyHeader),
    };
    let Some(&kind) = buf.get(SIGNATURE.len() + 1) else {
        return Ok(ProxyStep::Partial);
    };
    if !is_local && (kind >> 4 > 3 || kind & 0x0f > 2) {
        return Err(RefusalKind::InvalidProxyHeader);
    }
    let Some(&[high, low]) = buf.get(FIXED_BYTES - 2..FIXED_BYTES) else {
        return Ok(ProxyStep::Partial);
    };
    let len = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if len > rules.header_bytes {
        return Err(RefusalKind::ProxyHeaderTooLong);
    }
    let addresses = address_bytes(kind);
    if !is_local && len - FIXED_BYTES < addresses {
        return Err(RefusalKind::ProxyAddressesMissing);
    }
    let Some(header) = buf.get(..len) else {
        return Ok(ProxyStep::Partial);
    };
    if is_local {
        return Ok(ProxyStep::Present { origin: Origin::Local, len });
    }
    if addresses > 0 {
        check_tlvs(header, FIXED_BYTES + addresses)?;
    }
    Ok(ProxyStep::Present { origin: relayed(kind, &header[FIXED_BYTES..]), len })
}

/// How many bytes the two addresses take; none where family or protocol is unspecified, for then
/// nothing says where they would end.
fn address_bytes(kind: u8) -> usize {
    match (kind >> 4, kind & 0x0f) {
        (0, _) | (_, 0) => 0,
        (1, _) => 12,
        (2, _) => 36,
        _ => 216,
    }
}

fn relayed(kind: u8, block: &[u8]) -> Origin {
    match kind {
        0x11 => Origin::Relayed {
            client: SocketAddr::new(ipv4(&block[..4]), port_of(&block[8..10])),
            proxy: SocketAddr::new(ipv4(&block[4..8]), port_of(&block[10..12])),
        },
        0x21 => Origin::Relayed {
            client: SocketAddr::new(ipv6(&block[..16]), port_of(&block[32..34])),
            proxy: SocketAddr::new(ipv6(&block[16..32]), port_of(&block[34..36])),
        },
        // Valid combinations that a receiver does not support are to be taken as unspecified (2.2).
        _ => Origin::Unspecified,
    }
}

fn ipv4(bytes: &[u8]) -> IpAddr {
    let mut octets = [0; 4];
    octets.copy_from_slice(bytes);
    IpAddr::from(octets)
}

fn ipv6(bytes: &[u8]) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(bytes);
    IpAddr::from(octets)
}

fn port_of(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// Skips the TLVs, which have to end where the header does, and verifies the checksum if one is there.
fn check_tlvs(header: &[u8], start: usize) -> Result<(), RefusalKind> {
    let mut at = start;
    let mut checksum = None;
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else {
            return Err(RefusalKind::InvalidProxyTlv);
        };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        if value.end > header.len() {
            return Err(RefusalKind::InvalidProxyTlv);
        }
        at = value.end;
        if kind == TYPE_CRC32C && (value.len() != 4 || checksum.replace(value).is_some()) {
            return Err(RefusalKind::InvalidProxyTlv);
        }
    }
    match checksum {
        Some(at) if crc32c(header, &at).to_be_bytes() != header[at.clone()] => {
            Err(RefusalKind::WrongProxyChecksum)
        }
        _ => Ok(()),
    }
}

/// CRC32c (RFC 4960, appendix B) of the header with zeroes where the checksum itself stands. Few
/// proxies send one, once a connection: a table would cost more than it gives.
fn crc32c(header: &[u8], checksum: &std::ops::Range<usize>) -> u32 {
    let crc = header.iter().enumerate().fold(!0_u32, |crc, (at, &byte)| {
        let byte = if checksum.contains(&at) { 0 } else { byte };
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| {
                if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }
            },
        )
    });
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use RefusalKind::{
        InvalidProxyHeader, InvalidProxyLine, InvalidProxyTlv, ProxyAddressesMissing, ProxyHeaderTooLong,
        ProxyLineTooLong, WrongProxyChecksum,
    };

    const BOTH: ProxyRules = ProxyRules { v1: true, v2: true, header_bytes: 4096 };

    /// Parses whole, and checks that every split says the same and nothing after the header matters.
    fn parse(bytes: &[u8], rules: &ProxyRules) -> Result<ProxyStep, RefusalKind> {
        let whole = parse_proxy_header(bytes, rules).map_err(|refusal| refusal.kind);
        let first = (0..=bytes.len())
            .map(|end| parse_proxy_header(&bytes[..end], rules).map_err(|refusal| refusal.kind))
            .find(|step| *step != Ok(ProxyStep::Partial));
        assert_eq!(first.unwrap_or(Ok(ProxyStep::Partial)), whole, "{bytes:?}");
        whole
    }

    fn relayed(client: &str, proxy: &str) -> Origin {
        Origin::Relayed { client: client.parse().unwrap(), proxy: proxy.parse().unwrap() }
    }

    fn present(origin: Origin, len: usize) -> Result<ProxyStep, RefusalKind> {
        Ok(ProxyStep::Present { origin, len })
    }

    /// A binary header of these bytes behind its signature, with its length filled in.
    fn binary(version_command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
        let len = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[version_command, kind], &len, block].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];

    #[test]
    fn a_line_names_the_client_and_the_address_that_it_connected_to() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
        assert_eq!(parse(line, &BOTH), present(relayed("192.0.2.1:56324", "198.51.100.7:443"), line.len()));
        let line = b"PROXY TCP6 2001:db8::1 ::ffff:198.51.100.7 0 65535\r\nGET / HTTP/1.1\r\n";
        let origin = relayed("[2001:db8::1]:0", "[::ffff:198.51.100.7]:65535");
        assert_eq!(parse(line, &BOTH), present(origin, line.len() - 16));
        assert_eq!(origin.protocol(), "TCP6");
    }

    #[test]
    fn a_line_for_an_unknown_protocol_may_hold_anything_and_says_nothing() {
        for line in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ffff::1 \xff\0 65535 nonsense\r\n"] {
            assert_eq!(parse(line, &BOTH), present(Origin::Unknown, line.len()));
        }
    }

    #[test]
    fn the_longest_lines_of_the_specification_fit_and_no_longer_one() {
        let v6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let line = format!("PROXY UNKNOWN {v6} {v6} 65535 65535\r\n");
        assert_eq!(line.len(), LINE_BYTES_MAX);
        assert_eq!(parse(line.as_bytes(), &BOTH), present(Origin::Unknown, LINE_BYTES_MAX));
        let longer = format!("PROXY UNKNOWN {v6} {v6} 65535 655350\r\n");
        assert_eq!(parse(longer.as_bytes(), &BOTH), Err(ProxyLineTooLong));
        assert_eq!(parse(&longer.as_bytes()[..LINE_BYTES_MAX - 1], &BOTH), Ok(ProxyStep::Partial));
    }

    #[test]
    fn a_line_that_is_not_exactly_one_is_refused() {
        for line in [
            &b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\n"[..],
            b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\rG",
            b"PROXY TCP4 192.0.2.1  198.51.100.7 56324 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 \r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
            b"PROXY TCP4 192.0.2.01 198.51.100.7 56324 443\r\n",
            b"PROXY TCP4 192.0.2 198.51.100.7 56324 443\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
            b"PROXY TCP6 192.0.2.1 198.51.100.7 56324 443\r\n",
            b"PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 056324 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 +5632 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 \xff 443\r\n",
            b"PROXY UDP4 192.0.2.1 198.51.100.7 56324 443\r\n",
            b"PROXY unknown\r\n",
            b"PROXY \r\n",
            b"PROXY / HTTP/1.1\r\n",
        ] {
            assert_eq!(parse(line, &BOTH), Err(InvalidProxyLine), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_binary_header_names_the_same() {
        let header = binary(0x21, 0x11, V4);
        assert_eq!(parse(&header, &BOTH), present(relayed("192.0.2.1:56324", "198.51.100.7:443"), 28));
        let mut block = [0_u8; 36];
        (block[0], block[15], block[31], block[33], block[35]) = (0x20, 1, 2, 80, 81);
        let header = binary(0x21, 0x21, &block);
        assert_eq!(parse(&header, &BOTH), present(relayed("[2000::1]:80", "[::2]:81"), 52));
    }

    #[test]
    fn a_health_check_of_the_proxy_is_its_own_whatever_else_the_header_says() {
        for header in [binary(0x20, 0x00, b""), binary(0x20, 0x11, V4), binary(0x20, 0xff, b"anything")] {
            assert_eq!(parse(&header, &BOTH), present(Origin::Local, header.len()));
        }
    }

    #[test]
    fn what_is_not_tcp_leaves_the_addresses_of_the_connection() {
        for (kind, block) in [
            (0x00, &b"anything"[..]),
            (0x10, V4),
            (0x01, b""),
            (0x12, V4),
            (0x22, &[0; 36]),
            (0x31, &[0; 216]),
            (0x32, &[0; 216]),
        ] {
            let header = binary(0x21, kind, block);
            assert_eq!(parse(&header, &BOTH), present(Origin::Unspecified, header.len()), "{kind:#x}");
        }
    }

    #[test]
    fn unknown_versions_commands_families_and_protocols_are_refused() {
        for (version_command, kind) in [(0x11, 0x11), (0x31, 0x11), (0x22, 0x11), (0x21, 0x41), (0x21, 0x13)]
        {
            assert_eq!(parse(&binary(version_command, kind, V4), &BOTH), Err(InvalidProxyHeader));
        }
    }

    #[test]
    fn a_header_has_room_for_its_addresses_and_is_no_longer_than_its_limit() {
        assert_eq!(parse(&binary(0x21, 0x11, &V4[..11]), &BOTH), Err(ProxyAddressesMissing));
        assert_eq!(parse(&binary(0x21, 0x21, &[0; 35]), &BOTH), Err(ProxyAddressesMissing));
        assert_eq!(parse(&binary(0x21, 0x31, &[0; 215]), &BOTH), Err(ProxyAddressesMissing));
        let header = binary(0x20, 0x00, &[0; 100]);
        assert_eq!(parse(&header, &ProxyRules { header_bytes: 116, ..BOTH }), present(Origin::Local, 116));
        assert_eq!(parse(&header, &ProxyRules { header_bytes: 115, ..BOTH }), Err(ProxyHeaderTooLong));
    }

    /// The addresses and these TLVs, as a header.
    fn with_tlvs(tlvs: &[&[u8]]) -> Vec<u8> {
        binary(0x21, 0x11, &[V4, &tlvs.concat()].concat())
    }

    #[test]
    fn tlvs_are_skipped_and_end_with_the_header() {
        let alpn: &[u8] = b"\x01\0\x08http/1.1";
        let header = with_tlvs(&[alpn, b"\x04\0\0", b"\xee\0\x03any"]);
        assert_eq!(
            parse(&header, &BOTH),
            present(relayed("192.0.2.1:56324", "198.51.100.7:443"), header.len())
        );
        for broken in [&b"\x01"[..], b"\x01\0", b"\x01\0\x01", b"\x01\xff\xffabc", b"\x03\0\x03abc"] {
            assert_eq!(parse(&with_tlvs(&[alpn, broken]), &BOTH), Err(InvalidProxyTlv));
        }
    }

    #[test]
    fn a_checksum_that_is_there_has_to_be_right() {
        let blank = with_tlvs(&[b"\x04\0\x01x", b"\x03\0\x04\0\0\0\0", b"\x04\0\x02yz"]);
        let at = 16 + 12 + 4 + 3;
        let mut right = blank.clone();
        right[at..at + 4].copy_from_slice(&crc32c(&blank, &(0..0)).to_be_bytes());
        assert!(matches!(parse(&right, &BOTH), Ok(ProxyStep::Present { .. })));
        assert_eq!(parse(&blank, &BOTH), Err(WrongProxyChecksum));
        right[20] ^= 1;
        assert_eq!(parse(&right, &BOTH), Err(WrongProxyChecksum));
        let twice = with_tlvs(&[b"\x03\0\x04\0\0\0\0", b"\x03\0\x04\0\0\0\0"]);
        assert_eq!(parse(&twice, &BOTH), Err(InvalidProxyTlv));
    }

    #[test]
    fn the_checksum_is_the_one_of_rfc_4960() {
        assert_eq!(crc32c(b"123456789", &(0..0)), 0xe306_9283); // The catalogue's check value.
        assert_eq!(crc32c(&[0; 32], &(0..0)), 0x8a91_36aa); // RFC 3720, B.4.
        assert_eq!(crc32c(&[0xff; 32], &(0..32)), 0x8a91_36aa);
    }

    #[test]
    fn a_request_is_no_header_from_its_first_byte_that_differs() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"PO", b"PROXY/", b"\r\n\r\nG", b"\r\nG", b"\n", b"\x16\x03\x01"]
        {
            assert_eq!(parse(bytes, &BOTH), Ok(ProxyStep::Absent), "{}", bytes.escape_ascii());
        }
        for bytes in [&b""[..], b"P", b"PROXY", b"\r\n\r\n\0"] {
            assert_eq!(parse(bytes, &BOTH), Ok(ProxyStep::Partial));
        }
    }

    #[test]
    fn only_the_versions_that_were_asked_for_are_looked_for() {
        let line = b"PROXY UNKNOWN\r\n";
        let header = binary(0x20, 0, b"");
        let (v1, v2) = (ProxyRules { v2: false, ..BOTH }, ProxyRules { v1: false, ..BOTH });
        assert_eq!(parse(line, &v2), Ok(ProxyStep::Absent));
        assert_eq!(parse(&header, &v1), Ok(ProxyStep::Absent));
        assert!(matches!(parse(line, &v1), Ok(ProxyStep::Present { .. })));
        assert!(matches!(parse(&header, &v2), Ok(ProxyStep::Present { .. })));
    }
}
