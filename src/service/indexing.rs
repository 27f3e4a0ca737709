//! Keeps the index of the WAL up to date: with what the service itself stores at once, with everything else by polling
//! the repository now and then; records the names that relations have, and notes when the server is idle.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::status::Indexing;
use crate::error::one_line;
use crate::postgres::archive::EncodedFile;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::update::{ListScope, decode, take_in, update};
use crate::postgres::index::{Archived, Index, on_index};
use crate::postgres::replication::{ConnInfo, ResolveConnInfo};
use crate::postgres::types::WalFileName;
use crate::postgres::wal::Summary;
use crate::postgres::{idle, names};

/// Segments that were stored and wait to be put in; the repository tells of those that find no room.
const QUEUE: usize = 64;
/// Between two polls of the repository.
const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Segments without a summary that are read before anything else gets its turn.
const DECODED_AT_ONCE: usize = 4;
/// Between two questions whether the server is idle.
const IDLE_PAUSE: Duration = Duration::from_secs(5);
/// One poll of the repository reads all of it: what is gone is noticed.
const POLLS_PER_WHOLE: u32 = 24 * 60;

/// Resolves the settings of the connection to the server.
pub type SharedResolve = Arc<dyn Fn() -> anyhow::Result<ConnInfo> + Send + Sync>;

/// How the index is kept.
#[derive(Clone)]
pub struct IndexingOptions {
    /// The folder of the index.
    pub cache: PathBuf,
    /// Between two recordings of names, and between two questions whether the server is idle; zero: never.
    pub names_interval: Duration,
    pub resolve: SharedResolve,
}

impl std::fmt::Debug for IndexingOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            cache,
            names_interval,
            ..
        } = self;
        f.debug_struct("Options")
            .field("cache", cache)
            .field("names_interval", names_interval)
            .finish_non_exhaustive()
    }
}

/// Tells the owner what was stored, and others how far it is.
#[derive(Clone)]
pub struct IndexHandle {
    news: mpsc::Sender<(Archived, Box<Summary>)>,
    status: Arc<Mutex<Indexing>>,
    changed: watch::Receiver<()>,
    poll: Arc<Notify>,
}

impl IndexHandle {
    /// A file was stored just now.
    pub fn stored(&self, prepared: &mut EncodedFile) {
        if let (WalFileName::Segment(name), Some(summary)) =
            (prepared.name, prepared.description.summary.take())
        {
            let archived = Archived {
                name,
                bytes: prepared.memory(),
                stored_at: Utc::now(),
            };
            // Without room the next poll finds it.
            let _ = self.news.try_send((archived, summary));
        }
    }

