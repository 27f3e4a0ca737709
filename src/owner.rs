//! To whom belongs what is made. Root also runs things, from its crontab and by hand; what it makes in a folder of
//! another user's belongs to that user, as SQLite does it: else that user could not go on.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::fsync::{self, Made};

/// A user and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What was made would belong to another user than all around it.
#[derive(Debug, thiserror::Error)]
#[error("\"{}\" belongs to {owner}: what {we} makes there would not", folder.display())]
pub struct NotOwner {
    pub folder: PathBuf,
    pub owner: Owner,
    pub we: Owner,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match account(self.uid) {
            Some((name, _)) => write!(f, "user \"{name}\""),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// A user's line in /etc/passwd: name and home folder.
pub fn account(uid: u32) -> Option<(String, PathBuf)> {
    let (accounts, uid) = (fs::read_to_string("/etc/passwd").ok()?, uid.to_string());
    accounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.len() >= 6 && fields[2] == uid)
            .then(|| (fields[0].to_owned(), PathBuf::from(fields[5])))
    })
}

/// Whether root runs this.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Owner {
    /// Who runs this.
    pub fn own() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    /// To whom a file or folder belongs.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|meta| Self::told(&meta))
    }

    fn told(meta: &Metadata) -> Self {
        Self {
            uid: meta.uid(),
            gid: meta.gid(),
        }
    }

    /// Its name for commands: `chown NAME`.
    pub fn name(&self) -> String {
        account(self.uid).map_or(self.uid.to_string(), |(name, _)| name)
    }

    /// Gives to it what root just made.
    pub fn give(self, made: &File) -> io::Result<()> {
        match made.metadata()?.uid() == self.uid {
            // Also where a file server says to whom all belongs.
            true => Ok(()),
            false => match fchown(made, Some(self.uid), Some(self.gid)) {
                // Nobody of this container, whose root it stays then.
                Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
                given => given,
            },
        }
    }
}

/// The first user other than root to whom a folder belongs, from the one at `path` or nearest above it up to `top`.
pub fn heir(path: &Path, top: &Path) -> io::Result<Option<Owner>> {
    for path in path.ancestors().take_while(|path| path.starts_with(top)) {
        match fsync::open_folder(path) {
            Ok(folder) => return Ok(inside(&folder, top)?.flatten()),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The same for an open folder, by where it really lies: a name may be a link that another user planted. Where it lies
/// outside `top`, only its own owner counts; none at all where that is root.
fn inside(folder: &File, top: &Path) -> io::Result<Option<Option<Owner>>> {
    let id = |meta: &Metadata| (meta.dev(), meta.ino());
    let mut meta = folder.metadata()?;
    // `top` itself may be what is being made.
    let top = match fs::metadata(top) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        top => Some(id(&top?)),
    };
    let (mut above, mut found) = (folder.try_clone()?, None);
    if meta.uid() != 0 {
        return Ok(Some(Some(Owner::told(&meta))));
    }
    while Some(id(&meta)) != top {
        above = fsync::open_folder_at(&above, Path::new(".."), OFlags::PATH)?;
        let next = above.metadata()?;
        if id(&next) == id(&meta) {
            return Ok(None);
        }
        found = found.or(Some(Owner::told(&next)).filter(|owner| owner.uid != 0));
        meta = next;
    }
    Ok(Some(found))
}

/// Makes a folder for `user`, as root: one that is missing, or root's and empty, belongs to that user then, but not what a
/// link leads to. Others than root make their folders when they need them.
pub fn make_for(folder: &Path, user: Owner) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    if let Err(error) = fs::metadata(folder) {
        return match error.kind() {
            ErrorKind::NotFound => fsync::create_folders_for(folder, &|made| user.give(made.made)),
            _ => Err(error),
        };
    }
    // Without a slash at its end, which would follow a link.
    let folder: PathBuf = folder.components().collect();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
    let Ok(found) = fsync::open_folder_at(rustix::fs::CWD, &folder, flags) else {
        return Ok(());
    };
    match found.metadata()?.uid() == 0 && fsync::is_empty(&found)? {
        true => user.give(&found),
        false => Ok(()),
    }
}

/// Makes the file `path`, 0600, which must not be there, for whom `settle` tells: [`inherit`] or [`settle`].
pub fn create(path: &Path, settle: impl FnOnce(&Made<'_>) -> io::Result<()>) -> io::Result<File> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let parent = fsync::open_folder(
        path.parent()
            .filter(|path| !path.as_os_str().is_empty())
            .unwrap_or(Path::new(".")),
    )?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let made = File::from(rustix::fs::openat(
        &parent,
        name,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?);
    settle(&Made {
        made: &made,
        parent: &parent,
        path,
    })
    .inspect_err(|_| {
        // Best effort: whoever made it knows of the error.
        let _ = rustix::fs::unlinkat(&parent, name, AtFlags::empty());
    })?;
    Ok(made)
}

/// Gives what root just made to whom the folders around it belong to, up to `top`; nothing to do for others. Errors:
/// [`NotOwner`], where root may not, as on a file server that takes root for nobody; a link out of `top` to root's folder.
pub fn inherit(made: &Made<'_>, top: &Path) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let folder = made.path.parent().unwrap_or(top);
    match inside(made.parent, top)? {
        Some(None) => Ok(()),
        Some(Some(owner)) => owner.give(made.made).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => refused(folder, owner, Owner::own()),
            _ => error,
        }),
        None => {
            let mut named = folder
                .ancestors()
                .take_while(|folder| folder.starts_with(top));
            match named.find_map(|folder| Owner::of(folder).ok().filter(|owner| owner.uid != 0)) {
                None => Ok(()),
                Some(owner) => {
                    let what = format!(
                        "\"{}\" of {owner} is a link to a folder of root's",
                        folder.display()
                    );
                    Err(io::Error::new(ErrorKind::PermissionDenied, what))
                }
            }
        }
    }
}

