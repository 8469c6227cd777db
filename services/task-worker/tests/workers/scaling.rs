//! Jobs whose source or target index is scaled while they run.

use std::collections::BTreeMap;

use flow::{ExecutionGraph, JobGraph, OperatorSpec};
use types::{KeyRange, SegmentId, Timestamp};
use wire::job_manager::TaskStatus;

use crate::{
    BASE, DELAY, Event, Totals, WINDOW, events, filter, found, project, rfc3339,
    scene::{Scene, segment},
    source, sums, vertex,
};

/// Checkpoints within which a source comes to the end of what it has.
const CHECKPOINTS_MAX: u64 = 200;

/// The same with each row in a segment of `shop`, of which some follow others.
struct Shop {
    placed: Vec<(SegmentId, Event)>,
    follows: BTreeMap<SegmentId, Vec<SegmentId>>,
    present: Vec<SegmentId>,
}

impl Shop {
    fn new() -> Self {
        let present = vec![segment(1, 0), segment(1, 1)];
        Self { placed: Vec::new(), follows: BTreeMap::new(), present }
    }

    /// Stores events; `place` says where.
    fn publish(&mut self, scene: &Scene, events: &[Event], place: impl Fn(&Event) -> SegmentId) {
        for event in events {
            let segment = place(event);
            let time = BASE * 1_000 + event.millis;
            let key = format!("key-{}", event.key);
            let json = serde_json::json!({"_time": rfc3339(time), "k": key, "bytes": event.bytes});
            scene.publish(segment, Timestamp::from_millis(time), json.to_string());
            self.placed.push((segment, *event));
        }
    }

    fn scale(&mut self, scene: &Scene, ended: &[SegmentId], ranges: &[KeyRange]) -> Vec<SegmentId> {
        let created = scene.told.lock().scale(ended, ranges);
        self.present.retain(|segment| !ended.contains(segment));
        self.present.extend(&created);
        for segment in &created {
            self.follows.insert(*segment, ended.to_vec());
        }
        created
    }

    /// How far a segment's watermark is: not behind the slowest of what it follows.
    fn watermark(&self, known: &BTreeMap<SegmentId, i64>, segment: SegmentId) -> i64 {
        let before = self.follows.get(&segment).into_iter().flatten();
        let inherited = before.map(|s| self.watermark(known, *s)).min().unwrap_or(i64::MIN);
        known.get(&segment).copied().unwrap_or(i64::MIN).max(inherited)
    }

    /// What the job must give, reckoned row by row, of windows that every present segment has passed; and the late rows.
    fn reckon(&self) -> (Totals, usize) {
        let (mut out, mut late_rows, mut known) = (Totals::new(), 0, BTreeMap::new());
        for (segment, event) in &self.placed {
            let millis = BASE * 1_000 + event.millis;
            let start = millis.div_euclid(WINDOW * 1_000) * WINDOW * 1_000;
            let watermark = self.watermark(&known, *segment);
            let late = start + WINDOW * 1_000 <= watermark;
            known.insert(*segment, watermark.max(millis - DELAY * 1_000));
            late_rows += usize::from(late);
            if !late && event.bytes >= 10 {
                let (count, sum) = out.entry((rfc3339(start), format!("key-{}", event.key))).or_insert((0, 0.0));
                *count += 1;
                *sum += f64::from(event.bytes);
            }
        }
        let least = self.present.iter().map(|segment| self.watermark(&known, *segment)).min().unwrap();
        let closed = least.div_euclid(WINDOW * 1_000) * WINDOW * 1_000;
        out.retain(|(start, _), _| *start < rfc3339(closed));
        (out, late_rows)
    }
}

fn halves(range: KeyRange) -> [KeyRange; 2] {
    let middle = range.first + (range.last - range.first) / 2;
    [KeyRange { first: range.first, last: middle }, KeyRange { first: middle + 1, last: range.last }]
}

fn joined(a: KeyRange, b: KeyRange) -> KeyRange {
    KeyRange { first: a.first.min(b.first), last: a.last.max(b.last) }
}

