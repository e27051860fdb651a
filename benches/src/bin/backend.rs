//! The application behind every contestant: one thread, three ports, prebuilt answers; far cheaper than any proxy.
//!
//! `backend` binds three free loopback ports, prints them on one line, and serves until killed. The path chooses the
//! answer: `/0`, `/1k`, `/64k`, `/1m`; `/count` says how many of those each port has answered and how many connections came,
//! so that the harness can see that a contestant really forwarded, spread evenly and kept connections; `/echo` answers with
//! the head it got. Requests are told apart by their blank line alone: no bodies.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use frp_gateway_benches::poll::{Interest, Poll, token};
use memchr::memmem;

const PORTS: usize = 3;

fn main() -> io::Result<()> {
    let listeners: Vec<TcpListener> =
        (0..PORTS).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
    let mut ports = Vec::new();
    for listener in &listeners {
        listener.set_nonblocking(true)?;
        ports.push(listener.local_addr()?.port().to_string());
    }
    writeln!(io::stdout().lock(), "{}", ports.join(" "))?;
    Backend::new(listeners)?.serve()
}

struct Backend {
    poll: Poll,
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>, // by descriptor
    answers: Vec<Answer>,
    answered: [u64; PORTS],
    accepted: u64,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    port: usize,                     // which of the three
    unread: Vec<u8>,                 // start of a head whose end hasn't come
    unsent: VecDeque<&'static [u8]>, // nothing is read while this isn't empty
    closing: bool,
}

/// One prebuilt answer, for a connection that stays and for one that ends.
struct Answer {
    path: &'static [u8],
    keep: &'static [u8],
    close: &'static [u8],
}

impl Backend {
    fn new(listeners: Vec<TcpListener>) -> io::Result<Self> {
        let poll = Poll::new()?;
        for listener in &listeners {
            poll.add(listener, Interest::Read)?;
        }
        let answers = [("/0", 0), ("/1k", 1 << 10), ("/64k", 64 << 10), ("/1m", 1 << 20)]
            .map(|(path, size)| Answer::new(path, size))
            .into();
        let buffer = vec![0; 64 << 10];
        Ok(Self {
            poll,
            listeners,
            connections: Vec::new(),
            answers,
            answered: [0; PORTS],
            accepted: 0,
            buffer,
        })
    }

    fn serve(mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.poll.wait(None, &mut ready)?;
            for &at in &ready {
                if let Some(port) = self.listeners.iter().position(|listener| token(listener) == at) {
                    self.accept(port)?;
                } else if let Some(mut connection) = self.connections.get_mut(at).and_then(Option::take)
                    && self.turn(&mut connection).unwrap_or(false)
                {
                    self.connections[at] = Some(connection);
                }
            }
        }
    }

    fn accept(&mut self, port: usize) -> io::Result<()> {
        loop {
            let stream = match self.listeners[port].accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            self.accepted += 1;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.poll.add(&stream, Interest::Read)?;
            let at = token(&stream);
            if at >= self.connections.len() {
                self.connections.resize_with(at + 1, || None);
            }
            self.connections[at] = Some(Connection {
                stream,
                port,
                unread: Vec::new(),
                unsent: VecDeque::new(),
                closing: false,
            });
        }
    }

    /// One read or one round of writes; `false` when the connection is over.
    fn turn(&mut self, connection: &mut Connection) -> io::Result<bool> {
        if connection.unsent.is_empty() {
            let length = match connection.stream.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            let unread = std::mem::take(&mut connection.unread);
            if unread.is_empty() {
                let buffer = std::mem::take(&mut self.buffer);
                let used = self.answer_all(connection, &buffer[..length]);
                if let Ok(used) = used {
                    connection.unread.extend_from_slice(&buffer[used..length]);
                }
                self.buffer = buffer;
                used?;
            } else {
                let bytes = [&unread, &self.buffer[..length]].concat();
                let used = self.answer_all(connection, &bytes)?;
                connection.unread.extend_from_slice(&bytes[used..]);
            }
            if !connection.unsent.is_empty() {
                self.poll.change(&connection.stream, Interest::Write)?;
            }
        } else if connection.flush()? {
            self.poll.change(&connection.stream, Interest::Read)?;
        }
        Ok(!(connection.closing && connection.unsent.is_empty()))
    }

    /// Answers each complete head in `bytes`; returns how many bytes those were.
    fn answer_all(&mut self, connection: &mut Connection, bytes: &[u8]) -> io::Result<usize> {
        let mut used = 0;
        while let Some(end) = memmem::find(&bytes[used..], b"\r\n\r\n")
            && !connection.closing
        {
            let head = &bytes[used..used + end + 2];
            used += end + 4;
            connection.closing = says_close(head);
            let path = head.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
            let bytes = match self.answers.iter().find(|answer| answer.path == path) {
                Some(answer) => {
                    self.answered[connection.port] += 1;
                    if connection.closing { answer.close } else { answer.keep }
                }
                None => self.rare(path, head),
            };
            connection.unsent.push_back(bytes);
            connection.flush()?;
        }
        Ok(used)
    }

    /// `/count` and `/echo`, asked a few times per burst, or a 404. Leaks some 100 bytes each time.
    fn rare(&self, path: &[u8], head: &[u8]) -> &'static [u8] {
        let (status, body) = match path {
            b"/count" => {
                let body = format!(r#"{{"answered":{:?},"accepted":{}}}"#, self.answered, self.accepted);
                ("200 OK", body.into_bytes())
            }
            b"/echo" => ("200 OK", head.to_vec()),
            _ => ("404 Not Found", b"no such path".to_vec()),
        };
        let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend(body);
        answer.leak()
    }
}

impl Connection {
    /// Writes until nothing is left (`true`) or the socket is full (`false`).
    fn flush(&mut self) -> io::Result<bool> {
        while let Some(bytes) = self.unsent.front_mut() {
            match self.stream.write(bytes) {
                Ok(length) if length == bytes.len() => {
                    self.unsent.pop_front();
                }
                Ok(length) => *bytes = &bytes[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Answer {
    fn new(path: &'static str, size: usize) -> Self {
        let build = |connection: &str| -> &'static [u8] {
            let head = format!(
                "HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 04:00:00 GMT\r\nServer: app/1.4\r\n\
                 Content-Type: application/json; charset=utf-8\r\nContent-Length: {size}\r\n\
                 Cache-Control: private, max-age=60\r\nETag: \"5f3a-17c9d2\"\r\nVary: Accept-Encoding\r\n{connection}\r\n"
            );
            let mut bytes = head.into_bytes();
            bytes.resize(bytes.len() + size, b'x');
            bytes.leak()
        };
        Self { path: path.as_bytes(), keep: build(""), close: build("Connection: close\r\n") }
    }
}

fn says_close(head: &[u8]) -> bool {
    memmem::find(head, b"onnection:").is_some_and(|at| {
        let value = head[at + "onnection:".len()..].trim_ascii_start();
        value.get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"close"))
    }) || head.windows(9).take(64).any(|word| word == b"HTTP/1.0\r")
}
