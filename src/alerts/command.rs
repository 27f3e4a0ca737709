//! A program that is told: the message is its input.

use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::refused::Refused;

/// What it sees of our environment, which may hold secrets.
const KEPT: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];

/// Runs it to its end. When nobody waits any more, it is killed.
pub async fn run(command: &[String], input: &str) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("no program is named")?;
    let what = || format!("cannot run \"{program}\"");
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(
            KEPT.iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(what)?;
    let mut stdin = child.stdin.take().context("its input")?;
    // One that reads nothing may be content all the same.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let status = child.wait().await.with_context(what)?;
    if !status.success() {
        bail!(Refused(format!("\"{program}\" ended with {status}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(String::from).to_vec()
    }

    #[tokio::test]
    async fn a_program_gets_the_message_and_says_whether_it_took_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("got");
        run(&shell(&format!("cat >'{}'", file.display())), "{}")
            .await
            .unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{}");
        run(&shell("exit 0"), &"x".repeat(1 << 20)).await.unwrap();
        let error = run(&shell("exit 3"), "").await.unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error:#}");
        let none = run(&["/nowhere".into()], "").await.unwrap_err();
        assert!(none.to_string().contains("cannot run \"/nowhere\""));
        run(&shell("test -z \"$CARGO_PKG_NAME\""), "")
            .await
            .unwrap();
    }
}
