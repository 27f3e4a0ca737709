//! Listing a folder: one pass over its entries serves many pages. The file system gives entries in no order, so each pass
//! reads all of them and keeps the first ones by name, a bounded number.

use std::collections::BinaryHeap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::links::shows_as_folder;
use super::{absent_as_none, describe};
use crate::storage::{FolderStamp, Key, LIST_PAGE, ListEntry};

/// Names that one pass keeps: some 4 MB.
const KEPT: usize = 64 * LIST_PAGE;
/// Listings under way that keep names. The oldest of more begins a pass of its own when it goes on.
const LISTINGS: usize = 8;
/// A listing that did not go on for so long was given up.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// Counters of listings; folders that share one only lose what was kept.
const COUNTERS: usize = 64;
/// Times of folders are as coarse as this in some file systems.
const COARSE: Duration = Duration::from_secs(2);

/// What listings that are under way kept for their next pages.
#[derive(Debug)]
pub(super) struct Listings(Mutex<ListingState>);

#[derive(Debug)]
struct ListingState {
    /// How many listings began, by folder.
    begun: [u64; COUNTERS],
    passes: Vec<Pass>,
}

/// What one pass found and no page has shown yet.
#[derive(Debug)]
struct Pass {
    folder: String,
    /// Its counter then: names of a pass go only to listings that began before it.
    begun: u64,
    /// The last entry shown.
    after: Option<String>,
    /// Names below the folder, ascending; those of folders end with `/`.
    names: std::vec::IntoIter<Box<str>>,
    /// There are more than it could keep.
    more: bool,
    shown: Instant,
}

impl Default for Listings {
    fn default() -> Self {
        Self(Mutex::new(ListingState {
            begun: [0; COUNTERS],
            passes: Vec::new(),
        }))
    }
}

impl Listings {
    /// The first page of a listing. It shows the folder as it is now.
    pub fn begin(
        &self,
        root: &Path,
        folder: &str,
        after: Option<&str>,
    ) -> io::Result<Vec<ListEntry>> {
        let mut kept = self.kept();
        // Who goes on with another listing of it sees it as it is now, too.
        kept.passes.retain(|pass| pass.folder != folder);
        kept.begun[counter(folder)] += 1;
        drop(kept);
        self.show(root, self.pass(root, folder, after)?)
    }

    /// A further page.
    pub fn go_on(&self, root: &Path, folder: &str, after: &str) -> io::Result<Vec<ListEntry>> {
        let mut kept = self.kept();
        let is_it = |pass: &Pass| pass.folder == folder && pass.after.as_deref() == Some(after);
        let found = kept
            .passes
            .iter()
            .position(is_it)
            .map(|at| kept.passes.swap_remove(at));
        drop(kept);
        let pass = found.map_or_else(
            || self.pass(root, folder, Some(after)),
            |pass| Ok(Some(pass)),
        )?;
        self.show(root, pass)
    }

    fn pass(&self, root: &Path, folder: &str, after: Option<&str>) -> io::Result<Option<Pass>> {
        let begun = self.kept().begun[counter(folder)];
        let Some((names, more)) = first_names(root, folder, after, KEPT)? else {
            return Ok(None);
        };
        let (folder, after) = (folder.to_string(), after.map(str::to_string));
        Ok(Some(Pass {
            folder,
            begun,
            after,
            names: names.into_iter(),
            more,
            shown: Instant::now(),
        }))
    }

    /// The next page of a pass, and of further ones while what they found is gone.
    fn show(&self, root: &Path, mut pass: Option<Pass>) -> io::Result<Vec<ListEntry>> {
        let mut page = Vec::new();
        while let Some(on) = &mut pass {
            if page.len() == LIST_PAGE {
                break;
            }
            if let Some(name) = on.names.next() {
                let name = format!("{}{name}", on.folder);
                page.extend(entry(root, name.clone())?);
                on.after = Some(name);
            } else {
                let (folder, after, more) = (on.folder.clone(), on.after.clone(), on.more);
                pass = if more {
                    self.pass(root, &folder, after.as_deref())?
                } else {
                    None
                };
            }
        }
        if let Some(pass) = pass {
            self.keep(pass);
        }
        Ok(page)
    }

