//! Default alert rules: what a plan or the parameters of an instance ask for, and the rules that come of it. Pure.
//!
//! They are read here as the alerter reads them, so that what cannot be a rule is refused before anything is begun.

use data_encoding::HEXLOWER;
use query::{Diagnostic, RuleError, parse_rule};
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use types::{IndexName, InstanceId, RuleId};
use wire::alerter::Rule;

use crate::wanted::Unfit;

/// Default rules of one instance.
pub const ALERTS_MAX: usize = 16;
/// The longest query of a rule, in bytes.
const QUERY_BYTES_MAX: usize = 4096;
/// What stands for the name of the index in the text of a query.
const INDEX: &str = "{index}";

/// What makes a default rule fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// More errors than `above` within a window; without it, any.
    ErrorCount,
    /// More than the share `above` of the events of a window are errors.
    ErrorShare,
    /// `text` stands in the messages of more events than `above` within a window; without it, of any.
    Text,
    /// `condition` holds for a row of `query`.
    Query,
}

/// One default rule, as a plan or an instance asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// Its name within the instance.
    pub name: String,
    /// What makes it fire.
    pub when: When,
    /// The threshold.
    pub above: Option<Number>,
    /// The window, such as `5m`.
    pub within: Option<String>,
    /// What is looked for in messages.
    pub text: Option<String>,
    /// A windowed continuous query.
    pub query: Option<String>,
    /// A condition over one of its aggregates.
    pub condition: Option<String>,
    /// Where transitions are sent besides NATS.
    pub webhook: Option<String>,
    /// For people.
    #[serde(default)]
    pub summary: String,
}

/// One default rule as the alerter is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultRule {
    /// Its name within the instance.
    pub name: String,
    /// A windowed continuous query.
    pub query: String,
    /// A condition over one of its aggregates.
    pub condition: String,
    /// Where transitions are sent besides NATS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

/// The rules of an index.
///
/// Errors: the first one that cannot be a rule, with its path and the complaint of the rule compiler.
pub fn default_rules(alerts: &[Alert], index: &IndexName) -> Result<Vec<DefaultRule>, Unfit> {
    if alerts.len() > ALERTS_MAX {
        return Err(Unfit::new("alerts", format!("{} rules, at most {ALERTS_MAX}", alerts.len())));
    }
    let one = |(place, alert): (usize, &Alert)| {
        let unfit = |key: &str, rule: String| Unfit::new(&format!("alerts/{place}/{key}"), rule);
        if alerts[..place].iter().any(|other| other.name == alert.name) {
            return Err(unfit("name", format!("{:.40} stands twice", alert.name)));
        }
        alert.rule(index).map_err(|(key, rule)| unfit(key, rule))
    };
    alerts.iter().enumerate().map(one).collect()
}

/// What the names of all rules of an instance begin with. Names of rules are one space for all tenants, so it is the instance's own.
pub(crate) fn prefix(instance: &InstanceId) -> String {
    let hash = digest::digest(&digest::SHA256, instance.as_str().as_bytes());
    format!("osb-{}-", HEXLOWER.encode(&hash.as_ref()[..8]))
}

impl DefaultRule {
    /// The rule of an instance.
    pub(crate) fn rule(&self, instance: &InstanceId, index: &IndexName) -> Result<Rule, types::Invalid> {
        let rule: RuleId = format!("{}{}", prefix(instance), self.name).parse()?;
        let Self { name: _, query, condition, webhook, summary } = self.clone();
        Ok(Rule { rule, index: index.clone(), query, condition, webhook, summary })
    }
}

