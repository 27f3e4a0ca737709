use std::fmt;
use std::str::FromStr;

use super::{Lsn, ParseError, SegmentSize, TimelineId, serde_as_text};

/// The name of a WAL segment: timeline and place. Which LSNs it holds depends on the segment size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    pub timeline: TimelineId,
    log: u32,
    seg: u32,
}

impl SegmentName {
    /// The segment of `timeline` that holds the byte at `lsn`.
    pub fn containing(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Self {
        Self::from_number(timeline, lsn.0 / size.bytes(), size)
    }

    /// The segment that holds the last byte before `lsn`: what a range that ends at `lsn` needs.
    pub fn ending_at(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Self {
        Self::containing(timeline, Lsn(lsn.0.saturating_sub(1)), size)
    }

    /// Segment `number` of a timeline, counted from LSN 0.
    pub fn from_number(timeline: TimelineId, number: u64, size: SegmentSize) -> Self {
        let log = (number / size.per_log()) as u32;
        Self {
            timeline,
            log,
            seg: (number % size.per_log()) as u32,
        }
    }

    /// The segment's number, counted from LSN 0.
    pub fn number(&self, size: SegmentSize) -> u64 {
        u64::from(self.log) * size.per_log() + u64::from(self.seg)
    }

    /// The first LSN in it.
    pub fn start(&self, size: SegmentSize) -> Lsn {
        Lsn(self.number(size) * size.bytes())
    }

    /// The first LSN after it.
    pub fn end(&self, size: SegmentSize) -> Lsn {
        Lsn((self.number(size) + 1) * size.bytes())
    }

    /// The segment that follows on the same timeline.
    pub fn next(&self, size: SegmentSize) -> Self {
        Self::from_number(self.timeline, self.number(size) + 1, size)
    }

    /// False for a name that no cluster with segments of this size can have.
    pub fn fits(&self, size: SegmentSize) -> bool {
        u64::from(self.seg) < size.per_log()
    }

    /// The first 16 digits of the name, which group segments in the repository.
    pub fn group(&self) -> String {
        format!("{:08X}{:08X}", self.timeline.0, self.log)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.seg)
    }
}

impl FromStr for SegmentName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.parse()? {
            WalFileName::Segment(name) => Ok(name),
            _ => Err(ParseError::new(
                "WAL segment name",
                text,
                "expected 24 hexadecimal digits",
            )),
        }
    }
}

serde_as_text!(SegmentName);

/// Every kind of file that PostgreSQL hands to `archive_command` (xlog_internal.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFileName {
    /// A full segment.
    Segment(SegmentName),
    /// The last, unfinished segment of a timeline that a promotion ended.
    Partial(SegmentName),
    /// A backup history file: where in the segment the backup began.
    Backup { segment: SegmentName, offset: u32 },
    /// `<timeline>.history`: a timeline's ancestors.
    History(TimelineId),
    /// What PostgreSQL handed over under a name that it cannot be kept under: the archive's own name for it.
    Aside {
        segment: SegmentName,
        kind: AsideKind,
        digest: u64,
    },
}

/// What PostgreSQL called a file that is kept aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AsideKind {
    Segment,
    Partial,
    /// By its offset.
    Backup(u32),
}

/// Bytes of a `.history` or `.backup` file at most: the former grow by some 50 bytes with each promotion.
pub const LONGEST_SMALL_FILE: u64 = 1 << 20;

impl WalFileName {
    /// Bytes that a file of this name has at most.
    pub fn longest(&self, size: SegmentSize) -> u64 {
        match self {
            Self::Segment(_) | Self::Partial(_) => size.bytes(),
            Self::History(_) | Self::Backup { .. } => LONGEST_SMALL_FILE,
            Self::Aside { .. } => self.handed_over().longest(size),
        }
    }

    /// The name that PostgreSQL gave the file.
    pub fn handed_over(&self) -> Self {
        match *self {
            Self::Aside {
                segment,
                kind: AsideKind::Segment,
                ..
            } => Self::Segment(segment),
            Self::Aside {
                segment,
                kind: AsideKind::Partial,
                ..
            } => Self::Partial(segment),
            Self::Aside {
                segment,
                kind: AsideKind::Backup(offset),
                ..
            } => Self::Backup { segment, offset },
            other => other,
        }
    }

    /// The name that it is kept under when its own does not do; `None` for a history file, which there is but one of.
    /// `digest`: the first 8 bytes of the digest of its content.
    pub fn aside(&self, digest: u64) -> Option<Self> {
        let (segment, kind) = match *self {
            Self::Segment(segment) => (segment, AsideKind::Segment),
            Self::Partial(segment) => (segment, AsideKind::Partial),
            Self::Backup { segment, offset } => (segment, AsideKind::Backup(offset)),
            Self::History(_) | Self::Aside { .. } => return None,
        };
        Some(Self::Aside {
            segment,
            kind,
            digest,
        })
    }

