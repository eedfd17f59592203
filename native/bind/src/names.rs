//! Field names as the keys they get in an environ: made once a name, not once a request.
//!
//! Owns       the cache from the bytes of a field name to its `HTTP_…` key and its role.
//! Never      grows without bound, and never interns more names in the life of a process than it has
//!            places: what is interned stays for ever in some versions of Python, and clients choose names.
//! Invariant  a full cache is emptied: made-up names can push known ones out for a moment, not for good.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::text::Memo;

/// Places of the table; three quarters of them are used at most.
const PLACES: usize = 1024;
const NAMES_MAX: usize = PLACES / 4 * 3;

/// Longer names are not remembered.
const NAME_BYTES_MAX: usize = 64;

/// What a field means to the environ besides being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `HTTP_<NAME>` and nothing more.
    Plain,
    /// Host, replaced by the authority of an absolute target.
    Host,
    /// `CONTENT_TYPE`, without the prefix.
    ContentType,
    /// `CONTENT_LENGTH`, without the prefix.
    ContentLength,
    /// Repetitions are joined by `; ` (RFC 6265, 5.4).
    Cookie,
}

/// One field name.
pub struct Name {
    raw: Vec<u8>,
    /// The key in the environ.
    pub key: Py<PyString>,
    /// The name in upper case, as settings spell it.
    pub upper: Vec<u8>,
    /// What it means.
    pub role: Role,
    /// It holds an underscore, so two spellings could reach one key (RFC 9110, 17.10).
    pub ambiguous: bool,
    /// The last value that came with it.
    pub value: Memo,
    /// The name in lower case, as ASGI has it.
    lower: Py<PyBytes>,
    /// The last value that came with it, in its pair.
    pair: Option<(Vec<u8>, Py<PyTuple>)>,
}

/// Pairs with longer values are made each time: they rarely come twice.
const PAIR_BYTES_MAX: usize = 256;

impl Name {
    fn new(py: Python<'_>, raw: &[u8], interned: bool) -> Self {
        let upper = raw.to_ascii_uppercase();
        let role = match upper.as_slice() {
            b"HOST" => Role::Host,
            b"CONTENT-TYPE" => Role::ContentType,
            b"CONTENT-LENGTH" => Role::ContentLength,
            b"COOKIE" => Role::Cookie,
            _ => Role::Plain,
        };
        let key: String =
            upper.iter().map(|&byte| if byte == b'-' { '_' } else { char::from(byte) }).collect();
        let key = match role {
            Role::ContentType | Role::ContentLength => key,
            _ => format!("HTTP_{key}"),
        };
        Self {
            raw: raw.to_vec(),
            key: if interned { PyString::intern(py, &key) } else { PyString::new(py, &key) }.unbind(),
            ambiguous: raw.contains(&b'_'),
            upper,
            role,
            value: Memo::default(),
            lower: PyBytes::new(py, &raw.to_ascii_lowercase()).unbind(),
            pair: None,
        }
    }

    /// The pair of bytes that ASGI has for a field: one object as long as the same value comes again.
    #[inline]
    pub fn pair<'py>(&mut self, py: Python<'py>, value: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
        if let Some((bytes, pair)) = &self.pair
            && bytes == value
        {
            return Ok(pair.bind(py).clone());
        }
        let pair = PyTuple::new(py, [self.lower.bind(py).clone(), PyBytes::new(py, value)])?;
        if value.len() <= PAIR_BYTES_MAX {
            self.pair = Some((value.to_vec(), pair.clone().unbind()));
        }
        Ok(pair)
    }
}

/// The cache.
pub struct Names {
    places: Vec<u16>,
    names: Vec<Name>,
    /// The last name that was too long to be remembered.
    unremembered: Option<Name>,
    /// How many more names may be interned.
    interns_left: usize,
}

const EMPTY: u16 = u16::MAX;

impl Default for Names {
    fn default() -> Self {
        Self { places: vec![EMPTY; PLACES], names: Vec::new(), unremembered: None, interns_left: NAMES_MAX }
    }
}

fn hash(raw: &[u8]) -> usize {
    // FNV-1a over at most 32 bytes: names are short, and a collision costs one comparison.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ raw.len() as u64;
    for &byte in raw.iter().take(32) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ (hash >> 29)) as usize
}

impl Names {
    /// The name with these bytes, in whatever case the client spells it.
    #[inline]
    pub fn get(&mut self, py: Python<'_>, raw: &[u8]) -> &mut Name {
        let mut place = hash(raw) % PLACES;
        loop {
            let index = self.places[place];
            if index == EMPTY {
                return self.add(py, raw, place);
            }
            if self.names[usize::from(index)].raw == raw {
                return &mut self.names[usize::from(index)];
            }
            place = (place + 1) % PLACES;
        }
    }

    #[cold]
    fn add(&mut self, py: Python<'_>, raw: &[u8], mut place: usize) -> &mut Name {
        if raw.len() > NAME_BYTES_MAX {
            return self.unremembered.insert(Name::new(py, raw, false));
        }
        if self.names.len() == NAMES_MAX {
            self.places.fill(EMPTY);
            self.names.clear();
            place = hash(raw) % PLACES;
        }
        let interned = self.interns_left > 0;
        self.interns_left -= usize::from(interned);
        self.places[place] = self.names.len() as u16;
        self.names.push(Name::new(py, raw, interned));
        self.names.last_mut().expect("just pushed")
    }
}
