//! The loop, with an application written in Rust, on real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bicorn_reactor::bell::Bell;
use bicorn_reactor::clock::{HttpDate, monotonic_ns};
use bicorn_reactor::scoreboard::Slot;
use bicorn_reactor::{
    Application, Arrival, Core, Crew, Handler, Incident, Job, Left, Order, Orders, Outbox, Outcome,
    RequestBody, Server, Sources, Spool, SpoolRules, Timeouts, Unattached, Watch,
};
use bicorn_wire::{Origin, ProxyRules, Refusal, Rules, push_refusal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Threads of the crews that every test is run with.
const CREWS: [usize; 2] = [1, 3];

/// What the test and the application share.
#[derive(Default)]
struct Seen {
    pulls: AtomicUsize,
    busy: AtomicUsize,
    abandoned: AtomicUsize,
    /// How long the watch means to wait for its next look; `ASLEEP` until it is called.
    patience_ms: AtomicUsize,
}

const ASLEEP: usize = usize::MAX;

/// A streamed answer.
struct Blocks {
    left: usize,
    slow: bool,
}

struct Front {
    slot: Box<Slot>,
}

/// Answers `METHOD target body`; `/stream/N` streams N blocks of 64 KiB, `/slow-stream/N` makes many of them
/// at once and takes its time for it, `/busy` takes a while.
struct Echo {
    seen: Arc<Seen>,
}

const BLOCK: usize = 64 * 1024;
const BUSY: Duration = Duration::from_millis(600);
/// Long enough that others hold the loop meanwhile, and more than a socket takes at once.
const SLOW: Duration = Duration::from_millis(3);
const SLOW_BLOCKS: usize = 4;

fn body_bytes(body: RequestBody) -> (Vec<u8>, &'static str) {
    match body {
        RequestBody::Empty => (Vec::new(), "none"),
        RequestBody::Memory(bytes) => (bytes.to_vec(), "memory"),
        RequestBody::File(mut file, len) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, len);
            (bytes, "file")
        }
    }
}

impl Application for Front {
    type Chunk = Vec<u8>;
    type Stream = Blocks;
    type Peer = ();

    fn slot(&self) -> &Slot {
        &self.slot
    }

    fn peer(&mut self, _: usize, _: Option<SocketAddr>) {}

    fn movable(&self, (): &()) -> Option<(usize, Option<SocketAddr>)> {
        Some((0, None))
    }

    fn idle_siblings(&self) -> usize {
        0
    }

    fn siblings(&self) -> (usize, usize) {
        (0, 0)
    }

    fn has_ready_sibling(&self) -> bool {
        false
    }

    fn relays(&mut self, (): &mut (), origin: Origin) -> bool {
        origin.protocol() != "LOCAL"
    }

    fn refuse(&mut self, refusal: &Refusal, (): &mut (), outbox: &mut Outbox<Vec<u8>>) {
        outbox.push_with(|out| push_refusal(out, refusal.status, b"test", HttpDate::default().now(), true));
    }

    fn answer_late(&mut self, outbox: &mut Outbox<Vec<u8>>, with_body: bool) {
        outbox.push_with(|out| push_refusal(out, 504, b"test", HttpDate::default().now(), with_body));
    }

    fn incident(&mut self, incident: Incident) {
        panic!("{incident:?}");
    }

    fn arrival(&self, _: BorrowedFd<'_>) -> Arrival {
        Arrival::default()
    }

    fn recycle(&mut self) {}
}

impl Handler<Front> for Echo {
    fn call(&self, job: &mut Job<Front>) -> Outcome {
        let entered_ns = monotonic_ns();
        let request = &mut job.request;
        let target = String::from_utf8(request.head.target.of(&request.bytes).to_vec()).unwrap();
        let keep_alive = request.may_keep_alive && request.head.keep_alive;
        if target == "/busy" {
            self.seen.busy.fetch_add(1, SeqCst);
            std::thread::sleep(BUSY);
        }
        if let Some((kind, blocks)) = target.split_once("stream/") {
            let left: usize = blocks.parse().unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", left * BLOCK);
            job.outbox.push(head.as_bytes());
            job.stream = Some(Blocks { left, slow: kind == "/slow-" });
            return Outcome::More;
        }
        let (body, kept) = body_bytes(std::mem::take(&mut request.body));
        let text = format!("{target} {} {kept}", body.len());
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n", text.len());
        job.outbox.push(head.as_bytes());
        job.outbox.push_chunk(text.into_bytes());
        job.left = Some(Left { entered_ns, left_ns: monotonic_ns(), status: 200 });
        Outcome::Done { keep_alive }
    }

