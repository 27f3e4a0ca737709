//! To whom the repository's files belong: all to one user, who is the server's.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::{Check, CheckRequest, Verdict};
use crate::owner::{Owner, is_root};
use crate::postgres::layout::Layout;
use crate::storage::Key;

/// Files and folders looked at; the newest WAL and backups first.
const MOST: usize = 10_000;

/// What was looked at, and found.
#[derive(Debug, Default)]
struct Ownership {
    /// To whom `cluster.json` belongs.
    owner: Option<Owner>,
    count: usize,
    /// The first that belongs to another user, and how many do.
    other: Option<(PathBuf, Owner)>,
    others: usize,
    /// One of these is closed to the repository's owner, or to us.
    closed: bool,
}

/// Checks a folder's owners. `user`: the server's, if that is known.
pub(super) fn check(request: &CheckRequest<'_>, user: Option<Owner>) -> Verdict {
    let Some(root) = request.settings.repository.url.folder() else {
        return Check::Owner
            .ok("the repository is no folder: its objects belong to nobody on this machine");
    };
    let Ok(layout) = request.layout() else {
        return Check::Owner.because(Check::Configuration);
    };
    match gather(root, &layout) {
        Ok(ownership) => decide(&ownership, &root.join(layout.folder()), user, is_root()),
        Err(_) => Check::Owner.because(Check::Repository),
    }
}

fn gather(root: &Path, layout: &Layout) -> io::Result<Ownership> {
    let owner = Owner::of(&root.join(layout.cluster_json().as_str()))?;
    let mut ownership = Ownership {
        owner: Some(owner),
        ..Ownership::default()
    };
    // Later names first: those are of newer backups and WAL.
    let mut waiting = vec![layout.cluster().to_string()];
    while let Some(name) = waiting.pop() {
        if ownership.count == MOST {
            break;
        }
        let path = root.join(&name);
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if !is_ours(layout, &name, meta.is_dir()) {
            continue;
        }
        ownership.see(&path, &meta, owner);
        // One that cannot be listed is another's, and counted.
        if let (true, Ok(entries)) = (meta.is_dir(), fs::read_dir(&path)) {
            let below = entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok());
            let mut below: Vec<String> = below.map(|below| format!("{name}/{below}")).collect();
            below.sort();
            waiting.extend(below);
        }
    }
    Ok(ownership)
}

/// Whether the layout has such an object or folder. To whom foreign ones belong is no matter.
fn is_ours(layout: &Layout, name: &str, is_folder: bool) -> bool {
    if !is_folder {
        return Key::new(name).is_ok_and(|key| layout.parse(&key).is_some());
    }
    let folder = format!("{name}/");
    let tops = [
        layout.wal_folder(),
        layout.base_folder(),
        layout.names_folder(),
        layout.idle_folder(),
    ];
    let group = |name: &str| name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    folder == layout.folder()
        || tops.contains(&folder)
        || layout.parse_backup_folder(&folder).is_some()
        || [layout.wal_folder(), layout.idle_folder()]
            .iter()
            .any(|top| name.strip_prefix(top).is_some_and(group))
}

impl Ownership {
    fn see(&mut self, path: &Path, meta: &Metadata, owner: Owner) {
        self.count += 1;
        if meta.uid() == owner.uid || !(meta.is_dir() || meta.is_file()) {
            return;
        }
        self.others += 1;
        let is_closed = match is_root() {
            true => meta.permissions().mode() & 0o004 == 0,
            false => access(path, Access::READ_OK).is_err(),
        };
        if self.other.is_none() || (is_closed && !self.closed) {
            self.other = Some((
                path.to_path_buf(),
                Owner {
                    uid: meta.uid(),
                    gid: meta.gid(),
                },
            ));
        }
        self.closed |= is_closed;
    }
}

fn decide(ownership: &Ownership, cluster: &Path, user: Option<Owner>, as_root: bool) -> Verdict {
    let Some(owner) = ownership.owner else {
        return Check::Owner.because(Check::Repository);
    };
    let give = |to: Owner| format!("chown -R {} '{}'", to.name(), cluster.display());
    if let Some((path, other)) = &ownership.other {
        let (count, shown) = (ownership.others, path.display());
        let told = format!(
            "\"{shown}\" belongs to {other}, the repository to {owner} ({count} such of {})",
            ownership.count
        );
        return match ownership.closed {
            true => Check::Owner.critical(told),
            false => Check::Owner.warning(told),
        }
        .hint(give(user.unwrap_or(owner)));
    }
    match user {
        // Who is not root sees by `writable` whether that matters: a file server may say who owns what.
        Some(user) if user.uid != owner.uid && as_root => Check::Owner
            .warning(format!(
                "the repository belongs to {owner}, PostgreSQL runs as {user}"
            ))
            .hint(give(user)),
        _ => Check::Owner.ok(format!(
            "all of {} files and folders belong to {owner}",
            ownership.count
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::check::CheckStatus;

    const POSTGRES: Owner = Owner { uid: 105, gid: 110 };
    const ROOT: Owner = Owner { uid: 0, gid: 0 };

    fn decided(other: Option<Owner>, closed: bool, user: Owner, as_root: bool) -> Verdict {
        let (others, other) = (
            usize::from(other.is_some()),
            other.map(|owner| ("/r/main/base/x".into(), owner)),
        );
        let ownership = Ownership {
            owner: Some(POSTGRES),
            count: 9,
            others,
            other,
            closed,
        };
        decide(&ownership, Path::new("/r/main"), Some(user), as_root)
    }

    #[test]
    fn what_belongs_to_another_user_is_told_with_how_to_give_it_back() {
        assert_eq!(
            decided(None, false, POSTGRES, false).status,
            CheckStatus::Ok
        );
        let closed = decided(Some(ROOT), true, POSTGRES, false);
        assert_eq!(closed.status, CheckStatus::Critical);
        assert!(
            closed
                .message
                .contains("\"/r/main/base/x\" belongs to user \"root\""),
            "{}",
            closed.message
        );
        assert!(closed.hint.unwrap().starts_with("chown -R "));
        assert_eq!(
            decided(Some(ROOT), false, POSTGRES, false).status,
            CheckStatus::Warning
        );
        assert_eq!(
            decided(None, false, ROOT, true).status,
            CheckStatus::Warning,
            "another user than the server's"
        );
    }

    #[test]
    fn a_repository_of_one_user_is_seen_as_that() {
        let (root, layout) = (
            tempfile::tempdir().unwrap(),
            Layout::new("main".parse().unwrap()),
        );
        let cluster = root.path().join("main");
        assert!(gather(root.path(), &layout).is_err(), "there is none");
        let backup = cluster.join("base/20260101-000000Z");
        fs::create_dir_all(&backup).unwrap();
        fs::create_dir_all(cluster.join("wal/0000000100000000/@eaDir")).unwrap();
        fs::write(cluster.join("cluster.json"), "").unwrap();
        fs::write(backup.join("manifest.zst"), "").unwrap();
        fs::write(backup.join("Thumbs.db"), "").unwrap();
        let ownership = gather(root.path(), &layout).unwrap();
        assert_eq!(
            (ownership.count, ownership.others),
            (7, 0),
            "strangers are not looked at"
        );
        if is_root() {
            std::os::unix::fs::chown(&backup, Some(12345), None).unwrap();
            let ownership = gather(root.path(), &layout).unwrap();
            assert_eq!((ownership.others, ownership.other.unwrap().0), (1, backup));
        }
    }
}
