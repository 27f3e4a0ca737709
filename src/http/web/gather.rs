//! Gathers what the page shows, and decides nothing.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::super::app::App;
use super::super::facts::FactsSnapshot;
use super::super::problem::Problem;
use super::axis::Span;
use super::cards::{cards, notices};
use super::line::{self, Content, Line};
use super::query::PageQuery;
use super::view::{BackupView, Choose, EventsView, Page, PlanView, RefusedView, TargetOutcome, ranges};
use super::words::When;
use crate::postgres::catalog::{EventTarget, Filter, NamedTarget, Target};
use crate::postgres::index::FoundEvents;

/// What came of the target, and the moment that it is.
type Planned = (Option<TargetOutcome>, Option<DateTime<Utc>>);

/// The page, and whether its address could be read. Errors: the repository was not read yet.
pub async fn page(app: &Arc<App>, query: Result<PageQuery, String>) -> Result<(Page, bool), Problem> {
    let (read, known) = app.read()?;
    let now = Utc::now();
    let mut wrong = query.as_ref().err().cloned();
    let query = query.unwrap_or_default();
    let shown = query.span().unwrap_or_else(|error| {
        wrong.get_or_insert(error);
        None
    });
    let filter = query.filter(shown.as_ref());
    let (events, problem) = events(app, filter, &mut wrong).await;
    let (mut outcome, chosen) = planned(app, &read, &query, &mut wrong).await?;
    if let (None, Some(what)) = (&outcome, &wrong) {
        outcome = Some(TargetOutcome::Problem { what: what.clone(), hint: String::new() });
    }
    let content =
        Content { facts: &read.facts, windows: &read.windows, events: &events.events, query: &query, chosen, now };
    let all = line::all(&content);
    let span: Span = shown.unwrap_or(all);
    let line = Line::draw(&content, &span, &all);
    let seen = app.status.borrow().clone();
    let status = seen.as_ref().map(|seen| &seen.status);
    let versions: Vec<String> = app.cluster.versions.iter().map(|version| version.major.to_string()).collect();
    let page = Page {
        cluster: app.cluster.name.to_string(),
        versions: versions.last().cloned().unwrap_or_default(),
        system_identifier: app.cluster.system_identifier.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        signed_in: !app.tokens.is_empty(),
        read_at: When::of(read.at),
        notices: notices(known.failed.as_deref(), read.at, problem.is_none().then_some(&events.state)),
        cards: cards(&read.facts, &read.windows, &read.health(&app.limits, status, now), status, now),
        choose: Choose::new(&query, line.lanes.iter().map(|lane| lane.timeline).collect()),
        line,
        outcome,
        events: EventsView::new(&events, &query, problem),
        ranges: ranges(&read.windows),
        unknown_timelines: read.windows.unknown.iter().map(|unknown| unknown.why.clone()).collect(),
        backups: read.facts.backups.iter().rev().map(|backup| BackupView::new(backup, &query)).collect(),
        not_backups: not_backups(&read),
    };
    Ok((page, wrong.is_none()))
}

fn not_backups(read: &FactsSnapshot) -> Vec<(String, String)> {
    let damaged = read.facts.damaged_backups.iter().map(|(id, why)| (id.to_string(), why.clone()));
    let unfinished = read.facts.unfinished_backups.iter();
    let unfinished = unfinished.map(|id| (id.to_string(), "being taken, or interrupted".to_string()));
    damaged.chain(unfinished).collect()
}

/// Events, and why there are none.
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
        Err(problem) => (FoundEvents::default(), Some(format!("{}: {}", problem.detail(), problem.next()))),
    }
}

async fn planned(
    app: &Arc<App>,
    read: &FactsSnapshot,
    query: &PageQuery,
    wrong: &mut Option<String>,
) -> Result<Planned, Problem> {
    let problem = |what: String, hint: &str| Ok((Some(TargetOutcome::Problem { what, hint: hint.into() }), None));
    let asked = match query.asked() {
        Ok(None) => return Ok((None, None)),
        Ok(Some(asked)) => asked,
        Err(error) => {
            *wrong = Some(error.clone());
            return problem(error, "");
        }
    };
    let mut chosen = None;
    let target = match &asked.named {
        NamedTarget::Target(target) => target.clone(),
        NamedTarget::Event(id) => match app.event(*id).await {
            Ok(Some(event)) => {
                chosen = event.time.to_utc();
                Target::Event(EventTarget::from(&event))
            }
            Ok(None) => {
                return problem(format!("there is no event {id} in the archived WAL"), "choose one of those below");
            }
            Err(error) => return problem(error.detail().into(), error.next()),
        },
    };
    let request = asked.request(target);
    let decided = match app.decide(&read.facts, &request).await {
        Ok(decided) => decided,
        Err(error) => {
            return Ok((
                Some(TargetOutcome::Problem { what: error.detail().into(), hint: error.next().into() }),
                chosen,
            ));
        }
    };
    Ok(match decided {
        Ok(plan) => {
            chosen = chosen.or(match &plan.request.target {
                Target::Time(time) => Some(*time),
                Target::Immediate => Some(plan.backup.stopped_at),
                _ => plan.transactions.and_then(|sides| sides.last_included).map(|last| last.time),
            });
            (Some(TargetOutcome::Plan(Box::new(PlanView::from(&plan)))), chosen)
        }
        Err(refused) => {
            if let Target::Time(time) = request.target {
                chosen = Some(time);
            }
            (Some(TargetOutcome::Refused(RefusedView::new(&refused, query))), chosen)
        }
    })
}
