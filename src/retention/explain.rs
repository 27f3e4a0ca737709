//! Reasons in words.

use std::fmt;

use super::plan::{DeleteReason, KeepReason, Missed, Verdict, WalReason, WalVerdict};

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WindowBegin { timeline } => {
                write!(f, "the window of timeline {timeline} begins with it")
            }
            Self::Window => f.write_str("within the window"),
            Self::Tier { tier } => write!(f, "{tier}"),
            Self::Minimum => f.write_str("one of the newest good ones"),
            Self::Pin {
                id,
                reason,
                expires,
            } => {
                write!(f, "pin {id}: {reason}")?;
                expires.map_or(Ok(()), |expires| {
                    write!(f, " (until {})", expires.format("%Y-%m-%d"))
                })
            }
            Self::Lease { holder, .. } => write!(f, "{holder} reads it"),
            Self::NeededBy { item } => write!(f, "{item} needs it"),
            Self::MayBeNeededBy { item } => write!(f, "{item} may need it"),
            Self::Unknown { why } => write!(f, "not known whether it is good: {why}"),
            Self::NotReplaced => f.write_str("bad, but nothing good is newer"),
            Self::Examine => f.write_str("bad, kept for a week to be looked at"),
            Self::Ahead => f.write_str("later than the reference time"),
            Self::ClockDoubted => f.write_str("its clock may have been wrong"),
            Self::Contradicts { item } => write!(f, "shows that the time of {item} is in doubt"),
            Self::ClockWrong => f.write_str("this machine's clock may be wrong"),
            Self::PathUnknown { timeline } => {
                write!(f, "where timeline {timeline} comes from is not known")
            }
            Self::NoPolicy => f.write_str("no policy"),
        }
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFirst { first } => write!(f, "{} is the first", first.name),
            Self::TooOld => f.write_str("too old"),
        }
    }
}

impl fmt::Display for DeleteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad { why } => write!(f, "bad: {why}"),
            Self::Expired { tiers } if tiers.is_empty() => f.write_str("before the window"),
            Self::Expired { tiers } => {
                let tiers: Vec<String> = tiers
                    .iter()
                    .map(|(tier, missed)| format!("{tier}: {missed}"))
                    .collect();
                f.write_str(&tiers.join("; "))
            }
        }
    }
}

impl fmt::Display for WalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window { timeline } => write!(f, "window of timeline {timeline}"),
            Self::Backup { item } => write!(f, "{item} needs it"),
            Self::Lease { holder, .. } => write!(f, "{holder} reads it"),
            Self::MayBeNeededBy { item } => write!(f, "{item} may need it"),
            Self::NoBackup => f.write_str("no good base backup yet"),
            Self::PathUnknown { timeline } => {
                write!(f, "where timeline {timeline} comes from is not known")
            }
            Self::ClockWrong => f.write_str("this machine's clock may be wrong"),
            Self::NoPolicy => f.write_str("no window is set"),
        }
    }
}

fn joined<T: fmt::Display>(reasons: &[T]) -> String {
    reasons
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

impl Verdict {
    /// Why it stays or goes.
    pub fn because(&self) -> String {
        match self {
            Self::Keep(reasons) => joined(reasons),
            Self::Delete(reason) => reason.to_string(),
        }
    }
}

impl WalVerdict {
    /// Why it stays or goes.
    pub fn because(&self) -> String {
        match self {
            Self::Keep(reasons) => joined(reasons),
            Self::Delete => "before every window, and no kept base backup needs it".into(),
        }
    }
}
