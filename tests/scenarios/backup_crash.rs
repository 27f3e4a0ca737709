//! Backups that stop at every call to the store: afterwards there is no backup, or a whole one, and the next succeeds.
//! What the server sent is recorded once, from a real one, and sent again for each crash point.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::watch;
use walden::error::hints;
use walden::postgres::archive::Pusher;
use walden::postgres::backup::delete::{delete, plan_delete};
use walden::postgres::backup::packer::PackOptions;
use walden::postgres::backup::start::{After, BackupServer, start};
use walden::postgres::backup::stream::BackupEvents;
use walden::postgres::backup::take::{BackupSource, TakeOptions, asked, keep};
use walden::postgres::cluster::{Cluster as Registered, describe_server};
use walden::postgres::load::load_backups;
use walden::postgres::replication::{BackupEvent, Checkpoint, ConnInfo, Connection, Mode};
use walden::postgres::repository::verify::{VerifyScope, verify};
use walden::postgres::types::MajorVersion;
use walden::repo::Repository;
use walden::storage::faulty::{CrashPoint, FaultyStorage};
use walden::storage::{Key, ListEntry, MemoryStorage, PutMode, Storage, get_all, list_all};

use crate::harness::{Cluster, Major, Scratch, wait_until};

/// What one server sent for one backup.
pub struct Recording {
    server: BackupServer,
    events: Vec<BackupEvent>,
    after: After,
    /// A repository with the registered cluster and the backup's WAL.
    pub store: Arc<MemoryStorage>,
}

/// Sends a recording again.
struct Player<'a> {
    recording: &'a Recording,
    next: usize,
}

impl BackupEvents for Player<'_> {
    async fn next(&mut self) -> anyhow::Result<Option<BackupEvent>> {
        self.next += 1;
        Ok(self.recording.events.get(self.next - 1).cloned())
    }
}

impl BackupSource for Player<'_> {
    async fn after(&mut self) -> anyhow::Result<After> {
        Ok(self.recording.after.clone())
    }

    async fn archiver_failure(&mut self) -> Option<String> {
        None
    }
}

fn options() -> TakeOptions {
    TakeOptions {
        label: "recorded".into(),
        checkpoint: Checkpoint::Fast,
        max_rate_kib: None,
        verify_checksums: true,
        // Several packs, and more frames than any queue holds.
        pack: PackOptions {
            compression_level: 1,
            workers: 2,
            pack_size: 600_000,
            longest_manifest: 1 << 20,
        },
        wal_timeout: Duration::ZERO,
    }
}

pub async fn record(scratch: &Scratch) -> Recording {
    let archive = scratch.folder("archive");
    let command = format!("cp \"%p\" \"{}/%f\"", archive.display());
    let major = Major::newest();
    let builder = Cluster::builder(major.clone())
        .segment_mib(1)
        .setting("archive_mode", "on");
    let cluster = builder.setting("archive_command", &command).start(scratch);
    cluster
        .sql("create table filled as select n, repeat('x', 100) from generate_series(1, 5000) n");
    let info = ConnInfo::from_process(&cluster.dsn()).unwrap();
    let (registered, store) = register(&info).await;
    let (server, mut physical) = start(&registered, &|| ConnInfo::from_process(&cluster.dsn()))
        .await
        .unwrap();
    let mut backup = physical.base_backup(&asked(&options())).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = backup.next().await.unwrap() {
        events.push(event);
    }
    let after = After {
        clock: Utc::now(),
        homes: server.homes.clone(),
    };
    let last = cluster.archive_now();
    wait_until("the WAL is there", || archive.join(&last).exists());
    push_all(&registered, &archive).await;
    Recording {
        server,
        events,
        after,
        store,
    }
}

async fn register(info: &ConnInfo) -> (Registered, Arc<MemoryStorage>) {
    let mut physical = Connection::connect(info, Mode::Physical).await.unwrap();
    let identity = physical.identify_system().await.unwrap();
    let size = physical.segment_size().await.unwrap();
    let major = MajorVersion::from_version_num(physical.version_num()).unwrap();
    let found = describe_server(
        "main".parse().unwrap(),
        identity.system_identifier,
        size,
        major,
        Utc::now(),
    );
    let store = Arc::new(MemoryStorage::default());
    let repository = Repository::init(store.clone(), Utc::now()).await.unwrap().0;
    (
        Registered::register(repository, found).await.unwrap().0,
        store,
    )
}