/// The same, and refuses what another user made in a folder that is not its own: it would belong to nobody's
/// repository. Who may write to the top folder itself, or to one of root's, may begin something there.
pub fn settle(made: &Made<'_>, top: &Path) -> io::Result<()> {
    inherit(made, top)?;
    let Some(folder) = made
        .path
        .parent()
        .filter(|folder| *folder != top && folder.starts_with(top))
    else {
        return Ok(());
    };
    let (we, owner) = (
        Owner::told(&made.made.metadata()?),
        Owner::told(&made.parent.metadata()?),
    );
    match is_root() || owner.uid == 0 || owner.uid == we.uid {
        true => Ok(()),
        false => Err(refused(folder, owner, we)),
    }
}

fn refused(folder: &Path, owner: Owner, we: Owner) -> io::Error {
    io::Error::new(
        ErrorKind::PermissionDenied,
        NotOwner {
            folder: folder.to_path_buf(),
            owner,
            we,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_in_an_own_folder_stays_and_the_nearest_other_user_inherits() {
        let folder = tempfile::tempdir().unwrap();
        let (top, inner) = (folder.path(), folder.path().join("a/b"));
        fs::create_dir_all(&inner).unwrap();
        create(&inner.join("made"), |made| settle(made, top)).unwrap();
        assert_eq!(Owner::of(&inner.join("made")).unwrap(), Owner::own());
        assert_eq!(
            heir(&inner.join("c/d"), top).unwrap(),
            Some(Owner::own()).filter(|_| !is_root())
        );
        if is_root() {
            std::os::unix::fs::chown(folder.path().join("a"), Some(12345), Some(54321)).unwrap();
            assert_eq!(
                heir(&inner.join("c/d"), top).unwrap(),
                Some(Owner {
                    uid: 12345,
                    gid: 54321
                })
            );
            assert_eq!(heir(&inner.join("c/d"), &inner).unwrap(), None);
            create(&inner.join("next"), |made| settle(made, top)).unwrap();
            assert_eq!(
                Owner::of(&inner.join("next")).unwrap(),
                Owner {
                    uid: 12345,
                    gid: 54321
                }
            );
        }
    }

    #[test]
    fn root_makes_folders_for_others_and_takes_none_that_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let user = Owner {
            uid: 12345,
            gid: 54321,
        };
        fs::create_dir_all(path("empty")).unwrap();
        fs::create_dir_all(path("used/by")).unwrap();
        for name in ["new/deeper", "empty", "used"] {
            make_for(&path(name), user).unwrap();
        }
        let owners = ["new", "new/deeper", "empty", "used"].map(|name| Owner::of(&path(name)).ok());
        let ours = Some(Owner::own());
        match is_root() {
            true => assert_eq!(owners, [Some(user), Some(user), Some(user), ours]),
            false => assert_eq!(owners, [None, None, ours, ours]),
        }
    }

    #[test]
    fn root_gives_nothing_away_through_a_link() {
        if !is_root() {
            println!("skipped: only root gives files away");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let user = Owner {
            uid: 12345,
            gid: 54321,
        };
        for name in ["victim/inner", "repo/a"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        std::os::unix::fs::chown(path("repo/a"), Some(user.uid), Some(user.gid)).unwrap();
        std::os::unix::fs::symlink(path("victim"), path("repo/a/names")).unwrap();
        std::os::unix::fs::symlink(path("victim/inner"), path("repo/a/empty")).unwrap();

        let refused = create(&path("repo/a/names/file"), |made| {
            settle(made, &path("repo"))
        })
        .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        let deeper = path("repo/a/names/deeper/still");
        fsync::create_folders_for(&deeper, &|made| settle(made, &path("repo"))).unwrap_err();
        assert_eq!(
            fs::read_dir(path("victim")).unwrap().count(),
            1,
            "nothing is left there"
        );
        make_for(&path("repo/a/empty"), user).unwrap();
        make_for(&path("repo/a/empty/"), user).unwrap();
        assert_eq!(Owner::of(&path("victim/inner")).unwrap(), Owner::own());
        assert_eq!(
            heir(&path("repo/a/names/new"), &path("repo")).unwrap(),
            None
        );

        std::os::unix::fs::chown(path("victim"), Some(user.uid + 1), Some(user.gid)).unwrap();
        create(&path("repo/a/names/file"), |made| {
            settle(made, &path("repo"))
        })
        .unwrap();
        assert_eq!(
            Owner::of(&path("victim/file")).unwrap().uid,
            user.uid + 1,
            "the linked folder's own user"
        );
    }

    #[test]
    fn a_user_is_told_by_name_where_it_has_one() {
        assert_eq!(Owner { uid: 0, gid: 0 }.to_string(), "user \"root\"");
        assert_eq!(Owner { uid: 0, gid: 0 }.name(), "root");
        assert_eq!(
            Owner {
                uid: u32::MAX - 9,
                gid: 0
            }
            .to_string(),
            format!("uid {}", u32::MAX - 9)
        );
    }
}
