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
        Self { plain, frames: vec![body.len() as u64], body }
    }

    /// Stored bytes of each frame.
    pub fn frames(&self) -> &[u64] {
        &self.frames
    }

    /// The object.
    pub fn seal(self, kind: &str, about: &impl Serialize) -> Sealed {
        let (stored, about) = (SizedDigest::of(&self.body), About::of(about));
        let header =
            EnvelopeHeader { format: 1, kind: kind.into(), codec: CODEC_ZSTD.into(), plain: self.plain, stored, about };
        Sealed { envelope: Envelope::render(&header), header, body: self.body }
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
        let Some(spare) = self.to.upgrade() else { return };
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
        Ok(Self { context, chunk: vec![0; CHUNK], spare: Arc::default() })
    }

    /// Reads `source` to its end once; digests and compresses it, each `frame` bytes as a frame of their own, which can
    /// be opened without the others. `plain_size` must be its length.
    pub fn compress(&mut self, source: &mut dyn Read, plain_size: u64, frame: u64) -> io::Result<Compressed> {
        let (mut hasher, mut frames, mut size) = (Hasher::default(), Vec::new(), 0);
        let mut body = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
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
        let body = Bytes::from_owner(Lent { body, to: Arc::downgrade(&self.spare) });
        Ok(Compressed { plain: SizedDigest { size, digest: hasher.finish() }, body, frames })
    }

    /// Adds a frame of `plain_size` bytes to `body`; says how many bytes there were, if fewer.
    fn frame(
        &mut self,
        source: &mut dyn Read,
        plain_size: u64,
        hasher: &mut Hasher,
        body: &mut Vec<u8>,
    ) -> io::Result<u64> {
        self.context.reset(ResetDirective::SessionOnly).map_err(zstd_error)?;
        self.context.set_pledged_src_size(Some(plain_size)).map_err(zstd_error)?;
        let mut size = 0;
        while size < plain_size {
            let most = (CHUNK as u64).min(plain_size - size) as usize;
            let chunk = match read(source, &mut self.chunk[..most])? {
                0 => return Ok(size),
                read => &self.chunk[..read],
            };
            size += chunk.len() as u64;
            hasher.update(chunk);
            compress(&mut self.context, chunk, body, ZSTD_EndDirective::ZSTD_e_continue)?;
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
    io::Error::other(format!("{size} bytes{more} were read where {expected} were expected"))
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
fn compress(context: &mut CCtx, input: &[u8], body: &mut Vec<u8>, directive: ZSTD_EndDirective) -> io::Result<()> {
    let mut input = InBuffer::around(input);
    loop {
        if body.capacity() - body.len() < CHUNK {
            body.reserve_exact(GROWTH);
        }
        let at = body.len();
        let mut output = OutBuffer::around_pos(body, at);
        let rest = context.compress_stream2(&mut output, &mut input, directive).map_err(zstd_error)?;
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
    Ok(Sealer::new(level)?.compress(source, plain_size, plain_size)?.seal(kind, about))
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
fn decompress(body: &[u8], mut each: impl FnMut(&[u8]) -> io::Result<bool>) -> io::Result<Result<(), Damaged>> {
    let mut context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    let (mut input, mut chunk) = (InBuffer::around(body), vec![0; CHUNK]);
    loop {
        let mut output = OutBuffer::around(chunk.as_mut_slice());
        let rest = match context.decompress_stream(&mut output, &mut input) {
            Ok(rest) => rest,
            Err(code) => return Ok(Err(Damaged(format!("it does not decompress: {}", zstd_error(code))))),
        };
        let piece = output.as_slice();
        if !each(piece)? {
            return Ok(Ok(()));
        }
        if input.pos() == input.src.len() {
            match rest {
                0 => return Ok(Ok(())),
                _ if piece.len() < CHUNK => return Ok(Err(Damaged("its last zstd frame has no end".into()))),
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
        return Ok(Err(Damaged(format!("its body has {found} bytes where its header says {}", stored.size))));
    }
    let found = Digest::of(body);
    if found != stored.digest {
        return Ok(Err(Damaged(format!("its body has digest {found} where its header says {}", stored.digest))));
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
        return Ok(Err(Damaged(format!("it holds {size} bytes{more} where its header says {}", plain.size))));
    }
    if let Some(found) = hasher.map(Hasher::finish)
        && found != plain.digest
    {
        return Ok(Err(Damaged(format!("its content has digest {found} where its header says {}", plain.digest))));
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{FrameDecompressor, SealedWriter};
    use proptest::prelude::*;

    /// Opens a whole object.
    fn open(kind: &str, object: &[u8], check: VerifyLevel, sink: &mut Vec<u8>) -> Result<(), Damaged> {
        let Envelope { header, len } = Envelope::of_whole(kind, object).map_err(|error| Damaged(error.to_string()))?;
        unseal(&header, &object[len as usize..], check, sink).unwrap()
    }

    fn sealed(content: &[u8]) -> Vec<u8> {
        let about = serde_json::json!({});
        let sealed = seal("test", &about, &mut &content[..], content.len() as u64, 1).unwrap();
        [sealed.envelope, sealed.body].concat()
    }

    fn content() -> Vec<u8> {
        (0..600_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    #[test]
    fn what_was_sealed_opens() {
        for content in [content(), Vec::new(), vec![0; CHUNK], vec![1; CHUNK + 1]] {
            let mut opened = Vec::new();
            open("test", &sealed(&content), VerifyLevel::Content, &mut opened).unwrap();
            assert!(opened == content);
        }
    }

    #[test]
    fn a_sealer_serves_again_also_after_an_error() {
        for level in [-5, 1, 3] {
            let mut sealer = Sealer::new(level).unwrap();
            assert!(sealer.compress(&mut &b"abc"[..], 9, 9).is_err());
            let content = content();
            let again: Vec<Vec<u8>> = (0..2)
                .map(|_| sealer.compress(&mut &content[..], content.len() as u64, u64::MAX).unwrap())
                .map(|compressed| compressed.seal("test", &serde_json::json!({})))
                .map(|sealed| [sealed.envelope, sealed.body].concat())
                .collect();
            assert_eq!(again[0], again[1]);
            assert!(zstd::decode_all(&again[0][..]).unwrap() == content);
        }
    }

    #[test]
    fn a_body_gives_its_buffer_back_when_nobody_holds_it() {
        let mut sealer = Sealer::new(1).unwrap();
        let content = content();
        let mut compress = || sealer.compress(&mut &content[..], content.len() as u64, u64::MAX).unwrap();
        let (first, second) = (compress(), compress());
        let places = [first.body.as_ptr(), second.body.as_ptr()];
        let kept = first.body.clone();
        drop((first, second));
        let third = compress();
        assert_eq!(third.body.as_ptr(), places[1]);
        assert!(third.body == kept, "what is still held is not written over");
        drop(sealer);
        assert!(third.body == kept);
    }

    #[test]
    fn random_bytes_survive() {
        let mut content = vec![0; 3 << 20];
        getrandom::fill(&mut content).unwrap();
        for frame in [3 << 20, CHUNK] {
            let mut opened = Vec::new();
            let object = in_frames(&content, frame).1;
            assert!((object.len() as u64) < sealed_bound(content.len() as u64));
            open("test", &object, VerifyLevel::Content, &mut opened).unwrap();
            assert!(opened == content);
        }
    }

    /// The frames' stored lengths, and the object.
    fn in_frames(content: &[u8], frame: usize) -> (Vec<u64>, Vec<u8>) {
        let compressed =
            Sealer::new(1).unwrap().compress(&mut &content[..], content.len() as u64, frame as u64).unwrap();
        let frames = compressed.frames().to_vec();
        let sealed = compressed.seal("test", &serde_json::json!({}));
        (frames, [sealed.envelope, sealed.body].concat())
    }

    #[test]
    fn frames_open_together_and_each_by_itself() {
        let content = content();
        for frame in [CHUNK - 1, CHUNK, CHUNK + 1, content.len() / 8, content.len(), usize::MAX] {
            let (frames, object) = in_frames(&content, frame);
            assert_eq!(frames.len(), content.len().div_ceil(frame));
            assert!(zstd::decode_all(&object[..]).unwrap() == content);
            let mut opened = Vec::new();
            open("test", &object, VerifyLevel::Content, &mut opened).unwrap();
            assert!(opened == content);
            let mut decompressor = FrameDecompressor::new().unwrap();
            let mut body = &object[Envelope::of_whole("test", &object).unwrap().len as usize..];
            for (length, plain) in frames.iter().zip(content.chunks(frame)) {
                let (stored, rest) = body.split_at(*length as usize);
                decompressor.decompress(stored, frame, &mut opened).unwrap();
                assert!(opened == plain);
                body = rest;
            }
            assert!(body.is_empty());
        }
    }

    #[test]
    fn plain_zstd_opens_it_too() {
        assert!(zstd::decode_all(&sealed(&content())[..]).unwrap() == content());
    }

    #[test]
    fn what_was_written_piece_by_piece_opens() {
        let mut sealer = SealedWriter::new(3).unwrap();
        content().chunks(1000).for_each(|piece| sealer.write_all(piece).unwrap());
        let sealed = sealer.finish("test", &serde_json::json!({})).unwrap();
        let mut opened = Vec::new();
        open("test", &[sealed.envelope, sealed.body].concat(), VerifyLevel::Content, &mut opened).unwrap();
        assert!(opened == content());
    }

    #[test]
    fn a_source_of_another_length_is_an_error() {
        let about = serde_json::json!({});
        assert!(seal("test", &about, &mut &b"abc"[..], 4, 1).is_err());
        assert!(seal("test", &about, &mut &b"abc"[..], 2, 1).is_err());
        for size in [2, 4, 5, 6] {
            assert!(Sealer::new(1).unwrap().compress(&mut &b"abc"[..], size, 2).is_err(), "{size}");
        }
    }

    #[test]
    fn content_that_is_not_what_was_sealed_is_told() {
        let whole = sealed(&content());
        let Envelope { header, len } = Envelope::of_whole("test", &whole).unwrap();
        let with = |change: &dyn Fn(&mut EnvelopeHeader), check| {
            let mut header = header.clone();
            change(&mut header);
            let object = [&Envelope::render(&header), &whole[len as usize..]].concat();
            open("test", &object, check, &mut Vec::new())
        };
        let other = |header: &mut EnvelopeHeader| header.plain.digest = Digest::of(b"other");
        assert!(with(&other, VerifyLevel::Stored).is_ok());
        assert!(with(&other, VerifyLevel::Content).unwrap_err().0.contains("digest"));
        for size in [content().len() as u64 - 1, content().len() as u64 + 1] {
            let result = with(&|header: &mut EnvelopeHeader| header.plain.size = size, VerifyLevel::Stored);
            assert!(result.unwrap_err().0.contains("bytes"), "{size}");
        }
    }

    #[test]
    fn another_kind_is_refused() {
        let result = open("other", &sealed(b"x"), VerifyLevel::Stored, &mut Vec::new());
        assert!(result.unwrap_err().0.contains("kind \"test\""));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_flipped_bit_never_passes(place in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut object = sealed(&content());
            let place = place.index(object.len());
            object[place] ^= 1 << bit;
            for check in [VerifyLevel::Stored, VerifyLevel::Content] {
                prop_assert!(open("test", &object, check, &mut Vec::new()).is_err());
            }
        }

        #[test]
        fn a_truncated_object_never_passes(place in any::<prop::sample::Index>()) {
            let object = sealed(&content());
            let place = place.index(object.len());
            prop_assert!(open("test", &object[..place], VerifyLevel::Stored, &mut Vec::new()).is_err());
        }
    }
}