    fn keep(&self, pass: Pass) {
        let mut kept = self.kept();
        let now = Instant::now();
        kept.passes.retain(|pass| pass.shown + GIVEN_UP > now);
        if kept.begun[counter(&pass.folder)] != pass.begun || pass.names.len() == 0 && !pass.more {
            return;
        }
        if kept.passes.len() == LISTINGS {
            kept.passes.remove(0);
        }
        kept.passes.push(Pass { shown: now, ..pass });
    }

    fn kept(&self) -> MutexGuard<'_, ListingState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counter(folder: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    (hasher.finish() % COUNTERS as u64) as usize
}

/// The first `most` names behind `after`, and whether there are more; `None` when there is no such folder.
fn first_names(
    root: &Path,
    folder: &str,
    after: Option<&str>,
    most: usize,
) -> io::Result<Option<(Vec<Box<str>>, bool)>> {
    let Some(entries) = absent_as_none(fs::read_dir(root.join(folder)))? else {
        return Ok(None);
    };
    let (mut first, mut more) = (BinaryHeap::<Box<str>>::new(), false);
    for entry in entries {
        let entry = entry?;
        let Ok(mut name) = entry.file_name().into_string() else {
            continue;
        };
        let full = format!("{folder}{name}");
        if Key::new(full.as_str()).is_err() {
            continue;
        }
        match shows_as_folder(root, &entry)? {
            Some(true) => name.push('/'),
            Some(false) => (),
            None => continue,
        }
        // Names are compared as keys are: with the folder before them.
        if after.is_some_and(|after| format!("{folder}{name}").as_str() <= after) {
            continue;
        }
        if first.len() == most {
            more = true;
            match first.peek_mut() {
                Some(mut last) if **last > *name => *last = name.into(),
                _ => (),
            }
        } else {
            first.push(name.into());
        }
    }
    Ok(Some((first.into_sorted_vec(), more)))
}

/// What there is under a name; `None` when it is gone by now, or neither a file nor a folder.
fn entry(root: &Path, name: String) -> io::Result<Option<ListEntry>> {
    if name.ends_with('/') {
        return Ok(Some(ListEntry::Folder(name)));
    }
    let Some(meta) = absent_as_none(fs::metadata(root.join(&name)))?.filter(fs::Metadata::is_file)
    else {
        return Ok(None);
    };
    let key = Key::new(name).map_err(io::Error::other)?;
    Ok(Some(ListEntry::Object(describe(key, &meta)?)))
}

