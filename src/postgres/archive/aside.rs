//! What PostgreSQL may hand over although it cannot be kept under its name: it is kept beside, under a name of its own.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::codec::{Digest, EnvelopeHeader, VerifyLevel};
use crate::postgres::catalog::{ClusterDescription, WAL_KIND, WalDescription};
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{
    LONGEST_SMALL_FILE, LongPageHeader, Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId,
    WalFileName,
};
use crate::postgres::wal::{PAGE, Summary};

/// Where in a page its own address lies (`xlp_pageaddr`).
const PAGE_ADDRESS: u64 = 8;

/// Why a file is not kept under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsideReason {
    /// The name has other content; that is no conflict.
    Taken,
    /// With `archive_mode = always` a standby hands over the segment in which it followed another timeline: unfinished,
    /// under the name that the finished one has if the timeline goes on elsewhere.
    Left { to: TimelineId, at: Lsn },
    /// Made in advance or to be written anew: a server that crashed while it was promoted may hand over such (xlog.c,
    /// RemoveNonParentXlogFiles).
    NotWritten,
}

impl fmt::Display for AsideReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken => f.write_str("the name is taken by other content"),
            Self::Left { to, at } => write!(
                f,
                "timeline {to} left its timeline in it, at {at}, so it ends there"
            ),
            Self::NotWritten => f.write_str("its first page is empty, or another segment's"),
        }
    }
}

/// The name that a file with this content is kept under; `None` for a history file.
pub fn name(file: &WalFileName, content: &Digest) -> Option<WalFileName> {
    let [a, b, c, d, e, f, g, h, ..] = content.0;
    file.aside(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

/// Whether a segment's file shows that none of the segment was written yet: it begins with zeros, or with a page of another
/// segment of this cluster, and no page of it is the segment's own.
pub fn is_not_written(
    cluster: &ClusterDescription,
    segment: &SegmentName,
    file: &File,
) -> io::Result<bool> {
    let start = segment.start(cluster.segment_size);
    let recycled = |header: LongPageHeader| {
        header.segment_size == cluster.segment_size
            && header.system_identifier == cluster.system_identifier
    };
    let mut first = [0; LongPageHeader::LEN];
    file.read_exact_at(&mut first, 0)?;
    if first.iter().any(|byte| *byte != 0) && !LongPageHeader::parse(&first).is_ok_and(recycled) {
        return Ok(false);
    }
    for at in (0..cluster.segment_size.bytes()).step_by(PAGE) {
        let mut address = [0; size_of::<u64>()];
        file.read_exact_at(&mut address, at + PAGE_ADDRESS)?;
        if u64::from_le_bytes(address) == start.0 + at {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which timeline left that of a segment whose records end at a place in it, by the history files beside it.
pub fn left(path: &Path, segment: &SegmentName, end: Lsn) -> Option<AsideReason> {
    let entries = fs::read_dir(path.parent()?).ok()?.flatten();
    let histories = entries.filter_map(|entry| match entry.file_name().to_str()?.parse() {
        Ok(WalFileName::History(timeline)) if timeline > segment.timeline => {
            let short = entry
                .metadata()
                .is_ok_and(|meta| meta.len() <= LONGEST_SMALL_FILE);
            let content = short.then(|| fs::read(entry.path()).ok()).flatten()?;
            TimelineHistory::parse(timeline, &String::from_utf8_lossy(&content)).ok()
        }
        _ => None,
    });
    let leaves = |history: &TimelineHistory| history.end_of(segment.timeline) == Some(Some(end));
    let to = histories
        .filter(leaves)
        .map(|history| history.timeline)
        .min()?;
    Some(AsideReason::Left { to, at: end })
}

/// Whether a file may differ from what is kept under its name. Partial segments and backup history files: of each there can
/// be several. Segments: when both are the same WAL, and one ends earlier. Errors: the store did not answer.
pub async fn may_differ(
    cluster: &Cluster,
    found: &WalDescription,
    path: &Path,
    kept: &EnvelopeHeader,
) -> anyhow::Result<bool> {
    let segment = match found.name {
        WalFileName::Partial(_) | WalFileName::Backup { .. } => return Ok(true),
        WalFileName::History(_) | WalFileName::Aside { .. } => return Ok(false),
        WalFileName::Segment(segment) => segment,
    };
    let size = cluster.description.segment_size;
    let kept = kept
        .about
        .read::<WalDescription>()
        .ok()
        .and_then(|about| about.summary);
    let ends = [kept.as_deref(), found.summary.as_deref()];
    let ends =
        ends.map(|summary| summary.and_then(|summary| end_of_records(summary, segment, size)));
    let [Some(kept_end), Some(found_end)] = ends else {
        return Ok(false);
    };
    let same = kept_end.min(found_end).0 - segment.start(size).0;
    let key = cluster.layout.wal(&found.name);
    let Some(object) = cluster
        .repository
        .get_sealed(&key, WAL_KIND, size.bytes())
        .await?
    else {
        return Ok(false);
    };
    let mut compared = CompareWriter {
        file: File::open(path)?,
        at: 0,
        until: same,
        is_same: true,
    };
    let compare = move || {
        let unsealed = object.unseal(VerifyLevel::Stored, &mut compared);
        unsealed
            .map(|unsealed| unsealed.is_ok() && compared.is_same && compared.at >= compared.until)
    };
    Ok(tokio::task::spawn_blocking(compare).await??)
}

/// Whether of a segment more WAL is kept aside than under its name. Errors: the store did not answer, or an object is
/// damaged.
pub async fn has_more(cluster: &Cluster, aside: &WalFileName) -> anyhow::Result<bool> {
    let WalFileName::Segment(segment) = aside.handed_over() else {
        return Ok(false);
    };
    let end = async |name: &WalFileName| {
        let header = cluster
            .repository
            .header(&cluster.layout.wal(name), WAL_KIND)
            .await?;
        let about = header.and_then(|header| header.about.read::<WalDescription>().ok());
        let summary = about.and_then(|about| about.summary);
        anyhow::Ok(summary.and_then(|summary| {
            end_of_records(&summary, segment, cluster.description.segment_size)
        }))
    };
    // Without records under the name nothing is known to be shorter.
    let kept = end(&WalFileName::Segment(segment)).await?;
    Ok(kept.is_some() && end(aside).await? > kept)
}

/// Where the records of a segment end; `None` without one.
fn end_of_records(summary: &Summary, segment: SegmentName, size: SegmentSize) -> Option<Lsn> {
    summary.last?;
    match (&summary.stop, summary.switched) {
        (Some(stop), _) => Some(stop.lsn),
        (None, true) => summary.end,
        (None, false) => Some(segment.end(size)),
    }
}

/// Compares what is written to it with a file, up to a place.
struct CompareWriter {
    file: File,
    at: u64,
    until: u64,
    is_same: bool,
}

impl Write for CompareWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = (self.until.saturating_sub(self.at)).min(bytes.len() as u64) as usize;
        let mut own = vec![0; wanted];
        self.file.read_exact_at(&mut own, self.at)?;
        self.is_same &= own == bytes[..wanted];
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
