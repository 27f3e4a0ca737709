//! Objects that must be thawed before they can be read: which of many those are, and having them thawed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep_until};

use crate::error::{Hint, with_hint};
use crate::plain::counted;
use crate::storage::classes::{Readability, ThawOrder, ThawStarted, may_be_cold};
use crate::storage::{Key, ObjectMeta, Storage, StorageError};

/// Objects asked about at once.
const AT_ONCE: usize = 16;
/// What was thawed, and freezes again within this time, counts as cold: nobody could read it to the end.
const SPARE: Duration = Duration::from_secs(6 * 3600);
/// Looks at what is being thawed become rarer, down to one in so many first pauses.
const RAREST: u32 = 60;

/// Of many objects those that cannot be read now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColdObjects {
    /// With their sizes, in the order of their keys.
    pub objects: Vec<(Key, u64)>,
    /// How many of them are being thawed.
    pub thawing: u64,
    /// Their classes.
    pub classes: Vec<String>,
}

impl ColdObjects {
    /// Whether all can be read.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|(_, size)| size).sum()
    }
}

/// As in `12 objects of 1048576 bytes lie in class GLACIER and must be thawed first, 3 are being thawed`.
impl fmt::Display for ColdObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.objects.len() as u64;
        let lie = if count == 1 { "lies" } else { "lie" };
        write!(
            f,
            "{} of {} bytes {lie} in class {} and must be thawed first",
            counted(count, "object"),
            self.bytes(),
            self.classes.join(", "),
        )?;
        match self.thawing {
            0 => Ok(()),
            all if all == count => f.write_str("; that is under way"),
            some => write!(f, "; that is under way for {some}"),
        }
    }
}

/// Which of these objects cannot be read now. Only those whose class may need thawing are asked about.
pub async fn survey(
    storage: &dyn Storage,
    objects: impl IntoIterator<Item = ObjectMeta>,
) -> Result<ColdObjects, StorageError> {
    let doubtful = objects
        .into_iter()
        .filter(|object| may_be_cold(object.class.as_deref()));
    let asked = stream::iter(doubtful).map(|object| async move {
        let state = storage.readability(&object.key).await?;
        Ok::<_, StorageError>((object, state))
    });
    let mut asked = asked.buffered(AT_ONCE);
    let mut cold = ColdObjects::default();
    while let Some((object, state)) = asked.try_next().await? {
        // One that is gone is told by whoever reads it.
        let Some(state) = state.filter(|state| !is_ready(*state)) else {
            continue;
        };
        cold.thawing += u64::from(state == Readability::Thawing);
        let class = object.class.unwrap_or_default();
        if !cold.classes.contains(&class) {
            cold.classes.push(class);
        }
        cold.objects.push((object.key, object.size));
    }
    cold.objects.sort();
    cold.classes.sort();
    Ok(cold)
}

fn is_ready(state: Readability) -> bool {
    state.lasts_until(SystemTime::now() + SPARE)
}

/// How long thawing is waited for.
#[derive(Debug, Clone, Copy)]
pub struct ThawWait {
    /// Until it is given up; what was ordered goes on.
    pub most: Duration,
    /// Before the second look.
    pub pause: Duration,
}

impl ThawWait {
    /// For at most so long.
    pub fn of(most: Duration) -> Self {
        let pause = Duration::from_secs(1);
        Self { most, pause }
    }
}

/// How far thawing is, in bytes.
#[derive(Debug, Default)]
pub struct ThawProgress {
    pub done: AtomicU64,
    /// Objects that are not readable yet.
    pub waiting: AtomicU64,
}

/// Orders all of it, and waits until it can be read. Errors: the store refuses; it takes too long.
pub async fn thaw(
    storage: &dyn Storage,
    cold: &ColdObjects,
    order: ThawOrder,
    wait: ThawWait,
    progress: &ThawProgress,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + wait.most;
    let mut waiting: VecDeque<(Key, u64)> = cold.objects.iter().cloned().collect();
    progress
        .waiting
        .store(waiting.len() as u64, Ordering::Relaxed);
    let orders = stream::iter(&cold.objects).map(|(key, _)| storage.thaw(key, order));
    let orders: Vec<ThawStarted> = orders.buffered(AT_ONCE).try_collect().await?;
    if let Some(at) = orders.iter().position(|one| *one == ThawStarted::Absent) {
        let (key, _) = &cold.objects[at];
        return Err(anyhow!(
            "object \"{key}\" in {} vanished while it was to be thawed",
            storage.describe()
        ))
        .hint("run the same again: something else deletes there");
    }
    let mut pause = wait.pause;
    loop {
        look(storage, &mut waiting, progress).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let next = Instant::now() + pause;
        if next >= deadline {
            return Err(too_long(waiting.len(), cold, wait.most));
        }
        sleep_until(next).await;
        pause = (pause * 2).min(wait.pause * RAREST);
    }
}

/// Takes away what can be read by now. Objects that were ordered together are ready at about the same time: a look ends
/// with the first of which none is.
async fn look(
    storage: &dyn Storage,
    waiting: &mut VecDeque<(Key, u64)>,
    progress: &ThawProgress,
) -> Result<(), StorageError> {
    let mut left = waiting.len();
    while left > 0 {
        let some: Vec<(Key, u64)> = waiting.drain(..left.min(AT_ONCE)).collect();
        left -= some.len();
        let states = stream::iter(&some).map(|(key, _)| storage.readability(key));
        let states: Vec<_> = states.buffered(AT_ONCE).try_collect().await?;
        let mut any = false;
        for (object, state) in some.into_iter().zip(states) {
            match state.is_none_or(is_ready) {
                true => {
                    any = true;
                    progress.done.fetch_add(object.1, Ordering::Relaxed);
                    progress.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                // Behind the others, which may be ready.
                false => waiting.push_back(object),
            }
        }
        if !any {
            break;
        }
    }
    Ok(())
}

fn too_long(waiting: usize, cold: &ColdObjects, patience: Duration) -> anyhow::Error {
    let error = anyhow!(
        "{waiting} of {} are not thawed after {} s",
        counted(cold.objects.len() as u64, "object"),
        patience.as_secs()
    );
    let hint =
        "run the same again later: the store goes on thawing; or raise `restore.thaw_timeout`";
    with_hint(error, hint)
}

#[cfg(test)]
#[path = "cold_tests.rs"]
mod tests;
