//! Stores what the archiver asks for, first; and while it is at it, what the archiver will ask for next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::ready::{self, Turn, Waiting};
use super::remembered::Remembered;
use super::status::{Archiving, Speed, backlog};
use super::watch::{self, FolderWatcher};
use super::{Options, memory, render};
use crate::budget::{Budget, Share};
use crate::postgres::archive::push::{wal_file_name, worst_memory};
use crate::postgres::archive::{Fingerprint, Prepared, Pusher, Stored};
use crate::postgres::types::WalFileName;

/// Requests that wait to be looked at.
const QUEUE: usize = 64;
/// Files remembered beyond those stored ahead: answered, but perhaps not yet noted by the archiver.
const ANSWERED: usize = 64;
/// Folders with files to archive: one a server; the one unused longest makes room.
const MOST_FOLDERS: usize = 8;
/// After a push that failed nothing is stored ahead for so long, then one file to see whether that has passed; each
/// further failure doubles it.
const FIRST_REST: Duration = Duration::from_secs(2);
/// No rest is longer: after an outage the backlog drains by itself, also while the archiver sleeps.
const LONGEST_REST: Duration = Duration::from_secs(15);
/// With nothing to do for so long, buffers are given back.
const IDLE: Duration = Duration::from_secs(2);

/// Asks the owner.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Message>,
}

enum Message {
    Push(Asked),
    Report(oneshot::Sender<Report>),
}

/// What was done so far, and what is needed to look at what waits.
struct Report {
    done: Archiving,
    folders: Vec<PathBuf>,
    stored: HashSet<PathBuf>,
}

struct Asked {
    path: PathBuf,
    /// What the file was when it was asked for; `None` when there is none.
    fingerprint: Option<Fingerprint>,
    reply: oneshot::Sender<Result<(), String>>,
}

/// A push in flight.
struct Running {
    /// Asked for before it began to read.
    asked: Option<Asked>,
    /// Asked for later: the file may have changed meanwhile.
    late: Vec<Asked>,
}

enum Event {
    Compressed {
        path: PathBuf,
        prepared: anyhow::Result<Box<Prepared>>,
        share: Share,
    },
    Stored {
        path: PathBuf,
        fingerprint: Option<Fingerprint>,
        stored: anyhow::Result<Stored>,
        broken: Option<(WalFileName, String)>,
    },
    /// A file that was stored before is asked for: whether the repository still has it.
    Confirmed {
        asked: Asked,
        there: bool,
    },
    Scanned {
        pg_wal: PathBuf,
        found: std::io::Result<(Vec<Turn>, bool)>,
    },
}

struct Folder {
    waiting: Waiting,
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
pub struct Owner {
    pusher: Pusher,
    budget: Budget,
    workers: usize,
    look_ahead: usize,
    requests: mpsc::Receiver<Message>,
    /// No more requests will come.
    closed: bool,
    queue: VecDeque<Asked>,
    running: HashMap<PathBuf, Running>,
    compressing: usize,
    jobs: JoinSet<Event>,
    remembered: Remembered,
    folders: HashMap<PathBuf, Folder>,
    watcher: Option<FolderWatcher>,
    news: mpsc::Receiver<PathBuf>,
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
}

/// The owner, and what asks it.
pub fn new(pusher: Pusher, options: &Options, budget: Budget) -> (Handle, Owner) {
    let (sender, requests) = mpsc::channel(QUEUE);
    let watch::Watching { watcher, news, lost } = watch::new(options.look_ahead > 0);
    let mut owner = Owner {
        pusher,
        budget,
        workers: options.workers.max(1),
        look_ahead: options.look_ahead,
        requests,
        closed: false,
        queue: VecDeque::new(),
        running: HashMap::new(),
        compressing: 0,
        jobs: JoinSet::new(),
        remembered: Remembered::new(options.look_ahead + ANSWERED),
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
    };
    if let Some(pg_wal) = options.pg_wal.as_deref().filter(|_| options.look_ahead > 0) {
        owner.folder(pg_wal);
    }
    (Handle { requests: sender }, owner)
}

impl Handle {
    /// Stores the file; durable when this returns. The error is text for the hook.
    pub async fn push(&self, path: PathBuf) -> Result<(), String> {
        wal_file_name(&path).map_err(|error| render(&error))?;
        let fingerprint = tokio::fs::metadata(&path).await.ok().map(|meta| Fingerprint::of(&meta));
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.send(Message::Push(Asked { path, fingerprint, reply })).await;
        let gone = || "ERROR: the service is stopping\nHINT: PostgreSQL asks again\n".to_string();
        sent.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// What was done so far, and what waits; `None` when the service is stopping.
    pub async fn report(&self) -> Option<Archiving> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Message::Report(reply)).await.ok()?;
        let Report { mut done, folders, stored } = answer.await.ok()?;
        let speed = done.files_per_second;
        let look = move || folders.iter().filter_map(|f| backlog(f, speed, |path| stored.contains(path))).collect();
        done.backlogs = tokio::task::spawn_blocking(look).await.ok()?;
        Some(done)
    }
}