/// Takes checkpoints until an attempt that begins from the last one reads a segment; returns its number.
async fn reached(scene: &Scene, running: &ExecutionGraph, after: u64, wanted: SegmentId) -> u64 {
    for checkpoint in after + 1..after + CHECKPOINTS_MAX {
        scene.checkpoint(running, checkpoint).await.unwrap();
        let worker = &running.tasks[0].worker;
        let next = scene.deployment(running, worker, Some(checkpoint)).await.unwrap();
        if next.cut.0.contains_key(&wanted) {
            return checkpoint;
        }
    }
    panic!("{wanted} is not reached");
}

#[actix_rt::test]
async fn a_windowed_job_goes_on_exactly_when_its_source_is_split_and_merged() {
    let mut scene = Scene::start().await.unwrap();
    scene.worker("a").await.unwrap();
    scene.worker("b").await.unwrap();
    let (all, graph, mut shop) = (events(1_200), sums(), Shop::new());
    let own = |event: &Event| segment(1, event.split);
    shop.publish(&scene, &all[..400], own);
    let first = Scene::place(&graph, 1, &["a", "b"]);
    scene.deploy(&first, None).await.unwrap();
    scene.until_results(shop.reckon().0.len()).await;

    // A split in the middle of open windows. Segment 1 is the one that is 40 s behind: without it the rest would run ahead.
    let parts = shop.scale(&scene, &[segment(1, 1)], &halves(told_range(&scene, 1)));
    scene
        .until("a source tells that it is at the end of a segment", |told| {
            told.tasks.iter().any(|report| report.status == TaskStatus::EndOfSplit)
        })
        .await;
    let by_key = |event: &Event| match event.split {
        0 => segment(1, 0),
        _ => parts[usize::try_from(event.key % 2).unwrap()],
    };
    // Rows that come after the end of the segment, and are late by what it had seen.
    let late = shop.reckon().1;
    shop.publish(&scene, &all[400..700], by_key);
    assert!(shop.reckon().1 - late > 10, "some rows behind the split are late");
    let checkpoint = reached(&scene, &first, 0, parts[0]).await;
    let second = Scene::place(&graph, 2, &["a", "b"]);
    scene.deploy(&second, Some(checkpoint)).await.unwrap();
    scene.until_results(shop.reckon().0.len()).await;
    assert_eq!(found(&scene), shop.reckon().0);

    // A merge, and the target is scaled too while the windows' rows go there.
    let lower = scene.told.lock().range(parts[0]);
    let merged = shop.scale(&scene, &[segment(1, 0), parts[0]], &[joined(told_range(&scene, 0), lower)]);
    let sink = [0, 1].map(|n| scene.told.lock().range(segment(2, n)));
    let halved = scene.told.lock().scale(&[segment(2, 0)], &halves(sink[0]));
    let by_merged = |event: &Event| match by_key(event) {
        kept if kept == parts[1] => kept,
        _ => merged[0],
    };
    shop.publish(&scene, &all[700..900], by_merged);
    let checkpoint = reached(&scene, &second, checkpoint, merged[0]).await;
    let third = Scene::place(&graph, 3, &["a", "b"]);
    scene.deploy(&third, Some(checkpoint)).await.unwrap();
    scene.until_results(shop.reckon().0.len()).await;
    let whole = joined(scene.told.lock().range(halved[1]), sink[1]);
    scene.told.lock().scale(&[halved[1], segment(2, 1)], &[whole]);
    shop.publish(&scene, &all[900..], by_merged);
    scene.until_results(shop.reckon().0.len()).await;
    // From the same checkpoint once more: everything that was written since is repeated, over the merge.
    scene.kill("b");
    scene.worker("c").await.unwrap();
    let fourth = Scene::place(&graph, 4, &["a", "c"]);
    scene.deploy(&fourth, Some(checkpoint)).await.unwrap();
    scene.checkpoint(&fourth, checkpoint + 1).await.unwrap();
    reached_end(&scene, &fourth, checkpoint + 1, &shop).await;
    assert_eq!(found(&scene), shop.reckon().0);
    assert!(scene.failures().iter().all(|(attempt, _)| *attempt == 3), "{:?}", scene.failures());
    assert!(scene.told.lock().gaps.is_empty(), "{:?}", scene.told.lock().gaps);
}

