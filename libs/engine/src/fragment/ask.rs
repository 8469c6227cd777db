//! What a plan asks of one table, read off the plan and written as a text.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        Column, DFSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::source_as_provider,
    error::Result,
    functions::core::arrow_cast,
    logical_expr::{
        Cast, Expr, FetchType, LogicalPlan, SkipType, SortExpr, expr::ScalarFunction, lit, utils::split_conjunction,
    },
    sql::unparser::{Unparser, dialect::CustomDialectBuilder},
};
use types::IndexName;

use super::{Scatter, remote::RemoteTable};

/// Filters, perhaps groups, perhaps an order, perhaps a bound, over one table; all in terms of the table's own columns.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) index: IndexName,
    pub(super) scatter: Arc<dyn Scatter>,
    pub(super) filters: Vec<Expr>,
    /// `Some`, even if empty, where it aggregates; the outputs are then the groups and after them the aggregates.
    pub(super) groups: Option<Vec<Expr>>,
    pub(super) outputs: Vec<Expr>,
    pub(super) order: Vec<SortExpr>,
    pub(super) fetch: Option<usize>,
}

impl PartialEq for Ask {
    /// Whether both ask for the same: filters have no order, and of a cast only the type counts, not what it calls its
    /// result. As they are written, expressions say the types of their constants.
    fn eq(&self, other: &Self) -> bool {
        let said = |all: &[Expr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let sorted = |all: &[Expr]| {
            let mut all = said(all);
            all.sort_unstable();
            all
        };
        let ordered = |all: &[SortExpr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        self.index == other.index
            && sorted(&self.filters) == sorted(&other.filters)
            && self.groups.as_deref().map(&said) == other.groups.as_deref().map(&said)
            && said(&self.outputs) == said(&other.outputs)
            && ordered(&self.order) == ordered(&other.order)
            && self.fetch == other.fetch
    }
}

impl Ask {
    /// What a plan asks of the one table that it reads; `None` where it does more than an `Ask` can say.
    pub(super) fn of(plan: &LogicalPlan) -> Result<Option<Self>> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let provider = source_as_provider(&scan.source)?;
                let Some(table) = provider.downcast_ref::<RemoteTable>() else { return Ok(None) };
                let filters: Vec<Expr> =
                    scan.filters.iter().flat_map(split_conjunction).map(bare).collect::<Result<_>>()?;
                if !filters.iter().all(is_plain) {
                    return Ok(None);
                }
                let outputs = scan.projected_schema.fields().iter().map(|f| column(f.name())).collect();
                let (index, scatter) = (table.index().clone(), table.scatter());
                let (groups, order, fetch) = (None, Vec::new(), scan.fetch);
                Ok(Some(Self { index, scatter, filters, groups, outputs, order, fetch }))
            }
            LogicalPlan::SubqueryAlias(alias) => Self::of(&alias.input),
            LogicalPlan::Projection(projection) => {
                let Some(below) = Self::of(&projection.input)? else { return Ok(None) };
                let Some(outputs) = below.inline_all(&projection.expr, projection.input.schema())? else {
                    return Ok(None);
                };
                Ok(Some(Self { outputs, ..below }))
            }
            LogicalPlan::Filter(filter) => {
                let Some(mut below) = Self::of(&filter.input)?.filter(Self::is_rows) else { return Ok(None) };
                let parts: Vec<Expr> = split_conjunction(&filter.predicate).into_iter().cloned().collect();
                let Some(more) = below.inline_all(&parts, filter.input.schema())? else { return Ok(None) };
                below.filters.extend(more);
                Ok(Some(below))
            }
            LogicalPlan::Aggregate(aggregate) => {
                let Some(below) = Self::of(&aggregate.input)?.filter(Self::is_rows) else { return Ok(None) };
                let schema = aggregate.input.schema();
                let groups = below.inline_all(&aggregate.group_expr, schema)?;
                let Some((groups, aggregates)) = groups.zip(below.inline_all(&aggregate.aggr_expr, schema)?) else {
                    return Ok(None);
                };
                let outputs = groups.iter().cloned().chain(aggregates).collect();
                Ok(Some(Self { groups: Some(groups), outputs, ..below }))
            }
            LogicalPlan::Sort(sort) => {
                let below = Self::of(&sort.input)?.filter(|below| below.order.is_empty() && below.fetch.is_none());
                let Some(below) = below else { return Ok(None) };
                let mut order = Vec::with_capacity(sort.expr.len());
                for one in &sort.expr {
                    let Some(expr) = below.inline(&one.expr, sort.input.schema())? else { return Ok(None) };
                    order.push(SortExpr { expr, ..one.clone() });
                }
                Ok(Some(Self { order, fetch: sort.fetch, ..below }))
            }
            LogicalPlan::Limit(limit) => match (limit.get_skip_type()?, limit.get_fetch_type()?) {
                (SkipType::Literal(0), FetchType::Literal(Some(fetch))) => {
                    let below = Self::of(&limit.input)?;
                    Ok(below.map(|below| Self { fetch: Some(below.fetch.map_or(fetch, |f| f.min(fetch))), ..below }))
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Whether it is all rows that pass the filters, in no order.
    pub(super) fn is_rows(&self) -> bool {
        self.groups.is_none() && self.order.is_empty() && self.fetch.is_none()
    }

    pub(super) fn inline_all(&self, all: &[Expr], schema: &DFSchema) -> Result<Option<Vec<Expr>>> {
        all.iter().map(|expr| self.inline(expr, schema)).collect::<Result<Option<Vec<_>>>>()
    }

    /// An expression over the outputs as one over the table's columns; `None` where it is not a matter of one row, or not
    /// the same whenever it is asked.
    pub(super) fn inline(&self, expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
        let inlined = expr.clone().transform_down(|part| match &part {
            Expr::Column(named) => {
                let output = self.outputs[schema.index_of_column(named)?].clone();
                Ok(Transformed::new(output, true, TreeNodeRecursion::Jump))
            }
            _ => Ok(Transformed::no(part)),
        })?;
        let inlined = inlined.data.unalias_nested().data;
        Ok(is_plain(&inlined).then_some(inlined))
    }

    /// One `SELECT` that asks for this, with columns named by their places.
    pub(super) fn text(&self) -> Result<String> {
        let dialect = CustomDialectBuilder::new().with_identifier_quote_style('"').build();
        let unparser = Unparser::new(&dialect);
        let said = |expr: &Expr| unparser.expr_to_sql(&by_name(expr)?).map(|sql| sql.to_string());
        let outputs = self.outputs.iter().enumerate();
        let outputs =
            outputs.map(|(n, expr)| Ok(format!("{} AS \"__{n}\"", said(expr)?))).collect::<Result<Vec<_>>>()?;
        let mut text = format!("SELECT {} FROM \"{}\"", outputs.join(", "), self.index);
        let filters = self.filters.iter().map(|filter| Ok(format!("({})", said(filter)?)));
        let filters = filters.collect::<Result<Vec<_>>>()?;
        if !filters.is_empty() {
            text.push_str(&format!(" WHERE {}", filters.join(" AND ")));
        }
        let groups = self.groups.as_deref().unwrap_or_default();
        if !groups.is_empty() {
            let places: Vec<String> = (1..=groups.len()).map(|place| place.to_string()).collect();
            text.push_str(&format!(" GROUP BY {}", places.join(", ")));
        }
        if !self.order.is_empty() {
            let order = self.order.iter().map(|one| {
                let direction = if one.asc { "ASC" } else { "DESC" };
                let nulls = if one.nulls_first { "FIRST" } else { "LAST" };
                Ok(format!("{} {direction} NULLS {nulls}", said(&one.expr)?))
            });
            text.push_str(&format!(" ORDER BY {}", order.collect::<Result<Vec<_>>>()?.join(", ")));
        }
        if let Some(fetch) = self.fetch {
            text.push_str(&format!(" LIMIT {fetch}"));
        }
        Ok(text)
    }
}

/// The expression with casts to decimal numbers as calls. A planner leaves casts out of the names of columns, and refuses
/// `sum(n)` beside `sum(CAST(n AS DOUBLE))`, which is what an average of whole numbers needs.
fn by_name(expr: &Expr) -> Result<Expr> {
    let named = expr.clone().transform_up(|part| match part {
        Expr::Cast(Cast { expr, field }) if *field.data_type() == DataType::Float64 => {
            let call = ScalarFunction::new_udf(arrow_cast(), vec![*expr, lit("Float64")]);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(named.data)
}

pub(super) fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// The expression with columns that name no table.
fn bare(expr: &Expr) -> Result<Expr> {
    let bare = expr.clone().transform_up(|part| match part {
        Expr::Column(named) => Ok(Transformed::yes(column(&named.name))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(bare.data.unalias_nested().data)
}

/// Whether it can be asked of some rows without the others, and says the same wherever it is asked.
fn is_plain(expr: &Expr) -> bool {
    let mut plain = !expr.is_volatile();
    let walked = expr.apply(|part| {
        let more = matches!(
            part,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::ScalarSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::WindowFunction(_)
                | Expr::GroupingSet(_)
                | Expr::Placeholder(_)
        );
        plain &= !more;
        Ok(if more { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    plain && walked.is_ok()
}
