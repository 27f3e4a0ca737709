use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::alerts::file::parse;
use crate::alerts::message::tests::origin;
use crate::config::testing::defaults;
use crate::storage::faulty::{CrashPoint, FaultyStorage};
use crate::storage::{MemoryStorage, Storage};

/// A repository, and a channel that writes down what it is told.
struct World {
    folder: tempfile::TempDir,
    storage: Arc<dyn Storage>,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            storage: Arc::new(MemoryStorage::default()),
        }
    }

    fn store(&self, storage: Arc<dyn Storage>) -> AlertStore {
        AlertStore {
            storage,
            folder: "main/alerts/".into(),
        }
    }

    fn evaluator(&self) -> Evaluator {
        let written = self.folder.path().join("told").display().to_string();
        let text = format!(
            "[[command]]\nname = \"note\"\ncommand = [\"sh\", \"-c\", \"cat >>'{written}'; echo >>'{written}'\"]"
        );
        let file = parse(&text).unwrap();
        let settings = crate::config::Alerts {
            hold: Duration::ZERO,
            ..defaults().alerts
        };
        let policy = file.policy(&settings);
        let channels = Channels {
            file,
            origin: origin(),
            timeout: Duration::from_secs(30),
        };
        Evaluator::new(self.store(self.storage.clone()), policy, channels).unwrap()
    }

    /// What the channel was told.
    fn told(&self) -> Vec<String> {
        let text = std::fs::read_to_string(Path::new(self.folder.path()).join("told"));
        let lines = text.unwrap_or_default();
        let told = lines.lines().map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("{} {}", message["status"], message["alert"]).replace('"', "")
        });
        told.collect()
    }
}

fn broken() -> Seen {
    Seen {
        conditions: vec![unreachable("no answer")],
        ..Seen::default()
    }
}

#[tokio::test]
async fn two_services_beside_each_other_tell_once_and_so_does_a_restarted_one() {
    let world = World::new();
    let evaluators = (0..4).map(|_| world.evaluator());
    let looks = evaluators.map(|mut one| async move {
        one.look(&broken()).await.unwrap();
    });
    futures_util::future::join_all(looks).await;
    assert_eq!(world.told(), ["firing RepositoryUnreachable"]);
    world.evaluator().look(&broken()).await.unwrap();
    assert_eq!(world.told().len(), 1, "the repository remembers");
    world.evaluator().look(&Seen::default()).await.unwrap();
    assert_eq!(world.told()[1..], ["resolved RepositoryUnreachable"]);
}

#[tokio::test]
async fn what_one_was_telling_when_it_died_another_tells_when_its_time_is_over() {
    let world = World::new();
    let mut dead = world.evaluator();
    let now = Utc::now();
    let mut state = decide(&AlertState::default(), &broken(), &dead.policy, now);
    state.sender = Some(dead.own.clone());
    assert!(dead.store.put(1, &state).await.unwrap());
    let mut other = world.evaluator();
    let looked = other.look(&broken()).await.unwrap();
    assert!(looked.is_elsewhere && world.told().is_empty());
    let (number, since) = other.watched.unwrap();
    other.watched = Some((number, since - CLAIM));
    assert!(!other.look(&broken()).await.unwrap().is_elsewhere);
    assert_eq!(world.told(), ["firing RepositoryUnreachable"]);
    // The dead one was only asleep.
    dead.look(&broken()).await.unwrap();
    assert_eq!(world.told().len(), 1);
}

#[tokio::test]
async fn wherever_the_store_fails_people_are_told_once() {
    for point in [CrashPoint::Before, CrashPoint::After] {
        for stop_at in 0.. {
            let world = World::new();
            let faulty = Arc::new(FaultyStorage::new(world.storage.clone(), stop_at, point));
            let mut evaluator = world.evaluator();
            evaluator.store = world.store(faulty.clone());
            let _ = evaluator.look(&broken()).await;
            evaluator.store = world.store(world.storage.clone());
            evaluator.look(&broken()).await.unwrap();
            assert_eq!(world.told().len(), 1, "{point:?} {stop_at}");
            let (_, state) = evaluator.store.latest().await.unwrap();
            assert_eq!(state.sender, None);
            if !faulty.stopped() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_repository_that_cannot_be_reached_is_told_without_it() {
    let world = World::new();
    let mut evaluator = world.evaluator();
    for why in [None, Some("gone"), Some("gone"), None, None] {
        evaluator.reach(why).await;
    }
    let told = [
        "firing RepositoryUnreachable",
        "resolved RepositoryUnreachable",
    ];
    assert_eq!(world.told(), told);
}
