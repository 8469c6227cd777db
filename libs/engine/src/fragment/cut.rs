//! Where a plan is cut, and what is left of it above the cuts.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::{
    common::{
        Column, DFSchema, TableReference,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    datasource::{provider_as_source, source_as_provider},
    error::Result,
    logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection},
};

use super::{
    FRAGMENT_ROWS_MAX, Fragment, Whole,
    ask::Ask,
    merge::Parts,
    remote::{Answers, PartsTable, RemoteTable},
};

/// A plan that reads answers of fragments where the query reads tables.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) plan: LogicalPlan,
    /// What each fragment asks, and the text that says so.
    pub(super) asks: Vec<(Ask, String)>,
}

/// Cuts a plan, as it is after optimisation, wherever it reads a table of which the rows are elsewhere.
pub(super) fn cut(plan: LogicalPlan, answers: &Arc<Answers>) -> Result<std::result::Result<Cut, Whole>> {
    let mut cutter = Cutter { answers, asks: Vec::new(), why: None };
    let plan = plan
        .transform_down(|node| match cutter.below(&node)? {
            Some(cut) => Ok(Transformed::new(cut, true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(node)),
        })?
        .data;
    let plan = cutter.rows(plan)?;
    if reads_rows(&plan)? {
        return Ok(Err(cutter.why.unwrap_or(Whole::Shape)));
    }
    // What is null may differ between what was there and what is there now.
    let plan = plan.transform_up(|node| Ok(Transformed::yes(node.recompute_schema()?))).data()?;
    Ok(Ok(Cut { plan, asks: cutter.asks }))
}

/// Whether a table is still read.
fn reads_rows(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= source_as_provider(&scan.source)?.downcast_ref::<RemoteTable>().is_some();
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

struct Cutter<'a> {
    answers: &'a Arc<Answers>,
    asks: Vec<(Ask, String)>,
    /// Why the last place was none.
    why: Option<Whole>,
}

impl Cutter<'_> {
    /// The node over answers, if it is one below which can be cut wherever it stands.
    fn below(&mut self, node: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        match node {
            LogicalPlan::Aggregate(aggregate) => match Ask::of(&aggregate.input)?.filter(Ask::is_rows) {
                Some(below) => self.aggregate(aggregate, &below),
                None => Ok(None),
            },
            LogicalPlan::Sort(sort) if sort.fetch.is_some_and(|rows| rows <= FRAGMENT_ROWS_MAX) => {
                let Some(ask) = Ask::of(node)?.filter(|ask| ask.groups.is_none()) else { return Ok(None) };
                let Some(rows) = self.answers_of(ask, &sort.input)? else { return Ok(None) };
                Ok(Some(node.with_new_exprs(node.expressions(), vec![rows])?))
            }
            _ => Ok(None),
        }
    }

    /// Cuts at the bottom of a plan that does no more than filter, project and cut off, if it wants few rows. Of more,
    /// a fragment may have to answer too many, where the gateway with whole rows stops at those that it may answer.
    fn rows(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        // Below it no bound is known: all rows would have to come, to be put in order here.
        if let LogicalPlan::Sort(sort) = &plan
            && sort.fetch.is_none_or(|rows| rows > FRAGMENT_ROWS_MAX)
        {
            self.why.get_or_insert(Whole::AllRows);
            return Ok(plan);
        }
        if let Some(ask) = Ask::of(&plan)?.filter(|ask| ask.groups.is_none() && ask.order.is_empty()) {
            let few = ask.fetch.is_some_and(|rows| rows <= FRAGMENT_ROWS_MAX);
            if !few {
                self.why.get_or_insert(Whole::AllRows);
                return Ok(plan);
            }
            let fetch = ask.fetch;
            let Some(rows) = self.answers_of(ask, &plan)? else { return Ok(plan) };
            // Each part has given as many.
            return LogicalPlanBuilder::from(rows).limit(0, fetch)?.build();
        }
        let passes = matches!(
            plan,
            LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::Sort(_)
                | LogicalPlan::Limit(_)
                | LogicalPlan::SubqueryAlias(_)
        );
        match plan.inputs().as_slice() {
            [input] if passes => {
                let below = self.rows((*input).clone())?;
                plan.with_new_exprs(plan.expressions(), vec![below])
            }
            _ => Ok(plan),
        }
    }

    /// The rows that a plan gives, as answers of a fragment; they have the same columns.
    fn answers_of(&mut self, ask: Ask, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let fields = plan.schema().fields().iter().enumerate();
        let fields = fields.map(|(n, field)| Field::new(name(n), field.data_type().clone(), field.is_nullable()));
        let Some((table, scan)) = self.scan(ask, fields.collect())? else { return Ok(None) };
        let named = plan.schema().iter().enumerate().map(|(n, (of, field))| {
            let answered = Expr::Column(Column::new(Some(table.clone()), name(n)));
            answered.alias_qualified(of.cloned(), field.name())
        });
        Ok(Some(LogicalPlan::Projection(Projection::try_new(named.collect(), Arc::new(scan))?)))
    }

    fn aggregate(&mut self, aggregate: &Aggregate, below: &Ask) -> Result<Option<LogicalPlan>> {
        let schema = aggregate.input.schema();
        let groups = below.inline_all(&aggregate.group_expr, schema)?;
        let Some((groups, wanted)) = groups.zip(below.inline_all(&aggregate.aggr_expr, schema)?) else {
            self.why = Some(Whole::Shape);
            return Ok(None);
        };
        let columns = DFSchema::try_from(below.scatter.schema())?;
        let count = groups.len();
        let mut parts = Parts::new(groups);
        let mut merges = Vec::with_capacity(wanted.len());
        for one in &wanted {
            let Some(merge) = parts.split(one, &columns)? else {
                self.why = Some(Whole::Aggregate);
                return Ok(None);
            };
            merges.push(merge);
        }
        let Parts { groups, all, .. } = parts;
        let behind = groups.len();
        let outputs: Vec<Expr> = groups.iter().cloned().chain(all).collect();
        let fields = outputs.iter().enumerate();
        let fields = fields.map(|(n, expr)| Ok(Field::new(name(n), expr.get_type(&columns)?, true)));
        let fields = fields.collect::<Result<Vec<_>>>()?;
        let ask = Ask { groups: Some(groups), outputs, ..below.clone() };
        let Some((table, scan)) = self.scan(ask, fields)? else { return Ok(None) };

        let answered = |n: usize| Expr::Column(Column::new(Some(table.clone()), name(n)));
        let keys: Vec<Expr> = (0..count).map(answered).collect();
        let part = |place: usize| answered(behind + place);
        // Two aggregates may be merged from the same part; a node names each of its aggregates once.
        let mut merging: Vec<Expr> = Vec::new();
        let mut places = Vec::with_capacity(merges.len());
        for merge in &merges {
            let of = merge.aggregates(&answered, &part).into_iter().map(|one| {
                merging.iter().position(|known| *known == one).unwrap_or_else(|| {
                    merging.push(one);
                    merging.len() - 1
                })
            });
            places.push(of.collect::<Vec<_>>());
        }
        let merged = Aggregate::try_new(Arc::new(scan), keys, merging)?;
        let made = |n: usize| Expr::Column(Column::from(merged.schema.qualified_field(n)));
        let mut values: Vec<Expr> = (0..count).map(made).collect();
        for (merge, places) in merges.iter().zip(places) {
            let of: Vec<Expr> = places.into_iter().map(|place| made(count + place)).collect();
            values.push(merge.value(&of)?);
        }
        let named = values.into_iter().zip(aggregate.schema.iter());
        let named = named.map(|(value, (of, field))| value.alias_qualified(of.cloned(), field.name()));
        let named = named.collect();
        Ok(Some(LogicalPlan::Projection(Projection::try_new(named, Arc::new(LogicalPlan::Aggregate(merged)))?)))
    }

    /// A scan of what a fragment answers; `None` where no text asks for it.
    fn scan(&mut self, ask: Ask, fields: Vec<Field>) -> Result<Option<(TableReference, LogicalPlan)>> {
        let Ok(text) = ask.text() else {
            self.why = Some(Whole::Text);
            return Ok(None);
        };
        let schema = columns(&ask)?;
        let fragment = Arc::new(Fragment { text: text.clone(), schema });
        let answers = Arc::clone(self.answers);
        let scatter = Arc::clone(&ask.scatter);
        let source = PartsTable::new(Arc::new(Schema::new(fields)), fragment, scatter, answers);
        let table = TableReference::bare(format!("__fragment_{}", self.asks.len()));
        let scan = LogicalPlanBuilder::scan(table.clone(), provider_as_source(Arc::new(source)), None)?.build()?;
        self.asks.push((ask, text));
        Ok(Some((table, scan)))
    }
}

fn name(place: usize) -> String {
    format!("__{place}")
}

/// The columns that a fragment names; all of them where the table was cut at the most that it can have.
fn columns(ask: &Ask) -> Result<Arc<Schema>> {
    let whole = ask.scatter.schema();
    if !whole.metadata().is_empty() {
        return Ok(whole);
    }
    let all = ask.outputs.iter().chain(&ask.filters).chain(ask.order.iter().map(|one| &one.expr));
    let mut places = Vec::new();
    for expr in all {
        for named in expr.column_refs() {
            places.push(whole.index_of(&named.name)?);
        }
    }
    places.sort_unstable();
    places.dedup();
    Ok(Arc::new(whole.project(&places)?))
}
