//! Open-loop load on several addresses side by side, one line of CSV per request.
//!
//! Requests come at random moments (Poisson) whether or not earlier ones are answered, as visitors do: a slow endpoint
//! doesn't slow its load. Every address gets the same timetable and the same users, shifted by a fraction of a request,
//! so what differs between addresses isn't the load. A latency counts from when the request was due.

use std::{
    cell::RefCell,
    env,
    fs::File,
    io::{self, BufWriter, Write},
    net::SocketAddr,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request,
    client::conn::http1::{SendRequest, handshake},
    header::{ACCEPT_ENCODING, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::{JoinSet, LocalSet},
    time::{Instant, sleep_until, timeout},
};

const USAGE: &str = "\
usage: open-loop --rate PER_SECOND --seconds N --out FILE [--host app.test] [--path /] [--users 500] [--seed 1] ADDRESS:PORT...
       prints \"started\" when the timetable begins; FILE gets lines of
       address number, due in s, latency in ms, how late it was sent in ms, status (0: no answer in 10 s), x-app
";

/// No answer after so long is none.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some(job) = parse(&arguments) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("open-loop: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Job {
    rate: f64,
    seconds: f64,
    out: String,
    host: String,
    path: String,
    users: u64,
    seed: u64,
    targets: Vec<SocketAddr>,
}

/// `None` when the arguments make no sense.
fn parse(arguments: &[String]) -> Option<Job> {
    let mut job = Job {
        rate: 0.0,
        seconds: 0.0,
        out: String::new(),
        host: "app.test".into(),
        path: "/".into(),
        users: 500,
        seed: 1,
        targets: Vec::new(),
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if !word.starts_with("--") {
            job.targets.push(word.parse().ok()?);
            continue;
        }
        let value = words.next()?;
        match word.as_str() {
            "--rate" => job.rate = value.parse().ok()?,
            "--seconds" => job.seconds = value.parse().ok()?,
            "--out" => job.out.clone_from(value),
            "--host" => job.host.clone_from(value),
            "--path" => job.path.clone_from(value),
            "--users" => job.users = value.parse().ok()?,
            "--seed" => job.seed = value.parse().ok()?,
            _ => return None,
        }
    }
    let sensible = job.rate > 0.0 && job.seconds > 0.0 && job.users > 0 && !job.out.is_empty();
    (sensible && !job.targets.is_empty()).then_some(job)
}

fn run(job: Job) -> io::Result<()> {
    let out = Rc::new(RefCell::new(BufWriter::new(File::create(&job.out)?)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let job = Rc::new(job);
    runtime.block_on(local.run_until(async {
        let start = Instant::now() + Duration::from_millis(50);
        let mut all = JoinSet::new();
        for index in 0..job.targets.len() {
            all.spawn_local(visit(Rc::clone(&job), index, start, Rc::clone(&out)));
        }
        sleep_until(start).await;
        writeln!(io::stdout(), "started")?;
        io::stdout().flush()?;
        while let Some(ended) = all.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        out.borrow_mut().flush()
    }))
}

/// All requests to one address, and the wait for their answers.
async fn visit(
    job: Rc<Job>,
    index: usize,
    start: Instant,
    out: Rc<RefCell<BufWriter<File>>>,
) -> io::Result<()> {
    let mut chance = Chance(job.seed);
    let idle = Rc::new(RefCell::new(Vec::new()));
    let mut under_way = JoinSet::new();
    let shift = index as f64 / job.targets.len() as f64 / job.rate;
    let mut at = 0.0;
    loop {
        // Time to the next event of a Poisson process: exponentially distributed.
        at += -(1.0 - chance.unit()).ln() / job.rate;
        let user = chance.next() % job.users;
        if at >= job.seconds {
            break;
        }
        let due = start + Duration::from_secs_f64(at + shift);
        sleep_until(due).await;
        let late = due.elapsed();
        let (job, idle, out) = (Rc::clone(&job), Rc::clone(&idle), Rc::clone(&out));
        under_way.spawn_local(async move {
            let answer = timeout(PATIENCE, ask(&job, index, user, &idle)).await;
            let (status, app) = answer.ok().flatten().unwrap_or_default();
            let line = (at + shift, milliseconds(due.elapsed()), milliseconds(late));
            writeln!(out.borrow_mut(), "{index},{:.4},{:.2},{:.2},{status},{app}", line.0, line.1, line.2)
        });
        while under_way.try_join_next().is_some() {}
    }
    while let Some(ended) = under_way.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

type Connection = SendRequest<Empty<Bytes>>;

/// Status and `x-app` of one answer; `None` when the connection failed.
async fn ask(job: &Job, index: usize, user: u64, idle: &RefCell<Vec<Connection>>) -> Option<(u16, String)> {
    let mut connection = connection(job.targets[index], idle).await?;
    let request = Request::get(&job.path)
        .header(HOST, &job.host)
        .header(ACCEPT_ENCODING, "identity")
        .header("x-user", format!("u{user}"))
        .body(Empty::new())
        .ok()?;
    let answer = connection.send_request(request).await.ok()?;
    let status = answer.status().as_u16();
    let app =
        answer.headers().get("x-app").and_then(|name| name.to_str().ok()).unwrap_or_default().to_owned();
    answer.into_body().collect().await.ok()?;
    idle.borrow_mut().push(connection);
    Some((status, app))
}

async fn connection(address: SocketAddr, idle: &RefCell<Vec<Connection>>) -> Option<Connection> {
    loop {
        let kept = idle.borrow_mut().pop();
        let Some(mut kept) = kept else { break };
        if kept.ready().await.is_ok() {
            return Some(kept);
        }
    }
    let stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (mut fresh, task) = handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(task);
    fresh.ready().await.ok()?;
    Some(fresh)
}

/// `SplitMix64` (Steele, Lea, Flood 2014): equal seeds give equal timetables.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0, below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    #[test]
    fn chance_is_even_and_repeatable() {
        let draw = |seed| {
            let mut chance = Chance(seed);
            (0..10_000).map(move |_| chance.unit()).collect::<Vec<_>>()
        };
        assert!(draw(1) == draw(1) && draw(1) != draw(2), "equal seeds, and only they, give equal numbers");
        let mean = draw(1).iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "mean {mean}");
    }
}
