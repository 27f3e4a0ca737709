//! The service over real storage, asked through its socket as the hook programs ask.

mod fetching;
mod pushing;
mod serving;
mod whose;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::{IndexOptions, ServiceOptions, run};
use crate::config::{self, ClusterIdentity};
use crate::postgres::archive::testing::{PgWal, cluster_in};
use crate::postgres::cluster::Cluster;
use crate::storage::{
    Body, IsOwnKey, Key, ListEntry, MemoryStorage, ObjectMeta, PutMode, PutOutcome, Storage,
    StorageError,
};
use crate::wire::{For, HookRequest, Reply};

/// Counts calls by operation and file name, can hold puts back, and can damage what is got.
#[derive(Debug)]
pub struct Observed {
    inner: Arc<dyn Storage>,
    calls: Mutex<BTreeMap<String, u32>>,
    /// Names of files in the order of their puts.
    puts: Mutex<Vec<String>>,
    /// Puts wait while this is false.
    open: watch::Sender<bool>,
    /// Gets wait while this is false.
    gets: watch::Sender<bool>,
    /// So many gets bring a last byte that is another.
    pub garbled: AtomicU32,
}

impl Observed {
    fn new(inner: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            calls: Mutex::default(),
            puts: Mutex::default(),
            open: watch::Sender::new(true),
            gets: watch::Sender::new(true),
            garbled: AtomicU32::new(0),
        })
    }

    fn count(&self, operation: &str, name: &str) {
        let name = name
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".zst");
        *self
            .calls
            .lock()
            .unwrap()
            .entry(format!("{operation} {name}"))
            .or_default() += 1;
        if operation == "put" {
            self.puts.lock().unwrap().push(name.to_string());
        }
    }

    /// How often an operation was called on a name.
    pub fn calls(&self, call: &str) -> u32 {
        self.calls.lock().unwrap().get(call).copied().unwrap_or(0)
    }

    /// Files of which a put began, in that order; WAL only.
    pub fn put_in_order(&self) -> Vec<String> {
        self.puts
            .lock()
            .unwrap()
            .iter()
            .filter(|name| !name.ends_with(".json"))
            .cloned()
            .collect()
    }

    /// Calls of all kinds.
    pub fn all_calls(&self) -> u32 {
        self.calls.lock().unwrap().values().sum()
    }
}

#[async_trait]
impl Storage for Observed {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        self.count("put", key.as_str());
        drop(self.open.subscribe().wait_for(|open| *open).await);
        self.inner.put(key, body, mode).await
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.count("get", key.as_str());
        drop(self.gets.subscribe().wait_for(|open| *open).await);
        let bytes = self.inner.get(key, range).await?;
        let garble = self
            .garbled
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        Ok(bytes.map(|bytes| match bytes.split_last() {
            Some((last, rest)) if garble => [rest, &[!last]].concat().into(),
            _ => bytes,
        }))
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.count("head", key.as_str());
        self.inner.head(key).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.count("list", folder);
        self.inner.list(folder, after).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.count("delete", key.as_str());
        self.inner.delete(key).await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.inner.sweep(age, ours).await
    }
}

/// A running service with its cluster and a server's `pg_wal`.
pub struct Running {
    pub wal: PgWal,
    pub storage: Arc<Observed>,
    pub cluster: Cluster,
    pub socket: PathBuf,
    service: JoinHandle<anyhow::Result<()>>,
    stop: oneshot::Sender<()>,
}

/// What the service on this socket serves, by its configuration file.
pub fn identity(socket: &Path) -> ClusterIdentity {
    configured(
        &socket.with_extension("toml"),
        "main",
        &socket.with_file_name("repository"),
    )
}

/// Writes a configuration file; what it means.
pub fn configured(file: &Path, cluster: &str, repository: &Path) -> ClusterIdentity {
    let text = format!(
        "repository.url = \"file://{}\"\ncluster.name = \"{cluster}\"\n",
        repository.display()
    );
    std::fs::write(file, text).unwrap();
    ClusterIdentity::of(&config::load(Some(file), [("", ""); 0]).unwrap(), |_| None)
}

