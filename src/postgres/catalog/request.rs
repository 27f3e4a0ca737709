//! What is asked for, in words: one set of rules for the command line, the API and the page.

use anyhow::bail;
use chrono::{DateTime, Utc};

use super::{EventId, RestoreRequest, Target, TimelineChoice, parse_time};
use crate::postgres::layout::BackupId;

/// A target as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedTarget {
    Target(Target),
    /// Not looked up yet.
    Event(EventId),
}

/// A request that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedRequest {
    pub named: NamedTarget,
    pub inclusive: bool,
    pub timeline: TimelineChoice,
    pub backup: Option<BackupId>,
}

/// What is asked for, as text. Absent values are `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestText<'a> {
    pub exclusive: bool,
    pub timeline: Option<&'a str>,
    pub backup: Option<&'a str>,
}

impl ParsedRequest {
    /// Reads the one target that has a value, and the choices around it; without a target everything archived is asked for.
    /// `immediate` and `latest` have any value. Errors: more than one target, a value that is none, `exclusive` where
    /// nothing can lie at the target.
    pub fn read(
        targets: &[(&str, Option<&str>)],
        words: RequestText<'_>,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Self> {
        let mut given = targets
            .iter()
            .filter_map(|(by, value)| Some((*by, (*value)?)));
        let (by, value) = given.next().unwrap_or(("latest", ""));
        if given.next().is_some() {
            bail!(
                "there is more than one target: give one of time, lsn, xid, name, before, after, immediate, latest"
            );
        }
        let named = match by {
            "time" => NamedTarget::Target(Target::Time(parse_time(value, now)?.0)),
            "lsn" => NamedTarget::Target(Target::Lsn(value.parse()?)),
            "xid" => NamedTarget::Target(Target::xid(value)?),
            "name" => NamedTarget::Target(Target::restore_point(value)?),
            "before" | "after" => NamedTarget::Event(value.parse()?),
            "immediate" => NamedTarget::Target(Target::Immediate),
            "latest" => NamedTarget::Target(Target::Latest),
            other => bail!("\"{other}\" is not a kind of target"),
        };
        if words.exclusive
            && !matches!(&named, NamedTarget::Target(target) if target.can_be_exclusive())
        {
            bail!("exclusive needs one of time, lsn and xid");
        }
        Ok(Self {
            named,
            inclusive: !words.exclusive && by != "before",
            timeline: words
                .timeline
                .map_or(Ok(TimelineChoice::Latest), str::parse)?,
            backup: words.backup.map(str::parse).transpose()?,
        })
    }

    /// Whether planning for it needs to know what WAL holds.
    pub fn needs_index(&self) -> bool {
        !matches!(
            self.named,
            NamedTarget::Target(Target::Immediate | Target::Latest)
        )
    }

    /// The request, with the target that was named.
    pub fn request(self, target: Target) -> RestoreRequest {
        RestoreRequest {
            target,
            inclusive: self.inclusive,
            timeline: self.timeline,
            backup: self.backup,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(targets: &[(&str, Option<&str>)], exclusive: bool) -> anyhow::Result<ParsedRequest> {
        ParsedRequest::read(
            targets,
            RequestText {
                exclusive,
                ..RequestText::default()
            },
            "2026-03-01T15:00:00Z".parse().unwrap(),
        )
    }

    #[test]
    fn at_most_one_target_is_asked_for_and_none_is_everything() {
        let one = |by, value| read(&[("time", None), (by, Some(value))], false).unwrap();
        assert_eq!(one("xid", "7").named, NamedTarget::Target(Target::Xid(7)));
        assert_eq!(read(&[("time", None)], false).unwrap(), one("latest", ""));
        let (before, after) = (
            one("before", "1-0-3000158-d16384"),
            one("after", "1-0-3000158-d16384"),
        );
        assert!(before.named == after.named && !before.inclusive && after.inclusive);
        for twice in [
            [("time", Some("14:05")), ("lsn", Some("0/1"))],
            [("before", Some("1")), ("after", Some("1"))],
        ] {
            let error = read(&twice, false).unwrap_err().to_string();
            assert!(
                error.starts_with("there is more than one target"),
                "{error}"
            );
        }
    }

    #[test]
    fn exclusive_says_something_only_of_what_lies_at_the_target() {
        for (by, value) in [("time", "14:05"), ("lsn", "0/1"), ("xid", "7")] {
            assert!(!read(&[(by, Some(value))], true).unwrap().inclusive, "{by}");
        }
        for (by, value) in [
            ("name", "x"),
            ("before", "1-0-3000158-d16384"),
            ("immediate", ""),
            ("latest", ""),
        ] {
            assert!(read(&[(by, Some(value))], true).is_err(), "{by}");
        }
    }
}
