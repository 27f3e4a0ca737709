use anyhow::anyhow;
use tokio::net::UnixStream;

use crate::error::with_hint;

/// Refuses whoever is neither the service's own user nor root: a request names files to read and to replace, with
/// the service's rights.
pub fn check(stream: &UnixStream) -> anyhow::Result<()> {
    let asker = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    match asker == own || asker == 0 {
        true => Ok(()),
        false => {
            let error =
                anyhow!("the Walden service runs as user {own} and does not answer user {asker}");
            Err(with_hint(
                error,
                "run `walden serve` as the user that PostgreSQL runs as",
            ))
        }
    }
}
