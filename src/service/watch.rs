//! Tells which files became ready to be archived, as it happens.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::ready::STATUS_FOLDER;

/// Reports that wait to be taken; more are lost, which is noted.
const QUEUE: usize = 256;

/// What happened in a folder that is watched.
pub enum News {
    /// This file appeared.
    Appeared(PathBuf),
    /// The folder itself was removed: nothing will be reported any more.
    Gone(PathBuf),
}

/// A watcher and what it reports.
pub struct Watching {
    /// `None` where the system does not let us watch.
    pub watcher: Option<FolderWatcher>,
    /// What happened there.
    pub news: mpsc::Receiver<News>,
    /// Some were not reported: look again.
    pub lost: Arc<AtomicBool>,
}

/// Wakes its owner when something changes in a folder; polling goes on beside it.
pub struct FolderWatcher(RecommendedWatcher);

/// Ready to watch, unless not `wanted`.
pub fn new(wanted: bool) -> Watching {
    let (reports, news) = mpsc::channel(QUEUE);
    let lost = Arc::new(AtomicBool::new(false));
    let note = lost.clone();
    let handle = move |event: notify::Result<notify::Event>| {
        let reported = match event {
            Ok(event) if !event.need_rescan() => {
                news_of(&event).is_none_or(|news| reports.try_send(news).is_ok())
            }
            _ => false,
        };
        if !reported {
            note.store(true, Ordering::SeqCst);
        }
    };
    let watcher = match wanted.then(|| notify::recommended_watcher(handle)) {
        Some(Ok(watcher)) => Some(FolderWatcher(watcher)),
        Some(Err(error)) => {
            tracing::warn!("cannot watch folders: less is stored ahead: {error}");
            None
        }
        None => None,
    };
    Watching {
        watcher,
        news,
        lost,
    }
}

impl FolderWatcher {
    /// Reports on `folder` from now on; says whether that works.
    pub fn watch(&mut self, folder: &Path) -> bool {
        match self.0.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!("cannot watch \"{}\": {error}", folder.display());
                false
            }
        }
    }

    /// Reports on it no more.
    pub fn unwatch(&mut self, folder: &Path) {
        // It may be gone already.
        let _ = self.0.unwatch(folder);
    }
}

/// What counts of an event: a file that appeared, made there or renamed to there, or the end of the folder.
fn news_of(event: &notify::Event) -> Option<News> {
    let path = event.paths.first()?.clone();
    match event.kind {
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
            Some(News::Appeared(path))
        }
        EventKind::Remove(_) if path.ends_with(STATUS_FOLDER) => Some(News::Gone(path)),
        _ => None,
    }
}
