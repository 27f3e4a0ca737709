//! Takes requests from the hook socket and answers them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use chrono::{DateTime, Utc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::request::{FetchReply, FetchRequest};
use super::served_cluster::ServedCluster;
use super::socket::Socket;
use super::status::{Http, ServiceStatus};
use super::{ServiceOptions, fetches, indexing, peer_credentials, pushes, render};
use crate::error::{Hint, with_hint};
use crate::postgres::types::SegmentName;
use crate::storage::RECEIVED;
use crate::wire::{HookRequest, MAX_TEXT, REQUEST_HEADER, Reply, WORKING_SECONDS, WireError};

/// A request is short and sent at once: who takes longer is no hook program.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Beyond the bounds of the work itself, for waiting its turn.
pub const QUEUE_TIME: Duration = Duration::from_secs(15);
/// After an accept that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket's owner.
pub struct HookConnections {
    socket: Socket,
    asker: Asker,
    places: Arc<Semaphore>,
}

/// What one connection needs.
#[derive(Clone)]
struct Asker {
    pushes: pushes::PushHandle,
    fetches: fetches::FetchHandle,
    indexing: indexing::IndexHandle,
    about: Arc<ServiceInfo>,
    ours: ServedCluster,
    /// After this an answer is given, whatever it is.
    longest: Duration,
}

/// What the service says of itself.
#[derive(Clone)]
pub struct ServiceInfo {
    pub started_at: DateTime<Utc>,
    pub cluster: String,
    pub repository: String,
    /// `None`: HTTP is off.
    pub http: Option<watch::Receiver<Http>>,
}

impl ServiceInfo {
    /// What it is doing; `None` when it is stopping.
    pub async fn status(
        &self,
        pushes: &pushes::PushHandle,
        fetches: &fetches::FetchHandle,
        indexing: &indexing::IndexHandle,
    ) -> Option<ServiceStatus> {
        Some(ServiceStatus {
            version: env!("CARGO_PKG_VERSION").to_string(),
            pid: std::process::id(),
            started_at: self.started_at,
            cluster: self.cluster.clone(),
            repository: self.repository.clone(),
            http: self.http.as_ref().map(|http| http.borrow().clone()),
            archiving: pushes.report().await?,
            fetching: fetches.report().await?,
            indexing: indexing.report(),
        })
    }
}

impl HookConnections {
    /// Answers on `socket`.
    pub fn new(
        socket: Socket,
        pushes: pushes::PushHandle,
        fetches: fetches::FetchHandle,
        indexing: indexing::IndexHandle,
        options: &ServiceOptions,
        about: ServiceInfo,
        ours: ServedCluster,
    ) -> Self {
        let longest = options.timeout + QUEUE_TIME;
        let places = Arc::new(Semaphore::new(options.max_connections.max(1)));
        Self {
            socket,
            asker: Asker {
                pushes,
                fetches,
                indexing,
                about: Arc::new(about),
                ours,
                longest,
            },
            places,
        }
    }

