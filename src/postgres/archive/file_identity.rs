//! Is this file what its name says, and does it belong to this cluster? Pure.

use crate::postgres::catalog::ClusterDescription;
use crate::postgres::types::{
    BackupLabel, ControlFile, LongPageHeader, Lsn, MajorVersion, ParseError, SegmentName,
    TimelineHistory, TimelineId,
};

/// A file that must not be archived under its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignFile {
    /// The name can be no segment of this cluster.
    #[error(
        "no segment of cluster \"{cluster}\", whose segments have {bytes} bytes, has this name"
    )]
    Name { cluster: String, bytes: u64 },
    /// Not the size of the cluster's segments.
    #[error("it has {found} bytes, a segment of cluster \"{cluster}\" has {expected}")]
    Size {
        found: u64,
        cluster: String,
        expected: u64,
    },
    /// What it begins with is no page header.
    #[error("it does not begin as a WAL segment does")]
    Header(#[source] ParseError),
    /// Another cluster's.
    #[error("it belongs to a server with {what} {found}, cluster \"{cluster}\" has {expected}")]
    Cluster {
        what: &'static str,
        found: String,
        cluster: String,
        expected: String,
    },
    /// Another segment's content.
    #[error("its first page says LSN {found}, its name says {expected}")]
    Address { found: Lsn, expected: Lsn },
    /// Another timeline's content.
    #[error("its first page is of timeline {found}, newer than timeline {expected} of its name")]
    Timeline {
        found: TimelineId,
        expected: TimelineId,
    },
    /// A history or backup history file that cannot be read.
    #[error("its content is not as PostgreSQL writes it")]
    Content(#[source] ParseError),
    /// A history file without a line.
    #[error("it names no timeline that timeline {0} came from")]
    NoAncestor(TimelineId),
    /// A backup history file of another place.
    #[error(
        "it tells of a backup that began at {found}, which is not the place that its name says"
    )]
    BackupStart { found: Lsn },
}

impl ForeignFile {
    /// Whether another server's is what it looks like.
    pub fn is_of_another(&self) -> bool {
        matches!(
            self,
            Self::Name { .. } | Self::Size { .. } | Self::Cluster { .. }
        )
    }

    /// The next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Name { .. } | Self::Size { .. } | Self::Cluster { .. } => {
                "give this server a `cluster.name` of its own and run `walden init` (after initdb or \
                 pg_upgrade it is another cluster)"
            }
            Self::Header(_) | Self::Address { .. } | Self::Timeline { .. } => {
                "look at it with pg_waldump, move it away, and take a base backup"
            }
            Self::Content(_) | Self::NoAncestor(_) | Self::BackupStart { .. } => {
                "the file is damaged or was put there by hand: compare it with a standby's copy"
            }
        }
    }
}

/// Checks a segment or partial segment by its size and first bytes; its major version.
pub fn check_segment(
    cluster: &ClusterDescription,
    name: &SegmentName,
    size: u64,
    first: &[u8],
) -> Result<MajorVersion, ForeignFile> {
    let ours = || cluster.name.to_string();
    let segment_size = cluster.segment_size;
    if !name.fits(segment_size) {
        return Err(ForeignFile::Name {
            cluster: ours(),
            bytes: segment_size.bytes(),
        });
    }
    if size != segment_size.bytes() {
        return Err(ForeignFile::Size {
            found: size,
            cluster: ours(),
            expected: segment_size.bytes(),
        });
    }
    let header = LongPageHeader::parse(first).map_err(ForeignFile::Header)?;
    let other = |what, found: String, expected: String| ForeignFile::Cluster {
        what,
        found,
        cluster: ours(),
        expected,
    };
    if header.system_identifier != cluster.system_identifier {
        let (found, expected) = (
            header.system_identifier.to_string(),
            cluster.system_identifier.to_string(),
        );
        return Err(other("system identifier", found, expected));
    }
    if header.segment_size != segment_size {
        let (found, expected) = (
            header.segment_size.bytes().to_string(),
            segment_size.bytes().to_string(),
        );
        return Err(other("segments of bytes", found, expected));
    }
    if header.address != name.start(segment_size) {
        return Err(ForeignFile::Address {
            found: header.address,
            expected: name.start(segment_size),
        });
    }
    // The first segment of a new timeline begins with a copy of the older one's pages.
    if header.timeline > name.timeline {
        return Err(ForeignFile::Timeline {
            found: header.timeline,
            expected: name.timeline,
        });
    }
    Ok(header.major)
}

/// Checks whose data directory a file lies in, by its `pg_control`: a history file does not say whose it is. One that
/// cannot be read, such as while it is written, tells nothing.
pub fn check_control(cluster: &ClusterDescription, pg_control: &[u8]) -> Result<(), ForeignFile> {
    match ControlFile::parse(pg_control) {
        Ok(control) if control.system_identifier != cluster.system_identifier => {
            Err(ForeignFile::Cluster {
                what: "system identifier",
                found: control.system_identifier.to_string(),
                cluster: cluster.name.to_string(),
                expected: cluster.system_identifier.to_string(),
            })
        }
        _ => Ok(()),
    }
}

/// Checks a timeline history file; what no server can read in it. A server may write such: the name of a restore point may
/// hold line breaks.
pub fn check_history(
    timeline: TimelineId,
    content: &[u8],
) -> Result<Option<ParseError>, ForeignFile> {
    // Reasons hold names of restore points, in whatever encoding they were given.
    let content = String::from_utf8_lossy(content);
    let is_entry = |line: &str| {
        TimelineHistory::parse(timeline, line).is_ok_and(|line| !line.ancestors.is_empty())
    };
    match TimelineHistory::parse(timeline, &content) {
        Ok(history) if history.ancestors.is_empty() => Err(ForeignFile::NoAncestor(timeline)),
        Ok(_) => Ok(None),
        Err(error) if content.lines().any(is_entry) => Ok(Some(error)),
        Err(error) => Err(ForeignFile::Content(error)),
    }
}

