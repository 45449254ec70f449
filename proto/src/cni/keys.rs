//! Unknown keys: a misspelt key must not be dropped in silence, because what it asked for would then be missing.

use serde_json::{Map, Value};

use super::{CniError, ErrorCode};

/// Fails with code 2 for the first key of `object` that is not in `known`, naming the key, its value, and the nearest
/// known key or all of them. `place` says where the object stands, such as `ipam.ranges[0][1]`; empty for the top.
///
/// # Errors
/// One unknown key.
pub fn reject_unknown_keys(object: &Map<String, Value>, place: &str, known: &[&str]) -> Result<(), CniError> {
    let Some((key, value)) = object.iter().find(|(key, _)| !known.contains(&key.as_str())) else {
        return Ok(());
    };
    let path = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
    let remedy = match nearest(key, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("known are: {}", known.join(", ")),
    };
    Err(CniError::new(
        ErrorCode::UNSUPPORTED_FIELD,
        format!("unknown key \"{path}\" with value {value}; {remedy}"),
    ))
}

/// The entry of `known` that `text` was most likely meant to be: the fewest edits, at most a third of its length.
/// Case does not count.
#[must_use]
pub fn nearest<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    let text = text.to_lowercase();
    known
        .iter()
        .map(|candidate| (edits(&text, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The number of single-character insertions, removals and replacements between two texts (Levenshtein).
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, from) in left.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["subnet", "rangeStart", "rangeEnd", "gateway"];

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_misspelt_key_gets_the_one_that_was_meant() {
        let error = reject_unknown_keys(&object(r#"{"rangestart":"10.0.0.1"}"#), "ipam", &KNOWN).unwrap_err();
        assert_eq!(error.code, ErrorCode::UNSUPPORTED_FIELD);
        assert_eq!(
            error.msg,
            r#"unknown key "ipam.rangestart" with value "10.0.0.1"; did you mean "rangeStart"?"#
        );
    }

    #[test]
    fn a_strange_key_gets_the_whole_list() {
        let error = reject_unknown_keys(&object(r#"{"colour":7}"#), "", &KNOWN).unwrap_err();
        assert_eq!(
            error.msg,
            "unknown key \"colour\" with value 7; known are: subnet, rangeStart, rangeEnd, gateway"
        );
    }

    #[test]
    fn known_keys_pass() {
        reject_unknown_keys(&object(r#"{"subnet":"","gateway":null}"#), "", &KNOWN).unwrap();
    }

    #[test]
    fn edits_are_counted() {
        for (left, right, count) in
            [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("vlan", "vlna", 2)]
        {
            assert_eq!(edits(left, right), count, "{left} {right}");
            assert_eq!(edits(right, left), count, "{right} {left}");
        }
    }
}
