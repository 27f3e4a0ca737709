//! Exit codes: the one place where outcomes and errors become numbers.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::data_directory::{UNKNOWN, UNKNOWN_GOES_ON};
use crate::error::{find, hints, one_line};
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
    /// `jobs run`: another one runs the job.
    RunsElsewhere,
    /// `jobs run`: somebody asked the run to end.
    Cancelled,
    /// `jobs run`: it took longer than its deadline.
    TimedOut,
    /// `jobs run`: its lease was lost, or this process was told to end.
    Interrupted,
    /// `status --push-metrics`: the figures could not be pushed.
    NotPushed,
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
            Self::RunsElsewhere => 5,
            Self::Cancelled => 6,
            Self::TimedOut => 7,
            Self::Interrupted => 8,
            Self::NotPushed => 9,
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

/// Arguments that are wrong, whatever the repository holds.
#[derive(Debug)]
pub struct WrongUsage(anyhow::Error);

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for WrongUsage {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// The error as one of wrong arguments.
pub fn wrong_usage(error: impl Into<anyhow::Error>) -> anyhow::Error {
    WrongUsage(error.into()).into()
}

/// Prints an error with its hints and says how to exit.
pub fn report(error: &anyhow::Error) -> Exit {
    print_error(error);
    match find::<WrongUsage>(error) {
        Some(_) => Exit::Usage,
        None => Exit::Failed,
    }
}

/// The error on one line, each hint on a line below.
pub fn print_error(error: &anyhow::Error) {
    eprintln!("ERROR: {}", one_line(error));
    for hint in hints(error) {
        eprintln!("HINT: {}", plain(hint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::with_hint;

    #[test]
    fn wrong_usage_keeps_its_hint_and_has_a_code_of_its_own() {
        let error = wrong_usage(with_hint(anyhow::anyhow!("wrong"), "write it right"))
            .context("cannot begin");
        assert_eq!(
            (one_line(&error).as_str(), hints(&error)),
            ("cannot begin: wrong", vec!["write it right"])
        );
        assert_eq!(report(&error), Exit::Usage);
        assert_eq!(report(&anyhow::anyhow!("wrong")), Exit::Failed);
    }
}
