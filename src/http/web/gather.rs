//! Gathers what the page shows, and decides nothing.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::super::app::App;
use super::super::facts::FactsSnapshot;
use super::super::problem::Problem;
use super::super::records::KnownRecords;
use super::alerts::AlertsView;
use super::axis::Span;
use super::cards::{Card, cards, notices};
use super::drills::{self, DrillsView};
use super::line::{self, Line};
use super::query::PageQuery;
use super::signs::Content;
use super::upkeep;
use super::view::{
    BackupView, Choose, EventsView, Page, PlanView, RefusedView, TargetOutcome, ranges,
};
use super::words::When;
use crate::health::Upkeep;
use crate::postgres::catalog::{EventTarget, Filter, NamedTarget, Target};
use crate::postgres::index::FoundEvents;
use crate::service::jobs::JobsSnapshot;

/// What came of the target, and the moment that it is.
type Planned = (Option<TargetOutcome>, Option<DateTime<Utc>>);

/// All that a page is made of.
struct Gathered {
    read: FactsSnapshot,
    /// Why the repository could not be read again.
    failed: Option<String>,
    query: PageQuery,
    /// The span that the address names.
    span: Option<Span>,
    events: FoundEvents,
    /// Why there are no events.
    problem: Option<String>,
    outcome: Option<TargetOutcome>,
    chosen: Option<DateTime<Utc>>,
}

/// The page, and whether its address could be read. Errors: the repository was not read yet.
pub async fn page(
    app: &Arc<App>,
    query: Result<PageQuery, String>,
) -> Result<(Page, bool), Problem> {
    let (read, known) = app.read()?;
    let mut wrong = query.as_ref().err().cloned();
    let query = query.unwrap_or_default();
    let span = query.span().unwrap_or_else(|error| {
        wrong.get_or_insert(error);
        None
    });
    let (events, problem) = events(app, query.filter(span.as_ref()), &mut wrong).await;
    let (mut outcome, chosen) = planned(app, &read, &query, &mut wrong).await?;
    if let (None, Some(what)) = (&outcome, &wrong) {
        outcome = Some(TargetOutcome::Problem {
            what: what.clone(),
            hint: String::new(),
        });
    }
    let gathered = Gathered {
        read,
        failed: known.failed,
        query,
        span,
        events,
        problem,
        outcome,
        chosen,
    };
    Ok((compose(app, gathered), wrong.is_none()))
}

fn compose(app: &App, gathered: Gathered) -> Page {
    let Gathered {
        read,
        failed,
        query,
        span,
        events,
        problem,
        outcome,
        chosen,
    } = gathered;
    let now = Utc::now();
    let records = app.records.borrow().clone();
    let line = drawn(
        &Content {
            facts: &read.facts,
            windows: &read.windows,
            events: &events.events,
            query: &query,
            chosen,
            now,
        },
        span.as_ref(),
        &records,
    );
    let seen = app.status.borrow().clone();
    let status = seen.as_ref().map(|seen| &seen.status);
    let (upkeep, jobs) = (app.upkeep(), app.jobs.borrow().clone());
    Page {
        cluster: app.cluster.name.to_string(),
        versions: newest_version(app),
        system_identifier: app.cluster.system_identifier.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        signed_in: !app.tokens.is_empty(),
        read_at: When::of(read.at),
        notices: notices(
            failed.as_deref(),
            read.at,
            problem.is_none().then_some(&events.state),
        ),
        cards: cards(
            &read.facts,
            &read.windows,
            &app.health(&read, status, now),
            status,
            now,
        ),
        upkeep_cards: further_cards(app, &upkeep, &jobs, &records, now),
        alerts: AlertsView::new(&app.alerts.borrow(), now),
        drills: DrillsView::new(&records, &app.drill_targets, chosen),
        dumps: (&upkeep).into(),
        choose: choose(&query, &line),
        line,
        outcome,
        events: EventsView::new(&events, &query, problem),
        ranges: ranges(&read.windows),
        unknown_timelines: unknown_timelines(&read),
        backups: backups(&read, &query),
        not_backups: not_backups(&read),
        jobs: (&jobs).into(),
    }
}

fn choose(query: &PageQuery, line: &Line) -> Choose {
    let timelines = line.lanes.iter().map(|lane| lane.timeline);
    Choose::new(query, timelines.collect())
}

