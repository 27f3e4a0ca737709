use std::io::{self, Write};

use serde::Serialize;

use super::{Compressed, Hasher, Sealed, SizedDigest};

/// Seals content that is written piece by piece and whose size is not known before. Holds the compressed body only.
pub struct SealedWriter {
    encoder: zstd::Encoder<'static, Vec<u8>>,
    hasher: Hasher,
    size: u64,
}

impl SealedWriter {
    /// An empty body, compressed at `level`.
    pub fn new(level: i32) -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(Vec::new(), level)?;
        encoder.include_checksum(true)?;
        Ok(Self {
            encoder,
            hasher: Hasher::default(),
            size: 0,
        })
    }

    /// Bytes written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The object of what was written.
    pub fn finish(self, kind: &str, about: &impl Serialize) -> io::Result<Sealed> {
        let body = self.encoder.finish()?;
        let plain = SizedDigest {
            size: self.size,
            digest: self.hasher.finish(),
        };
        Ok(Compressed::new(plain, body.into()).seal(kind, about))
    }
}

impl Write for SealedWriter {
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
