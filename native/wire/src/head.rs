//! The head of a request: request line and fields, parsed line by line as they arrive.

use crate::field::{Field, parse_content_length};
use crate::grammar::{CONVENTIONAL, OWS, TOKEN, is, is_token, span_of, trim_ows};
use crate::limits::{Leniency, Limits, Rules};
use crate::line::{Bound, find_line_end};
use crate::refusal::{Refusal, RefusalKind};
use crate::target::{MethodKind, TargetForm, parse_target, split_authority};

/// Empty lines that are skipped before a request line. RFC 9112 2.2 asks for one at least; old
/// clients send one after a body that they miscounted, and some send two.
const EMPTY_LINES_MAX: u8 = 2;

/// A range of bytes in the buffer that a head was parsed from.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Span {
    /// Position of the first byte.
    pub start: u32,
    /// Position after the last byte.
    pub end: u32,
}

impl Span {
    /// Positions of a head fit: its length is bounded well below 4 GiB.
    #[inline]
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// The bytes themselves; `buf` must be the buffer that the head was parsed from.
    #[inline]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start as usize..self.end as usize]
    }

    /// How many bytes.
    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

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

    fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }
}

/// How far a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is not all there yet.
    Partial,
    /// All of it is there and valid.
    Complete,
}

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
        if self.count == 0 {
            None
        } else {
            head.fields.get(self.first as usize)
        }
    }

    /// All of them. Looking stops at the last one, so a single early field costs one step.
    fn each<'head>(
        &self,
        head: &'head Head,
        buf: &[u8],
        name: &[u8],
    ) -> impl Iterator<Item = &'head Field> {
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
struct Notable {
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
    fn notice(&mut self, name: &[u8], index: usize) -> Result<(), RefusalKind> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.host.note_only(index, RefusalKind::DuplicateHost)?;
            }
            6 if name.eq_ignore_ascii_case(b"expect") => self.expect.note(index),
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade.note(index),
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection.note(index),
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                self.content_type
                    .note_only(index, RefusalKind::DuplicateContentType)?;
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.content_length
                    .note_only(index, RefusalKind::DuplicateContentLength)?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.transfer_encoding
                    .note_only(index, RefusalKind::DuplicateTransferEncoding)?;
            }
            _ => {}
        }
        Ok(())
    }
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
    pub fn parse(
        &mut self,
        buf: &[u8],
        rules: &Rules,
        head: &mut Head,
    ) -> Result<Progress, Refusal> {
        Ok(self.advance(buf, rules, head)?)
    }

    fn advance(
        &mut self,
        buf: &[u8],
        rules: &Rules,
        head: &mut Head,
    ) -> Result<Progress, RefusalKind> {
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
                self.conclude(buf, head)?;
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

    /// The head is whole: what do its fields say together?
    #[inline]
    fn conclude(&self, buf: &[u8], head: &mut Head) -> Result<(), RefusalKind> {
        head.host = read_host(&self.notable, buf, head)?;
        head.framing = read_framing(&self.notable, buf, head)?;
        head.keep_alive = head.version.is_http11();
        if self.notable.connection.count > 0 {
            read_connection(&self.notable, buf, head);
        }
        // After CONNECT the connection may carry anything but a next request (RFC 9110 9.3.6).
        if head.form == TargetForm::Authority {
            head.keep_alive = false;
        }
        if self.notable.expect.count > 0 {
            read_expectation(&self.notable, buf, head)?;
        }
        Ok(())
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
    Bound {
        end: head_bytes.saturating_sub(2),
        refusal: RefusalKind::HeadTooLong,
    }
}

#[inline]
fn line_bound(line: usize, limits: &Limits) -> Bound {
    let end = line.saturating_add(or_unbounded(limits.request_line_bytes));
    Bound {
        end,
        refusal: RefusalKind::RequestLineTooLong,
    }
}

#[inline]
fn field_bound(field: usize, limits: &Limits) -> Bound {
    // The limit of a field counts its CRLF, as Gunicorn's does.
    let end = field
        .saturating_add(or_unbounded(limits.field_bytes))
        .saturating_sub(2);
    Bound {
        end,
        refusal: RefusalKind::FieldTooLong,
    }
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

/// Bytes of ` HTTP/1.1`, the end of a request line.
const VERSION_TAIL: usize = 9;

#[inline]
fn parse_request_line(
    buf: &[u8],
    start: usize,
    end: usize,
    leniency: &Leniency,
    head: &mut Head,
) -> Result<(), RefusalKind> {
    let line = &buf[start..end];
    let method_len = measure_method(line, leniency)?;
    let target_start = method_len + 1;
    let rest = &line[target_start..];
    let target_len = rest.len().saturating_sub(VERSION_TAIL);
    let target_end = target_start + target_len;
    head.version = match &rest[target_len..] {
        b" HTTP/1.1" => Version::Http11,
        b" HTTP/1.0" => Version::Http10,
        _ => parse_other_version(rest, leniency)?,
    };
    head.method = Span::new(start, start + method_len);
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
    let is = |name: &[u8]| {
        method == name || (leniency.casefold_method && method.eq_ignore_ascii_case(name))
    };
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
    Ok(Version::Other {
        major: major - b'0',
        minor: minor - b'0',
    })
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
        return if head.version.is_http11() {
            Err(RefusalKind::MissingHost)
        } else {
            Ok(None)
        };
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
        let name = coding
            .split(|&byte| byte == b';')
            .next()
            .map(trim_ows)
            .unwrap_or_default();
        if !is_token(name) || name.eq_ignore_ascii_case(b"chunked") {
            return Err(RefusalKind::InvalidTransferEncoding);
        }
        is_supported = false;
    }
    if is_supported {
        Ok(Framing::Chunked)
    } else {
        Err(RefusalKind::UnsupportedTransferCoding)
    }
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

    fn parse_with(bytes: &[u8], rules: &Rules) -> Result<(Head, Progress), Refusal> {
        let mut head = Head::default();
        let progress = HeadParser::new().parse(bytes, rules, &mut head)?;
        Ok((head, progress))
    }

    fn accept(bytes: &[u8]) -> Head {
        let (head, progress) = parse_with(bytes, &Rules::default()).expect("an accepted head");
        assert_eq!(progress, Progress::Complete);
        head
    }

    fn refuse(bytes: &[u8]) -> RefusalKind {
        parse_with(bytes, &Rules::default())
            .expect_err("a refusal")
            .kind
    }

    fn lenient(change: impl FnOnce(&mut Leniency)) -> Rules {
        let mut rules = Rules::default();
        change(&mut rules.leniency);
        rules
    }

    fn limited(change: impl FnOnce(&mut Limits)) -> Rules {
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
        let first = b"POST http://other/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
        assert_eq!(
            parser.parse(first, &Rules::default(), &mut head),
            Ok(Progress::Complete)
        );
        parser.reset();
        let second = b"GET / HTTP/1.0\r\n\r\n";
        assert_eq!(
            parser.parse(second, &Rules::default(), &mut head),
            Ok(Progress::Complete)
        );
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
            assert!(
                parser.scanned + 2 >= end,
                "all but a pending CR LF has been scanned"
            );
        }
        assert_eq!(
            parser.parse(bytes, &Rules::default(), &mut head),
            Ok(Progress::Complete)
        );
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
        assert_eq!(
            parse_with(b"GET /aa TTP/1.1", &rules).unwrap_err().status,
            414
        );

        let rules = limited(|limits| limits.field_bytes = 8);
        assert!(parse_with(b"GET / HTTP/1.1\r\nHost:a\r\n", &rules).is_ok());
        assert_eq!(
            parse_with(b"GET / HTTP/1.1\r\nHost:ab", &rules)
                .unwrap_err()
                .status,
            431
        );

        let rules = limited(|limits| limits.fields = 1);
        let head = b"GET / HTTP/1.1\r\nHost:a\r\n\r\n";
        assert!(parse_with(head, &rules).is_ok());
        let refusal = parse_with(b"GET / HTTP/1.1\r\nHost:a\r\nB", &rules).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::TooManyFields);

        for missing in 0..head.len() {
            let rules = limited(|limits| limits.head_bytes = missing);
            assert_eq!(
                parse_with(head, &rules).unwrap_err().kind,
                RefusalKind::HeadTooLong,
                "{missing}"
            );
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
        let long = format!(
            "GET /{} HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n",
            "a".repeat(9000),
            "b".repeat(9000)
        );
        assert!(parse_with(long.as_bytes(), &rules).is_ok());
        let longer = format!("GET /{}", "a".repeat(20_000));
        assert_eq!(
            parse_with(longer.as_bytes(), &rules).unwrap_err().kind,
            RefusalKind::HeadTooLong
        );
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
    fn a_folded_value_is_read_whole() {
        let rules = lenient(|leniency| leniency.obsolete_folding = true);
        for (fields, kind) in [
            (
                "Host: h\r\nContent-Length: 1\r\n 2",
                RefusalKind::InvalidContentLength,
            ),
            (
                "Host: h\r\nTransfer-Encoding: chunked\r\n , gzip",
                RefusalKind::InvalidTransferEncoding,
            ),
            ("Host: h\r\n i", RefusalKind::InvalidHost),
            (
                "Host: h\r\nExpect: 100-continue\r\n or",
                RefusalKind::UnknownExpectation,
            ),
        ] {
            let bytes = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(
                parse_with(bytes.as_bytes(), &rules).unwrap_err().kind,
                kind,
                "{fields}"
            );
        }
        let bytes = b"GET / HTTP/1.1\r\nHost: h\r\nConnection:\r\n close\r\n\r\n";
        assert!(!parse_with(bytes, &rules).unwrap().0.keep_alive);
    }

    #[test]
    fn a_folded_field_is_bounded_as_a_whole() {
        let rules = Rules {
            limits: Limits {
                field_bytes: 12,
                ..Limits::default()
            },
            leniency: Leniency {
                obsolete_folding: true,
                ..Leniency::default()
            },
        };
        assert!(parse_with(b"GET / HTTP/1.0\r\nA: 1\r\n 234\r\n\r\n", &rules).is_ok());
        let refusal = parse_with(b"GET / HTTP/1.0\r\nA: 1\r\n 2345", &rules).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::FieldTooLong);
    }

    #[test]
    fn casefolding_alone_lets_no_lowercase_method_in() {
        let request = b"options * HTTP/1.0\r\n\r\n";
        assert_eq!(refuse(request), RefusalKind::UnconventionalMethod);
        let rules = lenient(|leniency| leniency.casefold_method = true);
        assert_eq!(
            parse_with(request, &rules).unwrap_err().kind,
            RefusalKind::UnconventionalMethod
        );
        let rules = lenient(|leniency| leniency.unconventional_method = true);
        assert_eq!(
            parse_with(request, &rules).unwrap_err().kind,
            RefusalKind::MisplacedAsterisk
        );
        let rules = lenient(|leniency| {
            leniency.casefold_method = true;
            leniency.unconventional_method = true;
        });
        assert_eq!(
            parse_with(request, &rules).unwrap().0.form,
            TargetForm::Asterisk
        );
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

    #[test]
    fn keep_alive_follows_version_and_connection() {
        for (version, connection, keep_alive) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: keep-alive, close\r\n", false),
            ("1.1", "Connection: x, CLOSE\r\n", false),
            (
                "1.1",
                "Connection: x\r\nA: b\r\nConnection: close\r\n",
                false,
            ),
            ("1.1", "Connection: closed\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            (
                "1.0",
                "Connection: close\r\nConnection: keep-alive\r\n",
                false,
            ),
        ] {
            let head =
                accept(format!("GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n").as_bytes());
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
                format!("PUT / HTTP/{version}\r\nHost: h\r\n{body}Expect: 100-Continue\r\n\r\n")
                    .as_bytes(),
            );
            assert_eq!(head.expects_continue, expects, "{version} {body}");
        }
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_http11() {
        for (request, upgrade) in [
            (
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                true,
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, upgrade\r\nUpgrade: x\r\n\r\n",
                true,
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
                false,
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n\r\n",
                false,
            ),
            (
                "GET / HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                false,
            ),
        ] {
            assert_eq!(accept(request.as_bytes()).upgrade, upgrade, "{request}");
        }
    }

    #[test]
    fn an_empty_host_stands_only_beside_a_target_that_needs_none() {
        assert_eq!(
            refuse(b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
            RefusalKind::EmptyHost
        );
        assert_eq!(
            refuse(b"GET / HTTP/1.0\r\nHost:\r\n\r\n"),
            RefusalKind::EmptyHost
        );
        assert_eq!(
            refuse(b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n"),
            RefusalKind::InvalidHost
        );
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
            let request =
                format!("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: {value}\r\n\r\n");
            let got = parse_with(request.as_bytes(), &Rules::default())
                .map_or_else(|refusal| refusal.status, |_| 0);
            assert_eq!(got, status, "{value}");
        }
    }
}
