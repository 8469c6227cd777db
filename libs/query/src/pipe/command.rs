//! The commands: one row of a table each. Parsing, suggestions, completions and help come from it.

use crate::{Diagnostic, plan::Step};

use super::cursor::Cursor;

/// Reads the arguments of a command, which was written with this word.
type Read = fn(&mut Cursor<'_>, &str) -> Result<Step, Diagnostic>;

/// One command of the pipe language.
pub struct Command {
    /// Its words: first its own name, then those of other languages.
    pub words: &'static [&'static str],
    /// How it is written.
    pub usage: &'static str,
    /// What it gives, for people.
    pub gives: &'static str,
    pub(super) read: Read,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("name", &self.name()).field("usage", &self.usage).finish_non_exhaustive()
    }
}

impl Command {
    /// Its own name.
    pub fn name(&self) -> &'static str {
        self.words[0]
    }

    /// The command that a word names, in any case of letters.
    pub fn of(word: &str) -> Option<&'static Command> {
        Self::ALL.iter().find(|command| command.words.iter().any(|name| name.eq_ignore_ascii_case(word)))
    }
}

macro_rules! commands {
    ($([$($word:literal),+] $read:ident $usage:literal $gives:literal;)+) => {
        impl Command {
            /// All of them.
            pub const ALL: &'static [Command] = &[$(
                Command { words: &[$($word),+], usage: $usage, gives: $gives, read: |cursor, word| cursor.$read(word) },
            )+];
        }
    };
}

commands! {
    ["search", "filter"] search_step "search error -debug" "the rows that the search finds";
    ["where"] where_step "where latency > 2 * limit" "the rows of which the expression is true";
    ["keep", "table", "project"] keep_step "keep service, latency" "these fields only";
    ["drop", "delete", "del", "rm"] drop_step "drop host, pid" "all fields but these";
    ["rename", "mv"] rename_step "rename lvl as level" "fields under other names";
    ["let", "eval", "extend", "math"] let_step "let kb = bytes / 1024" "one more field";
    ["sort", "order"] sort_step "sort -latency, service" "the rows in order, - for the largest first";
    ["head", "limit", "take", "first"] head_step "head 10" "the first rows, of events the newest";
    ["tail", "last"] tail_step "tail 10" "the last rows, of events the oldest";
    ["stats", "summarize", "aggregate"] stats_step "stats count, p95(latency) by service" "aggregates by key";
    ["chart", "timechart", "timeseries"] chart_step "chart count by service every 1m" "aggregates by time and key";
    ["count"] count_step "count by service" "how many rows there are";
    ["top"] top_step "top 10 url by host" "the commonest values";
    ["rare"] top_step "rare url" "the rarest values";
    ["dedup", "uniq", "distinct"] dedup_step "dedup user" "one row for each value";
    ["parse", "extract", "extract_kv", "spath", "unpack_json", "unpack_logfmt", "pattern"] parse_step "parse \"<method> <path> -\" from line" "fields taken out of a text";
    ["rex", "extract_regexp", "regexp"] rex_step "rex \"user=(?<user>\\w+)\" from line" "fields taken out by a regular expression";
    ["session", "transaction", "sessionize"] session_step "session by user gap 5m" "runs of events without a pause";
    ["sequence", "funnel"] sequence_step "sequence login then error by user within 1m" "events that follow one another";
    ["join"] join_step "join left user [index:users * | keep user, plan]" "fields of another query's rows";
    ["append", "union"] append_step "append [index:other error]" "the rows of another query too";
    ["lookup", "enrich"] lookup_step "lookup hosts host -> owner, team" "fields of an uploaded table";
    ["expand", "mvexpand", "unroll", "mv_expand"] expand_step "expand tags" "a row for each element";
    ["follow", "live"] follow_step "follow" "what comes from now on";
    ["context", "stream_context"] context_step "context 5" "the rows around each";
    ["patterns", "cluster", "categorize"] patterns_step "patterns" "messages grouped by their template";
    ["anomaly", "anomalydetection"] anomaly_step "anomaly count by service every 1m" "points unlike those before";
    ["fields", "facets", "fieldsummary"] fields_step "fields" "which fields there are, and how many values they have";
    ["compare", "timewrap", "offset"] compare_step "stats count | compare -7d" "the same figures of an earlier time beside";
    ["alert"] alert_step "chart count every 1m | alert when count > 100" "a notification when it becomes true";
    ["into", "collect"] index_step "into index errors" "the rows written into an index";
    ["export", "outputcsv"] export_step "export parquet" "a file";
    ["create", "save"] create_step "create view slow" "the query saved under a name";
    ["fill", "fillnull", "fillna"] fill_step "fill user, plan with \"none\"" "a value where a field has none";
    ["sample"] sample_step "sample 100" "about one row in so many";
    ["replace"] replace_step "replace \"10.\" with \"x.\" in host" "a field with a text replaced";
    ["format"] format_step "format \"{method} {path}\" as line" "a text made of fields";
    ["running", "streamstats", "running_stats"] running_step "running sum(bytes) by user" "aggregates up to each row";
    ["annotate", "eventstats", "inlinestats"] annotate_step "annotate avg(latency) by service" "aggregates of a row's key beside it";
    ["delta"] delta_step "delta bytes as grown" "the difference to the row before";
    ["bin", "bucket"] bin_step "bin latency by 100" "a field rounded down to a multiple";
    ["explain"] explain_step "explain" "how the query would run";
}
