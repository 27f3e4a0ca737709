//! Stores the file that the archiver asks for first, and then those that it will ask for next.

mod ahead;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::ready::{FolderIdentity, ReadyFile, ReadyFiles};
use super::recent_pushes::RecentPushes;
use super::status::{Archiving, Speed, backlog};
use super::watch::{self, FolderWatcher, News};
use super::{ServiceOptions, allocator, indexing, render};
use crate::budget::{Budget, Share};
use crate::metrics::{Durations, Phase};
use crate::postgres::archive::push::{wal_file_name, worst_memory};
use crate::postgres::archive::{
    EncodedFile, Fingerprint, PushOutcome, Pusher, refuse_other_cluster,
};
use crate::postgres::types::{SystemIdentifier, WalFileName};

/// Requests that wait to be looked at.
const QUEUE: usize = 64;
/// Files remembered beyond those stored ahead: answered, but perhaps not yet noted by the archiver.
const ANSWERED: usize = 64;
/// With nothing to do for so long, buffers are given back.
const IDLE: Duration = Duration::from_secs(2);

/// Asks the owner.
#[derive(Clone)]
pub struct PushHandle {
    requests: mpsc::Sender<PushMessage>,
    system_identifier: SystemIdentifier,
}

enum PushMessage {
    Push(PendingPush),
    /// Another cluster's, and why it was not taken.
    Refused(PathBuf, String),
    Report(oneshot::Sender<PushReport>),
}

/// What was done so far, and what is needed to look at what waits.
struct PushReport {
    done: Archiving,
    folders: Vec<PathBuf>,
    stored: HashSet<PathBuf>,
}

struct PendingPush {
    path: PathBuf,
    /// What the file was when it was asked for; `None` when there is none.
    fingerprint: Option<Fingerprint>,
    /// What its folder was then.
    folder: Option<FolderIdentity>,
    reply: oneshot::Sender<Result<(), String>>,
}

/// A push in flight.
struct Running {
    /// Asked for before it began to read.
    asked: Option<PendingPush>,
    /// Asked for later: the file may have changed meanwhile.
    late: Vec<PendingPush>,
}

enum PushEvent {
    Compressed {
        path: PathBuf,
        prepared: anyhow::Result<Box<EncodedFile>>,
        share: Share,
    },
    Stored {
        path: PathBuf,
        fingerprint: Option<Fingerprint>,
        stored: anyhow::Result<PushOutcome>,
        broken: Option<(WalFileName, String)>,
    },
    /// A file that was stored before is asked for: whether the repository still has it.
    Confirmed { asked: PendingPush, there: bool },
    Scanned {
        pg_wal: PathBuf,
        found: std::io::Result<(Vec<ReadyFile>, bool)>,
    },
}

struct ArchiveFolder {
    /// `None`: it was not a server's, or was removed since.
    identity: Option<FolderIdentity>,
    waiting: ReadyFiles,
    /// News of it arrive by themselves.
    watched: bool,
    scanning: bool,
    used: Instant,
}

/// A pause in storing ahead.
#[derive(Clone, Copy)]
struct Rest {
    until: Instant,
    length: Duration,
}

/// Owns all state of pushing.
pub struct PushActor {
    pusher: Pusher,
    indexing: indexing::IndexHandle,
    budget: Budget,
    workers: usize,
    look_ahead: usize,
    requests: mpsc::Receiver<PushMessage>,
    /// No more requests will come.
    closed: bool,
    queue: VecDeque<PendingPush>,
    running: HashMap<PathBuf, Running>,
    compressing: usize,
    jobs: JoinSet<PushEvent>,
    recent: RecentPushes,
    folders: HashMap<PathBuf, ArchiveFolder>,
    watcher: Option<FolderWatcher>,
    news: mpsc::Receiver<News>,
    news_lost: Arc<AtomicBool>,
    /// Files that were stored this recently are answered for without asking the repository again.
    fresh: Duration,
    /// Pushes fail.
    rest: Option<Rest>,
    /// Files stored ahead at once: one after a failure, twice as many after each that was stored.
    reach: usize,
    /// Buffers may be held.
    warm: bool,
    done: Archiving,
    speed: Speed,
    durations: Durations,
}

