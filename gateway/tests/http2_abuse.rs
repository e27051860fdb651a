//! Visitors who misuse HTTP/2, frame by frame: what they cost is bounded, they are told to calm down, and others don't notice.

#![allow(clippy::panic, reason = "a failed test shows why")]
#![allow(clippy::float_cmp, reason = "counters are whole numbers")]

#[path = "common/raw.rs"]
mod raw;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use frp_gateway_loadtest::{
    demo::DemoApp,
    lab::{Gateway, until},
};
use raw::{SOON, gateway};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

/// RFC 9113 §7.
const NO_ERROR: u32 = 0;
const FLOW_CONTROL_ERROR: u32 = 3;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 0xee;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header block by HPACK (RFC 7541) for this path, without dynamic entries.
fn block(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x86];
    for (index, value) in [(0x04, path), (0x01, "app.test")] {
        block.extend_from_slice(&[index, u8::try_from(value.len()).expect("short")]);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(GET, path))
}

fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(POST, path))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// What has come on a connection.
#[derive(Debug, Default, Clone)]
struct Seen {
    /// Frames by type.
    frames: BTreeMap<u8, usize>,
    /// First bytes of each stream's first header block: `:status`, where it is one of the table's.
    heads: BTreeMap<u32, Vec<u8>>,
    /// Error codes of streams.
    resets: BTreeMap<u32, u32>,
    /// Streams that ended well.
    ended: usize,
    /// PINGs of ours that were answered.
    pongs: usize,
    /// Error code of the last GOAWAY.
    goaway: Option<u32>,
    /// The connection is gone.
    over: bool,
}

/// A visitor that writes frames as it likes, and reads all that comes.
struct Visitor {
    write: OwnedWriteHalf,
    seen: watch::Receiver<Seen>,
    reader: JoinHandle<()>,
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Visitor {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("in");
        stream.set_nodelay(true).expect("a socket");
        let (read, mut write) = stream.into_split();
        let (tell, seen) = watch::channel(Seen::default());
        let reader = tokio::spawn(async move {
            drop(watch_frames(read, &tell).await);
            tell.send_modify(|seen| seen.over = true);
        });
        write.write_all(PREFACE).await.expect("sent");
        write.write_all(&frame(SETTINGS, 0, 0, &[])).await.expect("sent");
        // All of a connection's answers have room.
        write.write_all(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0])).await.expect("sent");
        Self { write, seen, reader }
    }

    /// False once the connection takes no more.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        timeout(SOON, self.write.write_all(bytes)).await.is_ok_and(|sent| sent.is_ok())
    }

    async fn wait(&mut self, what: &str, condition: impl Fn(&Seen) -> bool) -> Seen {
        let reached = timeout(SOON, self.seen.wait_for(|seen| condition(seen) || seen.over)).await;
        let seen = reached.map(|seen| seen.expect("a reader").clone());
        let seen = seen.unwrap_or_else(|_| panic!("{what}: {:?}", self.seen.borrow()));
        assert!(condition(&seen), "{what}: {seen:?}");
        seen
    }

    /// Sends this again and again until the connection is over, at most `most` times; what had come then.
    async fn flood(mut self, most: u32, mut part: impl FnMut(u32) -> Vec<u8>) -> Seen {
        for number in 0..most {
            if self.seen.borrow().over || !self.send(&part(number)).await {
                break;
            }
        }
        self.wait("the connection ends", |seen| seen.over).await
    }

    /// Waits until all that was sent has been looked at.
    async fn settle(&mut self) {
        let before = self.seen.borrow().pongs;
        assert!(self.send(&frame(PING, 0, 0, &[7; 8])).await, "{:?}", self.seen.borrow());
        self.wait("an answered PING", |seen| seen.pongs > before).await;
    }
}

async fn watch_frames(mut read: OwnedReadHalf, tell: &watch::Sender<Seen>) -> std::io::Result<()> {
    loop {
        let mut header = [0; 9];
        read.read_exact(&mut header).await?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let (kind, flags) = (header[3], header[4]);
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        let mut payload = vec![0; usize::try_from(length).expect("small")];
        read.read_exact(&mut payload).await?;
        let code = |at: usize| payload.get(at..at + 4).and_then(|code| code.try_into().ok());
        tell.send_modify(|seen| {
            *seen.frames.entry(kind).or_default() += 1;
            match kind {
                HEADERS if !seen.heads.contains_key(&stream) => {
                    seen.heads.insert(stream, payload.clone());
                }
                RST_STREAM => {
                    seen.resets.insert(stream, u32::from_be_bytes(code(0).expect("a code")));
                }
                PING if flags & ACK != 0 => seen.pongs += 1,
                GOAWAY => seen.goaway = Some(u32::from_be_bytes(code(4).expect("a code"))),
                _ => {}
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                seen.ended += 1;
            }
        });
    }
}

