//! How lengths of time are written, on the command line and in a configuration: a whole number with `ms`, `s` or `m`.

use std::time::Duration;

use thiserror::Error;

/// A text that is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{text}\" is no length of time; write a whole number with ms, s or m, such as 500ms or 2s")]
pub(crate) struct DurationError {
    text: String,
}

/// Reads a length of time, zero included.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let milliseconds = match &text[digits.len()..] {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        _ => None,
    };
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok());
    number
        .flatten()
        .zip(milliseconds)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .map(Duration::from_millis)
        .ok_or_else(|| DurationError { text: text.to_owned() })
}

/// Writes a length of time so that [`parse`] reads the same; what is below a millisecond is lost.
pub(crate) fn show(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds.is_multiple_of(1000) {
        format!("{}s", milliseconds / 1000)
    } else {
        format!("{milliseconds}ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_a_number_and_a_unit() {
        for (text, milliseconds, shown) in [
            ("500ms", 500, "500ms"),
            ("2s", 2000, "2s"),
            ("1500ms", 1500, "1500ms"),
            ("2m", 120_000, "120s"),
            ("0s", 0, "0s"),
        ] {
            let duration = parse(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds));
            assert_eq!(show(duration), shown);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "5", "s", "5h", "-1s", "+1s", "1.5s", "5 s", "18446744073709551615m"] {
            assert_eq!(parse(text), Err(DurationError { text: text.to_owned() }));
        }
    }
}
