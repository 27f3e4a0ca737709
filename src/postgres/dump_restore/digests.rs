//! Whether a dump on disk is what its checksum file says: `<dump>.sha256` or `<dump>.md5`, as `sha256sum` writes them, beside
//! the path that was named or beside what a symbolic link there leads to. Blocking.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use crate::error::Hint;

/// Bytes of a checksum file at most.
const LONGEST: u64 = 256 << 20;

/// The dump differs from its checksum.
#[derive(Debug, thiserror::Error)]
#[error("\"{file}\" is not what \"{sums}\" says: its digest is {found}, not {wanted}", file = .file.display(), sums = .sums.display())]
pub struct WrongDigest {
    pub file: PathBuf,
    pub sums: PathBuf,
    pub found: String,
    pub wanted: String,
}

/// Which kind of digest a checksum file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DigestKind {
    Sha256,
    Md5,
}

/// A line of a checksum file.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    digest: &'a str,
    /// Without folders; `None`: the line names none.
    name: Option<OsString>,
}

/// Reads the dump and compares; the checksum file that was used, `None`: there is none. Errors: [`WrongDigest`], or
/// the files cannot be read.
pub fn verify(dump: &Path) -> anyhow::Result<Option<PathBuf>> {
    // Without a slash at its end.
    let named: PathBuf = dump.components().collect();
    let meant = fs::canonicalize(dump).unwrap_or_else(|_| named.clone());
    let found = [named, meant].into_iter().find_map(|dump| {
        let (sums, kind) = sums_of(&dump)?;
        Some((dump, sums, kind))
    });
    let Some((dump, sums, kind)) = found else {
        return Ok(None);
    };
    let mut text = Vec::new();
    File::open(&sums)
        .and_then(|file| file.take(LONGEST).read_to_end(&mut text))
        .with_context(|| format!("cannot read \"{}\"", sums.display()))?;
    let lines = text.split(|byte| *byte == b'\n');
    let lines: Vec<Line<'_>> = lines
        .map(<[u8]>::trim_ascii_end)
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse(line, kind).ok_or_else(|| anyhow!("\"{}\" is no list of digests", sums.display()))
        })
        .collect::<anyhow::Result<_>>()?;
    let files = files(&dump, &lines)
        .with_context(|| format!("cannot use \"{}\"", sums.display()))
        .hint("is it another dump's? Move it away to restore without a digest")?;
    for (file, wanted) in files {
        let found =
            digest(&file, kind).with_context(|| format!("cannot read \"{}\"", file.display()))?;
        if !found.eq_ignore_ascii_case(wanted) {
            let wanted = wanted.to_string();
            bail!(WrongDigest {
                file,
                sums,
                found,
                wanted
            });
        }
    }
    Ok(Some(sums))
}

fn sums_of(dump: &Path) -> Option<(PathBuf, DigestKind)> {
    let beside = |ending: &str| {
        let mut name = dump.as_os_str().to_os_string();
        name.push(ending);
        Some(PathBuf::from(name)).filter(|path| path.is_file())
    };
    let sha256 = beside(".sha256").map(|path| (path, DigestKind::Sha256));
    sha256.or_else(|| Some((beside(".md5")?, DigestKind::Md5)))
}

/// A line such as `<digest>  <name>` or `<digest> *<name>`; the name may be missing. A backslash before it says that those in the
/// name are doubled, and ends of lines written as letters.
fn parse(line: &[u8], kind: DigestKind) -> Option<Line<'_>> {
    let (line, escaped) = match line.strip_prefix(b"\\") {
        Some(line) => (line, true),
        None => (line, false),
    };
    let length = match kind {
        DigestKind::Sha256 => 64,
        DigestKind::Md5 => 32,
    };
    let (digest, name) = line.split_at_checked(length)?;
    let digest = std::str::from_utf8(digest).ok()?;
    if !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let name = match name {
        [] => Vec::new(),
        [b' ', b' ' | b'*', name @ ..] if escaped => unescaped(name)?,
        [b' ', b' ' | b'*', name @ ..] => name.to_vec(),
        _ => return None,
    };
    let name = Path::new(OsStr::from_bytes(&name)).file_name();
    let name = name.map(OsStr::to_os_string);
    Some(Line { digest, name })
}

fn unescaped(name: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut plain) = (name.iter(), Vec::with_capacity(name.len()));
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
            byte => *byte,
        });
    }
    Some(plain)
}

