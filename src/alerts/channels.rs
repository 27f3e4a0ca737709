//! The channels: each message has its deadline, and none waits for another channel.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use chrono::Utc;
use futures_util::future::join_all;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use tokio::time::timeout;

use super::decide::{Beat, Delivery, Outcome};
use super::file::{self, AlertsFile, Webhook};
use super::message::{Message, Origin};
use super::refused::Refused;
use super::state::{Alert, Severity};
use super::template::Escape;
use super::{command, mail};
use crate::error::{find, one_line};
use crate::http_client::{self, secret, with_bearer};

/// How long a channel may take for all that it is told at a time.
pub const SEND_TIME: Duration = Duration::from_secs(120);
/// Characters of an error that are kept.
const LONGEST_WHY: usize = 300;

/// All that can be told.
#[derive(Debug, Clone)]
pub struct Channels {
    pub file: AlertsFile,
    pub origin: Origin,
    /// For one message.
    pub timeout: Duration,
}

/// One of them.
enum Channel<'a> {
    Webhook(&'a Webhook),
    Slack(&'a file::Slack),
    Pagerduty(&'a file::Pagerduty),
    Mail(&'a file::Mail),
    Command(&'a file::Command),
}

impl Channels {
    /// Tells all, side by side; what became of it.
    pub async fn send(&self, deliveries: &[Delivery], beats: &[Beat]) -> Vec<Outcome> {
        let deliveries = deliveries.iter().map(|delivery| self.deliver(delivery));
        let beats = beats.iter().map(|beat| self.beat(beat));
        let (mut outcomes, beats) = tokio::join!(join_all(deliveries), join_all(beats));
        outcomes.extend(beats);
        for outcome in &outcomes {
            let (name, arrived) = (&outcome.channel, outcome.arrived.len());
            match &outcome.failed {
                Some(why) => tracing::warn!("alerts: \"{name}\" cannot be told: {why}"),
                None => tracing::debug!("alerts: \"{name}\" was told {arrived} messages"),
            }
        }
        outcomes
    }

    /// One message after the other, until the channel does not answer.
    async fn deliver(&self, delivery: &Delivery) -> Outcome {
        let mut outcome = Outcome {
            channel: delivery.channel.clone(),
            arrived: Vec::new(),
            beat: None,
            failed: None,
            refused: Vec::new(),
        };
        let mut why = None;
        let all = async {
            for alert in &delivery.alerts {
                match self.tell(&delivery.channel, alert).await {
                    Ok(()) => outcome.arrived.push(alert.id()),
                    Err(error) if find::<Refused>(&error).is_some() => {
                        outcome.refused.push(alert.id());
                        why.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            anyhow::Ok(())
        };
        let told = timeout(SEND_TIME, all).await;
        let told =
            told.unwrap_or_else(|_| Err(anyhow!("it takes longer than {} s", SEND_TIME.as_secs())));
        if told.is_err() {
            outcome.refused.clear();
        }
        outcome.failed = told.err().or(why).map(|error| shortened(&error));
        outcome
    }

    async fn beat(&self, beat: &Beat) -> Outcome {
        let asked = async {
            let known = self
                .file
                .heartbeat
                .iter()
                .find(|known| known.name == beat.name);
            let known = known.context("there is no such heartbeat")?;
            let url = url(known.url.as_deref(), known.url_file.as_deref())?;
            let request = Request::builder()
                .method(&*known.method)
                .body(String::new())?;
            let request = with_bearer(request, known.bearer_file.as_deref(), "bearer_file")?;
            self.in_time(send(request, &url, known.ca_file.as_deref()))
                .await
        };
        let failed = asked.await.err().map(|error| shortened(&error));
        Outcome {
            channel: beat.name.clone(),
            arrived: Vec::new(),
            beat: Some(beat.at),
            failed,
            refused: Vec::new(),
        }
    }

    /// Names of all channels.
    pub fn names(&self) -> Vec<&str> {
        let names = self.all().map(|(name, _)| name);
        names.collect()
    }

    fn all(&self) -> impl Iterator<Item = (&str, Channel<'_>)> {
        let file = &self.file;
        let webhooks = file
            .webhook
            .iter()
            .map(|one| (&*one.name, Channel::Webhook(one)));
        let slack = file
            .slack
            .iter()
            .map(|one| (&*one.name, Channel::Slack(one)));
        let pagerduty = file
            .pagerduty
            .iter()
            .map(|one| (&*one.name, Channel::Pagerduty(one)));
        let mails = file.mail.iter().map(|one| (&*one.name, Channel::Mail(one)));
        let commands = file
            .command
            .iter()
            .map(|one| (&*one.name, Channel::Command(one)));
        webhooks
            .chain(slack)
            .chain(pagerduty)
            .chain(mails)
            .chain(commands)
    }

    /// Tells one channel one thing.
    async fn tell(&self, name: &str, alert: &Alert) -> anyhow::Result<()> {
        let channel = self.all().find(|(known, _)| *known == name);
        let (_, channel) = channel.context("there is no such channel")?;
        let message = Message::new(alert, &self.origin);
        self.in_time(say(&channel, &message)).await
    }

    async fn in_time(&self, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        let slow = |_| {
            Err(anyhow!(
                "no answer came within {} s",
                self.timeout.as_secs_f32()
            ))
        };
        timeout(self.timeout, work).await.unwrap_or_else(slow)
    }

    /// Says that this is a test, and that it is over.
    pub async fn test(&self, name: &str) -> anyhow::Result<()> {
        let mut alert = Alert {
            rule: "Test".into(),
            of: String::new(),
            about: "alerts".into(),
            severity: Severity::Warning,
            what: "this is a test of `walden alert test`, nothing is wrong".into(),
            next: "do nothing".into(),
            since: Utc::now(),
            resolved_at: None,
            told_at: None,
            is_told: true,
            owed: Default::default(),
            heard: Default::default(),
        };
        self.tell(name, &alert).await?;
        alert.resolved_at = Some(Utc::now());
        self.tell(name, &alert).await
    }
}

async fn say(channel: &Channel<'_>, message: &Message) -> anyhow::Result<()> {
    match channel {
        Channel::Webhook(hook) => webhook(hook, message).await,
        Channel::Slack(slack) => {
            let url = secret(&slack.url_file, "url_file")?;
            post(&url, &message.slack().to_string(), slack.ca_file.as_deref()).await
        }
        Channel::Pagerduty(pager) => {
            let key = secret(&pager.key_file, "key_file")?;
            let body = message.pagerduty(&key).to_string();
            post(&pager.url, &body, pager.ca_file.as_deref()).await
        }
        Channel::Mail(channel) => mail::send(channel, message).await,
        Channel::Command(channel) => command::run(&channel.command, &message.json()).await,
    }
}

async fn webhook(hook: &Webhook, message: &Message) -> anyhow::Result<()> {
    let url = url(hook.url.as_deref(), hook.url_file.as_deref())?;
    let escape = match hook.content_type.contains("json") {
        true => Escape::Json,
        false => Escape::None,
    };
    let template = hook.template().map_err(anyhow::Error::msg)?;
    let mut request = Request::builder()
        .method(&*hook.method)
        .header(CONTENT_TYPE, &hook.content_type);
    for (name, value) in &hook.headers {
        request = request.header(name, value);
    }
    let request = request.body(message.filled(template.as_ref(), escape));
    let request = request.context("the request cannot be made: method or headers")?;
    let request = with_bearer(request, hook.bearer_file.as_deref(), "bearer_file")?;
    send(request, &url, hook.ca_file.as_deref()).await
}

async fn post(url: &str, body: &str, ca_file: Option<&Path>) -> anyhow::Result<()> {
    let request = Request::post("/")
        .header(CONTENT_TYPE, "application/json")
        .body(body.to_string())?;
    send(request, url, ca_file).await
}

fn url(url: Option<&str>, file: Option<&Path>) -> anyhow::Result<String> {
    match (url, file) {
        (Some(url), _) => Ok(url.to_string()),
        (None, Some(file)) => secret(file, "url_file"),
        (None, None) => Err(anyhow!("no url is named")),
    }
}

/// Sends a request; the answer must say that it was taken.
pub async fn send(
    request: Request<String>,
    url: &str,
    ca_file: Option<&Path>,
) -> anyhow::Result<()> {
    let answer = http_client::ask(request, url, ca_file, 0).await?;
    let told = format!("\"{}\" answered {}", answer.host, answer.status);
    match answer.status.as_u16() {
        200..=299 => Ok(()),
        // Too many at a time: the others would be as well.
        400..=428 | 430..=499 => Err(Refused(told).into()),
        _ => Err(anyhow!(told)),
    }
}

fn shortened(error: &anyhow::Error) -> String {
    one_line(error).chars().take(LONGEST_WHY).collect()
}
