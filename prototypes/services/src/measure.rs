//! Times of what a client does, to a backend itself and to a Service in turns. Judges nothing.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use crate::serve::ANSWER;
use crate::table::{DNS, WIDE, dns_backends, ordinary, ordinary_backends};

const LIMIT: Duration = Duration::from_secs(5);
/// Untimed, for neighbours, routes and caches.
const WARM_UP: u32 = 1;
/// A small request, and what a name server gets.
const REQUEST: usize = 48;
/// One stream.
const STREAM: usize = 1 << 20;
/// Streams for each fifty requests.
const STREAMS_OF: u32 = 25;
/// Steps through the Services so that neighbours in the table are not neighbours in time.
const STRIDE: u32 = 7919;

/// Where the times go: a file for each measurement, a line of nanoseconds for each time.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) folder: PathBuf,
    pub(crate) way: String,
}

impl Files {
    fn append(&self, kind: &str, path: &str, times: &[Duration]) -> io::Result<()> {
        let name = self.folder.join(format!("{kind}.{}.{path}", self.way));
        let mut file = OpenOptions::new().append(true).create(true).open(name)?;
        let lines: String = times.iter().map(|time| format!("{}\n", time.as_nanos())).collect();
        file.write_all(lines.as_bytes())
    }
}

/// Whom to connect to.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// A backend itself.
    Backend,
    /// A Service of three backends.
    Service,
    /// The Service of a thousand.
    Wide,
}

impl Target {
    /// The address, for the Service number `number` or its first backend.
    fn at(self, number: u32) -> SocketAddrV4 {
        match self {
            Self::Backend => ordinary_backends(number).first().copied().unwrap_or(WIDE),
            Self::Service => ordinary(number),
            Self::Wide => WIDE,
        }
    }
}

/// An end of a path and what to call it.
type Paths<'a, T> = &'a mut [(&'static str, T)];

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// How many Services of three backends there are.
    pub(crate) services: u32,
    /// Whether something leads to them.
    pub(crate) with_services: bool,
    /// Whether requests and streams are measured beside connections and queries.
    pub(crate) established: bool,
    /// How often each is timed.
    pub(crate) operations: u32,
}

/// Measures all that is wanted.
pub(crate) fn run(to: &Files, wanted: &Wanted) -> io::Result<()> {
    let Wanted { services, with_services, established, operations } = *wanted;
    let mut step = 0_u32;
    let mut next = || {
        step = step.wrapping_add(STRIDE);
        step % services.max(1)
    };
    let mut connects = vec![("direct", Target::Backend)];
    let mut queries = vec![("direct", dns_backends().first().copied().unwrap_or(DNS))];
    if with_services {
        connects.extend([("service", Target::Service), ("service-of-1000", Target::Wide)]);
        queries.push(("service", DNS));
    }
    alternate(to, "connect", &mut connects, operations, |target| {
        let at = target.at(next());
        timed(|| open(at))
    })?;

    alternate(to, "connect-call", &mut connects, operations, |target| begin(target.at(next())))?;
    if established {
        let streams: io::Result<Vec<_>> =
            connects.iter().map(|(name, target)| Ok((*name, open(target.at(next()))?))).collect();
        converse(to, &mut streams?, operations)?;
    }
    alternate(to, "query-call", &mut queries, operations, |at| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let time = timed(|| socket.send_to(&[0; REQUEST], *at))?;
        // The answer is waited for so that its arrival is not in the next time.
        socket.set_read_timeout(Some(LIMIT))?;
        socket.recv_from(&mut [0; ANSWER])?;
        Ok(time)
    })?;
    alternate(to, "query-connected", &mut queries, operations, |at| timed(|| query(*at, true).map(drop)))?;
    alternate(to, "query-unconnected", &mut queries, operations, |at| timed(|| query(*at, false).map(drop)))
}

/// Small requests and streams of a mebibyte in connections that exist.
fn converse(to: &Files, streams: Paths<'_, TcpStream>, operations: u32) -> io::Result<()> {
    alternate(to, "request", streams, operations, |stream| {
        timed(|| exchange(stream, &[0; REQUEST]).map(drop))
    })?;
    let mebibyte = vec![0; STREAM];
    alternate(to, "stream-1MiB", streams, operations.div_ceil(STREAMS_OF), |stream| {
        timed(|| exchange(stream, &mebibyte).map(drop))
    })
}

/// The time of the call that begins a connection, without the way to the backend and back.
fn begin(at: SocketAddrV4) -> io::Result<Duration> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let address = at.into();
    let started = Instant::now();
    let outcome = socket.connect(&address);
    let time = started.elapsed();
    match outcome {
        Err(error) if error.raw_os_error().map(Errno::from_raw) != Some(Errno::EINPROGRESS) => Err(error),
        _ => Ok(time),
    }
}

fn alternate<T>(
    to: &Files,
    kind: &str,
    paths: Paths<'_, T>,
    operations: u32,
    mut once: impl FnMut(&mut T) -> io::Result<Duration>,
) -> io::Result<()> {
    let mut times: Vec<Vec<Duration>> = paths.iter().map(|_| Vec::new()).collect();
    for round in 0..operations + WARM_UP {
        for ((_, path), times) in paths.iter_mut().zip(&mut times) {
            let time = once(path)?;
            if round >= WARM_UP {
                times.push(time);
            }
        }
    }
    paths.iter().zip(&times).try_for_each(|((name, _), times)| to.append(kind, name, times))
}

/// The time until a result, which is given up afterwards.
fn timed<T>(action: impl FnOnce() -> io::Result<T>) -> io::Result<Duration> {
    let started = Instant::now();
    let result = action()?;
    let time = started.elapsed();
    drop(result);
    Ok(time)
}

/// A connection.
pub(crate) fn open(at: SocketAddrV4) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::V4(at), LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// One request and the text of its answer.
pub(crate) fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<String> {
    let length = u64::try_from(request.len()).unwrap_or_default();
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(request)?;
    let mut answer = [0; ANSWER];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}

/// One query by a socket of its own, as resolvers make it: the text of the answer. One that is not connected must hear from
/// where it asked.
pub(crate) fn query(at: SocketAddrV4, connected: bool) -> io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(LIMIT))?;
    if connected {
        socket.connect(at)?;
    }
    ask(&socket, at, connected)
}

/// One query by a socket that may have made others.
pub(crate) fn ask(socket: &UdpSocket, at: SocketAddrV4, connected: bool) -> io::Result<String> {
    let mut answer = [0; ANSWER];
    if connected {
        socket.send(&[0; REQUEST])?;
        socket.recv(&mut answer)?;
    } else {
        socket.send_to(&[0; REQUEST], at)?;
        let (_, from) = socket.recv_from(&mut answer)?;
        if from != SocketAddr::V4(at) {
            return Err(io::Error::other(format!("{at} was asked and {from} answered")));
        }
    }
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}
