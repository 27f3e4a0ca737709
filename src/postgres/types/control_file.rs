use super::{Lsn, MajorVersion, ParseError, SegmentSize, SystemIdentifier, TimelineId};

/// What Walden reads of `global/pg_control` (pg_control.h, ControlFileData; offsets for 64-bit little-endian builds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlFile {
    pub system_identifier: SystemIdentifier,
    pub major: MajorVersion,
    /// 0 starting, 1 shut down, 2 shut down in recovery, 3 shutting down, 4 crash recovery, 5 archive recovery,
    /// 6 in production.
    pub state: u32,
    pub checkpoint: Lsn,
    pub checkpoint_redo: Lsn,
    pub checkpoint_timeline: TimelineId,
    pub min_recovery_point: Lsn,
    pub segment_size: SegmentSize,
    /// Page checksums: 0 off, else their version.
    pub data_checksum_version: u32,
    pub settings: RecoverySettings,
}

/// Settings that a server in recovery needs at least as high as the primary had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecoverySettings {
    pub max_connections: i32,
    pub max_worker_processes: i32,
    pub max_wal_senders: i32,
    pub max_prepared_transactions: i32,
    pub max_locks_per_transaction: i32,
}

impl RecoverySettings {
    /// Names as in postgresql.conf, with values.
    pub fn named(&self) -> [(&'static str, i32); 5] {
        [
            ("max_connections", self.max_connections),
            ("max_worker_processes", self.max_worker_processes),
            ("max_wal_senders", self.max_wal_senders),
            ("max_prepared_transactions", self.max_prepared_transactions),
            ("max_locks_per_transaction", self.max_locks_per_transaction),
        ]
    }
}

impl ControlFile {
    /// Reads the file's content and checks its CRC-32C. A copy taken from a running server can be torn: read again.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let wrong = |value: String, why: &str| ParseError::new("pg_control", value, why);
        if bytes.len() < 296 {
            return Err(wrong(
                format!("{} bytes", bytes.len()),
                "it is shorter than the control data",
            ));
        }
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let i32_at = |at: usize| u32_at(at) as i32;
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let crc_at = match u32_at(8) {
            1300 | 1700 => 288,
            1800 => 292,
            other => {
                return Err(wrong(
                    format!("version {other}"),
                    "1300, 1700 and 1800 are known",
                ));
            }
        };
        if crc32c::crc32c(&bytes[..crc_at]) != u32_at(crc_at) {
            return Err(wrong(
                format!("CRC {:08X}", u32_at(crc_at)),
                "its content does not have this checksum",
            ));
        }
        let major = MajorVersion::from_catalog_version(u32_at(12)).ok_or_else(|| {
            wrong(
                format!("catalog version {}", u32_at(12)),
                "not one of PostgreSQL 13 to 18",
            )
        })?;
        Ok(Self {
            system_identifier: SystemIdentifier(u64_at(0)),
            major,
            state: u32_at(16),
            checkpoint: Lsn(u64_at(32)),
            checkpoint_redo: Lsn(u64_at(40)),
            checkpoint_timeline: TimelineId(u32_at(48)),
            min_recovery_point: Lsn(u64_at(136)),
            segment_size: SegmentSize::new(u32_at(228))?,
            data_checksum_version: u32_at(252),
            settings: RecoverySettings {
                max_connections: i32_at(180),
                max_worker_processes: i32_at(184),
                max_wal_senders: i32_at(188),
                max_prepared_transactions: i32_at(192),
                max_locks_per_transaction: i32_at(196),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_in_pg_control_is_noticed() {
        let mut bytes = vec![0u8; 8192];
        bytes[8..12].copy_from_slice(&1300u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&202209061u32.to_le_bytes());
        bytes[228..232].copy_from_slice(&(16u32 << 20).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(ControlFile::parse(&bytes).unwrap().major.number(), 15);
        bytes[40] ^= 1;
        assert!(
            ControlFile::parse(&bytes)
                .unwrap_err()
                .why
                .contains("checksum")
        );
        assert!(ControlFile::parse(&bytes[..100]).is_err());
    }
}