impl Owner {
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
                    Some(Message::Push(asked)) => self.ask(asked),
                    // Who asked may have given up.
                    Some(Message::Report(reply)) => drop(reply.send(self.report())),
                    None => self.closed = true,
                },
                Some(ended) = self.jobs.join_next() => self.ended(ended)?,
                Some(path) = self.news.recv() => self.announced(&path),
                () = async { sleep_until(wake.unwrap_or_else(Instant::now)).await }, if wake.is_some() => self.cool_down(),
            }
        }
    }

    /// A request came.
    fn ask(&mut self, asked: Asked) {
        self.reach(&asked.path);
        match self.remembered.proves(&asked.path, asked.fingerprint) {
            Some(age) if age < self.fresh => answer(asked, Ok(())),
            Some(_) => {
                let pusher = self.pusher.clone();
                self.jobs.spawn(async move { Event::Confirmed { there: pusher.holds(&asked.path).await, asked } });
            }
            None => self.ask_anew(asked),
        }
    }

    /// What was asked for must be pushed.
    fn ask_anew(&mut self, asked: Asked) {
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

    fn start(&mut self, path: PathBuf, asked: Option<Asked>) {
        let (pusher, budget) = (self.pusher.clone(), self.budget.clone());
        let size = pusher.cluster().description.segment_size;
        self.compressing += 1;
        self.warm = true;
        self.running.insert(path.clone(), Running { asked, late: Vec::new() });
        self.jobs.spawn(async move {
            let worst = wal_file_name(&path).map_or(0, |name| worst_memory(&name, size));
            let mut share = budget.share(worst).await;
            let from = path.clone();
            let work = tokio::task::spawn_blocking(move || pusher.prepare(&from)).await;
            let prepared = work.unwrap_or_else(|panicked| Err(panicked.into()));
            let prepared = prepared.map(Box::new);
            share.shrink_to(prepared.as_ref().map_or(0, |prepared| prepared.memory()));
            Event::Compressed { path, prepared, share }
        });
    }

    fn ended(&mut self, ended: Result<Event, JoinError>) -> anyhow::Result<()> {
        match ended? {
            Event::Compressed { path, prepared, share } => {
                self.compressing -= 1;
                match prepared {
                    Ok(prepared) => self.store(prepared, share),
                    Err(error) => self.finish(&path, None, Err(error)),
                }
            }
            Event::Stored { path, fingerprint, stored, broken } => {
                broken.iter().for_each(|(name, why)| self.done.broken.note(name, why));
                self.finish(&path, fingerprint, stored);
            }
            Event::Confirmed { asked, there: true } => {
                self.rest = None;
                answer(asked, Ok(()));
            }
            Event::Confirmed { asked, there: false } => self.ask_anew(asked),
            Event::Scanned { pg_wal, found } => self.scanned(&pg_wal, found),
        }
        Ok(())
    }

    fn store(&mut self, prepared: Box<Prepared>, share: Share) {
        let pusher = self.pusher.clone();
        self.jobs.spawn(async move {
            let stored = pusher.store(&prepared).await;
            drop(share);
            let broken = prepared.broken().filter(|_| matches!(stored, Ok(Stored::Now)));
            let broken = broken.map(|stop| (prepared.name, stop.to_string()));
            Event::Stored { path: prepared.path, fingerprint: prepared.fingerprint, stored, broken }
        });
    }

    /// A push has ended, one way or the other.
    fn finish(&mut self, path: &Path, fingerprint: Option<Fingerprint>, stored: anyhow::Result<Stored>) {
        let Some(Running { asked, late }) = self.running.remove(path) else { return };
        let was_asked = asked.is_some();
        match stored {
            Ok(stored) => {
                tracing::debug!(ahead = !was_asked, "\"{}\": {stored:?}", path.display());
                // What had begun before the failure tells nothing.
                self.reach = self.look_ahead.min(self.reach.saturating_mul(2));
                if was_asked || self.rest.is_some_and(|rest| rest.until <= Instant::now()) {
                    self.rest = None;
                }
                self.done.stored.note(path.file_name().unwrap_or_default().to_string_lossy());
                self.done.ahead += u64::from(!was_asked);
                self.speed.note(Instant::now());
                self.remembered.put(path.to_path_buf(), fingerprint, was_asked);
                asked.into_iter().for_each(|asked| answer(asked, Ok(())));
                for asked in late {
                    // Proven to be the file that was stored, or pushed once more.
                    self.ask(asked);
                }
            }
            Err(error) => {
                self.rest(path);
                let text = render(&error);
                self.done.failed.note(path.file_name().unwrap_or_default().to_string_lossy(), &text);
                if !was_asked && late.is_empty() {
                    tracing::debug!("not stored ahead: {}", text.trim_end());
                }
                for asked in asked.into_iter().chain(late) {
                    answer(asked, Err(text.clone()));
                }
            }
        }
    }

    fn report(&self) -> Report {
        let files_per_second = self.speed.per_second(Instant::now());
        Report {
            done: Archiving { files_per_second, resting: self.rest.is_some(), ..self.done.clone() },
            folders: self.folders.keys().cloned().collect(),
            stored: self.remembered.all().map(Path::to_path_buf).collect(),
        }
    }

    /// When there is something to do without being told.
    fn wake_at(&self) -> Option<Instant> {
        let next = self.folders.values().filter_map(|folder| folder.waiting.next_at()).min();
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
            memory::trim();
        }
    }
}

