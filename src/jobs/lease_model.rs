//! Runners that are stopped, die, meet errors, and have wrong clocks, in every order that seeds give: a model whose only
//! unreal parts are the clocks and the order of the store's calls.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;

use super::super::job::{Job, Lane};
use super::super::record::{RetryPolicy, RunState};
use super::super::runs::{Runs, Turn, Wanted};
use super::super::schedule::Schedule;
use super::*;
use crate::storage::{Body, IsOwnKey, Key, MemoryStorage, ObjectMeta, StorageError};

pub(super) const LEASE: Duration = Duration::from_secs(60);
const RUNNERS: usize = 3;

/// SplitMix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What all runners share, and what the model sees of them.
#[derive(Debug)]
pub(super) struct World {
    /// The one true time.
    pub(super) now: Duration,
    random: Random,
    /// Whether anything goes wrong.
    pub(super) is_rough: bool,
    /// Until when each runner may work, in true time.
    may_work: BTreeMap<usize, Duration>,
    pub(super) begun: BTreeSet<RunId>,
    pub(super) commits: u64,
}

pub(super) type Shared = Arc<Mutex<World>>;

pub(super) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A runner's clocks: the one begins anywhere, the other is wrong.
#[derive(Debug)]
struct SkewedClock {
    world: Shared,
    up_before: Duration,
    ahead: TimeDelta,
}

impl Clock for SkewedClock {
    fn wall(&self) -> DateTime<Utc> {
        let now = TimeDelta::from_std(lock(&self.world).now).unwrap();
        "2026-11-30T00:00:30Z".parse::<DateTime<Utc>>().unwrap() + now + self.ahead
    }

    fn boot(&self) -> Boot {
        Boot::after(lock(&self.world).now + self.up_before)
    }
}