    /// Tells when something came to the index.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.clone()
    }

    /// Polls the repository as soon as it can be.
    pub fn poll(&self) {
        self.poll.notify_one();
    }

    /// How far the index is.
    pub fn report(&self) -> Indexing {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What is under way beside.
enum Done {
    Polled(anyhow::Result<()>),
    Decoded(anyhow::Result<usize>),
    /// What is remembered, and how many names were new.
    Recorded(Box<NamesState>, anyhow::Result<u64>),
    /// What is remembered, and what is proven.
    Asked(
        Option<idle::IdleMemory>,
        anyhow::Result<Option<idle::IdleProof>>,
    ),
}

/// What recording names remembers.
#[derive(Default)]
struct NamesState {
    memory: names::NamesMemory,
    merging: names::Merging,
}

impl NamesState {
    /// Records what is new; then merges what is old.
    async fn record(
        &mut self,
        cluster: &Cluster,
        index: &Arc<Index>,
        resolve: ResolveConnInfo<'_>,
    ) -> anyhow::Result<u64> {
        let recorded = names::record(cluster, index, resolve, &mut self.memory).await?;
        names::merge_a_day(cluster, index, &mut self.merging, Utc::now()).await?;
        Ok(recorded)
    }
}

/// When the server is asked whether it is idle, and what it said.
#[derive(Default)]
struct Idle {
    memory: Option<idle::IdleMemory>,
    /// `None`: never, or not before the first poll has ended.
    next: Option<Instant>,
    asked: Option<Instant>,
    asking: bool,
    /// Why that failed last, until it does not.
    failed: Option<String>,
}

impl Idle {
    /// Asks as soon as it may: just after a switch the server has not written anything by itself yet.
    fn hasten(&mut self, now: Instant) {
        let soon = self.asked.map_or(now, |asked| now.max(asked + IDLE_PAUSE));
        self.next = self.next.map(|next| next.min(soon));
    }
}

/// Owns the index.
pub struct IndexActor {
    cluster: Cluster,
    index: Arc<Index>,
    options: IndexingOptions,
    news: mpsc::Receiver<(Archived, Box<Summary>)>,
    status: Arc<Mutex<Indexing>>,
    changed: watch::Sender<()>,
    /// Somebody wants a poll.
    poll: Arc<Notify>,
    jobs: JoinSet<Done>,
    /// Polls so far.
    polls: u32,
    next_poll: Instant,
    /// `None`: never, or not before the first poll has ended.
    next_names: Option<Instant>,
    idle: Idle,
    /// `None`: names are being recorded.
    names: Option<Box<NamesState>>,
    /// Why recording names failed last, until it does not.
    names_failed: Option<String>,
    /// There are segments to decode.
    behind: bool,
    polling: bool,
}

/// The owner, and what tells it. Blocking. An index that cannot be kept is made anew with each start.
pub fn new(
    cluster: Cluster,
    options: IndexingOptions,
) -> anyhow::Result<(IndexHandle, IndexActor)> {
    let index = Index::open(&options.cache, &cluster).or_else(|error| {
        tracing::warn!(
            "{}: it is made anew with each start of the service",
            one_line(&error)
        );
        Index::temporary(&cluster)
    })?;
    let (sender, news) = mpsc::channel(QUEUE);
    let indexing = Indexing {
        path: index.path().map(PathBuf::from),
        ..Indexing::default()
    };
    let status = Arc::new(Mutex::new(indexing));
    let ((changed, changes), poll) = (watch::channel(()), Arc::new(Notify::new()));
    let handle = IndexHandle {
        news: sender,
        status: status.clone(),
        changed: changes,
        poll: poll.clone(),
    };
    let owner = IndexActor {
        cluster,
        index: Arc::new(index),
        options,
        news,
        status,
        changed,
        poll,
        jobs: JoinSet::new(),
        polls: 0,
        next_poll: Instant::now(),
        next_names: None,
        idle: Idle::default(),
        names: Some(Box::default()),
        names_failed: None,
        behind: false,
        polling: false,
    };
    Ok((handle, owner))
}

/// Brings the index up to date. What answers are made of over HTTP is listed as often, so that is not listed twice.
pub(crate) async fn poll(
    index: &Arc<Index>,
    cluster: &Cluster,
    scope: ListScope,
) -> anyhow::Result<()> {
    match scope == ListScope::New && index.was_listed_within(POLL_INTERVAL) {
        true => take_in(index, cluster, scope, &|_| ()).await,
        false => update(index, cluster, scope, &|_| ()).await,
    }
}

impl IndexActor {
    /// The index, to be written.
    pub fn index(&self) -> Arc<Index> {
        self.index.clone()
    }

    /// The index, to be asked: by a connection of its own, which waits for no writing, unless only this one has it.
    pub async fn reader(&self) -> anyhow::Result<Arc<Index>> {
        let (index, cache, cluster) = (
            self.index.clone(),
            self.options.cache.clone(),
            self.cluster.clone(),
        );
        let open = move || match index.path() {
            Some(_) => Index::open(&cache, &cluster).map(Arc::new),
            None => Ok(index),
        };
        spawn_blocking(open).await?
    }

    /// Works until nobody stores any more. What is under way is given up then: it goes on at the next start.
    pub async fn run(mut self) -> anyhow::Result<()> {
        loop {
            self.start_due();
            let wake = self.wake_at();
            tokio::select! {
                news = self.news.recv() => match news {
                    Some((archived, summary)) => self.observe(archived, summary).await,
                    None => return Ok(()),
                },
                Some(ended) = self.jobs.join_next() => self.ended(ended).await?,
                () = self.poll.notified(), if !self.polling => self.next_poll = Instant::now(),
                () = sleep_until(wake) => (),
            }
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        let (index, cluster) = (self.index.clone(), self.cluster.clone());
        if !self.polling && self.next_poll <= now {
            let scope = if self.polls.is_multiple_of(POLLS_PER_WHOLE) {
                ListScope::All
            } else {
                ListScope::New
            };
            (self.polling, self.polls) = (true, self.polls.wrapping_add(1));
            self.jobs
                .spawn(async move { Done::Polled(poll(&index, &cluster, scope).await) });
        } else if !self.polling && self.behind {
            self.polling = true;
            self.jobs.spawn(async move {
                Done::Decoded(decode(&index, &cluster, DECODED_AT_ONCE).await)
            });
        }
        if self.next_names.is_some_and(|next| next <= now)
            && let Some(mut names) = self.names.take()
        {
            let (index, cluster, resolve) = (
                self.index.clone(),
                self.cluster.clone(),
                self.options.resolve.clone(),
            );
            self.jobs.spawn(async move {
                let recorded = names.record(&cluster, &index, &*resolve).await;
                Done::Recorded(names, recorded)
            });
        }
        if !self.idle.asking && self.idle.next.is_some_and(|next| next <= now) {
            let (index, cluster, resolve) = (
                self.index.clone(),
                self.cluster.clone(),
                self.options.resolve.clone(),
            );
            let mut memory = self.idle.memory;
            self.idle.asking = true;
            (self.idle.asked, self.idle.next) =
                (Some(now), Some(now + self.options.names_interval));
            self.jobs.spawn(async move {
                let asked = idle::observe(&cluster, &index, &*resolve, &mut memory).await;
                Done::Asked(memory, asked)
            });
        }
    }

    /// When there is something to do without being told.
    fn wake_at(&self) -> Instant {
        let names = self.next_names.filter(|_| self.names.is_some());
        let idle = self.idle.next.filter(|_| !self.idle.asking);
        let poll = (!self.polling).then_some(self.next_poll);
        [names, idle, poll]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + POLL_INTERVAL)
    }

    async fn observe(&mut self, archived: Archived, summary: Box<Summary>) {
        match on_index(&self.index, move |index| index.observe(archived, &summary)).await {
            Ok(()) => self.refresh().await,
            Err(error) => self.failed(archived.name, &error),
        }
        self.idle.hasten(Instant::now());
    }

    async fn ended(&mut self, ended: Result<Done, JoinError>) -> anyhow::Result<()> {
        match ended? {
            Done::Polled(polled) => {
                self.polling = false;
                self.next_poll = Instant::now() + POLL_INTERVAL;
                if self.next_names.is_none()
                    && self.names.is_some()
                    && !self.options.names_interval.is_zero()
                {
                    self.next_names = Some(Instant::now());
                    self.idle.next = Some(Instant::now());
                }
                match polled {
                    Ok(()) => self.status().looked_at = Some(Utc::now()),
                    Err(error) => self.failed("the repository", &error),
                }
                self.refresh().await;
            }
            Done::Decoded(decoded) => {
                self.polling = false;
                match decoded {
                    Ok(_) => self.refresh().await,
                    Err(error) => {
                        self.behind = false;
                        self.failed("the repository", &error);
                    }
                }
            }
            Done::Recorded(names, recorded) => {
                self.names = Some(names);
                self.next_names = Some(Instant::now() + self.options.names_interval);
                self.recorded(recorded);
            }
            Done::Asked(memory, asked) => {
                (self.idle.memory, self.idle.asking) = (memory, false);
                self.asked(asked);
            }
        }
        Ok(())
    }

    fn recorded(&mut self, recorded: anyhow::Result<u64>) {
        let why = recorded.as_ref().err().map(one_line);
        // A server that is down is not told every minute.
        if let Some(why) = why
            .as_ref()
            .filter(|why| self.names_failed.as_ref() != Some(why))
        {
            tracing::info!("the names of relations cannot be recorded: {why}");
        }
        let mut status = self.status();
        match (recorded, &why) {
            (Ok(names), _) => {
                status.names_read_at = Some(Utc::now());
                status.names += names;
            }
            (Err(_), why) => status
                .names_failed
                .note("names", why.as_deref().unwrap_or_default()),
        }
        drop(status);
        self.names_failed = why;
    }

    fn asked(&mut self, asked: anyhow::Result<Option<idle::IdleProof>>) {
        let why = asked.as_ref().err().map(one_line);
        if let Some(why) = why
            .as_ref()
            .filter(|why| self.idle.failed.as_ref() != Some(why))
        {
            tracing::info!("whether the server is idle cannot be noted: {why}");
        }
        let mut status = self.status();
        match (asked, &why) {
            (Ok(Some(proof)), _) => {
                status.proven = Some(proof.mark);
                if proof.is_stored {
                    status.idle.note(proof.mark.time);
                }
                self.changed.send_replace(());
            }
            (Ok(None), _) => (),
            (Err(_), why) => status
                .idle_failed
                .note("idle", why.as_deref().unwrap_or_default()),
        }
        drop(status);
        self.idle.failed = why;
    }

    /// Tells how far the index is.
    async fn refresh(&mut self) {
        match on_index(&self.index, |index| index.state()).await {
            Ok(state) => {
                self.changed.send_replace(());
                self.behind = state.not_indexed > state.unreadable;
                self.status().state = state;
            }
            Err(error) => self.failed("the index", &error),
        }
    }

    fn failed(&self, what: impl ToString, error: &anyhow::Error) {
        let why = one_line(error);
        tracing::info!("the index of the WAL is not up to date: {why}");
        self.status().failed.note(what, &why);
    }

    fn status(&self) -> std::sync::MutexGuard<'_, Indexing> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
