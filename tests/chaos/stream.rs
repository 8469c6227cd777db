//! Continuous jobs while task workers, job managers and stores are killed, stopped and cut off: their rows must be what a recomputation gives.
//!
//! One trial is one seed: an index of its own, a job of every kind that is built, and events that never cease while four to six
//! faults come. A seed gives the same faults again; when they strike within the jobs' work is up to the machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use logboom_tests::{Cluster, Options, eventually, waves::Waves};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::time::{Instant, sleep};
use wire::Service;

use crate::{
    fault::{Break, Fault, Fleet, Victim},
    inject::break_link,
    kinds::{DELAY_MS, KINDS, Kind},
    number,
    schedule::Step,
};

/// What is run among the other tests.
const SEEDS: [u64; 1] = [5];
/// Of each, so that another one can take over at once.
const WORKERS: u8 = 2;
const LEADERS: u8 = 2;
const SEGMENTS: u16 = 4;
/// Rows of one publish, and the pause before the next.
const ROWS: usize = 10;
const PACE: Duration = Duration::from_millis(40);
/// How long jobs may take to answer everything when all is over.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(120);
/// Short leases and many checkpoints, so that seconds are enough for everything to happen.
const HASTE: [&str; 6] = [
    "common.lease_ttl=1s",
    "common.snapshot_interval=1s",
    "coordinator.member_timeout=1s",
    "job_manager.checkpoint_interval=300ms",
    "task_worker.slots=64",
    "gateway.query_rows_max=1000000",
];

/// What goes wrong in one trial, and when: a pure function of the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    seed: u64,
    parallelism: u16,
    steps: Vec<Step>,
}

impl Plan {
    fn of(seed: u64) -> Self {
        // Another sequence than that of the schedules without jobs.
        let mut random = StdRng::seed_from_u64(seed ^ 0x57_2e_a3);
        let parallelism = [1, 2, 4][random.random_range(0..3)];
        let count = random.random_range(4..=6);
        let steps = (0..count).map(|_| {
            let after = Duration::from_millis(random.random_range(200..1_500));
            Step { after, fault: fault(&mut random) }
        });
        Self { seed, parallelism, steps: steps.collect() }
    }
}

/// Everything is drawn before it is known which fault it is: so the drawing is the same for all.
fn fault(random: &mut StdRng) -> Fault {
    let (pick, how) = (random.random_range(0..22u32), random.random_range(0..4u32));
    let (worker, leader) = (random.random_range(0..WORKERS), random.random_range(0..LEADERS));
    let (worker, leader) = (Victim::TaskWorker(worker), Victim::JobManager(leader));
    let (short_ms, down_ms) = (random.random_range(100..600), random.random_range(50..2_000));
    // Some of them longer than a lease.
    let for_ms = if pick.is_multiple_of(2) { short_ms } else { 2_000 + short_ms };
    let how = match how {
        0 => Break::Cut,
        1 => Break::Silent,
        2 => Break::LoseAnswers,
        _ => Break::Slow { ms: short_ms / 4 },
    };
    match pick {
        0..=6 => Fault::Kill { victim: worker, down_ms },
        7..=9 => Fault::Kill { victim: leader, down_ms },
        10 => Fault::Kill { victim: Victim::Store(0), down_ms },
        11..=13 => Fault::Zombie { victim: worker, for_ms: 2_000 + short_ms },
        14 => Fault::Zombie { victim: leader, for_ms: 2_000 + short_ms },
        15 => Fault::Pause { victim: worker, for_ms: short_ms },
        16 => Fault::Roll { fleet: Fleet::TaskWorkers },
        17 => Fault::Roll { fleet: Fleet::JobManagers },
        18..=19 => Fault::Link { victim: worker, how, for_ms },
        _ => Fault::Link { victim: leader, how, for_ms },
    }
}

