//! Patterns for names and labels of nodes: `*` for any text, `?` for one character, everything else for itself.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(String);

/// A text that can match no name and no label.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "\"{text}\" matches no name and no label; write letters, digits, '-', '_' and '.', with * for any text and ? for one \
     character"
)]
pub(super) struct GlobError {
    text: String,
}

impl Glob {
    pub(super) fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        // Where to go on after a mismatch: behind the latest star, which then takes one character more.
        let mut retry: Option<(usize, usize)> = None;
        let (mut at, mut position) = (0, 0);
        while position < text.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    retry = Some((at + 1, position));
                    at += 1;
                }
                Some(wanted) if *wanted == b'?' || *wanted == text[position] => {
                    at += 1;
                    position += 1;
                }
                _ => match retry {
                    Some((behind_star, taken)) => {
                        retry = Some((behind_star, taken + 1));
                        (at, position) = (behind_star, taken + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // What Kubernetes allows in a node's name (a DNS subdomain) and in a label's value, which may also be empty.
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*?".contains(&byte);
        if !text.bytes().all(known) {
            return Err(GlobError { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character() {
        for (pattern, matching, other) in [
            ("gpu-1", &["gpu-1"][..], &["gpu-11", "gpu-", "GPU-1", ""][..]),
            ("gpu-*", &["gpu-1", "gpu-", "gpu-a-b"], &["gpu", "a-gpu-1"]),
            ("*-gpu", &["a-gpu", "-gpu", "a-gpu-gpu"], &["a-gpu-1"]),
            ("a*b*c", &["abc", "a-b-c", "abbcc", "abcabc"], &["ac", "acb"]),
            ("node-??", &["node-01"], &["node-1", "node-001"]),
            ("*", &["", "a"], &[]),
            ("", &[""], &["a"]),
        ] {
            let glob: Glob = pattern.parse().unwrap();
            assert_eq!(glob.to_string(), pattern);
            for text in matching {
                assert!(glob.matches(text), "{pattern} {text}");
            }
            for text in other {
                assert!(!glob.matches(text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn the_syntax_of_other_patterns_is_refused() {
        for text in ["gpu-[0-9]", "{a,b}", "gpu 1", "^gpu", "a/b", "!a"] {
            assert_eq!(text.parse::<Glob>(), Err(GlobError { text: text.to_owned() }));
        }
    }
}
