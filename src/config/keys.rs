//! The table of all settings.

/// What a setting may hold. Sizes are in bytes, bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A repository URL.
    Url,
    /// `[a-z0-9][a-z0-9_-]{0,62}`: safe as a folder name and in an object key.
    Name,
    /// An absolute path of at most `max_bytes` bytes.
    Path {
        max_bytes: usize,
    },
    /// The URL of a server: `http` or `https`, a host, perhaps a port.
    Endpoint,
    /// Where to listen: an IP address and a port; empty for nowhere.
    Listen,
    /// Printable ASCII without spaces.
    Word,
    /// Free text that may hold a password.
    Secret,
    Integer {
        min: i64,
        max: i64,
    },
    /// An integer, or `"auto"`: the number of CPUs.
    Workers {
        max: i64,
    },
    /// Bytes, as `64MiB`.
    Size {
        min: u64,
        max: u64,
    },
    /// A time span with its unit, as `30s`; bounds in seconds.
    Duration {
        min: u64,
        max: u64,
    },
    Bool,
    Choice(&'static [&'static str]),
}

/// What holds when a setting is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The setting must be given; the text is an example.
    Required(&'static str),
    /// Nothing, which the setting's text explains; also what an empty text means. The text is an example.
    Unset(&'static str),
    /// This value.
    Value(&'static str),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    pub default: Fallback,
    /// One or more sentences for whoever sets it.
    pub doc: &'static str,
}

impl Key {
    /// `section.name`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it: `WALDEN_SECTION__NAME`.
    pub fn variable(&self) -> String {
        format!("WALDEN_{}__{}", self.section, self.name).to_uppercase()
    }

    /// Whether the value may hold a password.
    pub fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }

    /// Whether `path` is this key's `section.name`.
    pub(super) fn is(&self, path: &str) -> bool {
        path.split_once('.') == Some((self.section, self.name))
    }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `sun_path` of a unix socket's address has 108 bytes, the last of them zero (unix(7)).
const SOCKET_PATH: usize = 107;
/// `PATH_MAX` of Linux, without the closing zero.
const ANY_PATH: usize = 4095;
/// Levels of the zstd library that Walden offers; below -7 nothing gets faster, above 19 memory explodes.
const ZSTD: Kind = Kind::Integer { min: -7, max: 19 };
const WORKERS: Kind = Kind::Workers { max: 64 };
const SEGMENTS: Kind = Kind::Integer { min: 0, max: 64 };

const fn key(section: &'static str, name: &'static str, kind: Kind, default: Fallback, doc: &'static str) -> Key {
    Key { section, name, kind, default, doc }
}

/// Every setting there is, in the order in which it is documented; the settings of a section stand together.
pub const KEYS: &[Key] = &[
    key(
        "repository",
        "url",
        Kind::Url,
        Fallback::Required("file:///var/lib/walden/repository"),
        "What holds the archive: a folder (file:///absolute/path; spaces may be written as they are or as %20) or a bucket, \
         perhaps below a prefix (s3://bucket/prefix; see section s3).",
    ),
    key(
        "repository",
        "retries",
        Kind::Integer { min: 0, max: 100 },
        Fallback::Value("8"),
        "How often a failed access to the repository is repeated, with growing pauses, within the timeout. What repeating \
         cannot help, such as a denied access, is told at once.",
    ),
    key(
        "repository",
        "timeout",
        Kind::Duration { min: 1, max: DAY },
        Fallback::Value("5m"),
        "How long one access to the repository may take, with its repetitions: reading or storing one object.",
    ),
    key(
        "s3",
        "endpoint",
        Kind::Endpoint,
        Fallback::Unset("https://s3.example.org:9000"),
        "The server's URL when it is not Amazon's.",
    ),
    key(
        "s3",
        "region",
        Kind::Word,
        Fallback::Unset("eu-central-1"),
        "The bucket's region. When not set, the environment (AWS_REGION), the profile or the instance tells; us-east-1 when \
         none does.",
    ),
    key(
        "s3",
        "path_style",
        Kind::Bool,
        Fallback::Unset("true"),
        "Whether the bucket's name stands in the path (https://host/bucket) instead of the host's name. When not set: yes \
         with an endpoint, no without.",
    ),
    key(
        "s3",
        "access_key_id",
        Kind::Secret,
        Fallback::Value(""),
        "When not set, the standard chain is asked: environment (AWS_ACCESS_KEY_ID, ...), profile, web identity, instance \
         role. PostgreSQL's own hook calls see PostgreSQL's environment.",
    ),
    key("s3", "secret_access_key", Kind::Secret, Fallback::Value(""), "The secret of the access key."),
    key(
        "s3",
        "profile",
        Kind::Word,
        Fallback::Unset("walden"),
        "The profile of the standard chain's files (AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE).",
    ),
    key(
        "s3",
        "ca_file",
        Kind::Path { max_bytes: ANY_PATH },
        Fallback::Unset("/etc/walden/ca.pem"),
        "Certificates to trust beside the system's, for a server with a certificate of one's own.",
    ),
    key(
        "s3",
        "bucket_owner",
        Kind::Word,
        Fallback::Unset("123456789012"),
        "The account that must own the bucket; requests to anybody else's are refused.",
    ),
    key(
        "s3",
        "create_only",
        Kind::Choice(&["conditional", "head-then-put"]),
        Fallback::Value("conditional"),
        "How Walden makes sure that it never overwrites. conditional: the store decides (If-None-Match). head-then-put: Walden \
         looks first, for stores that ignore the condition, which `walden check` finds out; two servers that archive the same \
         name at the same moment are then not told apart.",
    ),
    key(
        "s3",
        "encryption",
        Kind::Choice(&["bucket", "AES256", "aws:kms"]),
        Fallback::Value("bucket"),
        "Encryption at rest by the store. bucket: as the bucket is set.",
    ),
    key(
        "s3",
        "kms_key",
        Kind::Word,
        Fallback::Unset("alias/walden"),
        "The key for aws:kms. When not set: the account's own.",
    ),
    key(
        "s3",
        "storage_class_wal",
        Kind::Word,
        Fallback::Unset("STANDARD_IA"),
        "Storage class of WAL. When not set: the bucket's default. Classes that must be restored before they are read are \
         no place for it.",
    ),
    key("s3", "storage_class_base", Kind::Word, Fallback::Unset("STANDARD_IA"), "Storage class of base backups."),
    key(
        "s3",
        "multipart_threshold",
        Kind::Size { min: 5 * MIB, max: 5 * GIB },
        Fallback::Value("64MiB"),
        "Objects of this size and more are stored in parts of 16 MiB.",
    ),
    key("s3", "requests", Kind::Integer { min: 1, max: 256 }, Fallback::Value("16"), "Requests under way at once."),
    key(
        "s3",
        "connect_timeout",
        Kind::Duration { min: 1, max: 5 * MINUTE },
        Fallback::Value("5s"),
        "How long making a connection may take.",
    ),
    key(
        "s3",
        "response_timeout",
        Kind::Duration { min: 1, max: HOUR },
        Fallback::Value("30s"),
        "How long a request may wait until its answer begins. A body that stands still is given up after 20 s.",
    ),
    key(
        "cluster",
        "name",
        Kind::Name,
        Fallback::Value("main"),
        "Under which name the PostgreSQL cluster is kept in the repository.",
    ),
    key(
        "cluster",
        "data_directory",
        Kind::Path { max_bytes: ANY_PATH },
        Fallback::Unset("/var/lib/postgresql/17/main"),
        "The server's data directory, where the look-ahead finds pg_wal/archive_status. When not set, it is learned from \
         the first hook call.",
    ),
    key(
        "postgresql",
        "dsn",
        Kind::Secret,
        Fallback::Value(""),
        "How to reach the server: a libpq connection string or URI. What it leaves out is taken from libpq's environment \
         (PGHOST, PGUSER, PGPASSFILE, PGSSLMODE, ...). Keep passwords in a PGPASSFILE rather than here.",
    ),
    key(
        "wal",
        "compression_level",
        ZSTD,
        Fallback::Value("1"),
        "zstd level of archived WAL. 1 is where a core's time is best spent: 3 stores 4 to 11 % less for a third more CPU time, -1 stores 10 to 34 % more for an eighth less.",
    ),
    key(
        "wal",
        "look_ahead",
        SEGMENTS,
        Fallback::Value("8"),
        "Segments stored ahead of the one that the archiver asks for. 0: none.",
    ),
    key(
        "wal",
        "prefetch",
        SEGMENTS,
        Fallback::Value("8"),
        "Segments fetched ahead of the one that replay asks for, into pg_wal/walden-spool. 0: none.",
    ),
    key("wal", "workers", WORKERS, Fallback::Value("auto"), "Segments compressed or decompressed at once."),
    key(
        "wal",
        "memory",
        Kind::Size { min: 16 * MIB, max: 64 * GIB },
        Fallback::Value("64MiB"),
        "Compressed WAL held in memory at once. A segment that could need more by itself goes alone: for segments of 64 MiB and more, raise it to twice their size.",
    ),
    key(
        "wal",
        "timeout",
        Kind::Duration { min: 1, max: HOUR },
        Fallback::Value("60s"),
        "How long a hook call tries before it answers that it failed. PostgreSQL then calls again.",
    ),
    key(
        "backup",
        "compression_level",
        ZSTD,
        Fallback::Value("3"),
        "zstd level of base backups: higher is smaller and slower.",
    ),
    key("backup", "workers", WORKERS, Fallback::Value("auto"), "Threads that compress a base backup."),
    key(
        "backup",
        "pack_size",
        Kind::Size { min: MIB, max: 64 * MIB },
        Fallback::Value("16MiB"),
        "Size of one stored object of a base backup.",
    ),
    key(
        "backup",
        "max_rate",
        Kind::Size { min: 32 * KIB, max: GIB },
        Fallback::Unset("100MiB"),
        "Bytes a second that the server sends at most. When not set, there is no limit.",
    ),
    key(
        "backup",
        "checkpoint",
        Kind::Choice(&["fast", "spread"]),
        Fallback::Value("fast"),
        "How the server makes the checkpoint that a base backup begins with: at once, or spread over time to spare the disks.",
    ),
    key(
        "backup",
        "wal_timeout",
        Kind::Duration { min: 1, max: DAY },
        Fallback::Value("5m"),
        "How long a base backup waits until all the WAL it needs is in the repository.",
    ),
    key(
        "backup",
        "verify_checksums",
        Kind::Bool,
        Fallback::Value("true"),
        "Whether the server verifies page checksums while it sends a base backup.",
    ),
    key(
        "catalog",
        "cache",
        Kind::Path { max_bytes: ANY_PATH },
        Fallback::Value(super::DEFAULT_CACHE),
        "The folder of the local index of the WAL, which the service and the commands that find moments share. It can be \
         deleted at any time: what is in it is read from the repository again.",
    ),
    key(
        "catalog",
        "names_interval",
        Kind::Duration { min: 0, max: DAY },
        Fallback::Value("1m"),
        "How often the service asks the server which tables there are, so that what happened in WAL can be told by name: \
         a table that lived shorter may have none; and whether no transaction ended since the archived WAL ends, so that \
         times later than that can be restored. 0s: never; base backups record the names, too.",
    ),
    key("restore", "workers", WORKERS, Fallback::Value("auto"), "Threads that decompress, verify and write files."),
    key(
        "restore",
        "stall_timeout",
        Kind::Duration { min: 1, max: DAY },
        Fallback::Value("10m"),
        "How long a server that `walden restore --start` started may recover without a sign of work until it is stopped and \
         given up: it reads, writes, computes and logs nothing, and waits as a rule for what never comes.",
    ),
    key(
        "service",
        "socket",
        Kind::Path { max_bytes: SOCKET_PATH },
        Fallback::Value(super::DEFAULT_SOCKET),
        "The unix socket on which the service answers archive-command and restore-command.",
    ),
    key(
        "service",
        "max_connections",
        Kind::Integer { min: 1, max: 1024 },
        Fallback::Value("32"),
        "Hook connections served at once; further ones wait.",
    ),
    key(
        "http",
        "listen",
        Kind::Listen,
        Fallback::Value("127.0.0.1:8432"),
        "Where the service answers HTTP (docs/operations/http.md). An address that other machines reach needs a token. \
         Empty: nowhere.",
    ),
    key(
        "http",
        "token_file",
        Kind::Path { max_bytes: ANY_PATH },
        Fallback::Unset("/etc/walden/http.token"),
        "A file of mode 0600 with the tokens that requests may carry, one a line, each of at least 16 characters.",
    ),
    key(
        "http",
        "token",
        Kind::Secret,
        Fallback::Value(""),
        "One more token, for whoever sets it by the environment. Without any token everybody on this machine may ask, and \
         nobody gets WAL.",
    ),
    key(
        "http",
        "tls_certificate",
        Kind::Path { max_bytes: ANY_PATH },
        Fallback::Unset("/etc/walden/http.crt"),
        "The certificate chain (PEM) with which HTTPS is spoken instead of HTTP; read at start.",
    ),
    key(
        "http",
        "tls_key",
        Kind::Path { max_bytes: ANY_PATH },
        Fallback::Unset("/etc/walden/http.key"),
        "The private key (PEM) of the certificate.",
    ),
    key(
        "http",
        "max_connections",
        Kind::Integer { min: 1, max: 1024 },
        Fallback::Value("64"),
        "HTTP connections served at once; further ones wait.",
    ),
    key(
        "http",
        "refresh_interval",
        Kind::Duration { min: 1, max: HOUR },
        Fallback::Value("1m"),
        "How long to wait after the repository was read for answers until it is read anew: new base backups, and what others \
         stored. What the service stores itself shows at once.",
    ),
    key(
        "http",
        "spool",
        Kind::Path { max_bytes: ANY_PATH },
        Fallback::Value("/var/cache/walden"),
        "The folder in which WAL waits that was fetched ahead for machines that restore over HTTP.",
    ),
    key(
        "http",
        "wal_memory",
        Kind::Size { min: 16 * MIB, max: 64 * GIB },
        Fallback::Value("48MiB"),
        "Compressed WAL held in memory for HTTP, beside wal.memory of the hooks.",
    ),
    key(
        "log",
        "level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        Fallback::Value("info"),
        "The least severe messages that are logged.",
    ),
    key(
        "log",
        "format",
        Kind::Choice(&["text", "json"]),
        Fallback::Value("text"),
        "Text for people or JSON lines for machines.",
    ),
];