    fn pull(&self, job: &mut Job<Front>) -> Outcome {
        self.seen.pulls.fetch_add(1, SeqCst);
        let blocks = job.stream.as_mut().unwrap();
        if blocks.left == 0 {
            job.stream = None;
            return Outcome::Done { keep_alive: true };
        }
        let count = if blocks.slow { blocks.left.min(SLOW_BLOCKS) } else { 1 };
        if blocks.slow {
            std::thread::sleep(SLOW);
        }
        blocks.left -= count;
        job.outbox.push_chunk(vec![b'x'; count * BLOCK]);
        Outcome::More
    }

    fn abandon(&self, job: &mut Job<Front>) {
        job.stream = None;
        self.seen.abandoned.fetch_add(1, SeqCst);
    }
}

struct Running {
    address: SocketAddr,
    seen: Arc<Seen>,
    orders: Arc<Orders>,
    thread: JoinHandle<()>,
}

const TIMEOUTS: Timeouts = Timeouts {
    header_ms: 30_000,
    body_ms: 30_000,
    write_ms: 30_000,
    keepalive_ms: 30_000,
    linger_ms: 2_000,
    drain_idle_ms: 100,
};

fn start(threads: usize, timeouts: Timeouts) -> Running {
    start_behind(None, threads, timeouts)
}

fn start_behind(proxy: Option<ProxyRules>, threads: usize, timeouts: Timeouts) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, orders, thread) = serve(listener.into(), proxy, threads, timeouts);
    Running { address, seen, orders, thread }
}

fn serve(
    listener: OwnedFd,
    proxy: Option<ProxyRules>,
    threads: usize,
    timeouts: Timeouts,
) -> (Arc<Seen>, Arc<Orders>, JoinHandle<()>) {
    let seen = Arc::new(Seen::default());
    let orders = Arc::new(Orders::new().unwrap());
    let sources = Sources {
        listeners: vec![listener],
        wake: None,
        lifeline: None,
        orders: Arc::clone(&orders),
        shared: false,
        handover: None,
        connections_max: usize::MAX,
    };
    let spool = SpoolRules { body_bytes: 100_000, total_bytes: 1_000_000, directory: std::env::temp_dir() };
    let front = Front { slot: Box::new(Slot::default()) };
    let mut core = Core::new(front, Rules::default(), timeouts, Spool::new(spool), u64::MAX);
    core.proxy = proxy;
    let crew = Crew::new(Server::new(core, sources).unwrap(), Arc::clone(&orders), threads).unwrap();
    let echo = Echo { seen: Arc::clone(&seen) };
    (seen, orders, std::thread::spawn(move || run(&crew, &echo, threads)))
}

/// Runs a crew to its end, the calling thread being its watch.
fn run(crew: &Crew<Front>, echo: &Echo, threads: usize) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let look = |_| Ok::<(), Errno>(());
                crew.work(thread, &mut Unattached::default(), |job, _| job.run(echo), look).unwrap();
            });
        }
        let mut watch = Watch::new(crew);
        while !crew.has_ended() {
            let patience = watch.patience();
            let patience_ms = patience.map_or(ASLEEP, |patience| patience.as_millis() as usize);
            echo.seen.patience_ms.store(patience_ms, SeqCst);
            wait(watch.bell(), patience);
            watch.turn(&mut Unattached::default()).unwrap();
        }
    });
}

fn wait(bell: &Bell, patience: Option<Duration>) {
    let patience =
        patience.map(|patience| Timespec { tv_sec: 0, tv_nsec: i64::from(patience.subsec_nanos()) });
    poll(&mut [PollFd::new(bell, PollFlags::IN)], patience.as_ref()).unwrap();
}

