//! How an IP address is stored: a family and a key in network byte order, which sorts as the numbers do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The family as the schema has it.
pub(crate) fn family(address: IpAddr) -> i64 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// 4 or 16 bytes.
pub(crate) fn key(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address of a key; `None` for any other length.
pub(crate) fn from_key(key: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(key) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(key).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// The address with its last 12 bits replaced by `low`, of which the upper 4 bits must be 0.
pub(crate) fn with_low_bits(address: IpAddr, low: u16) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xfff | u32::from(low)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !0xfff | u128::from(low)).into(),
    }
}

/// The address's last 12 bits.
pub(crate) fn low_bits(address: IpAddr) -> u16 {
    let (high, low) = match address {
        IpAddr::V4(address) => (address.octets()[2], address.octets()[3]),
        IpAddr::V6(address) => (address.octets()[14], address.octets()[15]),
    };
    u16::from_be_bytes([high & 0xf, low])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_read_back_and_sort_as_addresses_do(left: u32, right: u32, wide: u128) {
            let [left, right] = [left, right].map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)));
            let wide = IpAddr::from(Ipv6Addr::from_bits(wide));
            for address in [left, right, wide] {
                prop_assert_eq!(from_key(&key(address)), Some(address));
                prop_assert_eq!(with_low_bits(with_low_bits(address, 0), low_bits(address)), address);
            }
            prop_assert_eq!(key(left).cmp(&key(right)), left.cmp(&right));
        }
    }

    #[test]
    fn the_low_bits_are_the_last_twelve() {
        assert_eq!(low_bits("10.0.255.254".parse().unwrap()), 0xffe);
        assert_eq!(low_bits("fd00::1234".parse().unwrap()), 0x234);
        assert_eq!(
            with_low_bits("10.0.255.254".parse().unwrap(), 0),
            "10.0.240.0".parse::<IpAddr>().unwrap()
        );
    }
}
