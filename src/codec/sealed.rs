//! A sealed object: envelope, then zstd frames. Sealing reads its source once, opening verifies everything.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use serde::Serialize;
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective};

use super::envelope::LONGEST_ENVELOPE;
use super::{About, CODEC_ZSTD, Digest, Envelope, EnvelopeHeader, Hasher, SizedDigest};

/// Bytes read, digested and compressed at a time: they stay in the processor's cache between the steps.
const CHUNK: usize = 128 << 10;
/// What a body's buffer grows by: as little as possible is kept beyond what is needed.
const GROWTH: usize = 1 << 20;

/// An object ready to be stored.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub header: EnvelopeHeader,
    /// The envelope's bytes.
    pub envelope: Bytes,
    /// The compressed body.
    pub body: Bytes,
}

/// A compressed body that waits for what its envelope says.
#[derive(Debug)]
pub struct Compressed {
    plain: SizedDigest,
    body: Bytes,
    frames: Vec<u64>,
}

impl Compressed {
    /// For content of this size and digest, in one frame.
    pub fn new(plain: SizedDigest, body: Bytes) -> Self {
        Self {
            plain,
            frames: vec![body.len() as u64],
            body,
        }
    }

    /// Stored bytes of each frame.
    pub fn frames(&self) -> &[u64] {
        &self.frames
    }

    /// The object.
    pub fn seal(self, kind: &str, about: &impl Serialize) -> Sealed {
        let (stored, about) = (SizedDigest::of(&self.body), About::of(about));
        let header = EnvelopeHeader {
            format: 1,
            kind: kind.into(),
            codec: CODEC_ZSTD.into(),
            plain: self.plain,
            stored,
            about,
        };
        Sealed {
            envelope: Envelope::render(&header),
            header,
            body: self.body,
        }
    }
}

/// An object is not what its header says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the object is damaged: {0}")]
pub struct Damaged(pub String);

/// Seals objects one after the other; its contexts and buffers serve again.
pub struct Sealer {
    context: CCtx<'static>,
    chunk: Vec<u8>,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// Buffers of bodies that a sealer keeps: one that is filled while the other is stored.
const SPARE: usize = 2;
/// Longer ones are given back at once: few segments compress so badly.
const LONGEST_SPARE: usize = 4 << 20;

/// A body whose buffer goes back to its sealer: the kernel takes 2 ms to clear new memory for a segment's.
struct Lent {
    body: Vec<u8>,
    to: Weak<Mutex<Vec<Vec<u8>>>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(spare) = self.to.upgrade() else {
            return;
        };
        let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE && self.body.capacity() <= LONGEST_SPARE {
            spare.push(std::mem::take(&mut self.body));
        }
    }
}

impl Sealer {
    /// For zstd level `level`.
    pub fn new(level: i32) -> io::Result<Self> {
        let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        let mut set = |parameter| context.set_parameter(parameter).map_err(zstd_error);
        set(CParameter::CompressionLevel(level))?;
        set(CParameter::ChecksumFlag(true))?;
        if level == 3 {
            // Level 3 brings tables of 512 and 256 KiB, which crowd a core's caches. With 64 and 16 KiB it takes 28 to
            // 34 % less time on WAL and compresses no worse (6.93 : 1 for 6.90, 2.95 for 2.89), whether full-page
            // images or rows make most of it. The other levels gain nothing that way.
            set(CParameter::WindowLog(20))?;
            set(CParameter::HashLog(14))?;
            set(CParameter::ChainLog(12))?;
        }
        Ok(Self {
            context,
            chunk: vec![0; CHUNK],
            spare: Arc::default(),
        })
    }

    /// Reads `source` to its end once; digests and compresses it, each `frame` bytes as a frame of their own, which can
    /// be opened without the others. `plain_size` must be its length.
    pub fn compress(
        &mut self,
        source: &mut dyn Read,
        plain_size: u64,
        frame: u64,
    ) -> io::Result<Compressed> {
        let (mut hasher, mut frames, mut size) = (Hasher::default(), Vec::new(), 0);
        let mut body = self
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default();
        body.clear();
        loop {
            let (begin, expected) = (body.len(), frame.min(plain_size - size));
            let read = self.frame(source, expected, &mut hasher, &mut body)?;
            size += read;
            if read < expected {
                return Err(other_length(size, "", plain_size));
            }
            frames.push((body.len() - begin) as u64);
            if size == plain_size {
                break;
            }
        }
        if read(source, &mut [0])? > 0 {
            return Err(other_length(size + 1, " or more", plain_size));
        }
        if body.capacity() > LONGEST_SPARE {
            body.shrink_to_fit();
        }
        let body = Bytes::from_owner(Lent {
            body,
            to: Arc::downgrade(&self.spare),
        });
        Ok(Compressed {
            plain: SizedDigest {
                size,
                digest: hasher.finish(),
            },
            body,
            frames,
        })
    }

