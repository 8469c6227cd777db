//! Live tails that follow a stream through scaling and truncation.

use std::collections::{BTreeMap, BTreeSet};

use super::{scaling::testing::*, *};

/// A tail as a reader sees it.
struct Reader<S> {
    parts: std::pin::Pin<Box<S>>,
    text: String,
}

impl<S: futures::Stream<Item = String>> Reader<S> {
    /// Reads until the text holds so many events of a name.
    async fn until(&mut self, event: &str, count: usize) {
        while self.text.matches(&format!("event: {event}\n")).count() < count {
            let part = next(&mut self.parts).await;
            self.text.push_str(&part.unwrap_or_else(|| panic!("the tail ended after {}", self.text)));
        }
    }

    fn data(&self, event: &str) -> Vec<Value> {
        let events = self.text.split("\n\n").filter(|part| part.contains(&format!("event: {event}\n")));
        events.map(|part| serde_json::from_str(part.split_once("data: ").unwrap().1).unwrap()).collect()
    }

    fn last_id(&self) -> String {
        self.text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap().to_owned()
    }

    /// The numbers of the rows of each key, in the order in which they came.
    fn by_key(&self) -> BTreeMap<String, Vec<u64>> {
        let mut found = BTreeMap::<String, Vec<u64>>::new();
        for row in self.data("row") {
            let user = row["user"].as_str().unwrap().to_owned();
            found.entry(user).or_default().push(row["i"].as_u64().unwrap());
        }
        found
    }
}

async fn tail(world: &World, from: &str) -> Reader<impl futures::Stream<Item = String> + use<>> {
    tail_of(world, from, "").await
}

async fn tail_of(world: &World, from: &str, more: &str) -> Reader<impl futures::Stream<Item = String> + use<>> {
    let path = format!("/api/v1/indexes/shop/tail?from={from}{more}");
    let answer = open(world, request("GET", &path, "reader")).await;
    assert_eq!(answer.status().as_u16(), 200, "{from}");
    let mut reader = Reader { parts: Box::pin(stream_of(answer.into_body())), text: String::new() };
    // Said once the positions are known.
    reader.text = next(&mut reader.parts).await.unwrap();
    reader
}

/// Two segments of the first epoch, the first split, one half merged with the second; 120 lines in all.
async fn scaled(world: &World) {
    send(world, 0, 40).await;
    let old = present(world);
    let new = world.fake.segments.scale("shop", &old[..1], &[range(0, HALF / 3), range(HALF / 3 + 1, HALF)]);
    send(world, 40, 80).await;
    world.fake.segments.scale("shop", &[new[1], old[1]], &[range(HALF / 3 + 1, u64::MAX)]);
    send(world, 80, 120).await;
    assert_all(world, 120);
}

