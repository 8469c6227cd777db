//! One-off queries: one read-only statement and the indexes that it reads.

use std::{convert::Infallible, ops::ControlFlow};

use sqlparser::{
    ast::{
        Expr, Ident, LimitClause, ObjectName, ObjectNamePart, Query, SetExpr, Spanned, Statement, TableAlias,
        TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut, visit_expressions, visit_expressions_mut,
        visit_relations,
    },
    tokenizer::{Location, Span, Token, TokenWithSpan},
};
use types::{IndexName, ItemName};

use crate::{
    Diagnostic, RELATIONS_ALL_MAX, TableName,
    continuous::take_insert,
    reads::{Reads, Weights, too_many},
    text::{at, dashed, dotted, index_name, is_word, misspelt, statement, tokens},
};

/// Most indexes that one query may read.
pub const TABLES_MAX: usize = 16;

/// Most tables, subqueries included, in all FROM clauses together: each join nests the plan once more.
const RELATIONS_MAX: usize = 32;

/// One read-only query that has been read but not yet planned.
#[derive(Debug, Clone, PartialEq)]
pub struct Select {
    /// The text as written; places in later complaints refer to it.
    pub text: String,
    /// The indexes that it reads, each once, in order of appearance.
    pub tables: Vec<IndexName>,
    /// The views and lookups that it names, `shop.errors`, each once, in order of appearance.
    pub items: Vec<TableName>,
    /// The views among them, and those inside views, each behind those that it reads; empty until somebody has looked them up.
    pub views: Vec<NamedView>,
    /// Whether it answers rows; one that does not is for those who want to know its columns only.
    pub rows: bool,
    reads: Reads,
    statement: Statement,
}

/// A view that a query reads.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedView {
    /// Its name.
    pub name: TableName,
    /// What it is.
    pub select: Select,
}

impl Select {
    /// The same query for those who want to know its columns only: it answers no rows, and reads none.
    pub fn without_rows(mut self) -> Self {
        if let Statement::Query(query) = &mut self.statement {
            let none = Expr::value(Value::Number("0".to_owned(), false));
            let limit = LimitClause::LimitOffset { limit: Some(none), offset: None, limit_by: Vec::new() };
            query.limit_clause = Some(limit);
            query.fetch = None;
        }
        self.rows = false;
        self
    }

    /// What it reads, as often as it does.
    pub(crate) fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Refuses a query whose views read more than [`RELATIONS_ALL_MAX`] tables, those of views inside views as often as they are
    /// named: a plan has as many steps.
    pub fn check_weight(&self) -> Result<(), Diagnostic> {
        let mut weights = Weights::default();
        for view in &self.views {
            weights.note(&view.name, &view.select.reads);
        }
        match weights.of(&self.reads) {
            weight if weight > RELATIONS_ALL_MAX => Err(too_many("the query", weight)),
            _ => Ok(()),
        }
    }