/// The key of what is wrong, and what would be right.
type Wrong = (&'static str, String);

impl Alert {
    fn rule(&self, index: &IndexName) -> Result<DefaultRule, Wrong> {
        let simple = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=32).contains(&self.name.len()) || !self.name.bytes().all(simple) {
            return Err(("name", "must be 1 to 32 of a-z 0-9 -".to_owned()));
        }
        self.only_its_own()?;
        let (query, condition) = self.texts(index)?;
        if query.len() > QUERY_BYTES_MAX {
            return Err(("query", format!("it has {} bytes, at most {QUERY_BYTES_MAX}", query.len())));
        }
        let read = parse_rule(&query, &condition).map_err(|wrong| match wrong {
            RuleError::Query(found) => (if self.when == When::Query { "query" } else { "within" }, said(&found)),
            RuleError::Condition(found) => ("condition", said(&found)),
        })?;
        if read.source != *index {
            return Err((
                "query",
                format!("it reads {:.40}; write {INDEX} for the index of the instance", read.source),
            ));
        }
        Ok(DefaultRule {
            name: self.name.clone(),
            query,
            condition,
            webhook: self.webhook.clone(),
            summary: self.summary.clone(),
        })
    }

    /// What means nothing to a rule must not look as if it did.
    fn only_its_own(&self) -> Result<(), Wrong> {
        let own: &[&str] = match self.when {
            When::ErrorCount | When::ErrorShare => &["above", "within"],
            When::Text => &["above", "within", "text"],
            When::Query => &["query", "condition"],
        };
        let given = [
            ("above", self.above.is_some()),
            ("within", self.within.is_some()),
            ("text", self.text.is_some()),
            ("query", self.query.is_some()),
            ("condition", self.condition.is_some()),
        ];
        match given.iter().find(|(key, is_there)| *is_there && !own.contains(key)) {
            Some((key, _)) => Err((key, format!("a rule of this kind has only {}", own.join(", ")))),
            None => Ok(()),
        }
    }

    /// Query and condition.
    fn texts(&self, index: &IndexName) -> Result<(String, String), Wrong> {
        let required = |key: &'static str, text: &Option<String>| {
            text.clone().filter(|text| !text.is_empty()).ok_or((key, "is needed here".to_owned()))
        };
        let within = self.within.as_deref().unwrap_or("1m");
        let select = |column: &str, filter: &str| {
            format!("SELECT {column} FROM tumble(\"{index}\", INTERVAL '{within}'){filter} GROUP BY window_start")
        };
        let above = |column: &str| {
            let threshold = self.above.as_ref().map_or_else(|| "0".to_owned(), Number::to_string);
            format!("{column} > {threshold}")
        };
        if within.contains('\'') {
            return Err(("within", "must be a duration, such as 5m".to_owned()));
        }
        Ok(match self.when {
            When::ErrorCount => {
                (select("count(*) AS errors", " WHERE severity IN ('error', 'fatal')"), above("errors"))
            }
            When::ErrorShare => {
                let Some(least) = &self.above else {
                    return Err(("above", "is needed here: a share from 0 to 1".to_owned()));
                };
                let share = "avg(CASE WHEN severity IN ('error', 'fatal') THEN 1.0 ELSE 0.0 END) AS share";
                (select(share, ""), format!("share > {least}"))
            }
            When::Text => {
                let text = required("text", &self.text)?.replace('\'', "''");
                (select("count(*) AS seen", &format!(" WHERE strpos(_msg, '{text}') > 0")), above("seen"))
            }
            When::Query => {
                let query = required("query", &self.query)?.replace(INDEX, &format!("\"{index}\""));
                (query, required("condition", &self.condition)?)
            }
        })
    }
}

