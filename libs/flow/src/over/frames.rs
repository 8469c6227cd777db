//! Aggregates over frames that slide: what comes in is added, and what goes out is taken away again.

use std::{cmp::Ordering, collections::VecDeque, sync::Arc};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};

use super::totals::{FloatTotal, IntTotal};
use crate::window::{
    cells::{CellSpec, Values, What, data_type},
    chunk::Chunked,
    results::Results,
};

/// Bytes of a frame's row in one ring.
const RING_BYTES: usize = 16;

/// Which rows stay in a frame beside the newest.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// So many before it.
    Rows(usize),
    /// Those no longer before it than that.
    Nanos(i64),
}

/// What one aggregate knows of a key's frame: its values in order, and what they come to.
#[derive(Debug, Clone)]
struct Cell<T, A> {
    ring: VecDeque<Option<T>>,
    /// Numbers values.
    pushed: u64,
    total: A,
}

impl<T, A: Default> Default for Cell<T, A> {
    fn default() -> Self {
        Self { ring: VecDeque::new(), pushed: 0, total: A::default() }
    }
}

type Column<T, A> = Chunked<Cell<T, A>>;
/// The ends of what is left of a frame, one for each place from which on they are the end: the first is that of all.
type Ends<T> = VecDeque<(u64, T)>;

/// One column of frames.
#[derive(Debug, Clone)]
enum Slide {
    Rows,
    Present(Column<(), i64>),
    Int(Column<i64, IntTotal>),
    Float(Column<f64, FloatTotal>),
    IntEnd(Column<i64, Ends<i64>>, bool),
    FloatEnd(Column<f64, Ends<f64>>, bool),
    TextEnd(Column<Arc<str>, Ends<Arc<str>>>, bool),
}

/// Adds values one after the other, each to its group; takes away as many as leave the frame with it; and shows what is left.
fn slide<T: Clone, A: Clone>(
    column: &mut Column<T, A>,
    (groups, gone): (&[u32], &[u32]),
    value: impl Fn(usize) -> Option<T>,
    add: impl Fn(&mut A, u64, T),
    take: impl Fn(&mut A, u64, T),
    mut show: impl FnMut(&A),
) {
    column.each(groups, |cell, row| {
        let value = value(row);
        cell.ring.push_back(value.clone());
        if let Some(value) = value {
            add(&mut cell.total, cell.pushed, value);
        }
        cell.pushed += 1;
        for _ in 0..gone[row] {
            let place = cell.pushed - u64::try_from(cell.ring.len()).unwrap_or(0);
            if let Some(Some(old)) = cell.ring.pop_front() {
                take(&mut cell.total, place, old);
            }
        }
        show(&cell.total);
    });
}

fn slide_ends<T: Clone>(
    column: &mut Column<T, Ends<T>>,
    rows: (&[u32], &[u32]),
    value: impl Fn(usize) -> Option<T>,
    order: impl Fn(&T, &T) -> Ordering,
    least: bool,
) -> Vec<Option<T>> {
    let mut shown = Vec::with_capacity(rows.0.len());
    // An older value that is no better than a newer one is never the end again.
    let stays = |old: &T, new: &T| if least { order(old, new).is_lt() } else { order(old, new).is_gt() };
    let add = |ends: &mut Ends<T>, place, new: T| {
        while ends.back().is_some_and(|(_, old)| !stays(old, &new)) {
            ends.pop_back();
        }
        ends.push_back((place, new));
    };
    let take = |ends: &mut Ends<T>, place, _| {
        if ends.front().is_some_and(|(first, _)| *first == place) {
            ends.pop_front();
        }
    };
    slide(column, rows, value, add, take, |ends| shown.push(ends.front().map(|(_, value)| value.clone())));
    shown
}

impl Slide {
    fn new(cell: &CellSpec) -> Self {
        use crate::ValueType as V;
        let least = cell.what == What::Least;
        match (cell.what, cell.kind) {
            (What::Rows, _) => Self::Rows,
            (What::Present, _) | (_, None) => Self::Present(Chunked::default()),
            (What::Sum, Some(V::Float)) => Self::Float(Chunked::default()),
            (What::Sum, _) => Self::Int(Chunked::default()),
            (_, Some(V::Float)) => Self::FloatEnd(Chunked::default(), least),
            (_, Some(V::Text)) => Self::TextEnd(Chunked::default(), least),
            _ => Self::IntEnd(Chunked::default(), least),
        }
    }