/// The owner, and what asks it.
pub fn new(
    pusher: Pusher,
    indexing: indexing::IndexHandle,
    options: &ServiceOptions,
    budget: Budget,
    durations: Durations,
) -> (PushHandle, PushActor) {
    let (sender, requests) = mpsc::channel(QUEUE);
    let watch::Watching {
        watcher,
        news,
        lost,
    } = watch::new(options.look_ahead > 0);
    let system_identifier = pusher.cluster().description.system_identifier;
    let mut owner = PushActor {
        pusher,
        indexing,
        budget,
        workers: options.workers.max(1),
        look_ahead: options.look_ahead,
        requests,
        closed: false,
        queue: VecDeque::new(),
        running: HashMap::new(),
        compressing: 0,
        jobs: JoinSet::new(),
        recent: RecentPushes::new(options.look_ahead + ANSWERED),
        folders: HashMap::new(),
        watcher,
        news,
        news_lost: lost,
        fresh: options.fresh,
        rest: None,
        reach: options.look_ahead,
        warm: false,
        done: Archiving::default(),
        speed: Speed::default(),
        durations,
    };
    if let Some(pg_wal) = options.pg_wal.as_deref() {
        owner.folder(pg_wal, FolderIdentity::of(pg_wal));
    }
    (
        PushHandle {
            requests: sender,
            system_identifier,
        },
        owner,
    )
}

impl PushHandle {
    /// Stores the file; durable when this returns. The error is text for the hook.
    pub async fn push(&self, path: PathBuf) -> Result<(), String> {
        wal_file_name(&path).map_err(|error| render(&error))?;
        let whose = refuse_other_cluster(&path, self.system_identifier, "archive-command").await;
        if let Err(why) = whose.map_err(|error| render(&error)) {
            let refused = PushMessage::Refused(path, why.clone());
            drop(self.requests.send(refused).await);
            return Err(why);
        }
        let (reply, answer) = oneshot::channel();
        let look = move || PendingPush {
            fingerprint: std::fs::metadata(&path)
                .ok()
                .map(|meta| Fingerprint::of(&meta)),
            folder: path.parent().and_then(FolderIdentity::of),
            path,
            reply,
        };
        let asked = tokio::task::spawn_blocking(look)
            .await
            .map_err(|panicked| render(&panicked.into()))?;
        let sent = self.requests.send(PushMessage::Push(asked)).await;
        let gone = || "ERROR: the service is stopping\nHINT: PostgreSQL asks again\n".to_string();
        sent.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// What was done so far, and what waits; `None` when the service is stopping.
    pub async fn report(&self) -> Option<Archiving> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(PushMessage::Report(reply)).await.ok()?;
        let PushReport {
            mut done,
            folders,
            stored,
        } = answer.await.ok()?;
        // What went well before says nothing while pushes fail.
        let speed = done.files_per_second.filter(|_| !done.resting);
        let look = move || {
            folders
                .iter()
                .filter_map(|f| backlog(f, speed, |path| stored.contains(path)))
                .collect()
        };
        done.backlogs = tokio::task::spawn_blocking(look).await.ok()?;
        Some(done)
    }
}

