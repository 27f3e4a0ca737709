//! The settings, typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;

use super::keys::{Fallback, KEYS, Key};
use super::raw::Entries;
use super::value::{self, Raw, Value};
use super::{DEFAULT_FILE, Origin, RepositoryUrl, Secret, Source};
use crate::error::Hint;

/// Every setting, validated. Sizes are in bytes. `Debug` hides secrets.
#[derive(Debug, Clone)]
pub struct Settings {
    pub source: Source,
    /// Sentences for the caller to log once logging is up.
    pub warnings: Vec<String>,
    pub repository: Repository,
    pub s3: S3,
    pub cluster: Cluster,
    pub postgresql: Postgresql,
    pub wal: Wal,
    pub backup: Backup,
    pub catalog: Catalog,
    pub restore: Restore,
    pub service: Service,
    pub http: Http,
    pub log: Log,
    /// In the order of the table.
    pub(super) values: Vec<Effective>,
}

/// A key's value and what decided it.
#[derive(Debug, Clone)]
pub(super) struct Effective {
    pub key: &'static Key,
    pub value: Value,
    pub origin: Origin,
}

#[derive(Debug, Clone)]
pub struct Repository {
    pub url: RepositoryUrl,
    /// Repetitions of a failed access, within `timeout`.
    pub retries: u32,
    /// How long one access may take, with its repetitions.
    pub timeout: Duration,
}