struct World {
    gateway: Gateway,
    address: SocketAddr,
    app: DemoApp,
}

impl World {
    async fn start(listener: &str) -> Self {
        let app = DemoApp::start("one").expect("it starts");
        let frps = format!("{{ name: a, host: 127.0.0.1, vhost_http_port: {} }}", app.addr().port());
        let clear = format!("{{ name: clear, bind: \"127.0.0.1:0\", protocol: http, http2: on{listener} }}");
        let gateway = gateway(&[frps], &[&clear], "pools: [ { name: p, frps: [a] } ]").await;
        let address = gateway.listener("clear").await.expect("it listens");
        Self { gateway, address, app }
    }

    async fn visitor(&self) -> Visitor {
        Visitor::connect(self.address).await
    }

    async fn floods(&self) -> f64 {
        let value = self.gateway.metric("frp_gateway_http2_floods_total", &["listener=\"clear\""]).await;
        value.expect("metrics").unwrap_or_default()
    }

    async fn memory(&self) -> f64 {
        let value = self.gateway.metric("process_resident_memory_bytes", &[]).await;
        value.expect("metrics").expect("it is told")
    }

    /// Waits until no request is at the application.
    async fn idle(&self) {
        until("nothing in flight", SOON, async || {
            let value = self.gateway.metric("frp_gateway_endpoint_in_flight", &[]).await.ok()??;
            (value == 0.0).then_some(())
        })
        .await
        .expect("all are given up");
    }

    /// Another visitor, who goes on asking until told to end; how many answers, all of them good.
    fn neighbour(&self) -> Neighbour {
        let (address, (end, ended)) = (self.address, watch::channel(false));
        let task = tokio::spawn(async move {
            let mut visitor = Visitor::connect(address).await;
            let mut stream = 1;
            while !*ended.borrow() {
                assert!(visitor.send(&get(stream, "/")).await, "{:?}", visitor.seen.borrow());
                let seen = visitor
                    .wait("an answer", |seen| seen.ended > usize::try_from(stream / 2).expect("small"))
                    .await;
                assert_eq!(seen.heads[&stream][0], 0x88, "200 on stream {stream}");
                stream += 2;
            }
            stream / 2
        });
        Neighbour { end, task }
    }
}

struct Neighbour {
    end: watch::Sender<bool>,
    task: JoinHandle<u32>,
}

impl Neighbour {
    async fn unharmed(self) {
        self.end.send_replace(true);
        let served = timeout(SOON, self.task).await.expect("in time").expect("every request answered");
        assert!(served > 0, "it was served");
    }
}

#[tokio::test]
async fn floods_of_frames_that_bring_nothing_end_the_connection_and_harm_nobody_else() {
    let world = World::start("").await;
    let neighbour = world.neighbour();
    let before = world.memory().await;
    let repeated = |frame: Vec<u8>| frame.repeat(100);
    let floods = [
        ("PING", repeated(frame(PING, 0, 0, &[1; 8]))),
        ("answers to no PING", repeated(frame(PING, ACK, 0, &[1; 8]))),
        ("empty SETTINGS", repeated(frame(SETTINGS, 0, 0, &[]))),
        (
            "windows back and forth",
            [[0, 4, 0, 0, 0, 1], [0, 4, 0, 1, 0, 0]]
                .iter()
                .flat_map(|setting| frame(SETTINGS, 0, 0, setting))
                .collect::<Vec<_>>()
                .repeat(50),
        ),
        ("WINDOW_UPDATE", repeated(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("PRIORITY", repeated(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]))),
        ("unknown", repeated(frame(UNKNOWN, 0, 0, &[]))),
    ];
    let mut count = 0.0;
    for (name, part) in floods {
        let seen = world.visitor().await.flood(100_000, |_| part.clone()).await;
        assert_eq!(seen.goaway, Some(ENHANCE_YOUR_CALM), "{name}: {seen:?}");
        let answers = seen.frames.values().sum::<usize>();
        assert!(answers < 10_000, "{name}: {answers} frames in return");
        count += 1.0;
        assert_eq!(world.floods().await, count, "{name} is counted");
    }
    let grown = world.memory().await - before;
    assert!(grown < 16e6, "{grown} bytes more");
    neighbour.unharmed().await;
}

