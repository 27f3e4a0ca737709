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
    /// Measures and digests `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            size: bytes.len() as u64,
            digest: Digest::of(bytes),
        }
    }
}

/// What the envelope tells. Unknown members are kept out of the way of older readers: they are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeHeader {
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

impl EnvelopeHeader {
    fn is_known(&self) -> bool {
        self.format == 1 && self.codec == CODEC_ZSTD
    }
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
    pub header: EnvelopeHeader,
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
    #[error("{0}")]
    Damaged(String),
    /// A later Walden wrote it: what it has that this one does not know.
    #[error("the object has {0}, which this Walden does not know")]
    Newer(String),
}

impl Envelope {
    /// The envelope's bytes for `header`.
    pub fn render(header: &EnvelopeHeader) -> Bytes {
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
        let too_short = |needed| EnvelopeError::TooShort {
            needed,
            got: bytes.len(),
        };
        if bytes.len() < PREFIX_LEN {
            return Err(too_short(PREFIX_LEN));
        }
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if u32_at(0) != SKIPPABLE_MAGIC || bytes[8..14] != ENVELOPE_MAGIC[..6] {
            return Err(damaged("it does not begin as Walden's objects do"));
        }
        let version = std::str::from_utf8(&bytes[14..16])
            .ok()
            .and_then(|digits| digits.parse().ok());
        match version.ok_or_else(|| damaged("the version of its envelope is no number"))? {
            1 => (),
            newer => {
                return Err(EnvelopeError::Newer(format!(
                    "an envelope of version {newer}"
                )));
            }
        }
        let json_len = u32_at(16) as usize;
        if json_len > MAX_HEADER_LEN || u32_at(4) as usize != PREFIX_LEN - 8 + json_len {
            return Err(damaged("the lengths in its envelope contradict each other"));
        }
        let json = bytes
            .get(PREFIX_LEN..PREFIX_LEN + json_len)
            .ok_or_else(|| too_short(PREFIX_LEN + json_len))?;
        if crc32c::crc32c(json) != u32_at(20) {
            return Err(damaged(
                "its header does not have the checksum noted for it",
            ));
        }
        match serde_json::from_slice(json)
            .ok()
            .filter(EnvelopeHeader::is_known)
        {
            Some(header) => Ok(Self {
                header,
                len: (PREFIX_LEN + json_len) as u64,
            }),
            None => Err(unknown(json)),
        }
    }

    /// The envelope of a whole object, which must be of this kind; its body has the length that is noted for it.
    pub fn of_whole(kind: &str, object: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope = match Self::parse(object) {
            Err(EnvelopeError::TooShort { needed, got }) => {
                let why = format!("it ends after {got} bytes, within its header of {needed} bytes");
                return Err(EnvelopeError::Damaged(why));
            }
            parsed => parsed?.of_kind(kind)?,
        };
        let (found, noted) = (
            object.len() as u64 - envelope.len,
            envelope.header.stored.size,
        );
        match found == noted {
            true => Ok(envelope),
            false => Err(EnvelopeError::Damaged(format!(
                "its body has {found} bytes where its header says {noted}"
            ))),
        }
    }

    /// Itself, if its object is of this kind.
    pub fn of_kind(self, kind: &str) -> Result<Self, EnvelopeError> {
        match self.header.kind == kind {
            true => Ok(self),
            false => Err(EnvelopeError::Damaged(format!(
                "it is of kind \"{}\", not \"{kind}\"",
                self.header.kind
            ))),
        }
    }
}

/// What keeps a header, whose checksum is right, from being understood.
fn unknown(json: &[u8]) -> EnvelopeError {
    #[derive(Deserialize)]
    struct Any {
        format: u32,
        codec: String,
        plain: AnyDigest,
        stored: AnyDigest,
    }
    #[derive(Deserialize)]
    struct AnyDigest {
        digest: String,
    }
    let newer = |what| EnvelopeError::Newer(what);
    // Of a later format nothing but its number has to be as it is here.
    let format = serde_json::from_slice::<serde_json::Value>(json)
        .ok()
        .and_then(|header| header["format"].as_u64());
    match (format, serde_json::from_slice::<Any>(json)) {
        (Some(format), _) if format > 1 => newer(format!("a header of format {format}")),
        (_, Ok(any)) if any.format == 1 && any.codec != CODEC_ZSTD => {
            newer(format!("the codec \"{}\"", any.codec))
        }
        (_, Ok(any)) => match [any.plain, any.stored]
            .into_iter()
            .find(|any| any.digest.parse::<Digest>().is_err())
        {
            Some(AnyDigest { digest }) => newer(format!("the digest \"{digest}\"")),
            None => EnvelopeError::Damaged("its header is not understood".into()),
        },
        (_, Err(error)) => EnvelopeError::Damaged(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> EnvelopeHeader {
        EnvelopeHeader {
            format: 1,
            kind: "wal".into(),
            codec: CODEC_ZSTD.into(),
            plain: SizedDigest {
                size: 3,
                digest: Digest::of(b"abc"),
            },
            stored: SizedDigest::of(b"twelve bytes"),
            about: About::of(&serde_json::json!({"name": "000000010000000000000001"})),
        }
    }

    #[test]
    fn an_envelope_reads_back_and_says_how_much_it_needs() {
        let bytes = Envelope::render(&header());
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!(
            (envelope.header, envelope.len),
            (header(), bytes.len() as u64)
        );
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
        let newer = |bytes: &[u8]| match Envelope::parse(bytes) {
            Err(EnvelopeError::Newer(what)) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(newer(&bytes), "an envelope of version 2");
        let rendered = |header: &EnvelopeHeader| Envelope::render(header);
        assert_eq!(
            newer(&rendered(&EnvelopeHeader {
                format: 7,
                ..header()
            })),
            "a header of format 7"
        );
        assert_eq!(
            newer(&rendered(&EnvelopeHeader {
                codec: "age+zstd".into(),
                ..header()
            })),
            "the codec \"age+zstd\""
        );
        let mut json = serde_json::to_value(header()).unwrap();
        json["stored"]["digest"] = "blake4:00".into();
        assert_eq!(
            unknown(json.to_string().as_bytes()),
            EnvelopeError::Newer("the digest \"blake4:00\"".into())
        );
        let other = br#"{"format": 2, "shape": "unknown"}"#;
        assert_eq!(
            unknown(other),
            EnvelopeError::Newer("a header of format 2".into())
        );
        assert!(matches!(
            unknown(br#"{"format": 1}"#),
            EnvelopeError::Damaged(_)
        ));
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
