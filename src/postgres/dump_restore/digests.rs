//! Whether a dump on disk is what its checksum file says: `<dump>.sha256` or `<dump>.md5`, as `sha256sum` writes them.
//! Blocking.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use crate::error::with_hint;

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

/// Reads the dump and compares; the checksum file that was used, `None`: there is none. Errors: [`WrongDigest`], or
/// the files cannot be read.
pub fn verify(dump: &Path) -> anyhow::Result<Option<PathBuf>> {
    let Some((sums, kind)) = sums_of(dump) else {
        return Ok(None);
    };
    let mut text = String::new();
    File::open(&sums)
        .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
        .with_context(|| format!("cannot read \"{}\"", sums.display()))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let lines: Vec<(&str, &str)> = lines
        .map(|line| {
            parse(line, kind).ok_or_else(|| anyhow!("\"{}\" is no list of digests", sums.display()))
        })
        .collect::<anyhow::Result<_>>()?;
    let files = files(dump, &lines);
    if files.is_empty() {
        let error = anyhow!(
            "\"{}\" does not name \"{}\"",
            sums.display(),
            dump.display()
        );
        return Err(with_hint(
            error,
            "is it another dump's? Move it away to restore without a digest",
        ));
    }
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

/// Digest and name of a line such as `<digest>  <name>` or `<digest> *<name>`; the name may be missing.
fn parse(line: &str, kind: DigestKind) -> Option<(&str, &str)> {
    let length = match kind {
        DigestKind::Sha256 => 64,
        DigestKind::Md5 => 32,
    };
    let (digest, name) = (line.get(..length)?, line.get(length..)?);
    let name = name
        .strip_prefix("  ")
        .or(name.strip_prefix(" *"))
        .unwrap_or(name.trim());
    digest
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then_some((digest, name))
}

/// The files of the dump with their digests. One line alone is this dump's, also after it was renamed.
fn files<'a>(dump: &Path, lines: &[(&'a str, &str)]) -> Vec<(PathBuf, &'a str)> {
    if dump.is_dir() {
        let within = |name: &str| dump.join(Path::new(name).file_name().unwrap_or_default());
        return lines
            .iter()
            .map(|(digest, name)| (within(name), *digest))
            .collect();
    }
    let own = lines
        .iter()
        .find(|(_, name)| Path::new(name).file_name() == dump.file_name());
    let own = own.or(lines.first().filter(|_| lines.len() == 1));
    own.map(|(digest, _)| (dump.to_path_buf(), *digest))
        .into_iter()
        .collect()
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
        assert!(
            verify(&path("a.dump"))
                .unwrap_err()
                .to_string()
                .contains("does not name")
        );
        write("a.dump.sha256", "nonsense\n");
        assert!(verify(&path("a.dump")).is_err());

        fs::create_dir(path("d.dir")).unwrap();
        write("d.dir/toc.dat", "abc");
        write("d.dir/1.dat", "abc");
        write(
            "d.dir.sha256",
            &format!("{ABC}  d.dir/1.dat\n{ABC}  d.dir/toc.dat\n"),
        );
        verify(&path("d.dir")).unwrap();
        write("d.dir/1.dat", "");
        assert!(verify(&path("d.dir")).is_err());
        fs::remove_file(path("d.dir/1.dat")).unwrap();
        assert!(verify(&path("d.dir")).is_err());
    }
}
