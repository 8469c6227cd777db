//! One-off queries: one read-only statement and the indexes that it reads.

use std::{convert::Infallible, ops::ControlFlow};

use sqlparser::{
    ast::{
        Expr, Ident, ObjectName, Query, SetExpr, Spanned, Statement, TableAlias, TableFactor, Visit, Visitor,
        visit_expressions, visit_expressions_mut, visit_relations,
    },
    tokenizer::{Location, Span, Token, TokenWithSpan},
};
use types::IndexName;

use crate::{
    Diagnostic,
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
    statement: Statement,
}

impl Select {
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
    let tokens = tokens(text)?;
    begins_as_query(&tokens[0])?;
    refused_words(&tokens)?;
    let mut statement = statement(text, tokens)?;
    let mut reader = Reader::default();
    if let ControlFlow::Break(found) = statement.visit(&mut reader) {
        return Err(*found);
    }
    join_dotted_names(&mut statement, &reader.names);
    Ok(Select { text: text.to_owned(), tables: reader.tables, statement })
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
}

/// Walks a statement: gathers indexes and the names that may stand before a dot, refuses what does not only read.
#[derive(Default)]
struct Reader {
    statements: usize,
    relations: usize,
    scopes: Vec<Scope>,
    tables: Vec<IndexName>,
    names: Vec<String>,
}

impl Reader {
    fn alias(&mut self, alias: Option<&TableAlias>) {
        self.names.extend(alias.map(|alias| alias.name.value.clone()));
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
        self.scopes.push(Scope { defined, visible: 0 });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Self::Break> {
        self.scopes.pop();
        // The queries of a WITH are walked before its body, so the first ones to end below a level are its own.
        if let Some(outer) = self.scopes.last_mut() {
            outer.visible = (outer.visible + 1).min(outer.defined.len());
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
        let [part] = name.0.as_slice() else {
            return refuse(start(name), format!("{name} is not an index: an index name has no schema"));
        };
        let Some(ident) = part.as_ident() else { return refuse(start(name), format!("{name} is not an index")) };
        let known = self.scopes.iter().any(|scope| scope.defined[..scope.visible].contains(&ident.value));
        if known {
            return ControlFlow::Continue(());
        }
        match index_name(ident) {
            Ok(index) => {
                self.names.push(ident.value.clone());
                if !self.tables.contains(&index) {
                    self.tables.push(index);
                }
            }
            Err(found) => return ControlFlow::Break(Box::new(found)),
        }
        if self.tables.len() > TABLES_MAX {
            return refuse(ident.span.start, format!("a query reads at most {TABLES_MAX} indexes"));
        }
        ControlFlow::Continue(())
    }
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
            ("SELECT * FROM information_schema.tables", 1, 15, "has no schema", ""),
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
}
