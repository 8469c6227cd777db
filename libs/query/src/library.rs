//! Views and lookups of an index's library, as queries name them, and what becomes of a query that names some.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use types::{IndexName, Invalid, ItemName};

use crate::{
    Diagnostic, Plan, RELATIONS_ALL_MAX, Select,
    lower::complaint_in,
    parse_pipe, parse_select,
    reads::{Reads, Weights, too_many},
};

/// Views and lookups that one query reads, those inside views too.
pub const ITEMS_MAX: usize = 32;

/// How deep views may name views: the outermost is at depth 1.
pub const VIEWS_DEPTH_MAX: usize = 8;

/// A view or a lookup as SQL names it: `shop.errors`, of the library of an index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The index.
    pub index: IndexName,
    /// The name in its library.
    pub item: ItemName,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.item)
    }
}

/// A view or a lookup as the pipe language names it, where the index may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRef {
    /// The index; `None` for the one that the query reads.
    pub index: Option<IndexName>,
    /// The name in its library.
    pub item: ItemName,
}

impl ItemRef {
    /// The whole name, where the index is known.
    pub fn table(&self) -> Option<TableName> {
        Some(TableName { index: self.index.clone()?, item: self.item.clone() })
    }

    /// Says which index is meant where the text does not.
    pub(crate) fn of(&mut self, home: Option<&IndexName>) {
        if self.index.is_none() {
            self.index = home.cloned();
        }
    }
}

impl FromStr for ItemRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (index, item) = match text.split_once('.') {
            Some((index, item)) => (Some(index.parse()?), item),
            None => (None, text),
        };
        Ok(Self { index, item: item.parse()? })
    }
}

impl fmt::Display for ItemRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.index {
            Some(index) => write!(f, "{index}.{}", self.item),
            None => self.item.fmt(f),
        }
    }
}

/// What an item is to a query.
#[derive(Debug, Clone, PartialEq)]
pub enum Definition {
    /// A view in SQL.
    Sql(Box<Select>),
    /// A view in the pipe language, and its text.
    Pipe(Box<Plan>, String),
    /// A table.
    Lookup,
}

impl Definition {
    /// A view in SQL.
    pub fn sql(text: &str) -> Result<Self, Diagnostic> {
        parse_select(text).map(|select| Self::Sql(Box::new(select)))
    }

    /// A view in the pipe language; it reads the index in whose library it is where it names none.
    pub fn pipe(text: &str, index: &IndexName) -> Result<Self, Diagnostic> {
        let mut plan = parse_pipe(text)?;
        plan.default_indexes(std::slice::from_ref(index));
        Ok(Self::Pipe(Box::new(plan), text.to_owned()))
    }

    /// The indexes that it reads itself.
    pub fn indexes(&self) -> Vec<IndexName> {
        match self {
            Self::Sql(select) => select.tables.clone(),
            Self::Pipe(plan, _) => plan.all_indexes(),
            Self::Lookup => Vec::new(),
        }
    }

    /// The views and lookups that it names itself.
    pub fn items(&self) -> Vec<TableName> {
        match self {
            Self::Sql(select) => select.items.clone(),
            Self::Pipe(plan, _) => plan.all_items(),
            Self::Lookup => Vec::new(),
        }
    }

    /// What it reads itself, as often as it does; a lookup is one table.
    fn reads(&self) -> Reads {
        match self {
            Self::Sql(select) => select.reads().clone(),
            Self::Pipe(plan, _) => plan.reads(),
            Self::Lookup => {
                let mut table = Reads::default();
                table.index();
                table
            }
        }
    }
}

/// The views and lookups that a query reads, gathered one after another: what is missing is asked for and given.
///
/// ```
/// use query::{Definition, Definitions, TableName};
///
/// let select = query::parse_select("SELECT count(*) FROM shop.errors")?;
/// let mut found = Definitions::default();
/// while let Some(name) = found.missing(&select.items)? {
///     assert_eq!(name.to_string(), "shop.errors");
///     found.give(name, Definition::sql("SELECT * FROM shop WHERE severity = 'error'")?);
/// }
/// assert_eq!(found.in_order(&select.items)?.len(), 1);
/// assert_eq!(found.indexes()[0].as_str(), "shop");
/// # Ok::<(), query::Diagnostic>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Definitions(BTreeMap<TableName, Definition>);

