//! Tar streams in, frames of plain bytes out: the content is copied once, from the read buffer into the frame that it
//! is compressed from. Sans-I/O.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::inventory::Inventory;
use super::manifest::{
    FRAME_SIZE, FolderEntry, OUTSIDE_CONFIGURATION, RESTORE_CONFIGURATION, check_path,
};
use super::tar::{Item, MemberKind, Parser, TarError, TarHeader};

/// Files that share one frame, at most: bounds what is remembered until the frame is stored.
const BUNDLE_FILES: usize = 1024;

/// Files that are named as not kept, at most.
const MOST_NOT_KEPT: usize = 100;

/// What the cutter makes of the stream, in order.
#[derive(Debug)]
pub enum Cut {
    Folder(FolderEntry),
    /// A frame is full. Without `files` it is the next frame of the large file that [`Cut::FileEnd`] will name.
    Frame {
        plain: Vec<u8>,
        /// The small files in it, with where each begins.
        files: Vec<(FileMetadata, u32)>,
    },
    /// A large file's frames are complete; or an empty file, which has none.
    FileEnd(FileMetadata),
}

/// A file as the manifest will list it, without what is found out later: digest and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMetadata {
    pub path: String,
    pub tablespace: Option<u32>,
    /// Permission bits.
    pub mode: u32,
    /// Unix time in seconds.
    pub mtime: i64,
    /// Bytes.
    pub size: u64,
}

/// Frame buffers that were used before. Holds as many as are under way at once.
#[derive(Debug, Clone, Default)]
pub struct FramePool(Arc<Mutex<Vec<Vec<u8>>>>);

impl FramePool {
    fn take(&self) -> Vec<u8> {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        used.unwrap_or_else(|| Vec::with_capacity(FRAME_SIZE))
    }

    /// Gives a buffer back.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(buffer);
    }
}

/// Cuts all archives of one backup.
#[derive(Debug)]
pub struct Cutter {
    parser: Parser,
    tablespace: Option<u32>,
    current: Option<FileMetadata>,
    /// Folders that files not in the stream went to.
    added: BTreeSet<String>,
    /// The frame of the current large file.
    frame: Vec<u8>,
    /// The frame that small files share, and the files in it.
    bundle: Vec<u8>,
    files: Vec<(FileMetadata, u32)>,
    cuts: VecDeque<Cut>,
    pool: FramePool,
    captured: Captured,
}

/// What is needed to describe the backup: content of files, and which parts of the cluster came.
#[derive(Debug, Default)]
pub struct Captured {
    pub backup_label: Option<Vec<u8>>,
    /// `global/pg_control`.
    pub control_file: Option<Vec<u8>>,
    pub inventory: Inventory,
    /// Strangers' files that are not kept, in words.
    pub not_kept: Vec<String>,
}

impl Captured {
    fn note_unnamed(&mut self, path: &str) {
        if self.not_kept.len() < MOST_NOT_KEPT {
            self.not_kept.push(format!(
                "\"{path}\" is not in the backup: its name is not UTF-8"
            ));
            tracing::warn!("\"{path}\" is not in the backup: its name is not UTF-8");
        }
    }
}

impl Cutter {
    /// A cutter that takes its buffers from `pool`.
    pub fn new(pool: FramePool) -> Self {
        Self {
            parser: Parser::default(),
            tablespace: None,
            current: None,
            added: BTreeSet::new(),
            frame: Vec::new(),
            bundle: pool.take(),
            files: Vec::new(),
            cuts: VecDeque::new(),
            pool,
            captured: Captured::default(),
        }
    }

    /// Begins an archive: a tablespace's, or the data directory's.
    pub fn begin_archive(&mut self, tablespace: Option<u32>) {
        self.parser = Parser::default();
        self.tablespace = tablespace;
    }

    /// Takes the next bytes of the archive.
    pub fn feed(&mut self, chunk: Bytes) -> Result<(), TarError> {
        self.parser.feed(chunk);
        while let Some(item) = self.parser.next()? {
            match item {
                Item::Entry(header) => self.begin_member(header),
                Item::Data(bytes) => self.add(&bytes),
                Item::End => self.end_file(),
            }
        }
        Ok(())
    }

    /// Checks that the archive is complete.
    pub fn end_archive(&mut self) -> Result<(), TarError> {
        self.parser.finish()
    }

    /// Adds a small file of the data directory that is not in the stream.
    pub fn add_file(&mut self, facts: FileMetadata, content: &[u8]) -> Result<(), TarError> {
        check_path(&facts.path).map_err(|error| TarError(error.to_string()))?;
        let facts = FileMetadata {
            size: content.len() as u64,
            ..facts
        };
        self.added.insert(folder_of(&facts.path).to_string());
        self.begin_file(facts);
        self.add(content);
        self.end_file();
        Ok(())
    }

