//! A dump on disk, in any of `pg_dump`'s formats: what it is, and what it needs. Blocking.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, anyhow, bail, ensure};

use super::needs::DumpContent;
use super::plain;
use super::toc::{ArchiveForm, Toc};
use crate::error::{Hint, with_hint};

const TOC: &str = "toc.dat";
/// Bytes of a header and a block of a tar file.
pub const TAR_BLOCK: u64 = 512;
/// Where a tar header has the name, the size in octal digits, and the magic.
const TAR_SIZE: std::ops::Range<usize> = 124..136;
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

/// How a dump lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpForm {
    Custom,
    Directory,
    Tar,
    Script(Compression),
}

/// What a script is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Zstd,
    Gzip,
}

/// A dump that was looked into.
#[derive(Debug, Clone)]
pub struct DumpSource {
    pub path: PathBuf,
    pub form: DumpForm,
    pub content: DumpContent,
    /// Of all its files.
    pub bytes: u64,
    /// Bytes of the table of contents, as it lies there.
    pub toc_bytes: u64,
}

/// Where a dump lies, without what is in it.
#[derive(Debug, Clone)]
pub struct DumpPlace {
    pub path: PathBuf,
    pub form: DumpForm,
    /// Bytes of the table of contents.
    pub toc_bytes: u64,
}

impl DumpSource {
    pub fn place(&self) -> DumpPlace {
        DumpPlace {
            path: self.path.clone(),
            form: self.form,
            toc_bytes: self.toc_bytes,
        }
    }
}

/// Looks into a dump; a script is read to its end. Errors: there is none, or it is none of `pg_dump`'s.
pub fn open(path: &Path) -> anyhow::Result<DumpSource> {
    let shown = path.display();
    let path = fs::canonicalize(path)
        .with_context(|| format!("cannot find the dump \"{shown}\""))
        .hint("name a file or folder that pg_dump made")?;
    let found = if path.is_dir() {
        open_folder(&path)
    } else {
        open_file(&path)
    };
    found.with_context(|| format!("cannot read the dump \"{shown}\""))
}

fn open_folder(path: &Path) -> anyhow::Result<DumpSource> {
    let toc = File::open(path.join(TOC))
        .with_context(|| format!("cannot open its \"{TOC}\""))
        .hint("name a folder that `pg_dump --format=directory` made")?;
    let (toc, toc_bytes) = Toc::read(BufReader::new(toc))?;
    ensure!(
        toc.form == ArchiveForm::Files,
        "its \"{TOC}\" is that of a file"
    );
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(DumpSource {
        path: path.to_path_buf(),
        form: DumpForm::Directory,
        content: DumpContent::Archive(Box::new(toc)),
        bytes,
        toc_bytes,
    })
}

fn open_file(path: &Path) -> anyhow::Result<DumpSource> {
    let mut file = File::open(path)?;
    ensure!(
        file.metadata()?.is_file(),
        "it is neither a file nor a folder"
    );
    let mut start = Vec::new();
    (&mut file).take(TAR_BLOCK).read_to_end(&mut start)?;
    let bytes = file.metadata()?.len();
    let source = |form, content, toc_bytes| DumpSource {
        path: path.to_path_buf(),
        form,
        content,
        bytes,
        toc_bytes,
    };
    let archive =
        |form, (toc, toc_bytes)| Ok(source(form, DumpContent::Archive(Box::new(toc)), toc_bytes));
    if start.starts_with(b"PGDMP") {
        let all = io::Cursor::new(start).chain(file);
        return archive(DumpForm::Custom, Toc::read(BufReader::new(all))?);
    }
    if start.get(TAR_MAGIC) == Some(b"ustar") {
        ensure!(
            start.starts_with(b"toc.dat\0"),
            "it is a tar file, but none that pg_dump made"
        );
        return archive(DumpForm::Tar, Toc::read(BufReader::new(file))?);
    }
    drop(file);
    let compression = match start.as_slice() {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        [0x1f, 0x8b, ..] => Compression::Gzip,
        _ => Compression::None,
    };
    let script = scan(path, compression)?;
    Ok(source(
        DumpForm::Script(compression),
        DumpContent::Script(script),
        0,
    ))
}

