//! What a client of the Services must see, whatever translates: each check is made by its sockets alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket,
};
use std::path::Path;
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::measure::{ask, exchange, open, query};
use crate::serve::accept;
use crate::table::{
    DNS, EMPTY, OWN_PORT, Protocol, Service, UNKNOWN, WIDE, dns_backends, ordinary, own, without_last,
};
use crate::{Outcome, Way, bpf, figure, nft};

/// Queries for the balance over three: 200 each are expected, and fewer than [`LEAST`] once in ten million runs.
const QUERIES: usize = 600;
const LEAST: usize = 140;
/// Connections to a Service of a thousand: 259 different backends are expected, give or take five.
const CONNECTIONS: usize = 300;
const DIFFERENT: usize = 225;
/// How long nobody may answer where nobody should.
const SILENCE: Duration = Duration::from_millis(500);
/// Sockets that are tried until one has the backend that is to go.
const TRIES: usize = 200;

/// What was seen instead.
#[derive(Debug, Error)]
enum CheckError {
    /// Something else than expected.
    #[error("{what}: {seen}, not {wanted}")]
    Differs {
        /// What was looked at.
        what: String,
        /// What it was.
        seen: String,
        /// What it should be.
        wanted: String,
    },
    /// At least one check failed; all have said so.
    #[error("{count} checks failed")]
    Failed {
        /// How many.
        count: usize,
    },
}

struct Client<'a> {
    way: Way,
    own: Ipv4Addr,
    seen: Ipv4Addr,
    pins: &'a Path,
}

type Check<'a> = fn(&Client<'a>) -> Outcome<String>;

