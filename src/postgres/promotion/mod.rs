//! Older items move to colder storage classes: when the shortest tier that keeps one changes, its objects are copied within
//! the store. WAL and what other objects are found by stay where they are.

mod decide;

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use serde::Serialize;

use crate::error::one_line;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::bulk_of;
use crate::retention::{ItemId, ItemKind, Plan};
use crate::storage::classes::{ClassChange, ThawOrder};
use crate::storage::{ObjectMeta, Storage, StorageError, Walk};

pub use decide::{Classes, ItemObjects, KindClasses, Promotion, promotions};

/// Objects copied at once.
const AT_ONCE: usize = 4;
/// Failures told one by one.
const MAX_TOLD: usize = 100;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Promoted {
    pub objects: u64,
    pub bytes: u64,
    /// Objects that must be thawed before they can be moved, which was ordered: the next time they are.
    pub thawing: u64,
    /// Objects that stay as they are, and why.
    pub failed: Vec<(String, String)>,
    pub more_failed: u64,
}

/// Moves what a plan keeps to the classes of its tiers. Errors: the store does not list.
pub async fn promote(
    cluster: &Cluster,
    plan: &Plan,
    classes: &Classes,
    order: ThawOrder,
) -> Result<Promoted, StorageError> {
    let mut items = Vec::new();
    let mut dumps = DumpFolders::default();
    for item in plan.items.iter().filter(|item| item.is_kept()) {
        if classes.says_nothing_of(item.id.kind) {
            continue;
        }
        let objects = match item.id.kind {
            ItemKind::Base => of_backup(cluster, &item.id).await?,
            ItemKind::Dump | ItemKind::Schema => dumps.of(cluster, &item.id).await?,
        };
        let id = item.id.clone();
        items.push(ItemObjects { id, objects });
    }
    let moves = promotions(plan, classes, &items);
    let storage = cluster.repository.storage();
    let moved = stream::iter(moves).map(|one| async move {
        let result = carry_out(storage, &one, order).await;
        (one.object, result)
    });
    let mut moved = moved.buffered(AT_ONCE);
    let mut done = Promoted::default();
    while let Some((object, result)) = moved.next().await {
        done.add(&object, result);
    }
    Ok(done)
}

impl Promoted {
    fn add(&mut self, object: &ObjectMeta, result: Result<Step, StorageError>) {
        match result {
            Ok(Step::Moved) => {
                self.objects += 1;
                self.bytes += object.size;
            }
            Ok(Step::Thawing) => self.thawing += 1,
            Ok(Step::Nothing) => (),
            Err(error) if self.failed.len() < MAX_TOLD => {
                let why = one_line(&error.into());
                self.failed.push((object.key.to_string(), why));
            }
            Err(_) => self.more_failed += 1,
        }
    }
}

enum Step {
    Moved,
    Thawing,
    /// It has the class, or was deleted meanwhile.
    Nothing,
}

async fn carry_out(
    storage: &dyn Storage,
    one: &Promotion,
    order: ThawOrder,
) -> Result<Step, StorageError> {
    match storage.set_class(&one.object, &one.to).await {
        Ok(ClassChange::Moved) => Ok(Step::Moved),
        Ok(ClassChange::AlreadyThere | ClassChange::Absent) => Ok(Step::Nothing),
        Err(error) if error.is_cold() => {
            storage.thaw(&one.object.key, order).await?;
            Ok(Step::Thawing)
        }
        Err(error) => Err(error),
    }
}

async fn of_backup(cluster: &Cluster, id: &ItemId) -> Result<Vec<ObjectMeta>, StorageError> {
    let Ok(id) = id.name.parse() else {
        return Ok(Vec::new());
    };
    let objects = cluster.objects_of(&id).await?.into_iter();
    Ok(objects.filter(is_bulk).collect())
}

fn is_bulk(object: &ObjectMeta) -> bool {
    bulk_of(object.key.as_str()).is_some()
}

/// The objects of dumps, by folder: one holds those of a database.
#[derive(Debug, Default)]
struct DumpFolders(BTreeMap<String, Vec<ObjectMeta>>);

impl DumpFolders {
    async fn of(
        &mut self,
        cluster: &Cluster,
        id: &ItemId,
    ) -> Result<Vec<ObjectMeta>, StorageError> {
        let Some((database, name)) = id.name.rsplit_once('/') else {
            return Ok(Vec::new());
        };
        let folder = format!("{}dumps/{database}/", cluster.layout.folder());
        if !self.0.contains_key(&folder) {
            let (mut walk, mut objects) = (Walk::new(folder.clone()), Vec::new());
            while let Some(object) = walk.next(cluster.repository.storage()).await? {
                if is_bulk(&object) {
                    objects.push(object);
                }
            }
            self.0.insert(folder.clone(), objects);
        }
        let begin = format!("{folder}{name}.");
        let objects = self.0.get(&folder).into_iter().flatten();
        let own = objects.filter(|object| object.key.as_str().starts_with(&begin));
        Ok(own.cloned().collect())
    }
}

#[cfg(test)]
mod tests;
