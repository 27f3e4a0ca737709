//! Bytes in, bytes out: digests, compression and the envelope that begins every stored object. No PostgreSQL, no I/O
//! beyond `Read` and `Write`.
//!
//! What is written here opens with `zstd -d`. A reader checks the header's CRC, the digest and zstd's checksum, and a newer
//! format is an error of its own.

mod digest;
mod envelope;
mod frame;
mod sealed;
mod sealed_writer;

pub use digest::{Digest, Hasher};
pub use envelope::{About, CODEC_ZSTD, Envelope, EnvelopeError, EnvelopeHeader, SizedDigest};
pub use frame::{FrameCompressor, FrameDecompressor, frame_length};
pub use sealed::{
    Compressed, Damaged, Sealed, Sealer, VerifyLevel, object_bound, seal, sealed_bound, unseal,
};
pub use sealed_writer::SealedWriter;
