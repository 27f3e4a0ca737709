//! Where a restored server listens: on a port and in a folder for its socket that nobody else uses.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::{copy_settings, programs};
use crate::error::Hint;

/// Where a socket goes that fits nowhere else.
const SHARED: &str = "/tmp";

/// The port asked for, else the configured one if it is free, else any that is.
pub fn choose_port(
    programs: &Path,
    data_directory: &Path,
    wanted: Option<u16>,
) -> anyhow::Result<u16> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    if let Some(port) = wanted {
        return match is_free(port) {
            true => Ok(port),
            false => Err(anyhow!("port {port} is taken"))
                .hint("name another one with --port, or leave it out"),
        };
    }
    let configured = programs::configured(programs, data_directory, "port")?;
    match configured.parse() {
        Ok(port) if is_free(port) => Ok(port),
        _ => {
            let listener =
                TcpListener::bind(("127.0.0.1", 0)).context("cannot find a free port")?;
            Ok(listener
                .local_addr()
                .context("cannot find a free port")?
                .port())
        }
    }
}

/// The first configured folder if the server can put its socket there, else the data directory, else `/tmp`; and what to
/// tell of a folder that others use, too.
pub fn choose_socket_directory(
    programs: &Path,
    data_directory: &Path,
    port: u16,
) -> anyhow::Result<(PathBuf, Option<String>)> {
    let configured = programs::configured(programs, data_directory, "unix_socket_directories")?;
    let first = configured
        .split(',')
        .next()
        .unwrap_or_default()
        .trim()
        .trim_matches('"')
        .to_string();
    let candidates = [
        PathBuf::from(first),
        data_directory.to_path_buf(),
        PathBuf::from(SHARED),
    ];
    let found = candidates
        .into_iter()
        .find(|folder| folder.is_absolute() && unfit(folder, port).is_none());
    let found = found
        .with_context(|| format!("no folder for the socket of port {port} is found"))
        .hint("name another port with --port")?;
    let why = if found == Path::new(SHARED) {
        unfit(data_directory, port)
    } else {
        None
    };
    let note = why.map(|why| {
        format!(
            "its socket is in \"{SHARED}\", since \"{}\" {why}",
            data_directory.display()
        )
    });
    Ok((found, note))
}

/// Why a server cannot put its socket into a folder; `None`: it can.
pub(super) fn unfit(folder: &Path, port: u16) -> Option<&'static str> {
    copy_settings::unfit_for_sockets(&folder.to_string_lossy(), port).or_else(|| match is_writable(
        folder,
    ) {
        false => Some("cannot be written to"),
        true => folder
            .join(format!(".s.PGSQL.{port}"))
            .exists()
            .then_some("has that socket already"),
    })
}

fn is_writable(folder: &Path) -> bool {
    rustix::fs::access(
        folder,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    )
    .is_ok()
        && folder.is_dir()
}
