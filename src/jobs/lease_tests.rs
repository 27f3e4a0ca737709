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

use super::super::decide::Due;
use super::super::history::History;
use super::super::job::{Job, Lane};
use super::super::record::{RetryPolicy, RunState};
use super::super::runs::{Runs, Turn, Wanted};
use super::super::schedule::Schedule;
use super::*;
use crate::storage::{Body, IsOwnKey, Key, MemoryStorage, ObjectMeta, StorageError};

const LEASE: Duration = Duration::from_secs(60);
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
struct World {
    /// The one true time.
    now: Duration,
    random: Random,
    /// Whether anything goes wrong.
    is_rough: bool,
    /// Until when each runner may work, in true time.
    may_work: BTreeMap<usize, Duration>,
    begun: BTreeSet<RunId>,
    commits: u64,
}

type Shared = Arc<Mutex<World>>;

fn lock(world: &Shared) -> MutexGuard<'_, World> {
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

fn job() -> Job {
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
type Stepped = (Pin<Box<dyn Future<Output = ()>>>, Duration);

struct Model {
    world: Shared,
    memory: Arc<MemoryStorage>,
    runners: Vec<Stepped>,
}

impl Model {
    fn new(seed: u64) -> Self {
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

    fn runs(&self, me: usize) -> (Runs, Duration) {
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
    fn step(&mut self) {
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
fn finish<T>(future: impl Future<Output = T>) -> T {
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

fn try_seed(seed: u64) -> u64 {
    let mut model = Model::new(seed);
    (0..3000).for_each(|_| model.step());
    lock(&model.world).is_rough = false;
    (0..1500).for_each(|_| model.step());
    let (runs, _) = model.runs(0);
    let history = History {
        storage: model.memory.clone(),
        keys: JobKeys::new("main/jobs/".into()),
    };
    let kept = finish(history.runs(None)).unwrap();
    let running = finish(runs.leases.look("dump")).unwrap().unwrap();
    for run in &lock(&model.world).begun {
        let is_running = running
            .object
            .holder
            .as_ref()
            .is_some_and(|holder| holder.run == *run);
        assert!(
            kept.contains_key(run) || is_running,
            "seed {seed}: run {run} was forgotten"
        );
    }
    // What was missed while all went wrong is done.
    let settled = running.object.memory.settled;
    let now = runs.leases.clock.wall();
    assert!(
        now - settled < TimeDelta::minutes(8),
        "seed {seed}: settled {settled}, now {now}"
    );
    let folder = finish(crate::storage::list_all(&*model.memory, "main/jobs/dump/")).unwrap();
    assert!(
        folder.len() <= 4,
        "seed {seed}: old objects stay: {folder:?}"
    );
    let world = lock(&model.world);
    assert!(
        !world.begun.is_empty() && world.commits > 0,
        "seed {seed}: nothing was done"
    );
    world.begun.len() as u64
}

#[test]
fn never_two_at_once_and_none_forgotten_whatever_happens() {
    let seeds = match std::env::var_os("WALDEN_TEST_LONG") {
        Some(_) => 1000,
        None => 20,
    };
    let begun: u64 = (0..seeds).map(try_seed).sum();
    assert!(begun > 10 * seeds, "{begun} runs");
}

#[test]
fn a_holder_that_slept_cannot_renew_what_another_had_and_gave_back() {
    // The number that it would create was created and removed meanwhile: nothing is in its way.
    let mut model = Model::new(1);
    lock(&model.world).is_rough = false;
    model.runners.clear();
    let ((first, _), (second, _)) = (model.runs(0), model.runs(1));
    let job = job();
    lock(&model.world).now = Duration::from_secs(1200);
    let begin =
        |runs: &Runs, watch: &mut Watch| finish(runs.consider(&job, watch, Wanted::Now)).unwrap();
    let Turn::Run(mut slept) = begin(&first, &mut Watch::default()) else {
        panic!("the lease is free")
    };
    // It is stopped in the middle of its renewal.
    let world = model.world.clone();
    let mut renewal = Box::pin(first.leases.renew(&mut slept));
    assert!(
        renewal
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    let mut watch = Watch::default();
    assert!(matches!(begin(&second, &mut watch), Turn::Running(..)));
    lock(&world).now += LEASE;
    for _ in 0..4 {
        let Turn::Run(held) = begin(&second, &mut watch) else {
            panic!("the lease has expired")
        };
        let record = second.record("dump", &held.holder, RunState::Succeeded, None);
        finish(second.finish(*held, record)).unwrap();
    }
    assert!(
        !finish(renewal).unwrap(),
        "it must know that it has lost the lease"
    );
    assert!(first.leases.clock.boot() >= slept.valid_until());
    let late = first.record("dump", &slept.holder, RunState::Succeeded, None);
    let kept = finish(first.finish(*slept, late)).unwrap();
    assert_eq!(kept.state, RunState::Interrupted, "that was told already");
    let latest = finish(first.leases.look("dump")).unwrap().unwrap();
    assert!(latest.object.holder.is_none() && latest.generation > 6);
    assert_eq!(
        latest.object.memory.last.unwrap().state,
        RunState::Succeeded
    );
}

#[test]
fn an_answer_that_was_lost_costs_no_lease() {
    let mut model = Model::new(2);
    lock(&model.world).is_rough = false;
    model.runners.clear();
    let (runs, _) = model.runs(0);
    let Turn::Run(mut held) =
        finish(runs.consider(&job(), &mut Watch::default(), Wanted::Now)).unwrap()
    else {
        panic!("the lease is free")
    };
    // Stored, and given up before the answer came.
    {
        let mut renewal = Box::pin(runs.leases.renew(&mut held));
        for _ in 0..2 {
            assert!(
                renewal
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
        }
    }
    assert!(finish(runs.leases.renew(&mut held)).unwrap());
    let record = runs.record("dump", &held.holder, RunState::Succeeded, None);
    assert_eq!(
        finish(runs.finish(*held, record)).unwrap().state,
        RunState::Succeeded
    );
    let latest = finish(runs.leases.look("dump")).unwrap().unwrap();
    assert_eq!(latest.object.holder, None);
}

#[test]
fn a_job_that_nobody_saw_before_begins_with_its_next_moment() {
    let mut model = Model::new(3);
    lock(&model.world).is_rough = false;
    model.runners.clear();
    let (runs, _) = model.runs(0);
    let look = || finish(runs.consider(&job(), &mut Watch::default(), Wanted::SCHEDULED)).unwrap();
    let Turn::Idle(memory, Due::At(at)) = look() else {
        panic!("nothing is due")
    };
    assert_eq!(
        (memory.settled, at),
        (
            runs.leases.clock.wall(),
            "2026-11-30T00:02:00Z".parse().unwrap()
        )
    );
    lock(&model.world).now = Duration::from_secs(3600);
    let Turn::Run(held) = look() else {
        panic!("it is due")
    };
    assert_eq!(held.holder.purpose.missed, 29);
}

#[test]
fn a_schedule_is_unattended_until_a_runner_has_it() {
    let mut model = Model::new(3);
    lock(&model.world).is_rough = false;
    model.runners.clear();
    let (runs, _) = model.runs(0);
    let later = |seconds| lock(&model.world).now = Duration::from_secs(seconds);
    let is_unattended = |job: &Job| {
        let status = finish(runs.status(job, &mut Watch::default())).unwrap();
        status.unattended
    };
    assert!(is_unattended(&job()));
    later(3600);
    assert!(is_unattended(&job()), "however long nobody comes");
    finish(runs.consider(&job(), &mut Watch::default(), Wanted::SCHEDULED)).unwrap();
    later(3601);
    assert!(!is_unattended(&job()));
    let (cron, zone) = ("0 0 * * *".parse().unwrap(), "UTC".parse().unwrap());
    let changed = Job {
        schedule: job().schedule.map(|schedule| schedule.like(cron, zone)),
        ..job()
    };
    assert!(is_unattended(&changed), "a runner has the one before");
    let unscheduled = Job {
        schedule: None,
        ..job()
    };
    assert!(!is_unattended(&unscheduled));
}
