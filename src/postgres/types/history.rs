use super::{Lsn, ParseError, TimelineId};

/// One ancestor of a timeline: it was followed up to `switch_lsn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    pub timeline: TimelineId,
    /// The first byte that is not the ancestor's.
    pub switch_lsn: Lsn,
    pub reason: String,
}

/// A timeline and its ancestors, oldest first, as its history file tells (timeline.c, readTimeLineHistory).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    pub timeline: TimelineId,
    pub ancestors: Vec<HistoryEntry>,
}

impl TimelineHistory {
    /// Timeline 1, which has no history file, or any timeline taken as the first of its path.
    pub fn root(timeline: TimelineId) -> Self {
        Self {
            timeline,
            ancestors: Vec::new(),
        }
    }

    /// Reads the content of `<timeline>.history`. Blank lines and `#` comments are skipped: the server writes blank
    /// lines itself after some reasons. Switch points need not ascend: recovery along a timeline may end before that
    /// one began, and names it as the parent nevertheless.
    pub fn parse(timeline: TimelineId, content: &str) -> Result<Self, ParseError> {
        let mut ancestors: Vec<HistoryEntry> = Vec::new();
        for line in content
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let wrong = |why: &str| ParseError::new("timeline history line", line, why);
            let (number, rest) = first_word(line);
            let parent = number
                .parse()
                .map_err(|_| wrong("it does not begin with a timeline's number"))?;
            let (switch_lsn, reason) = first_word(rest);
            let switch_lsn = switch_lsn.parse().map_err(|_| wrong("no switch LSN"))?;
            if ancestors
                .last()
                .is_some_and(|last| parent <= last.timeline.0)
                || parent == 0
            {
                return Err(wrong("timelines must ascend"));
            }
            ancestors.push(HistoryEntry {
                timeline: TimelineId(parent),
                switch_lsn,
                reason: reason.to_string(),
            });
        }
        if ancestors
            .last()
            .is_some_and(|last| last.timeline >= timeline)
        {
            return Err(ParseError::new(
                "timeline history",
                timeline,
                "a timeline is newer than all its ancestors",
            ));
        }
        Ok(Self {
            timeline,
            ancestors,
        })
    }

    /// Where the path leaves the ancestor at this place of the list: a later switch point that lies before takes back
    /// what came between (timeline.c, tliOfPointInHistory).
    fn left_at(&self, place: usize) -> Option<Lsn> {
        self.ancestors[place..]
            .iter()
            .map(|entry| entry.switch_lsn)
            .min()
    }

    /// Where the path leaves `timeline`: `None` when it is not on the path; `Some(None)` for the newest itself. Not behind
    /// where it enters it; the same when nothing of it is left on the path.
    pub fn end_of(&self, timeline: TimelineId) -> Option<Option<Lsn>> {
        self.path()
            .position(|each| each == timeline)
            .map(|place| self.left_at(place))
    }

    /// Where the path enters `timeline`: 0/0 for the oldest; `None` when it is not on the path.
    pub fn begin_of(&self, timeline: TimelineId) -> Option<Lsn> {
        let place = self.path().position(|each| each == timeline)?;
        if place == 0 {
            Some(Lsn(0))
        } else {
            self.left_at(place - 1)
        }
    }

    /// The timeline that the byte at `lsn` belongs to on this path.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        // The newest whose beginning is not behind.
        let begun = self
            .ancestors
            .iter()
            .rposition(|entry| entry.switch_lsn <= lsn)
            .map_or(0, |place| place + 1);
        self.ancestors
            .get(begun)
            .map_or(self.timeline, |entry| entry.timeline)
    }

    /// From where on the two paths are not the same; `None`: nowhere.
    pub fn parts_from(&self, other: &Self) -> Option<Lsn> {
        let begins = |history: &Self| {
            history
                .ancestors
                .iter()
                .map(|entry| entry.switch_lsn)
                .collect::<Vec<_>>()
        };
        let mut places = [vec![Lsn(0)], begins(self), begins(other)].concat();
        places.sort_unstable();
        places
            .into_iter()
            .find(|lsn| self.timeline_at(*lsn) != other.timeline_at(*lsn))
    }

    /// All timelines of the path, oldest first.
    pub fn path(&self) -> impl Iterator<Item = TimelineId> + '_ {
        self.ancestors
            .iter()
            .map(|entry| entry.timeline)
            .chain([self.timeline])
    }
}

