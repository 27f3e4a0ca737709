//! Delivers what recovery asks for; and while that is being replayed, fetches what recovery will ask for next.

mod ahead;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::allocator;
use super::fetch_to_spool::{by_real_folder, make, obtain_into, read_history, retrieve};
use super::request::{FetchFailure, FetchReply, FetchRequest, PendingFetch};
use super::session::{IDLE, RecoverySession, SessionFile};
use super::spool::Spool;
use super::standby_retry::retry_for_standby;
use super::status::Fetching;
use crate::budget::Budget;
use crate::error::with_hint;
use crate::metrics::{Durations, Phase};
use crate::postgres::archive::absence::is_beyond;
use crate::postgres::archive::{Fetcher, refuse_other_cluster};
use crate::postgres::types::{SegmentSize, SystemIdentifier, TimelineHistory, WalFileName};

/// Requests that wait to be looked at.
const QUEUE: usize = 64;
/// With nothing in flight for so long, buffers are given back.
const COOL: Duration = Duration::from_secs(2);

/// Asks the owner.
#[derive(Clone)]
pub struct FetchHandle {
    requests: mpsc::Sender<FetchMessage>,
    system_identifier: SystemIdentifier,
}

enum FetchMessage {
    Fetch(PendingFetch),
    Report(oneshot::Sender<Fetching>),
}

enum FetchEvent {
    Obtained {
        folder: PathBuf,
        name: WalFileName,
        result: anyhow::Result<Option<PathBuf>>,
        /// When a proof that there is no such file began.
        proof: Option<Instant>,
        history: Option<TimelineHistory>,
    },
    Tidied,
}

/// Owns all state of fetching.
pub struct FetchActor {
    fetcher: Fetcher,
    budget: Budget,
    prefetch: usize,
    size: SegmentSize,
    requests: mpsc::Receiver<FetchMessage>,
    closed: bool,
    /// By the folder of the destination.
    sessions: HashMap<PathBuf, RecoverySession>,
    jobs: JoinSet<FetchEvent>,
    warm: bool,
    /// Files fetched ahead are made durable before PostgreSQL asks for them.
    syncs: bool,
    done: Fetching,
    durations: Durations,
}

/// The owner, which fetches `prefetch` segments ahead, and what asks it.
pub fn new(
    fetcher: Fetcher,
    prefetch: usize,
    budget: Budget,
    durations: Durations,
) -> (FetchHandle, FetchActor) {
    let (sender, requests) = mpsc::channel(QUEUE);
    let size = fetcher.cluster().description.segment_size;
    let system_identifier = fetcher.cluster().description.system_identifier;
    let owner = FetchActor {
        fetcher,
        budget,
        prefetch,
        size,
        requests,
        closed: false,
        sessions: HashMap::new(),
        jobs: JoinSet::new(),
        warm: false,
        syncs: false,
        done: Fetching::default(),
        durations,
    };
    (
        FetchHandle {
            requests: sender,
            system_identifier,
        },
        owner,
    )
}

impl FetchActor {
    /// For a server on this host: PostgreSQL syncs each file that it is given before it replays on, so those fetched
    /// ahead are synced while it replays others.
    pub fn syncing(self) -> Self {
        Self {
            syncs: true,
            ..self
        }
    }
}

impl FetchHandle {
    /// Gets a file ready beside its destination, or says that there is none.
    pub async fn fetch(&self, mut request: FetchRequest) -> Result<FetchReply, FetchFailure> {
        let whose = refuse_other_cluster(
            &request.destination,
            self.system_identifier,
            "restore-command",
        )
        .await;
        whose.map_err(|error| FetchFailure::of(&error))?;
        let named = request.destination.clone();
        request.destination = by_real_folder(request.destination).await;
        let (reply, answer) = oneshot::channel();
        let gone = || {
            FetchFailure::of(&with_hint(
                anyhow!("the service is stopping"),
                "start `walden serve`, then recovery",
            ))
        };
        self.requests
            .send(FetchMessage::Fetch(PendingFetch {
                request,
                named,
                at: Instant::now(),
                reply,
            }))
            .await
            .map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// What was done so far; `None` when the service is stopping.
    pub async fn report(&self) -> Option<Fetching> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(FetchMessage::Report(reply)).await.ok()?;
        answer.await.ok()
    }
}