    fn grow(&mut self, groups: usize) {
        match self {
            Self::Rows => {}
            Self::Present(column) => column.grow(groups, &Cell::default()),
            Self::Int(column) => column.grow(groups, &Cell::default()),
            Self::Float(column) => column.grow(groups, &Cell::default()),
            Self::IntEnd(column, _) => column.grow(groups, &Cell::default()),
            Self::FloatEnd(column, _) => column.grow(groups, &Cell::default()),
            Self::TextEnd(column, _) => column.grow(groups, &Cell::default()),
        }
    }

    fn rows(&mut self, rows: (&[u32], &[u32]), sizes: &[i64], values: &Values) -> Results {
        let nulls = values.nulls();
        let valid = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
        let count = rows.0.len();
        match (self, values) {
            (Self::Present(column), _) => {
                let mut shown = Vec::with_capacity(count);
                let value = |row| valid(row).then_some(());
                slide(column, rows, value, |n, _, ()| *n += 1, |n, _, ()| *n -= 1, |n| shown.push(*n));
                Results::Counts(shown)
            }
            (Self::Int(column), Values::Int(array)) => {
                let mut shown = Vec::with_capacity(count);
                let value = |row| valid(row).then(|| array.value(row));
                let (add, take) = (|t: &mut IntTotal, _, v| t.add(v, 1), |t: &mut IntTotal, _, v| t.add(v, -1));
                slide(column, rows, value, add, take, |total| shown.push((total.sum, total.count)));
                Results::Ints(shown)
            }
            (Self::Float(column), Values::Float(array)) => {
                let mut shown = Vec::with_capacity(count);
                let value = |row| valid(row).then(|| array.value(row));
                let (add, take) = (|t: &mut FloatTotal, _, v| t.add(v, 1), |t: &mut FloatTotal, _, v| t.add(v, -1));
                slide(column, rows, value, add, take, |total| shown.push((total.value(), total.count)));
                Results::Floats(shown)
            }
            (Self::IntEnd(column, least), Values::Int(array)) => {
                let value = |row| valid(row).then(|| array.value(row));
                Results::IntEnds(slide_ends(column, rows, value, Ord::cmp, *least))
            }
            (Self::FloatEnd(column, least), Values::Float(array)) => {
                let value = |row| valid(row).then(|| array.value(row));
                Results::FloatEnds(slide_ends(column, rows, value, f64::total_cmp, *least))
            }
            (Self::TextEnd(column, least), Values::Text(array)) => {
                let value = |row| valid(row).then(|| Arc::from(array.value(row)));
                Results::TextEnds(slide_ends(column, rows, value, Ord::cmp, *least))
            }
            // Values are read in the kind that the columns were made for; what is left is the count of rows.
            _ => Results::Counts(sizes.to_vec()),
        }
    }

    fn kept(&self, groups: &[u32]) -> Self {
        match self {
            Self::Rows => Self::Rows,
            Self::Present(column) => Self::Present(column.kept(groups)),
            Self::Int(column) => Self::Int(column.kept(groups)),
            Self::Float(column) => Self::Float(column.kept(groups)),
            Self::IntEnd(column, least) => Self::IntEnd(column.kept(groups), *least),
            Self::FloatEnd(column, least) => Self::FloatEnd(column.kept(groups), *least),
            Self::TextEnd(column, least) => Self::TextEnd(column.kept(groups), *least),
        }
    }

    fn only(&self, piece: usize) -> Self {
        match self {
            Self::Rows => Self::Rows,
            Self::Present(column) => Self::Present(column.only(piece)),
            Self::Int(column) => Self::Int(column.only(piece)),
            Self::Float(column) => Self::Float(column.only(piece)),
            Self::IntEnd(column, least) => Self::IntEnd(column.only(piece), *least),
            Self::FloatEnd(column, least) => Self::FloatEnd(column.only(piece), *least),
            Self::TextEnd(column, least) => Self::TextEnd(column.only(piece), *least),
        }
    }

