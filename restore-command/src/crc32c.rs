//! CRC-32C (Castagnoli), eight bytes at a time, so that it costs less than the network does.

/// The polynomial, reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut at = 1;
    while at < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[at - 1][byte];
            tables[at][byte] = before >> 8 ^ tables[0][(before & 255) as usize];
            byte += 1;
        }
        at += 1;
    }
    tables
}

/// The CRC of bytes that come in pieces.
pub struct Crc32c(u32);

impl Crc32c {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self(!0)
    }

    /// Goes on with these.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut crc = self.0;
        let mut eights = bytes.chunks_exact(8);
        for eight in &mut eights {
            let eight: [u8; 8] = eight.try_into().unwrap_or_default();
            let word = u64::from_le_bytes(eight) ^ u64::from(crc);
            crc = 0;
            for (at, byte) in word.to_le_bytes().into_iter().enumerate() {
                crc ^= TABLES[7 - at][usize::from(byte)];
            }
        }
        for byte in eights.remainder() {
            crc = crc >> 8 ^ TABLES[0][usize::from(crc as u8 ^ byte)];
        }
        self.0 = crc;
    }

    /// As the header `Repr-Digest` shows it (RFC 9530): base64 of the four bytes, highest first.
    pub fn digest(&self) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        // 32 bits are five digits of six bits and one of two, which stand highest.
        let bits = u64::from(!self.0) << 4;
        let digit = |at: u32| char::from(DIGITS[(bits >> (30 - 6 * at) & 63) as usize]);
        let digits: String = (0..6).map(digit).collect();
        format!("crc32c=:{digits}==:")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_standard_comes_out_however_it_is_cut() {
        for cut in 0..=9 {
            let mut crc = Crc32c::new();
            let (one, other) = b"123456789".split_at(cut);
            crc.update(one);
            crc.update(other);
            assert_eq!(!crc.0, 0xE306_9283);
            assert_eq!(crc.digest(), "crc32c=:4waSgw==:");
        }
    }
}
