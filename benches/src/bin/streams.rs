//! Streams of bytes for benches/tcp: `streams serve ADDRESS` sends as many bytes as each 8-byte number asks for;
//! `streams load ADDRESS BYTES CONNECTIONS SECONDS [fresh]` asks again and again, and counts as one line of JSON. `fresh`: a new
//! connection for every stream.
//!
//! One thread per connection, blocking: what the kernel does is most of the work, on both sides of every contestant alike.

use std::{
    error::Error,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

const BLOCK: usize = 256 * 1024;

type Fault = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Fault> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", address] => serve(address),
        ["load", address, bytes, connections, seconds, ref rest @ ..] => {
            let length = Duration::from_secs_f64(seconds.parse()?);
            load(address, bytes.parse()?, connections.parse()?, length, rest == ["fresh"])
        }
        _ => {
            Err("usage: streams serve ADDRESS | streams load ADDRESS BYTES CONNECTIONS SECONDS [fresh]"
                .into())
        }
    }
}

fn serve(address: &str) -> Result<(), Fault> {
    for stream in TcpListener::bind(address)?.incoming() {
        let stream = stream?;
        // A visitor who leaves early is how a run ends.
        thread::spawn(move || drop(answer(stream)));
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let block = vec![b'x'; BLOCK];
    let mut wanted = [0; 8];
    loop {
        stream.read_exact(&mut wanted)?;
        let mut left = u64::from_be_bytes(wanted);
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            stream.write_all(&block[..part])?;
            left -= part as u64;
        }
    }
}

fn load(address: &str, bytes: u64, connections: usize, length: Duration, fresh: bool) -> Result<(), Fault> {
    let begun = Instant::now();
    let end = begun + length;
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let address = address.to_owned();
            thread::spawn(move || ask(&address, bytes, end, fresh))
        })
        .collect();
    let mut streams = 0;
    for thread in threads {
        streams += thread.join().map_err(|_panic| "a visitor broke")??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    writeln!(io::stdout().lock(), r#"{{"streams":{streams},"seconds":{seconds:.4}}}"#)?;
    Ok(())
}

fn ask(address: &str, bytes: u64, end: Instant, fresh: bool) -> Result<u64, Fault> {
    let connect = || -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let (mut block, mut stream, mut done) = (vec![0; BLOCK], connect()?, 0);
    while Instant::now() < end {
        stream.write_all(&bytes.to_be_bytes())?;
        let mut left = bytes;
        while left > 0 {
            match stream.read(&mut block)? {
                0 => return Err("the stream ended early".into()),
                n => left = left.checked_sub(n as u64).ok_or("more bytes than asked for")?,
            }
        }
        done += 1;
        if fresh {
            stream = connect()?;
        }
    }
    Ok(done)
}
