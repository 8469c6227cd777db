//! Many questions at once while lines come in, and how soon a line is found.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use jiff::Timestamp;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Bench, SUITE,
    ours::{self, Door, INDEX, Ours},
    question::QUESTIONS,
    store::{self, Store},
};
use crate::figure::Goal;

/// Questions that are under way at once.
const ASKERS: usize = 16;
/// The longest time in which they are asked.
const ASK_FOR: Duration = Duration::from_secs(30);
const MEMORY_EVERY: Duration = Duration::from_millis(50);
/// Where the lines go that come in meanwhile: the answers stay what they are.
const BESIDE: &str = "bench_beside";
/// Lines that are looked for, one after the other.
const LOOKS: usize = 200;

/// What the askers have seen.
#[derive(Default)]
struct Seen {
    right: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    wrong: AtomicU64,
}

/// Sixteen askers go through all questions while lines come in at so many a second.
pub(super) async fn run(bench: &mut Bench<'_>, ours: &mut Ours, rate: f64) -> Result<()> {
    let (corpus, oracle) = (&bench.corpus, &bench.oracle);
    let pids = ours.pids().await?;
    let beside = ours.beside(BESIDE).await?;
    let questions: Arc<Vec<_>> = Arc::new(QUESTIONS.map(|question| (question, ours.sql(question))).to_vec());
    let seen = Arc::new(Seen::default());
    let until = Instant::now() + ASK_FOR.min(Duration::from_secs_f64(corpus.lines as f64 / rate));
    let mut askers = JoinSet::new();
    for asker in 0..ASKERS {
        let (door, questions, seen, oracle) =
            (ours.door(), Arc::clone(&questions), Arc::clone(&seen), Arc::clone(oracle));
        askers.spawn(async move {
            let mut walls = Vec::new();
            let mut turn = asker;
            while Instant::now() < until {
                let (question, sql) = &questions[turn % questions.len()];
                turn += 1;
                let asked = Instant::now();
                let (status, text) = door.ask(sql).await?;
                walls.push(asked.elapsed());
                let right = |rows: Vec<String>| oracle.complaint(*question, rows).is_none();
                let count = match status {
                    200 if ours::rows(*question, &text).is_ok_and(right) => &seen.right,
                    200 => &seen.wrong,
                    429 => &seen.refused,
                    _ => &seen.failed,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(walls)
        });
    }
    let (mut most, mut sent) = (0, None);
    let mut walls = Histogram::<u64>::new(3)?;
    {
        let sending = beside.send(BESIDE, corpus, Some(rate));
        tokio::pin!(sending);
        loop {
            tokio::select! {
                done = &mut sending, if sent.is_none() => sent = Some(done?),
                asker = askers.join_next() => match asker {
                    Some(asker) => for wall in asker?? {
                        walls.record(u64::try_from(wall.as_micros())?)?;
                    },
                    None => break,
                },
                () = sleep(MEMORY_EVERY) => most = most.max(store::used(&pids)?.1),
            }
        }
    }
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (right, refused, failed, wrong) =
        (count(&seen.right), count(&seen.refused), count(&seen.failed), count(&seen.wrong));
    if refused + failed + wrong > 0 {
        let words = format!(
            "of {ASKERS} askers at once: {right} answers right, {wrong} WRONG, {refused} refused, {failed} failed"
        );
        bench.figures.note(SUITE, &words);
    }
    let sheet = &mut bench.sheet;
    sheet.put("16 askers, answers", right as f64, "answers", None);
    sheet.put("16 askers, errors", (refused + failed + wrong) as f64, "answers", Some(Goal::AtMost(0.0)));
    for percent in [50.0, 99.0] {
        let wall = walls.value_at_percentile(percent) as f64 / 1_000.0;
        sheet.put(&format!("16 askers, p{percent}"), wall, "ms", None);
    }
    sheet.put("16 askers, most memory", most as f64 / 1_024.0, "MiB", Some(Goal::AtMost(1_024.0)));
    Ok(())
}

/// From before a line is sent until a question finds it.
pub(super) async fn visible(bench: &mut Bench<'_>, ours: &Ours) -> Result<()> {
    let door = ours.door();
    let mut walls = Histogram::<u64>::new(3)?;
    for number in 0..LOOKS {
        let begun = Instant::now();
        look(&door, number).await?;
        walls.record(u64::try_from(begun.elapsed().as_micros())?)?;
    }
    for (percent, goal) in [(50.0, None), (99.0, Some(Goal::AtMost(100.0)))] {
        let wall = walls.value_at_percentile(percent) as f64 / 1_000.0;
        bench.sheet.put(&format!("sent to found, p{percent} of {LOOKS}"), wall, "ms", goal);
    }
    Ok(())
}

async fn look(door: &Door, number: usize) -> Result<()> {
    let now = Timestamp::now();
    let line = format!(
        "{{\"_time\":\"{now:.9}\",\"level\":\"info\",\"service\":\"looks\",\"pod\":\"looks-{number}\",\"_msg\":\"seen yet?\"}}\n"
    );
    door.post(INDEX, &format!("look-{number}"), line.into_bytes(), 1).await?;
    let since = now.strftime("%Y-%m-%dT%H:%M:%S");
    let sql =
        format!("SELECT count(*) AS n FROM {INDEX} WHERE _time >= TIMESTAMP '{since}' AND pod = 'looks-{number}'");
    let asked = Instant::now();
    while door.count(&sql).await.context("the look")? == 0 {
        ensure!(asked.elapsed() < ASK_FOR, "a line that was acknowledged was not found");
    }
    Ok(())
}