fn scan(path: &Path, compression: Compression) -> anyhow::Result<plain::PlainDump> {
    let mut text = ScriptText::open(path, compression)?;
    let is_archive = text.from.fill_buf()?.starts_with(b"PGDMP");
    if is_archive {
        let error = anyhow!("it is an archive of pg_dump that was compressed once more");
        return Err(with_hint(error, "unpack it first"));
    }
    let found = plain::scan(&mut text.from)?;
    text.finish()?;
    if !found.is_whole {
        let error = anyhow!("it does not end with the line with which plain dumps of pg_dump end");
        return Err(with_hint(error, "is it cut off? Look for a whole copy"));
    }
    Ok(found)
}

/// The plain text of a script.
pub struct ScriptText {
    pub from: Box<dyn BufRead + Send>,
    unpacker: Option<Child>,
}

impl ScriptText {
    pub fn open(path: &Path, compression: Compression) -> anyhow::Result<Self> {
        let file = File::open(path)?;
        let mut unpacker = None;
        let from: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(BufReader::with_capacity(1 << 18, file)),
            Compression::Zstd => {
                Box::new(BufReader::with_capacity(1 << 18, zstd::Decoder::new(file)?))
            }
            Compression::Gzip => {
                let mut child = Command::new("gzip")
                    .arg("-dc")
                    .stdin(file)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .context("cannot run gzip")?;
                let output = child.stdout.take().context("gzip has no output")?;
                unpacker = Some(child);
                Box::new(BufReader::with_capacity(1 << 18, output))
            }
        };
        Ok(Self { from, unpacker })
    }

    /// To be called at the end of the text: errors that the unpacker found.
    pub fn finish(mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.unpacker.take() {
            drop(std::mem::replace(&mut self.from, Box::new(io::empty())));
            let status = child.wait()?;
            ensure!(status.success(), "gzip finds it damaged");
        }
        Ok(())
    }
}

impl Drop for ScriptText {
    fn drop(&mut self) {
        if let Some(child) = &mut self.unpacker {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes the dump with another table of contents, as `pg_restore` reads it, to a path where nothing is. The files of a
/// folder are linked, not copied. Leaves the places of data as they are in the copy.
pub fn rewrite(source: &DumpPlace, toc: &mut Toc, to: &Path) -> anyhow::Result<()> {
    let length = |toc: &Toc| -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        toc.write(&mut bytes)?;
        Ok(bytes)
    };
    match source.form {
        DumpForm::Script(_) => bail!("a script has no table of contents"),
        DumpForm::Directory => {
            fs::create_dir(to)?;
            for entry in fs::read_dir(&source.path)? {
                let name = entry?.file_name();
                if name != TOC {
                    std::os::unix::fs::symlink(source.path.join(&name), to.join(&name))?;
                }
            }
            fs::write(to.join(TOC), length(toc)?)?;
        }
        DumpForm::Custom => {
            // Offsets have a fixed length, so that shifting them does not shift them again.
            let by = length(toc)?.len() as i64 - source.toc_bytes as i64;
            toc.entries.iter_mut().for_each(|entry| entry.shift(by));
            copy_behind(&source.path, source.toc_bytes, to, &[&length(toc)?])?;
        }
        DumpForm::Tar => {
            let bytes = length(toc)?;
            let mut header = vec![0; TAR_BLOCK as usize];
            File::open(&source.path)?.read_exact(&mut header)?;
            set_tar_size(&mut header, bytes.len());
            let padding = vec![0; bytes.len().next_multiple_of(TAR_BLOCK as usize) - bytes.len()];
            let behind = TAR_BLOCK + source.toc_bytes.next_multiple_of(TAR_BLOCK);
            copy_behind(&source.path, behind, to, &[&header, &bytes, &padding])?;
        }
    }
    Ok(())
}

fn set_tar_size(header: &mut [u8], bytes: usize) {
    header[TAR_SIZE].copy_from_slice(format!("{bytes:011o} ").as_bytes());
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A new file of these pieces and what lies behind a place of another one.
fn copy_behind(from: &Path, behind: u64, to: &Path, pieces: &[&[u8]]) -> anyhow::Result<()> {
    use std::io::{Seek, SeekFrom};
    let mut source = File::open(from)?;
    source.seek(SeekFrom::Start(behind))?;
    let mut new = super::files::new_file(to)?;
    pieces.iter().try_for_each(|piece| new.write_all(piece))?;
    io::copy(&mut source, &mut new)?;
    Ok(())
}
