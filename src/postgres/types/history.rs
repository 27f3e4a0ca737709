use super::{Lsn, ParseError, TimelineId};

/// One ancestor of a timeline: it was followed up to `switch_lsn`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HistoryEntry {
    pub timeline: TimelineId,
    /// The first byte that is not the ancestor's.
    pub switch_lsn: Lsn,
    pub reason: String,
}

/// A timeline and its ancestors, oldest first, as its history file tells (timeline.c, readTimeLineHistory).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TimelineHistory {
    pub timeline: TimelineId,
    pub ancestors: Vec<HistoryEntry>,
}

impl TimelineHistory {
    /// Timeline 1, which has no history file, or any timeline taken as the first of its path.
    pub fn root(timeline: TimelineId) -> Self {
        Self { timeline, ancestors: Vec::new() }
    }

    /// Reads the content of `<timeline>.history`. Blank lines and `#` comments are skipped: the server writes blank
    /// lines itself after some reasons.
    pub fn parse(timeline: TimelineId, content: &str) -> Result<Self, ParseError> {
        let mut ancestors: Vec<HistoryEntry> = Vec::new();
        for line in content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |why: &str| ParseError::new("timeline history line", line, why);
            let mut fields = line.splitn(3, |c: char| c.is_ascii_whitespace());
            let number = fields.next().unwrap_or_default();
            let parent = number.parse().map_err(|_| wrong("it does not begin with a timeline's number"))?;
            let switch_lsn = fields.next().unwrap_or_default().parse().map_err(|_| wrong("no switch LSN"))?;
            let after = ancestors.last().map(|last| (last.timeline, last.switch_lsn));
            if after.is_some_and(|(last, lsn)| parent <= last.0 || switch_lsn < lsn) || parent == 0 {
                return Err(wrong("timelines and switch LSNs must ascend"));
            }
            let reason = fields.next().unwrap_or_default().trim().to_string();
            ancestors.push(HistoryEntry { timeline: TimelineId(parent), switch_lsn, reason });
        }
        if ancestors.last().is_some_and(|last| last.timeline >= timeline) {
            return Err(ParseError::new("timeline history", timeline, "a timeline is newer than all its ancestors"));
        }
        Ok(Self { timeline, ancestors })
    }

    /// Where the path leaves `timeline`: `None` when it is not on the path; `Some(None)` for the newest itself.
    pub fn end_of(&self, timeline: TimelineId) -> Option<Option<Lsn>> {
        if timeline == self.timeline {
            return Some(None);
        }
        self.ancestors.iter().find(|entry| entry.timeline == timeline).map(|entry| Some(entry.switch_lsn))
    }

    /// Where the path enters `timeline`: 0/0 for the oldest; `None` when it is not on the path.
    pub fn begin_of(&self, timeline: TimelineId) -> Option<Lsn> {
        let place = self.path().position(|each| each == timeline)?;
        Some(if place == 0 { Lsn(0) } else { self.ancestors[place - 1].switch_lsn })
    }

    /// The timeline that the byte at `lsn` belongs to on this path.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.ancestors.iter().find(|entry| lsn < entry.switch_lsn).map_or(self.timeline, |entry| entry.timeline)
    }

    /// All timelines of the path, oldest first.
    pub fn path(&self) -> impl Iterator<Item = TimelineId> + '_ {
        self.ancestors.iter().map(|entry| entry.timeline).chain([self.timeline])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "1\t0/3000158\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-01-01 00:00:00+00\n\n\n# end\n";

    #[test]
    fn a_history_file_gives_the_line_of_timelines() {
        let history = TimelineHistory::parse(TimelineId(3), FILE).unwrap();
        assert_eq!(history.path().map(|t| t.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(history.ancestors[1].reason, "before 2026-01-01 00:00:00+00");
        assert_eq!(history.timeline_at(Lsn(0x3000157)), TimelineId(1));
        assert_eq!(history.timeline_at(Lsn(0x3000158)), TimelineId(2));
        assert_eq!(history.timeline_at(Lsn(0x5000000)), TimelineId(3));
        assert_eq!(history.begin_of(TimelineId(2)), Some(Lsn(0x3000158)));
        assert_eq!(history.end_of(TimelineId(2)), Some(Some(Lsn(0x5000000))));
        assert_eq!(history.end_of(TimelineId(3)), Some(None));
        assert_eq!(history.end_of(TimelineId(4)), None);
    }

    #[test]
    fn broken_history_is_refused() {
        for content in
            ["x\t0/1\tr", "1\tnope\tr", "2\t0/1\tr\n1\t0/2\tr", "1\t0/2\tr\n2\t0/1\tr", "3\t0/1\tr", "0\t0/1\tr"]
        {
            assert!(TimelineHistory::parse(TimelineId(3), content).is_err(), "{content:?}");
        }
    }
}
