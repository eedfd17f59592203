//! Requests whose answer nobody waits for any more, and what is done for all connections of a worker that is about to be
//! killed because nobody gets through to its application.
//!
//! Owns       which connections are written off, and who of the others is answered and who is left to the next worker.
//! Never      runs a job: whatever holds the application may never let go of it.
//! Invariant  a connection whose application has sent something gets nothing from here: the socket's gate decides.

use std::os::fd::AsFd;

use rustix::net::{Shutdown, shutdown};

use crate::application::Application;
use crate::connection::Stage;
use crate::outbox::Outbox;
use crate::server::Server;
use crate::socket::Socket;
use crate::timer::Token;

impl<A: Application> Server<A> {
    /// The end of the loop does not wait for this connection: its job may never come back.
    pub fn write_off(&mut self, token: Token) {
        if let Some(connection) = self.connections.get_mut(token.key as usize)
            && connection.token == token
            && !connection.written_off
        {
            connection.gone = true;
            connection.written_off = true;
            self.written_off += 1;
        }
    }

    /// Answers every request of which nothing has been answered, whole or not, and leaves the connections between
    /// two requests to the worker that follows. Takes nothing in from then on.
    pub fn give_up(&mut self) {
        self.drain(0);
        self.leave_idle_behind();
        let tokens: Vec<Token> = self.connections.iter().map(|(_, connection)| connection.token).collect();
        for token in tokens {
            let connection = &mut self.connections[token.key as usize];
            match &connection.stage {
                Stage::Serving(_) if connection.socket.gate.is_taken() => {}
                Stage::Serving(_) => {
                    if connection.socket.gate.shut() {
                        self.core.app.answer_late(&mut self.core.outbox, !connection.bodiless);
                        send_last(&connection.socket, &mut self.core.outbox);
                    }
                    self.write_off(token);
                }
                Stage::Reading(_) => {
                    self.core.app.answer_late(&mut self.core.outbox, true);
                    send_last(&connection.socket, &mut self.core.outbox);
                    connection.stage = Stage::Lingering;
                    self.core.patience(connection, self.core.timeouts.linger_ms);
                }
                Stage::Preamble(_) | Stage::Idle | Stage::Responding(_) | Stage::Lingering => {}
            }
        }
    }
}

/// Sends an answer on which nothing follows.
pub fn send_last<C: AsRef<[u8]>>(socket: &Socket, outbox: &mut Outbox<C>) {
    // Nothing else is on its way: a socket that does not take so little is broken.
    let _ = outbox.flush(socket.as_fd(), |_| {});
    *outbox = Outbox::default();
    let _ = shutdown(socket, Shutdown::Write);
}
