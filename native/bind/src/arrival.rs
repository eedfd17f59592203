//! What the kernel knows of a request that waits: since when, and whether its client still does.
//!
//! Owns       the reading of TCP_INFO (tcp(7)), which also covers the time in the listen queue.
//! Never      reads from the socket: what a client has sent early is the loop's.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use bicorn_reactor::Arrival;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A client that closes its side so long after its last data did not do so to mark the end of its requests.
const LEFT_EARLY_MS: u32 = 500;

/// States of a TCP connection, as the kernel numbers them (include/net/tcp_states.h).
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;

/// What is known of the last bytes that came here, and of whoever sent them.
pub fn arrival(socket: BorrowedFd<'_>) -> Arrival {
    let Some(info) = tcp_info(socket) else {
        return Arrival { gone: has_hung_up(socket), ..Arrival::default() };
    };
    // The end of the stream is no data, but it came in a segment, and each segment acknowledges something.
    let left_after_ms = info.tcpi_last_data_recv.saturating_sub(info.tcpi_last_ack_recv);
    Arrival {
        silent_ns: u64::from(info.tcpi_last_data_recv) * 1_000_000,
        left_early: info.tcpi_state == TCP_CLOSE_WAIT && left_after_ms > LEFT_EARLY_MS,
        gone: info.tcpi_state == TCP_CLOSE,
    }
}

fn tcp_info(socket: BorrowedFd<'_>) -> Option<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into a structure of that size, in which zeros are valid.
    unsafe {
        let got = libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        );
        (got == 0).then(|| info.assume_init())
    }
}

/// A unix socket tells a closed peer from one that only ended its side.
fn has_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut watched = [PollFd::new(&socket, PollFlags::empty())];
    poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok()
        && watched[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}
