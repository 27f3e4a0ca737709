//! What lies in a folder, kept up to date at a cost that follows what is new.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::{FolderStamp, LIST_PAGE, ListEntry, Storage, StorageError, list_all};

/// After so long all is listed again, also where a stamp says that nothing changed: some file systems do not keep it.
const WHOLE: Duration = Duration::from_secs(3600);

/// The names directly in a folder. A store that has stamps is listed when the stamp is another. Of one that has none, each
/// poll lists what is behind the places where new entries are expected, and a page, another one each time: what came or
/// went anywhere else shows after as many polls as there are pages.
#[derive(Debug)]
pub struct Watched {
    folder: String,
    names: BTreeSet<String>,
    stamp: Option<FolderStamp>,
    /// Where the next page begins.
    next: Option<String>,
    /// When all was listed.
    whole_at: Option<Instant>,
    changes: u64,
}

impl Watched {
    /// Nothing is known of the folder yet.
    pub fn new(folder: String) -> Self {
        Self {
            folder,
            names: BTreeSet::new(),
            stamp: None,
            next: None,
            whole_at: None,
            changes: 0,
        }
    }

    /// What is known to be in it, by name.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// How often a poll found other names than before.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Looks for what came and went: everywhere if `all`, else where it may be; `behind`, ascending: where new entries are
    /// expected. Whether all was looked at. Errors: the store did not answer; what it told until then is known.
    pub async fn poll(
        &mut self,
        storage: &dyn Storage,
        behind: &[String],
        all: bool,
    ) -> Result<bool, StorageError> {
        let stamp = storage.stamp(&self.folder).await?;
        let is_whole = self.whole_at.is_some_and(|at| at.elapsed() < WHOLE);
        match stamp {
            Some(stamp) if !all && is_whole && stamp.is_unchanged_since(self.stamp.as_ref()) => {
                return Ok(false);
            }
            None if !all && self.whole_at.is_some() => {
                return self.look_around(storage, behind).await;
            }
            _ => (),
        }
        let entries = list_all(storage, &self.folder).await?;
        let names = entries.into_iter().map(name).collect();
        self.changes += u64::from(names != self.names);
        self.names = names;
        (self.stamp, self.next, self.whole_at) = (stamp, None, Some(Instant::now()));
        Ok(true)
    }

    async fn look_around(
        &mut self,
        storage: &dyn Storage,
        behind: &[String],
    ) -> Result<bool, StorageError> {
        let from = self.next.clone();
        let page = storage.list(&self.folder, from.as_deref()).await?;
        self.next = self.take_in(from.as_deref(), page);
        if from.is_none() && self.next.is_none() {
            self.whole_at = Some(Instant::now());
            return Ok(true);
        }
        let mut behind = behind.iter().cloned().peekable();
        let mut after = behind.next();
        while let Some(from) = after {
            let page = storage.list(&self.folder, Some(&from)).await?;
            // A page that is not full shows all that is behind the other places, too.
            let Some(last) = self.take_in(Some(&from), page) else {
                break;
            };
            let is_passed = |place: &String| *place <= last;
            while behind.next_if(is_passed).is_some() {}
            after = behind.next().or(Some(last));
        }
        Ok(false)
    }

    /// Takes in a page of what is behind a name, and gives the last one of it; `None` where the folder ends.
    fn take_in(&mut self, from: Option<&str>, page: Vec<ListEntry>) -> Option<String> {
        let is_last = page.len() < LIST_PAGE;
        let found: BTreeSet<String> = page.into_iter().map(name).collect();
        let last = found.last().filter(|_| !is_last).cloned();
        let bounds = (
            from.map_or(Bound::Unbounded, Bound::Excluded),
            last.as_deref().map_or(Bound::Unbounded, Bound::Included),
        );
        let gone: Vec<String> = self
            .names
            .range::<str, _>(bounds)
            .filter(|name| !found.contains(*name))
            .cloned()
            .collect();
        for name in &gone {
            self.names.remove(name);
        }
        let count = self.names.len();
        self.names.extend(found);
        self.changes += u64::from(!gone.is_empty() || self.names.len() > count);
        last
    }
}

