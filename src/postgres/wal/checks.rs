//! Judgements on one record.

use super::fact::{Fact, Parameters};
use super::facts::read_fact;
use super::record::{Record, RecordHeader, rmgr};
use super::stop::StopReason;

/// Whether the CRC is the one that the record has.
pub(super) fn verify(header: &RecordHeader, computed: u32) -> Result<(), StopReason> {
    if computed == header.crc {
        Ok(())
    } else {
        Err(StopReason::Checksum {
            stored: header.crc,
            computed,
        })
    }
}

const SWITCH: u8 = 0x40;
const PARAMETER_CHANGE: u8 = 0x60;

pub(super) fn is_switch(record: &Record<'_>) -> bool {
    (record.header.rmgr, record.operation()) == (rmgr::XLOG, SWITCH)
}

/// Whether recovery goes on behind a record.
pub(super) fn recoverable(record: &Record<'_>) -> Result<(), StopReason> {
    if (record.header.rmgr, record.operation()) != (rmgr::XLOG, PARAMETER_CHANGE) {
        return Ok(());
    }
    match read_fact(record) {
        Ok(Some(Fact::ParameterChange(Parameters { wal_level: 0, .. }))) => {
            Err(StopReason::Minimal)
        }
        _ => Ok(()),
    }
}