impl Definitions {
    /// One that the query reads, itself or through views, and that was not given yet.
    ///
    /// Errors: more than [`ITEMS_MAX`].
    pub fn missing(&self, roots: &[TableName]) -> Result<Option<TableName>, Diagnostic> {
        let inner = self.0.values().flat_map(Definition::items);
        let missing = roots.iter().cloned().chain(inner).find(|name| !self.0.contains_key(name));
        if missing.is_some() && self.0.len() == ITEMS_MAX {
            let message = format!("the query reads more than {ITEMS_MAX} views and lookups, those inside views too");
            return Err(Diagnostic::new(1, 1, message));
        }
        Ok(missing)
    }

    /// What one of them is.
    pub fn give(&mut self, name: TableName, definition: Definition) {
        self.0.insert(name, definition);
    }

    /// What one of them is.
    pub fn get(&self, name: &TableName) -> Option<&Definition> {
        self.0.get(name)
    }

    /// The indexes that all of them read, each once.
    pub fn indexes(&self) -> Vec<IndexName> {
        let mut found = Vec::new();
        for index in self.0.values().flat_map(Definition::indexes) {
            if !found.contains(&index) {
                found.push(index);
            }
        }
        found
    }

    /// All that the roots read, each behind everything that it reads itself.
    ///
    /// Errors: views that name one another in a circle, which the complaint names; views in views deeper than [`VIEWS_DEPTH_MAX`];
    /// a view that reads more than [`RELATIONS_ALL_MAX`] tables together with those inside it.
    pub fn in_order(&self, roots: &[TableName]) -> Result<Vec<TableName>, Diagnostic> {
        let (mut done, mut order) = (BTreeSet::new(), Vec::new());
        for root in roots {
            self.walk(root, &mut Vec::new(), &mut done, &mut order)?;
        }
        self.bounded(&order)?;
        Ok(order)
    }

    fn bounded(&self, order: &[TableName]) -> Result<(), Diagnostic> {
        let mut weights = Weights::default();
        for name in order {
            let weight = weights.note(name, &self.0.get(name).map(Definition::reads).unwrap_or_default());
            if weight > RELATIONS_ALL_MAX {
                return Err(too_many(&format!("the view {name}"), weight));
            }
        }
        Ok(())
    }

    /// The depth is bounded by [`ITEMS_MAX`], as no name is twice on the path.
    fn walk(
        &self,
        name: &TableName,
        path: &mut Vec<TableName>,
        done: &mut BTreeSet<TableName>,
        order: &mut Vec<TableName>,
    ) -> Result<(), Diagnostic> {
        let shown = |path: &[TableName]| path.iter().map(|name| format!("{name} → ")).collect::<String>();
        if let Some(begins) = path.iter().position(|on| on == name) {
            let message = format!("views read one another in a circle: {}{name}", shown(&path[begins..]));
            return Err(Diagnostic::new(1, 1, message).help(format!("let {name} read an index instead")));
        }
        if path.len() == VIEWS_DEPTH_MAX {
            let message = format!("views read views deeper than {VIEWS_DEPTH_MAX}: {}{name}", shown(path));
            return Err(Diagnostic::new(1, 1, message).help("let the first of them read an index instead"));
        }
        path.push(name.clone());
        for inner in self.0.get(name).map(Definition::items).unwrap_or_default() {
            if !done.contains(&inner) {
                self.walk(&inner, path, done, order)?;
            }
        }
        path.pop();
        if done.insert(name.clone()) {
            order.push(name.clone());
        }
        Ok(())
    }
}

/// A complaint about something inside a view, for whoever wrote the text that names the view.
///
/// The place is where the text names the view; where inside it something is wrong says the message.
pub fn inside_view(name: &TableName, found: &Diagnostic, text: &str) -> Diagnostic {
    let message = format!("in the view {name}, line {}, column {}: {}", found.line, found.column, found.message);
    let help = found.help.clone();
    Diagnostic { help, ..about_item(name, message, text) }
}

