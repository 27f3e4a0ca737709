//! Bytes of memory that work in flight shares.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are counted in units of so many bytes.
const UNIT: u64 = 4096;

/// Bytes that all work in flight shares. First come, first served.
#[derive(Clone)]
pub struct Budget {
    permits: Arc<Semaphore>,
    total: u32,
}

/// A part of the budget, given back when dropped.
pub struct Share(OwnedSemaphorePermit);

impl Budget {
    /// A budget of `bytes`, all free.
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes.div_ceil(UNIT))
            .unwrap_or(u32::MAX)
            .max(1);
        Self {
            permits: Arc::new(Semaphore::new(total as usize)),
            total,
        }
    }

    /// Waits for `bytes`; who needs more than there is waits for all of it and goes alone.
    pub async fn share(&self, bytes: u64) -> Share {
        let units = u32::try_from(bytes.div_ceil(UNIT))
            .unwrap_or(u32::MAX)
            .min(self.total);
        let permit = self.permits.clone().acquire_many_owned(units).await;
        Share(permit.expect("the budget is never closed"))
    }
}

/// For work that nobody waits for.
impl Budget {
    /// `bytes`, if as much again is left for others now.
    pub fn spare(&self, bytes: u64) -> Option<Share> {
        let units = u32::try_from((2 * bytes).div_ceil(UNIT))
            .unwrap_or(u32::MAX)
            .min(self.total);
        let mut share = Share(self.permits.clone().try_acquire_many_owned(units).ok()?);
        share.shrink_to(bytes);
        Some(share)
    }
}

impl Share {
    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let keep = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        drop(self.0.split(self.0.num_permits().saturating_sub(keep)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_needs_more_than_there_is_goes_alone() {
        let budget = Budget::new(64 << 20);
        let mut first = budget.share(60 << 20).await;
        let waits =
            |bytes| tokio::time::timeout(std::time::Duration::from_millis(20), budget.share(bytes));
        assert!(waits(16 << 20).await.is_err(), "it does not fit yet");
        first.shrink_to(3 << 20);
        let second = waits(16 << 20).await.expect("it fits now");
        assert!(waits(1 << 40).await.is_err(), "it must be alone");
        drop((first, second));
        assert!(waits(1 << 40).await.is_ok());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_leaves_room_for_one_more() {
        let budget = Budget::new(64 << 20);
        let ahead: Vec<Option<Share>> = (0..4).map(|_| budget.spare(16 << 20)).collect();
        assert_eq!(ahead.iter().flatten().count(), 3);
        drop(
            tokio::time::timeout(std::time::Duration::ZERO, budget.share(16 << 20))
                .await
                .expect("there is room"),
        );
        assert!(Budget::new(1).spare(16 << 20).is_some(), "alone");
    }
}
