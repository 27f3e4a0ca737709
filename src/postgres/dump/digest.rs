//! Digests that other programs check: `sha256sum`, `md5sum`.

use std::fmt;
use std::str::FromStr;

use sha2::Digest;

use crate::postgres::types::ParseError;

/// A digest; in text lower case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex<const N: usize>(pub [u8; N]);

pub type Sha256 = Hex<32>;
pub type Md5 = Hex<16>;

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError {
            what: "digest",
            value: text.to_string(),
            why: format!("expected {} hexadecimal digits", 2 * N),
        };
        let is_hex = text.len() == 2 * N && text.bytes().all(|b| b.is_ascii_hexdigit());
        let mut digest = [0; N];
        for (at, byte) in digest.iter_mut().enumerate().filter(|_| is_hex) {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        is_hex.then_some(Self(digest)).ok_or_else(wrong)
    }
}

impl<const N: usize> serde::Serialize for Hex<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> serde::Deserialize<'de> for Hex<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The digests of bytes that come piece by piece, and how many there were.
#[derive(Debug, Clone)]
pub struct Digests {
    size: u64,
    sha256: sha2::Sha256,
    md5: Option<md5::Md5>,
}

impl Digests {
    pub fn new(md5: bool) -> Self {
        Self {
            size: 0,
            sha256: sha2::Sha256::new(),
            md5: md5.then(md5::Md5::new),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    /// Size and digests of all bytes added.
    pub fn finish(self) -> (u64, Sha256, Option<Md5>) {
        let md5 = self.md5.map(|md5| Hex(md5.finalize().into()));
        (self.size, Hex(self.sha256.finalize().into()), md5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_and_prints() {
        let text = "d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(text.parse::<Md5>().unwrap().to_string(), text);
        for wrong in ["", &text[1..], &text.replace('d', "g"), &"é".repeat(16)] {
            assert!(wrong.parse::<Md5>().is_err(), "{wrong}");
        }
        assert!(text.parse::<Sha256>().is_err());
        let (size, sha256, md5) = Digests::new(true).finish();
        assert_eq!((size, md5.unwrap().to_string().as_str()), (0, text));
        assert!(sha256.to_string().starts_with("e3b0c44298fc1c149afb"));
    }
}
