//! Who may speak for somebody else: the trusted proxies and what they may say.
//!
//! Owns       the parsed `forwarded_allow_ips`, `secure_scheme_headers`, `forwarder_headers`, `header_map`.
//! Never      trusts a field because of its name: trust belongs to the peer's address.

use std::net::IpAddr;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// What happens to field names with underscores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderMap {
    /// They are left out.
    Drop,
    /// The request is refused.
    Refuse,
    /// They are passed on, and may shadow a field spelled with a dash.
    Dangerous,
}

/// A block of addresses.
#[derive(Clone, Copy, Debug)]
struct Network {
    address: u128,
    bits: u32,
    v6: bool,
}

fn as_bits(address: IpAddr) -> (u128, bool) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, false),
        IpAddr::V6(v6) => (v6.to_bits(), true),
    }
}

impl Network {
    fn parse(text: &str) -> PyResult<Self> {
        let wrong = || PyValueError::new_err(format!("not an address or network: {text:?}"));
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (bits_of, v6) = as_bits(address);
        let width = if v6 { 128 } else { 32 };
        let bits = match prefix {
            None => width,
            Some(prefix) => prefix.parse().ok().filter(|bits| *bits <= width).ok_or_else(wrong)?,
        };
        Ok(Self { address: bits_of, bits, v6 })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let (other, v6) = as_bits(address);
        let mask = if self.bits == 0 { 0 } else { u128::MAX << (128 - self.bits) };
        v6 == self.v6 && (other ^ self.address) & mask == 0
    }
}

/// Addresses and networks that are allowed something.
pub struct AllowList {
    everybody: bool,
    networks: Vec<Network>,
}

impl AllowList {
    /// The list from a setting: addresses, networks, or `*`.
    pub fn new(allow: &[String]) -> PyResult<Self> {
        let networks: PyResult<_> =
            allow.iter().filter(|entry| *entry != "*").map(|entry| Network::parse(entry)).collect();
        Ok(Self { everybody: allow.iter().any(|entry| entry == "*"), networks: networks? })
    }

    /// Whether a peer is on it. A peer on a unix socket has no address and always is: who may connect
    /// there is decided by the file's permissions.
    pub fn allows(&self, address: Option<IpAddr>) -> bool {
        self.everybody
            || address.is_none_or(|address| self.networks.iter().any(|network| network.contains(address)))
    }
}

/// The rules.
pub struct Trust {
    forwarders: AllowList,
    /// Upper-case field name and the value that means https.
    pub secure_scheme_headers: Vec<(Vec<u8>, Vec<u8>)>,
    forwarder_headers: Vec<Vec<u8>>,
    /// What happens to names with underscores that nobody vouches for.
    pub header_map: HeaderMap,
}

impl Trust {
    /// The rules from the settings' own values.
    pub fn new(
        allow: &[String],
        secure_scheme_headers: Vec<(String, String)>,
        forwarder_headers: Vec<String>,
        header_map: &str,
    ) -> PyResult<Self> {
        Ok(Self {
            forwarders: AllowList::new(allow)?,
            secure_scheme_headers: secure_scheme_headers
                .into_iter()
                .map(|(name, value)| (name.to_ascii_uppercase().into_bytes(), value.into_bytes()))
                .collect(),
            forwarder_headers: forwarder_headers
                .into_iter()
                .map(|name| name.to_ascii_uppercase().into_bytes())
                .collect(),
            header_map: match header_map {
                "drop" => HeaderMap::Drop,
                "refuse" => HeaderMap::Refuse,
                "dangerous" => HeaderMap::Dangerous,
                other => return Err(PyValueError::new_err(format!("unknown header_map {other:?}"))),
            },
        })
    }

    /// Whether a peer may speak for somebody else.
    pub fn trusts(&self, address: Option<IpAddr>) -> bool {
        self.forwarders.allows(address)
    }

    /// The client that trusted proxies speak for, from one `X-Forwarded-For`: of the list that grew from left to
    /// right, the last entry that is no trusted proxy itself, or the first of all when every one is.
    pub fn client<'a>(&self, forwarded_for: &'a [u8]) -> Option<&'a str> {
        let mut hops = std::str::from_utf8(forwarded_for).ok()?.split(',').map(str::trim);
        if self.forwarders.everybody {
            return hops.next().filter(|hop| !hop.is_empty());
        }
        let stranger = |hop: &&str| hop.parse().map_or(true, |address| !self.trusts(Some(address)));
        hops.clone().rev().find(stranger).or_else(|| hops.next()).filter(|hop| !hop.is_empty())
    }

    /// Whether a trusted peer may send this name although it has an underscore.
    pub fn may_forward(&self, upper: &[u8]) -> bool {
        self.forwarder_headers.iter().any(|name| name == upper || name == b"*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(allow: &[&str]) -> Trust {
        let allow: Vec<String> = allow.iter().map(ToString::to_string).collect();
        Trust::new(&allow, vec![], vec![], "drop").unwrap()
    }

    #[test]
    fn networks_contain_what_they_should() {
        let rules = trust(&["10.0.0.0/8", "::1", "192.0.2.7"]);
        for (address, expected) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("::1", true),
            ("::2", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::ffff:10.1.2.3", true),
        ] {
            assert_eq!(rules.trusts(Some(address.parse().unwrap())), expected, "{address}");
        }
        assert!(rules.trusts(None));
        assert!(trust(&["*"]).trusts(Some("203.0.113.1".parse().unwrap())));
        assert!(!trust(&[]).trusts(Some("127.0.0.1".parse().unwrap())));
    }
}