impl FetchActor {
    /// Works until nobody can ask any more and all is done; leaves no spool.
    pub async fn run(mut self) -> anyhow::Result<()> {
        loop {
            if self.closed && self.jobs.is_empty() {
                break;
            }
            let wake = self.wake_at();
            tokio::select! {
                message = self.requests.recv(), if !self.closed => match message {
                    Some(FetchMessage::Fetch(asked)) => self.ask(asked),
                    // Who asked may have given up.
                    Some(FetchMessage::Report(reply)) => drop(reply.send(self.done.clone())),
                    None => self.closed = true,
                },
                Some(ended) = self.jobs.join_next() => self.ended(ended)?,
                () = async { sleep_until(wake.unwrap_or_else(Instant::now)).await }, if wake.is_some() => self.cool_down(),
            }
        }
        let spools: Vec<Spool> = self
            .sessions
            .into_values()
            .map(|session| session.spool)
            .collect();
        tokio::task::spawn_blocking(move || spools.iter().for_each(Spool::clear)).await?;
        Ok(())
    }

    fn ask(&mut self, asked: PendingFetch) {
        if asked.reply.is_closed() {
            return;
        }
        if let WalFileName::Segment(segment) = asked.request.name
            && is_beyond(asked.request.end, segment, self.size)
        {
            return answer(asked, Ok(FetchReply::Absent));
        }
        let folder = asked
            .request
            .destination
            .parent()
            .unwrap_or(Path::new("/"))
            .to_path_buf();
        let session = match self.session(&folder) {
            Ok(session) => session,
            Err(error) => return answer(asked, Err(FetchFailure::of(&error.into()))),
        };
        session.used = Instant::now();
        session.end = asked.request.end;
        let name = asked.request.name;
        match session.entries.get_mut(&name) {
            Some(SessionFile::Coming { waiting, .. }) => waiting.push(asked),
            Some(SessionFile::Here { place, ahead, .. }) => {
                let (place, ahead) = (std::mem::take(place), *ahead);
                session.entries.remove(&name);
                self.done.ahead += u64::from(ahead);
                // Gone when the data directory was removed and made anew.
                match place.exists() {
                    true => self.hand_over(folder, place, asked),
                    false => self.obtain(folder, asked),
                }
            }
            None => self.obtain(folder, asked),
        }
    }

    /// Leaves a file in the spool to who asked for it.
    fn hand_over(&mut self, folder: PathBuf, place: PathBuf, asked: PendingFetch) {
        let name = asked.request.name;
        self.done.delivered.note(name);
        answer(asked, Ok(FetchReply::Ready(place.clone())));
        let Some(session) = self.sessions.get_mut(&folder) else {
            return;
        };
        let left = session.hand_out(place);
        if !left.is_empty() {
            self.tidy(move || {
                left.iter()
                    .for_each(|place| drop(std::fs::remove_file(place)))
            });
        }
        if let (WalFileName::Segment(segment), Some(session)) =
            (name, self.sessions.get_mut(&folder))
        {
            session.last = Some(segment);
            session.halted = false;
            self.fetch_ahead(&folder);
        }
    }

    fn session(&mut self, folder: &Path) -> io::Result<&mut RecoverySession> {
        if !self.sessions.contains_key(folder) {
            let spool = Spool::beside(folder)?;
            let old = spool.clone();
            self.tidy(move || old.remove_leftovers());
            let session = RecoverySession::new(spool);
            self.sessions.insert(folder.to_path_buf(), session);
        }
        Ok(self.sessions.get_mut(folder).expect("it was put there"))
    }

    /// Fetches for somebody: with the proof when there is no such file.
    fn obtain(&mut self, folder: PathBuf, asked: PendingFetch) {
        let FetchRequest { name, end, .. } = asked.request;
        let named = asked.named.clone();
        let (fetcher, budget, bytes) = (
            self.fetcher.clone(),
            self.budget.clone(),
            self.memory_of(&name),
        );
        let Some(session) = self.sessions.get_mut(&folder) else {
            return;
        };
        session.entries.insert(
            name,
            SessionFile::Coming {
                waiting: vec![asked],
                ahead: false,
            },
        );
        let place = session.spool.place(&name);
        let spool = session.spool.clone();
        let next_proof = session.next_proof_at(&name);
        let durations = self.durations.clone();
        self.warm = true;
        self.jobs.spawn(async move {
            let obtain = async {
                let _share = budget.share(bytes).await;
                make(&spool).await?;
                let obtain = || obtain_into(&fetcher, &spool, name, &place, end);
                retry_for_standby(fetcher.limit(), &named, &name, obtain).await
            };
            let mut proof = None;
            let work = async {
                if let Some(at) = next_proof {
                    // What came meanwhile is delivered at once; that nothing came is proven anew, in its time.
                    let look = async {
                        let _share = budget.share(bytes).await;
                        retrieve(&fetcher, &spool, name, &place).await
                    };
                    // Whatever went wrong, the proof will tell.
                    if matches!(look.await, Ok(true)) {
                        return Ok(true);
                    }
                    sleep_until(at).await;
                }
                proof = Some(Instant::now());
                obtain.await
            };
            let result = durations
                .time(Phase::Fetch, work)
                .await
                .map(|obtained| obtained.then_some(place));
            let history = match (&result, name) {
                (Ok(Some(place)), WalFileName::History(_)) => read_history(place, name).await,
                _ => None,
            };
            FetchEvent::Obtained {
                folder,
                name,
                result,
                proof,
                history,
            }
        });
    }