    /// The values of all frames, one frame behind the other; none where only rows count.
    fn values(&self) -> Option<ArrayRef> {
        fn all<T, A>(column: &Column<T, A>) -> impl Iterator<Item = &Option<T>>
        where
            T: Clone,
            A: Clone,
        {
            column.iter().flat_map(|cell| &cell.ring)
        }
        Some(match self {
            Self::Rows => return None,
            Self::Present(column) => Arc::new(all(column).map(|v| v.map(|()| true)).collect::<BooleanArray>()),
            Self::Int(column) => Arc::new(all(column).copied().collect::<Int64Array>()),
            Self::Float(column) => Arc::new(all(column).copied().collect::<Float64Array>()),
            Self::IntEnd(column, _) => Arc::new(all(column).copied().collect::<Int64Array>()),
            Self::FloatEnd(column, _) => Arc::new(all(column).copied().collect::<Float64Array>()),
            Self::TextEnd(column, _) => Arc::new(all(column).map(Option::as_deref).collect::<StringArray>()),
        })
    }
}

/// How the values of cells lie in stored rows; `None`: they do not.
pub(crate) fn stored_kind(cell: &CellSpec) -> Option<arrow::datatypes::DataType> {
    use crate::ValueType as V;
    use arrow::datatypes::DataType as T;
    match (cell.what, cell.kind) {
        (What::Rows, _) => None,
        (_, None) => Some(T::Boolean),
        (_, Some(V::Boolean | V::Time)) => Some(T::Int64),
        (_, Some(kind)) => Some(data_type(kind)),
    }
}

/// The frames of keys by number.
#[derive(Debug, Clone)]
pub(crate) struct Frames {
    extent: Extent,
    times: Chunked<VecDeque<i64>>,
    slides: Vec<Slide>,
    /// Rows in all frames.
    held: usize,
}

impl Frames {
    pub(crate) fn new(extent: Extent, cells: &[CellSpec]) -> Self {
        Self { extent, times: Chunked::default(), slides: cells.iter().map(Slide::new).collect(), held: 0 }
    }

    /// Takes rows in order; the results are those of the frame of each row.
    pub(crate) fn rows(&mut self, groups: &[u32], len: usize, times: &[i64], values: &[Values]) -> Vec<Results> {
        self.times.grow(len, &VecDeque::new());
        let (mut gone, mut sizes) = (Vec::with_capacity(groups.len()), Vec::with_capacity(groups.len()));
        let extent = self.extent;
        self.times.each(groups, |frame, row| {
            frame.push_back(times[row]);
            let leaves = |frame: &VecDeque<i64>| match extent {
                Extent::Rows(before) => frame.len() > before.saturating_add(1),
                Extent::Nanos(before) => frame.front().is_some_and(|t| *t < times[row].saturating_sub(before)),
            };
            let mut out = 0;
            while leaves(frame) {
                frame.pop_front();
                out += 1;
            }
            gone.push(out);
            sizes.push(i64::try_from(frame.len()).unwrap_or(i64::MAX));
        });
        let out: usize = gone.iter().map(|n| crate::window::chunk::at(*n)).sum();
        self.held = (self.held + groups.len()).saturating_sub(out);
        let each = self.slides.iter_mut().zip(values).map(|(slide, values)| {
            slide.grow(len);
            slide.rows((groups, &gone), &sizes, values)
        });
        each.collect()
    }

    /// Only these keys, in that order.
    pub(crate) fn kept(&self, groups: &[u32]) -> Self {
        let times = self.times.kept(groups);
        let held = times.iter().map(VecDeque::len).sum();
        Self { extent: self.extent, times, slides: self.slides.iter().map(|slide| slide.kept(groups)).collect(), held }
    }

    /// Those of one piece, shared.
    pub(crate) fn only(&self, piece: usize) -> Self {
        let (times, slides) = (self.times.only(piece), self.slides.iter().map(|slide| slide.only(piece)).collect());
        let held = times.iter().map(VecDeque::len).sum();
        Self { extent: self.extent, times, slides, held }
    }

    /// The rows of all frames, one frame behind the other: the number of their keys, their times, their values.
    pub(crate) fn stored(&self) -> (Vec<u32>, Vec<i64>, Vec<ArrayRef>) {
        let each = || (0u32..).zip(self.times.iter());
        let keys = each().flat_map(|(key, frame)| std::iter::repeat_n(key, frame.len())).collect();
        let times = each().flat_map(|(_, frame)| frame).copied().collect();
        (keys, times, self.slides.iter().filter_map(Slide::values).collect())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.held * RING_BYTES * (1 + self.slides.len())
    }
}
