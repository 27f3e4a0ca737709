//! One's own URLs, asked while the restored server runs: a service that works on it answers as it should.

use std::path::PathBuf;
use std::time::Duration;

use hyper::{Method, Request};
use serde::{Deserialize, Deserializer, de::Error};
use tokio::time::{Instant, sleep, timeout_at};

use super::checks::check;
use crate::config::read_duration;
use crate::error::one_line;
use crate::evidence::record::{Check, Verdict};
use crate::http_client::{ask, check_url, trusted, with_bearer};

/// How long a wrong answer may become a right one, unless the file says something else.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(500);
/// So much of a body is searched.
const LONGEST_BODY: usize = 1 << 20;

/// A URL and what is expected of its answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    pub name: String,
    #[serde(deserialize_with = "url")]
    url: String,
    #[serde(default = "get", deserialize_with = "method")]
    method: String,
    /// A file of mode 0600 with a token.
    bearer_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    #[serde(default = "ok", deserialize_with = "status")]
    status: u16,
    /// A text in the body.
    contains: Option<String>,
    #[serde(default, deserialize_with = "read_duration")]
    timeout: Option<Duration>,
}

fn get() -> String {
    "GET".into()
}

fn ok() -> u16 {
    200
}

fn url<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let url = String::deserialize(from)?;
    // Of the URL itself nothing is told.
    check_url(&url).map_err(|error| D::Error::custom(one_line(&error)))?;
    Ok(url)
}

fn method<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let is_known = Method::from_bytes(name.as_bytes()).is_ok() && name == name.to_uppercase();
    let wrong = || D::Error::custom("a method is a word such as \"GET\", \"HEAD\" or \"POST\"");
    is_known.then_some(name).ok_or_else(wrong)
}

fn status<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let status = u16::deserialize(from)?;
    let wrong = || D::Error::custom("a status is a number from 100 to 599");
    (100..600)
        .contains(&status)
        .then_some(status)
        .ok_or_else(wrong)
}

impl HttpCheck {
    /// Asks again until the answer is right: a service takes a while to start.
    pub async fn ask(&self) -> Check {
        // What this machine lacks is no fault of the service.
        let prepared = match &self.ca_file {
            Some(_) => trusted(self.ca_file.as_deref()).and_then(|_| self.request()),
            None => self.request(),
        };
        if let Err(error) = prepared {
            return check(&self.name, Verdict::CouldNotRun, one_line(&error));
        }
        let patience = self.timeout.unwrap_or(PATIENCE);
        let until = Instant::now() + patience;
        let mut seen = format!("no answer came within {patience:?}");
        while let Ok(answer) = timeout_at(until, self.once()).await {
            match answer {
                Ok(right) => return check(&self.name, Verdict::Passed, right),
                Err(wrong) => seen = wrong,
            }
            if timeout_at(until, sleep(PAUSE)).await.is_err() {
                break;
            }
        }
        check(&self.name, Verdict::Failed, seen)
    }

    fn request(&self) -> anyhow::Result<Request<String>> {
        let request = Request::builder().method(&*self.method);
        let request = request.body(String::new())?;
        with_bearer(request, self.bearer_file.as_deref(), "bearer_file")
    }

    /// One request: what is seen, right or wrong.
    async fn once(&self) -> Result<String, String> {
        let asked = async {
            let request = self.request()?;
            let most = self.contains.as_ref().map_or(0, |_| LONGEST_BODY);
            ask(request, &self.url, self.ca_file.as_deref(), most).await
        };
        let answer = asked.await.map_err(|error| one_line(&error))?;
        self.judge(&answer.host, answer.status.as_u16(), &answer.body)
    }

    /// A body is never told: it may hold anything.
    fn judge(&self, host: &str, status: u16, body: &[u8]) -> Result<String, String> {
        let told = format!("\"{host}\" answered {status}");
        if status != self.status {
            return Err(format!("{told}, expected {}", self.status));
        }
        match &self.contains {
            Some(text) if !String::from_utf8_lossy(body).contains(text.as_str()) => {
                Err(format!("{told} without \"{text}\" in its body"))
            }
            _ => Ok(told),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(lines: &str) -> HttpCheck {
        let text =
            format!("name = \"shop\"\nurl = \"http://127.0.0.1:1/health?key=s3cret\"\n{lines}");
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn an_answer_is_right_by_its_status_and_its_body() {
        let plain = parsed("");
        assert_eq!(plain.judge("h", 200, b""), Ok("\"h\" answered 200".into()));
        assert_eq!(
            plain.judge("h", 204, b"").unwrap_err(),
            "\"h\" answered 204, expected 200"
        );
        let both = parsed("status = 503\ncontains = \"read only\"");
        assert!(both.judge("h", 503, b"it is read only now").is_ok());
        assert!(both.judge("h", 200, b"it is read only now").is_err());
        let told = both.judge("h", 503, b"password").unwrap_err();
        assert_eq!(told, "\"h\" answered 503 without \"read only\" in its body");
    }

    #[tokio::test]
    async fn nobody_there_is_a_failure_and_a_token_that_cannot_be_read_is_none() {
        let nobody = parsed("timeout = \"10ms\"").ask().await;
        assert_eq!(nobody.verdict, Verdict::Failed);
        assert!(
            nobody.seen.starts_with("cannot ask \"127.0.0.1\""),
            "{nobody:?}"
        );
        for lines in ["bearer_file = \"/no/such\"", "ca_file = \"/no/such\""] {
            let without = parsed(lines).ask().await;
            assert_eq!(without.verdict, Verdict::CouldNotRun, "{without:?}");
            assert!(without.seen.contains("/no/such"), "{without:?}");
            assert!(!without.seen.contains("s3cret"));
        }
    }
}
