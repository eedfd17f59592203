//! A connection without a socket: bytes go in, what a server would do about them comes out.
//!
//! Owns       the loop that every driver has around the wire: head, body, next head.
//! Never      judges a byte itself.

use bicorn_wire::{
    BodyDecoder, BodyStep, Head, HeadParser, Progress, Refusal, Rules, Span, Version, push_chunk_head,
};

/// Names and values, in the order they came.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A request as an application would see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub path: Vec<u8>,
    pub query: Vec<u8>,
    pub version: String,
    pub host: Option<Vec<u8>>,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    pub keep_alive: bool,
    pub expects_continue: bool,
    pub upgrade: bool,
}

impl Request {
    /// The request in the plainest bytes that mean the same.
    #[allow(dead_code, reason = "some of the files that share this module write no request")]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = [&self.method[..], b" ", &self.target, b" ", self.version.as_bytes(), b"\r\n"].concat();
        push_fields(&mut out, &self.fields);
        let is_chunked = self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"transfer-encoding"));
        if !is_chunked {
            out.extend_from_slice(&self.body);
            return out;
        }
        if !self.body.is_empty() {
            push_chunk_head(&mut out, self.body.len());
            out.extend_from_slice(&[&self.body, &b"\r\n"[..]].concat());
        }
        out.extend_from_slice(b"0\r\n");
        push_fields(&mut out, &self.trailers);
        out
    }
}

/// Field lines and the empty line after them.
fn push_fields(out: &mut Vec<u8>, fields: &Fields) {
    for (name, value) in fields {
        out.extend_from_slice(&[name, &b": "[..], value, b"\r\n"].concat());
    }
    out.extend_from_slice(b"\r\n");
}

/// Where the connection stands after the bytes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Between two requests, or before the first.
    #[default]
    Idle,
    /// A request has begun and is neither whole nor refused.
    Pending,
    /// A request was refused while its head was read.
    RefusedHead(Refusal),
    /// A request was refused while its body was read.
    RefusedBody(Refusal),
    /// The last request does not keep the connection; later bytes are not read.
    Closed,
}

/// What became of the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub requests: Vec<Request>,
    pub standing: Standing,
}

/// Feeds the pieces one after the other.
pub fn exchange<'piece>(pieces: impl IntoIterator<Item = &'piece [u8]>, rules: &Rules) -> Outcome {
    let mut connection = Connection { rules: *rules, ..Connection::default() };
    for piece in pieces {
        connection.receive(piece);
    }
    Outcome { requests: connection.requests, standing: connection.standing }
}

#[derive(Default)]
struct Connection {
    rules: Rules,
    /// From the first byte of the message being read.
    buf: Vec<u8>,
    parser: HeadParser,
    head: Head,
    body: Option<(Request, BodyDecoder)>,
    requests: Vec<Request>,
    standing: Standing,
}

impl Connection {
    fn receive(&mut self, bytes: &[u8]) {
        if !matches!(self.standing, Standing::Idle | Standing::Pending) {
            return;
        }
        self.buf.extend_from_slice(bytes);
        loop {
            let goes_on = if self.body.is_some() { self.read_body() } else { self.read_head() };
            if !goes_on {
                return;
            }
        }
    }

    fn read_head(&mut self) -> bool {
        match self.parser.parse(&self.buf, &self.rules, &mut self.head) {
            Err(refusal) => {
                self.standing = Standing::RefusedHead(refusal);
                false
            }
            Ok(Progress::Partial) => {
                let is_idle = self.buf.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
                self.standing = if is_idle { Standing::Idle } else { Standing::Pending };
                false
            }
            Ok(Progress::Complete) => {
                let request = self.request();
                match BodyDecoder::new(self.head.framing, &self.rules.limits) {
                    Ok(decoder) => self.body = Some((request, decoder)),
                    Err(refusal) => self.standing = Standing::RefusedBody(refusal),
                }
                self.buf.drain(..self.head.len);
                self.parser.reset();
                self.body.is_some()
            }
        }
    }

    fn read_body(&mut self) -> bool {
        let Some((request, decoder)) = self.body.as_mut() else {
            return false;
        };
        match decoder.step(&self.buf) {
            Err(refusal) => {
                self.standing = Standing::RefusedBody(refusal);
                false
            }
            Ok(BodyStep::NeedData { consumed }) => {
                self.buf.drain(..consumed);
                self.standing = Standing::Pending;
                false
            }
            Ok(BodyStep::Data { start, end }) => {
                assert!(start < end && end <= self.buf.len());
                request.body.extend_from_slice(&self.buf[start..end]);
                self.buf.drain(..end);
                true
            }
            Ok(BodyStep::End { consumed }) => {
                assert!(decoder.is_finished());
                request.trailers = decoder.trailers().to_vec();
                self.buf.drain(..consumed);
                self.finish_request()
            }
        }
    }

    fn finish_request(&mut self) -> bool {
        let Some((request, _)) = self.body.take() else {
            return false;
        };
        let keep_alive = request.keep_alive;
        self.requests.push(request);
        self.standing = if keep_alive { Standing::Idle } else { Standing::Closed };
        keep_alive
    }

    fn request(&self) -> Request {
        let (head, buf) = (&self.head, &self.buf[..]);
        let bytes = |span: Span| span.of(buf).to_vec();
        let mut method = bytes(head.method);
        if self.rules.leniency.casefold_method {
            method.make_ascii_uppercase();
        }
        let version = match head.version {
            Version::Http10 => "HTTP/1.0".to_owned(),
            Version::Http11 => "HTTP/1.1".to_owned(),
            Version::Other { major, minor } => format!("HTTP/{major}.{minor}"),
        };
        Request {
            method,
            target: bytes(head.target),
            path: bytes(head.path),
            query: bytes(head.query),
            version,
            host: head.effective_host().map(bytes),
            fields: head
                .fields
                .iter()
                .map(|field| (bytes(field.name), field.text(buf).into_owned()))
                .collect(),
            body: Vec::new(),
            trailers: Vec::new(),
            keep_alive: head.keep_alive,
            expects_continue: head.expects_continue,
            upgrade: head.upgrade,
        }
    }
}