fn answer(asked: Asked, result: Result<(), String>) {
    // Who asked may have given up.
    let _ = asked.reply.send(result);
}

/// Storing ahead.
impl Owner {
    fn may_look_ahead(&self) -> bool {
        let rested = |rest: Rest| rest.until <= Instant::now() && self.running.is_empty();
        self.rest.is_none_or(rested) && self.has_room_ahead()
    }

    /// A push failed: storing ahead rests, and comes back to this file.
    fn rest(&mut self, path: &Path) {
        let doubled = self.rest.map_or(FIRST_REST, |rest| LONGEST_REST.min(rest.length * 2));
        let until = Instant::now() + doubled;
        self.rest = Some(Rest { until, length: doubled });
        let turn = path.file_name().and_then(|name| name.to_str()).and_then(Turn::of);
        self.reach = 1;
        let (Some(pg_wal), Some(turn)) = (path.parent(), turn) else { return };
        // A file that nobody waits for is not tried again.
        if ready::is_waiting(pg_wal, &turn)
            && let Some(folder) = self.folders.get_mut(pg_wal)
        {
            folder.waiting.again(turn, until);
        }
    }

    fn has_room_ahead(&self) -> bool {
        let waiting = self.running.values().filter(|running| running.asked.is_none() && running.late.is_empty());
        let ahead = waiting.count();
        !self.closed
            && self.compressing < self.workers
            && ahead < self.reach
            && ahead + self.remembered.not_asked() < self.look_ahead
    }

