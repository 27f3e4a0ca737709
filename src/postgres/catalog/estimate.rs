//! How long a restore will take, from how long past ones took.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Past restores that count: the latest.
pub const PAST_RESTORES: usize = 20;

/// What a restore took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastRestore {
    pub at: DateTime<Utc>,
    /// Bytes of the backup's files, and the time until they were there and durable.
    pub plain_bytes: u64,
    pub seconds_for_files: f64,
    /// Segments replayed, and the time from the server's start until it was at the target.
    pub segments: u64,
    pub seconds_for_replay: f64,
}

/// Seconds for so many bytes and segments, at the pace of past restores all together: large ones weigh more. `None`
/// without any.
pub fn expected_seconds(past: &[PastRestore], plain_bytes: u64, segments: u64) -> Option<f64> {
    let past = &past[past.len().saturating_sub(PAST_RESTORES)..];
    let sum = |part: fn(&PastRestore) -> f64| past.iter().map(part).sum::<f64>();
    let (bytes, replayed) = (
        sum(|one| one.plain_bytes as f64),
        sum(|one| one.segments as f64),
    );
    let seconds = |per: f64, all: f64, many: u64| (all > 0.0).then(|| per / all * many as f64);
    let files = seconds(sum(|one| one.seconds_for_files), bytes, plain_bytes)?;
    let replay = seconds(sum(|one| one.seconds_for_replay), replayed, segments)?;
    Some(files + replay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_takes_what_past_ones_let_expect() {
        let past = |plain_bytes, seconds_for_files, segments, seconds_for_replay| PastRestore {
            at: DateTime::UNIX_EPOCH,
            plain_bytes,
            seconds_for_files,
            segments,
            seconds_for_replay,
        };
        assert_eq!(expected_seconds(&[], 1, 1), None);
        let one = past(1000, 10.0, 5, 20.0);
        assert_eq!(
            expected_seconds(std::slice::from_ref(&one), 2000, 10),
            Some(60.0)
        );
        let two = [one, past(3000, 10.0, 15, 20.0)];
        assert_eq!(expected_seconds(&two, 2000, 10), Some(30.0));
        let mut many = vec![past(1, 1000.0, 1, 1000.0)];
        many.extend(vec![past(1000, 10.0, 5, 20.0); PAST_RESTORES]);
        assert_eq!(
            expected_seconds(&many, 2000, 10),
            Some(60.0),
            "old ones no longer count"
        );
    }
}
