//! To whom belongs what is made. Root also runs things, from its crontab and by hand; what it makes in a folder of
//! another user's belongs to that user, as SQLite does it: else that user could not go on.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use crate::fsync;

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
        (fields.len() >= 6 && fields[2] == uid).then(|| (fields[0].to_owned(), PathBuf::from(fields[5])))
    })
}

/// Whether root runs this.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Owner {
    /// Who runs this.
    pub fn own() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    /// To whom a file or folder belongs.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self { uid: meta.uid(), gid: meta.gid() })
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
    for folder in path.ancestors().take_while(|folder| folder.starts_with(top)) {
        match Owner::of(folder) {
            Ok(owner) if owner.uid != 0 => return Ok(Some(owner)),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => (),
        }
    }
    Ok(None)
}

/// Makes a folder for `user`, as root: one that is missing, or root's and empty, belongs to that user then. Others than root
/// make their folders when they need them.
pub fn make_for(folder: &Path, user: Owner) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    match Owner::of(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fsync::create_folders_for(folder, &|made, _| user.give(made))
        }
        Ok(owner) if owner.uid == 0 && fs::read_dir(folder)?.next().is_none() => user.give(&File::open(folder)?),
        found => found.map(drop),
    }
}

/// Gives what root just made at `path` to whom the folders around it belong to, up to `top`; nothing to do for others.
/// Errors: [`NotOwner`], where root may not, as on a file server that takes root for nobody.
pub fn inherit(made: &File, path: &Path, top: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(top);
    match if is_root() { heir(folder, top)? } else { None } {
        None => Ok(()),
        Some(owner) => owner.give(made).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => refused(folder, owner, Owner::own()),
            _ => error,
        }),
    }
}

/// The same, and refuses what another user made in a folder that is not its own: it would belong to nobody's
/// repository. Who may write to the top folder itself, or to one of root's, may begin something there.
pub fn settle(made: &File, path: &Path, top: &Path) -> io::Result<()> {
    inherit(made, path, top)?;
    let Some(folder) = path.parent().filter(|folder| *folder != top && folder.starts_with(top)) else { return Ok(()) };
    let (meta, owner) = (made.metadata()?, Owner::of(folder)?);
    match is_root() || owner.uid == 0 || owner.uid == meta.uid() {
        true => Ok(()),
        false => Err(refused(folder, owner, Owner { uid: meta.uid(), gid: meta.gid() })),
    }
}

fn refused(folder: &Path, owner: Owner, we: Owner) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, NotOwner { folder: folder.to_path_buf(), owner, we })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_in_an_own_folder_stays_and_the_nearest_other_user_inherits() {
        let folder = tempfile::tempdir().unwrap();
        let (top, inner) = (folder.path(), folder.path().join("a/b"));
        fs::create_dir_all(&inner).unwrap();
        let made = File::create(inner.join("made")).unwrap();
        settle(&made, &inner.join("made"), top).unwrap();
        assert_eq!(Owner::of(&inner.join("made")).unwrap(), Owner::own());
        assert_eq!(heir(&inner.join("c/d"), top).unwrap(), Some(Owner::own()).filter(|_| !is_root()));
        if is_root() {
            std::os::unix::fs::chown(folder.path().join("a"), Some(12345), Some(54321)).unwrap();
            assert_eq!(heir(&inner.join("c/d"), top).unwrap(), Some(Owner { uid: 12345, gid: 54321 }));
            assert_eq!(heir(&inner.join("c/d"), &inner).unwrap(), None);
            settle(&made, &inner.join("made"), top).unwrap();
            assert_eq!(Owner::of(&inner.join("made")).unwrap(), Owner { uid: 12345, gid: 54321 });
        }
    }

    #[test]
    fn root_makes_folders_for_others_and_takes_none_that_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let user = Owner { uid: 12345, gid: 54321 };
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
    fn a_user_is_told_by_name_where_it_has_one() {
        assert_eq!(Owner { uid: 0, gid: 0 }.to_string(), "user \"root\"");
        assert_eq!(Owner { uid: 0, gid: 0 }.name(), "root");
        assert_eq!(Owner { uid: u32::MAX - 9, gid: 0 }.to_string(), format!("uid {}", u32::MAX - 9));
    }
}
