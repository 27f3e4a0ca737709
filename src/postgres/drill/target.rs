//! Which moment a drill restores to. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use crate::postgres::catalog::{Target, Windows};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrillTarget {
    /// All archived WAL.
    Latest,
    /// Any moment that can be restored, chosen by this number.
    Random(u64),
    At(DateTime<Utc>),
    /// Where rows were counted on the source last, as far as that is archived.
    Counted,
}

impl DrillTarget {
    /// The target of the restore; `None`: no window is known of which a moment could be chosen.
    pub fn choose(self, windows: &Windows) -> Option<Target> {
        match self {
            Self::Latest => Some(Target::Latest),
            Self::At(time) => Some(Target::Time(time)),
            // A record tells, no window.
            Self::Counted => None,
            Self::Random(number) => random(number, windows).map(Target::Time),
        }
    }
}

/// A moment of all windows of the newest timeline, each as likely as any other.
fn random(number: u64, windows: &Windows) -> Option<DateTime<Utc>> {
    let newest = windows.newest()?.timeline;
    let spans: Vec<(DateTime<Utc>, TimeDelta)> = windows
        .windows
        .iter()
        .filter(|window| window.timeline == newest)
        .filter_map(|window| {
            let (from, to) = (window.from.time?, window.to.time?);
            (from < to).then(|| (from, to - from))
        })
        .collect();
    let micros = |span: &TimeDelta| span.num_microseconds().unwrap_or(i64::MAX).unsigned_abs();
    let total: u64 = spans.iter().map(|(_, span)| micros(span)).sum();
    let mut at = number.checked_rem(total)?;
    for (from, span) in &spans {
        match micros(span) {
            length if at < length => return Some(*from + TimeDelta::microseconds(at as i64)),
            length => at -= length,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::{Window, WindowEdge};
    use crate::postgres::types::{Lsn, TimelineId};

    fn window(timeline: u32, from: i64, to: i64) -> Window {
        let edge = |second| WindowEdge {
            lsn: Lsn(second as u64),
            time: DateTime::from_timestamp(second, 0),
        };
        Window {
            timeline: TimelineId(timeline),
            from: edge(from),
            to: edge(to),
            idle_until: None,
            backup: "20260131-030000Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_random_moment_lies_in_a_window_of_the_newest_timeline_and_each_is_reached() {
        let windows = Windows {
            windows: vec![window(1, 0, 50), window(2, 100, 110), window(2, 200, 230)],
            ..Windows::default()
        };
        let at = |seconds: u64| {
            let chosen = DrillTarget::Random(seconds * 1_000_000).choose(&windows);
            let Some(Target::Time(time)) = chosen else {
                panic!("{chosen:?}")
            };
            time.timestamp()
        };
        assert_eq!(
            [at(0), at(9), at(10), at(39), at(40)],
            [100, 109, 200, 229, 100]
        );
        assert_eq!(DrillTarget::Random(7).choose(&Windows::default()), None);
        assert_eq!(
            DrillTarget::Latest.choose(&Windows::default()),
            Some(Target::Latest)
        );
    }
}