#[actix_web::test]
async fn a_tail_from_the_beginning_reads_every_epoch_in_order() {
    let world = world();
    scaled(&world).await;
    let mut reader = tail(&world, "earliest").await;
    reader.until("row", 120).await;
    assert_eq!(reader.by_key(), by_key(&world));
    let places: BTreeSet<String> =
        reader.data("row").iter().map(|row| format!("{}:{}", row["_segment"], row["_offset"])).collect();
    assert_eq!(places.len(), 120);
    // The id names the present segments only, and goes on there.
    let id = reader.last_id();
    let named: Vec<String> = id.split(',').map(|place| place.split_once(':').unwrap().0.to_owned()).collect();
    assert_eq!(named, present(&world).iter().map(ToString::to_string).collect::<Vec<_>>());
    let mut again = tail(&world, &id).await;
    send(&world, 120, 128).await;
    again.until("row", 8).await;
    let numbers: BTreeSet<u64> = again.data("row").iter().map(|row| row["i"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (120..128).collect());
}

#[actix_web::test]
async fn an_open_tail_follows_scales_and_every_id_of_it_goes_on_exactly() {
    let world = world();
    let mut reader = tail(&world, "latest").await;
    scaled(&world).await;
    reader.until("row", 120).await;
    assert_eq!(reader.by_key(), by_key(&world));
    let parts: Vec<&str> = reader.text.split_inclusive("\n\n").collect();
    for (at, part) in parts.iter().enumerate() {
        let Some(id) = part.lines().find_map(|line| line.strip_prefix("id: ")) else { continue };
        let before = parts[..=at].iter().filter(|part| part.contains("event: row")).count();
        let mut rest = tail(&world, id).await;
        rest.until("row", 120 - before).await;
        let mut all: Vec<u64> = rest.data("row").iter().map(|row| row["i"].as_u64().unwrap()).collect();
        let seen = parts[..=at].iter().filter_map(|part| part.split_once("event: row\ndata: "));
        all.extend(seen.map(|(_, row)| serde_json::from_str::<Value>(row).unwrap()["i"].as_u64().unwrap()));
        all.sort_unstable();
        assert_eq!(all, (0..120).collect::<Vec<_>>(), "after {id}");
    }
}

#[actix_web::test]
async fn a_tail_waits_between_the_seal_and_the_next_epoch_and_ends_with_the_stream() {
    let world = world();
    let mut reader = tail(&world, "latest").await;
    let old = present(&world);
    send(&world, 0, 8).await;
    old.iter().for_each(|segment| world.fake.segments.seal(*segment));
    reader.until("row", 8).await;
    let looks = || world.fake.looks.load(std::sync::atomic::Ordering::SeqCst);
    let before = looks();
    testkit::eventually(PATIENCE, async || looks() >= before + 4).await;
    world.fake.segments.scale("shop", &old, &[range(0, u64::MAX)]);
    send(&world, 8, 16).await;
    reader.until("row", 16).await;
    world.fake.segments.seal_stream("shop");
    reader.until("end", 1).await;
    assert_eq!(reader.data("end")[0]["kind"], json!("EndOfIndex"));
    assert_eq!(next(&mut reader.parts).await, None);
    assert_eq!(reader.by_key(), by_key(&world));
    // Also a later one, from the id of its last row.
    let mut again = tail(&world, &reader.last_id()).await;
    again.until("end", 1).await;
    assert!(again.data("row").is_empty());
}

#[actix_web::test]
async fn truncated_rows_are_skipped_and_told() {
    let world = world();
    send(&world, 0, 40).await;
    let old = present(&world);
    let count = |segment| world.fake.segments.events()[&segment].len();
    let first = count(old[0]);
    world.fake.segments.change(old[0], |segment| segment.start = 3);
    // Who begins at the beginning misses nothing.
    let mut reader = tail(&world, "earliest").await;
    reader.until("row", 37).await;
    assert!(reader.data("truncated").is_empty());
    // Who stood before it does, and is told where it goes on.
    let id = format!("{}:1,{}:0", old[0], old[1]);
    let mut reader = tail(&world, &id).await;
    reader.until("row", 37).await;
    reader.until("truncated", 1).await;
    let said = json!({ "segment": old[0], "from": 1, "start": 3 });
    assert_eq!(reader.data("truncated"), [said]);
    let places: BTreeSet<u64> = reader
        .data("row")
        .iter()
        .filter(|row| row["_segment"] == json!(old[0]))
        .map(|row| row["_offset"].as_u64().unwrap())
        .collect();
    assert_eq!(places, (3..u64::try_from(first).unwrap()).collect());

    // The whole segment goes while its successor is there.
    world.fake.segments.scale("shop", &old[..1], &[range(0, HALF)]);
    send(&world, 40, 48).await;
    reader.until("row", 45).await;
    world.fake.segments.forget("shop", old[0]);
    let mut late = tail(&world, &id).await;
    late.until("row", count(old[1]) + count(present(&world)[1])).await;
    late.until("truncated", 1).await;
    assert_eq!(late.data("truncated"), [json!({ "segment": old[0], "from": 1, "start": null })]);
}

#[actix_web::test]
async fn a_segment_that_goes_under_an_open_tail_is_followed_all_the_same() {
    let world = world();
    send(&world, 0, 40).await;
    let old = present(&world);
    let mut reader = tail(&world, "latest").await;
    world.fake.segments.scale("shop", &old[1..], &[range(HALF + 1, u64::MAX)]);
    let new = present(&world)[1];
    world.fake.segments.forget("shop", old[1]);
    send(&world, 40, 80).await;
    reader.until("row", 40).await;
    let of_new = reader.data("row").iter().filter(|row| row["_segment"] == json!(new)).count();
    assert_eq!(of_new, world.fake.segments.events()[&new].len());
}

#[actix_web::test]
async fn a_segment_that_goes_after_it_was_read_is_not_missed() {
    let world = world();
    let old = present(&world);
    let mut reader = tail(&world, "latest").await;
    send(&world, 0, 40).await;
    reader.until("row", 40).await;
    world.fake.segments.seal(old[1]);
    let looks = || world.fake.looks.load(std::sync::atomic::Ordering::SeqCst);
    let before = looks();
    testkit::eventually(PATIENCE, async || looks() >= before + 2).await;
    world.fake.segments.scale("shop", &old[1..], &[range(HALF + 1, u64::MAX)]);
    world.fake.segments.forget("shop", old[1]);
    send(&world, 40, 80).await;
    reader.until("row", 80).await;
    assert!(reader.data("truncated").is_empty(), "{}", reader.text);
    let numbers: BTreeSet<u64> = reader.data("row").iter().map(|row| row["i"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..80).collect());
}

#[actix_web::test]
async fn positions_that_are_none_of_the_index_are_refused() {
    let world = world();
    for from in ["x", "1-0-0:", "1-0-0"] {
        let path = format!("/api/v1/indexes/shop/tail?from={from}");
        let answer = ask(&world, request("GET", &path, "reader")).await;
        assert_eq!((answer.status, answer.kind().as_str()), (400, "BadPosition"), "{from}");
    }
}

#[actix_web::test]
async fn a_tail_of_a_query_shows_its_rows_and_goes_on_behind_those_that_it_does_not() {
    let world = world();
    send(&world, 0, 40).await;
    let mut reader = tail_of(&world, "earliest", "&query=i%3E%3D30%20%7C%20keep%20i,%20user").await;
    reader.until("row", 10).await;
    reader.until("rate", 1).await;
    let row = &reader.data("row")[0];
    assert_eq!(row.as_object().unwrap().keys().collect::<Vec<_>>(), ["i", "user"]);
    let rate = reader.data("rate").pop().unwrap();
    let told = ["seen", "matched", "sent", "dropped"].map(|name| rate[name].as_u64().unwrap());
    assert_eq!(told, [40, 10, 10, 0], "{rate}");
    // The position is behind everything that was looked at.
    let mut again = tail_of(&world, rate["position"].as_str().unwrap(), "&query=user%3Du1&language=pipe").await;
    send(&world, 40, 60).await;
    again.until("row", 3).await;
    let numbers: BTreeSet<u64> = again.data("row").iter().map(|row| row["i"].as_u64().unwrap()).collect();
    assert_eq!(numbers, BTreeSet::from([41, 49, 57]));
    for (more, words) in [
        ("&query=i%3E3%20%7C%20sort%20i", "sort looks at more than one event"),
        ("&query=usr%3Da", "did you mean user?"),
        ("&query=SELECT%20i%20FROM%20other&language=sql", "not of other"),
        ("&slow=never", "unknown variant"),
    ] {
        let path = format!("/api/v1/indexes/shop/tail?from=latest{more}");
        let answer = ask(&world, request("GET", &path, "reader")).await;
        assert_eq!(answer.status, 400, "{more}");
        assert!(answer.text().contains(words), "{more}: {}", answer.text());
    }
}

/// Every row was sent or is counted as dropped, and nothing that is shown is shown twice.
#[actix_web::test]
async fn rows_that_a_slow_reader_misses_are_counted_exactly() {
    let world = world();
    for part in 0..20 {
        send(&world, part * 500, (part + 1) * 500).await;
    }
    world.fake.segments.seal_stream("shop");
    let path = "/api/v1/indexes/shop/tail?from=earliest&slow=drop&query=i%3E%3D100";
    let answer = open(&world, request("GET", path, "reader")).await;
    // One of the segments alone has more rows than the buffer, and they come at once.
    let mut body = Box::pin(stream_of(answer.into_body()));
    let mut reader = Reader { text: next(&mut body).await.unwrap(), parts: body };
    reader.until("end", 1).await;
    let rate = reader.data("rate").pop().unwrap();
    let [seen, matched, sent, dropped] =
        ["seen", "matched", "sent", "dropped"].map(|name| rate[name].as_u64().unwrap());
    let numbers: BTreeSet<u64> = reader.data("row").iter().map(|row| row["i"].as_u64().unwrap()).collect();
    assert_eq!((seen, matched), (10_000, 9_900), "{rate}");
    assert_eq!((sent, reader.data("row").len()), (u64::try_from(numbers.len()).unwrap(), numbers.len()));
    assert_eq!(sent + dropped, matched, "{rate}");
    assert!(dropped > 0 && sent > 0, "{rate}");
}
