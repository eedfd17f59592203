//! What the loop knows of a WSGI worker: who may connect as whom, and how a refusal looks.
//!
//! Owns       the answers that no application gives.
//! Never      calls the application; takes the interpreter lock only to write a log line.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bicorn_reactor::clock::HttpDate;
use bicorn_reactor::scoreboard::Slot as Row;
use bicorn_reactor::{Application, Arrival, Incident, Outbox};
use bicorn_wire::{Origin, Refusal, RefusalKind};
use pyo3::prelude::*;

use crate::arrival::arrival;
use crate::chunk::Chunk;
use crate::peer::Peer;
use crate::trust::AllowList;
use crate::wsgi::{Stream, Wsgi, push_error};

/// The worker, as its loop sees it.
pub struct Front {
    wsgi: Arc<Wsgi>,
    /// Who may send a PROXY header.
    proxies: AllowList,
    date: HttpDate,
}

impl Front {
    /// The front of a worker.
    pub fn new(wsgi: Arc<Wsgi>, proxies: AllowList) -> Self {
        Self { wsgi, proxies, date: HttpDate::default() }
    }
}

impl Application for Front {
    type Chunk = Chunk;
    type Stream = Stream;
    type Peer = Box<Peer>;

    #[inline]
    fn slot(&self) -> &Row {
        self.wsgi.slot()
    }

    fn peer(&mut self, listener: usize, address: Option<SocketAddr>) -> Box<Peer> {
        Box::new(Peer::new(listener, address, |address| self.wsgi.trusts(address)))
    }

    fn relays(&mut self, peer: &mut Box<Peer>, origin: Origin) -> bool {
        let allowed = self.proxies.allows(peer.address.map(|address| address.ip()));
        if allowed {
            peer.origin = Some(origin);
        }
        allowed
    }

    fn movable(&self, peer: &Box<Peer>) -> Option<(usize, Option<SocketAddr>)> {
        // What a PROXY header said does not travel: such a connection stays.
        peer.origin.is_none().then_some((peer.listener, peer.address))
    }

    fn idle_siblings(&self) -> usize {
        self.wsgi.siblings().filter(|row| row.is_idle()).count()
    }

    fn siblings(&self) -> (usize, usize) {
        self.wsgi.share()
    }

    fn has_ready_sibling(&self) -> bool {
        self.wsgi.siblings().next().is_some()
    }

    fn refuse(&mut self, refusal: &Refusal, peer: &mut Box<Peer>, outbox: &mut Outbox<Chunk>) {
        push_error(outbox, refusal.status, self.wsgi.server(), self.date.now(), !refusal.to_head);
        Python::attach(|py| match refusal.kind {
            RefusalKind::WaitedTooLong | RefusalKind::TooManyAtOnce => {
                self.wsgi.report(py, "request_turned_away", (peer.address_text(), refusal.kind.text()));
            }
            _ => {
                let told = (peer.address_text(), refusal.status, refusal.to_string());
                self.wsgi.report(py, "request_refused", told);
            }
        });
    }

    fn answer_late(&mut self, outbox: &mut Outbox<Chunk>, with_body: bool) {
        push_error(outbox, 504, self.wsgi.server(), self.date.now(), with_body);
    }

    fn arrival(&self, socket: BorrowedFd<'_>) -> Arrival {
        arrival(socket)
    }

    fn incident(&mut self, incident: Incident) {
        let (method, why) = match incident {
            Incident::Accept(errno) => ("accept_failed", std::io::Error::from(errno)),
            Incident::Spool(error) => ("spool_failed", error),
        };
        Python::attach(|py| self.wsgi.report(py, method, (why.to_string(),)));
    }

    fn recycle(&mut self) {
        Python::attach(|py| self.wsgi.report(py, "recycle", ()));
    }
}
