//! Why a request was not accepted, and the status its sender should see.

use std::fmt;

/// A request that is not answered by the application. The connection closes after it: where the
/// next message would start is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the peer should see.
    pub status: u16,
    /// Which rule was broken.
    pub kind: RefusalKind,
    /// The request was a HEAD, as far as it could be read: the answer has no body (RFC 9110, 9.3.2).
    pub to_head: bool,
}

impl Refusal {
    /// The same, of a request with this method.
    #[must_use]
    pub fn of(self, method: &[u8]) -> Self {
        Self { to_head: method == b"HEAD", ..self }
    }
}

impl From<RefusalKind> for Refusal {
    fn from(kind: RefusalKind) -> Self {
        Self { status: kind.status(), kind, to_head: false }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind.text(), self.kind.section())
    }
}

impl std::error::Error for Refusal {}

/// Writes the enum and its three properties from one list, so that no rule can lack one of them.
macro_rules! refusal_kinds {
    ($($name:ident, $status:literal, $section:literal, $text:literal;)*) => {
        /// One variant a rule: its documentation is the log's text and the section it comes from.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RefusalKind {
            $(#[doc = concat!($text, " (", $section, ").")] $name,)*
        }

        impl RefusalKind {
            /// Every rule there is, in the order a request meets them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The status the peer should see.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Where the rule comes from: an RFC, or the PROXY protocol's specification.
            pub const fn section(self) -> &'static str {
                match self { $(Self::$name => $section,)* }
            }

            /// What was wrong, in words for the log.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The variant's own name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

refusal_kinds! {
    InvalidProxyLine, 400, "PROXY 2.1", "the PROXY line is not a protocol, two addresses and two ports with one space between them";
    ProxyLineTooLong, 400, "PROXY 2.1", "a PROXY line does not end within 107 bytes";
    InvalidProxyHeader, 400, "PROXY 2.2", "the PROXY header has an unknown version, command, family or protocol";
    ProxyHeaderTooLong, 400, "PROXY 2.2", "the PROXY header is longer than its limit";
    ProxyAddressesMissing, 400, "PROXY 2.2", "the PROXY header is too short for the addresses of its family";
    InvalidProxyTlv, 400, "PROXY 2.2", "a TLV of the PROXY header goes beyond its end, or is a malformed checksum";
    WrongProxyChecksum, 400, "PROXY 2.2.3", "the checksum of the PROXY header is wrong";
    NotARequest, 400, "RFC 9112 3", "the first byte cannot start a request line; is TLS or another protocol spoken here?";
    TooManyEmptyLines, 400, "RFC 9112 2.2", "more than two empty lines before the request line";
    BareCr, 400, "RFC 9112 2.2", "a carriage return without its line feed";
    BareLf, 400, "RFC 9112 2.2", "a line ends with a line feed alone";
    ControlByte, 400, "RFC 9110 5.5", "a control byte other than tab";
    RequestLineTooLong, 414, "RFC 9112 3", "the request line is longer than its limit";
    MalformedRequestLine, 400, "RFC 9112 3", "the request line is not a method, a target and a version with one space between them";
    InvalidMethod, 400, "RFC 9110 9.1", "the method is not a token";
    UnconventionalMethod, 400, "RFC 9110 16.1.1", "the method is not 3 to 20 bytes without lowercase letters and '#'";
    MalformedVersion, 400, "RFC 9112 2.3", "the version is not HTTP/digit.digit";
    UnsupportedVersion, 505, "RFC 9110 15.6.6", "the version is neither HTTP/1.0 nor HTTP/1.1";
    InvalidTargetByte, 400, "RFC 9112 3.2", "the target holds a byte that must be percent-encoded";
    FragmentInTarget, 400, "RFC 9112 3.2", "the target holds a fragment";
    UnknownTargetForm, 400, "RFC 9112 3.2", "the target is neither a path nor an absolute http or https URI";
    MisplacedAsterisk, 400, "RFC 9112 3.2.4", "the target '*' with a method that is not OPTIONS";
    InvalidTargetAuthority, 400, "RFC 9112 3.2.2", "the target's authority is not host[:port]";
    InvalidConnectTarget, 400, "RFC 9112 3.2.3", "the target of CONNECT is not host:port";
    HeadTooLong, 431, "RFC 6585 5", "the head is longer than its limit";
    TooManyFields, 431, "RFC 6585 5", "more header fields than the limit";
    FieldTooLong, 431, "RFC 6585 5", "a header field is longer than its limit";
    LeadingWhitespace, 400, "RFC 9112 2.2", "white space before the first field";
    ObsoleteFolding, 400, "RFC 9112 5.2", "a field goes on in the next line";
    MissingColon, 400, "RFC 9112 5", "a field line without a colon";
    InvalidFieldName, 400, "RFC 9110 5.1", "a field name is not a token";
    SpaceBeforeColon, 400, "RFC 9112 5.1", "white space between a field name and its colon";
    DuplicateHost, 400, "RFC 9112 3.2", "more than one Host";
    MissingHost, 400, "RFC 9112 3.2", "HTTP/1.1 without Host";
    InvalidHost, 400, "RFC 9112 3.2", "Host is not host[:port]";
    EmptyHost, 400, "RFC 9110 4.2.1", "Host is empty and the target has no host either";
    DuplicateContentType, 400, "RFC 9110 5.3", "more than one Content-Type";
    DuplicateContentLength, 400, "RFC 9110 8.6", "more than one Content-Length";
    InvalidContentLength, 400, "RFC 9110 8.6", "Content-Length is not a plain decimal number below 2^63";
    DuplicateTransferEncoding, 400, "RFC 9112 6.1", "more than one Transfer-Encoding";
    InvalidTransferEncoding, 400, "RFC 9112 6.3", "Transfer-Encoding is not a list that ends with its only chunked";
    UnsupportedTransferCoding, 501, "RFC 9112 6.1", "a transfer coding other than chunked";
    TransferEncodingInOldVersion, 400, "RFC 9112 6.1", "Transfer-Encoding in a version before HTTP/1.1";
    TransferEncodingWithContentLength, 400, "RFC 9112 6.1", "both Transfer-Encoding and Content-Length";
    UnknownExpectation, 417, "RFC 9110 10.1.1", "an expectation other than 100-continue";
    BodyTooLarge, 413, "RFC 9110 15.5.14", "the body is larger than its limit";
    InvalidChunkSize, 400, "RFC 9112 7.1", "a chunk size is not 1 to 16 hexadecimal digits";
    ChunkSizeTooLarge, 400, "RFC 9112 7.1", "the chunks add up to 2^63 bytes or more";
    InvalidChunkExtension, 400, "RFC 9112 7.1.1", "a malformed chunk extension";
    ChunkExtensionTooLong, 400, "RFC 9112 7.1.1", "the extensions of a chunk are longer than their limit";
    MissingChunkEnd, 400, "RFC 9112 7.1", "a chunk's data is not followed by CRLF";
    TrailersTooLong, 431, "RFC 9112 7.1.2", "the trailers are longer than their limit";
    TooManyTrailers, 431, "RFC 9112 7.1.2", "more trailer fields than the limit";
    ForbiddenTrailer, 400, "RFC 9110 6.5.1", "a trailer that frames, routes or authenticates";
    // From here on the drivers decide, who know the peer, the settings, the clock and the disk.
    ForbiddenProxy, 403, "PROXY 2", "a PROXY header from a peer that is not in proxy_allow_ips";
    AmbiguousFieldName, 400, "RFC 9110 5.1", "a field name with an underscore, which header_map = refuse forbids";
    ContradictoryScheme, 400, "RFC 9110 4.2", "the secure_scheme_headers of a trusted proxy contradict each other";
    HeadTimeout, 408, "RFC 9110 15.5.9", "the head did not arrive within header_timeout";
    BodyTimeout, 408, "RFC 9110 15.5.9", "no byte of the body arrived for body_timeout";
    BodyNotStored, 503, "RFC 9110 15.6.4", "the body could not be written to its temporary file";
    WaitedTooLong, 503, "RFC 9110 15.6.4", "the request waited longer than queue_timeout for its turn";
    TooManyAtOnce, 503, "RFC 9110 15.6.4", "limit_concurrency requests wait or run already";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_client_or_server_error_status_and_a_section() {
        for kind in RefusalKind::ALL {
            assert!(matches!(kind.status(), 400..=599), "{kind:?}");
            assert!(kind.section().starts_with("RFC ") || kind.section().starts_with("PROXY "), "{kind:?}");
            assert_eq!(kind.name(), format!("{kind:?}"));
        }
    }

    #[test]
    fn a_refusal_says_what_was_wrong_and_where_that_is_written() {
        let refusal = Refusal::from(RefusalKind::DuplicateHost);
        assert_eq!(refusal.status, 400);
        assert_eq!(refusal.to_string(), "more than one Host (RFC 9112 3.2)");
    }
}
