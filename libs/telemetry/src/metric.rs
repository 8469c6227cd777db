//! Metrics: statics that count without locks, one registry, and the page that Prometheus reads.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::RwLock;

/// Values of one label that are kept apart; later ones are counted together as `other`.
pub const LABEL_VALUES_MAX: usize = 200;

/// Buckets of a histogram at most.
const BUCKETS_MAX: usize = 16;

/// Buckets for durations: 0.5 ms to 30 s.
pub const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// Buckets for sizes: 256 B to 256 MiB in steps of 16 and 4.
pub const SIZES: [f64; 8] = [256.0, 4096.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 268_435_456.0];

static REGISTRY: RwLock<Vec<&'static dyn Family>> = RwLock::new(Vec::new());

/// One number or one distribution, without its name.
pub trait Cell: Send + Sync + 'static {
    /// Prometheus' word for it.
    const KIND: &'static str;

    /// Writes the samples; `labels` is empty or `key="value"`.
    fn write(&self, page: &mut String, name: &str, labels: &str);
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// A distribution over fixed buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: [AtomicU64; BUCKETS_MAX + 1],
    sum_bits: AtomicU64,
}

impl Counter {
    /// Starts at zero.
    #[allow(clippy::new_without_default, reason = "const constructor for statics")]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    /// Starts at zero.
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Replaces the value; what does not fit is clamped.
    pub fn set(&self, value: impl TryInto<i64>) {
        self.0.store(value.try_into().unwrap_or(i64::MAX), Relaxed);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl Histogram {
    /// An empty distribution over ascending upper bounds, at most sixteen; what lies above the last is still counted.
    pub const fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() <= BUCKETS_MAX, "a histogram has at most 16 buckets");
        Self { bounds, counts: [const { AtomicU64::new(0) }; BUCKETS_MAX + 1], sum_bits: AtomicU64::new(0) }
    }

    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // The closure never gives up, so there is no error to look at.
        self.sum_bits.fetch_update(Relaxed, Relaxed, add).ok();
    }

    /// Counts one duration in seconds.
    pub fn observe_duration(&self, value: std::time::Duration) {
        self.observe(value.as_secs_f64());
    }
}

impl Cell for Counter {
    const KIND: &'static str = "counter";
    fn write(&self, page: &mut String, name: &str, labels: &str) {
        sample(page, name, labels, &self.get().to_string());
    }
}

impl Cell for Gauge {
    const KIND: &'static str = "gauge";
    fn write(&self, page: &mut String, name: &str, labels: &str) {
        sample(page, name, labels, &self.get().to_string());
    }
}

impl Cell for Histogram {
    const KIND: &'static str = "histogram";
    fn write(&self, page: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (number, count) in self.counts.iter().take(self.bounds.len() + 1).enumerate() {
            total += count.load(Relaxed);
            let bound = self.bounds.get(number).map_or("+Inf".to_owned(), ToString::to_string);
            sample(page, &format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), &total.to_string());
        }
        let sum = f64::from_bits(self.sum_bits.load(Relaxed));
        sample(page, &format!("{name}_sum"), labels, &sum.to_string());
        sample(page, &format!("{name}_count"), labels, &total.to_string());
    }
}

fn sample(page: &mut String, name: &str, labels: &str, value: &str) {
    page.push_str(name);
    if !labels.is_empty() {
        page.push('{');
        page.push_str(labels);
        page.push('}');
    }
    page.push(' ');
    page.push_str(value);
    page.push('\n');
}

trait Family: Send + Sync {
    fn name(&self) -> &'static str;
    fn write(&self, page: &mut String);
}

/// A named cell; declared as a static through [`crate::metrics!`], known to [`render`] from its first use.
pub struct Metric<C: Cell> {
    name: &'static str,
    help: &'static str,
    known: AtomicBool,
    cell: C,
}

