use std::collections::VecDeque;

use super::{LIST_PAGE, ListEntry, ObjectMeta, Storage, StorageError};

/// The entries directly below a folder, a page at a time.
#[derive(Debug)]
pub struct Pages {
    folder: String,
    after: Option<String>,
    begun: bool,
    ended: bool,
}

impl Pages {
    /// Those behind an entry, or all; the folder is empty, or ends with `/`.
    pub fn new(folder: String, after: Option<String>) -> Self {
        Self {
            folder,
            after,
            begun: false,
            ended: false,
        }
    }

    /// The next page. Errors: the store did not answer.
    pub async fn next(
        &mut self,
        storage: &dyn Storage,
    ) -> Result<Option<Vec<ListEntry>>, StorageError> {
        if self.ended {
            return Ok(None);
        }
        let page = match self.after.as_deref().filter(|_| self.begun) {
            Some(after) => storage.list_on(&self.folder, after).await?,
            None => storage.list(&self.folder, self.after.as_deref()).await?,
        };
        self.begun = true;
        self.ended = page.len() < LIST_PAGE;
        self.after = page
            .last()
            .map(|entry| entry.name().to_string())
            .or(self.after.take());
        Ok(Some(page))
    }
}

/// All objects below a folder at any depth, in the order of their keys. Memory: a page for each folder on the way.
#[derive(Debug)]
pub struct Walk(Vec<WalkLevel>);

/// One folder that is being listed.
#[derive(Debug)]
struct WalkLevel {
    pages: Pages,
    /// Listed and not given out yet.
    page: VecDeque<ListEntry>,
}

impl Walk {
    /// Begins at a folder: empty, or ending with `/`.
    pub fn new(folder: String) -> Self {
        Self(vec![WalkLevel::new(folder)])
    }

    /// The next object. Errors: the store did not give a folder; the walk goes on behind it.
    pub async fn next(
        &mut self,
        storage: &dyn Storage,
    ) -> Result<Option<ObjectMeta>, StorageError> {
        loop {
            let Some(level) = self.0.last_mut() else {
                return Ok(None);
            };
            match level.page.pop_front() {
                Some(ListEntry::Object(meta)) => return Ok(Some(meta)),
                Some(ListEntry::Folder(folder)) => self.0.push(WalkLevel::new(folder)),
                None => match level.pages.next(storage).await {
                    Ok(Some(page)) => level.page = page.into(),
                    Ok(None) => drop(self.0.pop()),
                    Err(error) => {
                        self.0.pop();
                        return Err(error);
                    }
                },
            }
        }
    }
}

impl WalkLevel {
    fn new(folder: String) -> Self {
        Self {
            pages: Pages::new(folder, None),
            page: VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Key, MemoryStorage, PutMode};

    #[tokio::test]
    async fn all_objects_come_in_the_order_of_their_keys_over_pages_and_folders() {
        let storage = MemoryStorage::default();
        let mut expected: Vec<String> = (0..LIST_PAGE + 5).map(|n| format!("a/b/{n:05}")).collect();
        expected.extend(["a/b.x", "a/b0", "a/c/d/e", "a/c/f", "ab"].map(String::from));
        for key in &expected {
            let _ = storage
                .put(
                    &Key::new(key.clone()).unwrap(),
                    "x".into(),
                    PutMode::CreateOnly,
                )
                .await
                .unwrap();
        }
        expected.retain(|key| key.starts_with("a/"));
        expected.sort();
        let mut walk = Walk::new("a/".into());
        let mut found = Vec::new();
        while let Some(meta) = walk.next(&storage).await.unwrap() {
            found.push(meta.key.to_string());
        }
        assert_eq!(found, expected);
    }
}
