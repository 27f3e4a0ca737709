//! The table of all settings, and the types that it makes. A new setting is one row.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::choices::{
    Checkpoint, CreateOnly, DumpFrom, DumpOutput, Encryption, LogFormat, LogLevel, ThawSpeed,
};
use super::keys::Fallback::{Required, Unset, Value};
use super::keys::SettingType;
use super::table::settings;
use super::{Cron, DEFAULT_CACHE, DEFAULT_SOCKET, Keep, RepositoryUrl, Secret, TimeZone};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `PATH_MAX` of Linux, without the closing zero.
const PATH: SettingType = SettingType::Path { max_bytes: 4095 };
/// `sun_path` of a unix socket's address has 108 bytes, the last of them zero (unix(7)).
const SOCKET_PATH: SettingType = SettingType::Path { max_bytes: 107 };
/// Levels of the zstd library that Walden offers; below -7 nothing gets faster, above 19 memory explodes.
const ZSTD: SettingType = SettingType::Integer { min: -7, max: 19 };
const WORKERS: SettingType = SettingType::Workers { max: 64 };
const LIMIT: SettingType = SettingType::Duration {
    min: 1,
    max: 3650 * DAY,
};
const SEGMENTS: SettingType = SettingType::Integer { min: 0, max: 64 };

