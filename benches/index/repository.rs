//! A repository as an archiver would have left it: envelopes with what the segments hold, and for some of them real WAL.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use walden::codec::{About, Envelope, Sealed, seal};
use walden::postgres::archive::Pusher;
use walden::postgres::backup::manifest;
use walden::postgres::catalog::{BackupDescription, WAL_KIND, WalDescription};
use walden::postgres::cluster::{Cluster, describe_server};
use walden::postgres::layout::BackupId;
use walden::postgres::types::{Lsn, RecoverySettings, SystemIdentifier, TimelineId, WalFileName};
use walden::repo::{PutSealed, Repository};
use walden::storage::{LocalStorage, Storage};

use crate::made_up::{
    FIRST, LAST, Place, Random, SIZE, Shape, TIMELINES, begin, major, name, segment_size, summary,
};
use crate::real::{Told, pair};

/// As the made up WAL has it.
const SYSTEM: SystemIdentifier = SystemIdentifier(7);
/// Pairs of real segments on a timeline, or fewer if there are few segments.
const PAIRS: u64 = 40;
/// Segments of a timeline before its base backup, and before the first real ones.
const BEFORE_BACKUP: u64 = 4;
const BEFORE_REAL: u64 = 10;
/// Made up segments that a thread writes before it looks for more.
const PORTION: u64 = 256;
const PATIENCE: Duration = Duration::from_secs(600);

/// A repository in a folder.
pub struct MadeUp {
    pub shape: Shape,
    pub cluster: Cluster,
    /// Segments that can be looked into.
    pub real: Vec<Told>,
    /// Bytes of envelopes, of made up segments and of real ones.
    pub envelopes: (u64, u64),
    /// Bytes of all objects of real segments.
    pub real_bytes: u64,
}

/// A registered cluster without anything.
pub async fn register(storage: Arc<dyn Storage>) -> Cluster {
    let now = DateTime::UNIX_EPOCH;
    let (repository, _) = Repository::init(storage, now).await.expect("a repository");
    let server = describe_server(
        "main".parse().expect("a name"),
        SYSTEM,
        segment_size(),
        major(),
        now,
    );
    Cluster::register(repository, server)
        .await
        .expect("a cluster")
        .0
}

impl MadeUp {
    /// Makes it in an empty folder.
    pub fn make(
        folder: &Path,
        shape: Shape,
        random: &mut Random,
        runtime: &tokio::runtime::Runtime,
    ) -> Self {
        let cluster = runtime.block_on(register(Arc::new(LocalStorage::new(folder))));
        let places = real_places(shape, random);
        let push = Pusher::new(cluster.clone(), 1, PATIENCE);
        runtime.block_on(async {
            for timeline in 1..=TIMELINES {
                back_up(&cluster, timeline, shape.first(timeline) + BEFORE_BACKUP).await;
            }
            for timeline in 2..=TIMELINES {
                push_file(
                    &push,
                    &format!("{timeline:08X}.history"),
                    history(shape, timeline).as_bytes(),
                )
                .await;
            }
        });
        let told = Mutex::new(Vec::new());
        at_once(&places, |place: &Place| {
            let pair = pair(*place, &mut Random(place.0 << 32 | place.1));
            runtime.block_on(async {
                for (nth, bytes) in pair.bytes.chunks(SIZE as usize).enumerate() {
                    let segment = name((place.0, place.1 - 1 + nth as u64));
                    push_file(&push, &segment.to_string(), bytes).await;
                }
            });
            told.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(pair.told);
        });
        let real = told.into_inner().unwrap_or_else(PoisonError::into_inner);
        let made_up = write_made_up(folder, &cluster, shape);
        let (envelopes, real_bytes) = measure_real(folder, &cluster, &real);
        Self {
            shape,
            cluster,
            real,
            envelopes: (made_up, envelopes),
            real_bytes,
        }
    }
}

/// The second of each two real segments: spread at random, a pair in each of equally long stretches.
fn real_places(shape: Shape, random: &mut Random) -> Vec<Place> {
    let (begin, pairs) = (BEFORE_REAL, PAIRS.min(shape.each / 50));
    let stretch = (shape.each - begin - 1) / pairs;
    let place = |random: &mut Random, timeline, nth| {
        (
            timeline,
            shape.first(timeline) + begin + nth * stretch + 2 + random.below(stretch - 2),
        )
    };
    (1..=TIMELINES)
        .flat_map(|timeline| (0..pairs).map(move |nth| (timeline, nth)))
        .map(|(t, n)| place(random, t, n))
        .collect()
}

/// Works on all items, with all cores.
fn at_once<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    work(item);
                }
            });
        }
    });
}

/// As archive_command hands a file over.
async fn push_file(push: &Pusher, name: &str, content: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    fs::write(&path, content).expect("a WAL file");
    push.push(&path).await.expect("pushed");
}

