//! How folders lie to each other: within one another, on one disk, or apart. Links are resolved, and mounts: a folder that
//! is mounted a second time elsewhere is the same folder.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// A folder's place. It need not exist: what is missing of it will lie in what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderPlace {
    /// Without links.
    path: PathBuf,
    mount: Option<Mount>,
}

/// A line of /proc/self/mountinfo (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// `major:minor`: the same for all mounts of one file system.
    device: String,
    /// The mounted folder of the file system.
    root: PathBuf,
    /// Where it is mounted.
    point: PathBuf,
    kind: String,
    source: String,
}

/// How one folder lies to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolderRelation {
    /// It lies in the other, or is the same.
    Within,
    /// The other lies in it.
    Around,
    /// Neither, but what takes the one takes the other.
    OneDisk,
    /// As far as can be seen from here.
    Apart,
}

impl FolderPlace {
    /// Where a folder lies, or will lie.
    pub fn of(path: &Path) -> Self {
        let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
        Self::among(resolved(path), &mounts)
    }

    fn among(path: PathBuf, mountinfo: &[u8]) -> Self {
        let mounts = mountinfo
            .split(|byte| *byte == b'\n')
            .filter_map(Mount::parse);
        // Of those at one point the last lies above the others.
        let over = mounts.filter(|mount| path.starts_with(&mount.point));
        let mount = over.max_by_key(|mount| mount.point.components().count());
        Self { path, mount }
    }

    /// How this lies to `other`.
    pub fn to(&self, other: &Self) -> FolderRelation {
        let on_disk = match (&self.mount, &other.mount) {
            (Some(own), Some(theirs)) if own.device == theirs.device => Some((
                own.on_file_system(&self.path),
                theirs.on_file_system(&other.path),
            )),
            _ => None,
        };
        let lies_in = |inner: &Path, outer: &Path| inner.starts_with(outer);
        match on_disk {
            _ if lies_in(&self.path, &other.path) => FolderRelation::Within,
            _ if lies_in(&other.path, &self.path) => FolderRelation::Around,
            Some((own, theirs)) if lies_in(&own, &theirs) => FolderRelation::Within,
            Some((own, theirs)) if lies_in(&theirs, &own) => FolderRelation::Around,
            Some(_) => FolderRelation::OneDisk,
            None if self
                .mount
                .as_ref()
                .zip(other.mount.as_ref())
                .is_some_and(|(own, theirs)| own.shares(theirs)) =>
            {
                FolderRelation::OneDisk
            }
            None => FolderRelation::Apart,
        }
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let (device, root, point) = (fields.nth(2)?, fields.next()?, fields.next()?);
        // Optional fields end with a dash.
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let (kind, source) = (rest.next()?, rest.next()?);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (root, point) = (unescaped(root), unescaped(point));
        Some(Self {
            device: text(device),
            root,
            point,
            kind: text(kind),
            source: text(source),
        })
    }

    /// Where a path that lies in this mount is in the file system itself.
    fn on_file_system(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.point)
            .map_or(path.to_path_buf(), |rest| self.root.join(rest))
    }

    /// Whether both have the same disk below them, though they are two file systems to the kernel: subvolumes of btrfs,
    /// datasets of a ZFS pool.
    fn shares(&self, other: &Self) -> bool {
        let pool = |mount: &Self| {
            mount
                .source
                .split('/')
                .next()
                .unwrap_or_default()
                .to_string()
        };
        match self.kind == "zfs" && other.kind == "zfs" {
            true => pool(self) == pool(other),
            false => self.source.starts_with('/') && self.source == other.source,
        }
    }
}

/// Blanks and the like are written as three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((first, after)) = rest.split_first() {
        let digits = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let (byte, behind) = match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => (byte, &after[3..]),
            None => (*first, after),
        };
        bytes.push(byte);
        rest = behind;
    }
    OsString::from_vec(bytes).into()
}

/// The nearest existing ancestor with links resolved, and the rest below it, in which there are no links yet.
fn resolved(path: &Path) -> PathBuf {
    let real = path
        .ancestors()
        .find_map(|ancestor| Some((ancestor.canonicalize().ok()?, ancestor)));
    let Some((mut place, ancestor)) = real else {
        return path.to_path_buf();
    };
    for part in path.strip_prefix(ancestor).unwrap_or(path).components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            part => place.push(part),
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        22 21 8:17 / /srv rw shared:1 - ext4 /dev/sdb1 rw\n\
        23 21 8:1 /var/pg/data/deep /mnt/again rw shared:2 master:3 - ext4 /dev/sda1 rw\n\
        24 21 8:17 / /mnt/with\\040blank rw - ext4 /dev/sdb1 rw\n\
        25 21 0:40 /@a /pool/a rw - btrfs /dev/sdc rw\n\
        26 21 0:41 / /tank/a rw - zfs tank/a rw\n\
        27 21 0:42 / /tank/b rw - zfs tank/b rw\n\
        28 21 0:43 / /other rw - btrfs /dev/sdc rw\n\
        29 21 0:44 / /memory rw - tmpfs tmpfs rw\n\
        30 21 0:45 / /memory/2 rw - tmpfs tmpfs rw\n";

    fn relation(one: &str, other: &str) -> FolderRelation {
        let place = |path: &str| FolderPlace::among(path.into(), MOUNTS);
        place(one).to(&place(other))
    }

    #[test]
    fn folders_lie_within_around_on_one_disk_or_apart() {
        use FolderRelation::*;
        for (one, other, expected) in [
            ("/var/pg/data", "/var/pg/data", Within),
            ("/var/pg/data/x", "/var/pg/data", Within),
            ("/var/pg", "/var/pg/data", Around),
            ("/var/pg/data2", "/var/pg/data", OneDisk),
            ("/srv/x", "/var/pg/data", Apart),
            ("/srv/x", "/mnt/with blank/y", OneDisk),
            ("/srv/x/y", "/mnt/with blank/x", Within),
            ("/mnt/again/repository", "/var/pg/data", Within),
            ("/var/pg/data", "/mnt/again", Around),
            ("/pool/a/x", "/other/x", OneDisk),
            ("/tank/a", "/tank/b", OneDisk),
            ("/memory/x", "/memory/2/x", Apart),
            ("/memory/2/x", "/memory", Within),
        ] {
            assert_eq!(relation(one, other), expected, "{one} to {other}");
        }
    }

    #[test]
    fn without_a_list_of_mounts_the_paths_tell() {
        let place = |path: &str| FolderPlace::among(path.into(), b"");
        assert_eq!(place("/a/b").to(&place("/a")), FolderRelation::Within);
        assert_eq!(place("/a/b").to(&place("/a/c")), FolderRelation::Apart);
    }

    #[test]
    fn links_and_what_is_not_there_yet_are_seen_through() {
        let folder = tempfile::tempdir().unwrap();
        let (data, link) = (folder.path().join("data"), folder.path().join("link"));
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        assert_eq!(
            FolderPlace::of(&link.join("not/there")).to(&FolderPlace::of(&data)),
            FolderRelation::Within
        );
        assert_eq!(
            FolderPlace::of(&folder.path().join("new/../data/x")).to(&FolderPlace::of(&data)),
            FolderRelation::Within
        );
        assert_eq!(
            FolderPlace::of(&folder.path().join("data2")).to(&FolderPlace::of(&data)),
            FolderRelation::OneDisk
        );
    }
}
