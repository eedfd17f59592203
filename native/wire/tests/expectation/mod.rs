//! Reads the `.toml` beside a corpus file: lines of `key = value` whose values are JSON too, and
//! `[[request]]` before the keys of each request. `tests/wire/corpus/README.md` tells the keys.

use bicorn_wire::Rules;

use crate::exchange::{Fields, Request};

/// What a corpus file expects.
#[derive(Debug, Default)]
pub struct Expectation {
    pub behaviour: String,
    pub section: String,
    pub origin: String,
    pub rules: Rules,
    pub closes: bool,
    pub pending: bool,
    pub status: Option<u16>,
    pub refused: Option<String>,
    pub kind: Option<String>,
    pub to_head: bool,
    pub requests: Vec<Request>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    Number(u64),
    Truth(bool),
    List(Vec<String>),
}

impl Value {
    fn text(self) -> Result<String, String> {
        if let Self::Text(text) = self { Ok(text) } else { Err(format!("{self:?} is no string")) }
    }

    /// Each character is one byte: the files hold bytes as Latin-1.
    fn bytes(self) -> Result<Vec<u8>, String> {
        latin1(&self.text()?)
    }

    fn truth(self) -> Result<bool, String> {
        if let Self::Truth(truth) = self { Ok(truth) } else { Err(format!("{self:?} is no boolean")) }
    }

    fn number(self) -> Result<u64, String> {
        if let Self::Number(number) = self { Ok(number) } else { Err(format!("{self:?} is no number")) }
    }

    fn list(self) -> Result<Vec<String>, String> {
        if let Self::List(list) = self { Ok(list) } else { Err(format!("{self:?} is no list")) }
    }

    fn fields(self) -> Result<Fields, String> {
        self.list()?
            .iter()
            .map(|field| {
                let (name, value) = field.split_once(':').ok_or(format!("{field:?} has no colon"))?;
                Ok((latin1(name)?, latin1(value.strip_prefix(' ').unwrap_or(value))?))
            })
            .collect()
    }
}

fn latin1(text: &str) -> Result<Vec<u8>, String> {
    text.chars().map(|char| u8::try_from(char).map_err(|_| format!("{char:?} is no byte"))).collect()
}

impl Expectation {
    /// Reads the whole text; unknown keys are an error.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut expectation = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line == "[[request]]" {
                expectation.requests.push(Request::default());
                continue;
            }
            let (key, value) = line.split_once(" = ").ok_or(format!("{line:?} is no key = value"))?;
            let value = parse_value(value)?;
            match expectation.requests.last_mut() {
                Some(request) => set_of_request(request, key, value)?,
                None => expectation.set(key, value)?,
            }
        }
        Ok(expectation)
    }

    fn set(&mut self, key: &str, value: Value) -> Result<(), String> {
        match key {
            "behaviour" => self.behaviour = value.text()?,
            "section" => self.section = value.text()?,
            "origin" => self.origin = value.text()?,
            "closes" => self.closes = value.truth()?,
            "pending" => self.pending = value.truth()?,
            "status" => self.status = Some(value.number()? as u16),
            "refused" => self.refused = Some(value.text()?),
            "kind" => self.kind = Some(value.text()?),
            "to_head" => self.to_head = value.truth()?,
            "settings" => value.list()?.iter().try_for_each(|setting| set_rule(&mut self.rules, setting))?,
            _ => return Err(format!("unknown key {key:?}")),
        }
        Ok(())
    }
}

fn set_of_request(request: &mut Request, key: &str, value: Value) -> Result<(), String> {
    match key {
        "method" => request.method = value.bytes()?,
        "target" => request.target = value.bytes()?,
        "path" => request.path = value.bytes()?,
        "query" => request.query = value.bytes()?,
        "version" => request.version = value.text()?,
        "host" => request.host = Some(value.bytes()?),
        "fields" => request.fields = value.fields()?,
        "body" => request.body = value.bytes()?,
        "trailers" => request.trailers = value.fields()?,
        "keep_alive" => request.keep_alive = value.truth()?,
        "expects_continue" => request.expects_continue = value.truth()?,
        "upgrade" => request.upgrade = value.truth()?,
        _ => return Err(format!("unknown key {key:?} of a request")),
    }
    Ok(())
}

