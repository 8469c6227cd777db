//! The Grafana dashboard is made from `docs/metrics.md`; written again when `UPDATE=1` is set.

use std::{env, fs};

use logboom_tests::root;
use serde_json::{Value, json};

const FILE: &str = "k8s/components/monitoring/logboom.json";
/// Panels in a row of the dashboard, and the columns and lines that one takes.
const PANELS_IN_A_ROW: usize = 3;
const WIDTH: usize = 8;
const HEIGHT: usize = 7;

/// One line of the table: name, kind, label, help.
struct Metric {
    name: String,
    kind: String,
    label: String,
    help: String,
}

fn metrics() -> Vec<Metric> {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `lb_"));
    let cell = |text: &str| text.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(cell).collect();
        let [name, kind, label, help] = cells.try_into().unwrap_or_else(|cells| panic!("{row}: {cells:?}"));
        Metric { name, kind, label, help }
    })
    .collect()
}

impl Metric {
    /// `lb_segment_store_frames_total` -> `segment-store`; the first word where it is of no service.
    fn owner(&self) -> &str {
        let services = wire::Service::ALL.into_iter().map(wire::Service::as_str);
        let own = |service: &&str| self.name.starts_with(&format!("lb_{}_", service.replace('-', "_")));
        let word = self.name.trim_start_matches("lb_").split('_').next().unwrap_or_default();
        services.into_iter().find(own).unwrap_or(word)
    }

    fn unit(&self) -> &'static str {
        let ends = |end: &str| self.name.trim_end_matches("_total").ends_with(end);
        match self.kind.as_str() {
            "counter" if ends("_bytes") => "Bps",
            "counter" if ends("_microseconds") => "µs/s",
            "counter" => "cps",
            _ if ends("_seconds") => "s",
            _ if ends("_bytes") => "bytes",
            _ => "short",
        }
    }

    /// What Prometheus is asked, and how each line is called.
    fn questions(&self) -> Vec<(String, String)> {
        let Self { name, kind, label, .. } = self;
        let (by, legend) = match label.as_str() {
            "" => (String::new(), "all replicas".to_owned()),
            label => (format!(" by ({label})"), format!("{{{{{label}}}}}")),
        };
        match kind.as_str() {
            "counter" => vec![(format!("sum{by} (rate({name}[$__rate_interval]))"), legend)],
            "gauge" => vec![(format!("sum{by} ({name})"), legend)],
            "histogram" => [("0.5", "p50"), ("0.99", "p99")]
                .map(|(part, called)| {
                    let (by, legend) = match label.as_str() {
                        "" => ("le".to_owned(), called.to_owned()),
                        label => (format!("le, {label}"), format!("{legend} {called}")),
                    };
                    let rate = format!("rate({name}_bucket[$__rate_interval])");
                    (format!("histogram_quantile({part}, sum by ({by}) ({rate}))"), legend)
                })
                .into(),
            other => panic!("{name} is a {other}"),
        }
    }

    fn panel(&self, id: usize, x: usize, y: usize) -> Value {
        let targets = self.questions().into_iter().zip(["A", "B"]);
        let targets: Vec<_> =
            targets.map(|((expr, legend), id)| json!({"refId": id, "expr": expr, "legendFormat": legend})).collect();
        json!({
            "id": id, "type": "timeseries", "title": self.name, "description": self.help, "targets": targets,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "fieldConfig": {"defaults": {"unit": self.unit()}, "overrides": []},
            "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        })
    }
}

/// A row for each service, a panel for each metric.
fn dashboard(metrics: &[Metric]) -> Value {
    let (mut rows, mut id, mut y) = (Vec::new(), 0, 0);
    for group in metrics.chunk_by(|one, next| one.owner() == next.owner()) {
        id += 1;
        let row = id;
        let panels: Vec<_> = group
            .iter()
            .enumerate()
            .map(|(place, metric)| {
                id += 1;
                let (column, line) = (place % PANELS_IN_A_ROW, place / PANELS_IN_A_ROW);
                metric.panel(id, column * WIDTH, y + 1 + line * HEIGHT)
            })
            .collect();
        rows.push(json!({
            "id": row, "type": "row", "title": group[0].owner(), "collapsed": true, "panels": panels,
            "gridPos": {"x": 0, "y": y, "w": WIDTH * PANELS_IN_A_ROW, "h": 1},
        }));
        y += 1;
    }
    json!({
        "uid": "logboom", "title": "Logboom", "tags": ["logboom"], "editable": true, "schemaVersion": 39, "version": 1,
        "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "panels": rows,
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
    })
}

#[test]
fn the_dashboard_shows_every_metric() {
    let metrics = metrics();
    assert!(metrics.len() > 50, "{}", metrics.len());
    let made =
        serde_json::to_string(&dashboard(&metrics)).unwrap().replace("{\"datasource\"", "\n{\"datasource\"") + "\n";
    let asked = metrics.iter().filter(|metric| made.contains(&metric.name)).count();
    assert_eq!(asked, metrics.len());
    if env::var_os("UPDATE").is_some() {
        fs::write(root().join(FILE), made).unwrap();
        return;
    }
    let kept = fs::read_to_string(root().join(FILE)).unwrap_or_default();
    assert!(kept == made, "{FILE} is not what docs/metrics.md says: run `./justw generate`");
    assert!(kept.len() < 256 << 10, "kubectl keeps the whole text in an annotation, which may have 256 KiB");
}
