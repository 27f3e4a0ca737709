//! What an entry of a folder is to a store: an object, a folder, or foreign (a pipe, a socket, a device, a link that
//! leads nowhere), which is never listed.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::Path;

use rustix::io::Errno;

use super::{TEMPORARY, absent_as_none, random};
use crate::{fsync, owner};

/// Makes a link to what lies beside it; one that was there is replaced at once.
pub(super) fn make(path: &Path, beside: &str) -> io::Result<()> {
    let folder = path
        .parent()
        .ok_or_else(|| io::Error::other("a link needs a folder"))?;
    let temporary = folder.join(format!("{TEMPORARY}{:016x}", random()?));
    symlink(beside, &temporary)?;
    let placed = give_to_owner(&temporary, folder).and_then(|()| fs::rename(&temporary, path));
    if placed.is_err() {
        // Best effort: a leftover is swept later.
        let _ = fs::remove_file(&temporary);
    }
    placed?;
    fsync::sync_folder(folder)
}

fn give_to_owner(link: &Path, folder: &Path) -> io::Result<()> {
    if !owner::is_root() {
        return Ok(());
    }
    let meta = fs::metadata(folder)?;
    lchown(link, Some(meta.uid()), Some(meta.gid()))
}

/// What a link names.
pub(super) fn target(path: &Path) -> io::Result<String> {
    Ok(fs::read_link(path)?.to_string_lossy().into_owned())
}

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
