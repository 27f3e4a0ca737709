//! The tar streams of BASE_BACKUP, taken apart as they arrive. Sans-I/O; file content is passed on without copying.
//!
//! Form: POSIX ustar, as the server's tarCreateHeader (src/port/tar.c) writes it: blocks of 512 bytes, numbers in octal
//! or, when they do not fit, in base 256 (first bit set). 13 and 14 send no end-of-archive blocks.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::manifest::check_path;

/// Bytes of a block: headers take one, content is padded to whole ones.
const BLOCK: usize = 512;

/// What lies in the stream, in order: an [`Item::Entry`], for files their content in pieces, then [`Item::End`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Entry(TarHeader),
    /// A piece of the file's content, never empty.
    Data(Bytes),
    /// The file's content is complete.
    End,
}

/// What a header says of its member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarHeader {
    /// Relative, without a leading `./` or trailing `/`, proven to lead nowhere else. Where the name is not UTF-8 its
    /// bytes are escaped.
    pub path: String,
    /// Whether the name is UTF-8.
    pub utf8: bool,
    pub kind: MemberKind,
    /// Bytes of content; 0 for what is no file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Unix time in seconds.
    pub mtime: i64,
}

/// Kinds of members that servers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    File,
    Folder,
    Symlink,
}

/// Bytes that are no tar stream of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server's tar stream is not valid: {0}")]
pub struct TarError(pub String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TarState {
    /// Collecting a header block.
    Header,
    /// Inside a file's content: bytes left, padding after them.
    Content { left: u64, padding: usize },
    /// Skipping bytes after a file.
    Padding(usize),
    /// After the first block of zeros: only zeros may follow.
    Trailer,
    /// An error was returned.
    Broken,
}

/// Takes one archive apart. Feed chunks of any length, call [`next`](Self::next) until it says `None`, and
/// [`finish`](Self::finish) at the archive's end.
#[derive(Debug)]
pub struct Parser {
    state: TarState,
    chunks: VecDeque<Bytes>,
    header: Vec<u8>,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            state: TarState::Header,
            chunks: VecDeque::new(),
            header: Vec::with_capacity(BLOCK),
        }
    }
}

impl Parser {
    /// Adds what arrived.
    pub fn feed(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next item; `None` when more must be fed first. After an error only errors follow.
    #[allow(clippy::should_implement_trait)] // An iterator that goes on after `None` would mislead.
    pub fn next(&mut self) -> Result<Option<Item>, TarError> {
        let result = self.step();
        if result.is_err() {
            self.state = TarState::Broken;
        }
        result
    }

    /// Checks that the archive ends where it may.
    pub fn finish(&self) -> Result<(), TarError> {
        match self.state {
            TarState::Trailer => Ok(()),
            TarState::Header if self.header.is_empty() && self.chunks.is_empty() => Ok(()),
            _ => Err(TarError("it ends within a member".into())),
        }
    }

    fn step(&mut self) -> Result<Option<Item>, TarError> {
        loop {
            match self.state {
                TarState::Header => {
                    if !self.collect_header() {
                        return Ok(None);
                    }
                    if let Some(item) = self.read_header()? {
                        return Ok(Some(item));
                    }
                }
                TarState::Content { left: 0, padding } => {
                    self.state = TarState::Padding(padding);
                    return Ok(Some(Item::End));
                }
                TarState::Content { left, padding } => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX);
                    let Some(data) = self.take(most) else {
                        return Ok(None);
                    };
                    self.state = TarState::Content {
                        left: left - data.len() as u64,
                        padding,
                    };
                    return Ok(Some(Item::Data(data)));
                }
                TarState::Padding(0) => self.state = TarState::Header,
                TarState::Padding(left) => {
                    let Some(skipped) = self.take(left) else {
                        return Ok(None);
                    };
                    self.state = TarState::Padding(left - skipped.len());
                }
                TarState::Trailer => {
                    let Some(rest) = self.take(usize::MAX) else {
                        return Ok(None);
                    };
                    if rest.iter().any(|byte| *byte != 0) {
                        return Err(TarError("something follows its end".into()));
                    }
                }
                TarState::Broken => return Err(TarError("it was given up before".into())),
            }
        }
    }

    /// At most `most` bytes that lie together; `None` when there are none.
    fn take(&mut self, most: usize) -> Option<Bytes> {
        let first = self.chunks.front_mut()?;
        match first.len() <= most {
            true => self.chunks.pop_front(),
            false => Some(first.split_to(most)),
        }
    }

    /// Whether a whole header block is collected.
    fn collect_header(&mut self) -> bool {
        while self.header.len() < BLOCK {
            let Some(first) = self.chunks.front_mut() else {
                return false;
            };
            let count = first.len().min(BLOCK - self.header.len());
            self.header.extend_from_slice(&first[..count]);
            first.advance(count);
            if first.is_empty() {
                self.chunks.pop_front();
            }
        }
        true
    }

    fn read_header(&mut self) -> Result<Option<Item>, TarError> {
        let block = std::mem::replace(&mut self.header, Vec::with_capacity(BLOCK));
        if block.iter().all(|byte| *byte == 0) {
            self.state = TarState::Trailer;
            return Ok(None);
        }
        let header = parse_header(&block)?;
        if header.kind == MemberKind::File {
            let padding = (BLOCK - (header.size % BLOCK as u64) as usize) % BLOCK;
            self.state = TarState::Content {
                left: header.size,
                padding,
            };
        }
        Ok(Some(Item::Entry(header)))
    }
}

