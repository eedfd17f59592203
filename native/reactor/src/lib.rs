//! Sockets and time around the wire.
//!
//! Owns       the event loop, its timers, the connections and what waits to be sent on them.
//! Never      knows Python: what answers a request is a type parameter, [`Application`].
//! Invariant  no call here blocks except the one wait of the loop, and that wait is lent to the
//!            application so that it can let other threads run meanwhile.
#![forbid(unsafe_code)]

mod accepting;
pub mod application;
pub mod batches;
pub mod bell;
pub mod clock;
pub mod connection;
pub mod core;
pub mod crew;
mod departing;
mod ending;
pub mod exchange;
mod expiring;
pub mod gate;
pub mod handover;
pub mod inside;
pub mod intake;
pub mod job;
pub mod late;
pub mod orders;
pub mod outbox;
mod preamble;
pub mod respond;
pub mod scoreboard;
pub mod server;
mod siblings;
pub mod socket;
pub mod timer;
pub mod waiting;
pub mod watch;

pub use application::{Application, Arrival, Handler, Incident, Next, Outcome, Unattached, Waiter};
pub use core::{Core, Timeouts};
pub use crew::{Crew, Notice};
pub use gate::Gate;
pub use handover::Handover;
pub use intake::{RequestBody, Spool, SpoolRules};
pub use job::{Job, Left, Request, Task};
pub use orders::{Order, Orders};
pub use outbox::{Flush, Outbox};
pub use server::{Server, Sources};
pub use socket::Socket;
pub use watch::Watch;