fn name(entry: ListEntry) -> String {
    match entry {
        ListEntry::Object(meta) => meta.key.to_string(),
        ListEntry::Folder(folder) => folder,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::counting::CountingStorage;
    use crate::storage::{Key, LocalStorage, MemoryStorage, PutMode};

    async fn put(storage: &dyn Storage, name: &str) {
        let _ = storage
            .put(&Key::new(name).unwrap(), "x".into(), PutMode::CreateOnly)
            .await
            .unwrap();
    }

    async fn delete(storage: &dyn Storage, name: &str) {
        storage.delete(&Key::new(name).unwrap()).await.unwrap();
    }

    fn numbered(number: usize) -> String {
        format!("f/{number:06}")
    }

    #[tokio::test]
    async fn a_poll_costs_the_same_however_much_there_is() {
        let storage = CountingStorage::new(Arc::new(MemoryStorage::default()));
        for number in 0..5 * LIST_PAGE {
            put(&storage, &numbered(number)).await;
        }
        let (mut watched, end) = (Watched::new("f/".into()), [numbered(5 * LIST_PAGE - 1)]);
        assert!(watched.poll(&storage, &[], false).await.unwrap());
        assert_eq!(watched.names().len(), 5 * LIST_PAGE);
        // What is expected shows at once, and what is not after as many polls as there are pages.
        put(&storage, &numbered(5 * LIST_PAGE)).await;
        put(&storage, &format!("{}-", numbered(3 * LIST_PAGE))).await;
        delete(&storage, &numbered(10)).await;
        delete(&storage, &numbered(4 * LIST_PAGE)).await;
        let mut seen = Vec::new();
        for _ in 0..6 {
            storage.forget();
            assert!(!watched.poll(&storage, &end, false).await.unwrap());
            assert_eq!(storage.calls(), ["list", "list"]);
            assert!(watched.names().contains(&numbered(5 * LIST_PAGE)));
            let shows = [
                !watched.names().contains(&numbered(10)),
                watched
                    .names()
                    .contains(&format!("{}-", numbered(3 * LIST_PAGE))),
                !watched.names().contains(&numbered(4 * LIST_PAGE)),
            ];
            seen.push(shows.iter().filter(|shows| **shows).count());
        }
        assert_eq!((seen[0], seen[2], seen[5]), (1, 1, 3), "{seen:?}");
        // All of it is looked at when that is asked for.
        delete(&storage, &numbered(20)).await;
        assert!(watched.poll(&storage, &end, true).await.unwrap());
        assert!(!watched.names().contains(&numbered(20)));
    }

    #[tokio::test]
    async fn one_request_tells_all_of_a_small_folder() {
        let storage = CountingStorage::new(Arc::new(MemoryStorage::default()));
        put(&storage, "f/b").await;
        let mut watched = Watched::new("f/".into());
        watched.poll(&storage, &[], false).await.unwrap();
        for (name, expected) in [
            ("f/a", &["f/a", "f/b"][..]),
            ("f/c/d", &["f/a", "f/b", "f/c/"]),
        ] {
            put(&storage, name).await;
            storage.forget();
            assert!(
                watched
                    .poll(&storage, &["f/b".into()], false)
                    .await
                    .unwrap()
            );
            assert_eq!(storage.calls(), ["list"]);
            assert!(watched.names().iter().eq(expected), "{:?}", watched.names());
        }
    }

    #[tokio::test]
    async fn new_entries_are_found_behind_each_place() {
        let storage = MemoryStorage::default();
        for (group, count) in [("a", LIST_PAGE + 5), ("b", LIST_PAGE + 5), ("c", 5)] {
            for number in 0..count {
                put(&storage, &format!("f/{group}{number:06}")).await;
            }
        }
        let mut watched = Watched::new("f/".into());
        watched.poll(&storage, &[], false).await.unwrap();
        let behind = [
            format!("f/a{:06}", LIST_PAGE + 4),
            format!("f/b{:06}", LIST_PAGE + 4),
        ];
        for new in ["f/a9", "f/b9", "f/c9", "f/d"] {
            put(&storage, new).await;
            watched.poll(&storage, &behind, false).await.unwrap();
            assert!(watched.names().contains(new), "{new}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_rests_is_not_listed() {
        let root = tempfile::tempdir().unwrap();
        let storage = CountingStorage::new(Arc::new(LocalStorage::new(root.path())));
        put(&storage, "f/a").await;
        let rest = |seconds| {
            let then = std::time::SystemTime::now() - Duration::from_secs(seconds);
            std::fs::File::open(root.path().join("f"))
                .unwrap()
                .set_modified(then)
                .unwrap();
        };
        rest(60);
        let mut watched = Watched::new("f/".into());
        assert!(watched.poll(&storage, &[], false).await.unwrap());
        storage.forget();
        assert!(!watched.poll(&storage, &[], false).await.unwrap());
        assert_eq!(storage.calls(), ["stamp"]);
        // In the middle, too, what came and went shows at once.
        put(&storage, "f/0").await;
        delete(&storage, "f/a").await;
        assert!(watched.poll(&storage, &[], false).await.unwrap());
        assert!(watched.names().iter().eq(["f/0"]));
        assert!(
            watched.poll(&storage, &[], false).await.unwrap(),
            "it has not rested long enough to be sure"
        );
        assert!(watched.poll(&storage, &[], true).await.unwrap());
    }
}