/// Makes all checks and prints a line for each; fails in the end if one did.
pub(crate) fn run(way: Way, own: Ipv4Addr, seen: Ipv4Addr, pins: &Path) -> Outcome<()> {
    let client = Client { way, own, seen, pins };
    let checks: [(&str, Check<'_>); 11] = [
        ("a connection's peer is the Service, its backend sees the pod", Client::connection),
        ("IPv4 in an IPv6 socket, TCP and UDP", Client::mapped),
        ("a name server answers from the Service's address", Client::datagrams),
        ("queries are spread over three backends", Client::balance),
        ("connections are spread over a thousand backends", Client::wide_balance),
        ("an address that is no Service is left alone", Client::unknown),
        ("a port that is no Service's is left alone", Client::other_port),
        ("a Service without backends refuses", Client::empty),
        ("a pod reaches itself through its Service", Client::hairpin),
        ("queries of new sockets to a backend that went", Client::gone),
        ("a socket that goes on asking when its backend went", Client::stale),
    ];
    let mut count = 0;
    for (name, check) in checks {
        match check(&client) {
            Ok(seen) => figure(&format!("ok  {name}"), &seen),
            Err(error) => {
                count += 1;
                figure(&format!("FAILED  {name}"), &zerobridge_proto::chain(error.as_ref()));
            }
        }
    }
    if count == 0 { Ok(()) } else { Err(CheckError::Failed { count }.into()) }
}

fn same<T: ToString + PartialEq>(what: &str, seen: &T, wanted: &T) -> Result<(), CheckError> {
    if seen == wanted {
        return Ok(());
    }
    Err(CheckError::Differs { what: what.into(), seen: seen.to_string(), wanted: wanted.to_string() })
}

fn that(right: bool, what: &str, seen: impl ToString, wanted: impl ToString) -> Result<(), CheckError> {
    if right {
        return Ok(());
    }
    Err(CheckError::Differs { what: what.into(), seen: seen.to_string(), wanted: wanted.to_string() })
}

/// Both ends as a backend named them.
fn ends(answer: &str) -> Outcome<(SocketAddr, SocketAddr)> {
    let (local, peer) = answer.split_once(' ').unwrap_or_default();
    Ok((plain(local.parse()?), plain(peer.parse()?)))
}

/// An IPv4 address that an IPv6 socket names, as IPv4.
fn plain(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

fn mapped(at: SocketAddrV4) -> SocketAddr {
    SocketAddr::V6(SocketAddrV6::new(at.ip().to_ipv6_mapped(), at.port(), 0, 0))
}

fn name_service() -> Service {
    Service { at: DNS, protocol: Protocol::Udp, backends: dns_backends() }
}

/// The backend that [`without_last`] takes away.
fn last() -> Option<SocketAddr> {
    dns_backends().last().copied().map(SocketAddr::V4)
}

impl Client<'_> {
    fn sees(&self, answer: &str) -> Outcome<(SocketAddr, SocketAddr)> {
        let (local, peer) = ends(answer)?;
        same("the source that the backend sees", &peer.ip(), &IpAddr::V4(self.seen))?;
        Ok((local, peer))
    }

    fn connection(&self) -> Outcome<String> {
        let mut stream = open(ordinary(5))?;
        let (local, _) = self.sees(&exchange(&mut stream, &[1])?)?;
        same("getpeername", &stream.peer_addr()?, &SocketAddr::V4(ordinary(5)))?;
        same("getsockname", &stream.local_addr()?.ip(), &IpAddr::V4(self.own))?;
        Ok(format!("{} is {local}", ordinary(5)))
    }

    fn mapped(&self) -> Outcome<String> {
        let mut stream = TcpStream::connect(mapped(ordinary(5)))?;
        self.sees(&exchange(&mut stream, &[1])?)?;
        same("getpeername", &stream.peer_addr()?, &mapped(ordinary(5)))?;
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.send_to(&[1], mapped(DNS))?;
        let (_, from) = socket.recv_from(&mut [0; 64])?;
        same("the answer's source", &from, &mapped(DNS))?;
        Ok(from.to_string())
    }

    fn datagrams(&self) -> Outcome<String> {
        for connected in [true, false] {
            self.sees(&query(DNS, connected)?)?;
        }
        Ok("connected and not".into())
    }

    fn balance(&self) -> Outcome<String> {
        let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for _ in 0..QUERIES {
            let (local, _) = self.sees(&query(DNS, false)?)?;
            *counts.entry(local).or_default() += 1;
        }
        let shown = format!("{:?}", counts.values().collect::<Vec<_>>());
        let even = counts.len() == dns_backends().len() && counts.values().all(|count| *count >= LEAST);
        that(even, "queries of each backend", &shown, format!("{LEAST} or more each"))?;
        Ok(shown)
    }

    fn wide_balance(&self) -> Outcome<String> {
        let mut backends = BTreeSet::new();
        for _ in 0..CONNECTIONS {
            backends.insert(ends(&exchange(&mut open(WIDE)?, &[1])?)?.0);
        }
        let count = backends.len();
        that(count >= DIFFERENT, "different backends", count, format!("{DIFFERENT} or more"))?;
        Ok(format!("{count} different of {CONNECTIONS}"))
    }

    fn unknown(&self) -> Outcome<String> {
        let (local, peer) = ends(&exchange(&mut open(UNKNOWN)?, &[1])?)?;
        same("the address reached", &local, &SocketAddr::V4(UNKNOWN))?;
        same("the source", &peer.ip(), &IpAddr::V4(self.own))?;
        Ok(local.to_string())
    }

    fn other_port(&self) -> Outcome<String> {
        let at = SocketAddr::V4(SocketAddrV4::new(*ordinary(5).ip(), 81));
        match TcpStream::connect_timeout(&at, SILENCE) {
            Ok(stream) => Err(CheckError::Differs {
                what: format!("{at}"),
                seen: format!("answered as {}", stream.peer_addr()?),
                wanted: "silent".into(),
            }
            .into()),
            Err(error) => Ok(error.kind().to_string()),
        }
    }

    fn empty(&self) -> Outcome<String> {
        match open(EMPTY) {
            Ok(_) => that(false, "a connection", "made", "refused")?,
            Err(error) => same("the error", &error.kind(), &io::ErrorKind::ConnectionRefused)?,
        }
        Ok("connection refused".into())
    }

    fn hairpin(&self) -> Outcome<String> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, OWN_PORT))?;
        thread::spawn(move || accept(&listener));
        let [.., host] = self.own.octets();
        let mut stream = open(own(host))?;
        let (local, peer) = self.sees(&exchange(&mut stream, &[1])?)?;
        same("the backend", &local.ip(), &IpAddr::V4(self.own))?;
        Ok(format!("{} from {}", own(host), peer.ip()))
    }

    fn change(&self, old: &Service, new: &Service) -> Outcome<()> {
        match self.way {
            Way::Bpf => bpf::Tables::open(self.pins)?.change(old, new),
            Way::Nft => Ok(nft::apply(&[], old, new)?),
            Way::Leg => Ok(nft::apply(&["nsenter", "--net=/proc/1/ns/net"], old, new)?),
        }
    }

    /// Runs `look` while the name Service is without its last backend.
    fn while_gone<T>(&self, look: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let (full, less) = (name_service(), without_last(&name_service()));
        self.change(&full, &less)?;
        let seen = look();
        self.change(&less, &full)?;
        seen
    }

    /// A source port that conntrack remembers leads to where it led before, so only programs, which remember nothing of
    /// the kind, are held to it.
    fn gone(&self) -> Outcome<String> {
        let still = self.while_gone(|| {
            let mut still = 0_usize;
            for _ in 0..TRIES {
                still += usize::from(Some(ends(&query(DNS, false)?)?.0) == last());
            }
            Ok(still)
        })?;
        if self.way == Way::Bpf {
            same("queries to the backend that went", &still, &0)?;
        }
        Ok(format!("{still} of {TRIES} did"))
    }

    /// No wish but a fact: says who answers, and fails only if nobody does.
    fn stale(&self) -> Outcome<String> {
        let mut sockets = Vec::new();
        for connected in [true, false] {
            let at_last = || {
                for _ in 0..TRIES {
                    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                    socket.set_read_timeout(Some(SILENCE))?;
                    if connected {
                        socket.connect(DNS)?;
                    }
                    if Some(ends(&ask(&socket, DNS, connected)?)?.0) == last() {
                        return Ok::<_, Box<dyn std::error::Error>>(Some(socket));
                    }
                }
                Ok(None)
            };
            match at_last()? {
                Some(socket) => sockets.push((connected, socket)),
                None => that(false, "sockets with the last backend", "none", "one")?,
            }
        }
        self.while_gone(|| {
            let mut said = Vec::new();
            for (connected, socket) in &sockets {
                let (local, _) = ends(&ask(socket, DNS, *connected)?)?;
                let kind = if *connected { "connected" } else { "unconnected" };
                let stays = if Some(local) == last() { "stays with it" } else { "moves on" };
                said.push(format!("{kind} {stays}"));
            }
            Ok(said.join(", "))
        })
    }
}