#[tokio::test]
async fn data_frames_without_data_end_the_connection() {
    let world = World::start("").await;
    let neighbour = world.neighbour();
    let mut visitor = world.visitor().await;
    assert!(visitor.send(&post(1, "/echo")).await);
    let seen = visitor.flood(100_000, |_| frame(DATA, 0, 1, &[]).repeat(100)).await;
    assert_eq!(seen.goaway, Some(ENHANCE_YOUR_CALM), "{seen:?}");
    assert_eq!(world.floods().await, 1.0);
    neighbour.unharmed().await;
}

#[tokio::test]
async fn rapid_resets_end_the_connection_before_they_cost_much() {
    let world = World::start("").await;
    let neighbour = world.neighbour();
    // Many in one packet: none has been looked at when its reset comes.
    let seen = world
        .visitor()
        .await
        .flood(10_000, |number| {
            (0..100)
                .flat_map(|at| {
                    let stream = 2 * (number * 100 + at) + 1;
                    [get(stream, "/hang"), reset(stream)].concat()
                })
                .collect()
        })
        .await;
    assert_eq!(seen.goaway, Some(ENHANCE_YOUR_CALM), "{seen:?}");
    assert_eq!(world.floods().await, 1.0);
    neighbour.unharmed().await;
}

#[tokio::test]
async fn resets_of_requests_under_way_end_the_connection_too() {
    let world = World::start("").await;
    let mut visitor = world.visitor().await;
    let mut count = 0;
    while count < 10_000 && !visitor.seen.borrow().over {
        let stream = 2 * count + 1;
        // The PING's answer shows that the request has been taken.
        if !visitor.send(&[get(stream, "/hang"), frame(PING, 0, 0, &[1; 8])].concat()).await {
            break;
        }
        let pongs = usize::try_from(count).expect("small") + 1;
        drop(timeout(SOON, visitor.seen.wait_for(|seen| seen.over || seen.pongs >= pongs)).await);
        if !visitor.send(&reset(stream)).await {
            break;
        }
        count += 1;
    }
    let seen = visitor.wait("the connection ends", |seen| seen.over).await;
    assert_eq!(seen.goaway, Some(ENHANCE_YOUR_CALM), "{count}: {seen:?}");
    let reached = world.app.requests();
    assert!(reached < 5_000, "{reached} requests went to the application");
    world.idle().await;
}

#[tokio::test]
async fn streams_that_we_are_made_to_reset_end_the_connection() {
    let world = World::start("").await;
    // A window that overflows is an error of the stream, which we must reset: it counts for no limit of streams.
    let seen = world
        .visitor()
        .await
        .flood(20_000, |number| {
            let stream = 2 * number + 1;
            [get(stream, "/hang"), frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff])].concat()
        })
        .await;
    assert_eq!(seen.goaway, Some(ENHANCE_YOUR_CALM), "{seen:?}");
    assert!(seen.resets.len() < 2_000, "{} resets", seen.resets.len());
    // The first hundred; those are still open for the application, so that the rest is refused.
    let codes = seen.resets.values();
    assert!(codes.clone().all(|code| [FLOW_CONTROL_ERROR, REFUSED_STREAM].contains(code)), "{codes:?}");
}

