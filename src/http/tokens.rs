//! Who may ask: tokens, compared in constant time.

use std::fmt;
use std::path::Path;

use anyhow::{Context, anyhow};
use axum::http::{HeaderMap, header};
use subtle::{Choice, ConstantTimeEq};

use crate::codec::Digest;
use crate::config::{Secret, read_private};
use crate::error::{Hint, with_hint};

/// Shorter ones can be guessed.
const SHORTEST: usize = 16;
const HOW_TO_MAKE: &str = "`openssl rand -hex 32` makes a good one";

/// The tokens that are accepted; only their digests are kept. Their lengths then do not show in the time that comparing takes.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Digest>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

impl Tokens {
    /// Those of the file, one a line, and the one of the settings. Errors: the file is open to others or cannot be read,
    /// or a token is too short.
    pub fn load(file: Option<&Path>, one: &Secret) -> anyhow::Result<Self> {
        let mut tokens = Self::default();
        if let Some(path) = file {
            let text = read_private(path, "http.token_file", HOW_TO_MAKE)?;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
                tokens
                    .add(line)
                    .with_context(|| format!("token file \"{}\"", path.display()))?;
            }
            ensure_some(&tokens, path)?;
        }
        if !one.is_empty() {
            tokens.add(one.expose()).context("\"http.token\"")?;
        }
        Ok(tokens)
    }

    fn add(&mut self, token: &str) -> anyhow::Result<()> {
        if token.len() < SHORTEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let error =
                anyhow!("a token has at least {SHORTEST} printable characters and no spaces");
            return Err(with_hint(error, HOW_TO_MAKE));
        }
        self.0.push(Digest::of(token.as_bytes()));
        Ok(())
    }

    /// Whether nobody needs a token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what was presented is one of them.
    pub fn admit(&self, presented: &[u8]) -> bool {
        let presented = Digest::of(presented);
        let one_of = |found: Choice, token: &Digest| found | token.0.ct_eq(&presented.0);
        self.0.iter().fold(Choice::from(0), one_of).into()
    }

    /// Whether a request carries one of them.
    pub fn admit_request(&self, headers: &HeaderMap) -> bool {
        presented(headers).is_some_and(|token| self.admit(token))
    }
}

/// The token that a request carries, good or not.
pub fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| bearer(value.as_bytes()))
}

/// The token of an `Authorization` header.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

fn ensure_some(tokens: &Tokens, path: &Path) -> anyhow::Result<()> {
    match tokens.is_empty() {
        true => Err(anyhow!(
            "token file \"{}\" has no token in it",
            path.display()
        ))
        .hint(HOW_TO_MAKE),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;
    use crate::error::{hints, one_line};

    const ONE: &str = "0123456789abcdef";
    const OTHER: &str = "another-token-of-somebody";

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn exactly_the_tokens_of_file_and_settings_are_admitted() {
        let (_folder, path) = file(&format!("{ONE}\n\n  {OTHER}  \n"), 0o600);
        let tokens = Tokens::load(Some(&path), &Secret::new("a-third-one-by-environment")).unwrap();
        for good in [ONE, OTHER, "a-third-one-by-environment"] {
            assert!(tokens.admit(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "0",
            &ONE[..15],
            &format!("{ONE} "),
            &format!("{ONE}\n{OTHER}"),
            &ONE.to_uppercase(),
        ] {
            assert!(!tokens.admit(bad.as_bytes()), "{bad:?}");
        }
        assert!(!Tokens::default().admit(b""), "no token admits nobody");
        assert!(!format!("{tokens:?}").contains(ONE));
    }

    #[test]
    fn a_token_that_others_can_read_or_guess_is_refused() {
        for (text, mode, expected) in [
            (ONE, 0o644, "is open to others (mode 0644)"),
            (ONE, 0o602, "is open to others"),
            ("short", 0o600, "at least 16 printable characters"),
            ("with a space within it", 0o600, "no spaces"),
            ("\n\n", 0o600, "has no token in it"),
        ] {
            let (_folder, path) = file(text, mode);
            let error = Tokens::load(Some(&path), &Secret::default()).unwrap_err();
            assert!(one_line(&error).contains(expected), "{error:#}");
            assert!(
                !hints(&error).is_empty() && !one_line(&error).contains("with a space"),
                "{error:#}"
            );
        }
        assert!(Tokens::load(Some(Path::new("/nowhere/tokens")), &Secret::default()).is_err());
        assert!(Tokens::load(None, &Secret::new("short")).is_err());
    }

    #[test]
    fn a_token_stands_behind_its_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for other in [
            &b"Basic abc"[..],
            b"Bearer",
            b"Bearerabc",
            b"",
            b"\xFF\xFFBearer abc",
        ] {
            assert_eq!(bearer(other), None);
        }
    }
}