fn told_range(scene: &Scene, number: u32) -> KeyRange {
    scene.told.lock().range(segment(1, number))
}

/// Takes checkpoints until one says that everything that was published is read and written.
async fn reached_end(scene: &Scene, running: &ExecutionGraph, after: u64, shop: &Shop) {
    let ends: BTreeMap<SegmentId, u64> = shop.placed.iter().fold(BTreeMap::new(), |mut ends, (segment, _)| {
        *ends.entry(*segment).or_default() += 1;
        ends
    });
    for checkpoint in after + 1..after + CHECKPOINTS_MAX {
        scene.checkpoint(running, checkpoint).await.unwrap();
        let worker = &running.tasks[0].worker;
        let cut = scene.deployment(running, worker, Some(checkpoint)).await.unwrap().cut;
        if shop.present.iter().all(|segment| cut.offset(*segment) == ends[segment]) {
            return;
        }
    }
    panic!("the job does not come to the end");
}

#[actix_rt::test]
async fn rows_are_written_once_though_the_target_is_scaled_and_the_worker_is_lost() {
    let mut scene = Scene::start().await.unwrap();
    scene.worker("a").await.unwrap();
    let (all, mut shop) = (events(800), Shop::new());
    let columns = project(&[("bytes", "bytes"), ("_segment", "split"), ("_offset", "number")]);
    let sink = OperatorSpec::SinkIndex { index: "sums".parse().unwrap() };
    let graph = JobGraph {
        vertices: vec![vertex("rows", vec![source(false), filter(), columns, sink], 1)],
        ..JobGraph::default()
    };
    let passing = |events: &[Event]| events.iter().filter(|e| e.bytes >= 10).count();
    let own = |event: &Event| segment(1, event.split);

    // Only split 0 has rows before the checkpoint: the writer of split 1 begins behind it, and before the scale.
    let early: Vec<Event> = all[..200].iter().map(|event| Event { split: 0, ..*event }).collect();
    shop.publish(&scene, &early, own);
    let first = Scene::place(&graph, 1, &["a"]);
    scene.deploy(&first, None).await.unwrap();
    scene.until_results(passing(&early)).await;
    scene.checkpoint(&first, 1).await.unwrap();
    shop.publish(&scene, &all[200..350], own);
    scene.until_results(passing(&early) + passing(&all[200..350])).await;
    let whole = KeyRange { first: 0, last: u64::MAX };
    let merged = scene.told.lock().scale(&[segment(2, 0), segment(2, 1)], &[whole]);
    shop.publish(&scene, &all[350..500], own);
    scene.until_results(passing(&early) + passing(&all[200..500])).await;
    let parts = scene.told.lock().scale(&merged, &KeyRange::split_evenly(3));
    shop.publish(&scene, &all[500..600], own);
    scene.until_results(passing(&early) + passing(&all[200..600])).await;
    assert!(parts.iter().any(|part| scene.told.lock().events.contains_key(part)), "rows came to the last epoch");

    // The worker dies without another checkpoint; what it wrote in three epochs comes again.
    scene.kill("a");
    scene.worker("b").await.unwrap();
    let second = Scene::place(&graph, 2, &["b"]);
    scene.deploy(&second, Some(1)).await.unwrap();
    shop.publish(&scene, &all[600..], own);
    reached_end(&scene, &second, 1, &shop).await;

    let results = scene.results();
    for split in [0, 1] {
        let name = segment(1, split).to_string();
        let of_split = results.iter().filter(|row| row["split"] == name.as_str());
        let numbers: Vec<u64> = of_split.map(|row| row["number"].as_u64().unwrap()).collect();
        let placed = shop.placed.iter().filter(|(place, _)| *place == segment(1, split)).zip(0u64..);
        let wanted: Vec<u64> = placed.filter(|((_, event), _)| event.bytes >= 10).map(|(_, n)| n).collect();
        assert_eq!(numbers, wanted, "split {split}");
    }
    assert_eq!(scene.failures(), Vec::new());
    let told = scene.told.lock();
    assert!(told.gaps.is_empty(), "{:?}", told.gaps);
}