    /// Serves until `stopped` says so, then until the last request is answered.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            let next = async {
                // Further ones wait in the socket's queue.
                let place = self.places.clone().acquire_owned().await;
                (place, self.socket.listener.accept().await)
            };
            tokio::select! {
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                (place, accepted) = next => match accepted {
                    Ok((stream, _)) => {
                        let asker = self.asker.clone();
                        connections.spawn(async move {
                            asker.serve(stream).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!("cannot accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.socket);
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
        Ok(())
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a connection's task failed: {error}");
    }
}

impl Asker {
    async fn serve(&self, mut stream: UnixStream) {
        let reply = match timeout(REQUEST_TIME, receive(&mut stream)).await {
            Ok(Ok(Received::Request(request))) => match self.answer(&mut stream, request).await {
                Some(reply) => reply,
                None => return tracing::debug!("who asked for a file is gone"),
            },
            Ok(Ok(Received::Nothing)) => return,
            // The hook takes silence for no service, and does the work itself.
            Ok(Ok(Received::Foreign(error))) => {
                return self.ours.tell(&format!(
                    "a request got no answer, since {}: install walden, archive-command and restore-command of one \
                     version, and restart `walden serve`",
                    error.text()
                ));
            }
            Ok(Err(error)) => {
                tracing::warn!("{error:#}");
                Reply::Failed(render(&error).into_bytes())
            }
            Err(_) => {
                return tracing::warn!(
                    "a request did not come to its end within {} s",
                    REQUEST_TIME.as_secs()
                );
            }
        };
        if let Err(error) = stream.write_all(&reply.encode()).await {
            // The hook was killed meanwhile. What it asked for is stored or not, and not delivered; PostgreSQL will ask
            // again.
            tracing::debug!("nobody waits for the answer any more: {error}");
        }
    }

    /// Works on a request and says so now and then. `None`: who wanted a file is gone.
    async fn answer(&self, stream: &mut UnixStream, request: HookRequest) -> Option<Reply> {
        let fetches = matches!(request, HookRequest::Fetch { .. });
        let (mut reader, mut writer) = stream.split();
        let mut received = RECEIVED.load(Ordering::Relaxed);
        let work = timeout(self.longest, self.work(request));
        tokio::pin!(work);
        let pause = Duration::from_secs(WORKING_SECONDS);
        let mut ticks = interval_at(Instant::now() + pause, pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                // A hook says nothing more. What is fetched waits for the next one.
                _ = reader.read_u8(), if fetches => return None,
                _ = ticks.tick() => {
                    let before = std::mem::replace(&mut received, RECEIVED.load(Ordering::Relaxed));
                    let sign = if fetches && received != before { Reply::Coming } else { Reply::Working };
                    // When nobody listens any more, storing still ends.
                    let _ = writer.write_all(&sign.encode()).await;
                }
            }
        };
        Some(match result {
            Ok(Ok(reply)) => reply,
            Ok(Err(text)) => {
                tracing::warn!("{}", text.trim_end().replace('\n', " "));
                Reply::Failed(text.into_bytes())
            }
            Err(_) => {
                let error = anyhow!("there is no answer after {} s", self.longest.as_secs());
                let text = render(&with_hint(
                    error,
                    "look at the service's log; PostgreSQL asks again",
                ));
                tracing::warn!("{}", text.trim_end().replace('\n', " "));
                Reply::Failed(text.into_bytes())
            }
        })
    }

    async fn work(&self, request: HookRequest) -> Result<Reply, String> {
        if let Some(whose) = request.whose()
            && let Some(why) = self.ours.refusal(whose).await
        {
            return Ok(Reply::NotMine(why.into_bytes()));
        }
        match request {
            HookRequest::Serves { .. } => Ok(Reply::Done),
            HookRequest::Push { path, .. } => {
                let path = absolute(path).map_err(|error| render(&error))?;
                self.pushes.push(path).await.map(|()| Reply::Done)
            }
            HookRequest::Fetch { name, destination, end, .. } => {
                let fetch = fetch_request(&name, destination, &end).map_err(|error| render(&error))?;
                match self.fetches.fetch(fetch).await.map_err(|failure| failure.text())? {
                    FetchReply::Ready(path) => Ok(Reply::Delivered { path: path.into_os_string().into_vec() }),
                    FetchReply::Absent => Ok(Reply::Absent),
                }
            }
            HookRequest::Status => self.status().await.ok_or_else(|| {
                "ERROR: the service is stopping\nHINT: ask again once it runs: it is started with `walden serve`\n"
                    .to_string()
            }),
        }
    }

    async fn status(&self) -> Option<Reply> {
        let mut status = self
            .about
            .status(&self.pushes, &self.fetches, &self.indexing)
            .await?;
        // Cut, it could not be read.
        while serde_json::to_vec(&status).ok()?.len() > MAX_TEXT
            && status.archiving.backlogs.pop().is_some()
        {}
        Some(Reply::Status(serde_json::to_vec(&status).ok()?))
    }
}

/// What came over a connection.
enum Received {
    Request(HookRequest),
    /// The other side closed without a byte: a probe.
    Nothing,
    /// Not of this protocol and version.
    Foreign(WireError),
}

async fn receive(stream: &mut UnixStream) -> anyhow::Result<Received> {
    let mut header = [0; REQUEST_HEADER];
    if stream.read(&mut header[..1]).await? == 0 {
        return Ok(Received::Nothing);
    }
    stream
        .read_exact(&mut header[1..])
        .await
        .context("a request ended within its header")?;
    peer_credentials::check(stream)?;
    let mut body = match HookRequest::body_len(&header) {
        Ok(length) => vec![0; length],
        Err(error) => return Ok(Received::Foreign(error)),
    };
    stream
        .read_exact(&mut body)
        .await
        .context("a request ended within its content")?;
    Ok(HookRequest::decode(&header, &body).map_or_else(Received::Foreign, Received::Request))
}

fn absolute(bytes: Vec<u8>) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(bytes));
    ensure!(
        path.is_absolute(),
        "a request names the path \"{}\", which is not absolute",
        path.display()
    );
    Ok(path)
}

fn fetch_request(name: &[u8], destination: Vec<u8>, end: &[u8]) -> anyhow::Result<FetchRequest> {
    let name = String::from_utf8_lossy(name).parse();
    let name = name.hint("PostgreSQL puts the name in the place of %f in restore_command")?;
    let end: Option<SegmentName> = match end {
        b"" => None,
        end => Some(
            String::from_utf8_lossy(end)
                .parse()
                .hint("--end takes the name of a segment")?,
        ),
    };
    Ok(FetchRequest {
        name,
        destination: absolute(destination)?,
        end,
    })
}
