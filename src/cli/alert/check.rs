use std::time::Duration;

use tokio::time::sleep;

use super::super::standing::standing;
use super::{list, memory, policy_and_channels, store};
use crate::alerts::state::{AlertState, Seen, Severity};
use crate::alerts::{Evaluator, Reach, not_judged};
use crate::cli::{Context, Exit};

/// Between two looks while somebody else tells people.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks how all stands, and tells who has to be told.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    let (mut policy, channels) = policy_and_channels(&context.settings)?;
    // Nobody looks again in a minute.
    policy.hold = Duration::ZERO;
    let memory = memory(&context.settings);
    let mut reach = Reach::new(&policy, channels.clone(), memory).at_once();
    let looked = async {
        let cluster = context.cluster().await?;
        let seen = seen(context).await?;
        let mut evaluator = Evaluator::new(store(&cluster), policy.clone(), channels.clone())?;
        anyhow::Ok(settled(&mut evaluator, &seen).await?)
    };
    match looked.await {
        Ok(state) => {
            reach.tell(None).await;
            list::print(context, &state, false)?;
            Ok(exit(&state))
        }
        Err(error) => {
            reach.tell(Some(&not_judged(&error))).await;
            Err(error)
        }
    }
}

async fn seen(context: &Context) -> anyhow::Result<Seen> {
    let (health, upkeep, knows_waiting) = standing(context).await?;
    Ok(Seen::of(
        &health,
        &upkeep,
        knows_waiting,
        chrono::Utc::now(),
    ))
}

/// The state once nobody else tells people. Who has nobody to tell marks nothing as told.
async fn settled(evaluator: &mut Evaluator, seen: &Seen) -> anyhow::Result<AlertState> {
    if evaluator.policy.is_empty() {
        return evaluator.judge(seen).await;
    }
    loop {
        let looked = evaluator.look(seen).await?;
        if !looked.is_elsewhere {
            return Ok(looked.state);
        }
        sleep(PAUSE).await;
    }
}

fn exit(state: &AlertState) -> Exit {
    match state.firing().iter().map(|alert| alert.severity).max() {
        None => Exit::Success,
        Some(Severity::Warning) => Exit::CheckWarning,
        Some(Severity::Critical) => Exit::CheckCritical,
    }
}
