//! What is promised.

use std::fmt;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::item::ItemKind;
use crate::config;

/// A length of periods. Of each period a tier keeps the first good item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Quarterly,
    Yearly,
}

impl Tier {
    /// All of them, the shortest periods first.
    pub const ALL: [Self; 6] = [
        Self::Hourly,
        Self::Daily,
        Self::Weekly,
        Self::Monthly,
        Self::Quarterly,
        Self::Yearly,
    ];

    /// As in settings and plans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Quarterly => "quarterly",
            Self::Yearly => "yearly",
        }
    }

    /// The period that a moment belongs to: a number that ascends with time. Days begin at midnight in the zone, weeks on
    /// Monday; hours are those of UTC, so that none is twice as long or missing when clocks change.
    pub fn period(self, time: DateTime<Utc>, zone: Tz) -> i64 {
        let day = time.with_timezone(&zone).date_naive();
        let month = i64::from(day.year()) * 12 + i64::from(day.month0());
        match self {
            Self::Hourly => time.timestamp().div_euclid(3600),
            Self::Daily => i64::from(day.num_days_from_ce()),
            // Day 1 of the common era was a Monday.
            Self::Weekly => (i64::from(day.num_days_from_ce()) - 1).div_euclid(7),
            Self::Monthly => month,
            Self::Quarterly => month.div_euclid(3),
            Self::Yearly => i64::from(day.year()),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How much of a tier is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Of so many periods, the newest that have a good item.
    Count(u32),
    /// Of each period that reaches into so long a time before the reference time.
    For(TimeDelta),
}

/// What is kept of each tier, in the order of [`Tier::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tiers(pub [Option<Keep>; 6]);

impl Tiers {
    /// The tiers of which something is kept.
    pub fn iter(&self) -> impl Iterator<Item = (Tier, Keep)> + '_ {
        Tier::ALL
            .into_iter()
            .zip(self.0)
            .filter_map(|(tier, keep)| Some((tier, keep?)))
    }
}

/// What is promised of one kind of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KindPolicy {
    pub tiers: Tiers,
    /// So many good items of each series stay, whatever their age; never less than one.
    pub minimum: u32,
}

impl KindPolicy {
    /// A longer time between two items is not what the policy lets expect. That of the shortest tier is passed only when
    /// backups are rarer than the next but one, or fail again and again.
    pub fn longest_gap(&self) -> TimeDelta {
        let days = match self.tiers.iter().next() {
            Some((Tier::Hourly, _)) => 2,
            Some((Tier::Daily, _)) => 8,
            None | Some((Tier::Weekly, _)) => 32,
            Some((Tier::Monthly, _)) => 93,
            Some((Tier::Quarterly, _)) => 367,
            Some((Tier::Yearly, _)) => 735,
        };
        TimeDelta::days(days)
    }
}

/// What is promised. A kind without a tier, and base backups without a window either, are all kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// In which days, weeks and longer periods begin.
    pub zone: Tz,
    /// Every moment of so long a time before the newest base backup, and every later one, can be restored.
    pub window: Option<TimeDelta>,
    pub base: KindPolicy,
    pub dump: KindPolicy,
    pub schema: KindPolicy,
}

/// What the settings of one kind say.
macro_rules! kind_policy {
    ($settings:expr) => {{
        let of = $settings;
        let tiers = [
            of.hourly,
            of.daily,
            of.weekly,
            of.monthly,
            of.quarterly,
            of.yearly,
        ];
        KindPolicy {
            tiers: Tiers(tiers.map(|keep| keep.map(Keep::from))),
            minimum: of.minimum,
        }
    }};
}

impl From<config::Keep> for Keep {
    fn from(keep: config::Keep) -> Self {
        match keep {
            config::Keep::Count(count) => Self::Count(count),
            config::Keep::For(span) => {
                Self::For(TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX))
            }
        }
    }
}

impl Policy {
    /// What the settings promise.
    pub fn new(settings: &config::Settings) -> Self {
        let retention = &settings.retention;
        Self {
            zone: retention.time_zone.0,
            window: retention
                .window
                .map(|window| TimeDelta::from_std(window).unwrap_or(TimeDelta::MAX)),
            base: kind_policy!(&settings.retention_base),
            dump: kind_policy!(&settings.retention_dump),
            schema: kind_policy!(&settings.retention_schema),
        }
    }

    /// Of one kind.
    pub fn of(&self, kind: ItemKind) -> &KindPolicy {
        match kind {
            ItemKind::Base => &self.base,
            ItemKind::Dump => &self.dump,
            ItemKind::Schema => &self.schema,
        }
    }

    /// Whether anything of that kind is ever deleted.
    pub fn limits(&self, kind: ItemKind) -> bool {
        let by_window = kind == ItemKind::Base && self.window.is_some();
        by_window || self.of(kind).tiers.iter().next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(tier: Tier, time: &str, zone: Tz) -> i64 {
        tier.period(time.parse().unwrap(), zone)
    }

    #[test]
    fn periods_begin_at_the_zones_midnight_and_weeks_on_monday() {
        let zone = Tz::Europe__Berlin;
        let (before, after) = ("2026-03-29T21:59:59Z", "2026-03-29T22:00:00Z");
        for tier in [Tier::Hourly, Tier::Daily, Tier::Weekly] {
            assert_eq!(
                period(tier, before, zone) + 1,
                period(tier, after, zone),
                "{tier}"
            );
        }
        for tier in [Tier::Monthly, Tier::Quarterly, Tier::Yearly] {
            assert_eq!(
                period(tier, before, zone),
                period(tier, after, zone),
                "{tier}"
            );
        }
        let (before, after) = ("2026-12-31T22:59:59Z", "2026-12-31T23:00:00Z");
        for tier in [Tier::Monthly, Tier::Quarterly, Tier::Yearly] {
            assert_eq!(
                period(tier, before, zone) + 1,
                period(tier, after, zone),
                "{tier}"
            );
            assert_eq!(
                period(tier, before, Tz::UTC),
                period(tier, after, Tz::UTC),
                "{tier}"
            );
        }
    }

    #[test]
    fn settings_promise_what_they_say_and_by_default_all_is_kept() {
        let mut settings = config::testing::defaults();
        let policy = Policy::new;
        let all_kept = policy(&settings);
        assert!(
            ItemKind::ALL.iter().all(|kind| !all_kept.limits(*kind)) && all_kept.window.is_none()
        );
        settings.retention_dump.daily = Some(config::Keep::Count(7));
        settings.retention.time_zone = "Asia/Kathmandu".parse().unwrap();
        let limited = policy(&settings);
        assert_eq!(
            limited.dump.tiers.iter().collect::<Vec<_>>(),
            [(Tier::Daily, Keep::Count(7))]
        );
        assert!(limited.limits(ItemKind::Dump) && !limited.limits(ItemKind::Base));
        assert_eq!(
            (limited.zone, limited.base.minimum),
            (Tz::Asia__Kathmandu, 2)
        );
    }

    #[test]
    fn no_hour_is_missing_or_double_when_clocks_change() {
        let zone = Tz::Europe__Berlin;
        let hours = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]
            .map(|time| period(Tier::Hourly, time, zone));
        assert_eq!(hours[0] + 1, hours[1], "both are half past two in Berlin");
    }
}
