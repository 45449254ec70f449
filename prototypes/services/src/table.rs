//! The Services that everything is measured with, and one change of them. Pure.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The port of every backend.
pub(crate) const PORT: u16 = 8000;
/// The port at which a client listens for itself.
pub(crate) const OWN_PORT: u16 = 9000;
/// The name Service: UDP, three backends.
pub(crate) const DNS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 53);
/// A Service with a thousand backends.
pub(crate) const WIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 20), 80);
/// A Service without any.
pub(crate) const EMPTY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 30), 80);
/// An address in the range of Services that is none; the lab's server has it.
pub(crate) const UNKNOWN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 111, 0, 1), PORT);
/// Backends of [`WIDE`].
pub(crate) const WIDTH: u32 = 1000;
/// Backends of every other Service that has any.
pub(crate) const BACKENDS: u32 = 3;
/// Hosts of 10.9.0.0/24 that have a Service of which they are the only backend.
const CLIENTS: [u8; 3] = [12, 13, 14];

/// A Service's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// Its number in an IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A Service's port and who answers there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) at: SocketAddrV4,
    pub(crate) protocol: Protocol,
    pub(crate) backends: Vec<SocketAddrV4>,
}

/// The special Services and `count` (at most 65,536) of three backends each.
pub(crate) fn table(count: u32) -> Vec<Service> {
    let tcp = |at, backends| Service { at, protocol: Protocol::Tcp, backends };
    let own =
        CLIENTS.map(|host| tcp(own(host), vec![SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, host), OWN_PORT)]));
    let dns = Service { at: DNS, protocol: Protocol::Udp, backends: dns_backends() };
    let wide = tcp(WIDE, (1..=WIDTH).map(|number| backend([10, 130, 0, 0], number)).collect());
    let mut all = vec![dns, wide, tcp(EMPTY, Vec::new())];
    all.extend(own);
    all.extend((0..count).map(|number| tcp(ordinary(number), ordinary_backends(number))));
    all
}

/// The Service of three backends number `number`.
pub(crate) fn ordinary(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(after([10, 97, 0, 0], number), 80)
}

/// Its backends, which no other Service has.
pub(crate) fn ordinary_backends(number: u32) -> Vec<SocketAddrV4> {
    (1..=BACKENDS).map(|one| backend([10, 132, 0, 0], number * BACKENDS + one)).collect()
}

/// The backends of [`DNS`].
pub(crate) fn dns_backends() -> Vec<SocketAddrV4> {
    (1..=BACKENDS).map(|number| backend([10, 128, 0, 0], number)).collect()
}

/// The Service whose only backend is 10.9.0.`host`.
pub(crate) fn own(host: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 96, 1, host), 80)
}

/// `service` without its last backend.
pub(crate) fn without_last(service: &Service) -> Service {
    let kept = service.backends.len().saturating_sub(1);
    Service { backends: service.backends.iter().copied().take(kept).collect(), ..service.clone() }
}

fn backend(first: [u8; 4], number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(after(first, number), PORT)
}

fn after(first: [u8; 4], number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::from(first).to_bits() + number)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_services_share_an_address_or_a_backend() {
        let table = table(10_000);
        assert_eq!(table.len(), 10_006);
        let addresses: HashSet<_> = table.iter().map(|service| service.at).collect();
        assert_eq!(addresses.len(), table.len());
        let backends: Vec<_> = table.iter().flat_map(|service| &service.backends).collect();
        assert_eq!(backends.len(), 3 + 1000 + 3 + 30_000);
        assert_eq!(backends.iter().collect::<HashSet<_>>().len(), backends.len());
        assert_eq!(backends.last().unwrap().to_string(), "10.132.117.48:8000");
    }

    #[test]
    fn a_service_can_lose_all_its_backends() {
        let service = &table(1)[6];
        let mut left = service.clone();
        for count in [2, 1, 0, 0] {
            left = without_last(&left);
            assert_eq!((left.at, left.backends.len()), (service.at, count));
            assert_eq!(left.backends[..], service.backends[..count]);
        }
    }
}
