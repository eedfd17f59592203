//! The head of a request as a value: spans of the buffer it was parsed from, and what they mean.

use crate::field::Field;
use crate::span::Span;
use crate::target::TargetForm;

/// What the client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// Another one, let in by `unconventional_version`.
    Other {
        /// The digit before the dot.
        major: u8,
        /// The digit after it.
        minor: u8,
    },
}

impl Version {
    /// Whether the rules of HTTP/1.1 hold; if not, those of 1.0 do.
    #[inline]
    pub fn is_http11(self) -> bool {
        match self {
            Self::Http10 => false,
            Self::Http11 => true,
            Self::Other { major, minor } => (major, minor) >= (1, 1),
        }
    }
}

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// After this many bytes.
    Length(u64),
    /// By the chunks.
    Chunked,
}

/// A parsed head. Reuse one for all requests of a connection: the list of fields keeps its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The method as sent; with `casefold_method` the reader puts it in upper case.
    pub method: Span,
    /// The whole target as sent.
    pub target: Span,
    /// Which form the target has.
    pub form: TargetForm,
    /// The target's path, undecoded. Empty for CONNECT and for an absolute form without a path
    /// (which means `/`, or `*` with OPTIONS); `*` for the asterisk form.
    pub path: Span,
    /// What follows the target's first `?`, undecoded.
    pub query: Span,
    /// The scheme of an absolute form.
    pub scheme: Option<Span>,
    /// `host[:port]` of an absolute or authority form; it replaces the Host field (RFC 9112 3.2.2).
    pub authority: Option<Span>,
    /// What the client speaks.
    pub version: Version,
    /// The fields in the order they came.
    pub fields: Vec<Field>,
    /// How the end of the body is found.
    pub framing: Framing,
    /// Whether the client is willing to send another request on this connection.
    pub keep_alive: bool,
    /// The client may be waiting for a 100 (Continue) before it sends the body.
    pub expects_continue: bool,
    /// The client asks to change the protocol: `Connection: upgrade` and an Upgrade field.
    pub upgrade: bool,
    /// The value of the Host field, valid by the grammar of `uri-host [":" port]`.
    pub host: Option<Span>,
    /// Bytes of the head, skipped empty lines and the final CRLF included: the body starts here.
    pub len: usize,
}

impl Head {
    /// The authority that the client asked for: the target's, else the Host field's.
    #[inline]
    pub fn effective_host(&self) -> Option<Span> {
        self.authority.or(self.host)
    }

    pub(crate) fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }
}