async fn push_all(registered: &Registered, archive: &PathBuf) {
    let pusher = Pusher::new(registered.clone(), 1, Duration::from_secs(60));
    for entry in std::fs::read_dir(archive).unwrap() {
        pusher.push(&entry.unwrap().path()).await.unwrap();
    }
}

/// All objects of a store in a new one.
async fn copy(store: &MemoryStorage) -> Arc<MemoryStorage> {
    let copy = MemoryStorage::default();
    copy_into(store, &copy).await;
    Arc::new(copy)
}

/// All objects of a store in another, which is empty.
async fn copy_into(store: &MemoryStorage, copy: &dyn Storage) {
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in list_all(store, &folder).await.unwrap() {
            match entry {
                ListEntry::Folder(inner) => folders.push(inner),
                ListEntry::Object(meta) => {
                    let content = get_all(store, &meta.key, u64::MAX).await.unwrap().unwrap();
                    let _ = copy
                        .put(&meta.key, content.into(), PutMode::CreateOnly)
                        .await
                        .unwrap();
                }
            }
        }
    }
}

pub async fn open(storage: Arc<dyn Storage>) -> Registered {
    Registered::open(
        Repository::open(storage).await.unwrap(),
        "main".parse().unwrap(),
    )
    .await
    .unwrap()
}

async fn play(registered: &Registered, recording: &Recording) -> anyhow::Result<()> {
    let (_stopper, mut stop) = watch::channel(false);
    let mut player = Player { recording, next: 0 };
    keep(
        registered,
        &recording.server,
        &mut player,
        &options(),
        &|_| {},
        &mut stop,
    )
    .await
    .map(drop)
}

/// Every backup there is, is whole.
async fn assert_sound(store: Arc<dyn Storage>, what: &str) -> usize {
    let registered = open(store).await;
    let loaded = load_backups(&registered).await.unwrap();
    assert!(loaded.damaged.is_empty(), "{what}: {:?}", loaded.damaged);
    for backup in loaded.complete.iter() {
        let verified = verify(&registered, VerifyScope::Backup(backup.id.clone()), 1)
            .await
            .unwrap();
        assert!(verified.is_sound(), "{what}: {:?}", verified.findings);
        assert!(
            verified.files > 500 && backup.pack_count > 2,
            "{what}: {backup:?}"
        );
    }
    loaded.complete.len()
}

/// Opening reads the marker, what it needs and cluster.json: the calls before the first crash point.
const OPENING: u64 = 3;

