//! The three kinds of names that the specification restricts.

/// Whether `text` may be a `CNI_CONTAINERID`: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$` (SPEC, section 2, "Parameters").
#[must_use]
pub fn is_container_id(text: &str) -> bool {
    let first_is_fine = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first_is_fine && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Whether `text` may be the `name` of a network: the same rule as for a container (SPEC, section 1).
#[must_use]
pub fn is_network_name(text: &str) -> bool {
    is_container_id(text)
}

/// Whether `text` may be a `CNI_IFNAME`: 1 to 15 bytes, neither `.` nor `..`, without `/`, `:` and white space
/// (`dev_valid_name` in the kernel's `net/core/dev.c`; `ValidateInterfaceName` of the reference implementation).
#[must_use]
pub fn is_interface_name(text: &str) -> bool {
    let forbidden = |char: char| char == '/' || char == ':' || char == '\0' || char.is_whitespace();
    (1..=15).contains(&text.len()) && text != "." && text != ".." && !text.contains(forbidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_follow_the_pattern() {
        for text in ["a", "0f-9_x.y", "ABC"] {
            assert!(is_container_id(text), "{text}");
        }
        for text in ["", "-a", ".a", "_a", "a/b", "a b", "ä", "a\n"] {
            assert!(!is_container_id(text), "{text:?}");
        }
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for text in ["eth0", "a", "fifteen-bytes-x", "net1.100", "..."] {
            assert!(is_interface_name(text), "{text}");
        }
        for text in ["", ".", "..", "a/b", "a:b", "a b", "a\t", "sixteen-bytes-xx", "a\u{a0}b"] {
            assert!(!is_interface_name(text), "{text:?}");
        }
    }
}