/// How a bucket is used; only with an `s3` URL.
#[derive(Debug, Clone)]
pub struct S3 {
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// With the default filled in.
    pub path_style: bool,
    /// Empty: the standard chain.
    pub access_key_id: Secret,
    pub secret_access_key: Secret,
    pub profile: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub bucket_owner: Option<String>,
    /// Look first instead of letting the store decide.
    pub head_then_put: bool,
    /// `AES256` or `aws:kms`; `None`: as the bucket is set.
    pub encryption: Option<String>,
    pub kms_key: Option<String>,
    pub storage_class_wal: Option<String>,
    pub storage_class_base: Option<String>,
    /// Bytes.
    pub multipart_threshold: u64,
    /// At once, at least 1.
    pub requests: usize,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Cluster {
    pub name: String,
    /// `None`: learned from the first hook call.
    pub data_directory: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Postgresql {
    /// A libpq connection string or URI; what it leaves out comes from libpq's environment.
    pub dsn: Secret,
}

#[derive(Debug, Clone)]
pub struct Wal {
    /// zstd level.
    pub compression_level: i32,
    /// Segments stored ahead of the one asked for; 0: none.
    pub look_ahead: usize,
    /// Segments fetched ahead of the one asked for; 0: none.
    pub prefetch: usize,
    /// Segments in work at once, at least 1.
    pub workers: usize,
    /// Bytes of buffers, all workers together.
    pub memory: usize,
    /// How long a hook call tries before it answers that it failed.
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Backup {
    /// zstd level.
    pub compression_level: i32,
    /// Compressing threads, at least 1.
    pub workers: usize,
    /// Bytes of one pack.
    pub pack_size: usize,
    /// Bytes a second; a whole number of KiB, which is the unit of BASE_BACKUP's MAX_RATE. `None`: no limit.
    pub max_rate: Option<u64>,
    pub checkpoint: Checkpoint,
    /// How long to wait for the backup's WAL to be in the repository.
    pub wal_timeout: Duration,
    pub verify_checksums: bool,
}

#[derive(Debug, Clone)]
pub struct Catalog {
    /// The folder of the local index.
    pub cache: PathBuf,
    /// Between two recordings of names; zero: never.
    pub names_interval: Duration,
}

/// How the server makes the checkpoint that a base backup begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    Fast,
    Spread,
}

#[derive(Debug, Clone)]
pub struct Restore {
    /// Threads that decompress, verify and write, at least 1.
    pub workers: usize,
    /// Without a sign of work for so long, a recovering server is given up.
    pub stall_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Service {
    /// At most 107 bytes, so that it fits into a socket address.
    pub socket: PathBuf,
    /// Hook connections served at once, at least 1.
    pub max_connections: usize,
}

#[derive(Debug, Clone)]
pub struct Http {
    /// `None`: no HTTP.
    pub listen: Option<SocketAddr>,
    pub token_file: Option<PathBuf>,
    pub token: Secret,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Served at once, at least 1.
    pub max_connections: usize,
    /// Between two readings of the repository.
    pub refresh_interval: Duration,
    /// For WAL that restoring machines fetch.
    pub spool: PathBuf,
    /// Bytes of compressed WAL held for them.
    pub wal_memory: u64,
}

#[derive(Debug, Clone)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The name that `tracing_subscriber::EnvFilter` understands.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Fills in the defaults and types the values.
pub(super) fn build(mut entries: Entries, source: Source, warnings: Vec<String>) -> anyhow::Result<Settings> {
    let mut values = Vec::with_capacity(KEYS.len());
    for key in KEYS {
        let (value, origin) = match entries.take(&key.path()) {
            Some(given) => given,
            None => (default(key, &source)?, Origin::Default),
        };
        values.push(Effective { key, value, origin });
    }
    let get = Get(&values);
    Ok(Settings {
        repository: Repository {
            url: get.url("repository.url"),
            retries: get.integer("repository.retries"),
            timeout: get.duration("repository.timeout"),
        },
        s3: s3(&get),
        cluster: Cluster { name: get.text("cluster.name").into(), data_directory: get.path("cluster.data_directory") },
        postgresql: Postgresql { dsn: get.secret("postgresql.dsn") },
        wal: wal(&get),
        backup: backup(&get),
        catalog: Catalog {
            cache: get.path("catalog.cache").unwrap_or_default(),
            names_interval: get.duration("catalog.names_interval"),
        },
        restore: Restore {
            workers: get.integer("restore.workers"),
            stall_timeout: get.duration("restore.stall_timeout"),
        },
        service: Service {
            socket: get.path("service.socket").unwrap_or_default(),
            max_connections: get.integer("service.max_connections"),
        },
        http: http(&get),
        log: log(&get),
        source,
        warnings,
        values,
    })
}

fn s3(get: &Get) -> S3 {
    let endpoint = get.word("s3.endpoint");
    S3 {
        region: get.word("s3.region"),
        path_style: get.optional_bool("s3.path_style").unwrap_or(endpoint.is_some()),
        access_key_id: get.secret("s3.access_key_id"),
        secret_access_key: get.secret("s3.secret_access_key"),
        profile: get.word("s3.profile"),
        ca_file: get.path("s3.ca_file"),
        bucket_owner: get.word("s3.bucket_owner"),
        head_then_put: get.text("s3.create_only") == "head-then-put",
        encryption: Some(get.text("s3.encryption")).filter(|kind| *kind != "bucket").map(str::to_string),
        kms_key: get.word("s3.kms_key"),
        storage_class_wal: get.word("s3.storage_class_wal"),
        storage_class_base: get.word("s3.storage_class_base"),
        multipart_threshold: get.bytes("s3.multipart_threshold") as u64,
        requests: get.integer("s3.requests"),
        connect_timeout: get.duration("s3.connect_timeout"),
        response_timeout: get.duration("s3.response_timeout"),
        endpoint,
    }
}

fn wal(get: &Get) -> Wal {
    Wal {
        compression_level: get.integer("wal.compression_level"),
        look_ahead: get.integer("wal.look_ahead"),
        prefetch: get.integer("wal.prefetch"),
        workers: get.integer("wal.workers"),
        memory: get.bytes("wal.memory"),
        timeout: get.duration("wal.timeout"),
    }
}

fn backup(get: &Get) -> Backup {
    Backup {
        compression_level: get.integer("backup.compression_level"),
        workers: get.integer("backup.workers"),
        pack_size: get.bytes("backup.pack_size"),
        max_rate: get.size("backup.max_rate"),
        checkpoint: match get.text("backup.checkpoint") {
            "spread" => Checkpoint::Spread,
            _ => Checkpoint::Fast,
        },
        wal_timeout: get.duration("backup.wal_timeout"),
        verify_checksums: get.bool("backup.verify_checksums"),
    }
}

fn http(get: &Get) -> Http {
    Http {
        // Checked when it was read; empty is none.
        listen: get.text("http.listen").parse().ok(),
        token_file: get.path("http.token_file"),
        token: get.secret("http.token"),
        tls_certificate: get.path("http.tls_certificate"),
        tls_key: get.path("http.tls_key"),
        max_connections: get.integer("http.max_connections"),
        refresh_interval: get.duration("http.refresh_interval"),
        spool: get.path("http.spool").unwrap_or_default(),
        wal_memory: get.bytes("http.wal_memory") as u64,
    }
}

fn log(get: &Get) -> Log {
    Log {
        level: match get.text("log.level") {
            "error" => LogLevel::Error,
            "warn" => LogLevel::Warn,
            "debug" => LogLevel::Debug,
            "trace" => LogLevel::Trace,
            _ => LogLevel::Info,
        },
        format: match get.text("log.format") {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        },
    }
}

fn default(key: &Key, source: &Source) -> anyhow::Result<Value> {
    let text = match key.default {
        Fallback::Value(text) => text,
        Fallback::Unset(_) => return Ok(Value::Unset),
        Fallback::Required(_) => {
            let file = match source {
                Source::File(path) => path.display().to_string(),
                Source::Environment => DEFAULT_FILE.into(),
            };
            return Err(anyhow!("\"{}\" is not set ({source})", key.path()))
                .hint(format!("set it in \"{file}\" (`walden init` writes one) or by {}", key.variable()));
        }
    };
    // Only a mistake in the table of keys gets an error here.
    let raw = Raw::Text(text.into());
    value::parse(key, &raw, true).map_err(|reason| anyhow!("the default {text:?} of {}: {reason}", key.path()))
}

/// Typed access to the values. Each load reads every key once, and no input changes a key's kind, so a panic here is
/// a disagreement between the table and [`Settings`] that any test of this module finds.
struct Get<'a>(&'a [Effective]);

impl<'a> Get<'a> {
    fn value(&self, path: &str) -> &'a Value {
        match self.0.iter().find(|one| one.key.is(path)) {
            Some(found) => &found.value,
            None => panic!("no key \"{path}\" in the table"),
        }
    }

    fn integer<T: TryFrom<i64>>(&self, path: &str) -> T {
        match self.value(path) {
            Value::Integer(number) => T::try_from(*number).ok(),
            _ => None,
        }
        .unwrap_or_else(|| panic!("\"{path}\" is not such an integer"))
    }

    fn size(&self, path: &str) -> Option<u64> {
        match self.value(path) {
            Value::Size(bytes) => Some(*bytes),
            Value::Unset => None,
            _ => panic!("\"{path}\" is not a size"),
        }
    }

    /// A size that is always set and fits into memory.
    fn bytes(&self, path: &str) -> usize {
        self.size(path).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_else(|| panic!("\"{path}\" is unset"))
    }

    fn duration(&self, path: &str) -> Duration {
        match self.value(path) {
            Value::Duration(span) => *span,
            _ => panic!("\"{path}\" is not a duration"),
        }
    }

    fn bool(&self, path: &str) -> bool {
        match self.value(path) {
            Value::Bool(yes) => *yes,
            _ => panic!("\"{path}\" is not a boolean"),
        }
    }

    fn optional_bool(&self, path: &str) -> Option<bool> {
        match self.value(path) {
            Value::Unset => None,
            _ => Some(self.bool(path)),
        }
    }

    fn word(&self, path: &str) -> Option<String> {
        match self.value(path) {
            Value::Unset => None,
            _ => Some(self.text(path).to_string()),
        }
    }

    fn text(&self, path: &str) -> &'a str {
        match self.value(path) {
            Value::Text(text) => text,
            _ => panic!("\"{path}\" is not text"),
        }
    }

    fn path(&self, path: &str) -> Option<PathBuf> {
        match self.value(path) {
            Value::Path(found) => Some(found.clone()),
            Value::Unset => None,
            _ => panic!("\"{path}\" is not a path"),
        }
    }

    fn url(&self, path: &str) -> RepositoryUrl {
        match self.value(path) {
            Value::Url(url) => url.clone(),
            _ => panic!("\"{path}\" is not a URL"),
        }
    }

    fn secret(&self, path: &str) -> Secret {
        match self.value(path) {
            Value::Secret(secret) => secret.clone(),
            _ => panic!("\"{path}\" is not a secret"),
        }
    }
}