/// Stops at call `stop_at` to a store that is empty before; false when there were fewer calls.
pub async fn crash_at(
    recording: &Recording,
    store: Arc<dyn Storage>,
    stop_at: u64,
    point: CrashPoint,
) -> bool {
    let what = format!("call {stop_at}, {point:?}");
    copy_into(&recording.store, &*store).await;
    let faulty = Arc::new(FaultyStorage::new(store.clone(), stop_at + OPENING, point));
    let taken = play(&open(faulty.clone()).await, recording).await;
    let whole = assert_sound(store.clone(), &what).await;
    if !faulty.stopped() {
        taken.unwrap();
        return false;
    }
    // Success may only be said of a backup that is there. One call can fail without harm: the reservation's removal.
    assert!(taken.is_err() || whole == 1, "{what}");
    play(&open(store.clone()).await, recording)
        .await
        .unwrap_or_else(|error| panic!("{what}: {error:#}"));
    assert_eq!(assert_sound(store, &what).await, whole + 1);
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_stops_at_any_call_to_the_store_is_absent_or_whole() {
    let scratch = Scratch::new("crash");
    let recording = Arc::new(record(&scratch).await);
    let mut reached = 0;
    for first in (0..).step_by(8) {
        // Several at once: each takes a name, and names are a second apart.
        let mut crashes = tokio::task::JoinSet::new();
        for stop_at in first..first + 8 {
            for point in [CrashPoint::Before, CrashPoint::After] {
                let recording = recording.clone();
                let store = Arc::new(MemoryStorage::default());
                crashes.spawn(async move { crash_at(&recording, store, stop_at, point).await });
            }
        }
        let stopped = crashes.join_all().await;
        reached += stopped.iter().filter(|stopped| **stopped).count();
        // How many calls there are varies a little.
        if !stopped.contains(&true) {
            break;
        }
    }
    assert!((20..100).contains(&reached), "crash points: {reached}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_stops_at_any_call_leaves_other_backups_whole_and_can_be_repeated() {
    let scratch = Scratch::new("crashdel");
    let recording = record(&scratch).await;
    let registered = open(recording.store.clone()).await;
    for _ in 0..2 {
        play(&registered, &recording).await.unwrap();
    }
    let first = load_backups(&registered).await.unwrap().complete[0]
        .id
        .clone();
    let folder = format!("main/base/{first}/");
    for stop_at in 0.. {
        for point in [CrashPoint::Before, CrashPoint::After] {
            let store = copy(&recording.store).await;
            let plan = plan_delete(&open(store.clone()).await, &first)
                .await
                .unwrap();
            let faulty = Arc::new(FaultyStorage::new(store.clone(), stop_at + OPENING, point));
            let deleted = delete(&open(faulty.clone()).await, &plan).await;
            let what = format!("call {stop_at}, {point:?}");
            assert!(
                (1..=2).contains(&assert_sound(store.clone(), &what).await),
                "{what}"
            );
            // The lease of a process that is gone does not count; this one lives on.
            for lease in list_all(&*store, "main/leases/").await.unwrap() {
                if let ListEntry::Object(lease) = lease {
                    store.delete(&lease.key).await.unwrap();
                }
            }
            delete(&open(store.clone()).await, &plan).await.unwrap();
            assert_eq!(assert_sound(store.clone(), &what).await, 1, "{what}");
            assert!(
                list_all(&*store, &folder).await.unwrap().is_empty(),
                "{what}"
            );
            if !faulty.stopped() {
                deleted.unwrap();
                assert!(stop_at > 3);
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_becomes_too_long_ends_the_backup_at_once_and_nothing_of_it_is_kept() {
    let scratch = Scratch::new("longest");
    let recording = record(&scratch).await;
    let registered = open(recording.store.clone()).await;
    let (_stopper, mut stop) = watch::channel(false);
    let (mut player, mut options) = (
        Player {
            recording: &recording,
            next: 0,
        },
        options(),
    );
    options.pack.longest_manifest = 50_000;
    let taken = keep(
        &registered,
        &recording.server,
        &mut player,
        &options,
        &|_| {},
        &mut stop,
    )
    .await;
    let error = taken.unwrap_err();
    let (told, hints) = (format!("{error:#}"), hints(&error));
    assert!(
        told.contains("the manifest has more than 50000 bytes"),
        "{told}"
    );
    assert!(hints.concat().contains("too many files"), "{hints:?}");
    assert!(
        player.next < recording.events.len(),
        "the server sent {} events in vain",
        player.next
    );
    assert!(
        list_all(&*recording.store, "main/base/")
            .await
            .unwrap()
            .is_empty()
    );
    // Of nothing else.
    play(&registered, &recording).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_cleaned_up_under_the_hands_of_its_process_does_not_come_to_be() {
    let scratch = Scratch::new("crashclean");
    let recording = record(&scratch).await;
    let registered = open(recording.store.clone()).await;
    let cleaner = Cleaner {
        recording: &recording,
        next: 0,
        store: recording.store.clone(),
    };
    let (_stopper, mut stop) = watch::channel(false);
    let mut cleaner = cleaner;
    let taken = keep(
        &registered,
        &recording.server,
        &mut cleaner,
        &options(),
        &|_| {},
        &mut stop,
    )
    .await;
    assert!(format!("{:#}", taken.unwrap_err()).contains("cleaned up"));
    assert_eq!(assert_sound(recording.store.clone(), "after").await, 0);
}

/// Sends a recording again, and removes the reservation before its end as if somebody took the process for dead.
struct Cleaner<'a> {
    recording: &'a Recording,
    next: usize,
    store: Arc<MemoryStorage>,
}

impl BackupEvents for Cleaner<'_> {
    async fn next(&mut self) -> anyhow::Result<Option<BackupEvent>> {
        self.next += 1;
        Ok(self.recording.events.get(self.next - 1).cloned())
    }
}

impl BackupSource for Cleaner<'_> {
    async fn after(&mut self) -> anyhow::Result<After> {
        for entry in list_all(&*self.store, "main/base/").await? {
            let key = Key::new(format!("{}started.json", entry.name()))?;
            self.store.delete(&key).await?;
        }
        Ok(self.recording.after.clone())
    }

    async fn archiver_failure(&mut self) -> Option<String> {
        None
    }
}