impl PushActor {
    /// Works until nobody can ask any more and all is done.
    pub async fn run(mut self) -> anyhow::Result<()> {
        loop {
            self.start_asked();
            self.look_ahead();
            if self.closed && self.queue.is_empty() && self.jobs.is_empty() {
                return Ok(());
            }
            let wake = self.wake_at();
            tokio::select! {
                message = self.requests.recv(), if !self.closed => match message {
                    Some(PushMessage::Push(asked)) => self.ask(asked),
                    Some(PushMessage::Refused(path, why)) => {
                        self.done.refused.note(path.display(), &why);
                    }
                    // Who asked may have given up.
                    Some(PushMessage::Report(reply)) => drop(reply.send(self.report())),
                    None => self.closed = true,
                },
                Some(ended) = self.jobs.join_next() => self.ended(ended)?,
                Some(news) = self.news.recv() => match news {
                    News::Appeared(path) => self.announced(&path),
                    News::Gone(folder) => self.gone(&folder),
                },
                () = async { sleep_until(wake.unwrap_or_else(Instant::now)).await }, if wake.is_some() => self.cool_down(),
            }
        }
    }

    /// A request came.
    fn ask(&mut self, mut asked: PendingPush) {
        self.reach(&mut asked);
        match self.recent.proves(&asked.path, asked.fingerprint) {
            Some(age) if age < self.fresh => answer(asked, Ok(())),
            Some(_) => {
                let pusher = self.pusher.clone();
                self.jobs.spawn(async move {
                    PushEvent::Confirmed {
                        there: pusher.holds(&asked.path).await,
                        asked,
                    }
                });
            }
            None => self.ask_anew(asked),
        }
    }

    /// What was asked for must be pushed.
    fn ask_anew(&mut self, asked: PendingPush) {
        match self.running.get_mut(&asked.path) {
            Some(running) => running.late.push(asked),
            None => self.queue.push_back(asked),
        }
    }

    fn start_asked(&mut self) {
        while self.compressing < self.workers
            && let Some(asked) = self.queue.pop_front()
        {
            match self.running.get_mut(&asked.path) {
                Some(running) => running.late.push(asked),
                None => self.start(asked.path.clone(), Some(asked)),
            }
        }
    }

    fn start(&mut self, path: PathBuf, asked: Option<PendingPush>) {
        let (pusher, budget) = (self.pusher.clone(), self.budget.clone());
        let size = pusher.cluster().description.segment_size;
        let durations = self.durations.clone();
        self.compressing += 1;
        self.warm = true;
        self.running.insert(
            path.clone(),
            Running {
                asked,
                late: Vec::new(),
            },
        );
        self.jobs.spawn(async move {
            let worst = wal_file_name(&path).map_or(0, |name| worst_memory(&name, size));
            let mut share = budget.share(worst).await;
            let from = path.clone();
            let work = tokio::task::spawn_blocking(move || pusher.prepare(&from));
            let work = durations.time(Phase::PushPrepare, work).await;
            let prepared = work.unwrap_or_else(|panicked| Err(panicked.into()));
            let prepared = prepared.map(Box::new);
            share.shrink_to(prepared.as_ref().map_or(0, |prepared| prepared.memory()));
            PushEvent::Compressed {
                path,
                prepared,
                share,
            }
        });
    }

    fn ended(&mut self, ended: Result<PushEvent, JoinError>) -> anyhow::Result<()> {
        match ended? {
            PushEvent::Compressed {
                path,
                prepared,
                share,
            } => {
                self.compressing -= 1;
                match prepared {
                    Ok(prepared) => self.store(prepared, share),
                    Err(error) => self.finish(&path, None, Err(error)),
                }
            }
            PushEvent::Stored {
                path,
                fingerprint,
                stored,
                broken,
            } => {
                broken
                    .iter()
                    .for_each(|(name, why)| self.done.broken.note(name, why));
                self.finish(&path, fingerprint, stored);
            }
            PushEvent::Confirmed { asked, there: true } => {
                self.rest = None;
                answer(asked, Ok(()));
            }
            PushEvent::Confirmed {
                asked,
                there: false,
            } => self.ask_anew(asked),
            PushEvent::Scanned { pg_wal, found } => self.scanned(&pg_wal, found),
        }
        Ok(())
    }

