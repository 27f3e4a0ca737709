//! The newest records of a kind, whoever wrote them.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::journal::{Journal, LOOK_BACK, READERS};
use super::record::Record;

impl Journal {
    /// What the newest records say that are wanted, the newest first, `most` at most; of those that were stored last only.
    /// Errors: the store does not give one.
    pub async fn newest<T>(
        &self,
        most: usize,
        wanted: impl Fn(Record) -> Option<T>,
    ) -> anyhow::Result<Vec<T>> {
        let listed = self.list().await?.into_iter();
        let mut names: Vec<_> = listed
            .flat_map(|(writer, numbers)| {
                let numbers = numbers.into_iter();
                numbers.map(move |(number, stored)| (stored, writer.clone(), number))
            })
            .collect();
        names.sort();
        let newest = names.into_iter().rev().take(LOOK_BACK);
        let reads =
            newest.map(|(_, writer, number)| async move { self.read(&writer, number).await });
        let mut reads = stream::iter(reads).buffered(READERS);
        let mut found = Vec::new();
        while found.len() < most
            && let Some(read) = reads.try_next().await?
        {
            let record = read.and_then(|read| read.record.ok());
            found.extend(record.and_then(&wanted));
        }
        Ok(found)
    }
}