    /// Adds a frame of `plain_size` bytes to `body`; says how many bytes there were, if fewer.
    fn frame(
        &mut self,
        source: &mut dyn Read,
        plain_size: u64,
        hasher: &mut Hasher,
        body: &mut Vec<u8>,
    ) -> io::Result<u64> {
        self.context
            .reset(ResetDirective::SessionOnly)
            .map_err(zstd_error)?;
        self.context
            .set_pledged_src_size(Some(plain_size))
            .map_err(zstd_error)?;
        let mut size = 0;
        while size < plain_size {
            let most = (CHUNK as u64).min(plain_size - size) as usize;
            let chunk = match read(source, &mut self.chunk[..most])? {
                0 => return Ok(size),
                read => &self.chunk[..read],
            };
            size += chunk.len() as u64;
            hasher.update(chunk);
            compress(
                &mut self.context,
                chunk,
                body,
                ZSTD_EndDirective::ZSTD_e_continue,
            )?;
        }
        compress(&mut self.context, &[], body, ZSTD_EndDirective::ZSTD_e_end)?;
        Ok(size)
    }
}

fn read(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => return other,
        }
    }
}

fn other_length(size: u64, more: &str, expected: u64) -> io::Error {
    io::Error::other(format!(
        "{size} bytes{more} were read where {expected} were expected"
    ))
}

/// Bytes of memory that sealing `plain_size` bytes takes at most, besides the [`Sealer`] itself.
pub fn sealed_bound(plain_size: u64) -> u64 {
    plain_size + plain_size / 256 + 2 * GROWTH as u64
}

/// Bytes that an object with so much content has at most, its envelope included.
pub fn object_bound(plain_size: u64) -> u64 {
    sealed_bound(plain_size) + LONGEST_ENVELOPE
}

/// Takes all of `input` in; at the end, puts all of the rest out.
fn compress(
    context: &mut CCtx,
    input: &[u8],
    body: &mut Vec<u8>,
    directive: ZSTD_EndDirective,
) -> io::Result<()> {
    let mut input = InBuffer::around(input);
    loop {
        if body.capacity() - body.len() < CHUNK {
            body.reserve_exact(GROWTH);
        }
        let at = body.len();
        let mut output = OutBuffer::around_pos(body, at);
        let rest = context
            .compress_stream2(&mut output, &mut input, directive)
            .map_err(zstd_error)?;
        let taken = input.pos() == input.src.len();
        if taken && (rest == 0 || directive == ZSTD_EndDirective::ZSTD_e_continue) {
            return Ok(());
        }
    }
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(zstd_safe::get_error_name(code))
}

/// Seals one object in one frame: see [`Sealer::compress`].
pub fn seal(
    kind: &str,
    about: &impl Serialize,
    source: &mut dyn Read,
    plain_size: u64,
    level: i32,
) -> io::Result<Sealed> {
    Ok(Sealer::new(level)?
        .compress(source, plain_size, plain_size)?
        .seal(kind, about))
}

/// How much is verified while an object is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyLevel {
    /// The digest of the stored bytes, and zstd's checksum of the content: what was stored is what is here. WAL is many
    /// times as long before it was compressed, and replay waits.
    Stored,
    /// The digest of the content, too.
    Content,
}

/// Hands over the content of zstd frames, piece by piece, until `each` says false.
fn decompress(
    body: &[u8],
    mut each: impl FnMut(&[u8]) -> io::Result<bool>,
) -> io::Result<Result<(), Damaged>> {
    let mut context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    let (mut input, mut chunk) = (InBuffer::around(body), vec![0; CHUNK]);
    loop {
        let mut output = OutBuffer::around(chunk.as_mut_slice());
        let rest = match context.decompress_stream(&mut output, &mut input) {
            Ok(rest) => rest,
            Err(code) => {
                return Ok(Err(Damaged(format!(
                    "it does not decompress: {}",
                    zstd_error(code)
                ))));
            }
        };
        let piece = output.as_slice();
        if !each(piece)? {
            return Ok(Ok(()));
        }
        if input.pos() == input.src.len() {
            match rest {
                0 => return Ok(Ok(())),
                _ if piece.len() < CHUNK => {
                    return Ok(Err(Damaged("its last zstd frame has no end".into())));
                }
                _ => (),
            }
        }
    }
}

/// Writes the content of `body`, of which `header` tells, to `sink`, verified. On an error `sink` holds bytes that must not
/// be used.
pub fn unseal(
    header: &EnvelopeHeader,
    body: &[u8],
    check: VerifyLevel,
    sink: &mut dyn Write,
) -> io::Result<Result<(), Damaged>> {
    let (plain, stored) = (header.plain, header.stored);
    if body.len() as u64 != stored.size {
        let found = body.len();
        return Ok(Err(Damaged(format!(
            "its body has {found} bytes where its header says {}",
            stored.size
        ))));
    }
    let found = Digest::of(body);
    if found != stored.digest {
        return Ok(Err(Damaged(format!(
            "its body has digest {found} where its header says {}",
            stored.digest
        ))));
    }
    let mut hasher = (check == VerifyLevel::Content).then(Hasher::default);
    let mut size = 0;
    let decompressed = decompress(body, |piece| {
        size += piece.len() as u64;
        if size > plain.size {
            return Ok(false);
        }
        hasher.iter_mut().for_each(|hasher| hasher.update(piece));
        sink.write_all(piece).map(|()| true)
    });
    if let Err(damaged) = decompressed? {
        return Ok(Err(damaged));
    }
    if size != plain.size {
        let more = if size > plain.size { " or more" } else { "" };
        return Ok(Err(Damaged(format!(
            "it holds {size} bytes{more} where its header says {}",
            plain.size
        ))));
    }
    if let Some(found) = hasher.map(Hasher::finish)
        && found != plain.digest
    {
        return Ok(Err(Damaged(format!(
            "its content has digest {found} where its header says {}",
            plain.digest
        ))));
    }
    Ok(Ok(()))
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
