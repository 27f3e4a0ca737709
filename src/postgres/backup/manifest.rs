//! The manifest's body: one JSON object a line for each file and folder, so that neither writer nor reader holds it
//! whole (docs/repository-format.md). Its envelope carries the [`BackupDescription`].
//!
//! [`BackupDescription`]: crate::postgres::catalog::BackupDescription

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::codec::Digest;
use crate::postgres::catalog::BACKUP_KIND;
use crate::postgres::layout::{Layout, PackName};
use crate::repo::{FramePlace, SealedObject};

/// Kind of the manifest's object.
pub const KIND: &str = BACKUP_KIND;
/// The file in a restored data directory that names the repository. No backup has it: it is this restore's own.
pub const RESTORE_CONFIGURATION: &str = "walden-restore.toml";
/// Where configuration files from outside lie in the backup, below the data directory.
pub const OUTSIDE_CONFIGURATION: &str = "walden-configuration";
/// Bytes of a manifest at most. A GiB of tables takes about 25 KiB of it.
pub const LONGEST: u64 = 2 << 30;
/// Bytes of a pack at most: what `backup.pack_size` can be set to.
pub const LONGEST_PACK: u64 = 64 << 20;
/// Plain bytes of a frame: block-addressed, so frame k of a file begins at k times this.
pub const FRAME_SIZE: usize = 256 << 10;
/// Longest line that is read: the frames of the largest file (1 GiB: 4096 frames) take far less.
const MAX_LINE: u64 = 16 << 20;

/// One line of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ManifestEntry {
    Folder(FolderEntry),
    File(FileEntry),
}

/// A folder of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderEntry {
    /// Relative to the data directory, or to the tablespace.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<u32>,
    /// Permission bits.
    pub mode: u32,
}

/// A file and where its content lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to the data directory, or to the tablespace.
    pub path: String,
    /// OID of the tablespace it lies in; absent for the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<u32>,
    /// Permission bits.
    pub mode: u32,
    /// Unix time in seconds.
    pub mtime: i64,
    /// Bytes.
    pub size: u64,
    pub digest: Digest,
    /// In order; empty for an empty file.
    pub extents: Vec<Extent>,
}

/// Tells the path that comes a second time: two files of one path cannot be restored. Holds 16 bytes of each.
#[derive(Debug, Default)]
pub struct Paths {
    seen: HashSet<[u64; 2]>,
    states: [RandomState; 2],
}

impl Paths {
    /// Whether a file's path did not come before; it has come from now on.
    pub fn is_new(&mut self, tablespace: Option<u32>, path: &str) -> bool {
        self.seen.insert(
            self.states
                .each_ref()
                .map(|state| state.hash_one((tablespace, path))),
        )
    }
}

/// Consecutive frames in one pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// A pack of this backup or of an earlier one.
    pub pack: PackName,
    /// Where the first frame begins in the pack.
    pub offset: u64,
    /// Stored length of each frame; each begins where the one before ends.
    pub frames: Vec<u32>,
    /// Where the file's bytes begin in the first frame's plain content; not 0 only when small files share a frame.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skip: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Extent {
    /// Stored bytes of all its frames.
    pub fn stored_len(&self) -> u64 {
        self.frames.iter().map(|length| u64::from(*length)).sum()
    }
}

impl FileEntry {
    /// Where its frames lie, in order, each with where the file's bytes begin in its content.
    pub fn places<'a>(
        &'a self,
        layout: &'a Layout,
    ) -> impl Iterator<Item = (FramePlace, u32)> + 'a {
        self.extents.iter().flat_map(|extent| {
            let (key, mut offset) = (layout.pack(&extent.pack), extent.offset);
            extent.frames.iter().map(move |length| {
                let place = FramePlace {
                    key: key.clone(),
                    offset,
                    length: u64::from(*length),
                };
                offset = offset.saturating_add(place.length);
                (place, extent.skip)
            })
        })
    }
}

/// Writes one line.
pub fn write_entry(sink: &mut dyn Write, entry: &ManifestEntry) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *sink, entry)?;
    Ok(sink.write_all(b"\n")?)
}

/// The entries of a whole manifest. Blocks.
pub fn entries(
    object: &SealedObject,
) -> anyhow::Result<impl Iterator<Item = anyhow::Result<ManifestEntry>> + '_> {
    Ok(read_entries(BufReader::new(zstd::Decoder::with_buffer(
        object.body(),
    )?)))
}