    /// Ends the last shared frame.
    pub fn finish(&mut self) {
        self.flush_bundle();
    }

    /// The next result, if there is one.
    pub fn next_cut(&mut self) -> Option<Cut> {
        self.cuts.pop_front()
    }

    /// What was captured on the way.
    pub fn into_captured(self) -> Captured {
        self.captured
    }

    fn begin_member(&mut self, header: TarHeader) {
        let TarHeader {
            path,
            utf8,
            kind,
            size,
            mode,
            mtime,
        } = header;
        let tablespace = self.tablespace;
        if !utf8 {
            // The cluster's own names are ASCII.
            self.captured.note_unnamed(&path);
            return;
        }
        match kind {
            MemberKind::File
                if tablespace.is_none()
                    && (path == RESTORE_CONFIGURATION || self.is_stale(&path)) => {}
            MemberKind::File => self.begin_file(FileMetadata {
                path,
                tablespace,
                mode,
                mtime,
                size,
            }),
            MemberKind::Folder => {
                self.captured.inventory.folder(tablespace, &path);
                self.cuts.push_back(Cut::Folder(FolderEntry {
                    path,
                    tablespace,
                    mode,
                }));
            }
            // The server sends links only for tablespaces, and those are known by the tablespace list.
            MemberKind::Symlink => tracing::warn!("the symbolic link \"{path}\" is not kept"),
        }
    }

    /// Whether an earlier restore left a file where this backup has what lies outside now. Where it has nothing the
    /// server may read them.
    fn is_stale(&self, path: &str) -> bool {
        Path::new(path).starts_with(OUTSIDE_CONFIGURATION) && self.added.contains(folder_of(path))
    }

    fn begin_file(&mut self, facts: FileMetadata) {
        if is_small(&facts) {
            let full = self.bundle.len() + facts.size as usize > FRAME_SIZE
                || self.files.len() == BUNDLE_FILES;
            if full {
                self.flush_bundle();
            }
        } else if facts.size > 0 {
            self.frame = self.pool.take();
        }
        self.current = Some(facts);
    }

    fn add(&mut self, mut bytes: &[u8]) {
        if self.current.is_none() {
            return;
        }
        if self.current.as_ref().is_some_and(is_small) {
            self.bundle.extend_from_slice(bytes);
            return;
        }
        while !bytes.is_empty() {
            let count = bytes.len().min(FRAME_SIZE - self.frame.len());
            self.frame.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.frame.len() == FRAME_SIZE {
                let plain = std::mem::replace(&mut self.frame, self.pool.take());
                self.cuts.push_back(Cut::Frame {
                    plain,
                    files: Vec::new(),
                });
            }
        }
    }

    fn end_file(&mut self) {
        let Some(facts) = self.current.take() else {
            return;
        };
        self.captured.inventory.file(facts.tablespace, &facts.path);
        if is_small(&facts) {
            let skip = self.bundle.len() - facts.size as usize;
            self.capture(&facts, skip);
            self.files.push((facts, skip as u32));
            return;
        }
        let rest = std::mem::take(&mut self.frame);
        match rest.is_empty() {
            false => self.cuts.push_back(Cut::Frame {
                plain: rest,
                files: Vec::new(),
            }),
            true if rest.capacity() > 0 => self.pool.give_back(rest),
            true => {}
        }
        self.cuts.push_back(Cut::FileEnd(facts));
    }

    fn capture(&mut self, facts: &FileMetadata, skip: usize) {
        if facts.tablespace.is_none() {
            let content = &self.bundle[skip..];
            match facts.path.as_str() {
                "backup_label" => self.captured.backup_label = Some(content.to_vec()),
                "global/pg_control" => self.captured.control_file = Some(content.to_vec()),
                _ => {}
            }
        }
    }