    /// The statement for a planner; it keeps the places of the text, and dotted field names are one identifier each.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Line and column of the first place where the text names this column, table or function; the beginning if nowhere.
    pub fn locate(&self, name: &str) -> (u32, u32) {
        let mut found: Option<Location> = None;
        let mut note = |ident: &Ident| {
            let here = ident.span.start;
            let before = |old: Location| (here.line, here.column) < (old.line, old.column);
            if here.line > 0 && ident.value.eq_ignore_ascii_case(name) && found.is_none_or(before) {
                found = Some(here);
            }
        };
        let ControlFlow::<Infallible>::Continue(()) = visit_relations(&self.statement, |relation| {
            relation.0.iter().filter_map(|part| part.as_ident()).for_each(&mut note);
            ControlFlow::Continue(())
        });
        let ControlFlow::<Infallible>::Continue(()) = visit_expressions(&self.statement, |expr| {
            match expr {
                Expr::Identifier(ident) => note(ident),
                Expr::CompoundIdentifier(parts) => parts.iter().for_each(&mut note),
                Expr::Function(function) => function.name.0.iter().filter_map(|p| p.as_ident()).for_each(&mut note),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        found.map_or((1, 1), |place| (number(place.line), number(place.column)))
    }
}

/// Reads one `SELECT` or `WITH … SELECT`.
///
/// Errors: everything else, above all what would change something (`INSERT`, `CREATE`, `COPY`, `SET`, …).
pub fn parse_select(text: &str) -> Result<Select, Diagnostic> {
    of_tokens(text, tokens(text)?)
}

/// Reads `INSERT INTO <index> SELECT …`: which rows go where, once; `None` for what does not begin with INSERT.
///
/// Errors: as [`parse_select`] for what stands behind the index.
pub fn parse_insert(text: &str) -> Result<Option<(IndexName, Select)>, Diagnostic> {
    let mut tokens = tokens(text)?;
    let Some(index) = take_insert(&mut tokens)? else { return Ok(None) };
    if tokens.is_empty() {
        return Err(
            Diagnostic::new(1, 1, "the query behind INSERT INTO is missing").help("write INSERT INTO index SELECT …")
        );
    }
    Ok(Some((index, of_tokens(text, tokens)?)))
}

fn of_tokens(text: &str, tokens: Vec<TokenWithSpan>) -> Result<Select, Diagnostic> {
    begins_as_query(&tokens[0])?;
    refused_words(&tokens)?;
    let mut statement = statement(text, tokens)?;
    let mut reader = Reader::default();
    if let ControlFlow::Break(found) = statement.visit(&mut reader) {
        return Err(*found);
    }
    name_items(&mut statement, &reader.items);
    join_dotted_names(&mut statement, &reader.names);
    let Reader { tables, items, reads, .. } = reader;
    let select = Select { text: text.to_owned(), tables, items, views: Vec::new(), rows: true, reads, statement };
    select.check_weight()?;
    Ok(select)
}

fn begins_as_query(first: &TokenWithSpan) -> Result<(), Diagnostic> {
    match &first.token {
        Token::LParen => Ok(()),
        Token::Word(word) if word.quote_style.is_none() => {
            let upper = word.value.to_uppercase();
            if matches!(upper.as_str(), "SELECT" | "WITH") {
                return Ok(());
            }
            if let Some(meant) = misspelt(word, &["SELECT", "WITH"]) {
                return Err(at(first.span.start, format!("a query does not begin with {}", word.value))
                    .help(format!("did you mean {meant}?")));
            }
            Err(at(first.span.start, format!("{upper} is not possible here: a query only reads"))
                .help("begin with SELECT or WITH"))
        }
        other => Err(at(first.span.start, format!("a query does not begin with {other}")).help("begin with SELECT")),
    }
}

fn refused_words(tokens: &[TokenWithSpan]) -> Result<(), Diagnostic> {
    for (i, token) in tokens.iter().enumerate() {
        let here = Some(token);
        if matches!(token.token, Token::Placeholder(_) | Token::Question) {
            let found = at(token.span.start, format!("{} is a parameter, and a query has none", token.token));
            return Err(found.help("write the value itself into the text"));
        }
        if is_word(here, "INTO") {
            return Err(at(token.span.start, "INTO is not possible here: a query only reads")
                .help("INSERT INTO … SELECT is a continuous job; submit it as one"));
        }
        if is_word(here, "RECURSIVE") {
            return Err(at(token.span.start, "recursive queries are not available"));
        }
        if is_word(here, "tumble") && tokens.get(i + 1).is_some_and(|t| t.token == Token::LParen) {
            return Err(at(token.span.start, "tumble() belongs to a continuous job, not to a query")
                .help("submit the text as a job, or group by date_bin(INTERVAL '10 seconds', _time)"));
        }
        if is_word(here, "FROM") || is_word(here, "JOIN") {
            dashed(tokens, i + 1)?;
        }
    }
    Ok(())
}

/// What a `WITH` has introduced at one level of nesting.
#[derive(Default)]
struct Scope {
    /// Names of the level's common table expressions.
    defined: Vec<String>,
    /// How many of them are complete, hence visible.
    visible: usize,
    /// What each of those reads.
    stages: Vec<Reads>,
    /// What the level itself reads.
    reads: Reads,
}

/// Walks a statement: gathers indexes and the names that may stand before a dot, refuses what does not only read.
#[derive(Default)]
struct Reader {
    statements: usize,
    relations: usize,
    scopes: Vec<Scope>,
    tables: Vec<IndexName>,
    items: Vec<TableName>,
    names: Vec<String>,
    /// What all of it reads, once it was walked.
    reads: Reads,
}

impl Reader {
    fn alias(&mut self, alias: Option<&TableAlias>) {
        self.names.extend(alias.map(|alias| alias.name.value.clone()));
    }

    /// What the WITH of this level or of one around it calls so reads.
    fn stage(&self, name: &str) -> Option<Reads> {
        let of = |scope: &Scope| {
            let place = scope.defined[..scope.visible].iter().rposition(|own| own == name)?;
            scope.stages.get(place).cloned()
        };
        self.scopes.iter().rev().find_map(of)
    }

    fn reads(&mut self) -> &mut Reads {
        self.scopes.last_mut().map_or(&mut self.reads, |scope| &mut scope.reads)
    }
}

fn refuse<T>(place: Location, message: impl Into<String>) -> ControlFlow<Box<Diagnostic>, T> {
    ControlFlow::Break(Box::new(at(place, message)))
}

fn start(name: &ObjectName) -> Location {
    name.0.first().and_then(|part| part.as_ident()).map_or(Span::empty(), |ident| ident.span).start
}

impl Visitor for Reader {
    type Break = Box<Diagnostic>;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Self::Break> {
        self.statements += 1;
        if self.statements > 1 || !matches!(statement, Statement::Query(_)) {
            return refuse(
                Location { line: 1, column: 1 },
                "a query only reads: a part of this one would change something",
            );
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        if matches!(*query.body, SetExpr::Table(_)) || !query.locks.is_empty() || !query.pipe_operators.is_empty() {
            return refuse(Location { line: 1, column: 1 }, "TABLE, FOR UPDATE and |> are not available; use SELECT");
        }
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        let defined: Vec<String> = ctes.map(|cte| cte.alias.name.value.clone()).collect();
        self.names.extend(defined.iter().cloned());
        self.scopes.push(Scope { defined, ..Scope::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Self::Break> {
        let ended = self.scopes.pop().unwrap_or_default().reads;
        // The queries of a WITH are walked before its body, so the first ones to end below a level are its own.
        match self.scopes.last_mut() {
            Some(outer) if outer.visible < outer.defined.len() => {
                outer.visible += 1;
                outer.stages.push(ended);
            }
            Some(outer) => outer.reads.add(&ended),
            None => self.reads.add(&ended),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        self.relations += 1;
        if self.relations > RELATIONS_MAX {
            return refuse(factor.span().start, format!("a query joins at most {RELATIONS_MAX} tables"));
        }
        match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
                refuse(start(name), format!("there is no table function {name}"))
            }
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::UNNEST { alias, .. } => {
                self.alias(alias.as_ref());
                ControlFlow::Continue(())
            }
            TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            _ => refuse(Location { line: 1, column: 1 }, "this kind of table expression is not available"),
        }
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<Self::Break> {
        if let [index, item] = name.0.as_slice() {
            return self.item(name, index.as_ident(), item.as_ident());
        }
        let [part] = name.0.as_slice() else {
            return refuse(
                start(name),
                format!("{name} is not a table: write index, or index.name for a view or a lookup"),
            );
        };
        let Some(ident) = part.as_ident() else { return refuse(start(name), format!("{name} is not an index")) };
        if let Some(stage) = self.stage(&ident.value) {
            self.reads().add(&stage);
            return ControlFlow::Continue(());
        }
        match index_name(ident) {
            Ok(index) => {
                self.reads().index();
                self.names.push(ident.value.clone());
                if !self.tables.contains(&index) {
                    self.tables.push(index);
                }
            }
            Err(found) => return ControlFlow::Break(Box::new(found)),
        }
        self.bounded(ident.span.start)
    }
}

impl Reader {
    /// A view or a lookup: `shop.errors`, which may be called `errors` elsewhere in the text.
    fn item(&mut self, name: &ObjectName, index: Option<&Ident>, item: Option<&Ident>) -> ControlFlow<Box<Diagnostic>> {
        let (Some(index), Some(item)) = (index, item) else {
            return refuse(start(name), format!("{name} is not a view or a lookup"));
        };
        let of = match index_name(index) {
            Ok(of) => of,
            Err(found) => return ControlFlow::Break(Box::new(found)),
        };
        let named: ItemName = match item.value.parse() {
            Ok(named) => named,
            Err(types::Invalid { rule, .. }) => {
                return refuse(
                    item.span.start,
                    format!("{:?} is not the name of a view or a lookup: {rule}", item.value),
                );
            }
        };
        self.names.push(item.value.clone());
        let table = TableName { index: of, item: named };
        self.reads().item(table.clone());
        if !self.items.contains(&table) {
            self.items.push(table);
        }
        self.bounded(index.span.start)
    }

    fn bounded(&self, place: Location) -> ControlFlow<Box<Diagnostic>> {
        if self.tables.len() + self.items.len() > TABLES_MAX {
            return refuse(place, format!("a query reads at most {TABLES_MAX} indexes, views and lookups"));
        }
        ControlFlow::Continue(())
    }
}

/// Gives views and lookups one name with a dot in it, which no index and no query inside can have, and a short one where the text has
/// given none.
fn name_items(statement: &mut Statement, items: &[TableName]) {
    struct Namer<'a>(&'a [TableName]);
    impl VisitorMut for Namer<'_> {
        type Break = Infallible;

        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Infallible> {
            let TableFactor::Table { name, alias, .. } = factor else { return ControlFlow::Continue(()) };
            let [ObjectNamePart::Identifier(index), ObjectNamePart::Identifier(item)] = name.0.as_slice() else {
                return ControlFlow::Continue(());
            };
            let called = |one: &&TableName| one.index.as_str() == index.value && one.item.as_str() == item.value;
            if let Some(table) = self.0.iter().find(called) {
                let quoted = |value: String, span| Ident { value, quote_style: Some('"'), span };
                let short = quoted(item.value.clone(), item.span);
                let whole = quoted(table.to_string(), index.span.union(&item.span));
                alias.get_or_insert_with(|| TableAlias { explicit: true, name: short, columns: Vec::new(), at: None });
                *name = ObjectName(vec![ObjectNamePart::Identifier(whole)]);
            }
            ControlFlow::Continue(())
        }
    }
    let ControlFlow::<Infallible>::Continue(()) = statement.visit(&mut Namer(items));
}

/// Makes one identifier of `http.status` where `http` is no table, and of `t.http.status` where `t` is one.
fn join_dotted_names(statement: &mut Statement, tables: &[String]) {
    let ControlFlow::<Infallible>::Continue(()) = visit_expressions_mut(statement, |expr| {
        if let Expr::CompoundIdentifier(parts) = expr {
            match parts.as_slice() {
                [table, rest @ ..] if tables.contains(&table.value) => {
                    if rest.len() > 1
                        && let Expr::Identifier(column) = dotted(rest)
                    {
                        *expr = Expr::CompoundIdentifier(vec![table.clone(), column]);
                    }
                }
                parts => *expr = dotted(parts),
            }
        }
        ControlFlow::Continue(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_without_rows_has_the_same_columns() {
        for text in
            ["SELECT a FROM shop LIMIT 5 OFFSET 2", "SELECT a FROM shop FETCH FIRST 3 ROWS ONLY", "SELECT a FROM shop"]
        {
            let select = parse_select(text).unwrap().without_rows();
            assert_eq!(select.statement().to_string(), "SELECT a FROM shop LIMIT 0");
            assert!(select.text == text && !select.rows);
        }
    }

    #[test]
    fn what_a_stage_reads_is_read_as_often_as_it_is_named() {
        let doubled = |count: usize| {
            let more: Vec<String> =
                (0..count).map(|n| format!("p{} AS (SELECT 1 AS a FROM p{n} AS x, p{n} AS y)", n + 1)).collect();
            format!("WITH p0 AS (SELECT a FROM shop), {} SELECT * FROM p{count}", more.join(", "))
        };
        assert!(parse_select(&doubled(7)).is_ok());
        let found = parse_select(&doubled(10)).unwrap_err();
        assert!(found.message.contains("the query reads 1024 tables"), "{found}");
    }

    #[test]
    fn parameters_are_refused_at_their_place() {
        for (text, column) in
            [("SELECT a FROM shop WHERE a = ?", 30), ("SELECT a FROM shop WHERE a = '?' AND b = $1", 42)]
        {
            let found = parse_select(text).unwrap_err();
            assert!(found.message.contains("is a parameter"), "{found:?}");
            assert_eq!((found.line, found.column), (1, column), "{text}");
        }
    }

    #[test]
    fn indexes_are_found_wherever_they_stand() {
        for (text, tables) in [
            ("SELECT 1", vec![]),
            ("SELECT * FROM shop", vec!["shop"]),
            ("select * from \"shop-frontend\" as t where t.a = 1;", vec!["shop-frontend"]),
            ("SELECT * FROM a JOIN b ON a.x = b.x, c", vec!["a", "b", "c"]),
            ("SELECT * FROM a WHERE x IN (SELECT y FROM b) UNION ALL SELECT * FROM a", vec!["a", "b"]),
            ("WITH x AS (SELECT * FROM a), y AS (SELECT * FROM x) SELECT * FROM y", vec!["a"]),
            ("WITH shop AS (SELECT * FROM shop) SELECT * FROM shop", vec!["shop"]),
            ("WITH x AS (WITH z AS (SELECT 1) SELECT * FROM z) SELECT * FROM x, z", vec!["z"]),
            ("SELECT (SELECT count(*) FROM b) FROM (SELECT * FROM a) t", vec!["b", "a"]),
            ("(SELECT * FROM a) ORDER BY 1 LIMIT 3", vec!["a"]),
        ] {
            let select = parse_select(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let found: Vec<&str> = select.tables.iter().map(IndexName::as_str).collect();
            assert_eq!(found, tables, "{text}");
        }
    }

    #[test]
    fn complaints_point_at_the_place() {
        for (text, line, column, words, help) in [
            ("INSERT INTO shop VALUES (1)", 1, 1, "INSERT is not possible here", "begin with"),
            ("  create table x (a int)", 1, 3, "CREATE is not possible", ""),
            ("COPY shop TO 'x'", 1, 1, "COPY is not", ""),
            ("SET a = 1", 1, 1, "SET is not", ""),
            ("EXPLAIN SELECT 1", 1, 1, "EXPLAIN is not", ""),
            ("SELCT * FROM shop", 1, 1, "does not begin with SELCT", "SELECT"),
            ("SELECT *\nFORM shop", 2, 1, "FORM is not expected here", "FROM"),
            ("SELECT * INTO x FROM shop", 1, 10, "INTO is not possible", "job"),
            ("SELECT * FROM shop-frontend", 1, 15, "must stand in double quotes", "\"shop-frontend\""),
            ("SELECT * FROM a JOIN 2024-logs ON true", 1, 22, "must stand in double quotes", "\"2024-logs\""),
            ("SELECT * FROM Shop", 1, 15, "is not an index name", "lower case: shop"),
            ("SELECT * FROM a.b.c", 1, 15, "is not a table", ""),
            ("SELECT * FROM shop.Errors", 1, 20, "is not the name of a view", ""),
            ("SELECT * FROM Shop.errors", 1, 15, "is not an index name", "lower case"),
            ("SELECT * FROM generate_series(1, 10)", 1, 15, "no table function", ""),
            ("SELECT * FROM tumble(shop, INTERVAL '1 second')", 1, 15, "continuous job", "date_bin"),
            ("WITH RECURSIVE x AS (SELECT 1) SELECT * FROM x", 1, 6, "recursive", ""),
            ("WITH x AS (DELETE FROM shop) SELECT 1", 1, 1, "only reads", ""),
            ("SELECT * FROM", 1, 14, "expected: identifier", ""),
            ("SELECT a FROM shop WHRE a = 1", 1, 20, "WHRE is not expected", "WHERE"),
            ("SELECT a b c FROM shop", 1, 12, "does not belong to what stands before it: c", ""),
            ("SELECT count( FROM shop", 1, 20, "expected", ""),
            ("SELECT 'ä' AS ü,, 1", 1, 17, "expected", ""),
        ] {
            let found = parse_select(text).expect_err(text);
            assert_eq!((found.line, found.column), (line, column), "{text}: {found}");
            assert!(found.message.contains(words), "{text}: {found}");
            assert!(found.help.unwrap_or_default().contains(help), "{text}");
        }
    }

    #[test]
    fn names_are_located() {
        let select = parse_select("SELECT a, upper(b.c)\nFROM shop WHERE d = A").unwrap();
        for (name, place) in
            [("a", (1, 8)), ("upper", (1, 11)), ("b.c", (1, 17)), ("shop", (2, 6)), ("d", (2, 17)), ("x", (1, 1))]
        {
            assert_eq!(select.locate(name), place, "{name}");
        }
    }

    #[test]
    fn dotted_fields_become_one_identifier_unless_a_table_stands_first() {
        for (text, expected) in [
            ("SELECT http.status FROM shop", "SELECT \"http.status\" FROM shop"),
            ("SELECT t.http.status FROM shop AS t", "SELECT t.\"http.status\" FROM shop AS t"),
            ("SELECT shop.a FROM shop WHERE a.b > 1", "SELECT shop.a FROM shop WHERE \"a.b\" > 1"),
            ("WITH x AS (SELECT 1 AS a) SELECT x.a FROM x", "WITH x AS (SELECT 1 AS a) SELECT x.a FROM x"),
        ] {
            assert_eq!(parse_select(text).unwrap().statement().to_string(), expected);
        }
    }

    #[test]
    fn views_and_lookups_are_named_apart() {
        for (text, items, expected) in [
            (
                "SELECT errors.a, http.status FROM shop.errors",
                vec!["shop.errors"],
                "SELECT errors.a, \"http.status\" FROM \"shop.errors\" AS \"errors\"",
            ),
            (
                "SELECT * FROM shop s JOIN shop.hosts AS h ON s.host = h.host JOIN \"shop-2\".hosts USING (x)",
                vec!["shop.hosts", "shop-2.hosts"],
                "SELECT * FROM shop s JOIN \"shop.hosts\" AS h ON s.host = h.host JOIN \"shop-2.hosts\" AS \"hosts\" USING(x)",
            ),
            (
                "SELECT (SELECT count(*) FROM shop.a) FROM (SELECT * FROM shop.a) t",
                vec!["shop.a"],
                "SELECT (SELECT count(*) FROM \"shop.a\" AS \"a\") FROM (SELECT * FROM \"shop.a\" AS \"a\") t",
            ),
        ] {
            let select = parse_select(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let found: Vec<String> = select.items.iter().map(ToString::to_string).collect();
            assert_eq!(found, items, "{text}");
            let normal = |text: &str| text.replace(") AS t", ") t");
            assert_eq!(normal(&select.statement().to_string()), normal(expected), "{text}");
        }
    }

    #[test]
    fn an_insert_is_a_target_and_a_query_with_its_places() {
        let (index, select) = parse_insert("INSERT INTO \"shop-errors\"\nSELECT a FROM shop.errors").unwrap().unwrap();
        assert_eq!((index.as_str(), select.tables.len(), select.items.len()), ("shop-errors", 0, 1));
        assert_eq!(select.locate("a"), (2, 8));
        assert_eq!(parse_insert("SELECT 1").unwrap(), None);
        for (text, line, column, words) in [
            ("INSERT shop SELECT 1", 1, 8, "INTO is missing"),
            ("INSERT INTO shop", 1, 1, "behind INSERT INTO is missing"),
            ("INSERT INTO shop\nSELECT a FORM b c", 2, 10, ""),
            ("INSERT INTO shop VALUES (1)", 1, 18, "VALUES"),
            ("INSERT INTO a INSERT INTO b SELECT 1", 1, 15, "INSERT is not possible"),
        ] {
            let found = parse_insert(text).expect_err(text);
            assert_eq!((found.line, found.column), (line, column), "{text}: {found}");
            assert!(found.message.contains(words), "{text}: {found}");
        }
    }
}
