// What the page does to texts, links and files without asking anybody: answers what is not as it should be.
(async () => {
  const [words, address, time, patterns, files] = await Promise.all(
    ["words", "address", "time", "patterns", "files"].map((name) => import(`/console/${name}.js`)));
  const wrong = [];
  const is = (got, want) => { if (JSON.stringify(got) !== JSON.stringify(want)) wrong.push(`${JSON.stringify(got)} is not ${JSON.stringify(want)}`); };

  for (const [text, want] of [
    ["error | stats count", "error"],
    ["a \"x | y\" | let k = 1 | where k > 0 | top 3 k | where c > 1", "a \"x | y\" | let k = 1 | where k > 0"],
    ["a in [index:b c | keep d] | keep e | sort f", "a in [index:b c | keep d] | keep e"],
    ["| stats count", "*"],
  ]) is(words.rowPart(text, "pipe"), want);
  for (const [text, want] of [
    ["SELECT a, count(*) FROM shop WHERE b = 'x ORDER' GROUP BY a ORDER BY 1 LIMIT 3;", "SELECT * FROM shop WHERE b = 'x ORDER'"],
    ["WITH x AS (SELECT 1) SELECT * FROM x", "WITH x AS (SELECT 1) SELECT * FROM x"],
  ]) is(words.rowPart(text, "sql"), want);
  is(words.bounded("", "pipe", 10), "* | head 10");
  is(words.bounded("a | sort b", "pipe", 10), "a | sort b");

  is([words.writes("a | into index b", "pipe"), words.writes("into | head 3", "pipe"), words.writes("insert INTO a SELECT 1", "sql")], [true, false, true]);

  for (const [text, language, field, value, without, want] of [
    ["", "pipe", "service", "cart", false, "service=\"cart\""],
    ["* | head 3", "pipe", "service", "cart", false, "service=\"cart\" | head 3"],
    ["error service=\"cart\" | stats count", "pipe", "service", "cart", true, "error -service=\"cart\" | stats count"],
    ["error service=\"cart\"", "pipe", "service", "cart", false, "error service=\"cart\""],
    ["a or b", "pipe", "x.y z", "q\"q", false, "a or b | search `x.y z`=\"q\\\"q\""],
    ["a", "pipe", "n", 5, false, "a n=5"],
    ["a", "pipe", "by", true, false, "a `by`=true"],
    ["a", "pipe", "f", null, false, "a -f=*"],
    ["a", "pipe", "_msg", "was paid", true, "a -\"was paid\""],
    ["SELECT * FROM \"shop\"\nORDER BY _time", "sql", "service", "o'x", false, "SELECT * FROM \"shop\"\nWHERE \"service\" = 'o''x'\nORDER BY _time"],
    ["SELECT a FROM s WHERE b = 1 OR c = 'x OR y' LIMIT 5", "sql", "n", 2, true, "SELECT a FROM s WHERE (b = 1 OR c = 'x OR y') AND \"n\" IS DISTINCT FROM 2\nLIMIT 5"],
    ["SELECT 1 UNION SELECT 2", "sql", "n", 2, false, null],
    ["{app=\"x\"}", "logql", "level", "error", false, "{app=\"x\"} | level=\"error\""],
    ["count_over_time({}[5m])", "logql", "level", "error", false, null],
  ]) is(words.filtered(text, language, field, value, without), want);

  const day = { from: "2026-01-01T00:00:00Z", to: "2026-01-02T00:00:00Z" };
  is(words.retimed("SELECT * FROM s WHERE _time > now() - INTERVAL '15 minutes' AND a = 1", "sql", day), "SELECT * FROM s WHERE _time >= '2026-01-01T00:00:00Z' AND _time < '2026-01-02T00:00:00Z' AND a = 1");
  is(words.retimed("SELECT 1", "sql", day), null);
  is(words.untimed("since:1h error until:now", "pipe"), "error");
  for (const [text, less] of [
    ["SELECT * FROM s WHERE _time > now() - INTERVAL '1 hour' LIMIT 5", "SELECT * FROM s"],
    ["SELECT a FROM s WHERE b = 1 AND _time >= '2026-01-01' AND _time < '2026-01-02' AND c = 2", "SELECT * FROM s WHERE b = 1 AND c = 2"],
  ]) is(words.rowPart(text, "sql"), less);
  for (const [text, language, from, to] of [
    ["since:1h error", "pipe", "now-1h", "now"],
    ["since:2026-01-01T00:00:00Z until:2h", "pipe", "2026-01-01T00:00:00Z", "now-2h"],
    ["SELECT * FROM s WHERE _time > now() - INTERVAL '90 minutes'", "sql", "now-90m", "now"],
    ["SELECT * FROM s WHERE _time >= '2026-01-01' AND _time < '2026-01-02'", "sql", "2026-01-01", "2026-01-02"],
  ]) is(words.rangeOf(text, language), { from, to });
  is(words.rangeOf("error", "pipe"), null);

  is(patterns.phraseOf("user <*> logged in from <*>"), "logged in from");
  is(patterns.phraseOf("<*> <*>"), null);
  const asked = { ...address.unsaid(), index: "shop", language: "sql", text: "SELECT \"a&b=c#\"\n", range: day, view: "explain", columns: ["a", "b"] };
  is(address.read(address.write(asked)), asked);
  is([time.instant("now-15m", 900000), time.instant("nonsense"), time.describe(time.lastOf("1h"))], [0, null, "Last hour"]);
  is(files.csv(["a", "b"], [{ a: "x,\"y\"", b: null }, { a: 1 }]), "a,b\r\n\"x,\"\"y\"\"\",\r\n1,\r\n");
  return wrong;
})()