#[tokio::test]
async fn a_stream_that_we_are_made_to_reset_is_given_up_at_the_application() {
    let world = World::start("").await;
    let mut visitor = world.visitor().await;
    let mistakes = [
        ("a window that overflows", get(1, "/hang"), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])),
        ("trailers that don't end it", post(3, "/hang"), post(3, "/hang")),
    ];
    for (number, (name, request, mistake)) in mistakes.into_iter().enumerate() {
        assert!(visitor.send(&request).await, "{name}");
        until("it is at the application", SOON, async || {
            let value = world.gateway.metric("frp_gateway_endpoint_in_flight", &[]).await.ok()??;
            (value >= 1.0).then_some(())
        })
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(visitor.send(&mistake).await, "{name}");
        visitor.wait(name, |seen| seen.resets.len() > number).await;
        world.idle().await;
    }
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_the_rest_is_served() {
    let world = World::start("").await;
    let mut visitor = world.visitor().await;
    let all: Vec<u8> = (0..130).flat_map(|at| get(2 * at + 1, "/slow?ms=500")).collect();
    assert!(visitor.send(&all).await);
    let seen = visitor.wait("answers", |seen| seen.ended + seen.resets.len() == 130).await;
    assert_eq!((seen.ended, seen.resets.len()), (100, 30), "{seen:?}");
    assert!(seen.resets.values().all(|code| *code == REFUSED_STREAM), "{:?}", seen.resets);
    assert!(visitor.send(&get(1001, "/")).await);
    let seen = visitor.wait("an answer", |seen| seen.ended == 101).await;
    assert_eq!(seen.heads[&1001][0], 0x88, "200");
}

#[tokio::test]
async fn heads_without_end_end_the_connection_in_bounded_memory() {
    let world = World::start("").await;
    let neighbour = world.neighbour();
    let before = world.memory().await;
    // Empty ones, small ones, and large ones.
    for length in [0, 1, 16_000] {
        let mut visitor = world.visitor().await;
        assert!(visitor.send(&frame(HEADERS, END_STREAM, 1, &block(GET, "/"))).await);
        // A literal field, never indexed, without a value.
        let part = match length {
            0 => vec![],
            1 => vec![0x10, 1, b'a', 0],
            _ => [&[0x10, 0x7f, 0x81, 0x7c][..], &[b'a'; 16_000], &[0]].concat(),
        };
        let seen = visitor.flood(100_000, |_| frame(CONTINUATION, 0, 1, &part)).await;
        assert!(seen.goaway.is_some_and(|code| code != NO_ERROR), "{length}: {seen:?}");
        assert!(!seen.heads.contains_key(&1), "{length}: no half request is served");
    }
    assert!(world.floods().await >= 2.0, "{}", world.floods().await);
    let grown = world.memory().await - before;
    assert!(grown < 16e6, "{grown} bytes more");
    neighbour.unharmed().await;
}

#[tokio::test]
async fn a_small_head_that_unpacks_to_a_large_one_is_refused_in_bounded_memory() {
    let world = World::start("").await;
    let neighbour = world.neighbour();
    let before = world.memory().await;
    for _ in 0..20 {
        let mut visitor = world.visitor().await;
        // A field of 4,000 bytes goes to the table; from there it costs a byte each time.
        let field = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'b'; 4000]].concat();
        let first = [block(GET, "/"), field].concat();
        assert!(visitor.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &first)).await);
        visitor.wait("an answer", |seen| seen.ended == 1).await;
        let bomb = [block(GET, "/"), vec![0xbe; 16_000]].concat();
        assert!(visitor.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &bomb)).await);
        let seen = visitor.wait("a refusal", |seen| seen.over || seen.heads.contains_key(&3)).await;
        let status = seen.heads.get(&3).map(|head| head[0]);
        assert!(seen.goaway == Some(ENHANCE_YOUR_CALM) || status != Some(0x88), "{seen:?}");
    }
    let grown = world.memory().await - before;
    assert!(grown < 16e6, "{grown} bytes more");
    neighbour.unharmed().await;
}

#[tokio::test]
async fn too_many_fields_are_answered_and_the_connection_goes_on() {
    let world = World::start("").await;
    let mut visitor = world.visitor().await;
    let many = [block(GET, "/"), [0x10, 1, b'a', 0].repeat(150)].concat();
    assert!(visitor.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &many)).await);
    let seen = visitor.wait("an answer", |seen| seen.heads.contains_key(&1)).await;
    assert_ne!(seen.heads[&1][0], 0x88, "not 200");
    assert!(visitor.send(&get(3, "/")).await);
    let seen = visitor.wait("an answer", |seen| seen.heads.contains_key(&3)).await;
    assert_eq!(seen.heads[&3][0], 0x88, "200");
}