fn history(shape: Shape, timeline: u64) -> String {
    let line = |later| {
        format!(
            "{}\t{}\tno recovery target specified\n",
            later - 1,
            shape.switch(later)
        )
    };
    (2..=timeline).map(line).collect()
}

/// A base backup that ends with the segment it begins in.
async fn back_up(cluster: &Cluster, timeline: u64, number: u64) {
    let (timeline, started_at) = (TimelineId(timeline as u32), begin(number));
    let description = BackupDescription {
        id: BackupId::at(started_at),
        label: "benchmark".into(),
        system_identifier: SYSTEM,
        major: major(),
        server_version: "16.10".into(),
        segment_size: segment_size(),
        data_checksums: true,
        from_standby: false,
        start_lsn: Lsn(number * SIZE + FIRST),
        timeline,
        stop_lsn: Lsn(number * SIZE + LAST),
        stop_timeline: timeline,
        started_at,
        stopped_at: started_at + TimeDelta::seconds(5),
        recovery_settings: RecoverySettings {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
        },
        tablespaces: Vec::new(),
        configuration_files: Vec::new(),
        configuration_places: Default::default(),
        checksum_failures: Vec::new(),
        checksums_verified: Some(true),
        warnings: Vec::new(),
        left_out: Vec::new(),
        earlier_backups: Some(Vec::new()),
        frame_size: manifest::FRAME_SIZE as u32,
        file_count: 0,
        plain_bytes: 0,
        stored_bytes: 0,
        pack_count: 0,
        walden_version: env!("CARGO_PKG_VERSION").into(),
    };
    let sealed = seal(manifest::KIND, &description, &mut &b""[..], 0, 3).expect("a manifest");
    let key = cluster.layout.manifest(&description.id);
    let put = cluster
        .repository
        .put_sealed(&key, &sealed)
        .await
        .expect("stored");
    assert!(matches!(put, PutSealed::Stored), "{put:?}");
}

/// Writes the segments that are not there yet as plain files, without a sync; bytes of their envelopes in the mean.
fn write_made_up(folder: &Path, cluster: &Cluster, shape: Shape) -> u64 {
    // The same content for all of them.
    let zeros = vec![0; SIZE as usize];
    let template =
        seal(WAL_KIND, &serde_json::Value::Null, &mut &zeros[..], SIZE, 1).expect("sealed");
    let portions = |timeline| {
        (shape.first(timeline)..shape.end(timeline))
            .step_by(PORTION as usize)
            .map(move |n| (timeline, n))
    };
    let portions: Vec<Place> = (1..=TIMELINES).flat_map(portions).collect();
    let (bytes, written) = (AtomicU64::new(0), AtomicU64::new(0));
    at_once(&portions, |(timeline, from)| {
        for number in *from..(from + PORTION).min(shape.end(*timeline)) {
            let path = object(folder, cluster, (*timeline, number));
            if path.exists() {
                continue;
            }
            let object = sealed(&template, shape, (*timeline, number));
            bytes.fetch_add(
                (object.len() - template.body.len()) as u64,
                Ordering::Relaxed,
            );
            written.fetch_add(1, Ordering::Relaxed);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, object).expect("an object");
        }
    });
    bytes.into_inner() / written.into_inner()
}

fn object(folder: &Path, cluster: &Cluster, place: Place) -> PathBuf {
    folder.join(
        cluster
            .layout
            .wal(&WalFileName::Segment(name(place)))
            .as_str(),
    )
}

fn sealed(template: &Sealed, shape: Shape, place: Place) -> Vec<u8> {
    let name = name(place);
    let archived_at: DateTime<Utc> = begin(place.1 + 1);
    let description = WalDescription {
        name: WalFileName::Segment(name),
        system_identifier: SYSTEM,
        timeline: name.timeline,
        major: Some(major()),
        archived_at,
        frames: Vec::new(),
        summary: Some(Box::new(summary(shape, place))),
    };
    let mut header = template.header.clone();
    header.about = About::of(&description);
    let mut object = Envelope::render(&header).to_vec();
    object.extend_from_slice(&template.body);
    object
}

/// Bytes of the envelopes of real segments in the mean, and of all their objects.
fn measure_real(folder: &Path, cluster: &Cluster, real: &[Told]) -> (u64, u64) {
    let (mut envelopes, mut objects, mut count) = (0, 0, BTreeSet::new());
    for told in real {
        for number in [told.place.1 - 1, told.place.1] {
            let object =
                fs::read(object(folder, cluster, (told.place.0, number))).expect("an object");
            envelopes += Envelope::parse(&object).expect("an envelope").len;
            objects += object.len() as u64;
            count.insert((told.place.0, number));
        }
    }
    assert_eq!(count.len(), 2 * real.len(), "no segment is in two pairs");
    (envelopes / count.len() as u64, objects)
}
