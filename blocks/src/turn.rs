//! What differs from node to node and is always the same on each: so that many nodes do not do alike at the same moment.

use std::time::Duration;

/// The moment within `period`, in whole seconds, at which it is this node's turn to do something that all nodes do.
#[must_use]
pub fn turn_of(node: &str, purpose: &str, period: Duration) -> Duration {
    let seconds = period.as_secs().max(1);
    Duration::from_secs(hash(&[purpose.as_bytes(), b"/", node.as_bytes()]) % seconds)
}

/// FNV-1a, finished by a multiplication that carries what differs at the end into the upper half: the same in every
/// version of this program, unlike the standard library's.
pub(crate) fn hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ hash >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nodes_have_turns_of_their_own_all_over_the_period() {
        let period = Duration::from_secs(300);
        let turns: BTreeSet<Duration> =
            (0..1000).map(|number| turn_of(&format!("node-{number}"), "beat", period)).collect();
        assert!(turns.len() > 250 && turns.iter().all(|turn| *turn < period), "{}", turns.len());
        assert_eq!(turn_of("node-1", "beat", period), turn_of("node-1", "beat", period));
        assert_eq!(turn_of("node-1", "beat", Duration::ZERO), Duration::ZERO);
    }
}
