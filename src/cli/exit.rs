//! Exit codes: the one place where outcomes and errors become numbers.

use std::process::ExitCode;

use crate::data_directory::{UNKNOWN, UNKNOWN_GOES_ON};
use crate::error::{hints, one_line};
use crate::plain::plain;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Success,
    /// Something did not work; the message says what.
    Failed,
    /// The arguments are wrong.
    Usage,
    /// A check came to its end and found damage or gaps; a restored server is not what was asked for.
    Unsound,
    /// The recovery target cannot be reached exactly.
    Refused,
    /// `wal fetch`: the repository proves that there is no such file (restore_command: 1 to 125).
    Absent,
    /// `wal fetch`: whether there is such a file is not known; PostgreSQL must stop, not promote (above 125).
    Unknown,
    /// The same where no answer ends recovery early, as for a standby.
    UnknownGoesOn,
    /// `check`, as Nagios plugins end: something should be mended.
    CheckWarning,
    /// `check`: WAL is not archived, or a restore is not possible.
    CheckCritical,
    /// `check`: something could not be found out.
    CheckUnknown,
}

impl Exit {
    /// The number that the calling process sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed | Self::Absent | Self::CheckWarning => 1,
            Self::Usage | Self::CheckCritical => 2,
            Self::Unsound | Self::CheckUnknown => 3,
            Self::Refused => 4,
            Self::Unknown => UNKNOWN,
            Self::UnknownGoesOn => UNKNOWN_GOES_ON,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Prints an error with its hints and says how to exit.
pub fn report(error: &anyhow::Error) -> Exit {
    print_error(error);
    Exit::Failed
}

/// The error on one line, each hint on a line below.
pub fn print_error(error: &anyhow::Error) {
    eprintln!("ERROR: {}", one_line(error));
    for hint in hints(error) {
        eprintln!("HINT: {}", plain(hint));
    }
}
