//! Registers figures.

use std::sync::atomic::AtomicU64;

use chrono::{DateTime, Utc};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What is shown.
pub struct Show(pub Registry);

impl Show {
    /// A value.
    pub fn value(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    /// A number.
    pub fn number(&mut self, name: &str, help: &str, number: u64) {
        self.value(name, help, number as f64);
    }

    /// A point in time; nothing when there is none.
    pub fn time(&mut self, name: &str, help: &str, time: Option<DateTime<Utc>>) {
        if let Some(time) = time {
            self.value(&format!("{name}_timestamp_seconds"), help, seconds(time));
        }
    }

    /// One value for each set of labels; nothing when there is none.
    pub fn labelled<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, String); N], f64)>,
    ) {
        let family = Family::<Vec<(&str, String)>, Gauge<f64, AtomicU64>>::default();
        let mut is_known = false;
        for (labels, value) in values {
            family.get_or_create(&labels.to_vec()).set(value);
            is_known = true;
        }
        if is_known {
            self.0.register(name, help, family);
        }
    }

    /// What only grows while the service runs.
    pub fn count(&mut self, name: &str, help: &str, count: u64) {
        let counter: Counter = Counter::default();
        counter.inc_by(count);
        self.0.register(name, help, counter);
    }
}

/// Since the epoch.
pub fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp_micros() as f64 / 1e6
}