/// A setting as an operator would name it.
fn set_rule(rules: &mut Rules, setting: &str) -> Result<(), String> {
    let (name, value) = setting.split_once('=').ok_or(format!("{setting:?} is no name=value"))?;
    let number = || value.parse::<usize>().map_err(|error| format!("{setting:?}: {error}"));
    let flag = || value.parse::<bool>().map_err(|error| format!("{setting:?}: {error}"));
    match name {
        "limit_request_line" => rules.limits.request_line_bytes = number()?,
        "limit_request_field_size" => rules.limits.field_bytes = number()?,
        "limit_request_fields" => {
            rules.limits.fields = number()?;
            rules.limits.trailer_fields = number()?;
        }
        "limit_request_head" => rules.limits.head_bytes = number()?,
        "limit_request_body" => rules.limits.body_bytes = number()? as u64,
        "limit_chunk_extension" => rules.limits.chunk_extension_bytes = number()?,
        "limit_request_trailers" => rules.limits.trailer_bytes = number()?,
        "permit_obsolete_folding" => rules.leniency.obsolete_folding = flag()?,
        "strip_header_spaces" => rules.leniency.header_spaces = flag()?,
        "permit_unconventional_http_method" => rules.leniency.unconventional_method = flag()?,
        "permit_unconventional_http_version" => rules.leniency.unconventional_version = flag()?,
        "casefold_http_method" => rules.leniency.casefold_method = flag()?,
        _ => return Err(format!("unknown setting {name:?}")),
    }
    Ok(())
}

fn parse_value(text: &str) -> Result<Value, String> {
    let mut rest = text;
    let value = match text.as_bytes().first() {
        Some(b'"') => Value::Text(take_string(&mut rest)?),
        Some(b'[') => Value::List(take_list(&mut rest)?),
        _ => {
            rest = "";
            match text {
                "true" => Value::Truth(true),
                "false" => Value::Truth(false),
                number => Value::Number(number.parse().map_err(|error| format!("{number:?}: {error}"))?),
            }
        }
    };
    if rest.is_empty() { Ok(value) } else { Err(format!("{rest:?} after a value")) }
}

fn take_list(rest: &mut &str) -> Result<Vec<String>, String> {
    let mut list = Vec::new();
    *rest = &rest[1..];
    loop {
        if let Some(after) = rest.strip_prefix(']') {
            *rest = after;
            return Ok(list);
        }
        list.push(take_string(rest)?);
        *rest = rest.strip_prefix(", ").unwrap_or(rest);
    }
}

fn take_string(rest: &mut &str) -> Result<String, String> {
    let mut string = String::new();
    let mut chars = rest.strip_prefix('"').ok_or(format!("{rest:?} is no string"))?.chars();
    loop {
        match chars.next().ok_or("a string without its end")? {
            '"' => {
                *rest = chars.as_str();
                return Ok(string);
            }
            '\\' => string.push(take_escaped(&mut chars)?),
            char => string.push(char),
        }
    }
}

fn take_escaped(chars: &mut std::str::Chars<'_>) -> Result<char, String> {
    Ok(match chars.next().ok_or("a backslash without its character")? {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'u' => {
            let digits: String = chars.by_ref().take(4).collect();
            let code = u32::from_str_radix(&digits, 16).map_err(|error| format!("\\u{digits}: {error}"))?;
            char::from_u32(code).ok_or(format!("\\u{digits} is no character"))?
        }
        char @ ('"' | '\\') => char,
        char => return Err(format!("unknown escape \\{char}")),
    })
}