#[tokio::test]
async fn who_says_nothing_or_half_of_it_is_let_go() {
    let world = World::start(", timeouts: { header: 500ms, idle: 700ms }").await;
    let half = frame(HEADERS, END_STREAM, 1, &block(GET, "/"));
    let whole = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    let beginnings = [
        ("nothing", vec![]),
        ("half a preface", PREFACE[..10].to_vec()),
        ("no SETTINGS", PREFACE.to_vec()),
        ("no request", whole.clone()),
        ("half a frame", [&whole[..], &get(1, "/")[..12]].concat()),
        ("half a head", [&whole[..], &half].concat()),
        ("a request, and then nothing", [&whole[..], &get(1, "/")].concat()),
    ];
    for (name, bytes) in beginnings {
        let mut stream = TcpStream::connect(world.address).await.expect("in");
        stream.write_all(&bytes).await.expect("sent");
        // It answers neither SETTINGS nor PING.
        let mut all = Vec::new();
        let end = timeout(SOON, stream.read_to_end(&mut all)).await;
        assert!(end.is_ok(), "{name}: still open");
    }
    until("none is open", SOON, async || {
        let open =
            world.gateway.metric("frp_gateway_connections_open", &["listener=\"clear\""]).await.ok()??;
        (open == 0.0).then_some(())
    })
    .await
    .expect("all are let go");
}

#[tokio::test]
async fn pings_alone_keep_no_connection_open() {
    let world = World::start(", timeouts: { header: 500ms, idle: 500ms }").await;
    let mut visitor = world.visitor().await;
    let end = async {
        while !visitor.seen.borrow().over && visitor.send(&frame(PING, 0, 0, &[1; 8])).await {
            let pongs = visitor.seen.borrow().pongs;
            let answered = visitor.seen.wait_for(|seen| seen.over || seen.pongs > pongs);
            drop(timeout(Duration::from_millis(50), answered).await);
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, end).await.expect("it ends");
    let seen = visitor.wait("an end", |seen| seen.over).await;
    assert!(seen.goaway.is_some(), "{seen:?}");
}

#[tokio::test]
async fn who_takes_nothing_costs_bounded_memory_and_is_let_go() {
    let world = World::start(", timeouts: { header: 5s, idle: 5s, stream_idle: 2s }").await;
    let neighbour = world.neighbour();
    let before = world.memory().await;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(world.address).await.expect("in");
        // Windows as large as they come, and 50 answers of 10 MB that nobody reads.
        let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])].concat();
        bytes.extend_from_slice(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]));
        bytes.extend((0..50).flat_map(|at| get(2 * at + 1, "/bytes/10000000")));
        stream.write_all(&bytes).await.expect("sent");
        stuck.push(stream);
    }
    let open =
        async || world.gateway.metric("frp_gateway_connections_open", &["listener=\"clear\""]).await.ok()?;
    let mut most = before;
    until("only the neighbour is left", 3 * SOON, async || {
        most = most.max(world.memory().await);
        (open().await? <= 1.0).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}"));
    // A stream may keep 64 KiB of its answer here and a buffer to read it into.
    assert!(most - before < 1000.0 * 250e3, "{} MB more", (most - before) / 1e6);
    drop(stuck);
    neighbour.unharmed().await;
}

#[tokio::test]
async fn a_busy_visitor_is_no_flood() {
    let world = World::start("").await;
    let mut visitor = world.visitor().await;
    let mut stream = 1;
    let mut ended = 0;
    for round in 0..60 {
        // A page with all that browsers send beside requests, and half of it given up.
        let mut page = Vec::new();
        for at in 0..40 {
            page.extend(get(stream, if at % 4 == 0 { "/hang" } else { "/bytes/100" }));
            page.extend(frame(0x10, 0, 0, &[0, 0, 0, 1, b'u', b'=', b'3']));
            page.extend(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 100]));
            stream += 2;
        }
        page.extend(frame(PING, 0, 0, &[2; 8]));
        ended += 30;
        assert!(visitor.send(&page).await, "round {round}: {:?}", visitor.seen.borrow().goaway);
        visitor.wait("answers", |seen| seen.ended >= ended).await;
        let given_up: Vec<u8> = (0..10).flat_map(|at| reset(stream - 80 + 8 * at)).collect();
        assert!(visitor.send(&given_up).await, "round {round}: {:?}", visitor.seen.borrow().goaway);
        visitor.settle().await;
    }
    assert_eq!(visitor.seen.borrow().goaway, None);
    assert_eq!(world.floods().await, 0.0);
}
