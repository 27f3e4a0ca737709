use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::alerts::Reach;
use crate::alerts::decide::{RulePolicy, unreachable};
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
        AlertStore::new(storage, "main/alerts/".into())
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

    fn reach(&self, folder: &str) -> Reach {
        let Evaluator {
            policy, channels, ..
        } = self.evaluator();
        let file = self.folder.path().join(folder).join("memory");
        Reach::new(&policy, channels, file)
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
    let told = [
        "firing RepositoryUnreachable",
        "resolved RepositoryUnreachable",
    ];
    // By one process; each time by another, as cron does; and by one that has no folder to remember in.
    for (is_one, folder) in [(true, ""), (false, ""), (true, "nowhere")] {
        let world = World::new();
        let mut reach = world.reach(folder);
        for what in [None, Some("gone"), Some("gone"), None, None] {
            reach.tell(what).await;
            if !is_one {
                reach = world.reach(folder);
            }
        }
        assert_eq!(world.told(), told, "{is_one} {folder}");
    }
}

#[tokio::test]
async fn what_another_process_tells_just_now_is_not_told_twice() {
    let world = World::new();
    let file = std::fs::File::create(world.folder.path().join("memory")).unwrap();
    let locked = rustix::fs::FlockOperation::LockExclusive;
    rustix::fs::flock(&file, locked).unwrap();
    world.reach("").tell(Some("gone")).await;
    assert!(world.told().is_empty());
    drop(file);
    world.reach("").tell(Some("gone")).await;
    assert_eq!(world.told(), ["firing RepositoryUnreachable"]);
}

#[tokio::test]
async fn who_has_nobody_to_tell_stores_nothing() {
    let world = World::new();
    let mut nobody = world.evaluator();
    nobody.policy.routes.clear();
    assert!(nobody.policy.is_empty());
    let state = nobody.judge(&broken()).await.unwrap();
    assert_eq!(state.firing().len(), 1);
    assert_eq!(world.evaluator().store.latest().await.unwrap().0, 0);
    world.evaluator().look(&broken()).await.unwrap();
    assert_eq!(world.told(), ["firing RepositoryUnreachable"]);
}

#[tokio::test]
async fn a_process_that_remembers_nothing_tells_at_once_and_calls_it_what_it_is() {
    let world = World::new();
    let mut evaluator = world.evaluator();
    let held = RulePolicy {
        hold: Some(Duration::from_secs(3600)),
        ..RulePolicy::default()
    };
    let unreachable = "RepositoryUnreachable";
    evaluator.policy.rules.insert(unreachable.into(), held);
    let newer = not_judged(&anyhow::anyhow!("a newer Walden wrote it"));
    assert!(newer.starts_with("the alerts cannot be judged: a newer"));
    let away = StorageError {
        operation: "list",
        key: String::new(),
        store: "s3://b".into(),
        lasting: false,
        source: anyhow::anyhow!("gone"),
    };
    let away = not_judged(&anyhow::Error::new(away).context("look"));
    assert!(away.starts_with("the repository cannot be reached: look"));
    let (channels, policy) = (evaluator.channels, evaluator.policy);
    let memory = world.folder.path().join("memory");
    let mut reach = Reach::new(&policy, channels, memory).at_once();
    reach.tell(Some(&newer)).await;
    assert_eq!(world.told(), ["firing RepositoryUnreachable"]);
}

#[tokio::test]
async fn a_message_that_is_refused_does_not_keep_the_next_from_being_sent() {
    let world = World::new();
    let mut evaluator = world.evaluator();
    let written = world.folder.path().join("told").display().to_string();
    let script = format!(
        "read -r line; case $line in *DumpOld*) exit 1;; esac; echo \"$line\" >>'{written}'"
    );
    evaluator.channels.file.command[0].command = ["sh", "-c", &script].map(String::from).into();
    let mut seen = broken();
    seen.conditions.insert(0, unreachable("refused"));
    seen.conditions[0].rule = "DumpOld".into();
    let state = evaluator.look(&seen).await.unwrap().state;
    assert_eq!(world.told(), ["firing RepositoryUnreachable"]);
    let trouble = &state.channels["note"];
    assert!(trouble.refused.contains("DumpOld") && trouble.why.contains("exit status: 1"));
}

#[tokio::test]
async fn a_heartbeat_that_goes_on_costs_no_object_each_time() {
    let world = World::new();
    let mut evaluator = world.evaluator();
    let text = "[[heartbeat]]\nname = \"alive\"\nof = \"alerts\"\nurl = \"http://127.0.0.1:1/\"";
    let beats = parse(text).unwrap().policy(&defaults().alerts).heartbeats;
    evaluator.policy.heartbeats = beats;
    let now = Utc::now();
    let told = |at| AlertState {
        heartbeats: [("alive".to_string(), at)].into(),
        ..AlertState::default()
    };
    let before = now - chrono::TimeDelta::minutes(10);
    assert!(evaluator.store.put(1, &told(before)).await.unwrap());
    evaluator.beats = told(now).heartbeats;
    let seen = Seen {
        successes: [("alerts".to_string(), now)].into(),
        ..Seen::default()
    };
    let looked = evaluator.look(&seen).await.unwrap();
    assert_eq!(looked.state, told(now), "it was told, and is not again");
    assert_eq!(evaluator.store.latest().await.unwrap().0, 1);
    // What is stored for another reason brings it along.
    evaluator.look(&broken()).await.unwrap();
    let (_, state) = evaluator.store.latest().await.unwrap();
    assert_eq!(state.heartbeats["alive"], now);
}
