//! Which fields are labels, and under which names. Pure.
//!
//! Every field can be matched, filtered and grouped by, so all of them are listed as labels. But a stream is told from
//! another by few of them only: by those that people give their streams in every agent's configuration, and by those that
//! the query itself compares with a text. What else an event has is its structured metadata.

use query::{
    Column, ColumnKind,
    plan::{Plan, Predicate, Step},
};

/// The severity of an event as Loki's clients know it.
pub(super) const LEVEL: &str = "detected_level";
/// Of events without a severity.
pub(super) const UNKNOWN: &str = "unknown";
const SEVERITY: &str = "severity";
/// Columns that are no labels.
const HIDDEN: [&str; 6] = ["_time", "_received", "_msg", "_segment", "_offset", "_attrs"];

/// Labels that tell streams apart, sorted: what promtail, Alloy, Fluent Bit, Vector and OpenTelemetry's resources call them.
const OF_STREAMS: [&str; 64] = [
    "app",
    "app_kubernetes_io_name",
    "application",
    "appname",
    "cloud_availability_zone",
    "cloud_region",
    "cluster",
    "component",
    "container",
    "container_name",
    "deployment_environment",
    "deployment_environment_name",
    "env",
    "environment",
    "facility",
    "filename",
    "host",
    "host_name",
    "hostname",
    "instance",
    "job",
    "k8s_cluster_name",
    "k8s_container_name",
    "k8s_cronjob_name",
    "k8s_daemonset_name",
    "k8s_deployment_name",
    "k8s_job_name",
    "k8s_namespace_name",
    "k8s_node_name",
    "k8s_pod_name",
    "k8s_replicaset_name",
    "k8s_statefulset_name",
    "kubernetes_cluster_name",
    "kubernetes_container_name",
    "kubernetes_host",
    "kubernetes_labels_app",
    "kubernetes_namespace_name",
    "kubernetes_pod_name",
    "level",
    "namespace",
    "namespace_name",
    "node",
    "node_name",
    "pod",
    "pod_name",
    "program",
    "region",
    "service",
    "service_instance_id",
    "service_name",
    "service_namespace",
    "source",
    "source_type",
    "sourcetype",
    "stream",
    "syslog_identifier",
    "systemd_unit",
    "tag",
    "team",
    "tenant",
    "tenant_id",
    "unit",
    "workload",
    "zone",
];

/// The label under which a column is known: what is neither letter nor digit is `_`, and the severity is `detected_level`.
pub(crate) fn label_of(column: &str) -> String {
    match column {
        SEVERITY => LEVEL.to_owned(),
        other => other.replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
    }
}

/// Whether a column is shown as a label.
pub(super) fn is_label(column: &str) -> bool {
    !HIDDEN.contains(&column)
}

/// Every label, sorted.
pub(super) fn all(columns: &[Column]) -> Vec<String> {
    let mut all: Vec<String> =
        columns.iter().filter(|column| is_label(&column.name)).map(|column| label_of(&column.name)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The labels of streams among these columns, sorted.
pub(crate) fn of_streams(columns: &[Column]) -> Vec<String> {
    let texts = columns.iter().filter(|column| column.kind == ColumnKind::Text);
    let mut found: Vec<String> = texts.map(|column| label_of(&column.name)).collect();
    found.retain(|label| OF_STREAMS.binary_search(&label.as_str()).is_ok());
    found.sort_unstable();
    found.dedup();
    found
}

/// The same, and what the query compares with a text.
pub(super) fn of_query(columns: &[Column], plans: &[&Plan]) -> Vec<String> {
    let known = all(columns);
    let mut found = of_streams(columns);
    let mut add = |field: &str| {
        let label = label_of(field);
        if (known.contains(&label) || label == "level") && !found.contains(&label) {
            found.push(label);
        }
    };
    for plan in plans {
        texts(&plan.search, &mut add);
        for step in &plan.steps {
            if let Step::Search(predicate) = step {
                texts(predicate, &mut add);
            }
        }
    }
    found.sort_unstable();
    found
}

/// Shows each field that is compared with a text.
fn texts(predicate: &Predicate, see: &mut dyn FnMut(&str)) {
    match predicate {
        Predicate::Text { field: Some(field), .. }
        | Predicate::Exists(field)
        | Predicate::Compare { field, value: query::plan::Value::Text(_), .. } => see(field),
        Predicate::Not(inner) => texts(inner, see),
        Predicate::All(parts) | Predicate::Any(parts) => parts.iter().for_each(|part| texts(part, see)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use query::{Logql, parse_logql};

    use super::*;

    fn columns() -> Vec<Column> {
        let column = |(name, kind): (&str, ColumnKind)| Column { name: name.to_owned(), kind };
        let all = [
            ("_time", ColumnKind::Time),
            ("_msg", ColumnKind::Text),
            ("severity", ColumnKind::Text),
            ("_offset", ColumnKind::Integer),
            ("service.name", ColumnKind::Text),
            ("app", ColumnKind::Text),
            ("pod", ColumnKind::Integer),
            ("trace_id", ColumnKind::Text),
            ("colour", ColumnKind::Text),
        ];
        all.into_iter().map(column).collect()
    }

    #[test]
    fn the_list_is_sorted_so_that_it_can_be_searched() {
        assert!(OF_STREAMS.is_sorted(), "{OF_STREAMS:?}");
    }

    #[test]
    fn streams_have_few_labels_and_events_many() {
        assert_eq!(of_streams(&columns()), ["app", "service_name"]);
        assert_eq!(all(&columns()), ["app", "colour", "detected_level", "pod", "service_name", "trace_id"]);
        for (text, labels) in [
            ("{app=\"a\"}", vec!["app", "service_name"]),
            ("{colour=~\"r.*\", trace_id!=\"\"}", vec!["app", "colour", "service_name", "trace_id"]),
            ("{nothing=\"x\", level=\"error\"}", vec!["app", "level", "service_name"]),
            ("{detected_level=\"error\"} |= \"x\" | pod > 5", vec!["app", "detected_level", "service_name"]),
        ] {
            let Logql::Logs(plan) = parse_logql(text).unwrap() else { panic!("{text}") };
            assert_eq!(of_query(&columns(), &[&plan]), labels, "{text}");
        }
    }
}
