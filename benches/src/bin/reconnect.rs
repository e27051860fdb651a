//! A new connection for every request: `reconnect ADDRESS PATH CONCURRENCY SECONDS`, counts as one line of JSON.
//!
//! Closed loop: CONCURRENCY connections at a time; each sends one request with `Connection: close`, reads to the end of
//! the stream and is replaced. wrk can't do this honestly: an answer that lacks `Connection: close` makes it report read
//! errors. Here that, like anything else than one whole 200, ends the run with an error.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use frp_gateway_benches::job;
use frp_gateway_benches::poll::{Interest, Poll, token};
use frp_gateway_benches::reply::Reply;

/// How long connections may take to end after the last one was made.
const GRACE: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, concurrency, seconds] = args.as_slice() else {
        return Err("usage: reconnect ADDRESS PATH CONCURRENCY SECONDS".into());
    };
    let length = Duration::from_secs_f64(seconds.parse()?);
    let start = Instant::now();
    let done = run(address, &job::requests(path, true), concurrency.parse()?, start + length)?;
    let seconds = start.elapsed().as_secs_f64();
    writeln!(io::stdout().lock(), r#"{{"requests":{done},"seconds":{seconds:.4}}}"#)?;
    Ok(())
}

fn run(address: &str, requests: &[Vec<u8>], concurrency: usize, end: Instant) -> Result<u64, Box<dyn Error>> {
    let mut poll = Poll::new()?;
    let mut requests = requests.iter().cycle();
    let mut open: Vec<Option<(TcpStream, Reply)>> = Vec::new(); // by descriptor
    let (mut started, mut done) = (0, 0);
    let mut start_one = |poll: &Poll, open: &mut Vec<Option<(TcpStream, Reply)>>| {
        let mut stream = TcpStream::connect(address)?; // on loopback: one trip through the kernel, no wait for the proxy
        stream.write_all(requests.next().expect("an endless iterator"))?;
        stream.set_nonblocking(true)?;
        poll.add(&stream, Interest::Read)?;
        let at = token(&stream);
        if at >= open.len() {
            open.resize_with(at + 1, || None);
        }
        open[at] = Some((stream, Reply::default()));
        started += 1;
        io::Result::Ok(started)
    };
    for _ in 0..concurrency {
        start_one(&poll, &mut open)?;
    }
    let mut started = concurrency as u64;
    let mut ready = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while done < started {
        poll.wait(Some(GRACE), &mut ready)?;
        let now = Instant::now();
        if ready.is_empty() || now > end + GRACE {
            return Err("a connection neither answered nor ended".into());
        }
        for &at in &ready {
            let Some(Some((stream, reply))) = open.get_mut(at) else { continue };
            let length = stream.read(&mut buffer)?;
            if length > 0 {
                if reply.feed(&buffer[..length])? && !reply.closes() {
                    return Err("the answer to Connection: close doesn't say Connection: close".into());
                }
                continue;
            }
            if !reply.is_complete() {
                return Err("a connection ended before its answer did".into());
            }
            open[at] = None;
            done += 1;
            if now < end {
                started = start_one(&poll, &mut open)?;
            }
        }
    }
    Ok(done)
}
