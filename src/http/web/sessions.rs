//! Who has shown a token in the sign-in form: a browser gets a random name for that, never the token back.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::http::{HeaderMap, header};
use subtle::{Choice, ConstantTimeEq};

use crate::codec::Digest;

/// After that a browser signs in again.
pub const LASTS: Duration = Duration::from_secs(12 * 3600);
/// Browsers at once; with one more the oldest signs in again.
const MOST: usize = 64;

/// The sessions there are; in memory alone, only their digests.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<VecDeque<(Digest, Instant)>>);

impl Sessions {
    /// Begins one at `now`; its name, which is a secret. Errors: no randomness.
    pub fn begin(&self, now: Instant) -> anyhow::Result<String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)
            .map_err(anyhow::Error::from)
            .context("cannot make a session's name")?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sessions = self.current(now);
        if sessions.len() >= MOST {
            sessions.pop_front();
        }
        sessions.push_back((Digest::of(name.as_bytes()), now + LASTS));
        Ok(name)
    }

    /// Whether a session of this name has begun and not ended at `now`.
    pub fn admit(&self, name: &str, now: Instant) -> bool {
        let digest = Digest::of(name.as_bytes());
        let one_of =
            |found: Choice, session: &(Digest, Instant)| found | session.0.0.ct_eq(&digest.0);
        self.current(now)
            .iter()
            .fold(Choice::from(0), one_of)
            .into()
    }

    /// Ends one.
    pub fn end(&self, name: &str, now: Instant) {
        let digest = Digest::of(name.as_bytes());
        self.current(now)
            .retain(|(session, _)| session.0 != digest.0);
    }

    fn current(&self, now: Instant) -> std::sync::MutexGuard<'_, VecDeque<(Digest, Instant)>> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|(_, until)| *until > now);
        sessions
    }
}

/// A cookie's value.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = pairs
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_it_is_ended_or_old_or_pushed_out() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let (one, other) = (sessions.begin(now).unwrap(), sessions.begin(now).unwrap());
        assert!(
            one != other
                && one.len() == 64
                && sessions.admit(&one, now)
                && sessions.admit(&other, now)
        );
        assert!(!sessions.admit("", now) && !sessions.admit(&one[..63], now));
        sessions.end(&one, now);
        assert!(!sessions.admit(&one, now) && sessions.admit(&other, now));
        let later = now + LASTS;
        assert!(!sessions.admit(&other, later));
        let first = sessions.begin(later).unwrap();
        (1..MOST).for_each(|_| drop(sessions.begin(later).unwrap()));
        assert!(sessions.admit(&first, later));
        sessions.begin(later).unwrap();
        assert!(!sessions.admit(&first, later) && sessions.current(later).len() == MOST);
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::COOKIE,
            "a=1; walden-main=secret ;b=2".parse().unwrap(),
        );
        headers.append(header::COOKIE, "c=3".parse().unwrap());
        assert_eq!(
            (cookie(&headers, "walden-main"), cookie(&headers, "c")),
            (Some("secret"), Some("3"))
        );
        assert_eq!(
            (cookie(&headers, "walden"), cookie(&headers, "")),
            (None, None)
        );
    }
}
