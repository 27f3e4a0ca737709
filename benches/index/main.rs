//! How large and how fast the index of the WAL is, end to end: a repository of `WALDEN_BENCH_SEGMENTS` made up segments,
//! a million if not set, on 5 timelines; `walden serve` reads it, is started again, and is asked over HTTP. Prints a
//! table; takes some 20 minutes and 20 GB, in `target` or in the folder `WALDEN_BENCH_FOLDER`. `WALDEN_BENCH_SEED`
//! repeats a run.

mod http;
mod lookups;
mod made_up;
mod real;
mod repository;
mod service;
mod table;
#[path = "../../src/postgres/wal/testing.rs"]
mod testing;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use http::{Kind, World, ask, drop_event};
use made_up::{Random, Shape, TIMELINES};
use repository::MadeUp;
use service::Settings;
use table::{Table, shown};
use walden::postgres::index::Index;

/// Bytes on disk of a made up segment, and what all the rest needs.
const SEGMENT_ON_DISK: u64 = 20 << 10;
const REST_ON_DISK: u64 = 4 << 30;

fn main() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect(name))
    };
    let shape = Shape {
        each: number("WALDEN_BENCH_SEGMENTS").unwrap_or(1_000_000) / TIMELINES,
    };
    assert!(shape.each >= 200, "at least 1000 segments");
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a time")
        .as_micros() as u64;
    let seed = number("WALDEN_BENCH_SEED").unwrap_or(now);
    let place = std::env::var_os("WALDEN_BENCH_FOLDER")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = tempfile::tempdir_in(&place).expect("a folder");
    check_room(folder.path(), shape);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut random, mut table) = (Random(seed), Table::default());
    println!("WALDEN_BENCH_SEED={seed}");

    let repository = folder.path().join("repository");
    let before = Instant::now();
    let made_up = MadeUp::make(&repository, shape, &mut random, &runtime);
    table.figure(
        "segments made up",
        format!(
            "{} on {TIMELINES} timelines, in {}",
            shape.each * TIMELINES,
            shown(before.elapsed())
        ),
    );
    let (envelopes, real) = (made_up.envelopes, 2 * made_up.real.len() as u64);
    let in_mean = made_up.real_bytes / real;
    table.figure(
        "of these with real WAL",
        format!("{real}, {} KiB stored in the mean", in_mean >> 10),
    );
    table.figure(
        "bytes of an envelope, made up and real",
        format!("{}, {}", envelopes.0, envelopes.1),
    );

    // A socket's path is short.
    let short = tempfile::tempdir().expect("a folder");
    let settings = Settings::write(short.path(), &repository);
    serve(&settings, &made_up, seed, &mut table);
    let index = Index::open(&settings.cache, &made_up.cluster).expect("the index");
    lookups::look_up(&index, shape, &mut random, &mut table);
    lookups::with_gaps(&runtime, &mut table);
    table.print();
}

/// Refuses a disk without room.
fn check_room(folder: &Path, shape: Shape) {
    let disk = rustix::fs::statvfs(folder).expect("the disk");
    let (free, needed) = (
        disk.f_bavail * disk.f_frsize,
        shape.each * TIMELINES * SEGMENT_ON_DISK + REST_ON_DISK,
    );
    assert!(
        free > needed,
        "{} GiB are free, {} needed: set WALDEN_BENCH_FOLDER",
        free >> 30,
        needed >> 30
    );
}

/// What the service does.
fn serve(settings: &Settings, made_up: &MadeUp, seed: u64, table: &mut Table) {
    let shape = made_up.shape;
    let segments = shape.each * TIMELINES;
    let memory = |(now, most)| format!("{now} MiB, at most {most}");

    let mut service = settings.start();
    let ready = service.until("/readyz", |_| true);
    table.figure("empty cache: until ready", shown(ready));
    let indexed = service.until_indexed(segments);
    let rate = segments as f64 / indexed.as_secs_f64();
    table.figure(
        "empty cache: until all is indexed",
        format!("{}, {rate:.0} segments a second", shown(indexed)),
    );
    let cpu = service.cpu() / segments as f64 * 1e6;
    table.figure(
        "empty cache: processor time",
        format!("{:.0} s, {cpu:.0} us a segment", service.cpu()),
    );
    table.figure("empty cache: memory", memory(service.memory()));
    table.figure("until it has stopped", shown(service.stop()));
    let cache = settings.cache_bytes();
    table.figure(
        "size of the cache",
        format!("{} MiB, {} bytes a segment", cache >> 20, cache / segments),
    );

    let world = World {
        shape,
        real: &made_up.real,
        events: &[],
    };
    let first = world.question(Kind::Time, &mut Random(seed));
    let mut service = settings.start();
    table.figure(
        "warm cache: until the first right answer",
        shown(service.until(&first.path, &first.right)),
    );
    table.figure(
        "warm cache: until ready",
        shown(service.until("/readyz", |_| true)),
    );
    table.figure("warm cache: memory", memory(service.memory()));
    table.figure(
        "warm cache: until all was looked at again",
        shown(service.until_indexed(segments)),
    );
    table.figure(
        "warm cache: processor time until then",
        format!("{:.1} s", service.cpu()),
    );

    let events: Vec<String> = made_up
        .real
        .iter()
        .map(|told| drop_event(settings.address, told))
        .collect();
    let world = World {
        events: &events,
        ..world
    };
    for connections in [1, 4] {
        for (kind, name) in Kind::ALL {
            let times = ask(settings.address, &world, kind, connections, seed);
            table.times(
                &format!(
                    "HTTP, {connections} at once: {name}, {} questions",
                    times.len()
                ),
                times,
            );
        }
    }
    table.figure("memory after the questions", memory(service.memory()));
    service.stop();
}
