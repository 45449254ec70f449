//! Stretches of neighbouring addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The addresses from `first` to `last`, both included and of one family; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
}

impl Span {
    /// A single address.
    pub(crate) fn of(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }

    /// All addresses of a prefix.
    pub(crate) fn of_net(net: IpNet) -> Self {
        Self { first: net.network(), last: net.broadcast() }
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// How many addresses; one too few for all of IPv6.
    pub(crate) fn size(&self) -> u128 {
        (bits(self.last) - bits(self.first)).saturating_add(1)
    }

    /// What is left when `hole` is taken out: up to two spans.
    pub(crate) fn without(self, hole: &Self) -> impl Iterator<Item = Self> + use<> {
        let (below, above) = if self.overlaps(hole) {
            let below = before(hole.first).filter(|last| self.contains(*last));
            let above = after(hole.last).filter(|first| self.contains(*first));
            (
                below.map(|last| Self { first: self.first, last }),
                above.map(|first| Self { first, last: self.last }),
            )
        } else {
            (Some(self), None)
        };
        below.into_iter().chain(above)
    }
}

/// The next address; `None` after the last of its family.
pub(crate) fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits().checked_add(1)?).into()),
    }
}

/// The address before; `None` before the first of its family.
pub(crate) fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from_bits(address.to_bits().checked_sub(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits().checked_sub(1)?).into()),
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(first: u8, last: u8) -> Span {
        let ip = |low| Ipv4Addr::new(10, 0, 0, low).into();
        Span { first: ip(first.min(last)), last: ip(first.max(last)) }
    }

    proptest! {
        #[test]
        fn a_hole_takes_out_its_addresses_and_no_other(a: u8, b: u8, c: u8, d: u8) {
            let (whole, hole) = (span(a, b), span(c, d));
            let left: Vec<Span> = whole.without(&hole).collect();
            for low in 0..=u8::MAX {
                let address = Ipv4Addr::new(10, 0, 0, low).into();
                let expected = whole.contains(address) && !hole.contains(address);
                prop_assert_eq!(left.iter().filter(|span| span.contains(address)).count(), usize::from(expected));
            }
            prop_assert_eq!(whole.overlaps(&hole), left != [whole]);
        }
    }

    #[test]
    fn the_ends_of_the_address_space_are_ends() {
        let all = Span::of_net("::/0".parse().unwrap());
        assert_eq!((before(all.first), after(all.last)), (None, None));
        assert_eq!(all.size(), u128::MAX);
        assert_eq!(all.without(&all).count(), 0);
        assert_eq!(Span::of_net("0.0.0.0/0".parse().unwrap()).size(), 1 << 32);
        assert!(!all.contains("10.0.0.1".parse().unwrap()));
    }
}
