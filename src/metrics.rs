//! How long the service's work takes, by phase.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

/// Bounds of the histograms: from 1 ms doubled up to 65 s.
const FIRST_SECONDS: f64 = 0.001;
const BUCKETS: u16 = 17;

/// A step of the service's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading, digesting and compressing a file to be archived.
    PushPrepare,
    /// Storing it, until it is durable.
    PushStore,
    /// From a question for a file until it lies ready or is proven absent.
    Fetch,
    /// The same ahead of being asked.
    FetchAhead,
    /// Reading what the repository has, for answers over HTTP.
    ReadRepository,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::PushPrepare => "push_prepare",
            Self::PushStore => "push_store",
            Self::Fetch => "fetch",
            Self::FetchAhead => "fetch_ahead",
            Self::ReadRepository => "read_repository",
        }
    }
}

/// The label `phase`.
type Label = [(&'static str, &'static str); 1];

/// Durations of all phases. Clones share what was measured.
#[derive(Debug, Clone)]
pub struct Durations(Family<Label, Histogram, fn() -> Histogram>);

impl Default for Durations {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| {
            Histogram::new(exponential_buckets(FIRST_SECONDS, 2.0, BUCKETS))
        }))
    }
}

impl Durations {
    /// Does the work and notes how long it took.
    pub async fn time<T>(&self, phase: Phase, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let result = work.await;
        self.0
            .get_or_create(&[("phase", phase.name())])
            .observe(began.elapsed().as_secs_f64());
        result
    }

    /// Adds them to what is shown.
    pub fn register(&self, registry: &mut Registry) {
        let help = "How long a step of the service's work took, also when it failed";
        registry.register("phase_duration_seconds", help, self.0.clone());
    }
}