/// The files of the dump with their digests. One line alone is this dump's, also after it was renamed. Errors: a file is not
/// among them.
fn files<'a>(dump: &Path, lines: &[Line<'a>]) -> anyhow::Result<Vec<(PathBuf, &'a str)>> {
    let missing = |path: &Path| anyhow!("it does not name \"{}\"", path.display());
    let of = |name: &OsStr| lines.iter().find(|line| line.name.as_deref() == Some(name));
    if !dump.is_dir() {
        let own = dump.file_name().and_then(of);
        let own = own.or(lines.first().filter(|_| lines.len() == 1));
        let own = own.ok_or_else(|| missing(dump))?;
        return Ok(vec![(dump.to_path_buf(), own.digest)]);
    }
    for entry in fs::read_dir(dump)? {
        let entry = entry?;
        of(&entry.file_name()).ok_or_else(|| missing(&entry.path()))?;
    }
    let named = lines.iter().filter_map(|line| {
        let name = line.name.as_ref()?;
        Some((dump.join(name), line.digest))
    });
    Ok(named.collect())
}

fn digest(file: &Path, kind: DigestKind) -> std::io::Result<String> {
    let from = BufReader::with_capacity(1 << 20, fs::File::open(file)?);
    match kind {
        DigestKind::Sha256 => digest_of::<sha2::Sha256>(from),
        DigestKind::Md5 => digest_of::<md5::Md5>(from),
    }
}

fn digest_of<D: sha2::Digest>(mut from: impl Read) -> std::io::Result<String> {
    let mut digest = D::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            read => digest.update(&buffer[..read]),
        }
    }
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::one_line;

    #[test]
    fn names_are_what_sha256sum_makes_of_them() {
        let name = |text: &str| {
            let line = parse(text.as_bytes(), DigestKind::Sha256);
            line.map(|line| line.name)
        };
        let some = |name: &str| Some(Some(OsString::from(name)));
        assert_eq!(name(&format!("\\{ABC}  a/b\\\\c\\nd")), some("b\\c\nd"));
        assert_eq!(name(&format!("{ABC} *b\\\\c")), some("b\\\\c"));
        assert_eq!(name(ABC), Some(None));
        for wrong in [format!("\\{ABC}  a\\x"), format!("{ABC}x"), ABC[1..].into()] {
            assert_eq!(name(&wrong), None, "{wrong}");
        }
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a\\b\nc");
        fs::write(&odd, "abc").unwrap();
        let other = format!("{ABC}  other\n\\{ABC}  a\\\\b\\nc\n");
        fs::write(folder.path().join("a\\b\nc.sha256"), other).unwrap();
        assert!(verify(&odd).unwrap().is_some());
    }

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_dump_is_compared_with_its_checksum_file_and_a_folder_with_all_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
        write("a.dump", "abc");
        assert_eq!(verify(&path("a.dump")).unwrap(), None);
        write("a.dump.md5", "900150983cd24fb0d6963f7d28e17f72 *a.dump\n");
        assert_eq!(verify(&path("a.dump")).unwrap(), Some(path("a.dump.md5")));
        write(
            "a.dump.sha256",
            &format!("{ABC}  /elsewhere/old-name.dump\n"),
        );
        assert_eq!(
            verify(&path("a.dump")).unwrap(),
            Some(path("a.dump.sha256"))
        );
        write("a.dump", "abd");
        let error = verify(&path("a.dump")).unwrap_err();
        assert!(error.downcast_ref::<WrongDigest>().is_some(), "{error}");
        write("a.dump.sha256", &format!("{ABC}  b.dump\n{ABC}  c.dump\n"));
        assert!(one_line(&verify(&path("a.dump")).unwrap_err()).contains("does not name"));
        write("a.dump.sha256", "nonsense\n");
        assert!(verify(&path("a.dump")).is_err());

        fs::create_dir(path("d.dir")).unwrap();
        write("d.dir/toc.dat", "abc");
        write("d.dir/1.dat", "abc");
        write(
            "d.dir.sha256",
            &format!("{ABC}  d.dir/1.dat\n{ABC}  d.dir/toc.dat\n"),
        );
        let found = |name: &str| verify(&path(name)).unwrap();
        assert_eq!(found("d.dir/"), Some(path("d.dir.sha256")));
        std::os::unix::fs::symlink("d.dir", path("latest")).unwrap();
        let sums = fs::canonicalize(path("d.dir.sha256")).unwrap();
        assert_eq!(found("latest"), Some(sums));
        write("d.dir/2.dat", "abc");
        let error = one_line(&verify(&path("d.dir")).unwrap_err());
        assert!(
            error.contains("does not name") && error.contains("2.dat"),
            "{error}"
        );
        fs::remove_file(path("d.dir/2.dat")).unwrap();
        write("d.dir/1.dat", "");
        assert!(verify(&path("d.dir")).is_err());
        fs::remove_file(path("d.dir/1.dat")).unwrap();
        assert!(verify(&path("d.dir")).is_err());
    }
}