/// The packs that a manifest names, and how many bytes each must have at least. Blocks.
pub fn needed_packs(object: &SealedObject) -> anyhow::Result<BTreeMap<PackName, u64>> {
    let mut packs: BTreeMap<PackName, u64> = BTreeMap::new();
    for entry in entries(object)? {
        let ManifestEntry::File(file) = entry? else {
            continue;
        };
        for extent in &file.extents {
            let end = extent.offset.saturating_add(extent.stored_len());
            match packs.get_mut(&extent.pack) {
                Some(least) => *least = end.max(*least),
                None => drop(packs.insert(extent.pack.clone(), end)),
            }
        }
    }
    Ok(packs)
}

/// Reads lines until the end; each is checked: paths stay inside, extents cover the size.
pub fn read_entries(
    mut source: impl BufRead,
) -> impl Iterator<Item = anyhow::Result<ManifestEntry>> {
    let mut number = 0u64;
    std::iter::from_fn(move || {
        number += 1;
        let mut line = Vec::new();
        let read = std::io::Read::take(&mut source, MAX_LINE).read_until(b'\n', &mut line);
        match read {
            Ok(0) => None,
            Ok(_) => {
                Some(parse_line(&line).with_context(|| format!("line {number} of the manifest")))
            }
            Err(error) => Some(Err(error).context("cannot read the manifest")),
        }
    })
}

fn parse_line(line: &[u8]) -> anyhow::Result<ManifestEntry> {
    ensure!(line.ends_with(b"\n"), "it is cut off");
    let entry: ManifestEntry = serde_json::from_slice(line)?;
    match &entry {
        ManifestEntry::Folder(folder) => check_path(&folder.path)?,
        ManifestEntry::File(file) => {
            check_path(&file.path)?;
            check_extents(file)?;
        }
    }
    Ok(entry)
}

/// Refuses a path that would lead out of its folder.
pub fn check_path(path: &str) -> anyhow::Result<()> {
    let inside =
        !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    ensure!(inside, "path \"{path}\" is not a path inside a cluster");
    Ok(())
}

fn check_extents(file: &FileEntry) -> anyhow::Result<()> {
    let frames: usize = file.extents.iter().map(|extent| extent.frames.len()).sum();
    let shared = file.extents.iter().any(|extent| extent.skip > 0);
    let covered = match file.size {
        0 => frames == 0,
        size if shared => frames == 1 && file.extents[0].skip as u64 + size <= FRAME_SIZE as u64,
        size => frames as u64 == size.div_ceil(FRAME_SIZE as u64),
    };
    ensure!(
        covered,
        "file \"{}\" of {} bytes has {frames} frames",
        file.path,
        file.size
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64, frames: usize, skip: u32) -> ManifestEntry {
        let pack = "20260101-000000Z/pack-000001".parse().unwrap();
        let extent = Extent {
            pack,
            offset: 10,
            frames: vec![100; frames],
            skip,
        };
        let extents = if frames > 0 { vec![extent] } else { vec![] };
        let digest = Digest::of(b"");
        ManifestEntry::File(FileEntry {
            path: "base/1/2".into(),
            tablespace: None,
            mode: 0o600,
            mtime: 0,
            size,
            digest,
            extents,
        })
    }

    fn read_back(entry: &ManifestEntry) -> anyhow::Result<ManifestEntry> {
        let mut bytes = Vec::new();
        write_entry(&mut bytes, entry).unwrap();
        read_entries(&bytes[..]).next().unwrap()
    }

    #[test]
    fn entries_read_back() {
        let folder = ManifestEntry::Folder(FolderEntry {
            path: "pg_wal".into(),
            tablespace: Some(7),
            mode: 0o700,
        });
        for entry in [
            folder,
            file(0, 0, 0),
            file(1, 1, 5),
            file(FRAME_SIZE as u64 + 1, 2, 0),
        ] {
            assert_eq!(read_back(&entry).unwrap(), entry);
        }
    }

    #[test]
    fn extents_that_do_not_cover_the_file_are_refused() {
        for entry in [
            file(1, 0, 0),
            file(0, 1, 0),
            file(FRAME_SIZE as u64 + 1, 1, 0),
            file(FRAME_SIZE as u64, 1, 1),
        ] {
            assert!(read_back(&entry).is_err());
        }
    }

    #[test]
    fn paths_that_lead_outside_are_refused() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "base/../../x",
            "base//1",
            "./x",
            "a\0b",
        ] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_manifest_cut_within_a_line_is_refused() {
        let mut bytes = Vec::new();
        write_entry(&mut bytes, &file(1, 1, 0)).unwrap();
        bytes.pop();
        assert!(read_entries(&bytes[..]).next().unwrap().is_err());
    }
}
