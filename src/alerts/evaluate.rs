//! One look: what is seen is compared with the state, the next state is stored, and people are told.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout};

use super::channels::{Channels, SEND_TIME};
use super::decide::{Policy, decide, due, is_news, settle};
use super::state::{AlertState, Seen, Sender};
use super::store::AlertStore;
use crate::error::{find, one_line};
use crate::storage::{StorageError, until};

/// How long reading or storing the state may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// After this without a new state, who told people counts as gone: longer than that can take.
const CLAIM: Duration = Duration::from_secs(SEND_TIME.as_secs() + 30);
/// How often another one may be first.
const ROUNDS: usize = 20;

/// What came of a look.
#[derive(Debug)]
pub struct Evaluated {
    pub state: AlertState,
    /// Somebody else tells people just now: look again.
    pub is_elsewhere: bool,
}

/// Looks again and again.
#[derive(Debug)]
pub struct Evaluator {
    pub store: AlertStore,
    pub policy: Policy,
    pub channels: Channels,
    own: Sender,
    /// The number at which somebody else was telling people, and since when.
    watched: Option<(u64, Instant)>,
    /// What became of our messages, where that could not be stored behind this number.
    unkept: Option<(u64, AlertState)>,
    /// Successes that our heartbeats told, of which not each is stored.
    beats: BTreeMap<String, DateTime<Utc>>,
}

impl Evaluator {
    /// Nothing was seen yet.
    pub fn new(store: AlertStore, policy: Policy, channels: Channels) -> anyhow::Result<Self> {
        let id = format!("{:016x}", getrandom::u64()?);
        let host = channels.origin.host.clone();
        Ok(Self {
            store,
            policy,
            channels,
            own: Sender { id, host },
            watched: None,
            unkept: None,
            beats: BTreeMap::new(),
        })
    }

    /// Looks once. Errors: the state could not be read or stored; nobody was told then, or once more the next time.
    pub async fn look(&mut self, seen: &Seen) -> anyhow::Result<Evaluated> {
        for _ in 0..ROUNDS {
            let (number, state) = within(self.store.latest()).await?;
            let unkept = self.unkept.take().filter(|(at, _)| *at == number);
            let is_kept = unkept.is_none();
            let stored = unkept.map_or(state, |(_, state)| state);
            let state = with_beats(&stored, &self.beats);
            if self.is_elsewhere(number, &state) {
                let is_elsewhere = true;
                return Ok(Evaluated {
                    state,
                    is_elsewhere,
                });
            }
            let now = Utc::now();
            let mut next = decide(&state, seen, &self.policy, now);
            let (deliveries, beats) = due(&next, seen, &self.policy, now);
            // A heartbeat that two send does no harm.
            next.sender = (!deliveries.is_empty()).then(|| self.own.clone());
            let is_same = is_kept && next == state;
            if !is_same
                && !self
                    .put(number, &next, (!is_kept).then_some(&state))
                    .await?
            {
                continue;
            }
            if !(deliveries.is_empty() && beats.is_empty()) {
                let (number, stored) = match is_same {
                    true => (number, stored),
                    false => (number + 1, next.clone()),
                };
                let outcomes = self.channels.send(&deliveries, &beats).await;
                next = settle(&next, &outcomes, Utc::now());
                if is_news(&stored, &next, &self.policy) {
                    self.keep(number, &next).await;
                }
            }
            self.beats = next.heartbeats.clone();
            let is_elsewhere = false;
            return Ok(Evaluated {
                state: next,
                is_elsewhere,
            });
        }
        anyhow::bail!("others decide about the alerts all the time")
    }

    /// What fires and what is over, for who has nobody to tell: nothing is stored.
    pub async fn judge(&self, seen: &Seen) -> anyhow::Result<AlertState> {
        let (_, state) = within(self.store.latest()).await?;
        Ok(decide(&state, seen, &self.policy, Utc::now()))
    }

    /// Stores the next state. `unkept`: the one before was not stored either; where this is not, it is remembered still.
    async fn put(
        &mut self,
        number: u64,
        next: &AlertState,
        unkept: Option<&AlertState>,
    ) -> anyhow::Result<bool> {
        let put = within(self.store.put(number + 1, next)).await;
        if put.is_err() {
            self.unkept = unkept.map(|unkept| (number, unkept.clone()));
        }
        put
    }

    /// Whether somebody else is telling people, and gave a sign within its time.
    fn is_elsewhere(&mut self, number: u64, state: &AlertState) -> bool {
        let other = state.sender.as_ref().filter(|sender| **sender != self.own);
        if other.is_none() {
            self.watched = None;
            return false;
        }
        let since = match self.watched {
            Some((at, since)) if at == number => since,
            _ => Instant::now(),
        };
        self.watched = Some((number, since));
        since.elapsed() < CLAIM
    }

    /// Stores what became of the messages. Where that is not possible it is remembered: nobody is told again.
    async fn keep(&mut self, number: u64, state: &AlertState) {
        match within(self.store.put(number + 1, state)).await {
            Ok(true) => (),
            // Heartbeats alone claim nothing.
            Ok(false) => tracing::debug!("alerts: another one was first to store what was sent"),
            Err(error) => {
                tracing::debug!("alerts: {}", one_line(&error));
                self.unkept = Some((number, state.clone()));
            }
        }
    }
}

fn with_beats(state: &AlertState, beats: &BTreeMap<String, DateTime<Utc>>) -> AlertState {
    let mut next = state.clone();
    for (name, at) in beats {
        let told = next.heartbeats.entry(name.clone()).or_insert(*at);
        *told = (*told).max(*at);
    }
    next
}

/// Why nothing can be told of anything else.
pub fn not_judged(error: &anyhow::Error) -> String {
    let what = match find::<StorageError>(error) {
        Some(_) => "the repository cannot be reached",
        None => "the alerts cannot be judged",
    };
    format!("{what}: {}", one_line(error))
}

async fn within<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let slow = |_| {
        anyhow::anyhow!(
            "the repository did not answer within {} s",
            PATIENCE.as_secs()
        )
    };
    timeout(PATIENCE, until(Instant::now() + PATIENCE, work))
        .await
        .map_err(slow)?
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