/// A named cell for each value of one label; declared as a static through [`crate::metrics!`].
///
/// Bounds: [`LABEL_VALUES_MAX`] values, then `other`.
pub struct By<C: Cell> {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    known: AtomicBool,
    make: fn() -> C,
    cells: RwLock<BTreeMap<String, Arc<C>>>,
}

impl<C: Cell> Metric<C> {
    /// Names a cell; use [`crate::metrics!`].
    pub const fn new(name: &'static str, help: &'static str, cell: C) -> Self {
        Self { name, help, known: AtomicBool::new(false), cell }
    }

    /// Makes the metric known to [`render`] before its first use.
    pub fn register(&'static self) {
        register(self, &self.known);
    }

    fn cell(&'static self) -> &'static C {
        self.register();
        &self.cell
    }
}

impl Metric<Counter> {
    /// Adds one.
    pub fn inc(&'static self) {
        self.cell().inc();
    }

    /// Adds `n`.
    pub fn add(&'static self, n: u64) {
        self.cell().add(n);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.cell.get()
    }
}

impl Metric<Gauge> {
    /// Replaces the value; what does not fit is clamped.
    pub fn set(&'static self, value: impl TryInto<i64>) {
        self.cell().set(value);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&'static self, n: i64) {
        self.cell().add(n);
    }

    /// The present value.
    pub fn get(&self) -> i64 {
        self.cell.get()
    }
}

impl Metric<Histogram> {
    /// Counts one observation.
    pub fn observe(&'static self, value: f64) {
        self.cell().observe(value);
    }

    /// Counts one duration in seconds.
    pub fn observe_duration(&'static self, value: std::time::Duration) {
        self.cell().observe_duration(value);
    }
}

impl<C: Cell> By<C> {
    /// Names a family of cells; use [`crate::metrics!`].
    pub const fn new(name: &'static str, help: &'static str, label: &'static str, make: fn() -> C) -> Self {
        Self { name, help, label, known: AtomicBool::new(false), make, cells: RwLock::new(BTreeMap::new()) }
    }

    /// Makes the metric known to [`render`] before its first use.
    pub fn register(&'static self) {
        register(self, &self.known);
    }

    /// The cell of one value of the label; keep it where it is used often.
    pub fn with(&'static self, value: &str) -> Arc<C> {
        self.register();
        if let Some(cell) = self.cells.read().get(value) {
            return cell.clone();
        }
        let mut cells = self.cells.write();
        let value = if cells.len() < LABEL_VALUES_MAX || cells.contains_key(value) { value } else { "other" };
        cells.entry(value.to_owned()).or_insert_with(|| Arc::new((self.make)())).clone()
    }
}

fn register(family: &'static dyn Family, known: &AtomicBool) {
    if known.load(Relaxed) || known.swap(true, Relaxed) {
        return;
    }
    let name = family.name();
    let shape =
        name.starts_with("lb_") && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    debug_assert!(shape, "metric {name}: use lb_ and small letters, digits and _");
    let mut all = REGISTRY.write();
    debug_assert!(all.iter().all(|other| other.name() != name), "metric {name} is declared twice");
    all.push(family);
}

fn head(page: &mut String, name: &str, help: &str, kind: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    // Writing to a String cannot fail.
    write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
}

impl<C: Cell> Family for Metric<C> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn write(&self, page: &mut String) {
        head(page, self.name, self.help, C::KIND);
        self.cell.write(page, self.name, "");
    }
}

impl<C: Cell> Family for By<C> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn write(&self, page: &mut String) {
        head(page, self.name, self.help, C::KIND);
        for (value, cell) in self.cells.read().iter() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            cell.write(page, self.name, &format!("{}=\"{value}\"", self.label));
        }
    }
}

/// All known metrics in Prometheus' text format, sorted by name.
pub fn render() -> String {
    let mut all = REGISTRY.read().clone();
    all.sort_by_key(|family| family.name());
    let mut page = String::new();
    all.iter().for_each(|family| family.write(&mut page));
    page
}

