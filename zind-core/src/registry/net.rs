//! Connections: TCP that can be stopped at any time, TLS, and the proxies of the environment.
//!
//! ureq speaks HTTP over them. Nothing here starts a thread: waiting is poll(2) in slices, which end when the caller wants.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration as Left;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

/// How long a wait goes on before it looks whether it should end.
const SLICE: Duration = Duration::from_millis(50);

/// What all connections of one pull or push share: its end, and its patience.
#[derive(Debug)]
pub(crate) struct Link {
    stop: AtomicBool,
    /// The longest silence of a server.
    pub(crate) idle: Duration,
    /// The longest time to connect to one address.
    pub(crate) connect: Duration,
}

impl Link {
    pub(crate) fn new(idle: Duration) -> Link {
        Link { stop: AtomicBool::new(false), idle, connect: idle.min(Duration::from_secs(15)) }
    }

    /// Ends all waiting, now and later.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The end was asked for.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps, unless the end is asked for: then false.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while !self.stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(SLICE));
        }
        false
    }

    /// Waits until `fd` is ready.
    fn wait(&self, fd: &impl AsFd, events: PollFlags, until: Instant) -> io::Result<()> {
        loop {
            if self.stopped() {
                return Err(io::Error::other("stopped"));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let slice = left.min(SLICE);
            let slice = Timespec { tv_sec: slice.as_secs() as i64, tv_nsec: i64::from(slice.subsec_nanos()) };
            match poll(&mut [PollFd::new(fd, events)], Some(&slice)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Names by getaddrinfo(3), on the thread that asks: ureq's own resolver starts a thread for its time limit.
///
/// The one wait that cannot be stopped; resolv.conf(5) limits it.
#[derive(Debug)]
pub(crate) struct Names;

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let mut addresses = self.empty();
        for address in (host, port_of(uri)).to_socket_addrs().map_err(LookupError::of)?.take(16) {
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(ureq::Error::HostNotFound);
        }
        Ok(addresses)
    }
}

/// The port of a URL, given or usual.
pub(crate) fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

/// A name that has no address, as far as could be found out.
#[derive(Debug)]
pub(crate) struct LookupError {
    words: String,
    /// It may be otherwise in a moment.
    pub(crate) temporary: bool,
}

impl LookupError {
    fn of(error: io::Error) -> ureq::Error {
        let words = error.to_string();
        let words = words.strip_prefix("failed to lookup address information: ").unwrap_or(&words).to_owned();
        // EAI_AGAIN; the number itself does not come through the standard library.
        let temporary = words.starts_with("Temporary failure");
        ureq::Error::Other(Box::new(LookupError { words, temporary }))
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for LookupError {}

/// Makes TCP connections.
#[derive(Debug)]
pub(crate) struct Tcp(pub(crate) Arc<Link>);

impl<In: Transport> Connector<In> for Tcp {
    type Out = Either<In, Socket>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        if let Some(chained) = chained {
            return Ok(Some(Either::A(chained)));
        }
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in &details.addrs {
            match self.open(*address) {
                Ok(stream) => {
                    let buffers =
                        LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
                    return Ok(Some(Either::B(Socket { stream, link: self.0.clone(), buffers })));
                }
                Err(error) if self.0.stopped() => return Err(error.into()),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }
}

impl Tcp {
    fn open(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {}
            // Also after a signal: the connection goes on being made.
            Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::INTR) => {
                self.0.wait(&socket, PollFlags::OUT, Instant::now() + self.0.connect).map_err(|error| {
                    // Silence before and after the connection stands are not the same.
                    let nobody = error.kind() == io::ErrorKind::TimedOut;
                    if nobody { io::ErrorKind::HostUnreachable.into() } else { error }
                })?;
                rustix::net::sockopt::socket_error(&socket)??;
            }
            Err(errno) => return Err(errno.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A TCP connection.
pub(crate) struct Socket {
    stream: TcpStream,
    link: Arc<Link>,
    buffers: LazyBuffers,
}

impl Socket {
    fn until(&self, timeout: &NextTimeout) -> Instant {
        let left = match timeout.after {
            Left::Exact(left) => left.min(self.link.idle),
            Left::NotHappening => self.link.idle,
        };
        Instant::now() + left
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let mut done = 0;
        while done < amount {
            if self.link.stopped() {
                return Err(io::Error::other("stopped").into());
            }
            match (&self.stream).write(&self.buffers.output()[done..amount]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.link.wait(&self.stream, PollFlags::OUT, self.until(&timeout))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let until = self.until(&timeout);
        loop {
            if self.link.stopped() {
                return Err(io::Error::other("stopped").into());
            }
            match (&self.stream).read(self.buffers.input_append_buf()) {
                Ok(read) => {
                    self.buffers.input_appended(read);
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.link.wait(&self.stream, PollFlags::IN, until)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // Bytes that nobody asked for, or an end: not to be used again.
        let mut byte = [0];
        matches!((&self.stream).read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

/// Puts TLS around a connection where the URL wants it.
pub(crate) struct Tls(pub(crate) Arc<ClientConfig>);

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, Encrypted>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(inner) = chained else { return Ok(None) };
        if !details.needs_tls() || inner.is_tls() {
            return Ok(Some(Either::A(inner)));
        }
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name =
            ServerName::try_from(host).map_err(|_| ureq::Error::Tls("no name or address that TLS could check"))?;
        let tls = |error| ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, error));
        let mut connection = ClientConnection::new(self.0.clone(), name).map_err(tls)?;
        let mut socket = TransportAdapter::new(inner.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(HandshakeBroken::of)?;
        }
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Encrypted { stream: StreamOwned::new(connection, socket), buffers })))
    }
}

/// The other side hung up before there was a safe connection: who does not know TLS may do that.
#[derive(Debug)]
pub(crate) struct HandshakeBroken;

impl HandshakeBroken {
    fn of(error: io::Error) -> io::Error {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let kind = error.kind();
        let broken = matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
        if broken { io::Error::new(kind, HandshakeBroken) } else { error }
    }
}

impl fmt::Display for HandshakeBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the handshake broke off")
    }
}

impl std::error::Error for HandshakeBroken {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// A connection with TLS.
pub(crate) struct Encrypted {
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    buffers: LazyBuffers,
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        self.stream.flush()?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encrypted")
    }
}

/// A loopback address, or the name of one.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The proxies of the environment, as curl and Go's programs read them: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`, in large
/// or small letters. Loopback never goes over a proxy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    http: Option<String>,
    https: Option<String>,
    no: Vec<String>,
}

impl Proxies {
    pub(crate) fn from_env() -> Proxies {
        Proxies::of(&|name| std::env::var(name).ok())
    }

    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Proxies {
        let either = |name: &str| {
            [name.to_owned(), name.to_lowercase()]
                .iter()
                .filter_map(|name| variable(name))
                .find(|text| !text.is_empty())
        };
        // A CGI program gets HTTP_PROXY from whoever asks it something.
        let cgi = variable("REQUEST_METHOD").is_some();
        let no = either("NO_PROXY").unwrap_or_default();
        Proxies {
            http: either("HTTP_PROXY").filter(|_| !cgi),
            https: either("HTTPS_PROXY"),
            no: no.split(',').map(|entry| entry.trim().to_lowercase()).filter(|entry| !entry.is_empty()).collect(),
        }
    }

    /// The proxy for a URL, as a URL.
    pub(crate) fn for_url(&self, uri: &Uri) -> Option<String> {
        let proxy = if uri.scheme_str() == Some("https") { &self.https } else { &self.http }.as_ref()?;
        let host = uri.host()?.to_lowercase();
        if is_loopback(&host) || self.no.iter().any(|entry| excepts(entry, &host, port_of(uri))) {
            return None;
        }
        Some(if proxy.contains("://") { proxy.clone() } else { format!("http://{proxy}") })
    }
}

/// One entry of `NO_PROXY`: `*`, a domain and what is below it, an address or a network, each perhaps with a port.
fn excepts(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let host = host.trim_matches(['[', ']']);
    let address: Option<IpAddr> = host.parse().ok();
    if let Some((network, bits)) = entry.split_once('/') {
        let network: Option<IpAddr> = network.parse().ok();
        return address.zip(network).zip(bits.parse().ok()).is_some_and(|((a, n), bits)| in_network(a, n, bits));
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, port)) if entry.parse::<IpAddr>().is_err() => (name, port.parse::<u16>().ok()),
        _ => (entry, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = name.trim_matches(['[', ']']);
    if let (Some(address), Ok(name)) = (address, name.parse::<IpAddr>()) {
        return address == name;
    }
    let domain = name.strip_prefix("*.").or(name.strip_prefix('.'));
    let below = |domain: &str| host.strip_suffix(domain).is_some_and(|head| head.ends_with('.'));
    domain.map_or_else(|| host == name || below(name), below)
}

fn in_network(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let variables: Vec<(String, String)> = variables.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        Proxies::of(&move |name| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()))
    }

    fn proxy(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.for_url(&url.parse().unwrap())
    }

    #[test]
    fn proxies_are_chosen_by_scheme_and_exceptions() {
        let all = proxies(&[
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("http_proxy", "plain:80"),
            ("no_proxy", "example.com, .inner.net,10.0.0.0/8,192.0.2.7,reg.test:5000, fd00::/8"),
        ]);
        assert_eq!(proxy(&all, "https://registry.test/v2/").as_deref(), Some("http://proxy:3128"));
        assert_eq!(proxy(&all, "http://registry.test/v2/").as_deref(), Some("http://plain:80"));
        for direct in [
            "https://example.com/",
            "https://a.example.com/",
            "https://x.inner.net/",
            "https://10.1.2.3/",
            "https://192.0.2.7/",
            "https://reg.test:5000/",
            "https://localhost:5000/",
            "http://127.0.0.1:5000/",
            "http://[::1]:5000/",
            "https://[fd00::1]/",
        ] {
            assert_eq!(proxy(&all, direct), None, "{direct}");
        }
        for over in [
            "https://notexample.com/",
            "https://inner.net/",
            "https://11.0.0.1/",
            "https://reg.test/",
            "https://[fe80::1]/",
        ] {
            assert!(proxy(&all, over).is_some(), "{over}");
        }
    }

    #[test]
    fn a_cgi_program_does_not_believe_http_proxy() {
        let cgi = proxies(&[("HTTP_PROXY", "http://evil"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(proxy(&cgi, "http://registry.test/"), None);
        assert_eq!(proxy(&proxies(&[("HTTP_PROXY", "p"), ("NO_PROXY", "*")]), "http://registry.test/"), None);
    }
}
