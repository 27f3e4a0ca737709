//! One look: what is seen is compared with the state, the next state is stored, and people are told.

use std::time::Duration;

use chrono::Utc;
use tokio::time::{Instant, timeout};

use super::channels::{Channels, SEND_TIME};
use super::decide::{Policy, decide, due, settle, unreachable};
use super::state::{AlertState, Seen, Sender};
use super::store::AlertStore;
use crate::error::one_line;
use crate::storage::until;

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
    /// While the repository cannot be reached.
    alone: AlertState,
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
            alone: AlertState::default(),
        })
    }

    /// Looks once. Errors: the state could not be read or stored; nobody was told then, or once more the next time.
    pub async fn look(&mut self, seen: &Seen) -> anyhow::Result<Evaluated> {
        for _ in 0..ROUNDS {
            let (number, state) = within(self.store.latest()).await?;
            let unkept = self.unkept.take().filter(|(at, _)| *at == number);
            let is_kept = unkept.is_none();
            let state = unkept.map_or(state, |(_, state)| state);
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
            let tells = !(deliveries.is_empty() && beats.is_empty());
            next.sender = tells.then(|| self.own.clone());
            let is_same = is_kept && next == state;
            if !is_same
                && !self
                    .put(number, &next, (!is_kept).then_some(&state))
                    .await?
            {
                continue;
            }
            if tells {
                let number = if is_same { number } else { number + 1 };
                let outcomes = self.channels.send(&deliveries, &beats).await;
                next = settle(&next, &outcomes, Utc::now());
                self.keep(number, &next).await;
            }
            let is_elsewhere = false;
            return Ok(Evaluated {
                state: next,
                is_elsewhere,
            });
        }
        anyhow::bail!("others decide about the alerts all the time")
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
            Ok(false) => tracing::warn!("alerts: sending took so long that another one took over"),
            Err(error) => {
                tracing::debug!("alerts: {}", one_line(&error));
                self.unkept = Some((number, state.clone()));
            }
        }
    }

    /// Tells whether the repository can be reached, by what this process remembers. `why`: it cannot.
    pub async fn reach(&mut self, why: Option<&str>) {
        let seen = Seen {
            conditions: why.map(unreachable).into_iter().collect(),
            ..Seen::default()
        };
        let policy = Policy {
            heartbeats: Vec::new(),
            ..self.policy.clone()
        };
        let now = Utc::now();
        let next = decide(&self.alone, &seen, &policy, now);
        let (deliveries, _) = due(&next, &seen, &policy, now);
        let outcomes = self.channels.send(&deliveries, &[]).await;
        self.alone = settle(&next, &outcomes, Utc::now());
    }
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
