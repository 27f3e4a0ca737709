//! The configuration file that `walden init` writes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::Args;
use crate::config;
use crate::error::Hint;
use crate::fsync;
use crate::owner::Owner;
use crate::postgres::replication::ConnInfo;
use crate::postgres::replication::conninfo::Added;

/// A configuration file that only appears in its place when everything else succeeded.
pub struct Draft {
    file: fs::File,
    pub path: PathBuf,
    target: PathBuf,
    /// Variables of the environment by which it says how to connect.
    pub connection: Vec<&'static str>,
}

impl Draft {
    /// Writes it beside its place.
    pub fn write(target: &Path, args: &Args) -> anyhow::Result<Self> {
        let hint = "write it elsewhere with --config FILE, or run this as a user who may";
        // `walden serve` has another environment than this process.
        let added = if args.dsn.is_none() {
            ConnInfo::added_by_environment("")?
        } else {
            Vec::new()
        };
        let connection = added
            .iter()
            .filter(|added| added.pair().is_some())
            .map(|added| added.variable)
            .collect();
        let dsn = added
            .iter()
            .filter_map(Added::pair)
            .collect::<Vec<_>>()
            .join(" ");
        let of_environment = (!dsn.is_empty()).then_some(("postgresql.dsn", dsn.as_str()));
        let given: Vec<_> = args.given().into_iter().chain(of_environment).collect();
        let text = config::render_commented(&given)?;
        let folder = target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let cannot = || format!("cannot write \"{}\"", target.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .with_context(cannot)
            .hint(hint)?;
        let path = folder.join(format!(".walden-init-{}.toml", std::process::id()));
        let created = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let file = created.with_context(cannot).hint(hint)?;
        let draft = Self {
            file,
            path,
            target: target.to_path_buf(),
            connection,
        };
        (&draft.file)
            .write_all(text.as_bytes())
            .and_then(|()| draft.file.sync_all())
            .with_context(cannot)?;
        Ok(draft)
    }

    /// Puts it in its place; one that root wrote belongs to `user` then.
    pub fn keep(self, user: Option<Owner>) -> anyhow::Result<()> {
        let cannot = || format!("cannot write \"{}\"", self.target.display());
        let (written, found) = (
            self.file.metadata()?,
            fs::symlink_metadata(&self.path).with_context(cannot)?,
        );
        if (written.dev(), written.ino()) != (found.dev(), found.ino()) {
            return Err(anyhow!(
                "\"{}\" is not the file any more that was just made",
                self.path.display()
            ))
            .with_context(cannot);
        }
        user.map_or(Ok(()), |user| user.give(&self.file))
            .with_context(cannot)?;
        fsync::rename_new(&self.path, &self.target).with_context(cannot)?;
        let folder = self
            .target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fsync::sync_folder(folder).with_context(cannot)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `keep` there is nothing left to remove.
        let _ = fs::remove_file(&self.path);
    }
}
