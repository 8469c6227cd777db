//! The rules on the index of an instance, at the alerter.

use bus::Bus;
use types::{IndexName, InstanceId, RuleId};
use wire::{
    Problem,
    alerter::{DeleteRule, ListRules, PutRule, Rule, RuleName, RulesOf},
};

use super::CALL_MAX;
use crate::alerts::{DefaultRule, prefix};

/// Makes the rules that the alerter has of an instance those that are wanted, and no others. What others have made on the same index
/// stays.
///
/// Names are derived from the instance and calls may be repeated, so whoever goes on after a crash finds what is done.
/// Errors: the alerter's; some of it may be done then.
pub(super) async fn settle(
    bus: &Bus,
    id: &InstanceId,
    index: &IndexName,
    wanted: &[DefaultRule],
) -> Result<(), Problem> {
    let wanted: Result<Vec<Rule>, _> = wanted.iter().map(|rule| rule.rule(id, index)).collect();
    let wanted = wanted.map_err(Problem::internal)?;
    let own = prefix(id);
    for rule in on(bus, index).await? {
        if rule.as_str().starts_with(&own) && wanted.iter().all(|wanted| wanted.rule != rule) {
            delete(bus, index, rule).await?;
        }
    }
    for rule in &wanted {
        bus.call_within::<PutRule>(&(), rule, CALL_MAX).await.map_err(not_seen_yet)?;
    }
    Ok(())
}

/// Deletes all rules on an index, whoever made them: they must not watch what another tenant makes under the same name.
///
/// Only for an index that is the caller's own at the provisioner, or was until a moment ago. May be repeated.
/// Errors: the alerter's; some of it may be done then.
pub(crate) async fn clear(bus: &Bus, index: &IndexName) -> Result<(), Problem> {
    for rule in on(bus, index).await? {
        delete(bus, index, rule).await?;
    }
    Ok(())
}

async fn delete(bus: &Bus, index: &IndexName, rule: RuleId) -> Result<(), Problem> {
    let name = RuleName { rule, index: Some(index.clone()) };
    bus.call_within::<DeleteRule>(&(), &name, CALL_MAX).await.map(drop)
}

/// The rules on an index that the alerter has.
async fn on(bus: &Bus, index: &IndexName) -> Result<Vec<RuleId>, Problem> {
    let mut found = Vec::new();
    let mut wanted = RulesOf { index: Some(index.clone()), ..RulesOf::default() };
    // As many steps as there are pages: each begins behind the one before.
    loop {
        let page = bus.call_within::<ListRules>(&(), &wanted, CALL_MAX).await?;
        wanted.after = page.rules.last().filter(|_| page.more).map(|last| last.rule.rule.clone());
        found.extend(page.rules.into_iter().map(|there| there.rule.rule));
        if wanted.after.is_none() {
            return Ok(found);
        }
    }
}

/// The index was made a moment ago: whoever does not know it will.
fn not_seen_yet(problem: Problem) -> Problem {
    if problem.kind == "UnknownIndex" { Problem::unavailable("NotReady", problem.message) } else { problem }
}