impl Running {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn drain(self) -> Duration {
        let begun = Instant::now();
        self.orders.give(Order::Drain);
        self.thread.join().unwrap();
        begun.elapsed()
    }
}

/// Reads one answer with a Content-Length; gives its head and its body.
fn answer(stream: &mut impl Read) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

fn text(stream: &mut TcpStream) -> String {
    String::from_utf8(answer(stream).1).unwrap()
}

fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 16]), Ok(0))
}

#[test]
fn a_connection_serves_request_after_request_and_the_same_head_again() {
    for threads in CREWS {
        let server = start(threads, TIMEOUTS);
        let mut client = server.connect();
        for target in ["/a", "/a", "/b", "/a"] {
            write!(client, "GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            assert_eq!(text(&mut client), format!("{target} 0 none"));
        }
        server.drain();
    }
}

#[test]
fn a_proxy_header_may_come_before_the_first_request_however_it_is_cut() {
    let server = start_behind(Some(ProxyRules::default()), 1, TIMEOUTS);
    let request = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    for header in [&b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"[..], b"", b"\r\n\r\n"] {
        let bytes = [header, request, request].concat();
        for size in [1, 5, bytes.len()] {
            let mut client = server.connect();
            client.set_nodelay(true).unwrap();
            for piece in bytes.chunks(size) {
                client.write_all(piece).unwrap();
            }
            assert_eq!([text(&mut client), text(&mut client)], ["/a 0 none", "/a 0 none"]);
        }
    }
    server.drain();
}

#[test]
fn a_proxy_header_that_is_broken_or_not_allowed_is_refused_and_no_second_one_is_read() {
    let server = start_behind(Some(ProxyRules::default()), 1, TIMEOUTS);
    let unknown = "PROXY UNKNOWN\r\n";
    let local = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let twice = format!("{unknown}{unknown}");
    for (header, status) in [("PROXY nonsense\r\n", "400"), (local, "403"), (&*twice, "400")] {
        let mut client = server.connect();
        write!(client, "{header}GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let (head, _) = answer(&mut client);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(is_closed(&mut client));
    }
    server.drain();
}

#[test]
fn pipelined_requests_are_answered_in_order_behind_a_stream_too() {
    for threads in CREWS {
        let server = start(threads, TIMEOUTS);
        let mut client = server.connect();
        client
        .write_all(b"GET /stream/40 HTTP/1.1\r\nHost: h\r\n\r\nGET /1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
        assert_eq!(answer(&mut client).1.len(), 40 * BLOCK);
        assert_eq!(
            [text(&mut client), text(&mut client), text(&mut client)],
            ["/1 0 none", "/2 3 memory", "/3 0 none"]
        );
        server.drain();
    }
}

#[test]
fn a_body_that_comes_in_pieces_is_handed_over_whole() {
    for threads in CREWS {
        let server = start(threads, TIMEOUTS);
        for (size, kept) in [(3, "memory"), (100_000, "memory"), (100_001, "file"), (700_000, "file")] {
            let mut client = server.connect();
            write!(
                client,
                "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
            )
            .unwrap();
            let mut interim = [0; 25];
            client.read_exact(&mut interim).unwrap();
            assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
            client.write_all(&vec![b'b'; size]).unwrap();
            assert_eq!(text(&mut client), format!("/p {size} {kept}"));
        }
        server.drain();
    }
}

#[test]
fn a_reader_that_stops_reading_stops_its_own_stream_and_nobody_else() {
    for threads in CREWS {
        let server = start(threads, TIMEOUTS);
        let mut slow = server.connect();
        slow.write_all(b"GET /stream/4000 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut quick = server.connect();
        for _ in 0..100 {
            quick.write_all(b"GET /q HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            assert_eq!(text(&mut quick), "/q 0 none");
        }
        // 250 MiB were asked for; what the two socket buffers hold is all that was pulled.
        assert!(server.seen.pulls.load(SeqCst) < 1000, "{} pulls", server.seen.pulls.load(SeqCst));
        assert_eq!(answer(&mut slow).1.len(), 4000 * BLOCK);
        server.drain();
    }
}

/// The kernel says once that a socket takes bytes again, perhaps before the job is back that was told it does not.
#[test]
fn a_stream_goes_on_when_its_reader_reads_while_the_job_is_on_its_way_back() {
    let path = std::env::temp_dir().join(format!("bicorn-serving-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap(); // Its sockets take less at once than those of TCP.
    listener.set_nonblocking(true).unwrap();
    let (_, orders, thread) = serve(listener.into(), None, 3, TIMEOUTS);
    let readers: Vec<_> = (0..16)
        .map(|_| {
            let mut client = UnixStream::connect(&path).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client.write_all(b"GET /slow-stream/800 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            std::thread::spawn(move || answer(&mut client).1.len())
        })
        .collect();
    std::fs::remove_file(&path).unwrap();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 800 * BLOCK);
    }
    orders.give(Order::Drain);
    thread.join().unwrap();
}

#[test]
fn a_stream_whose_reader_is_gone_is_abandoned() {
    for threads in CREWS {
        let server = start(threads, TIMEOUTS);
        let mut client = server.connect();
        client.write_all(b"GET /stream/4000 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        client.read_exact(&mut [0; 100]).unwrap();
        drop(client); // Unread bytes make this a reset.
        let seen = Arc::clone(&server.seen);
        server.drain();
        assert_eq!(seen.abandoned.load(SeqCst), 1);
    }
}

#[test]
fn half_a_head_is_answered_408_in_time_and_silence_is_just_closed() {
    for threads in CREWS {
        let server = start(threads, Timeouts { header_ms: 300, ..TIMEOUTS });
        let mut half = server.connect();
        half.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
        let mut silent = server.connect();
        let (head, _) = answer(&mut half);
        assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
        assert!(is_closed(&mut half));
        assert!(is_closed(&mut silent));
        server.drain();
    }
}

#[test]
fn a_body_that_stops_coming_is_answered_408() {
    for threads in CREWS {
        let server = start(threads, Timeouts { body_ms: 300, ..TIMEOUTS });
        let mut client = server.connect();
        client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc").unwrap();
        assert!(answer(&mut client).0.starts_with("HTTP/1.1 408 "));
        server.drain();
    }
}

#[test]
fn a_refusal_is_read_even_by_a_client_that_is_still_sending() {
    for threads in CREWS {
        let server = start(threads, TIMEOUTS);
        let mut client = server.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n").unwrap();
        client.write_all(&vec![b'z'; 1 << 20]).unwrap();
        assert!(answer(&mut client).0.starts_with("HTTP/1.1 400 "));
        client.shutdown(Shutdown::Write).unwrap();
        assert!(is_closed(&mut client));
        server.drain();
    }
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    for threads in CREWS {
        let server = start(threads, TIMEOUTS);
        let mut client = server.connect();
        client.write_all(b"GET /half HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(text(&mut client), "/half 0 none");
        assert!(is_closed(&mut client));
        server.drain();
    }
}

#[test]
fn an_idle_connection_is_closed_after_its_keep_alive() {
    for threads in CREWS {
        let server = start(threads, Timeouts { keepalive_ms: 200, ..TIMEOUTS });
        let mut client = server.connect();
        client.write_all(b"GET /k HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(text(&mut client), "/k 0 none");
        assert!(is_closed(&mut client));
        server.drain();
    }
}

#[test]
fn a_drain_serves_what_has_begun_and_does_not_wait_for_the_idle() {
    for threads in CREWS {
        let server = start(threads, TIMEOUTS);
        let mut idle = server.connect();
        idle.write_all(b"GET /i HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(text(&mut idle), "/i 0 none");
        let mut busy = server.connect();
        busy.write_all(b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab").unwrap();
        // The idle client's answer above came after both were accepted or will be by the drain itself.
        let waiting = std::thread::spawn(move || {
            busy.write_all(b"cd").unwrap();
            answer(&mut busy)
        });
        let took = server.drain();
        let (head, body) = waiting.join().unwrap();
        assert!(body.starts_with(b"/b 4 "));
        assert!(head.contains("200 OK"));
        assert!(is_closed(&mut idle));
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[test]
fn what_came_while_an_application_held_the_loop_is_no_timeout() {
    for threads in CREWS {
        let timeouts = Timeouts { header_ms: 300, body_ms: 300, write_ms: 300, ..TIMEOUTS };
        let server = start(threads, timeouts);
        let mut upload = server.connect();
        upload.write_all(b"POST /u HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab").unwrap();
        let mut head = server.connect();
        head.write_all(b"GET /h HTTP/1.1\r\nHo").unwrap();
        let mut stream = server.connect();
        stream.write_all(b"GET /stream/400 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut busy = server.connect();
        busy.write_all(b"GET /busy HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let begun = Instant::now();
        while server.seen.busy.load(SeqCst) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        upload.write_all(b"cde").unwrap();
        head.write_all(b"st: h\r\n\r\n").unwrap();
        assert_eq!(answer(&mut stream).1.len(), 400 * BLOCK);
        assert_eq!(text(&mut upload), "/u 5 memory");
        assert_eq!(text(&mut head), "/h 0 none");
        assert_eq!(text(&mut busy), "/busy 0 none");
        server.drain();
    }
}

#[test]
fn a_thousand_pipelined_requests_take_turns_with_other_clients() {
    for threads in CREWS {
        let server = start(threads, TIMEOUTS);
        let mut flood = server.connect();
        flood.write_all(&b"GET /f HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1_000)).unwrap();
        let mut other = server.connect();
        other.write_all(b"GET /o HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(text(&mut other), "/o 0 none");
        for _ in 0..1_000 {
            assert_eq!(text(&mut flood), "/f 0 none");
        }
        server.drain();
    }
}

#[test]
fn requests_that_take_their_time_run_side_by_side() {
    let server = start(3, TIMEOUTS);
    let begun = Instant::now();
    let mut clients: Vec<TcpStream> = (0..6).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"GET /busy HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    }
    for client in &mut clients {
        assert_eq!(text(client), "/busy 0 none");
    }
    // Six of them, three at a time.
    assert!(begun.elapsed() < 3 * BUSY, "{:?}", begun.elapsed());
    assert!(begun.elapsed() >= 2 * BUSY, "{:?}", begun.elapsed());
    server.drain();
}

#[test]
fn bytes_move_while_every_thread_is_busy() {
    for threads in CREWS {
        let server = start(threads, Timeouts { header_ms: 200, ..TIMEOUTS });
        let mut busy: Vec<TcpStream> = (0..threads).map(|_| server.connect()).collect();
        for client in &mut busy {
            client.write_all(b"GET /busy HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        }
        let begun = Instant::now();
        while server.seen.busy.load(SeqCst) < threads {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        let mut half = server.connect();
        half.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
        assert!(answer(&mut half).0.starts_with("HTTP/1.1 408 "));
        assert!(begun.elapsed() < BUSY, "{:?}", begun.elapsed());
        for client in &mut busy {
            assert_eq!(text(client), "/busy 0 none");
        }
        server.drain();
    }
}

#[test]
fn a_watch_looks_less_often_while_all_goes_well_and_sleeps_when_nothing_goes_on() {
    let server = start(1, TIMEOUTS);
    let mut client = server.connect();
    let begun = Instant::now();
    let mut ask_until_the_watch_looks_every = |patience_ms| {
        while server.seen.patience_ms.load(SeqCst) != patience_ms {
            assert!(begun.elapsed() < Duration::from_secs(20));
            client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            assert_eq!(text(&mut client), "/ 0 none");
        }
    };
    ask_until_the_watch_looks_every(8);
    wait_for(&server.seen.patience_ms, ASLEEP);
    ask_until_the_watch_looks_every(8);
    let mut busy = server.connect();
    busy.write_all(b"GET /busy HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    wait_for(&server.seen.busy, 1);
    let entered = Instant::now();
    wait_for(&server.seen.patience_ms, 1);
    assert!(entered.elapsed() < BUSY, "{:?}", entered.elapsed());
    assert_eq!(text(&mut busy), "/busy 0 none");
    server.drain();
}

fn wait_for(count: &AtomicUsize, wanted: usize) {
    let begun = Instant::now();
    while count.load(SeqCst) != wanted {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
}