async fn strike(cluster: &mut Cluster, fault: Fault) -> Result<()> {
    let ms = Duration::from_millis;
    let name = |victim: Victim| victim.replica().context("a service has a name");
    match fault {
        Fault::Kill { victim, down_ms } => {
            cluster.kill9(&name(victim)?)?;
            sleep(ms(down_ms)).await;
            // Whether it is ready is asked when all is over: the next fault does not wait for it.
            cluster.spawn(&name(victim)?)
        }
        Fault::Pause { victim, for_ms } | Fault::Zombie { victim, for_ms } => {
            cluster.pause(&name(victim)?)?;
            sleep(ms(for_ms)).await;
            cluster.resume(&name(victim)?)
        }
        Fault::Roll { fleet } => {
            let (service, count) =
                if fleet == Fleet::TaskWorkers { ("task-worker", WORKERS) } else { ("job-manager", LEADERS) };
            for replica in (b'a'..).take(usize::from(count)).map(char::from) {
                let name = format!("{service}/{replica}");
                // One that was killed a moment ago is not asked before it listens.
                cluster.wait_until_ready(&name).await?;
                cluster.terminate(&name).await?;
                cluster.restart(&name).await?;
            }
            Ok(())
        }
        Fault::Link { victim, how, for_ms } => {
            break_link(cluster.link(&name(victim)?)?, how, ms(for_ms)).await;
            Ok(())
        }
        other => bail!("{other:?} does not come here"),
    }
}

/// An installation with jobs, in which trials take place one after another.
struct Ground {
    cluster: Cluster,
    kinds: Vec<&'static Kind>,
}

impl Ground {
    async fn start() -> Result<Self> {
        let count = |service| match service {
            Service::TaskWorker => WORKERS,
            Service::JobManager => LEADERS,
            _ => 1,
        };
        let services = Service::ALL.into_iter().map(|service| (service, count(service))).collect();
        let options = Options { services, fragile: true, ..Options::default() }.set(&HASTE);
        let cluster = Cluster::start_with(options).await?;
        Ok(Self { cluster, kinds: KINDS.iter().filter(|kind| kind.is_built()).collect() })
    }

    /// Runs one trial; answers the rows that were compared, or what was broken.
    async fn run(&mut self, plan: &Plan) -> Result<u64> {
        let index = format!("seed{}", plan.seed);
        let mut waves = Waves::start(&self.cluster.api, &index, SEGMENTS, plan.seed).await?;
        for kind in &self.kinds {
            let job = format!("{index}-{}", kind.job(plan.parallelism));
            self.cluster.api.provision(&job, 1).await?;
            let body = json!({ "job": job, "text": kind.text(&index, &job), "start": "earliest", "parallelism": plan.parallelism });
            self.cluster.api.ask(reqwest::Method::POST, "/api/v1/jobs", Some(&body)).await?.ok()?;
        }
        let done = AtomicBool::new(false);
        let publishing = async {
            while !done.load(Ordering::Relaxed) {
                waves.publish(ROWS).await?;
                sleep(PACE).await;
            }
            anyhow::Ok(())
        };
        let cluster = &mut self.cluster;
        let striking = async {
            let struck = async {
                for step in &plan.steps {
                    sleep(step.after).await;
                    strike(cluster, step.fault).await.with_context(|| format!("{:?}", step.fault))?;
                }
                anyhow::Ok(())
            };
            let struck = struck.await;
            done.store(true, Ordering::Relaxed);
            struck
        };
        let (published, struck) = tokio::join!(publishing, striking);
        published.and(struck)?;
        self.cluster.wait_until_all_ready().await?;
        waves.end().await?;
        let input = waves.input(DELAY_MS).await?;
        let mut rows = 0;
        for kind in &self.kinds {
            rows += self
                .settled(kind, &format!("{index}-{}", kind.job(plan.parallelism)), &(kind.recompute)(&input))
                .await?;
        }
        self.cluster.check()?;
        Ok(rows)
    }

