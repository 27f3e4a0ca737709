//! The envelope: a zstd skippable frame in front of an object's body that says what the body is
//! (docs/repository-format.md). `zstd -d` skips it.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::Digest;

/// Magic of the skippable frame (zstd format: 0x184D2A50 to 0x184D2A5F are skipped by every decoder).
const SKIPPABLE_MAGIC: u32 = 0x184D_2A57;
/// What the frame's content begins with; the digits are the envelope's own version.
const ENVELOPE_MAGIC: &[u8; 8] = b"WALDEN01";
/// Skippable magic, frame length, envelope magic, header length, header CRC-32C.
const PREFIX_LEN: usize = 24;
/// A header longer than this is taken for damage.
const MAX_HEADER_LEN: usize = 16 << 20;
/// Bytes of an envelope at most.
pub(super) const LONGEST_ENVELOPE: u64 = (PREFIX_LEN + MAX_HEADER_LEN) as u64;

/// The body is zstd frames.
pub const CODEC_ZSTD: &str = "zstd";

/// Size and digest of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizedDigest {
    /// Bytes.
    pub size: u64,
    pub digest: Digest,
}

impl SizedDigest {
    /// Of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { size: bytes.len() as u64, digest: Digest::of(bytes) }
    }
}

/// What the envelope tells. Unknown members are kept out of the way of older readers: they are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the header, 1.
    pub format: u32,
    /// What the object is, such as `wal` or `backup`.
    pub kind: String,
    /// How the body is written: [`CODEC_ZSTD`].
    pub codec: String,
    /// The content, before compression.
    pub plain: SizedDigest,
    /// The body as it lies in the object, after the envelope.
    pub stored: SizedDigest,
    pub about: About,
}

/// Facts that the kind defines: JSON, not read until it is known as what. Headers of WAL are read for each answer, and
/// long.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct About(Box<RawValue>);

impl About {
    /// Of plain data with text keys.
    pub fn of(facts: &(impl Serialize + ?Sized)) -> Self {
        Self(to_raw_value(facts).expect("facts are plain data with text keys"))
    }

    /// The facts. Errors: they are of another form.
    pub fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.0.get())
    }
}

/// By the text.
impl PartialEq for About {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for About {}

/// A header and its place in the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub header: Header,
    /// Bytes of the envelope: where the body begins.
    pub len: u64,
}

/// Why bytes are no envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// More of the object's beginning is needed.
    #[error("the object's header has {needed} bytes, only {got} are there")]
    TooShort { needed: usize, got: usize },
    /// Not written by Walden, or damaged.
    #[error("the object's header is damaged: {0}")]
    Damaged(String),
    /// A later Walden wrote it.
    #[error("the object's header has format {0}, this Walden knows format 1")]
    Newer(u32),
}

impl Envelope {
    /// The envelope's bytes for `header`.
    pub fn render(header: &Header) -> Bytes {
        let json = serde_json::to_vec(header).expect("a header is plain data with text keys");
        let mut bytes = Vec::with_capacity(PREFIX_LEN + json.len());
        bytes.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        bytes.extend_from_slice(&((PREFIX_LEN - 8 + json.len()) as u32).to_le_bytes());
        bytes.extend_from_slice(ENVELOPE_MAGIC);
        bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&json).to_le_bytes());
        bytes.extend_from_slice(&json);
        bytes.into()
    }

    /// Reads an object's beginning. [`EnvelopeError::TooShort`] says how many bytes to come back with.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let damaged = |why: &str| EnvelopeError::Damaged(why.to_string());
        let too_short = |needed| EnvelopeError::TooShort { needed, got: bytes.len() };
        if bytes.len() < PREFIX_LEN {
            return Err(too_short(PREFIX_LEN));
        }
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if u32_at(0) != SKIPPABLE_MAGIC || bytes[8..14] != ENVELOPE_MAGIC[..6] {
            return Err(damaged("it does not begin as Walden's objects do"));
        }
        let version = std::str::from_utf8(&bytes[14..16]).ok().and_then(|digits| digits.parse().ok());
        match version.ok_or_else(|| damaged("its version is no number"))? {
            1 => (),
            newer => return Err(EnvelopeError::Newer(newer)),
        }
        let json_len = u32_at(16) as usize;
        if json_len > MAX_HEADER_LEN || u32_at(4) as usize != PREFIX_LEN - 8 + json_len {
            return Err(damaged("its lengths contradict each other"));
        }
        let json = bytes.get(PREFIX_LEN..PREFIX_LEN + json_len).ok_or_else(|| too_short(PREFIX_LEN + json_len))?;
        if crc32c::crc32c(json) != u32_at(20) {
            return Err(damaged("its checksum does not match"));
        }
        let header: Header = serde_json::from_slice(json).map_err(|error| EnvelopeError::Damaged(error.to_string()))?;
        match header.format {
            1 => Ok(Self { header, len: (PREFIX_LEN + json_len) as u64 }),
            newer => Err(EnvelopeError::Newer(newer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            format: 1,
            kind: "wal".into(),
            codec: CODEC_ZSTD.into(),
            plain: SizedDigest { size: 3, digest: Digest::of(b"abc") },
            stored: SizedDigest::of(b"twelve bytes"),
            about: About::of(&serde_json::json!({"name": "000000010000000000000001"})),
        }
    }

    #[test]
    fn an_envelope_reads_back_and_says_how_much_it_needs() {
        let bytes = Envelope::render(&header());
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!((envelope.header, envelope.len), (header(), bytes.len() as u64));
        let needed = match Envelope::parse(&bytes[..30]) {
            Err(EnvelopeError::TooShort { needed, got: 30 }) => needed,
            other => panic!("{other:?}"),
        };
        assert_eq!(needed, bytes.len());
    }

    #[test]
    fn a_newer_envelope_is_told_apart_from_damage() {
        let mut bytes = Envelope::render(&header()).to_vec();
        bytes[15] = b'2';
        assert_eq!(Envelope::parse(&bytes), Err(EnvelopeError::Newer(2)));
        let newer = Header { format: 7, ..header() };
        assert_eq!(Envelope::parse(&Envelope::render(&newer)), Err(EnvelopeError::Newer(7)));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_passes(bit in 0usize..8 * 200) {
            let mut bytes = Envelope::render(&header()).to_vec();
            prop_assume!(bit / 8 < bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Envelope::parse(&bytes).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::parse(&bytes);
        }
    }
}