    /// A compressed file is held in memory whole; it is hardly ever longer than the plain one.
    fn memory_of(&self, name: &WalFileName) -> u64 {
        match name {
            WalFileName::Segment(_) | WalFileName::Partial(_) | WalFileName::Aside { .. } => {
                self.size.bytes()
            }
            WalFileName::History(_) | WalFileName::Backup { .. } => 0,
        }
    }

    fn ended(&mut self, ended: Result<FetchEvent, JoinError>) -> anyhow::Result<()> {
        match ended? {
            FetchEvent::Obtained {
                folder,
                name,
                result,
                proof,
                history,
            } => {
                if let Some(session) = self.sessions.get_mut(&folder) {
                    session.history = history.or(session.history.take());
                }
                self.obtained(folder, name, result, proof);
            }
            FetchEvent::Tidied => (),
        }
        Ok(())
    }

    fn obtained(
        &mut self,
        folder: PathBuf,
        name: WalFileName,
        result: anyhow::Result<Option<PathBuf>>,
        proof: Option<Instant>,
    ) {
        let Some(session) = self.sessions.get_mut(&folder) else {
            return;
        };
        let Some(SessionFile::Coming { waiting, ahead }) = session.entries.remove(&name) else {
            return;
        };
        match result {
            Ok(Some(place)) => {
                let missed = (!waiting.is_empty()).then(Instant::now);
                session.entries.insert(
                    name,
                    SessionFile::Here {
                        place,
                        ahead,
                        missed,
                    },
                );
                session.reach = self.prefetch.min(session.reach.saturating_mul(2)).max(1);
                // One gets the file; should there be more, they ask again. Who is gone asks later.
                waiting.into_iter().for_each(|asked| self.ask(asked));
                self.fetch_ahead(&folder);
            }
            Ok(None) if ahead => {
                (session.halted, session.reach) = (true, 1);
                waiting.into_iter().for_each(|asked| self.ask(asked));
            }
            Err(error) if ahead => {
                tracing::debug!("not fetched ahead: {error:#}");
                (session.halted, session.reach) = (true, 1);
                waiting.into_iter().for_each(|asked| self.ask(asked));
            }
            Ok(None) => {
                if let Some(began) = proof {
                    session.note_absent(name, began);
                }
                self.done.absent.note(name);
                for asked in waiting {
                    match proof.is_some_and(|began| asked.at <= began) {
                        true => answer(asked, Ok(FetchReply::Absent)),
                        // The repository had been looked into before: it may have come since.
                        false => self.ask(asked),
                    }
                }
            }
            Err(error) => {
                let failure = FetchFailure::of(&error);
                self.done.failed.note(name, &failure.text());
                waiting
                    .into_iter()
                    .for_each(|asked| answer(asked, Err(failure.clone())));
            }
        }
    }

    /// Runs work on the file system that nobody waits for.
    fn tidy(&mut self, work: impl FnOnce() + Send + 'static) {
        self.jobs.spawn(async move {
            if let Err(panicked) = tokio::task::spawn_blocking(work).await {
                tracing::warn!("tidying the spool failed: {panicked}");
            }
            FetchEvent::Tidied
        });
    }

    fn wake_at(&self) -> Option<Instant> {
        let resting = self
            .sessions
            .values()
            .filter(|session| session.coming() == 0);
        let oldest = resting.map(|session| session.used + IDLE).min();
        let cool = (self.warm && self.jobs.is_empty()).then(|| Instant::now() + COOL);
        [oldest, cool].into_iter().flatten().min()
    }

    fn cool_down(&mut self) {
        let now = Instant::now();
        let is_stale =
            |session: &RecoverySession| session.used + IDLE <= now && session.coming() == 0;
        let stale: Vec<PathBuf> = self
            .sessions
            .iter()
            .filter(|(_, session)| is_stale(session))
            .map(|(folder, _)| folder.clone())
            .collect();
        for folder in stale {
            if let Some(session) = self.sessions.remove(&folder) {
                self.tidy(move || session.spool.clear());
            }
        }
        if self.jobs.is_empty() {
            self.warm = false;
            allocator::trim();
        }
    }
}

fn answer(asked: PendingFetch, result: Result<FetchReply, FetchFailure>) {
    // Who asked may have given up.
    let _ = asked.reply.send(result);
}
