//! The settings of a drill's server, beside those that keep every copy apart from its source.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::scratch::Scratch;

/// Everybody who reaches the socket, which only this user does.
const HBA: &str = "local all all trust\n";

/// Writes settings behind those that the restore wrote: little memory, a door for this user alone, and no library that is
/// not installed here. What was left out of `libraries`, which the source loads.
pub fn configure(
    scratch: &Scratch,
    programs: &Path,
    memory: u64,
    libraries: &str,
) -> anyhow::Result<Vec<String>> {
    let hba = scratch.join("pg_hba.conf");
    fs::write(&hba, HBA).context("cannot write the drill's pg_hba.conf")?;
    let (there, missing) = split(libraries, |library| is_installed(programs, library));
    let auto = scratch.data().join("postgresql.auto.conf");
    let before =
        fs::read_to_string(&auto).with_context(|| format!("cannot read \"{}\"", auto.display()))?;
    let text = before + &settings(&hba, memory, &there);
    fs::write(&auto, text).with_context(|| format!("cannot write \"{}\"", auto.display()))?;
    Ok(missing)
}

fn settings(hba: &Path, memory: u64, libraries: &[String]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut text = String::new();
    for (name, value) in [
        ("unix_socket_permissions", "0700".into()),
        ("hba_file", quoted(&hba.display().to_string())),
        ("shared_buffers", format!("{}kB", memory / 1024)),
        ("huge_pages", "off".into()),
        ("shared_preload_libraries", quoted(&libraries.join(","))),
        ("autovacuum", "off".into()),
        ("fsync", "off".into()),
    ] {
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}

/// Libraries of a list that are there, and those that are not.
fn split(libraries: &str, is_there: impl Fn(&str) -> bool) -> (Vec<String>, Vec<String>) {
    let names = libraries
        .split(',')
        .map(|name| name.trim().trim_matches('"'));
    let names = names.filter(|name| !name.is_empty()).map(str::to_string);
    names.partition(|name| is_there(name))
}

/// In the server's own folder of libraries, which Debian and others have in several places; what has a path is looked for there.
fn is_installed(programs: &Path, library: &str) -> bool {
    let file = match library.ends_with(".so") {
        true => library.to_string(),
        false => format!("{library}.so"),
    };
    let name = file.trim_start_matches("$libdir/");
    if name.starts_with('/') {
        return Path::new(name).exists();
    }
    let prefix = programs.parent().unwrap_or(programs);
    ["lib", "lib/postgresql", "lib64", "lib64/postgresql"]
        .iter()
        .any(|folder| prefix.join(folder).join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_are_not_here_are_left_out_and_told() {
        let (there, missing) = split(
            " pg_stat_statements, \"timescaledb\" ,,auto_explain",
            |name| name != "timescaledb",
        );
        assert_eq!(there, ["pg_stat_statements", "auto_explain"]);
        assert_eq!(missing, ["timescaledb"]);
        assert_eq!(split("", |_| true), (Vec::new(), Vec::new()));
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