    /// Every row is there once, and goes on being there once; then the job is ended.
    async fn settled(&self, kind: &Kind, job: &str, expected: &logboom_tests::recompute::Answer) -> Result<u64> {
        let api = &self.cluster.api;
        let found = eventually(job, CAUGHT_UP_WITHIN, async || {
            let found = kind.found(api, job).await?;
            expected.complaint(&found).map_or(Ok(()), |complaint| Err(anyhow::anyhow!(complaint)))
        });
        if let Err(error) = found.await {
            let description = api.job(job).await.map_or_else(|error| error.to_string(), |job| job.to_string());
            return Err(error.context(format!("of {} rows; the job: {description}", expected.count())));
        }
        api.ask(reqwest::Method::DELETE, &format!("/api/v1/jobs/{job}"), None).await?;
        Ok(expected.count())
    }
}

/// The seeds to run: those that were asked for, else the fixed ones.
fn seeds() -> Vec<u64> {
    let first = number("LB_SEED", 1);
    match number("LB_SEEDS", 0) {
        0 => SEEDS.to_vec(),
        count => (first..first + count).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_answer_the_same_whatever_dies() {
    let (begun, mut ground, mut faults) = (Instant::now(), None, BTreeMap::<&str, u64>::new());
    let (mut broken, mut rows) = (BTreeMap::new(), 0);
    let plans: Vec<Plan> = seeds().into_iter().map(Plan::of).collect();
    for plan in &plans {
        println!("chaos: seed {} with parallelism {}: {:?}", plan.seed, plan.parallelism, plan.steps);
        let mut here = match ground.take() {
            Some(ground) => ground,
            None => Ground::start().await.unwrap(),
        };
        plan.steps.iter().for_each(|step| *faults.entry(step.fault.kind()).or_default() += 1);
        let begun = Instant::now();
        match here.run(plan).await {
            Ok(compared) => {
                println!("chaos: seed {}: {compared} rows in {} s", plan.seed, begun.elapsed().as_secs());
                rows += compared;
                ground = Some(here);
            }
            Err(error) => {
                println!("chaos: seed {} broke a promise: {error:#}", plan.seed);
                println!("chaos: data and logs are kept in {}", here.cluster.keep().display());
                broken.insert(plan.seed, format!("{error:#}"));
            }
        }
    }
    println!(
        "chaos: {} seeds, {rows} rows compared, {} violations, {} s by the clock\nchaos: {faults:?}",
        plans.len(),
        broken.len(),
        begun.elapsed().as_secs()
    );
    assert!(broken.is_empty(), "broken promises (LB_SEED=N LB_SEEDS=1 ./justw chaos stream): {broken:#?}");
}

fn kinds(seed: u64) -> BTreeSet<&'static str> {
    Plan::of(seed).steps.iter().map(|step| step.fault.kind()).collect()
}

#[test]
fn the_same_seed_gives_the_same_faults_and_the_guide_knows_them() {
    assert_eq!(Plan::of(5), Plan::of(5));
    assert_ne!(Plan::of(5).steps, Plan::of(6).steps);
    let all: BTreeSet<_> = (0..2_000).flat_map(kinds).collect();
    let guide = include_str!("../../docs/guide/faults.md");
    let missing: Vec<_> = all.iter().filter(|kind| !guide.contains(&format!("`{kind}`"))).collect();
    assert!(missing.is_empty(), "docs/guide/faults.md does not say how these are done: {missing:?}");
    assert!((0..2_000).map(|seed| Plan::of(seed).parallelism).collect::<BTreeSet<_>>() == BTreeSet::from([1, 2, 4]));
}

#[test]
fn the_seed_that_is_always_run_kills_both_and_parts_one() {
    let run: BTreeSet<_> = SEEDS.into_iter().flat_map(kinds).collect();
    for kind in ["kill task-worker", "kill job-manager"] {
        let found: Vec<u64> = (1..200).filter(|seed| kinds(*seed).contains(kind)).take(8).collect();
        assert!(run.contains(kind), "{kind} is not among {run:?}; seeds that have it are {found:?}");
    }
    let of_links =
        |kinds: &BTreeSet<&str>| kinds.iter().any(|kind| kind.starts_with("link") || *kind == "answers lost");
    assert!(
        of_links(&run),
        "seeds with links are {:?}",
        (1..200).filter(|seed| of_links(&kinds(*seed))).take(8).collect::<Vec<_>>()
    );
}
