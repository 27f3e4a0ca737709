//! Last step: everything durable, then `global/pg_control`, without which no server starts.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

use super::destination::Destination;
use super::names::{MARKER, PG_CONTROL};
use crate::fsync::sync_folder;

/// Files that are handed to the disk at once: it is the disk that is waited for, not a processor.
const SYNCING: usize = 8;
/// Names of files that wait for a thread, at most.
const WAITING: usize = 1024;

/// Makes all files durable, then puts `pg_control` in its place. A crash before the end leaves a folder from which no
/// server starts.
pub fn finish(destination: &Destination, control_file: &[u8]) -> anyhow::Result<()> {
    let roots: Vec<&Path> = [destination.data_directory.as_path()]
        .into_iter()
        .chain(destination.tablespaces.values().map(PathBuf::as_path))
        .collect();
    for root in &roots {
        sync_tree(root)?;
        let parent = root.parent().unwrap_or(Path::new("/"));
        sync_folder(parent).with_context(|| format!("cannot fsync \"{}\"", parent.display()))?;
    }
    let place = destination.data_directory.join(PG_CONTROL);
    put_in_place(&place, control_file)
        .with_context(|| format!("cannot write \"{}\"", place.display()))?;
    let marker = destination.data_directory.join(MARKER);
    fs::remove_file(&marker).with_context(|| format!("cannot remove \"{}\"", marker.display()))?;
    sync_folder(&destination.data_directory).context("cannot fsync the data directory")
}

fn put_in_place(place: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = place.with_extension("walden");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, place)?;
    place.parent().map_or(Ok(()), sync_folder)
}

/// Fsyncs all files below a folder, then the folders, deepest first.
fn sync_tree(root: &Path) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::sync_channel::<PathBuf>(WAITING);
    let receiver = Mutex::new(receiver);
    let folders = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..SYNCING)
            .map(|_| scope.spawn(|| sync_files(&receiver)))
            .collect();
        let mut folders = Vec::new();
        let walked = walk(root, &sender, &mut folders);
        drop(sender);
        for worker in workers {
            worker
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a syncing thread failed")))?;
        }
        walked.with_context(|| format!("cannot list \"{}\"", root.display()))?;
        anyhow::Ok(folders)
    })?;
    // Deeper folders were found after those they lie in.
    for folder in folders.iter().rev() {
        sync_folder(folder).with_context(|| format!("cannot fsync \"{}\"", folder.display()))?;
    }
    Ok(())
}

fn sync_files(queue: &Mutex<mpsc::Receiver<PathBuf>>) -> anyhow::Result<()> {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let mut result = Ok(());
    // After an error the queue is still emptied, so that the walk comes to its end.
    while let Ok(path) = next() {
        let synced = File::open(&path).and_then(|file| file.sync_all());
        if let Err(error) = synced.with_context(|| format!("cannot fsync \"{}\"", path.display())) {
            result = Err(error);
        }
    }
    result
}

fn walk(
    root: &Path,
    files: &mpsc::SyncSender<PathBuf>,
    folders: &mut Vec<PathBuf>,
) -> std::io::Result<()> {
    folders.push(root.to_path_buf());
    let mut at = folders.len() - 1;
    while let Some(folder) = folders.get(at).cloned() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && files.send(entry.path()).is_err() {
                return Err(std::io::Error::other("all syncing threads ended"));
            }
        }
        at += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn pg_control_comes_last_and_the_marker_goes() {
        let folder = tempfile::tempdir().unwrap();
        let data_directory = folder.path().join("data");
        fs::create_dir_all(data_directory.join("global")).unwrap();
        fs::create_dir_all(data_directory.join("base/1/2")).unwrap();
        for n in 0..2000 {
            fs::write(data_directory.join(format!("base/1/{n}x")), "x").unwrap();
        }
        fs::write(data_directory.join(MARKER), "x").unwrap();
        let destination = Destination {
            data_directory: data_directory.clone(),
            tablespaces: BTreeMap::new(),
            made: Default::default(),
        };
        finish(&destination, b"control").unwrap();
        assert_eq!(
            fs::read(data_directory.join(PG_CONTROL)).unwrap(),
            b"control"
        );
        assert!(!data_directory.join(MARKER).exists());
        // Nothing is put over a pg_control's half that is there: the folder was not ours.
        fs::write(data_directory.join("global/pg_control.walden"), "x").unwrap();
        fs::write(data_directory.join(MARKER), "x").unwrap();
        assert!(finish(&destination, b"other").is_err());
        assert_eq!(
            fs::read(data_directory.join(PG_CONTROL)).unwrap(),
            b"control"
        );
    }
}
