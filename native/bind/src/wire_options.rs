//! The settings that decide how requests are read, whichever loop reads them.
//!
//! Owns       their conversion into the rules of `wire` and into whom to trust.
//! Never      knows a default: `bicorn.config` does.

use bicorn_wire::{Leniency, Limits, ProxyRules, Rules};
use pyo3::prelude::*;

use crate::trust::{AllowList, Trust};

/// Settings by their own names, out of the dictionary that a worker fills in.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct WireOptions {
    limit_request_line: usize,
    limit_request_fields: usize,
    limit_request_field_size: usize,
    limit_request_head: usize,
    limit_request_body: u64,
    limit_chunk_extension: usize,
    limit_request_trailers: usize,
    permit_obsolete_folding: bool,
    strip_header_spaces: bool,
    permit_unconventional_http_method: bool,
    permit_unconventional_http_version: bool,
    /// Methods are put in upper case.
    pub casefold_http_method: bool,
    header_map: String,
    forwarder_headers: Vec<String>,
    forwarded_allow_ips: Vec<String>,
    secure_scheme_headers: Vec<(String, String)>,
    proxy_protocol: String,
    proxy_allow_ips: Vec<String>,
    limit_proxy_header: usize,
}

/// Seconds as milliseconds; 0 stands for "no timeout" where `unbounded` says so.
pub fn milliseconds(seconds: f64, unbounded: bool) -> u64 {
    if unbounded && seconds == 0.0 { u64::MAX } else { (seconds * 1_000.0) as u64 }
}

impl WireOptions {
    /// How large and how sloppy a request may be.
    pub fn rules(&self) -> Rules {
        Rules {
            limits: Limits {
                request_line_bytes: self.limit_request_line,
                field_bytes: self.limit_request_field_size,
                fields: self.limit_request_fields,
                head_bytes: self.limit_request_head,
                body_bytes: self.limit_request_body,
                chunk_extension_bytes: self.limit_chunk_extension,
                trailer_bytes: self.limit_request_trailers,
                trailer_fields: self.limit_request_fields,
            },
            leniency: Leniency {
                obsolete_folding: self.permit_obsolete_folding,
                header_spaces: self.strip_header_spaces,
                unconventional_method: self.permit_unconventional_http_method,
                unconventional_version: self.permit_unconventional_http_version,
                casefold_method: self.casefold_http_method,
            },
        }
    }

    /// What of the PROXY protocol is looked for, if any of it is.
    pub fn proxy_rules(&self) -> Option<ProxyRules> {
        let v1 = matches!(&*self.proxy_protocol, "v1" | "auto");
        let v2 = matches!(&*self.proxy_protocol, "v2" | "auto");
        (v1 || v2).then_some(ProxyRules { v1, v2, header_bytes: self.limit_proxy_header })
    }

    /// Who may send a PROXY header.
    pub fn proxies(&self) -> PyResult<AllowList> {
        AllowList::new(&self.proxy_allow_ips)
    }

    /// Who may speak for others.
    pub fn trust(&self) -> PyResult<Trust> {
        Trust::new(
            &self.forwarded_allow_ips,
            self.secure_scheme_headers.clone(),
            self.forwarder_headers.clone(),
            &self.header_map,
        )
    }
}