settings! {
    /// Where the archive is.
    repository: Repository {
        /// What holds the archive: a folder (file:///absolute/path; spaces may be written as they are or as %20) or a
        /// bucket, perhaps below a prefix (s3://bucket/prefix; see section s3).
        url: RepositoryUrl = SettingType::Url, Required("file:///var/lib/walden/repository");
        /// How often a failed access to the repository is repeated, with growing pauses, within the timeout. What
        /// repeating cannot help, such as a denied access, is told at once.
        retries: u32 = SettingType::Integer { min: 0, max: 100 }, Value("8");
        /// How long one access to the repository may take, with its repetitions: reading or storing one object.
        timeout: Duration = SettingType::Duration { min: 1, max: DAY }, Value("5m");
    }

    /// How a bucket is used; only with an `s3` URL.
    s3: S3 {
        /// The server's URL when it is not Amazon's.
        endpoint: Option<String> = SettingType::Endpoint, Unset("https://s3.example.org:9000");
        /// The bucket's region. When not set, the environment (AWS_REGION), the profile or the instance tells;
        /// us-east-1 when none does.
        region: Option<String> = SettingType::Word, Unset("eu-central-1");
        /// Whether the bucket's name stands in the path (https://host/bucket) instead of the host's name. When not set:
        /// yes with an endpoint, no without.
        path_style: Option<bool> = SettingType::Bool, Unset("true");
        /// When not set, the standard chain is asked: environment (AWS_ACCESS_KEY_ID, ...), profile, web identity,
        /// instance role. PostgreSQL's own hook calls see PostgreSQL's environment.
        access_key_id: Secret = SettingType::Secret, Value("");
        /// The secret of the access key.
        secret_access_key: Secret = SettingType::Secret, Value("");
        /// The profile of the standard chain's files (AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE).
        profile: Option<String> = SettingType::Word, Unset("walden");
        /// Certificates to trust beside the system's, for a server with a certificate of one's own.
        ca_file: Option<PathBuf> = PATH, Unset("/etc/walden/ca.pem");
        /// The account that must own the bucket; requests to anybody else's are refused.
        bucket_owner: Option<String> = SettingType::Word, Unset("123456789012");
        /// How Walden makes sure that it never overwrites. conditional: the store decides (If-None-Match).
        /// head-then-put: Walden looks first, for stores that ignore the condition, which `walden check` finds out; two
        /// servers that archive the same name at the same moment are then not told apart.
        create_only: CreateOnly = CreateOnly::ALLOWED, Value("conditional");
        /// Encryption at rest by the store. bucket: as the bucket is set.
        encryption: Encryption = Encryption::ALLOWED, Value("bucket");
        /// The key for aws:kms. When not set: the account's own.
        kms_key: Option<String> = SettingType::Word, Unset("alias/walden");
        /// Storage class of WAL. When not set: the bucket's default. Classes that must be restored before they are read
        /// are no place for it.
        storage_class_wal: Option<String> = SettingType::Word, Unset("STANDARD_IA");
        /// Storage class of base backups when they are taken.
        storage_class_base: Option<String> = SettingType::Word, Unset("STANDARD_IA");
        /// Storage class of logical dumps when they are taken.
        storage_class_dump: Option<String> = SettingType::Word, Unset("STANDARD_IA");
        /// Storage classes of older base backups, by tier: `walden retention apply` moves one as soon as no shorter tier
        /// keeps it. Tiers are hourly, daily, weekly, monthly, quarterly and yearly. What the recovery window needs, and the
        /// newest good ones, never move.
        tier_classes_base: Vec<String> = SettingType::List, Value("[]");
        /// The same for dumps with data.
        tier_classes_dump: Vec<String> = SettingType::List, Value("[]");
        /// The same for dumps of the schema alone.
        tier_classes_schema: Vec<String> = SettingType::List, Value("[]");
        /// How long the bucket keeps versions that were replaced or deleted, in whole days: `walden lifecycle` makes a
        /// rule of it. When not set: 30 days longer than retention keeps anything, without retention for ever.
        keep_versions: Option<Duration> = LIMIT, Unset("90d");
        /// Objects of this size and more are stored in parts of 16 MiB.
        multipart_threshold: u64 = SettingType::Size { min: 5 * MIB, max: 5 * GIB }, Value("64MiB");
        /// Requests under way at once.
        requests: usize = SettingType::Integer { min: 1, max: 256 }, Value("16");
        /// How long making a connection may take.
        connect_timeout: Duration = SettingType::Duration { min: 1, max: 5 * MINUTE }, Value("5s");
        /// How long a request may wait until its answer begins. A body that stands still is given up after 20 s.
        response_timeout: Duration = SettingType::Duration { min: 1, max: HOUR }, Value("30s");
    }

    /// What is archived.
    cluster: Cluster {
        /// Under which name the PostgreSQL cluster is kept in the repository.
        name: String = SettingType::Name, Value("main");
        /// The server's data directory, where the look-ahead finds pg_wal/archive_status. When not set, it is learned
        /// from the first hook call.
        data_directory: Option<PathBuf> = PATH, Unset("/var/lib/postgresql/17/main");
        /// Whether people depend on it: restoring a dump to it then needs the database's name once more, typed or by
        /// --yes-restore.
        production: bool = SettingType::Bool, Value("false");
    }

    /// How to reach the server.
    postgresql: Postgresql {
        /// How to reach the server: a libpq connection string or URI. What it leaves out is taken from libpq's
        /// environment (PGHOST, PGUSER, PGPASSFILE, PGSSLMODE, ...). Keep passwords in a PGPASSFILE rather than here.
        dsn: Secret = SettingType::Secret, Value("");
    }

    /// How WAL is archived and fetched.
    wal: Wal {
        /// zstd level of archived WAL. 1 is where a core's time is best spent: 3 stores 4 to 11 % less for a third more
        /// CPU time, -1 stores 10 to 34 % more for an eighth less.
        compression_level: i32 = ZSTD, Value("1");
        /// Segments stored ahead of the one that the archiver asks for. 0: none.
        look_ahead: usize = SEGMENTS, Value("8");
        /// Segments fetched ahead of the one that replay asks for, into pg_wal/walden-spool. 0: none.
        prefetch: usize = SEGMENTS, Value("8");
        /// Segments compressed or decompressed at once.
        workers: usize = WORKERS, Value("auto");
        /// Compressed WAL held in memory at once. A segment that could need more by itself goes alone: for segments of
        /// 64 MiB and more, raise it to twice their size.
        memory: usize = SettingType::Size { min: 16 * MIB, max: 64 * GIB }, Value("64MiB");
        /// How long a hook call tries before it answers that it failed. PostgreSQL then calls again.
        timeout: Duration = SettingType::Duration { min: 1, max: HOUR }, Value("60s");
    }

    /// How base backups are taken.
    backup: Backup {
        /// zstd level of base backups: higher is smaller and slower.
        compression_level: i32 = ZSTD, Value("3");
        /// Threads that compress a base backup.
        workers: usize = WORKERS, Value("auto");
        /// Size of one stored object of a base backup.
        pack_size: usize = SettingType::Size { min: MIB, max: 64 * MIB }, Value("16MiB");
        /// Bytes a second that the server sends at most. When not set, there is no limit.
        max_rate: Option<u64> = SettingType::Size { min: 32 * KIB, max: GIB }, Unset("100MiB");
        /// How the server makes the checkpoint that a base backup begins with: at once, or spread over time to spare
        /// the disks.
        checkpoint: Checkpoint = Checkpoint::ALLOWED, Value("fast");
        /// How long a base backup waits until all the WAL it needs is in the repository.
        wal_timeout: Duration = SettingType::Duration { min: 1, max: DAY }, Value("5m");
        /// Whether the server verifies page checksums while it sends a base backup.
        verify_checksums: bool = SettingType::Bool, Value("true");
    }

    /// How logical dumps are taken: by the programs pg_dump, pg_dumpall and pg_restore.
    dump: Dump {
        /// What the names of dumps are made of: {database} and, behind it, {time} (YYYYMMDD_HHMMSS, UTC). Dumps without
        /// rows get _schema, dumps of rows alone _data behind it.
        file_name: String = SettingType::Word, Value("{database}_{time}");
        /// The folder of the programs. When not set, the usual places and PATH are searched for the server's own major
        /// version, else for the next newer one.
        programs: Option<PathBuf> = PATH, Unset("/usr/lib/postgresql/17/bin");
        /// Where dumps come from. server: from the server of `postgresql.dsn`. drill: from a server that a drill restores
        /// from the newest base backup and all archived WAL, as section drill says: no load on the source, and a proof of
        /// both. `dump.command_prefix` and `dump.dsn` are of no use then.
        source: DumpFrom = DumpFrom::ALLOWED, Value("server");
        /// What stands before each program's name, to run it where the database is. It must pass standard input and
        /// output on. Programs of that place count then.
        command_prefix: Vec<String> = SettingType::List, Value("[]");
        /// How the programs reach the server, when not as postgresql.dsn says: with a command_prefix, from where they
        /// run. What it leaves out is the programs' own default there.
        dsn: Secret = SettingType::Secret, Value("");
        /// The format: custom and plain are stored while pg_dump runs, without a local copy. directory can be dumped by
        /// several jobs; its files come into spool first.
        format: DumpOutput = DumpOutput::ALLOWED, Value("custom");
        /// Tables that pg_dump copies at once in directory format, each over a connection of its own.
        jobs: usize = SettingType::Integer { min: 1, max: 64 }, Value("2");
        /// How pg_dump compresses the formats custom and directory, as its option --compress takes it: a level from 0 to
        /// 9, from 16 on also a method. When not set: as pg_dump does.
        compress: Option<String> = SettingType::Word, Unset("zstd:3");
        /// zstd level of plain dumps.
        compression_level: i32 = ZSTD, Value("3");
        /// Whether roles and tablespaces are stored with each dump.
        globals: bool = SettingType::Bool, Value("true");
        /// Whether the roles' passwords (as digests) are among them. Reading them takes a superuser; other roles' dumps
        /// go without.
        role_passwords: bool = SettingType::Bool, Value("true");
        /// Whether an .md5 lies beside each dump, too.
        md5: bool = SettingType::Bool, Value("false");
        /// How long pg_dump waits for a lock on a table. When not set: for as long as it takes.
        lock_timeout: Option<Duration> = SettingType::Duration { min: 1, max: DAY }, Unset("60s");
        /// The folder for files of the format directory while a dump is taken, and for dumps from a bucket and those with
        /// other roles while they are restored. When not set: the system's folder for temporary files.
        spool: Option<PathBuf> = PATH, Unset("/var/tmp/walden");
    }

    /// What is known of the archive.
    catalog: Catalog {
        /// The folder of the local index of the WAL, which the service and the commands that find moments share. It can
        /// be deleted at any time: what is in it is read from the repository again.
        cache: PathBuf = PATH, Value(DEFAULT_CACHE);
        /// How often the service asks the server which tables there are, so that what happened in WAL can be told by
        /// name: a table that lived shorter may have none; and whether no transaction ended since the archived WAL
        /// ends, so that times later than that can be restored. 0s: never; base backups record the names, too.
        names_interval: Duration = SettingType::Duration { min: 0, max: DAY }, Value("1m");
    }

    /// How a cluster is restored.
    restore: Restore {
        /// Threads that decompress, verify and write files. Each holds at most 12 MiB of what it reads.
        workers: usize = WORKERS, Value("auto");
        /// How long a server that `walden restore --start` started may recover without a sign of work until it is
        /// stopped and given up: it reads, writes, computes and logs nothing, and waits as a rule for what never comes.
        stall_timeout: Duration = SettingType::Duration { min: 1, max: DAY }, Value("10m");
        /// How long retention leaves the WAL that a restored cluster still has to replay: it fetches it later, whenever it
        /// is started. Restored files need nothing else.
        wal_lease: Duration = SettingType::Duration { min: MINUTE, max: 30 * DAY }, Value("3d");
        /// How many days objects of a cold storage class stay readable once --thaw had them thawed.
        thaw_days: u32 = SettingType::Integer { min: 1, max: 365 }, Value("3");
        /// How fast --thaw asks for objects. Faster is dearer; not every class knows expedited.
        thaw_speed: ThawSpeed = ThawSpeed::ALLOWED, Value("standard");
        /// How long --thaw waits until all can be read: Deep Archive takes up to two days.
        thaw_timeout: Duration = SettingType::Duration { min: 1, max: 14 * DAY }, Value("3d");
    }

    /// How the hooks reach the service.
    service: Service {
        /// The unix socket on which the service answers archive-command and restore-command.
        socket: PathBuf = SOCKET_PATH, Value(DEFAULT_SOCKET);
        /// Hook connections served at once; further ones wait.
        max_connections: usize = SettingType::Integer { min: 1, max: 1024 }, Value("32");
    }

    /// Asking over HTTP.
    http: Http {
        /// Where the service answers HTTP (docs/operations/http.md). An address that other machines reach needs a
        /// token. Empty: nowhere.
        listen: Option<SocketAddr> = SettingType::Listen, Value("127.0.0.1:8432");
        /// A file of mode 0600 with the tokens that requests may carry, one a line, each of at least 16 characters.
        token_file: Option<PathBuf> = PATH, Unset("/etc/walden/http.token");
        /// One more token, for whoever sets it by the environment. Without any token everybody on this machine may ask,
        /// and nobody gets WAL.
        token: Secret = SettingType::Secret, Value("");
        /// The certificate chain (PEM) with which HTTPS is spoken instead of HTTP; read at start.
        tls_certificate: Option<PathBuf> = PATH, Unset("/etc/walden/http.crt");
        /// The private key (PEM) of the certificate.
        tls_key: Option<PathBuf> = PATH, Unset("/etc/walden/http.key");
        /// HTTP connections served at once; further ones wait.
        max_connections: usize = SettingType::Integer { min: 1, max: 1024 }, Value("64");
        /// How long to wait after the repository was read for answers until it is read anew: new base backups, and what
        /// others stored. What the service stores itself shows at once.
        refresh_interval: Duration = SettingType::Duration { min: 1, max: HOUR }, Value("1m");
        /// The folder in which WAL waits that was fetched ahead for machines that restore over HTTP.
        spool: PathBuf = PATH, Value("/var/cache/walden");
        /// Compressed WAL held in memory for HTTP, beside wal.memory of the hooks.
        wal_memory: u64 = SettingType::Size { min: 16 * MIB, max: 64 * GIB }, Value("48MiB");
    }

    /// From where on something is not good: for `walden check`, `walden status`, the page, metrics and alerts.
    health: Health {
        /// How much work may be lost: what was committed longer ago and could not be restored is a warning.
        rpo: Duration = LIMIT, Value("10m");
        /// How long finished WAL may wait to be archived: longer is critical.
        wal_wait: Duration = LIMIT, Value("10m");
        /// How many finished WAL files may wait to be archived: more are a warning.
        backlog: u64 = SettingType::Integer { min: 1, max: 1_000_000 }, Value("64");
        /// How old the newest base backup may be that can be used: an older one is a warning, since restores replay all
        /// WAL since.
        backup_age: Duration = LIMIT, Value("8d");
        /// How long after the first archived WAL the first base backup may be still to come: until then it is a warning
        /// that nothing can be restored, then critical.
        first_backup: Duration = LIMIT, Value("1d");
        /// How far commits and base backups may lie ahead of this machine's clock: more is told, for another clock made
        /// them.
        clock_skew: Duration = LIMIT, Value("5m");
        /// How full the file system of a repository in a folder may be, in percent: a fuller one is a warning, one above
        /// 95 is critical.
        disk_used: u64 = SettingType::Integer { min: 1, max: 100 }, Value("80");
        /// By how much the newest base backup or dump may differ from the average size of up to ten before it, in
        /// percent: more is a warning, less than half of it is critical. 0: sizes are not judged.
        size_change: u64 = SettingType::Integer { min: 0, max: 1000 }, Value("20");
        /// How old the newest dump may be, whatever is scheduled. When not set, its schedule says.
        dump_age: Option<Duration> = LIMIT, Unset("25h");
        /// How old the newest dump of the schema alone may be, whatever is scheduled. When not set, its schedule says.
        schema_dump_age: Option<Duration> = LIMIT, Unset("25h");
        /// How many percent of the runs of jobs in 30 days must succeed, of at least twenty. 0: it is not judged.
        success_rate: u64 = SettingType::Integer { min: 0, max: 100 }, Value("99");
        /// How long ago the last drill may be that passed. When not set, its schedule alone says.
        drill_age: Option<Duration> = LIMIT, Unset("35d");
        /// How long the last restore or drill may have taken.
        restore_time: Option<Duration> = LIMIT, Unset("1h");
        /// How old the newest record of a drill, restore or verification may be.
        evidence_age: Option<Duration> = LIMIT, Unset("35d");
        /// How long before the HTTPS certificate expires a warning begins. Renew it and restart the service.
        certificate: Duration = LIMIT, Value("14d");
    }

    /// What `walden retention` keeps (docs/operations/retention.md). Where nothing is set nothing is ever deleted.
    retention: Retention {
        /// The recovery window: every moment of so long a time before the newest base backup, and every later one, stays
        /// restorable. Older WAL goes, but for what kept base backups need to become consistent. When not set, no WAL
        /// goes.
        window: Option<Duration> = SettingType::Duration { min: 0, max: 3650 * DAY }, Unset("7d");
        /// The time zone in which days, weeks and longer periods begin, by its name in the IANA database.
        time_zone: TimeZone = SettingType::TimeZone, Value("UTC");
    }

    /// Which base backups are kept beyond the recovery window.
    retention_base: RetentionBase {
        /// Of how many hours, or for how long, the first good base backup of each is kept.
        hourly: Option<Keep> = SettingType::Keep, Unset("24");
        /// Of how many days, or for how long, the first good base backup of each is kept.
        daily: Option<Keep> = SettingType::Keep, Unset("7");
        /// Of how many weeks, or for how long, the first good base backup of each is kept.
        weekly: Option<Keep> = SettingType::Keep, Unset("4");
        /// Of how many months, or for how long, the first good base backup of each is kept.
        monthly: Option<Keep> = SettingType::Keep, Unset("12");
        /// Of how many quarters, or for how long, the first good base backup of each is kept.
        quarterly: Option<Keep> = SettingType::Keep, Unset("28");
        /// Of how many years, or for how long, the first good base backup of each is kept.
        yearly: Option<Keep> = SettingType::Keep, Unset("7");
        /// So many good base backups are kept whatever their age.
        minimum: u32 = SettingType::Integer { min: 1, max: 1000 }, Value("2");
    }

    /// Which dumps with data are kept, of each database.
    retention_dump: RetentionDump {
        /// Of how many hours, or for how long, the first good dump of each is kept.
        hourly: Option<Keep> = SettingType::Keep, Unset("24");
        /// Of how many days, or for how long, the first good dump of each is kept.
        daily: Option<Keep> = SettingType::Keep, Unset("7");
        /// Of how many weeks, or for how long, the first good dump of each is kept.
        weekly: Option<Keep> = SettingType::Keep, Unset("4");
        /// Of how many months, or for how long, the first good dump of each is kept.
        monthly: Option<Keep> = SettingType::Keep, Unset("12");
        /// Of how many quarters, or for how long, the first good dump of each is kept.
        quarterly: Option<Keep> = SettingType::Keep, Unset("28");
        /// Of how many years, or for how long, the first good dump of each is kept.
        yearly: Option<Keep> = SettingType::Keep, Unset("7");
        /// So many good dumps of each database are kept whatever their age.
        minimum: u32 = SettingType::Integer { min: 1, max: 1000 }, Value("2");
    }

    /// Which dumps of the schema alone are kept, of each database.
    retention_schema: RetentionSchema {
        /// Of how many hours, or for how long, the first good dump of each is kept.
        hourly: Option<Keep> = SettingType::Keep, Unset("24");
        /// Of how many days, or for how long, the first good dump of each is kept.
        daily: Option<Keep> = SettingType::Keep, Unset("7");
        /// Of how many weeks, or for how long, the first good dump of each is kept.
        weekly: Option<Keep> = SettingType::Keep, Unset("4");
        /// Of how many months, or for how long, the first good dump of each is kept.
        monthly: Option<Keep> = SettingType::Keep, Unset("12");
        /// Of how many quarters, or for how long, the first good dump of each is kept.
        quarterly: Option<Keep> = SettingType::Keep, Unset("28");
        /// Of how many years, or for how long, the first good dump of each is kept.
        yearly: Option<Keep> = SettingType::Keep, Unset("7");
        /// So many good schema dumps of each database are kept whatever their age.
        minimum: u32 = SettingType::Integer { min: 1, max: 1000 }, Value("2");
    }

    /// What happens by itself, and when: by the service, or by cron or systemd (`walden schedule install`).
    schedule: Schedule {
        /// The time zone of all cron expressions below.
        time_zone: TimeZone = SettingType::TimeZone, Value("UTC");
        /// When a base backup is taken.
        backup: Option<Cron> = SettingType::Cron, Unset("0 2 * * 0");
        /// When dumps are taken, as section dump says.
        dump: Option<Cron> = SettingType::Cron, Unset("0 * * * *");
        /// When dumps without data are taken.
        schema_dump: Option<Cron> = SettingType::Cron, Unset("30 1 * * *");
        /// When all that is kept is read back and checked.
        verify: Option<Cron> = SettingType::Cron, Unset("0 4 * * 6");
        /// When a drill restores everything, as section drill says.
        drill: Option<Cron> = SettingType::Cron, Unset("0 3 * * 0");
        /// When a canary is written into the database of `drill.canary`.
        canary: Option<Cron> = SettingType::Cron, Unset("*/5 * * * *");
        /// When a drill restores the newest dump of the database of `postgresql.dsn`.
        dump_drill: Option<Cron> = SettingType::Cron, Unset("0 5 * * 0");
        /// When the tables of `drill.counts` are counted on the server.
        counts: Option<Cron> = SettingType::Cron, Unset("15 1 * * *");
        /// When what retention keeps no longer is deleted.
        expire: Option<Cron> = SettingType::Cron, Unset("30 5 * * *");
        /// When the cluster is copied to `copy_to`.
        copy: Option<Cron> = SettingType::Cron, Unset("0 6 * * *");
        /// The repository that the cluster is copied to: its URL, or the absolute path of a configuration file that names
        /// it, such as with other credentials.
        copy_to: Option<String> = SettingType::Word, Unset("s3://second-bucket/walden");
        /// By how much runs are put off at most, each job of each cluster always by the same: many clusters do not begin
        /// at the same moment.
        jitter: Duration = SettingType::Duration { min: 0, max: DAY }, Value("0s");
        /// How long a run may take until it is ended.
        deadline: Duration = LIMIT, Value("1d");
        /// How long a run of dump or schema_dump may take.
        dump_deadline: Duration = LIMIT, Value("6h");
        /// How often a run that failed is tried again before the next one is due.
        retries: u32 = SettingType::Integer { min: 0, max: 100 }, Value("3");
        /// How long after a failure.
        retry_after: Duration = SettingType::Duration { min: 0, max: DAY }, Value("10m");
        /// How long the records of runs are kept.
        history: Duration = LIMIT, Value("90d");
        /// How long a runner may give no sign until another one, also on another machine, takes its place. It gives one
        /// each quarter of this.
        lease: Duration = SettingType::Duration { min: 2, max: HOUR }, Value("3m");
        /// Whether the service runs the jobs. false: cron or systemd do.
        in_service: bool = SettingType::Bool, Value("true");
    }

    /// Restores by themselves, with checks: `walden drill run`.
    drill: Drill {
        /// Where drills restore to. Each makes a folder in it and removes it. It needs room for the whole cluster.
        folder: PathBuf = PATH, Value("/var/lib/walden/drill");
        /// The folder of PostgreSQL's programs; else they are looked for on PATH and in the usual places.
        programs: Option<PathBuf> = PATH, Unset("/usr/lib/postgresql/18/bin");
        /// `shared_buffers` of the restored server.
        memory: u64 = SettingType::Size { min: MIB, max: 64 * GIB }, Value("128MiB");
        /// How long indexes, tables and foreign keys are checked at most. The smallest come first.
        budget: Duration = LIMIT, Value("10m");
        /// A file with your own checks: SQL and what it must answer, URLs, and tables that must not be empty or old.
        asserts: Option<PathBuf> = PATH, Unset("/etc/walden/asserts.toml");
        /// Your own test program and its arguments, or one that starts a service. PGHOST, PGPORT, PGUSER and DATABASE_URL lead to the restored server.
        command: Vec<String> = SettingType::List, Value("[]");
        /// How long it may take.
        command_timeout: Duration = LIMIT, Value("10m");
        /// How long a restore with its checks may take: a drill that takes longer has failed.
        rto_target: Option<Duration> = LIMIT, Unset("1h");
        /// How old the newest data may be that can be restored.
        rpo_target: Option<Duration> = LIMIT, Unset("15m");
        /// The database of the source in which `walden drill canary` keeps a small table of its own, walden.canary: what a
        /// drill finds of it is checked, and tells how old the data is. When not set, nothing is written.
        canary: Option<String> = SettingType::Word, Unset("postgres");
        /// Tables of that database whose rows `walden drill canary --counts` counts, each as SQL names it, with its schema.
        counts: Vec<String> = SettingType::List, Value("[]");
    }

    /// Records of what was done: restores, drills, verifications, deletions.
    evidence: Evidence {
        /// How long records are kept.
        keep: Duration = LIMIT, Value("2557d");
        /// A changed copy of deploy/controls.toml: which records prove which control of an audit.
        controls: Option<PathBuf> = PATH, Unset("/etc/walden/controls.toml");
    }

    /// Who is told when a rule of section health is broken, and when it is over: by the service, or by cron with
    /// `walden alert check` (docs/operations/alerts.md).
    alerts: Alerts {
        /// A file with the channels: webhooks, Slack, mail, PagerDuty, commands, heartbeats; and with what is to be
        /// different for single rules. When not set, nobody is told.
        file: Option<PathBuf> = PATH, Unset("/etc/walden/alerts.toml");
        /// How often the service looks.
        interval: Duration = SettingType::Duration { min: 1, max: DAY }, Value("1m");
        /// How long a rule must be broken until the service tells it; five times as long if it is only that something
        /// is not known. `walden alert check` tells at once.
        hold: Duration = SettingType::Duration { min: 0, max: DAY }, Value("2m");
        /// After how long a critical alert that still fires is told again.
        repeat_critical: Duration = LIMIT, Value("4h");
        /// After how long a warning that still fires is told again.
        repeat_warning: Duration = LIMIT, Value("1d");
        /// What is over and comes again within this time after it was told is told only then.
        throttle: Duration = SettingType::Duration { min: 0, max: DAY }, Value("10m");
        /// How long one message may take.
        timeout: Duration = SettingType::Duration { min: 1, max: 2 * MINUTE }, Value("10s");
    }

    /// How figures are told to Prometheus (docs/operations/monitoring.md).
    metrics: Metrics {
        /// Whether figures also have the names of backup runbooks, such as backup_last_success_timestamp.
        runbook_names: bool = SettingType::Bool, Value("false");
        /// A file of mode 0600 with the bearer token that `walden status --push-metrics` sends.
        push_token_file: Option<PathBuf> = PATH, Unset("/etc/walden/push.token");
        /// Certificates that it trusts beside the system's.
        push_ca_file: Option<PathBuf> = PATH, Unset("/etc/walden/push-ca.pem");
    }

    /// What is logged.
    log: Log {
        /// The least severe messages that are logged.
        level: LogLevel = LogLevel::ALLOWED, Value("info");
        /// Text for people or JSON lines for machines.
        format: LogFormat = LogFormat::ALLOWED, Value("text");
    }
}
