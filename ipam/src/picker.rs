//! Which address is next: round robin over what a set gives out.
//!
//! Round robin and not the lowest free one, so that an address is used again as late as possible.

use std::net::IpAddr;

use zerobridge_ledger::Chunk;

use crate::span::{Span, after};

/// The spans in the order in which to look through them: from the address behind `last` to the end of the list, then
/// from its beginning up to `last`. All of them from the beginning when `last` is in none.
pub(crate) fn rotation(spans: &[Span], last: Option<IpAddr>) -> Vec<Span> {
    let place = last.and_then(|last| Some((last, spans.iter().position(|span| span.contains(last))?)));
    let Some((last, place)) = place else {
        return spans.to_vec();
    };
    let current = spans[place];
    let rest =
        after(last).filter(|first| current.contains(*first)).map(|first| Span { first, last: current.last });
    let beginning = Span { first: current.first, last };
    rest.into_iter()
        .chain(spans[place + 1..].iter().copied())
        .chain(spans[..place].iter().copied())
        .chain([beginning])
        .collect()
}

/// The first address of the spans that is free; `chunk` gives the chunk of an address.
pub(crate) fn first_free<E>(
    spans: &[Span],
    mut chunk: impl FnMut(IpAddr) -> Result<Chunk, E>,
) -> Result<Option<IpAddr>, E> {
    for span in spans {
        let mut low = Some(span.first);
        while let Some(from) = low.filter(|from| span.contains(*from)) {
            let chunk = chunk(from)?;
            if let Some(free) = chunk.first_free(from, span.last) {
                return Ok(Some(free));
            }
            low = after(chunk.last());
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn ip(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    /// Spans that touch nowhere, from the lengths of gaps and of spans.
    fn spans(lengths: &[(u32, u32)]) -> Vec<Span> {
        let mut next = 0;
        let span = |(gap, length): &(u32, u32)| {
            let first = next + gap;
            next = first + length + 1;
            Span { first: ip(first), last: ip(first + length) }
        };
        lengths.iter().map(span).collect()
    }

    fn addresses(spans: &[Span]) -> Vec<IpAddr> {
        spans
            .iter()
            .flat_map(|span| {
                std::iter::successors(Some(span.first), |at| after(*at).filter(|at| span.contains(*at)))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn a_rotation_has_every_address_once_and_ends_at_the_last(
            lengths in proptest::collection::vec((1_u32..4, 0_u32..6), 1..6),
            index: proptest::sample::Index,
        ) {
            let spans = spans(&lengths);
            let mut expected = addresses(&spans);
            let last = *index.get(&expected);
            let place = expected.iter().position(|address| *address == last).unwrap();
            expected.rotate_left(place + 1);
            prop_assert_eq!(addresses(&rotation(&spans, Some(last))), expected);
        }
    }

    #[test]
    fn without_a_usable_beginning_the_rotation_starts_at_the_first() {
        let spans = spans(&[(1, 3), (2, 3)]);
        assert_eq!(rotation(&spans, None), spans);
        assert_eq!(rotation(&spans, Some(ip(0))), spans);
        assert_eq!(rotation(&spans, Some("fd00::1".parse().unwrap())), spans);
    }

    #[test]
    fn a_span_over_many_chunks_is_looked_through_in_order_and_once() {
        let (low, high) = (Span { first: ip(0), last: ip(9000) }, Span { first: ip(4000), last: ip(20_000) });
        let mut seen = Vec::new();
        let mut taken_up_to_9000 = |address: IpAddr| {
            seen.push(address);
            let mut chunk = Chunk::empty(address);
            let span = Span { first: chunk.first(), last: chunk.last() };
            for address in addresses(&[span]).into_iter().filter(|address| low.contains(*address)) {
                chunk.set(address, true);
            }
            Ok::<_, Infallible>(chunk)
        };
        assert_eq!(first_free(&[low], &mut taken_up_to_9000), Ok(None));
        assert_eq!(first_free(&[high], &mut taken_up_to_9000), Ok(Some(ip(9001))));
        assert_eq!(seen, [0, 4096, 8192, 4000, 4096, 8192].map(ip));
    }
}