pub fn options(socket: &Path) -> ServiceOptions {
    ServiceOptions {
        socket: socket.to_path_buf(),
        max_connections: 4,
        compression_level: 1,
        look_ahead: 4,
        fresh: Duration::ZERO,
        pg_wal: None,
        prefetch: 4,
        workers: 2,
        memory: 8 << 20,
        timeout: Duration::from_secs(5),
        jobs: None,
        index: IndexOptions {
            cache: socket.with_file_name("cache"),
            names_interval: Duration::ZERO,
            resolve: Arc::new(|| anyhow::bail!("no server in these tests")),
        },
    }
}

impl Running {
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub async fn start_with(change: impl FnOnce(&mut ServiceOptions)) -> Self {
        let wal = PgWal::new();
        let storage = Observed::new(Arc::new(MemoryStorage::default()));
        let cluster = cluster_in(storage.clone()).await;
        let socket = wal.0.path().join("hook.sock");
        let mut options = options(&socket);
        change(&mut options);
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let service = tokio::spawn(run(
            cluster.clone(),
            identity(&socket),
            options,
            async || None,
            stopped,
        ));
        until("the service listens", || socket.exists()).await;
        Self {
            wal,
            storage,
            cluster,
            socket,
            service,
            stop,
        }
    }

    pub async fn push(&self, path: &Path) -> Reply {
        ask(
            &self.socket,
            HookRequest::Push {
                whose: For::Socket,
                path: path.as_os_str().as_bytes().to_vec(),
            },
        )
        .await
    }

    pub async fn fetch(&self, name: &str) -> Reply {
        self.fetch_until(name, "").await
    }

    /// Asks as `restore-command` does; `Done` stands for what was delivered and renamed.
    pub async fn fetch_until(&self, name: &str, end: &str) -> Reply {
        let destination = self.destination().into_os_string().as_bytes().to_vec();
        let (name, end) = (name.as_bytes().to_vec(), end.as_bytes().to_vec());
        match ask(
            &self.socket,
            HookRequest::Fetch {
                whose: For::Socket,
                name,
                destination,
                end,
            },
        )
        .await
        {
            Reply::Delivered { path } => {
                std::fs::rename(OsStr::from_bytes(&path), self.destination()).unwrap();
                Reply::Done
            }
            other => other,
        }
    }

    /// Where recovery wants what it asks for.
    pub fn destination(&self) -> PathBuf {
        self.wal.folder().join("RECOVERYXLOG")
    }

    pub fn spool(&self) -> PathBuf {
        self.wal.folder().join("walden-spool")
    }

    /// Files in the spool that are whole for all we know: named by file, sorted.
    pub fn spooled(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.spool()) else {
            return Vec::new();
        };
        let name = |file: String| file.split('-').nth(1).unwrap_or_default().to_string();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry.unwrap().file_name().into_string().unwrap()))
            .collect();
        names.sort();
        names
    }

    pub async fn is_stored(&self, name: &str) -> bool {
        self.storage
            .inner
            .head(&self.cluster.layout.wal(&name.parse().unwrap()))
            .await
            .unwrap()
            .is_some()
    }

    /// Waits until no more calls are made.
    pub async fn settle(&self) {
        let mut before = u32::MAX;
        while before != self.storage.all_calls() {
            before = self.storage.all_calls();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub async fn stop(self) -> PgWal {
        self.stop.send(()).unwrap();
        self.service.await.unwrap().unwrap();
        self.wal
    }
}

/// One exchange, as the hook programs have it.
pub async fn ask(socket: &Path, request: HookRequest) -> Reply {
    let socket = socket.to_path_buf();
    let exchange = move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(&request.encode().unwrap()).unwrap();
        loop {
            match Reply::read_from(&mut stream).unwrap() {
                Reply::Working | Reply::Coming => (),
                answer => return answer,
            }
        }
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..12_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited two minutes in vain until {what}");
}

pub fn number(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

pub fn text(reply: &Reply) -> String {
    match reply {
        Reply::Failed(text) => String::from_utf8_lossy(text).into_owned(),
        other => panic!("{other:?} is no failure"),
    }
}