    fn flush_bundle(&mut self) {
        if !self.files.is_empty() {
            let plain = std::mem::replace(&mut self.bundle, self.pool.take());
            self.cuts.push_back(Cut::Frame {
                plain,
                files: std::mem::take(&mut self.files),
            });
        }
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Whether a file shares a frame with others.
fn is_small(facts: &FileMetadata) -> bool {
    (1..FRAME_SIZE as u64).contains(&facts.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(path: &str) -> FileMetadata {
        FileMetadata {
            path: path.into(),
            tablespace: None,
            mode: 0o600,
            mtime: 1,
            size: 0,
        }
    }

    fn cuts(files: &[(&str, usize)]) -> Vec<Cut> {
        let mut cutter = Cutter::new(FramePool::default());
        for (path, size) in files {
            cutter.add_file(facts(path), &vec![7; *size]).unwrap();
        }
        cutter.finish();
        std::iter::from_fn(|| cutter.next_cut()).collect()
    }

    fn shown(cuts: &[Cut]) -> Vec<String> {
        let show = |cut: &Cut| match cut {
            Cut::Folder(folder) => format!("folder {}", folder.path),
            Cut::Frame { plain, files } if files.is_empty() => format!("frame {}", plain.len()),
            Cut::Frame { plain, files } => {
                let files: Vec<String> = files
                    .iter()
                    .map(|(file, skip)| format!("{}@{skip}", file.path))
                    .collect();
                format!("bundle {} {}", plain.len(), files.join(" "))
            }
            Cut::FileEnd(file) => format!("end {}", file.path),
        };
        cuts.iter().map(show).collect()
    }

    #[test]
    fn large_files_are_cut_at_multiples_of_the_frame_size() {
        let cuts = cuts(&[
            ("exact", FRAME_SIZE),
            ("more", 2 * FRAME_SIZE + 5),
            ("two", 2 * FRAME_SIZE),
        ]);
        let frame = format!("frame {FRAME_SIZE}");
        let expected = [
            &frame,
            "end exact",
            &frame,
            &frame,
            "frame 5",
            "end more",
            &frame,
            &frame,
            "end two",
        ];
        assert_eq!(shown(&cuts), expected);
    }

    #[test]
    fn small_files_share_frames_and_are_never_split() {
        let cuts = cuts(&[
            ("a", 10),
            ("empty", 0),
            ("b", FRAME_SIZE - 11),
            ("c", 2),
            ("large", FRAME_SIZE),
            ("d", 3),
        ]);
        let expected = [
            "end empty".to_string(),
            format!("bundle {} a@0 b@10", FRAME_SIZE - 1),
            format!("frame {FRAME_SIZE}"),
            "end large".into(),
            "bundle 5 c@0 d@2".into(),
        ];
        assert_eq!(shown(&cuts), expected);
    }

    #[test]
    fn a_bundle_holds_a_bounded_number_of_files() {
        let names: Vec<String> = (0..BUNDLE_FILES + 1).map(|n| format!("f{n}")).collect();
        let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let counts: Vec<usize> = cuts(&files)
            .iter()
            .map(|cut| matches!(cut, Cut::Frame { files, .. } if files.len() > 1) as usize)
            .collect();
        assert_eq!((counts.len(), cuts(&files).len()), (2, 2));
    }

    #[test]
    fn what_an_earlier_restore_left_gives_way_to_what_lies_outside_now() {
        let mut cutter = Cutter::new(FramePool::default());
        cutter
            .add_file(facts("walden-configuration/etc/pg/a.conf"), b"new")
            .unwrap();
        cutter.begin_archive(None);
        let in_stream = |path: &str| TarHeader {
            path: path.into(),
            utf8: true,
            kind: MemberKind::File,
            size: 0,
            mode: 0,
            mtime: 0,
        };
        let names = [
            "etc/pg/a.conf",
            "etc/pg/gone.conf",
            "etc/other/in_force.conf",
        ];
        for name in names {
            cutter.begin_member(in_stream(&format!("walden-configuration/{name}")));
            cutter.end_file();
        }
        cutter.finish();
        let cuts: Vec<Cut> = std::iter::from_fn(|| cutter.next_cut()).collect();
        let expected = [
            "end walden-configuration/etc/other/in_force.conf",
            "bundle 3 walden-configuration/etc/pg/a.conf@0",
        ];
        assert_eq!(shown(&cuts), expected);
    }

    #[test]
    fn the_files_that_describe_the_backup_are_captured() {
        let mut cutter = Cutter::new(FramePool::default());
        cutter.add_file(facts("base/1/1"), b"other").unwrap();
        cutter.add_file(facts("backup_label"), b"label").unwrap();
        cutter
            .add_file(
                FileMetadata {
                    tablespace: Some(5),
                    ..facts("global/pg_control")
                },
                b"wrong",
            )
            .unwrap();
        cutter
            .add_file(facts("global/pg_control"), b"control")
            .unwrap();
        let captured = cutter.into_captured();
        assert_eq!(captured.backup_label.as_deref(), Some(&b"label"[..]));
        assert_eq!(captured.control_file.as_deref(), Some(&b"control"[..]));
    }
}