fn parse_header(block: &[u8]) -> Result<TarHeader, TarError> {
    let (path, utf8) = path(block);
    let wrong = |what: &str| TarError(format!("member \"{path}\" has {what}"));
    // The checksum is the sum of all bytes, its own field taken as spaces.
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
    if number(&block[148..156]) != Some(sum - own + 8 * u64::from(b' ')) {
        return Err(wrong("a header whose checksum does not match"));
    }
    let kind = match block[156] {
        b'0' | 0 => MemberKind::File,
        b'2' => MemberKind::Symlink,
        b'5' => MemberKind::Folder,
        other => {
            return Err(wrong(&format!(
                "the unknown type '{}'",
                other.escape_ascii()
            )));
        }
    };
    let size = number(&block[124..136]).filter(|size| *size <= i64::MAX as u64);
    let size = size.ok_or_else(|| wrong("a size that is no number"))?;
    let mode = number(&block[100..108]).ok_or_else(|| wrong("a mode that is no number"))?;
    let mtime = number(&block[136..148]).ok_or_else(|| wrong("a time that is no number"))?;
    check_path(&path).map_err(|error| TarError(error.to_string()))?;
    let size = if kind == MemberKind::File { size } else { 0 };
    Ok(TarHeader {
        path,
        utf8,
        kind,
        size,
        mode: (mode & 0o7777) as u32,
        mtime: mtime as i64,
    })
}

/// Prefix and name joined, without the leading `./` and trailing `/` that some members have, and whether it is UTF-8.
fn path(block: &[u8]) -> (String, bool) {
    let bytes = |field: &[u8]| {
        let end = field
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(field.len());
        field[..end].to_vec()
    };
    let name = bytes(&block[..100]);
    // GNU tar uses the prefix's place for other things; only the POSIX magic has a NUL after "ustar".
    let prefix = if &block[257..263] == b"ustar\0" {
        bytes(&block[345..500])
    } else {
        Vec::new()
    };
    let joined = if prefix.is_empty() {
        name
    } else {
        [&prefix[..], b"/", &name[..]].concat()
    };
    let (joined, utf8) = match String::from_utf8(joined) {
        Ok(joined) => (joined, true),
        Err(error) => (error.as_bytes().escape_ascii().to_string(), false),
    };
    let inner = joined.strip_prefix("./").unwrap_or(&joined);
    (inner.strip_suffix('/').unwrap_or(inner).to_string(), utf8)
}

/// A number in octal digits, or in base 256 when the first byte is 0x80.
fn number(field: &[u8]) -> Option<u64> {
    match field.split_first()? {
        (0x80, rest) => {
            let (high, low) = rest.split_at(rest.len().saturating_sub(8));
            let value = low
                .iter()
                .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
            high.iter().all(|byte| *byte == 0).then_some(value)
        }
        _ => {
            let text = std::str::from_utf8(field).ok()?;
            let digits = text.trim_matches(['\0', ' ']);
            let valid = digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
            if digits.is_empty() {
                Some(0)
            } else {
                u64::from_str_radix(digits, 8).ok().filter(|_| valid)
            }
        }
    }
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
