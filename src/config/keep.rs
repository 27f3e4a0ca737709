//! How much of a tier is kept, as settings say it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::units::{duration_text, parse_duration};

/// More periods than any tier has use for: a hundred years of hours.
const MOST: u32 = 876_600;

/// So many periods, or all that reach into so long a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Count(u32),
    For(Duration),
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.parse().ok().filter(|count| (1..=MOST).contains(count));
        let span = || parse_duration(text).filter(|span| *span >= Duration::from_secs(3600));
        let keep = count.map(Self::Count).or_else(|| span().map(Self::For));
        keep.ok_or_else(|| format!("allowed is {}", Self::allowed()))
    }
}

impl Keep {
    /// As the end of a sentence.
    pub(super) fn allowed() -> &'static str {
        "a number of periods, such as 7, or a duration from \"1h\", such as \"30d\""
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::For(span) => f.write_str(&duration_text(*span)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_periods_and_a_duration_reaches_back() {
        assert_eq!("7".parse(), Ok(Keep::Count(7)));
        assert_eq!(
            "30d".parse(),
            Ok(Keep::For(Duration::from_secs(30 * 86400)))
        );
        for text in ["7", "30d", "12h"] {
            assert_eq!(text.parse::<Keep>().unwrap().to_string(), text);
        }
        for text in ["0", "-1", "7x", "", "30s", "1000000", "forever"] {
            assert!(text.parse::<Keep>().is_err(), "{text:?}");
        }
    }
}