/// Declares metrics as `pub(crate)` statics and a function `register_all`, once a module.
///
/// `NAME: Counter = "lb_x_total", "help";`, with a label `NAME: Counter["reason"] = …`; kinds are `Counter`, `Gauge` and
/// `Histogram`, the last with its buckets as third value (`&telemetry::SECONDS`).
#[macro_export]
macro_rules! metrics {
    ($($name:ident: $kind:ident $([$label:literal])? = $metric:literal, $help:literal $(, $bounds:expr)?;)+) => {
        $($crate::metrics! { @declare $name $kind [$($label)?] $metric, $help, ($($bounds)?) })+

        /// Makes all metrics of this module known before their first use.
        #[allow(dead_code, reason = "a module may rely on first use")]
        pub(crate) fn register_all() {
            $($name.register();)+
        }
    };
    (@declare $name:ident $kind:ident [] $metric:literal, $help:literal, ($($bounds:expr)?)) => {
        #[doc = $help]
        pub(crate) static $name: $crate::Metric<$crate::$kind> =
            $crate::Metric::new($metric, $help, $crate::$kind::new($($bounds)?));
    };
    (@declare $name:ident $kind:ident [$label:literal] $metric:literal, $help:literal, ($($bounds:expr)?)) => {
        #[doc = $help]
        pub(crate) static $name: $crate::By<$crate::$kind> =
            $crate::By::new($metric, $help, $label, || $crate::$kind::new($($bounds)?));
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    metrics! {
        PLAIN: Counter = "lb_test_plain_total", "Counts \\ plainly.";
        LEVEL: Gauge = "lb_test_level", "A level.";
        DELAY: Histogram = "lb_test_delay_seconds", "A delay.", &[0.1, 1.0];
        REASONS: Counter["reason"] = "lb_test_reasons_total", "By reason.";
        CROWD: Gauge["who"] = "lb_test_crowd", "Too many values.";
        IDLE: Histogram["who"] = "lb_test_idle_seconds", "Never observed.", &SECONDS;
    }

    #[test]
    fn the_page_is_prometheus_text() {
        register_all();
        register_all();
        PLAIN.add(3);
        LEVEL.set(7_u64);
        LEVEL.add(-9);
        for value in [0.05, 0.1, 0.5, 20.0] {
            DELAY.observe(value);
        }
        REASONS.with("a \"b\"\n").inc();
        REASONS.with("a \"b\"\n").inc();
        let page = render();
        for expected in [
            "# HELP lb_test_plain_total Counts \\\\ plainly.\n# TYPE lb_test_plain_total counter\nlb_test_plain_total 3\n",
            "# TYPE lb_test_level gauge\nlb_test_level -2\n",
            "lb_test_delay_seconds_bucket{le=\"0.1\"} 2\nlb_test_delay_seconds_bucket{le=\"1\"} 3\n\
             lb_test_delay_seconds_bucket{le=\"+Inf\"} 4\nlb_test_delay_seconds_sum 20.65\nlb_test_delay_seconds_count 4\n",
            "lb_test_reasons_total{reason=\"a \\\"b\\\"\\n\"} 2\n",
            "# TYPE lb_test_idle_seconds histogram\n",
        ] {
            assert!(page.contains(expected), "{expected}\nis not in\n{page}");
        }
        assert_eq!(page.matches("# TYPE lb_test_plain_total").count(), 1);
    }

    #[test]
    fn label_values_are_bounded() {
        for number in 0..LABEL_VALUES_MAX + 10 {
            CROWD.with(&number.to_string()).add(1);
        }
        assert_eq!(CROWD.with("other").get(), 10);
        assert_eq!(CROWD.with("5").get(), 1);
        assert_eq!(CROWD.cells.read().len(), LABEL_VALUES_MAX + 1);
    }
}