    fn store(&mut self, mut prepared: Box<EncodedFile>, share: Share) {
        let (pusher, indexing, durations) = (
            self.pusher.clone(),
            self.indexing.clone(),
            self.durations.clone(),
        );
        self.jobs.spawn(async move {
            let stored = durations
                .time(Phase::PushStore, pusher.store(&prepared))
                .await;
            drop(share);
            let broken = prepared
                .broken()
                .filter(|_| matches!(stored, Ok(PushOutcome::Now)));
            let broken = broken.map(|stop| (prepared.name, stop.to_string()));
            if matches!(stored, Ok(PushOutcome::Now | PushOutcome::Before)) {
                indexing.stored(&mut prepared);
            }
            PushEvent::Stored {
                path: prepared.path,
                fingerprint: prepared.fingerprint,
                stored,
                broken,
            }
        });
    }

    /// A push has ended, one way or the other.
    fn finish(
        &mut self,
        path: &Path,
        fingerprint: Option<Fingerprint>,
        stored: anyhow::Result<PushOutcome>,
    ) {
        let Some(Running { asked, late }) = self.running.remove(path) else {
            return;
        };
        let was_asked = asked.is_some();
        match stored {
            Ok(stored) => {
                tracing::debug!(ahead = !was_asked, "\"{}\": {stored:?}", path.display());
                // What had begun before the failure tells nothing.
                self.reach = self.look_ahead.min(self.reach.saturating_mul(2));
                if was_asked || self.rest.is_some_and(|rest| rest.until <= Instant::now()) {
                    self.rest = None;
                }
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                self.done.stored.note(&name);
                // Under its own name is something else, so that proves nothing the next time.
                let fingerprint = fingerprint.filter(|_| stored != PushOutcome::Aside);
                if stored == PushOutcome::Aside {
                    self.done.aside.note(&name);
                }
                self.done.ahead += u64::from(!was_asked);
                self.speed.note(Instant::now());
                self.recent.put(path.to_path_buf(), fingerprint, was_asked);
                asked.into_iter().for_each(|asked| answer(asked, Ok(())));
                for asked in late {
                    // Proven to be the file that was stored, or pushed once more.
                    self.ask(asked);
                }
            }
            Err(error) => {
                self.rest(path);
                let (text, name) = (render(&error), path.file_name().unwrap_or_default());
                self.done
                    .note_failed(&name.to_string_lossy(), &error, &text);
                if !was_asked && late.is_empty() {
                    tracing::debug!("not stored ahead: {}", text.trim_end());
                }
                for asked in asked.into_iter().chain(late) {
                    answer(asked, Err(text.clone()));
                }
            }
        }
    }

    fn report(&self) -> PushReport {
        let files_per_second = self.speed.per_second(Instant::now());
        PushReport {
            done: Archiving {
                files_per_second,
                resting: self.rest.is_some(),
                ..self.done.clone()
            },
            folders: self.folders.keys().cloned().collect(),
            stored: self.recent.all().map(Path::to_path_buf).collect(),
        }
    }

    /// When there is something to do without being told.
    fn wake_at(&self) -> Option<Instant> {
        let next = self
            .folders
            .values()
            .filter_map(|folder| folder.waiting.next_at())
            .min();
        let ahead = match self.rest {
            _ if !self.has_room_ahead() => None,
            Some(rest) if self.running.is_empty() => next.map(|next| next.max(rest.until)),
            Some(_) => None,
            None => next,
        };
        let cool = (self.warm && self.running.is_empty()).then(|| Instant::now() + IDLE);
        [ahead, cool].into_iter().flatten().min()
    }

    fn cool_down(&mut self) {
        if self.running.is_empty() && self.queue.is_empty() {
            self.warm = false;
            self.pusher.trim();
            allocator::trim();
        }
    }
}

fn answer(asked: PendingPush, result: Result<(), String>) {
    // Who asked may have given up.
    let _ = asked.reply.send(result);
}
