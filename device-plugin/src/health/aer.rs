//! Fatal errors of the PCIe link since the daemon began: the kernel counts since it found the function.

use std::collections::BTreeMap;

use zerobridge_proto::PciAddress;

/// Counts of fatal errors, and what they were when they were first seen.
#[derive(Clone, Debug, Default)]
pub(super) struct FatalErrors {
    first: BTreeMap<PciAddress, u64>,
    last: BTreeMap<PciAddress, u64>,
}

impl FatalErrors {
    /// Takes over the present counts, by function. A count that fell is that of a function which was made anew.
    pub(super) fn update(&mut self, counts: &BTreeMap<PciAddress, u64>) {
        let Self { first, last } = self;
        first.retain(|address, _| match (counts.get(address), last.get(address)) {
            (Some(count), Some(last)) => count >= last,
            _ => false,
        });
        for (&address, &count) in counts {
            first.entry(address).or_insert(count);
        }
        last.clone_from(counts);
    }

    /// How many there were since the first look; `None` if nobody counts those of this function.
    pub(super) fn new_ones(&self, address: PciAddress) -> Option<u64> {
        Some(self.last.get(&address)?.saturating_sub(*self.first.get(&address)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_after_the_first_look_counts() {
        let address: PciAddress = "0000:01:00.0".parse().unwrap();
        let mut errors = FatalErrors::default();
        assert_eq!(errors.new_ones(address), None);
        for (count, new_ones, what) in [
            (Some(7), Some(0), "errors of long ago"),
            (Some(9), Some(2), "two more"),
            (Some(9), Some(2), "they are not forgotten"),
            (Some(1), Some(0), "a function made anew begins anew"),
            (Some(2), Some(1), "and counts on"),
            (None, None, "a function that is gone"),
            (Some(5), Some(0), "and comes back"),
        ] {
            errors.update(&count.map(|count| (address, count)).into_iter().collect());
            assert_eq!(errors.new_ones(address), new_ones, "{what}");
        }
    }
}
