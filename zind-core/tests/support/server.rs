//! A registry of our own on loopback, which can be told to break any rule.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Status, headers, body.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// The same, but the connection ends after so many bytes of the body.
    Cut(u16, Vec<(String, String)>, Vec<u8>, usize),
    /// The header, so many bytes of the body, and then silence.
    Stall(u16, Vec<(String, String)>, Vec<u8>, usize),
    /// These bytes again and again, until the client has enough.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, and the end.
    Raw(Vec<u8>),
}

impl Reply {
    pub fn status(status: u16) -> Reply {
        Reply::Answer(status, Vec::new(), Vec::new())
    }

    pub fn ok(kind: &str, body: impl Into<Vec<u8>>) -> Reply {
        Reply::Answer(200, vec![("Content-Type".into(), kind.into())], body.into())
    }

    pub fn redirect(to: impl Into<String>) -> Reply {
        Reply::Answer(307, vec![("Location".into(), to.into())], Vec::new())
    }

    pub fn with(self, name: &str, value: impl Into<String>) -> Reply {
        match self {
            Reply::Answer(status, mut headers, body) => {
                headers.push((name.into(), value.into()));
                Reply::Answer(status, headers, body)
            }
            other => other,
        }
    }
}

type Answerer = dyn Fn(&Seen) -> Reply + Send + Sync;

pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    end: Arc<AtomicBool>,
    listener: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let end = Arc::new(AtomicBool::new(false));
        let answer: Arc<Answerer> = Arc::new(answer);
        let shared = (seen.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            let (seen, end) = shared;
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (seen, end, answer) = (seen.clone(), end.clone(), answer.clone());
                connections.push(std::thread::spawn(move || {
                    let _ = serve(stream, &seen, &end, &answer);
                }));
            }
            connections.into_iter().for_each(|one| one.join().unwrap());
        });
        Server { port, seen, end, listener: Some(thread) }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Requests so far whose method and path begin so.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.method == method && seen.path.starts_with(path)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.listener.take() {
            let result = thread.join();
            if !std::thread::panicking() {
                result.unwrap();
            }
        }
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Seen>>, end: &AtomicBool, answer: &Arc<Answerer>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(Patient { stream: stream.try_clone()?, end });
    let mut out = stream;
    loop {
        let Some(seen) = request(&mut reader)? else { return Ok(()) };
        if seen.method == "TLS" {
            return out.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
        log.lock().unwrap().push(seen.clone());
        let head = |status: u16, headers: &[(String, String)], length: usize| {
            let mut text = format!("HTTP/1.1 {status} X\r\n");
            headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
            if !headers.iter().any(|(name, _)| name == "Content-Length") {
                text += &format!("Content-Length: {length}\r\n");
            }
            text + "\r\n"
        };
        match answer(&seen) {
            Reply::Answer(status, headers, body) => {
                out.write_all(head(status, &headers, body.len()).as_bytes())?;
                if seen.method != "HEAD" {
                    out.write_all(&body)?;
                }
            }
            Reply::Cut(status, headers, body, after) => {
                out.write_all(head(status, &headers, body.len()).as_bytes())?;
                return out.write_all(&body[..after.min(body.len())]);
            }
            Reply::Stall(status, headers, body, after) => {
                out.write_all(head(status, &headers, body.len()).as_bytes())?;
                out.write_all(&body[..after.min(body.len())])?;
                while !end.load(Ordering::Relaxed) && reader.get_ref().is_open() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return Ok(());
            }
            Reply::Endless(first, again) => {
                out.write_all(&first)?;
                while !end.load(Ordering::Relaxed) {
                    out.write_all(&again)?;
                }
                return Ok(());
            }
            Reply::Raw(bytes) => return out.write_all(&bytes),
        }
    }
}

/// Waits for bytes until the server ends.
struct Patient<'a> {
    stream: TcpStream,
    end: &'a AtomicBool,
}

impl Patient<'_> {
    fn is_open(&self) -> bool {
        let mut byte = [0];
        !matches!(self.stream.peek(&mut byte), Ok(0))
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if self.end.load(Ordering::Relaxed) {
                        return Ok(0);
                    }
                }
                result => return result,
            }
        }
    }
}

fn request(reader: &mut impl BufRead) -> std::io::Result<Option<Seen>> {
    let mut line = String::new();
    // What is no text is the beginning of TLS.
    let mut first = Vec::new();
    if reader.read_until(b'\n', &mut first)? == 0 {
        return Ok(None);
    }
    let Ok(text) = String::from_utf8(first) else { return Ok(Some(Seen::tls())) };
    let mut words = text.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(Some(Seen::tls())) };
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.trim().split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }
    let length: usize = headers.get("content-length").and_then(|text: &String| text.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length as u64).read_to_end(&mut body)?;
    Ok(Some(Seen { method, path, headers, body }))
}

impl Seen {
    fn tls() -> Seen {
        Seen { method: "TLS".into(), path: String::new(), headers: BTreeMap::new(), body: Vec::new() }
    }
}