/// Lets the others have their turn.
async fn turn() {
    let mut is_over = false;
    std::future::poll_fn(|_| match std::mem::replace(&mut is_over, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// A store whose calls take turns before and after they are carried out, and fail now and then on either side.
#[derive(Debug)]
struct SteppedStorage {
    inner: Arc<MemoryStorage>,
    world: Shared,
}

impl SteppedStorage {
    async fn step<T>(
        &self,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        turn().await;
        self.fail()?;
        let done = call.await?;
        turn().await;
        self.fail()?;
        Ok(done)
    }

    fn fail(&self) -> Result<(), StorageError> {
        let mut world = lock(&self.world);
        match world.is_rough && world.random.below(60) == 0 {
            true => Err(StorageError {
                operation: "put",
                key: String::new(),
                store: "model".into(),
                lasting: false,
                source: anyhow!("it failed"),
            }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Storage for SteppedStorage {
    fn describe(&self) -> String {
        "model".into()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        self.step(self.inner.put(key, body, mode)).await
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.step(self.inner.get(key, range)).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.step(self.inner.head(key)).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.step(self.inner.list(folder, after)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.step(self.inner.delete(key)).await
    }

    async fn sweep(&self, _: Duration, _: IsOwnKey<'_>) -> Result<u64, StorageError> {
        Ok(0)
    }
}

pub(super) fn job() -> Job {
    let schedule = Schedule::new(
        "*/2 * * * *".parse().unwrap(),
        "UTC".parse().unwrap(),
        Duration::ZERO,
    );
    Job {
        name: "dump",
        schedule: Some(schedule),
        lane: Lane::Short,
        deadline: Duration::from_secs(3600),
        arguments: Ok(Vec::new()),
    }
}

fn runs(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, me: usize) -> Runs {
    let retry = RetryPolicy {
        retries: 3,
        after: Duration::from_secs(30),
    };
    Runs::new(
        storage,
        "main/jobs/".into(),
        clock,
        format!("host-{me}"),
        retry,
        [LEASE, Duration::from_secs(1 << 20)],
    )
}

/// A runner, for ever.
async fn runner(me: usize, world: Shared, runs: Runs, up_before: Duration) {
    let (job, mut watch) = (job(), Watch::default());
    loop {
        turn().await;
        let considered = runs.consider(&job, &mut watch, Wanted::SCHEDULED).await;
        if let Ok(Turn::Run(held)) = considered {
            // What fails here stands in the lease until that expires.
            let _ = work(me, &world, &runs, *held, up_before).await;
        }
        lock(&world).may_work.remove(&me);
    }
}

async fn work(
    me: usize,
    world: &Shared,
    runs: &Runs,
    mut held: Held,
    up_before: Duration,
) -> anyhow::Result<()> {
    let may_work = |held: &Held| held.valid_until().elapsed().saturating_sub(up_before);
    {
        let mut world = lock(world);
        world.begun.insert(held.holder.run.clone());
        world.may_work.insert(me, may_work(&held));
    }
    let steps = lock(world).random.below(30);
    for step in 0..steps {
        turn().await;
        if step % 4 == 3 && !runs.leases.renew(&mut held).await.unwrap_or(true) {
            break;
        }
        lock(world).may_work.insert(me, may_work(&held));
        runs.leases.remove_old(&held).await;
        // The fence: looked at before each step that counts.
        if runs.leases.clock.boot() >= held.valid_until() {
            break;
        }
        lock(world).commits += 1;
    }
    let is_whole = runs.leases.clock.boot() < held.valid_until();
    lock(world).may_work.remove(&me);
    let state = if is_whole {
        RunState::Succeeded
    } else {
        RunState::Interrupted
    };
    let record = runs.record("dump", &held.holder, state, None);
    runs.finish(held, record).await?;
    Ok(())
}

/// A runner, and until when it is stopped.
pub(super) type Stepped = (Pin<Box<dyn Future<Output = ()>>>, Duration);

pub(super) struct Model {
    pub(super) world: Shared,
    pub(super) memory: Arc<MemoryStorage>,
    pub(super) runners: Vec<Stepped>,
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        let world = Arc::new(Mutex::new(World {
            now: Duration::ZERO,
            random: Random(seed),
            is_rough: true,
            may_work: BTreeMap::new(),
            begun: BTreeSet::new(),
            commits: 0,
        }));
        let mut model = Self {
            world,
            memory: Arc::default(),
            runners: Vec::new(),
        };
        for me in 0..RUNNERS {
            let begun = (model.start(me), Duration::ZERO);
            model.runners.push(begun);
        }
        model
    }

    pub(super) fn runs(&self, me: usize) -> (Runs, Duration) {
        let up_before = Duration::from_secs(1000 * me as u64);
        let clock = SkewedClock {
            world: self.world.clone(),
            up_before,
            ahead: TimeDelta::minutes([0, 7, -25][me % 3]),
        };
        let storage = SteppedStorage {
            inner: self.memory.clone(),
            world: self.world.clone(),
        };
        (runs(Arc::new(storage), Arc::new(clock), me), up_before)
    }

    fn start(&self, me: usize) -> Pin<Box<dyn Future<Output = ()>>> {
        let (runs, up_before) = self.runs(me);
        Box::pin(runner(me, self.world.clone(), runs, up_before))
    }

    /// One runner does one step, is stopped, or dies; the others wait.
    pub(super) fn step(&mut self) {
        let (now, me, luck) = {
            let mut world = lock(&self.world);
            let span = world.random.below(1000);
            world.now += Duration::from_millis(span);
            let me = world.random.below(RUNNERS as u64) as usize;
            let luck = if world.is_rough {
                world.random.below(400)
            } else {
                400
            };
            (world.now, me, luck)
        };
        let working = lock(&self.world)
            .may_work
            .values()
            .filter(|until| **until > now)
            .count();
        assert!(
            working <= 1,
            "{working} runners may work at {now:?}: {:?}",
            lock(&self.world).may_work
        );
        match luck {
            // Killed, and started anew.
            0 => {
                self.runners[me] = (self.start(me), now);
                lock(&self.world).may_work.remove(&me);
            }
            // Stopped, for up to four leases.
            1..5 => {
                let span = lock(&self.world).random.below(4 * LEASE.as_millis() as u64);
                self.runners[me].1 = now + Duration::from_millis(span);
            }
            _ => {
                let (runner, stopped_until) = &mut self.runners[me];
                if *stopped_until <= now {
                    let polled = runner
                        .as_mut()
                        .poll(&mut Context::from_waker(Waker::noop()));
                    assert!(polled.is_pending());
                }
            }
        }
    }
}

/// Runs a future whose store never waits.
pub(super) fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    loop {
        if let Poll::Ready(done) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return done;
        }
    }
}