/// What tells whether something in a folder changed. A folder that is not there has a stamp, too.
pub(super) fn stamp(folder: &Path, now: SystemTime) -> io::Result<FolderStamp> {
    let Some(meta) = absent_as_none(fs::metadata(folder))? else {
        return Ok(FolderStamp {
            state: (0, 0, SystemTime::UNIX_EPOCH),
            settled: true,
        });
    };
    let modified = meta.modified()?;
    let settled = now.duration_since(modified).is_ok_and(|age| age > COARSE);
    Ok(FolderStamp {
        state: (meta.dev(), meta.ino(), modified),
        settled,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(page: &[ListEntry]) -> Vec<&str> {
        page.iter().map(ListEntry::name).collect()
    }

    fn folder_of(count: usize) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("f")).unwrap();
        (0..count).for_each(|number| put(root.path(), number));
        root
    }

    fn put(root: &Path, number: usize) {
        fs::write(root.join(format!("f/{number:06}")), "x").unwrap();
    }

    #[test]
    fn a_pass_keeps_the_first_names_and_says_whether_there_are_more() {
        let root = folder_of(10);
        fs::create_dir(root.path().join("f/000003-")).unwrap();
        let first = |after, most| {
            let (names, more) = first_names(root.path(), "f/", after, most)
                .unwrap()
                .unwrap();
            (
                names
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<String>>()
                    .join(" "),
                more,
            )
        };
        assert_eq!(first(None, 2), ("000000 000001".into(), true));
        assert_eq!(
            first(Some("f/000002"), 3),
            ("000003 000003-/ 000004".into(), true)
        );
        assert_eq!(first(Some("f/000007"), 2), ("000008 000009".into(), false));
        assert!(first_names(root.path(), "g/", None, 2).unwrap().is_none());
    }

    #[test]
    fn one_pass_serves_all_pages_of_a_listing() {
        let root = folder_of(3 * LIST_PAGE + 1);
        let (listings, mut found) = (Listings::default(), 0);
        let mut page = listings.begin(root.path(), "f/", None).unwrap();
        // What comes later is in no page: no other pass was made.
        put(root.path(), 999_999);
        loop {
            found += page.len();
            if page.len() < LIST_PAGE {
                break;
            }
            assert_eq!(listings.kept().passes.len(), 1);
            let last = page.last().unwrap().name().to_string();
            page = listings.go_on(root.path(), "f/", &last).unwrap();
        }
        assert_eq!(found, 3 * LIST_PAGE + 1);
        assert!(
            listings.kept().passes.is_empty(),
            "nothing is kept of a listing that ended"
        );
    }

    #[test]
    fn a_listing_that_begins_later_shows_what_came_meanwhile() {
        let root = folder_of(LIST_PAGE + 1);
        let listings = Listings::default();
        let first = listings.begin(root.path(), "f/", None).unwrap();
        let last = names(&first).last().unwrap().to_string();
        put(root.path(), 999_999);
        assert_eq!(
            listings.begin(root.path(), "f/", None).unwrap().len(),
            LIST_PAGE
        );
        // Both go on from the same place.
        for _ in 0..2 {
            let rest = listings.go_on(root.path(), "f/", &last).unwrap();
            assert_eq!(names(&rest), ["f/001000", "f/999999"]);
        }
        let behind = listings.begin(root.path(), "f/", Some("f/001000")).unwrap();
        assert_eq!(names(&behind), ["f/999999"]);
    }

    #[test]
    fn a_pass_that_began_before_another_listing_is_not_kept() {
        let root = folder_of(LIST_PAGE + 1);
        let listings = Listings::default();
        let early = listings.pass(root.path(), "f/", None).unwrap();
        drop(listings.begin(root.path(), "f/", None).unwrap());
        listings.kept().passes.clear();
        drop(listings.show(root.path(), early).unwrap());
        assert!(listings.kept().passes.is_empty());
    }

    #[test]
    fn what_goes_while_it_is_listed_makes_no_page_short() {
        let root = folder_of(3 * LIST_PAGE);
        let listings = Listings::default();
        let first = listings.begin(root.path(), "f/", None).unwrap();
        (LIST_PAGE..2 * LIST_PAGE).step_by(2).for_each(|number| {
            fs::remove_file(root.path().join(format!("f/{number:06}"))).unwrap();
        });
        let second = listings
            .go_on(root.path(), "f/", names(&first).last().unwrap())
            .unwrap();
        assert_eq!(second.len(), LIST_PAGE);
        let third = listings
            .go_on(root.path(), "f/", names(&second).last().unwrap())
            .unwrap();
        assert_eq!(third.len(), LIST_PAGE / 2);
    }

    #[test]
    fn listings_that_were_given_up_keep_a_bounded_number_of_names() {
        let root = tempfile::tempdir().unwrap();
        let listings = Listings::default();
        for folder in 0..LISTINGS + 2 {
            let folder = format!("f{folder}/");
            fs::create_dir(root.path().join(&folder)).unwrap();
            (0..=LIST_PAGE).for_each(|at| {
                fs::write(root.path().join(format!("{folder}{at:06}")), "").unwrap()
            });
            drop(listings.begin(root.path(), &folder, None).unwrap());
        }
        assert_eq!(listings.kept().passes.len(), LISTINGS);
    }

    #[test]
    fn a_stamp_shows_what_came_and_went_once_the_folder_rests() {
        let root = folder_of(1);
        let folder = root.path().join("f");
        let (now, later) = (SystemTime::now(), SystemTime::now() + 2 * COARSE);
        let fresh = stamp(&folder, now).unwrap();
        assert!(
            !fresh.is_unchanged_since(Some(&fresh)),
            "something may come at the same time"
        );
        let settled = stamp(&folder, later).unwrap();
        assert!(
            stamp(&folder, now)
                .unwrap()
                .is_unchanged_since(Some(&settled))
                && !settled.is_unchanged_since(None)
        );
        std::thread::sleep(Duration::from_millis(20));
        put(root.path(), 1);
        assert!(
            !stamp(&folder, later)
                .unwrap()
                .is_unchanged_since(Some(&settled))
        );
        let settled = stamp(&folder, later).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        fs::remove_file(root.path().join("f/000001")).unwrap();
        assert!(
            !stamp(&folder, later)
                .unwrap()
                .is_unchanged_since(Some(&settled))
        );
        let absent = stamp(&root.path().join("g"), now).unwrap();
        assert!(
            absent.is_unchanged_since(Some(&absent)) && !absent.is_unchanged_since(Some(&settled))
        );
    }
}
