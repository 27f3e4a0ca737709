use std::time::Duration;

use chrono::{DateTime, Utc};

/// A moment of CLOCK_BOOTTIME: it never jumps, and goes on while the process is stopped or the machine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(Duration);

impl Boot {
    /// So long after the machine started.
    pub fn after(span: Duration) -> Self {
        Self(span)
    }

    /// How long after the machine started it is.
    pub fn elapsed(self) -> Duration {
        self.0
    }

    /// So much later.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// The time since an earlier moment; none since a later one.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The two clocks: which moment of the schedule it is, and how much time has passed.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// May be wrong, and may jump.
    fn wall(&self) -> DateTime<Utc>;

    /// Passes as fast everywhere; begins anywhere.
    fn boot(&self) -> Boot;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct MachineClock;

impl Clock for MachineClock {
    fn wall(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn boot(&self) -> Boot {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or_default();
        Boot(Duration::new(seconds, nanoseconds))
    }
}
