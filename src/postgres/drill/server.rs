//! The settings of a drill's server, beside those that keep every copy apart from its source.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::scratch::Scratch;
use crate::postgres::restore::assignment;
use crate::postgres::types::MajorVersion;

/// Everybody who reaches the socket, which only this user does.
const HBA: &str = "local all all trust\n";

/// A trigger on login could reach for what is the source's, whoever logs in (17 and later).
pub fn without_event_triggers(major: MajorVersion) -> Option<(String, String)> {
    (major.number() >= 17).then(|| ("event_triggers".into(), "off".into()))
}

/// Writes settings behind those that are there: little memory, a door for this user alone, these libraries, and what else is given.
pub fn configure(
    scratch: &Scratch,
    memory: u64,
    libraries: &[String],
    more: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<()> {
    let hba = scratch.join("pg_hba.conf");
    fs::write(&hba, HBA).context("cannot write the drill's pg_hba.conf")?;
    let auto = scratch.data().join("postgresql.auto.conf");
    let before =
        fs::read_to_string(&auto).with_context(|| format!("cannot read \"{}\"", auto.display()))?;
    let more: String = more
        .map(|(name, value)| assignment(&name, &value))
        .collect();
    let text = before + &more + &settings(&hba, memory, libraries);
    fs::write(&auto, text).with_context(|| format!("cannot write \"{}\"", auto.display()))
}

fn settings(hba: &Path, memory: u64, libraries: &[String]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let list = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        names.join(",")
    };
    let mut text = String::new();
    for (name, value) in [
        ("unix_socket_permissions", "0700".into()),
        ("hba_file", quoted(&hba.display().to_string())),
        ("shared_buffers", format!("{}kB", memory / 1024)),
        ("huge_pages", "off".into()),
        ("shared_preload_libraries", quoted(&list(libraries))),
        ("session_preload_libraries", quoted("")),
        ("local_preload_libraries", quoted("")),
        // A server that ends is noticed; one that starts again has forgotten why.
        ("restart_after_crash", "off".into()),
        ("autovacuum", "off".into()),
        ("fsync", "off".into()),
    ] {
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}

/// The libraries of a setting.
pub fn split(libraries: &str) -> Vec<String> {
    let names = libraries
        .split(',')
        .map(|name| name.trim().trim_matches('"'));
    names
        .filter(|name| !name.is_empty())
        .map(str::to_string)
        .collect()
}

/// Which of the libraries a server did not start for, by its own word: where it looks, it alone knows.
pub fn not_loaded(words: &str, libraries: &[String]) -> Option<usize> {
    let said = [
        "could not access file \"",
        "could not load library \"",
        "incompatible library \"",
    ];
    let (_, after) = said.iter().find_map(|said| words.split_once(said))?;
    let name = stem(after.split('"').next()?);
    libraries.iter().position(|library| stem(library) == name)
}

/// Its name without a folder and `.so`.
fn stem(library: &str) -> &str {
    let name = library.rsplit('/').next().unwrap_or(library);
    name.strip_suffix(".so").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_the_server_does_not_load_is_found_by_its_words() {
        let libraries = split(" pg_stat_statements, \"$libdir/timescaledb\" ,,/opt/x/odd.so");
        assert_eq!(
            libraries,
            ["pg_stat_statements", "$libdir/timescaledb", "/opt/x/odd.so"]
        );
        for (words, found) in [
            (
                "FATAL:  could not access file \"$libdir/timescaledb\": No such file",
                Some(1),
            ),
            (
                "FATAL:  could not load library \"/usr/lib64/pgsql/timescaledb.so\": no",
                Some(1),
            ),
            (
                "FATAL:  incompatible library \"/opt/x/odd.so\": version mismatch",
                Some(2),
            ),
            (
                "FATAL:  could not access file \"another\": No such file",
                None,
            ),
            ("PANIC:  invalid page", None),
        ] {
            assert_eq!(not_loaded(words, &libraries), found, "{words}");
        }
    }

    #[test]
    fn settings_are_quoted() {
        let text = settings(Path::new("/a'b/pg_hba.conf"), 64 << 20, &["x".into()]);
        assert!(
            text.contains("hba_file = '/a''b/pg_hba.conf'\n")
                && text.contains("shared_buffers = 65536kB\n"),
            "{text}"
        );
    }
}