fn drawn(content: &Content<'_>, span: Option<&Span>, records: &KnownRecords) -> Line {
    let all = line::all(content);
    let span = span.unwrap_or(&all);
    Line::draw(content, span, &all).with_drills(drills::marks(records, span))
}

fn further_cards(
    app: &App,
    upkeep: &Upkeep,
    jobs: &JobsSnapshot,
    records: &KnownRecords,
    now: DateTime<Utc>,
) -> Vec<Card> {
    let mut cards = upkeep::cards(upkeep, jobs, &app.limits, now);
    cards.extend(drills::card(records, now));
    cards
}

fn unknown_timelines(read: &FactsSnapshot) -> Vec<String> {
    let unknown = read.windows.unknown.iter();
    unknown.map(|unknown| unknown.why.clone()).collect()
}

fn newest_version(app: &App) -> String {
    app.cluster
        .versions
        .last()
        .map(|version| version.major.to_string())
        .unwrap_or_default()
}

fn backups(read: &FactsSnapshot, query: &PageQuery) -> Vec<BackupView> {
    read.facts
        .backups
        .iter()
        .rev()
        .map(|backup| BackupView::new(backup, query))
        .collect()
}

fn not_backups(read: &FactsSnapshot) -> Vec<(String, String)> {
    let damaged = read
        .facts
        .damaged_backups
        .iter()
        .map(|(id, why)| (id.to_string(), why.clone()));
    let unfinished = read.facts.unfinished_backups.iter();
    let unfinished =
        unfinished.map(|id| (id.to_string(), "being taken, or interrupted".to_string()));
    damaged.chain(unfinished).collect()
}

/// EventsView, and why there are none.
async fn events(
    app: &Arc<App>,
    filter: Result<Filter, String>,
    wrong: &mut Option<String>,
) -> (FoundEvents, Option<String>) {
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => {
            wrong.get_or_insert(error.clone());
            return (FoundEvents::default(), Some(error));
        }
    };
    match app.events(filter).await {
        Ok(found) => (found, None),
        Err(problem) => (
            FoundEvents::default(),
            Some(format!("{}: {}", problem.detail(), problem.next())),
        ),
    }
}

impl From<Problem> for TargetOutcome {
    fn from(problem: Problem) -> Self {
        Self::Problem {
            what: problem.detail().into(),
            hint: problem.next().into(),
        }
    }
}

async fn planned(
    app: &Arc<App>,
    read: &FactsSnapshot,
    query: &PageQuery,
    wrong: &mut Option<String>,
) -> Result<Planned, Problem> {
    let asked = match query.asked() {
        Ok(None) => return Ok((None, None)),
        Ok(Some(asked)) => asked,
        Err(error) => {
            *wrong = Some(error.clone());
            return Ok((
                Some(TargetOutcome::Problem {
                    what: error,
                    hint: String::new(),
                }),
                None,
            ));
        }
    };
    let (target, at) = match target_of(app, &asked.named).await {
        Ok(target) => target,
        Err(problem) => return Ok((Some(problem), None)),
    };
    let request = asked.request(target);
    Ok(match app.decide(&read.facts, &request).await {
        Err(problem) => (Some(problem.into()), at),
        Ok(Ok(plan)) => {
            let chosen = at.or(match &plan.request.target {
                Target::Time(time) => Some(*time),
                Target::Immediate => Some(plan.backup.stopped_at),
                _ => plan
                    .transactions
                    .and_then(|sides| sides.last_included)
                    .map(|last| last.time),
            });
            (
                Some(TargetOutcome::Plan(Box::new(PlanView::from(&plan)))),
                chosen,
            )
        }
        Ok(Err(refused)) => {
            let time = if let Target::Time(time) = request.target {
                Some(time)
            } else {
                at
            };
            (
                Some(TargetOutcome::Refused(RefusedView::new(&refused, query))),
                time,
            )
        }
    })
}

/// The target that is named, and the moment that an event tells. Errors: there is no such event, or that is not known.
async fn target_of(
    app: &App,
    named: &NamedTarget,
) -> Result<(Target, Option<DateTime<Utc>>), TargetOutcome> {
    match named {
        NamedTarget::Target(target) => Ok((target.clone(), None)),
        NamedTarget::Event(id) => match app.event(*id).await? {
            Some(event) => Ok((
                Target::Event(EventTarget::from(&event)),
                event.time.to_utc(),
            )),
            None => Err(TargetOutcome::Problem {
                what: format!("there is no event {id} in the archived WAL"),
                hint: "choose one of those below".into(),
            }),
        },
    }
}
