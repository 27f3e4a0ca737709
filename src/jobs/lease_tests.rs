//! Whatever befalls the runners, never two work at once, and no run is forgotten.

use std::task::{Context, Waker};

use chrono::TimeDelta;

use super::super::decide::Due;
use super::super::history::History;
use super::super::job::Job;
use super::super::record::RunState;
use super::super::runs::{Runs, Turn, Wanted};
use super::model::{LEASE, Model, finish, job, lock};
use super::*;

fn try_seed(seed: u64) -> u64 {
    let mut model = Model::new(seed);
    (0..3000).for_each(|_| model.step());
    lock(&model.world).is_rough = false;
    (0..1500).for_each(|_| model.step());
    let (runs, _) = model.runs(0);
    let history = History {
        storage: model.memory.clone(),
        keys: JobKeys::new("main/jobs/".into()),
    };
    let kept = finish(history.runs(None)).unwrap();
    let running = finish(runs.leases.look("dump")).unwrap().unwrap();
    for run in &lock(&model.world).begun {
        let is_running = running
            .object
            .holder
            .as_ref()
            .is_some_and(|holder| holder.run == *run);
        assert!(
            kept.contains_key(run) || is_running,
            "seed {seed}: run {run} was forgotten"
        );
    }
    // What was missed while all went wrong is done.
    let settled = running.object.memory.settled;
    let now = runs.leases.clock.wall();
    assert!(
        now - settled < TimeDelta::minutes(8),
        "seed {seed}: settled {settled}, now {now}"
    );
    let folder = finish(crate::storage::list_all(&*model.memory, "main/jobs/dump/")).unwrap();
    assert!(
        folder.len() <= 4,
        "seed {seed}: old objects stay: {folder:?}"
    );
    let world = lock(&model.world);
    assert!(
        !world.begun.is_empty() && world.commits > 0,
        "seed {seed}: nothing was done"
    );
    world.begun.len() as u64
}

#[test]
fn never_two_at_once_and_none_forgotten_whatever_happens() {
    let seeds = match std::env::var_os("WALDEN_TEST_LONG") {
        Some(_) => 1000,
        None => 20,
    };
    let begun: u64 = (0..seeds).map(try_seed).sum();
    assert!(begun > 10 * seeds, "{begun} runs");
}

#[test]
fn a_holder_that_slept_cannot_renew_what_another_had_and_gave_back() {
    // The number that it would create was created and removed meanwhile: nothing is in its way.
    let mut model = Model::new(1);
    lock(&model.world).is_rough = false;
    model.runners.clear();
    let ((first, _), (second, _)) = (model.runs(0), model.runs(1));
    let job = job();
    lock(&model.world).now = Duration::from_secs(1200);
    let begin =
        |runs: &Runs, watch: &mut Watch| finish(runs.consider(&job, watch, Wanted::Now)).unwrap();
    let Turn::Run(mut slept) = begin(&first, &mut Watch::default()) else {
        panic!("the lease is free")
    };
    // It is stopped in the middle of its renewal.
    let world = model.world.clone();
    let mut renewal = Box::pin(first.leases.renew(&mut slept));
    assert!(
        renewal
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    let mut watch = Watch::default();
    assert!(matches!(begin(&second, &mut watch), Turn::Running(..)));
    lock(&world).now += LEASE;
    for _ in 0..4 {
        let Turn::Run(held) = begin(&second, &mut watch) else {
            panic!("the lease has expired")
        };
        let record = second.record("dump", &held.holder, RunState::Succeeded, None);
        finish(second.finish(*held, record)).unwrap();
    }
    assert!(
        !finish(renewal).unwrap(),
        "it must know that it has lost the lease"
    );
    assert!(first.leases.clock.boot() >= slept.valid_until());
    let late = first.record("dump", &slept.holder, RunState::Succeeded, None);
    let kept = finish(first.finish(*slept, late)).unwrap();
    assert_eq!(kept.state, RunState::Interrupted, "that was told already");
    let latest = finish(first.leases.look("dump")).unwrap().unwrap();
    assert!(latest.object.holder.is_none() && latest.generation > 6);
    assert_eq!(
        latest.object.memory.last.unwrap().state,
        RunState::Succeeded
    );
}

#[test]
fn an_answer_that_was_lost_costs_no_lease() {
    let mut model = Model::new(2);
    lock(&model.world).is_rough = false;
    model.runners.clear();
    let (runs, _) = model.runs(0);
    let Turn::Run(mut held) =
        finish(runs.consider(&job(), &mut Watch::default(), Wanted::Now)).unwrap()
    else {
        panic!("the lease is free")
    };
    // Stored, and given up before the answer came.
    {
        let mut renewal = Box::pin(runs.leases.renew(&mut held));
        for _ in 0..2 {
            assert!(
                renewal
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
        }
    }
    assert!(finish(runs.leases.renew(&mut held)).unwrap());
    let record = runs.record("dump", &held.holder, RunState::Succeeded, None);
    assert_eq!(
        finish(runs.finish(*held, record)).unwrap().state,
        RunState::Succeeded
    );
    let latest = finish(runs.leases.look("dump")).unwrap().unwrap();
    assert_eq!(latest.object.holder, None);
}

#[test]
fn a_job_that_nobody_saw_before_begins_with_its_next_moment() {
    let mut model = Model::new(3);
    lock(&model.world).is_rough = false;
    model.runners.clear();
    let (runs, _) = model.runs(0);
    let look = || finish(runs.consider(&job(), &mut Watch::default(), Wanted::SCHEDULED)).unwrap();
    let Turn::Idle(memory, Due::At(at)) = look() else {
        panic!("nothing is due")
    };
    assert_eq!(
        (memory.settled, at),
        (
            runs.leases.clock.wall(),
            "2026-11-30T00:02:00Z".parse().unwrap()
        )
    );
    lock(&model.world).now = Duration::from_secs(3600);
    let Turn::Run(held) = look() else {
        panic!("it is due")
    };
    assert_eq!(held.holder.purpose.missed, 29);
}

#[test]
fn a_schedule_is_unattended_until_a_runner_has_it() {
    let mut model = Model::new(3);
    lock(&model.world).is_rough = false;
    model.runners.clear();
    let (runs, _) = model.runs(0);
    let later = |seconds| lock(&model.world).now = Duration::from_secs(seconds);
    let is_unattended = |job: &Job| {
        let status = finish(runs.status(job, &mut Watch::default())).unwrap();
        status.unattended
    };
    assert!(is_unattended(&job()));
    later(3600);
    assert!(is_unattended(&job()), "however long nobody comes");
    finish(runs.consider(&job(), &mut Watch::default(), Wanted::SCHEDULED)).unwrap();
    later(3601);
    assert!(!is_unattended(&job()));
    let (cron, zone) = ("0 0 * * *".parse().unwrap(), "UTC".parse().unwrap());
    let changed = Job {
        schedule: job().schedule.map(|schedule| schedule.like(cron, zone)),
        ..job()
    };
    assert!(is_unattended(&changed), "a runner has the one before");
    let unscheduled = Job {
        schedule: None,
        ..job()
    };
    assert!(!is_unattended(&unscheduled));
}
