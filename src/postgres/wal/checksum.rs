//! The CRC-32C of a record: of its body, then of its header up to the CRC itself (xlogrecord.h).
//!
//! A segment of small transactions has a quarter of a million records of 60 bytes: for each of them a library's two calls
//! cost more than three times what the sum itself does. So short ones are done here, by the processor's instruction.

use super::record::HEADER;

/// Bytes of the header that the CRC covers.
const COVERED: usize = HEADER - 4;

/// The longest record that is done here: of longer ones the library does three parts at a time.
#[cfg(target_arch = "x86_64")]
const SHORT: usize = 1024;

/// Of a record that begins with `bytes`, when the CRC of its body is known.
pub(super) fn after_body(crc_of_body: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc_of_body, bytes.get(..COVERED).unwrap_or_default())
}

/// Of a whole record.
#[inline]
pub(super) fn of_record(bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= SHORT && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instruction.
        return unsafe { of_short_record(bytes) };
    }
    after_body(
        crc32c::crc32c(bytes.get(HEADER..).unwrap_or_default()),
        bytes,
    )
}

/// The same: eight bytes at a time, the rest of the body without a branch for each length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn of_short_record(bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u32, _mm_crc32_u64};

    let (Some((header, body)), Some(last)) =
        (bytes.split_first_chunk::<HEADER>(), bytes.last_chunk())
    else {
        return after_body(0, bytes);
    };
    let mut crc = u64::from(!0_u32);
    let (words, rest) = body.as_chunks::<8>();
    for word in words {
        crc = _mm_crc32_u64(crc, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        // Leading zeros change nothing in a CRC of zero: so the rest goes to the end of a word, and the CRC so far is
        // added where it meets it.
        let (bits, beyond) = (rest.len() as u32 * 8, 64 - rest.len() as u32 * 8);
        let rest = u64::from_le_bytes(*last) >> beyond << beyond;
        crc = _mm_crc32_u64(0, rest ^ (crc << beyond)) ^ (crc >> bits);
    }
    let (words, _) = header.as_chunks::<8>();
    for word in &words[..COVERED / 8] {
        crc = _mm_crc32_u64(crc, u64::from_le_bytes(*word));
    }
    let [.., a, b, c, d, _, _, _, _] = *header;
    !_mm_crc32_u32(crc as u32, u32::from_le_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Of every length up to beyond what is done here.
        #[test]
        fn it_is_the_librarys(bytes in proptest::collection::vec(any::<u8>(), 2048)) {
            for length in 0..bytes.len() {
                let record = &bytes[bytes.len() - length..];
                let body = crc32c::crc32c(record.get(HEADER..).unwrap_or_default());
                prop_assert_eq!(of_record(record), after_body(body, record), "length {}", length);
            }
        }
    }
}