    /// Starts what may be stored ahead now.
    fn look_ahead(&mut self) {
        if self.news_lost.swap(false, Ordering::SeqCst) {
            let all: Vec<PathBuf> = self.folders.keys().cloned().collect();
            all.into_iter().for_each(|pg_wal| self.scan(pg_wal));
        }
        while self.may_look_ahead() {
            let now = Instant::now();
            let mut folders = self.folders.iter_mut();
            let Some(path) = folders.find_map(|(pg_wal, folder)| Some(pg_wal.join(folder.waiting.take(now)?.name())))
            else {
                break;
            };
            if !self.running.contains_key(&path) && !self.remembered.knows(&path) {
                self.start(path, None);
            }
        }
        let used_up = |folder: &Folder| folder.waiting.more && folder.waiting.is_empty();
        let again: Vec<PathBuf> =
            self.folders.iter().filter(|(_, f)| used_up(f)).map(|(path, _)| path.clone()).collect();
        again.into_iter().for_each(|pg_wal| self.scan(pg_wal));
    }

    /// The archiver has come to this file.
    fn reach(&mut self, path: &Path) {
        let name = path.file_name().and_then(|name| name.to_str());
        let (Some(pg_wal), Some(turn)) = (path.parent(), name.and_then(Turn::of)) else { return };
        if self.look_ahead == 0 {
            return;
        }
        self.remembered.reached(pg_wal, &turn);
        let folder = self.folder(pg_wal);
        folder.used = Instant::now();
        folder.waiting.reached(&turn);
        if !folder.watched && folder.waiting.is_empty() {
            self.scan(pg_wal.to_path_buf());
        }
    }

    fn folder(&mut self, pg_wal: &Path) -> &mut Folder {
        if !self.folders.contains_key(pg_wal) {
            let oldest = self.folders.iter().min_by_key(|(_, folder)| folder.used).map(|(path, _)| path.clone());
            if let Some(oldest) = oldest.filter(|_| self.folders.len() >= MOST_FOLDERS) {
                self.folders.remove(&oldest);
                if let Some(watcher) = &mut self.watcher {
                    watcher.unwatch(&ready::status_folder(&oldest));
                }
            }
            // Watched first, scanned then: what becomes ready in between is seen twice, not never.
            let status = ready::status_folder(pg_wal);
            let watched = self.watcher.as_mut().is_some_and(|watcher| watcher.watch(&status));
            let folder = Folder { waiting: Waiting::default(), watched, scanning: false, used: Instant::now() };
            self.folders.insert(pg_wal.to_path_buf(), folder);
            self.scan(pg_wal.to_path_buf());
        }
        self.folders.get_mut(pg_wal).expect("it was put there")
    }

    fn scan(&mut self, pg_wal: PathBuf) {
        let Some(folder) = self.folders.get_mut(&pg_wal).filter(|folder| !folder.scanning) else { return };
        folder.scanning = true;
        folder.waiting.more = false;
        self.jobs.spawn(async move {
            let from = pg_wal.clone();
            let found = tokio::task::spawn_blocking(move || ready::scan(&from)).await;
            Event::Scanned { pg_wal, found: found.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked))) }
        });
    }

    fn scanned(&mut self, pg_wal: &Path, found: std::io::Result<(Vec<Turn>, bool)>) {
        let Some(folder) = self.folders.get_mut(pg_wal) else { return };
        folder.scanning = false;
        match found {
            Ok((turns, more)) => {
                let (running, remembered) = (&self.running, &self.remembered);
                let is_known = |turn: &Turn| {
                    let path = pg_wal.join(turn.name());
                    running.contains_key(&path) || remembered.knows(&path)
                };
                folder.waiting.found(turns, more, Instant::now(), is_known);
            }
            Err(error) => tracing::debug!("cannot read \"{}\": {error}", ready::status_folder(pg_wal).display()),
        }
    }

    /// The watcher reports a file in `archive_status`.
    fn announced(&mut self, status_file: &Path) {
        let pg_wal = status_file.parent().and_then(Path::parent);
        let (Some(pg_wal), Some(turn)) = (pg_wal, Turn::announced_by(status_file)) else { return };
        let path = pg_wal.join(turn.name());
        let known = self.running.contains_key(&path) || self.remembered.knows(&path);
        if let Some(folder) = self.folders.get_mut(pg_wal).filter(|_| !known) {
            folder.waiting.announce(turn, Instant::now());
        }
    }
}
