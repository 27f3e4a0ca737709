use std::path::PathBuf;

use super::report::LeftOut;
use crate::postgres::drill::database::Door;
use crate::postgres::types::MajorVersion;

/// What holds the table as it was: a server of this machine that nobody else reaches.
#[derive(Debug)]
pub struct PrivateServer {
    pub door: Door,
    pub major: MajorVersion,
    pub programs: PathBuf,
    /// The table's database there.
    pub database: String,
    /// What it holds, and what was restored for that.
    pub from: String,
    pub way: &'static str,
    pub has_unlogged_rows: bool,
    /// What did not even come that far.
    pub left_out: Vec<LeftOut>,
}
