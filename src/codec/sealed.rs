//! A sealed object: envelope, then one zstd frame. Sealing reads its source once, opening verifies everything.

use std::io::{self, Read, Write};

use bytes::Bytes;

use super::{CODEC_ZSTD, Envelope, EnvelopeError, Hasher, Header, PlainDigest, StoredSize};

/// Bytes read, digested and compressed at a time: they stay in the processor's cache between the steps.
const CHUNK: usize = 256 << 10;

/// An object ready to be stored.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub header: Header,
    /// The envelope's bytes.
    pub envelope: Bytes,
    /// The compressed body.
    pub body: Bytes,
}

/// An object is not what its header says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the object is damaged: {0}")]
pub struct Damaged(pub String);

/// Reads `source` to its end once; digests and compresses it at `level`. `plain_size`, when known, must be right.
pub fn seal(
    kind: &str,
    about: serde_json::Value,
    source: &mut dyn Read,
    plain_size: u64,
    level: i32,
) -> io::Result<Sealed> {
    let mut encoder = zstd::Encoder::new(Vec::with_capacity((plain_size / 4) as usize), level)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(plain_size))?;
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; CHUNK.min(plain_size as usize + 1)];
    let mut size = 0;
    loop {
        let read = match source.read(&mut chunk) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        hasher.update(&chunk[..read]);
        encoder.write_all(&chunk[..read])?;
        size += read as u64;
    }
    if size != plain_size {
        return Err(io::Error::other(format!("{size} bytes were read where {plain_size} were expected")));
    }
    let mut body = encoder.finish()?;
    body.shrink_to_fit();
    let plain = PlainDigest { size, sha256: hasher.finish() };
    let stored = StoredSize { size: body.len() as u64 };
    let header = Header { format: 1, kind: kind.into(), codec: CODEC_ZSTD.into(), plain, stored, about };
    Ok(Sealed { envelope: Envelope::render(&header), header, body: body.into() })
}

/// Seals content that is written piece by piece and whose size is not known before. Holds the compressed body only.
pub struct Sealer {
    encoder: zstd::Encoder<'static, Vec<u8>>,
    hasher: Hasher,
    size: u64,
}

impl Sealer {
    /// An empty body, compressed at `level`.
    pub fn new(level: i32) -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(Vec::new(), level)?;
        encoder.include_checksum(true)?;
        Ok(Self { encoder, hasher: Hasher::default(), size: 0 })
    }

    /// The object of what was written.
    pub fn finish(self, kind: &str, about: serde_json::Value) -> io::Result<Sealed> {
        let body = self.encoder.finish()?;
        let plain = PlainDigest { size: self.size, sha256: self.hasher.finish() };
        let stored = StoredSize { size: body.len() as u64 };
        let header = Header { format: 1, kind: kind.into(), codec: CODEC_ZSTD.into(), plain, stored, about };
        Ok(Sealed { envelope: Envelope::render(&header), header, body: body.into() })
    }
}

impl Write for Sealer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The envelope of a whole object, after checking that kind and lengths are as they must be.
pub fn open_envelope(kind: &str, object: &[u8]) -> Result<Envelope, Damaged> {
    let envelope = match Envelope::parse(object) {
        Ok(envelope) => envelope,
        Err(EnvelopeError::TooShort { needed, got }) => {
            return Err(Damaged(format!("it ends after {got} bytes, within its header of {needed} bytes")));
        }
        Err(other) => return Err(Damaged(other.to_string())),
    };
    let header = &envelope.header;
    if header.kind != kind {
        return Err(Damaged(format!("it is of kind \"{}\", not \"{kind}\"", header.kind)));
    }
    if header.codec != CODEC_ZSTD {
        return Err(Damaged(format!("its codec \"{}\" is not known", header.codec)));
    }
    let found = object.len() as u64 - envelope.len;
    if found != header.stored.size {
        return Err(Damaged(format!("its body has {found} bytes where its header says {}", header.stored.size)));
    }
    Ok(envelope)
}

/// Writes the content of a whole object to `sink`; size and digest are verified. On an error `sink` holds bytes that
/// must not be used.
pub fn unseal(kind: &str, object: &[u8], sink: &mut dyn Write) -> io::Result<Result<Header, Damaged>> {
    let envelope = match open_envelope(kind, object) {
        Ok(envelope) => envelope,
        Err(damaged) => return Ok(Err(damaged)),
    };
    let plain = envelope.header.plain;
    let mut decoder = zstd::Decoder::with_buffer(&object[envelope.len as usize..])?;
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let read = match decoder.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => return Ok(Err(Damaged(format!("it does not decompress: {error}")))),
        };
        size += read as u64;
        if size > plain.size {
            break;
        }
        hasher.update(&chunk[..read]);
        sink.write_all(&chunk[..read])?;
    }
    if size != plain.size {
        return Ok(Err(Damaged(format!("its content does not have the {} bytes its header says", plain.size))));
    }
    let found = hasher.finish();
    if found != plain.sha256 {
        return Ok(Err(Damaged(format!("its content has sha256 {found} where its header says {}", plain.sha256))));
    }
    Ok(Ok(envelope.header))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(content: &[u8]) -> Vec<u8> {
        let about = serde_json::json!({});
        let sealed = seal("test", about, &mut &content[..], content.len() as u64, 1).unwrap();
        [sealed.envelope, sealed.body].concat()
    }

    fn content() -> Vec<u8> {
        (0..600_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    #[test]
    fn what_was_sealed_opens() {
        for content in [content(), Vec::new(), vec![0; CHUNK], vec![1; CHUNK + 1]] {
            let mut opened = Vec::new();
            unseal("test", &sealed(&content), &mut opened).unwrap().unwrap();
            assert!(opened == content);
        }
    }

    #[test]
    fn plain_zstd_opens_it_too() {
        assert!(zstd::decode_all(&sealed(&content())[..]).unwrap() == content());
    }

    #[test]
    fn what_was_written_piece_by_piece_opens() {
        let mut sealer = Sealer::new(3).unwrap();
        content().chunks(1000).for_each(|piece| sealer.write_all(piece).unwrap());
        let sealed = sealer.finish("test", serde_json::json!({})).unwrap();
        let mut opened = Vec::new();
        unseal("test", &[sealed.envelope, sealed.body].concat(), &mut opened).unwrap().unwrap();
        assert!(opened == content());
    }

    #[test]
    fn a_source_of_another_length_is_an_error() {
        let about = serde_json::json!({});
        assert!(seal("test", about.clone(), &mut &b"abc"[..], 4, 1).is_err());
        assert!(seal("test", about, &mut &b"abc"[..], 2, 1).is_err());
    }

    #[test]
    fn another_kind_is_refused() {
        let result = unseal("other", &sealed(b"x"), &mut Vec::new()).unwrap();
        assert!(result.unwrap_err().0.contains("kind \"test\""));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_flipped_bit_never_passes(place in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut object = sealed(&content());
            let place = place.index(object.len());
            object[place] ^= 1 << bit;
            let mut opened = Vec::new();
            prop_assert!(unseal("test", &object, &mut opened).unwrap().is_err());
        }

        #[test]
        fn a_truncated_object_never_passes(place in any::<prop::sample::Index>()) {
            let object = sealed(&content());
            let place = place.index(object.len());
            prop_assert!(unseal("test", &object[..place], &mut Vec::new()).unwrap().is_err());
        }
    }
}