/// Checks a backup history file; what cannot be read in it. Servers do not sync it, so it may be cut off after a crash, and
/// nothing depends on it.
pub fn check_backup(
    cluster: &ClusterDescription,
    segment: &SegmentName,
    offset: u32,
    content: &[u8],
) -> Result<Option<ParseError>, ForeignFile> {
    let label = match BackupLabel::parse(&String::from_utf8_lossy(content)) {
        Ok(label) => label,
        Err(error) => return Ok(Some(error)),
    };
    let size = cluster.segment_size;
    let place = SegmentName::containing(label.start_timeline, label.start_lsn, size);
    match place == *segment && label.start_lsn.0 % size.bytes() == u64::from(offset) {
        true => Ok(None),
        false => Err(ForeignFile::BackupStart {
            found: label.start_lsn,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::testing::{
        SEGMENT, cluster_description, name, segment, with_bytes,
    };

    fn check(file: &str, content: &[u8]) -> Result<MajorVersion, ForeignFile> {
        check_segment(
            &cluster_description(),
            &name(file),
            content.len() as u64,
            content,
        )
    }

    const THIRD: &str = "000000020000000000000003";

    #[test]
    fn a_segment_of_the_cluster_passes_with_its_own_or_an_older_timeline() {
        assert_eq!(check(THIRD, &segment(THIRD, 1)).unwrap().number(), 15);
        let copied_from_timeline_1 = with_bytes(segment(THIRD, 1), 4, &1u32.to_le_bytes());
        assert!(check(THIRD, &copied_from_timeline_1).is_ok());
    }

    #[test]
    fn a_wrong_identity_is_refused_each_for_its_reason() {
        let third = || segment(THIRD, 1);
        let short = &third()[..SEGMENT - 1];
        assert!(matches!(check(THIRD, short), Err(ForeignFile::Size { .. })));
        let foreign = with_bytes(third(), 24, &8u64.to_le_bytes());
        assert!(matches!(
            check(THIRD, &foreign),
            Err(ForeignFile::Cluster {
                what: "system identifier",
                ..
            })
        ));
        let other_size = with_bytes(third(), 32, &(16u32 << 20).to_le_bytes());
        assert!(matches!(
            check(THIRD, &other_size),
            Err(ForeignFile::Cluster {
                what: "segments of bytes",
                ..
            })
        ));
        let fourth = segment("000000020000000000000004", 1);
        assert!(matches!(
            check(THIRD, &fourth),
            Err(ForeignFile::Address { .. })
        ));
        let newer = with_bytes(third(), 4, &3u32.to_le_bytes());
        assert!(matches!(
            check(THIRD, &newer),
            Err(ForeignFile::Timeline { .. })
        ));
        let other_magic = with_bytes(third(), 0, &0xBEEFu16.to_le_bytes());
        assert!(matches!(
            check(THIRD, &other_magic),
            Err(ForeignFile::Header(_))
        ));
        assert!(matches!(
            check(THIRD, &vec![0; SEGMENT]),
            Err(ForeignFile::Header(_))
        ));
        assert!(matches!(
            check("0000000200000000FFFFFFFF", &third()),
            Err(ForeignFile::Name { .. })
        ));
    }

    #[test]
    fn a_history_file_must_be_readable_and_name_an_ancestor() {
        let two = TimelineId(2);
        assert_eq!(check_history(two, b"1\t0/3000000\tafter \xFF\n"), Ok(None));
        let of_two_lines = b"1\t0/3000000\tat restore point \"a\nb\"\n";
        assert!(
            matches!(check_history(two, of_two_lines), Ok(Some(_))),
            "as a server writes it"
        );
        assert!(matches!(
            check_history(two, b"garbage"),
            Err(ForeignFile::Content(_))
        ));
        assert!(matches!(
            check_history(two, b"\n# only a comment\n"),
            Err(ForeignFile::NoAncestor(_))
        ));
        assert!(matches!(
            check_history(two, b"2\t0/3000000\tx\n"),
            Err(ForeignFile::Content(_))
        ));
    }

    #[test]
    fn a_backup_history_file_must_tell_of_its_own_place() {
        let content = b"START WAL LOCATION: 0/300028 (file 000000010000000000000003)\n\
            STOP WAL LOCATION: 0/400100 (file 000000010000000000000004)\nCHECKPOINT LOCATION: 0/300060\n\
            BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-01-01 00:00:00 UTC\nLABEL: \xFF\n\
            START TIMELINE: 1\nSTOP TIME: 2026-01-01 00:00:01 UTC\nSTOP TIMELINE: 1\n";
        let check = |segment: &str, offset| {
            check_backup(&cluster_description(), &name(segment), offset, content)
        };
        assert_eq!(check("000000010000000000000003", 0x28), Ok(None));
        assert!(matches!(
            check("000000010000000000000003", 0x60),
            Err(ForeignFile::BackupStart { .. })
        ));
        assert!(matches!(
            check("000000020000000000000003", 0x28),
            Err(ForeignFile::BackupStart { .. })
        ));
        let cluster = cluster_description();
        let garbage = check_backup(
            &cluster,
            &name("000000010000000000000003"),
            0x28,
            b"garbage",
        );
        assert!(matches!(garbage, Ok(Some(_))));
        let cut_off = check_backup(&cluster, &name("000000010000000000000003"), 0x28, b"");
        assert!(
            matches!(cut_off, Ok(Some(_))),
            "after a crash of the machine"
        );
    }
}
