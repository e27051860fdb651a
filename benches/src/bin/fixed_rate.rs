//! Open-loop load: `fixed_rate ADDRESS PATH RATE CONNECTIONS SECONDS`, latencies in microseconds as one line of JSON.
//!
//! Each connection has its own timetable, shifted against the others so that requests come one at a time (h2load starts
//! all clients on one tick and so measures a burst). A latency counts from when the request was *due*: one that waits
//! behind a slow answer is charged for the wait, so slow spells aren't left out (coordinated omission).

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use frp_gateway_benches::job;
use frp_gateway_benches::poll::{Interest, Poll, token};
use frp_gateway_benches::reply::Reply;

/// How long answers may come after the last request.
const GRACE: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, rate, connections, seconds] = args.as_slice() else {
        return Err("usage: fixed_rate ADDRESS PATH RATE CONNECTIONS SECONDS".into());
    };
    let (rate, connections): (u32, u32) = (rate.parse()?, connections.parse()?);
    let length = Duration::from_secs_f64(seconds.parse()?);
    // The default slack of 50 µs would be a third of what is measured.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let mut latencies = run(address, &job::requests(path, false), rate, connections, length)?;
    latencies.sort_unstable();
    let at = |share: f64| percentile(&latencies, share).as_secs_f64() * 1e6;
    writeln!(
        io::stdout().lock(),
        r#"{{"requests":{},"p50":{:.1},"p99":{:.1},"p999":{:.1},"max":{:.1}}}"#,
        latencies.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    )?;
    Ok(())
}

struct Connection {
    stream: TcpStream,
    due: Instant,             // of the next request
    waiting: Option<Instant>, // when the request now under way was due
    reply: Reply,
}

fn run(
    address: &str,
    requests: &[Vec<u8>],
    rate: u32,
    connections: u32,
    length: Duration,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut poll = Poll::new()?;
    let between = Duration::from_secs(1) / rate; // requests of all connections
    let own = between * connections; // requests of one connection
    let start = Instant::now() + Duration::from_millis(10);
    let end = start + length;
    let mut all = Vec::new();
    for index in 0..connections {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        poll.add(&stream, Interest::Read)?;
        all.push(Connection { stream, due: start + between * index, waiting: None, reply: Reply::default() });
    }

    let mut latencies = Vec::new();
    let mut requests = requests.iter().cycle();
    let mut ready = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let now = Instant::now();
        for connection in
            all.iter_mut().filter(|one| one.waiting.is_none() && one.due <= now && one.due < end)
        {
            let request = requests.next().ok_or("no requests")?;
            connection.stream.write_all(request)?;
            connection.waiting = Some(connection.due);
            connection.due += own;
        }
        let busy = all.iter().any(|one| one.waiting.is_some());
        let next = all.iter().filter(|one| one.waiting.is_none() && one.due < end).map(|one| one.due).min();
        let until = match next {
            Some(due) => due,
            None if !busy => return Ok(latencies),
            None => end + GRACE,
        };
        let now = Instant::now();
        if busy && now > end + GRACE {
            return Err("an answer didn't come".into());
        }
        poll.wait(Some(until.saturating_duration_since(now)), &mut ready)?;
        let now = Instant::now();
        for &at in &ready {
            let Some(connection) = all.iter_mut().find(|one| token(&one.stream) == at) else { continue };
            let length = connection.stream.read(&mut buffer)?;
            if length == 0 {
                return Err("a keep-alive connection was closed".into());
            }
            if connection.reply.feed(&buffer[..length])? {
                let due = connection.waiting.take().ok_or("an answer without a request")?;
                latencies.push(now - due);
                connection.reply.reset();
            }
        }
    }
}

/// The value that `share` of `sorted` don't exceed (nearest rank); zero for none.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank is between 0 and the number of samples, far below 2^52"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Duration, percentile};

    #[test]
    fn percentiles_are_nearest_rank() {
        let sorted: Vec<_> = (1..=100).map(Duration::from_micros).collect();
        for (share, expected) in [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.0, 1)] {
            assert_eq!(percentile(&sorted, share), Duration::from_micros(expected), "share {share}");
        }
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }
}