/// A complaint in one line, with the advice.
fn said(found: &Diagnostic) -> String {
    found.help.as_ref().map_or_else(|| found.to_string(), |help| format!("{found}; {help}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn index() -> IndexName {
        "shop-logs".parse().unwrap()
    }

    fn read(alerts: &Value) -> Result<Vec<DefaultRule>, Unfit> {
        default_rules(&serde_json::from_value::<Vec<Alert>>(alerts.clone()).unwrap(), &index())
    }

    #[test]
    fn what_is_asked_for_becomes_rules_that_the_alerter_can_read() {
        let made = read(&json!([
            { "name": "errors", "when": "error_count", "above": 100, "within": "10s" },
            { "name": "share", "when": "error_share", "above": 0.05, "within": "5m", "summary": "many errors" },
            { "name": "any", "when": "error_count" },
            { "name": "oom", "when": "text", "text": "can't allocate", "webhook": "https://hooks.example/oom" },
            { "name": "own", "when": "query", "condition": "slow > 250",
              "query": "SELECT avg(ms) AS slow FROM tumble({index}, INTERVAL '1 minute') GROUP BY window_start" },
        ]))
        .unwrap();
        let conditions: Vec<&str> = made.iter().map(|rule| rule.condition.as_str()).collect();
        assert_eq!(conditions, ["errors > 100", "share > 0.05", "errors > 0", "seen > 0", "slow > 250"]);
        assert!(made[0].query.contains("tumble(\"shop-logs\", INTERVAL '10s') WHERE severity IN"), "{}", made[0].query);
        assert!(made[3].query.contains("strpos(_msg, 'can''t allocate') > 0"), "{}", made[3].query);
        assert_eq!(made[3].webhook.as_deref(), Some("https://hooks.example/oom"));
        let (one, other): (InstanceId, InstanceId) = ("i".parse().unwrap(), "j".parse().unwrap());
        let rule = made[1].rule(&one, &index()).unwrap();
        assert!(rule.rule.as_str().starts_with(&prefix(&one)) && rule.rule.as_str().ends_with("-share"));
        assert_ne!(rule.rule, made[1].rule(&other, &index()).unwrap().rule, "tenants do not meet in one name");
        assert_eq!((rule.summary.as_str(), rule.index), ("many errors", index()));
    }

    #[test]
    fn what_cannot_be_a_rule_is_refused_with_its_place() {
        let query = |query: &str, condition: &str| json!([{ "name": "a", "when": "query", "query": query, "condition": condition }]);
        let good = "SELECT count(*) AS n FROM tumble({index}, INTERVAL '1m') GROUP BY window_start";
        for (alerts, words) in [
            (json!([{ "name": "a", "when": "error_share" }]), "parameters/alerts/0/above: is needed"),
            (json!([{ "name": "A", "when": "error_count" }]), "parameters/alerts/0/name: must be"),
            (
                json!([{ "name": "a", "when": "error_count" }, { "name": "a", "when": "error_count" }]),
                "parameters/alerts/1/name: a stands twice",
            ),
            (json!([{ "name": "a", "when": "text" }]), "parameters/alerts/0/text: is needed"),
            (
                json!([{ "name": "a", "when": "error_count", "text": "x" }]),
                "parameters/alerts/0/text: a rule of this kind has only above",
            ),
            (
                json!([{ "name": "a", "when": "error_count", "within": "soon" }]),
                "parameters/alerts/0/within: \"soon\" is not a duration (line 1",
            ),
            (json!([{ "name": "a", "when": "error_count", "within": "9d" }]), "parameters/alerts/0/within: "),
            (
                json!([{ "name": "a", "when": "error_count", "within": "1m' x" }]),
                "parameters/alerts/0/within: must be a duration",
            ),
            (
                query("SELECT x FROM {index}", "n > 1"),
                "parameters/alerts/0/query: a rule needs a query with windows (line 1, column 1); write",
            ),
            (query(good, "m > 1"), "parameters/alerts/0/condition: the query has no aggregate m"),
            (query(good, "n >"), "parameters/alerts/0/condition: the number is missing (line 1, column 4)"),
            (query(&good.replace(INDEX, "bank"), "n > 1"), "parameters/alerts/0/query: it reads bank; write {index}"),
        ] {
            let refused = read(&alerts).unwrap_err().to_string();
            assert!(refused.starts_with(words), "{refused}");
        }
        let many: Vec<Value> = (0..17).map(|n| json!({ "name": format!("a{n}"), "when": "error_count" })).collect();
        assert!(read(&many.into()).unwrap_err().to_string().contains("17 rules"));
    }
}
