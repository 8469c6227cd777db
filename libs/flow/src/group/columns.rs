//! The cells of groups: those of rows that only come are smaller than those of rows that also go.

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::Field,
};

use super::changing::Changing;
use crate::{
    Error,
    window::{
        cells::{CellSpec, Cells, Values},
        groups::{damaged, stored_name},
        results::Results,
    },
};

/// All columns of cells, in the order of their specifications; the first counts rows.
#[derive(Debug, Clone)]
pub(crate) enum Columns {
    Growing(Vec<Cells>),
    Changing(Vec<Changing>),
}

impl Columns {
    pub(crate) fn new(cells: &[CellSpec], changes: bool) -> Self {
        match changes {
            true => Self::Changing(cells.iter().map(Changing::new).collect()),
            false => Self::Growing(cells.iter().map(CellSpec::cells).collect()),
        }
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        match self {
            Self::Growing(all) => all.iter_mut().for_each(|cells| cells.grow(groups)),
            Self::Changing(all) => all.iter_mut().for_each(|cells| cells.grow(groups)),
        }
    }

    /// Adds values, or takes them away; answers by how many bytes more than by its groups it grew.
    pub(crate) fn update(&mut self, groups: &[u32], signs: &[i64], values: &[Values]) -> isize {
        match self {
            Self::Growing(all) => {
                all.iter_mut().zip(values).for_each(|(cells, values)| cells.update(groups, None, values));
                0
            }
            Self::Changing(all) => {
                all.iter_mut().zip(values).map(|(cells, values)| cells.update(groups, signs, values)).sum()
            }
        }
    }

    /// The results of these groups, cells by cells.
    pub(crate) fn results(&self, groups: &[u32]) -> Vec<Results> {
        match self {
            Self::Growing(all) => all.iter().map(|cells| cells.results(groups)).collect(),
            Self::Changing(all) => all.iter().map(|cells| cells.results(groups)).collect(),
        }
    }

    pub(crate) fn clear(&mut self, group: u32) {
        match self {
            Self::Growing(all) => all.iter_mut().for_each(|cells| cells.clear(group)),
            Self::Changing(all) => all.iter_mut().for_each(|cells| cells.clear(group)),
        }
    }

    /// Only these groups, in that order.
    pub(crate) fn kept(&self, specs: &[CellSpec], groups: &[u32]) -> Self {
        let places: Vec<u32> = (0u32..).take(groups.len()).collect();
        match self {
            Self::Growing(all) => {
                let kept = all.iter().zip(specs).map(|(cells, spec)| {
                    let mut kept = spec.cells();
                    kept.grow(groups.len());
                    kept.merge(&places, cells, groups);
                    kept
                });
                Self::Growing(kept.collect())
            }
            Self::Changing(all) => Self::Changing(all.iter().map(|cells| cells.kept(groups)).collect()),
        }
    }

    /// Those of one piece, shared.
    pub(crate) fn only(&self, piece: usize) -> Self {
        match self {
            Self::Growing(all) => Self::Growing(all.iter().map(|cells| cells.only(piece)).collect()),
            Self::Changing(all) => Self::Changing(all.iter().map(|cells| cells.only(piece)).collect()),
        }
    }

    /// The columns that hold the cells in a block.
    pub(crate) fn fields(&self, specs: &[CellSpec]) -> Vec<Field> {
        self.each_stored(specs).into_iter().flatten().collect()
    }

    fn each_stored(&self, specs: &[CellSpec]) -> Vec<Vec<Field>> {
        let named = specs.iter().enumerate().map(|(place, spec)| (stored_name(place, spec), spec));
        match self {
            Self::Growing(_) => named.map(|(name, spec)| spec.stored(&name)).collect(),
            Self::Changing(all) => named.zip(all).map(|((name, _), cells)| cells.stored(&name)).collect(),
        }
    }

    pub(crate) fn store(&self, groups: &[u32]) -> Result<Vec<ArrayRef>, Error> {
        Ok(match self {
            Self::Growing(all) => {
                all.iter().map(|cells| cells.store(groups)).collect::<Result<Vec<_>, Error>>()?.concat()
            }
            Self::Changing(all) => all.iter().flat_map(|cells| cells.store(groups)).collect(),
        })
    }

    /// Puts stored cells in the places of these groups, which were empty.
    pub(crate) fn load(&mut self, specs: &[CellSpec], groups: &[u32], rows: &RecordBatch) -> Result<(), Error> {
        let all: Vec<u32> = (0u32..).take(rows.num_rows()).collect();
        for (place, fields) in self.each_stored(specs).iter().enumerate() {
            let stored = fields.iter().map(|field| rows.column_by_name(field.name()).cloned());
            let stored: Option<Vec<ArrayRef>> = stored.collect();
            let loaded = stored.and_then(|stored| match self {
                Self::Growing(cells) => {
                    let loaded = specs[place].cells().load(&stored)?;
                    cells[place].merge(groups, &loaded, &all);
                    Some(())
                }
                Self::Changing(cells) => cells[place].load(groups, &stored),
            });
            loaded.ok_or_else(|| damaged(format!("the cells of {fields:?} cannot be read")))?;
        }
        Ok(())
    }

    /// About how many bytes the cells of a group take.
    pub(crate) fn group_bytes(&self) -> usize {
        match self {
            Self::Growing(all) => all.iter().map(Cells::cell_bytes).sum(),
            Self::Changing(all) => all.iter().map(Changing::cell_bytes).sum(),
        }
    }

    /// Bytes beside those of groups, counted one by one.
    pub(crate) fn bag_bytes(&self) -> usize {
        match self {
            Self::Growing(_) => 0,
            Self::Changing(all) => all.iter().map(Changing::bag_bytes).sum(),
        }
    }
}
