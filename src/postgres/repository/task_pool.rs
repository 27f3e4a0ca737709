use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Work in parallel, bounded. Each answers whether its object is as it must be.
pub struct TaskPool {
    slots: Arc<Semaphore>,
    tasks: JoinSet<anyhow::Result<bool>>,
    all: bool,
}

impl TaskPool {
    /// So many at once.
    pub fn new(workers: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(workers.max(1))),
            tasks: JoinSet::new(),
            all: true,
        }
    }

    /// Begins work as soon as there is room. Errors: of work that was begun before.
    pub async fn add(
        &mut self,
        work: impl Future<Output = anyhow::Result<bool>> + Send + 'static,
    ) -> anyhow::Result<()> {
        let slot = self.slots.clone().acquire_owned().await?;
        while let Some(done) = self.tasks.try_join_next() {
            self.all &= done??;
        }
        self.tasks.spawn(async move {
            let done = work.await;
            drop(slot);
            done
        });
        Ok(())
    }

    /// Waits for all work; whether every object is as it must be.
    pub async fn finish(mut self) -> anyhow::Result<bool> {
        while let Some(done) = self.tasks.join_next().await {
            self.all &= done??;
        }
        Ok(self.all)
    }
}
