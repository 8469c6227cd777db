//! A Kubernetes controller that writes logfmt.

use types::Severity::{self, Debug, Error, Info, Warn};

use super::{
    Facts,
    fill::fill,
    rng::{Rng, Zipf},
    stamp::Civil,
};

/// Severity, controller and the rest of the pairs, commonest first.
const FINE: [(Severity, &str, &str); 12] = [
    (Info, "deployment", r#"msg="reconciled" name={workload} replicas={small} duration={ms}"#),
    (Debug, "endpointslice", r#"msg="no change" name={workload} endpoints={small}"#),
    (Info, "replicaset", r#"msg="created pod" pod={pod} node=node-{small}"#),
    (Info, "job", r#"msg="job finished" name={workload} succeeded=true completions={small}"#),
    (Info, "deployment", r#"msg="scaled up replica set" name={workload} from={small} to={small}"#),
    (Info, "node", r#"msg="heartbeat" node=node-{small} ready=true age_s={small}"#),
    (Debug, "garbagecollector", r#"msg="deleted object" uid={trace} kind=ConfigMap"#),
    (Info, "horizontalpodautoscaler", r#"msg="metrics read" name={workload} cpu_percent={small} target=70"#),
    (Info, "certificate", r#"msg="certificate renewed" name={workload}-tls days_left={small}"#),
    (Warn, "node", r#"msg="heartbeat is late" node=node-{small} ready=true age_s={small}"#),
    (Info, "leaderelection", r#"msg="renewed lease" holder={pod} term={small}"#),
    (Info, "persistentvolume", r#"msg="volume bound" claim=data-{workload}-{small} class=fast"#),
];

const FAILING: [(Severity, &str, &str); 6] = [
    (Error, "deployment", r#"msg="reconcile failed" name={workload} err="the object has been modified" requeue=true"#),
    (Warn, "replicaset", r#"msg="pod not ready" pod={pod} reason=CrashLoopBackOff restarts={small}"#),
    (Error, "node", r#"msg="node is not ready" node=node-{small} ready=false age_s={id}"#),
    (Error, "certificate", r#"msg="renewal failed" name={workload}-tls err="acme: rate limited" attempt={small}"#),
    (Warn, "job", r#"msg="deadline exceeded" name={workload} active={small}"#),
    (
        Error,
        "persistentvolume",
        r#"msg="attach failed" claim=data-{workload}-{small} err="device \"sd{small}\" is busy""#,
    ),
];

pub(super) fn line(rng: &mut Rng, zipf: &Zipf, time: Civil, failing: bool) -> (String, Facts) {
    let (severity, controller, pairs) = zipf.pick(rng, if failing { &FAILING[..] } else { &FINE[..] });
    let mut out = format!("ts={} level={severity} controller={controller} namespace=", time.rfc3339_millis());
    fill(rng, "{namespace} ", &mut out);
    fill(rng, pairs, &mut out);
    (out, Facts { severity: Some(severity), ..Facts::default() })
}
