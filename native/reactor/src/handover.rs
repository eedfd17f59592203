//! Connections that change workers: the queue between the workers of one arbiter.
//!
//! Owns       the message that a connection travels in, and both ends of the queue.
//! Never      decides who gives and who takes.
//! Invariant  a message carries one descriptor and what the next worker cannot ask the kernel for. It is
//!            written and read by the same build of the same program, whose arbiter made the queue.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Longest message: four bytes, an address, a listener's name.
const MESSAGE_BYTES_MAX: usize = 4 + 18 + 255;

/// Room for one descriptor.
const ROOM: usize = rustix::cmsg_space!(ScmRights(1));

/// The queue: a pair of connected sockets whose messages stay whole (`SOCK_SEQPACKET`), shared by all
/// workers.
#[derive(Debug)]
pub struct Handover {
    /// Where connections are put in.
    pub put: OwnedFd,
    /// Where they come out.
    pub take: OwnedFd,
    /// Names of the listeners, in the order of their indexes. Workers of two generations may know
    /// different ones.
    pub listeners: Vec<String>,
}

/// A connection on its way to another worker.
#[derive(Debug)]
pub struct Moving<S> {
    /// The socket.
    pub socket: S,
    /// It has served a request already.
    pub served: bool,
    /// Index of the listener it came in on.
    pub listener: usize,
    /// The peer's address, if it has one.
    pub address: Option<SocketAddr>,
}

impl Handover {
    /// Puts a connection into the queue; whoever does that closes its own descriptor then. Allocates nothing, so
    /// that a signal handler may.
    ///
    /// # Errors
    /// `AGAIN` when the queue is full; what the kernel said otherwise.
    pub fn put(&self, moving: &Moving<BorrowedFd<'_>>) -> Result<(), Errno> {
        let name = self.listeners.get(moving.listener).map_or("", String::as_str);
        let name = &name.as_bytes()[..name.len().min(255)];
        let mut octets = [0; 18];
        let (kind, count) = match moving.address.map(|address| (address.ip(), address.port().to_be_bytes())) {
            None => (0, 0),
            Some((IpAddr::V4(ip), port)) => (4, fill(&mut octets, &[&ip.octets(), &port])),
            Some((IpAddr::V6(ip), port)) => (6, fill(&mut octets, &[&ip.octets(), &port])),
        };
        let head = [u8::from(moving.served), kind, count as u8, name.len() as u8];
        let mut message = [0; MESSAGE_BYTES_MAX];
        let length = fill(&mut message, &[&head, &octets[..count], name]);
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut rights = SendAncillaryBuffer::new(&mut room);
        let descriptors = [moving.socket];
        if !rights.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Errno::NOBUFS);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.put, &[IoSlice::new(&message[..length])], &mut rights, flags).map(drop)
    }

    /// Whether nothing waits in the queue.
    pub fn is_empty(&self) -> bool {
        let mut ends = [PollFd::new(&self.take, PollFlags::IN)];
        poll(&mut ends, Some(&Timespec::default())) == Ok(0)
    }

    /// Takes the next connection out.
    ///
    /// # Errors
    /// `AGAIN` when there is none; `PROTO` for a message that is none of ours.
    pub fn take(&self) -> Result<Moving<OwnedFd>, Errno> {
        // Without a descriptor left the kernel would drop the connection: it waits for somebody else then.
        drop(rustix::io::fcntl_dupfd_cloexec(&self.take, 0)?);
        let mut message = [0; MESSAGE_BYTES_MAX];
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut rights = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(&self.take, &mut [IoSliceMut::new(&mut message)], &mut rights, flags)?;
        let mut socket = None;
        for control in rights.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = control {
                socket = descriptors.into_iter().next();
            }
        }
        let socket = socket.ok_or(Errno::PROTO)?;
        self.read(&message[..received.bytes], socket).ok_or(Errno::PROTO)
    }

    fn read(&self, message: &[u8], socket: OwnedFd) -> Option<Moving<OwnedFd>> {
        let (&[served, kind, octets, name], rest) = message.split_first_chunk::<4>()?;
        let (octets, rest) = rest.split_at_checked(usize::from(octets))?;
        let name = rest.get(..usize::from(name))?;
        let address = match kind {
            4 => Some(address::<4>(octets)?),
            6 => Some(address::<16>(octets)?),
            _ => None,
        };
        let listener = self.listeners.iter().position(|known| known.as_bytes() == name).unwrap_or(0);
        Some(Moving { socket, served: served != 0, listener, address })
    }

    /// The end to wait on.
    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        self.take.as_fd()
    }
}

/// Writes the pieces one behind the other, and says how far they reach.
fn fill(room: &mut [u8], pieces: &[&[u8]]) -> usize {
    let mut at = 0;
    for piece in pieces {
        room[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    at
}

fn address<const N: usize>(octets: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let (ip, port) = octets.split_first_chunk::<N>()?;
    Some(SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(port.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn queue() -> Handover {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (put, take) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        Handover { put, take, listeners: vec!["a:1".into(), "[::]:8000".into()] }
    }

    #[test]
    fn a_connection_comes_out_as_it_was_put_in() {
        let queue = queue();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        for address in [None, Some("192.0.2.1:80"), Some("[2001:db8::1]:65535")] {
            let address = address.map(|text| text.parse().unwrap());
            queue.put(&Moving { socket: ours.as_fd(), served: true, listener: 1, address }).unwrap();
            let moved = queue.take().unwrap();
            assert_eq!((moved.served, moved.listener, moved.address), (true, 1, address));
            rustix::io::write(&moved.socket, b"x").unwrap();
            rustix::io::read(&theirs, &mut [0; 1][..]).unwrap();
        }
        assert_eq!(queue.take().unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn an_unknown_listener_is_taken_for_the_first() {
        let mut queue = queue();
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        queue.put(&Moving { socket: ours.as_fd(), served: false, listener: 1, address: None }).unwrap();
        queue.listeners.pop();
        assert_eq!(queue.take().unwrap().listener, 0);
    }

    #[test]
    fn a_full_queue_says_so() {
        let queue = queue();
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let moving = Moving { socket: ours.as_fd(), served: false, listener: 0, address: None };
        let full = (0..100_000).find_map(|_| queue.put(&moving).err());
        assert!(matches!(full, Some(Errno::AGAIN | Errno::TOOMANYREFS)), "{full:?}");
    }
}
