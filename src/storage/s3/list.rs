use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;

use super::{S3Error, S3Storage};
use crate::storage::classes::STANDARD;
use crate::storage::{Key, LIST_PAGE, ListEntry, ObjectMeta};

/// Sorts behind all that keys may hold, so that a listing continues behind a whole folder.
const BEHIND: char = '~';

impl S3Storage {
    /// One page of what lies directly below a folder. The store may give less than it is asked for.
    pub(super) async fn page(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, S3Error> {
        let (options, path) = (&self.options, self.path(folder));
        let after = after.map(|after| match after.ends_with('/') {
            true => self.path(&format!("{after}{BEHIND}")),
            false => self.path(after),
        });
        let mut entries: Vec<ListEntry> = Vec::new();
        let mut token = None;
        loop {
            let (client, _place) = self.enter("ListObjectsV2", &path).await?;
            let list = client
                .list_objects_v2()
                .bucket(&options.bucket)
                .prefix(&path)
                .delimiter("/")
                .max_keys(LIST_PAGE as i32)
                .set_start_after(after.clone())
                .set_continuation_token(token)
                .set_expected_bucket_owner(options.bucket_owner.clone());
            let sent = list.send().await;
            let found =
                sent.map_err(|error| S3Error::of(options, "ListObjectsV2", &path, error))?;
            self.collect(&path, &found, &mut entries)?;
            token = found.next_continuation_token;
            if token.is_none() && found.is_truncated == Some(true) {
                let why = "the listing is cut and does not say where it goes on";
                return Err(S3Error::bad_answer(options, "ListObjectsV2", &path, why));
            }
            if entries.len() >= LIST_PAGE || token.is_none() {
                break;
            }
        }
        entries.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        entries.truncate(LIST_PAGE);
        Ok(entries)
    }

    /// Objects that others put there under names that are no keys are left out.
    fn collect(
        &self,
        path: &str,
        found: &ListObjectsV2Output,
        entries: &mut Vec<ListEntry>,
    ) -> Result<(), S3Error> {
        let own = |path: &str| path.strip_prefix(&self.options.prefix).map(str::to_string);
        for object in found.contents() {
            let Some(key) = object
                .key()
                .and_then(own)
                .and_then(|key| Key::new(key).ok())
            else {
                continue;
            };
            entries.push(ListEntry::Object(ObjectMeta {
                key,
                size: u64::try_from(object.size().unwrap_or(0)).unwrap_or(0),
                modified: self.time("ListObjectsV2", path, object.last_modified())?,
                class: Some(
                    object
                        .storage_class()
                        .map_or(STANDARD, |class| class.as_str())
                        .into(),
                ),
                encryption: None,
            }));
        }
        let folders = found
            .common_prefixes()
            .iter()
            .filter_map(|folder| folder.prefix().and_then(own));
        let valid = |folder: &String| Key::new(folder.trim_end_matches('/')).is_ok();
        entries.extend(folders.filter(valid).map(ListEntry::Folder));
        Ok(())
    }
}