/// A complaint about a view or a lookup where a text names it.
pub fn about_item(name: &TableName, message: impl Into<String>, text: &str) -> Diagnostic {
    let message = message.into();
    let whole = complaint_in(text, &name.to_string(), message.clone());
    if (whole.line, whole.column) == (1, 1) { complaint_in(text, name.item.as_str(), message) } else { whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TableName {
        text.parse::<ItemRef>().unwrap().table().unwrap()
    }

    /// Gathers what a query over `shop.<root>` reads; each view is `name: what it reads`.
    fn gather(root: &str, views: &[(&str, &str)]) -> Result<Vec<String>, Diagnostic> {
        let roots = [name(&format!("shop.{root}"))];
        let mut found = Definitions::default();
        while let Some(missing) = found.missing(&roots)? {
            let text = views.iter().find(|(view, _)| *view == missing.item.as_str()).map(|(_, text)| *text);
            let definition = match text {
                None => Definition::Lookup,
                Some(text) if text.starts_with("SELECT") => Definition::sql(text)?,
                Some(text) => Definition::pipe(text, &missing.index)?,
            };
            found.give(missing, definition);
        }
        Ok(found.in_order(&roots)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_read_comes_first() {
        let views = [
            ("a", "SELECT * FROM shop.b JOIN shop.c USING (x)"),
            ("b", "view:d error | lookup hosts host -> owner"),
            ("c", "SELECT * FROM shop.d JOIN bank.e USING (y)"),
            ("d", "index:shop since:1h"),
            ("e", "view:f"),
            ("f", "x"),
        ];
        let order = gather("a", &views).unwrap();
        assert_eq!(order, ["shop.d", "shop.hosts", "shop.b", "bank.f", "bank.e", "shop.c", "shop.a"]);
    }

    #[test]
    fn circles_are_named() {
        let views = [("a", "view:b"), ("b", "SELECT * FROM shop.c"), ("c", "* | append [view:b]")];
        let found = gather("a", &views).unwrap_err();
        assert_eq!(found.message, "views read one another in a circle: shop.b → shop.c → shop.b");
        assert!(gather("b", &[("b", "view:b")]).unwrap_err().message.ends_with("shop.b → shop.b"));
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let chain: Vec<(String, String)> = (0..20).map(|n| (format!("v{n}"), format!("view:v{}", n + 1))).collect();
        let mut views: Vec<(&str, &str)> = chain.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let fits = 20 - VIEWS_DEPTH_MAX;
        views[19].1 = "*";
        assert_eq!(gather(&format!("v{fits}"), &views).unwrap().len(), VIEWS_DEPTH_MAX);
        let found = gather(&format!("v{}", fits - 1), &views).unwrap_err();
        assert!(found.message.contains("deeper than 8: shop.v11 → shop.v12"), "{found}");
        let wide: Vec<String> = (0..=ITEMS_MAX).map(|n| format!("shop.w{n}")).collect();
        let parts: Vec<String> = wide.chunks(15).map(|part| format!("SELECT * FROM {}", part.join(", "))).collect();
        let mut views: Vec<(String, &str)> =
            (0..).map(|n| format!("p{n}")).zip(parts.iter().map(String::as_str)).collect();
        let all = "SELECT * FROM shop.p0, shop.p1, shop.p2";
        views.push(("all".to_owned(), all));
        let views: Vec<(&str, &str)> = views.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        assert!(gather("all", &views).unwrap_err().message.contains("more than 32 views and lookups"));
    }

    #[test]
    fn views_do_not_multiply() {
        let names = |view: &str, count: usize| {
            let names: Vec<String> = (0..count).map(|n| format!("{view} AS s{n}")).collect();
            format!("SELECT 1 FROM {}", names.join(", "))
        };
        let (one, other, pipe) =
            (names("shop", 16), names("shop.one", 8), "view:one | append [view:other] | lookup t x");
        let (many, most) = (names("shop.other", 2), names("shop.many", 32));
        let views =
            [("one", one.as_str()), ("other", &other), ("pipe", pipe), ("many", many.as_str()), ("most", &most)];
        assert_eq!(gather("other", &views).unwrap(), ["shop.one", "shop.other"], "128 are not too many");
        for (root, words) in [
            ("many", "the view shop.many reads 256 tables"),
            ("most", "the view shop.many reads 256 tables"),
            ("pipe", "the view shop.pipe reads 145 tables"),
        ] {
            let found = gather(root, &views).unwrap_err();
            assert!(found.message.starts_with(words), "{found}");
        }
    }

    #[test]
    fn complaints_say_which_view_and_where() {
        let text = "SELECT count(*)\nFROM shop.errors";
        let found = inside_view(
            &name("shop.errors"),
            &Diagnostic::new(2, 7, "there is no column x").help("did you mean y?"),
            text,
        );
        assert_eq!((found.line, found.column), (2, 6));
        assert_eq!(found.message, "in the view shop.errors, line 2, column 7: there is no column x");
        assert_eq!(found.help.as_deref(), Some("did you mean y?"));
        assert_eq!(about_item(&name("shop.errors"), "x", "* view:errors").column, 8);
        for wrong in ["a.b.c", "A", "shop.", ".x", ""] {
            assert!(wrong.parse::<ItemRef>().is_err(), "{wrong}");
        }
    }
}