    /// The timeline it belongs to.
    pub fn timeline(&self) -> TimelineId {
        match self {
            Self::Segment(name) | Self::Partial(name) => name.timeline,
            Self::Backup { segment, .. } | Self::Aside { segment, .. } => segment.timeline,
            Self::History(timeline) => *timeline,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(name) => write!(f, "{name}"),
            Self::Partial(name) => write!(f, "{name}.partial"),
            Self::Backup { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
            Self::History(timeline) => write!(f, "{:08X}.history", timeline.0),
            Self::Aside { digest, .. } => write!(f, "{}-{digest:016x}", self.handed_over()),
        }
    }
}

impl FromStr for WalFileName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || {
            let why = "expected a segment (24 upper case hexadecimal digits), or one with .partial or .<offset>.backup, or \
                       <timeline>.history";
            ParseError::new("WAL file name", text, why)
        };
        if let Some((name, digest)) = text.split_once('-') {
            let digest = hex16(digest).ok_or_else(wrong)?;
            return name.parse::<Self>()?.aside(digest).ok_or_else(wrong);
        }
        let (stem, suffix) = text.split_once('.').unwrap_or((text, ""));
        if stem.len() == 8 && suffix == "history" {
            return Ok(Self::History(
                timeline(hex8(stem).ok_or_else(wrong)?).ok_or_else(wrong)?,
            ));
        }
        if stem.len() != 24 || !stem.is_ascii() {
            return Err(wrong());
        }
        let part = |at: usize| hex8(&stem[at..at + 8]).ok_or_else(wrong);
        let name = SegmentName {
            timeline: timeline(part(0)?).ok_or_else(wrong)?,
            log: part(8)?,
            seg: part(16)?,
        };
        match suffix {
            "" if text.len() == 24 => Ok(Self::Segment(name)),
            "partial" => Ok(Self::Partial(name)),
            _ => {
                let offset = suffix
                    .strip_suffix(".backup")
                    .filter(|digits| digits.len() == 8)
                    .ok_or_else(wrong)?;
                Ok(Self::Backup {
                    segment: name,
                    offset: hex8(offset).ok_or_else(wrong)?,
                })
            }
        }
    }
}

serde_as_text!(WalFileName);

fn timeline(number: u32) -> Option<TimelineId> {
    (number > 0).then_some(TimelineId(number))
}

/// Eight upper case hexadecimal digits, as PostgreSQL writes them.
fn hex8(digits: &str) -> Option<u32> {
    let valid = digits
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    valid
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Sixteen lower case hexadecimal digits, as digests are written.
fn hex16(digits: &str) -> Option<u64> {
    let valid = digits.len() == 16
        && digits
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    valid
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZES: [u32; 3] = [1 << 20, 16 << 20, 64 << 20];

    #[test]
    fn every_kind_of_name_reads_and_prints() {
        for text in [
            "00000001000000A900000065",
            "00000001000000A900000065.partial",
            "00000001000000A900000065.00000028.backup",
            "0000000A.history",
            "00000001000000A900000065-00c0ffee00c0ffee",
            "00000001000000A900000065.partial-00c0ffee00c0ffee",
            "00000001000000A900000065.00000028.backup-00c0ffee00c0ffee",
        ] {
            assert_eq!(text.parse::<WalFileName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for text in [
            "",
            "00000001000000A90000006",
            "00000001000000a900000065",
            "00000000000000A900000065",
            "00000001000000A900000065.",
            "00000001000000A900000065.part",
            "00000001000000A900000065.28.backup",
            "00000000.history",
            "0000000A.history.gz",
            "0000000A.history-00c0ffee00c0ffee",
            "00000001000000A900000065-00C0FFEE00C0FFEE",
            "00000001000000A900000065-00c0ffee00c0ffee-00c0ffee00c0ffee",
            "00000001000000A900000065.partial-c0ffee",
            "../00000001.history",
            "archive_status",
        ] {
            assert!(text.parse::<WalFileName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_range_that_ends_on_a_boundary_needs_the_segment_before() {
        let size = SegmentSize::new(16 << 20).unwrap();
        let end = SegmentName::ending_at(TimelineId(1), "0/3000000".parse().unwrap(), size);
        assert_eq!(end.to_string(), "000000010000000000000002");
    }

    proptest! {
        #[test]
        fn a_segment_holds_the_lsn_it_was_made_from(lsn in any::<u64>(), which in 0usize..3) {
            let size = SegmentSize::new(SIZES[which]).unwrap();
            let lsn = Lsn(lsn >> 1);
            let name = SegmentName::containing(TimelineId(3), lsn, size);
            prop_assert!(name.fits(size) && name.start(size) <= lsn && lsn < name.end(size));
            prop_assert_eq!(name.next(size).start(size), name.end(size));
            prop_assert_eq!(name.to_string().parse::<SegmentName>().unwrap(), name);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<WalFileName>();
        }
    }
}
