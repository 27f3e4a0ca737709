//! Sizes and durations with their units.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

const SIZE_UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DURATION_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Bytes of `64MiB`. The unit is needed, and MB or kB are not units: some mean 1000, others 1024 by them.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    with_unit(text, SIZE_UNITS)
}

/// A number or a size.
pub(super) fn parse_amount(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| parse_size(text))
}

/// A span such as `90s`; `None`: it is none.
pub fn parse_duration(text: &str) -> Option<Duration> {
    with_unit(text, DURATION_UNITS).map(Duration::from_millis)
}

/// A span in a file of tables.
pub fn read_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let wrong =
        || serde::de::Error::custom(format!("\"{text}\" is no span such as \"4h\" or \"30m\""));
    parse_duration(&text).map(Some).ok_or_else(wrong)
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

pub(super) fn size_text(bytes: u64) -> String {
    match SIZE_UNITS
        .iter()
        .find(|(_, factor)| bytes.is_multiple_of(*factor))
    {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

pub(super) fn duration_text(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let (unit, factor) = DURATION_UNITS
        .iter()
        .find(|(_, factor)| millis.is_multiple_of(*factor))
        .unwrap_or(&("ms", 1));
    format!("{}{unit}", millis / factor)
}
