//! Ranges that stand in for each other, as host-local's `ranges` groups them.

use std::net::IpAddr;

use serde_json::Value;

use crate::PoolError;
use crate::pool::{invalid, object};
use crate::range::Range;
use crate::span::Span;

/// Ranges of one family that stand in for each other: a container gets one address from a set, and one from each set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range>,
    /// Single addresses that belong to the set and are given out to one pod each, by its name.
    own: Vec<Range>,
    /// The cluster-wide pool that the ranges are blocks of.
    pub(crate) pool: Option<String>,
    /// What is given out, in the order of the ranges.
    pub(crate) spans: Vec<Span>,
}

impl RangeSet {
    pub(crate) fn new(ranges: Vec<Range>, reserved: &[Span]) -> Result<Self, PoolError> {
        let set = Self::of_blocks(None, ranges, reserved);
        match set.spans.is_empty() {
            true => Err(PoolError::Empty { place: set.in_words() }),
            false => Ok(set),
        }
    }

    /// The same, for blocks that a node happens to hold: having nothing to give out is no fault of a configuration.
    pub(crate) fn of_blocks(pool: Option<String>, ranges: Vec<Range>, reserved: &[Span]) -> Self {
        let spans = reserved
            .iter()
            .fold(ranges.iter().map(|range| range.span).collect(), |spans: Vec<Span>, hole| {
                spans.into_iter().flat_map(|span| span.without(hole)).collect()
            });
        Self { ranges, own: Vec::new(), pool, spans }
    }

    /// The same, with addresses that are pods' own.
    pub(crate) fn with_own(self, own: Vec<Range>) -> Self {
        Self { own, ..self }
    }

    /// The ranges, in the order in which they are used.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The range that `address` belongs to.
    #[must_use]
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.ranges.iter().chain(&self.own).find(|range| range.span.contains(address))
    }

    /// Whether `address` may be given out.
    #[must_use]
    pub fn gives_out(&self, address: IpAddr) -> bool {
        self.spans.iter().any(|span| span.contains(address))
    }

    /// How many addresses it gives out.
    #[must_use]
    pub fn size(&self) -> u128 {
        self.spans.iter().fold(0, |sum, span| sum.saturating_add(span.size()))
    }

    pub(crate) fn in_words(&self) -> String {
        self.ranges.iter().map(Range::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Reads a list of lists of ranges; `place` is where it stands.
pub(crate) fn read_sets(value: &Value, place: &str) -> Result<Vec<Vec<Range>>, PoolError> {
    let rule = r#"write a list of lists of ranges, such as [[{"subnet":"10.100.0.0/24"}]]"#;
    let list = |value: &Value, place: &str| {
        value.as_array().cloned().ok_or_else(|| invalid(place, Some(value), rule))
    };
    let mut sets = Vec::new();
    for (number, set) in list(value, place)?.iter().enumerate() {
        let place = format!("{place}[{number}]");
        let mut ranges: Vec<Range> = Vec::new();
        for (number, range) in list(set, &place)?.iter().enumerate() {
            let place = format!("{place}[{number}]");
            let range = Range::parse(object(range, &place)?, &place)?;
            if ranges.first().is_some_and(|first| first.first().is_ipv4() != range.first().is_ipv4()) {
                let rule = "all ranges of a set must be of one family; a second set gives a second address";
                return Err(invalid(&place, set.get(number), rule));
            }
            ranges.push(range);
        }
        if ranges.is_empty() {
            return Err(invalid(&place, Some(set), "a set needs at least one range"));
        }
        sets.push(ranges);
    }
    Ok(sets)
}

/// An address must stand in one range only: in two it would be leased from one set and seem free in the other.
pub(crate) fn refuse_overlaps(sets: &[Vec<Range>]) -> Result<(), PoolError> {
    let ranges: Vec<&Range> = sets.iter().flatten().collect();
    for (number, left) in ranges.iter().enumerate() {
        if let Some(right) = ranges[number + 1..].iter().find(|right| left.span.overlaps(&right.span)) {
            let named = |range: &Range| format!("{} ({range})", range.place);
            return Err(PoolError::Overlap { left: named(left), right: named(right) });
        }
    }
    Ok(())
}