/// The first word of a line, and what follows it.
fn first_word(line: &str) -> (&str, &str) {
    let (word, rest) = line
        .split_once(|c: char| c.is_ascii_whitespace())
        .unwrap_or((line, ""));
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "1\t0/3000158\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-01-01 00:00:00+00\n\n\n# end\n";

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

    /// PITR on timeline 2 to before timeline 2 began, and promotion from timeline 3 at the very place where that began.
    #[test]
    fn a_later_switch_point_that_lies_before_takes_back_what_came_between() {
        let file =
            "1\t0/3020000\tno recovery target specified\n\n2\t0/3018C78\tat restore point \"rp\"\n";
        let history = TimelineHistory::parse(TimelineId(3), file).unwrap();
        assert_eq!(history.timeline_at(Lsn(0x3018C77)), TimelineId(1));
        assert_eq!(history.timeline_at(Lsn(0x3018C78)), TimelineId(3));
        assert_eq!(history.end_of(TimelineId(1)), Some(Some(Lsn(0x3018C78))));
        assert_eq!(
            history.begin_of(TimelineId(2)),
            Some(Lsn(0x3018C78)),
            "nothing is left of it"
        );
        assert_eq!(history.end_of(TimelineId(2)), Some(Some(Lsn(0x3018C78))));
        assert_eq!(history.begin_of(TimelineId(3)), Some(Lsn(0x3018C78)));
        assert_eq!(
            history.ancestors[0].switch_lsn,
            Lsn(0x3020000),
            "as it is written"
        );
    }

    #[test]
    fn two_paths_part_where_one_of_them_leaves_the_other() {
        let [root, two] = [
            TimelineHistory::root(TimelineId(1)),
            TimelineHistory::parse(TimelineId(2), "1\t0/300").unwrap(),
        ];
        let [three, four] = [(3, "1\t0/200"), (4, "1\t0/300\n2\t0/500")]
            .map(|(timeline, file)| TimelineHistory::parse(TimelineId(timeline), file).unwrap());
        for (one, other, expected) in [
            (&root, &two, 0x300),
            (&two, &three, 0x200),
            (&two, &four, 0x500),
            (&root, &four, 0x300),
            (&three, &four, 0x200),
        ] {
            assert_eq!(
                (one.parts_from(other), other.parts_from(one)),
                (Some(Lsn(expected)), Some(Lsn(expected)))
            );
        }
        assert_eq!(two.parts_from(&two.clone()), None);
    }

    #[test]
    fn a_history_file_is_read_as_leniently_as_the_server_reads_it() {
        let file = "  1   0/3000158\n\t# noted by hand: 0/1\r\n\n4 \t0/5000000 \tat restore point \"a b\"\n";
        let history = TimelineHistory::parse(TimelineId(9), file).unwrap();
        assert_eq!(
            history.path().map(|t| t.0).collect::<Vec<_>>(),
            [1, 4, 9],
            "numbers may skip"
        );
        assert_eq!(history.ancestors[0].reason, "");
        assert_eq!(history.ancestors[1].reason, "at restore point \"a b\"");
    }

    #[test]
    fn broken_history_is_refused() {
        for content in [
            "x\t0/1\tr",
            "1\tnope\tr",
            "2\t0/1\tr\n1\t0/2\tr",
            "1\t0/1\n1\t0/2",
            "3\t0/1\tr",
            "0\t0/1\tr",
        ] {
            assert!(
                TimelineHistory::parse(TimelineId(3), content).is_err(),
                "{content:?}"
            );
        }
    }
}
