//! What an entry of a folder is to a store: an object, a folder, or foreign (a pipe, a socket, a device, a link that
//! leads nowhere), which is never listed.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;

use super::absent_as_none;

/// Whether an entry is a folder or an object; `None` for what is neither. A link is what it leads to, so that a part of a
/// repository can lie on another disk.
pub(super) fn shows_as_folder(root: &Path, entry: &DirEntry) -> io::Result<Option<bool>> {
    let kind = entry.file_type()?;
    if !kind.is_symlink() {
        return Ok((kind.is_dir() || kind.is_file()).then_some(kind.is_dir()));
    }
    let path = entry.path();
    let meta = match fs::metadata(&path) {
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => None,
        found => absent_as_none(found)?,
    };
    Ok(match meta {
        Some(meta) if meta.is_dir() => (!leads_back(root, &path, &meta)?).then_some(true),
        Some(meta) if meta.is_file() => Some(false),
        _ => None,
    })
}

/// Whether a link leads to a folder that it lies in: who follows it never ends.
fn leads_back(root: &Path, link: &Path, target: &Metadata) -> io::Result<bool> {
    for folder in link
        .ancestors()
        .skip(1)
        .take_while(|folder| folder.starts_with(root))
    {
        let meta = fs::metadata(folder)?;
        if (meta.dev(), meta.ino()) == (target.dev(), target.ino()) {
            return Ok(true);
        }
    }
    Ok(false)
}
