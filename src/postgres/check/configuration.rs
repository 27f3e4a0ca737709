//! Settings that are read are valid; what is left is who else can read or change the file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Check, CheckError, Verdict};
use crate::config::{Settings, SettingsSource};

pub(super) fn check(settings: &Settings) -> Verdict {
    let mode = match &settings.source {
        SettingsSource::File(path) => fs::metadata(path)
            .ok()
            .map(|meta| meta.permissions().mode() & 0o7777),
        SettingsSource::Environment => None,
    };
    decide(&settings.source, mode, &settings.warnings)
}

/// Without settings nothing else can be looked at.
pub fn unreadable(error: &anyhow::Error) -> Verdict {
    Check::Configuration.failed(&CheckError::from(error))
}

fn decide(source: &SettingsSource, mode: Option<u32>, warnings: &[String]) -> Verdict {
    if let Some((message, hint)) = warnings
        .first()
        .map(|first| first.split_once(": ").unwrap_or((first, "")))
    {
        let verdict = Check::Configuration.warning(message);
        return if hint.is_empty() {
            verdict
        } else {
            verdict.hint(hint)
        };
    }
    match mode {
        Some(mode) if mode & 0o022 != 0 => Check::Configuration
            .warning(format!(
                "other users can change \"{source}\" (mode {mode:04o})"
            ))
            .hint(format!("chmod go-w \"{source}\"")),
        _ => Check::Configuration.ok(source.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::check::CheckStatus;

    #[test]
    fn a_file_that_others_can_change_is_told() {
        let source = SettingsSource::File("/etc/walden/walden.toml".into());
        assert_eq!(decide(&source, Some(0o640), &[]).status, CheckStatus::Ok);
        assert_eq!(decide(&source, None, &[]).status, CheckStatus::Ok);
        for mode in [0o620, 0o602, 0o666] {
            let verdict = decide(&source, Some(mode), &[]);
            assert_eq!(verdict.status, CheckStatus::Warning);
            assert!(
                verdict.message.contains(&format!("{mode:04o}")),
                "{}",
                verdict.message
            );
        }
    }

    #[test]
    fn a_warning_of_the_settings_is_told_with_its_step() {
        let warning = "file \"x\" holds a password: run `chmod o-rwx` on it".to_string();
        let verdict = decide(&SettingsSource::Environment, None, &[warning]);
        assert_eq!(verdict.status, CheckStatus::Warning);
        assert_eq!(verdict.hint.as_deref(), Some("run `chmod o-rwx` on it"));
    }
}
