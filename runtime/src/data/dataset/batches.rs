//! Batches: parts of a data set, in its order or shuffled.
//!
//! In: a [`Dataset`], a batch size, an [`Order`]. Out: a call for each [`Batch`]. The last batch has what is left: it may
//! be smaller, and is a batch of its own. Data in its own order is borrowed where it lies; what is shuffled, or not stored
//! as f32, is gathered by a helper thread, one batch ahead of its use, into two buffers that change hands. The order of an epoch depends on seed
//! and epoch alone, so a run that goes on draws what an uninterrupted one would.

use std::ops::{ControlFlow, Range};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use frit_ir::random::Philox;

use super::samples::row;
use super::{Dataset, Targets};

/// Stream of random numbers that shuffles.
pub const SHUFFLE_STREAM: u64 = 1;

/// Blocks of random numbers that an epoch may draw.
const EPOCH_BLOCKS: u64 = 1 << 32;

/// In which order records come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the data has them.
    Data,
    /// Shuffled.
    Shuffled {
        /// Of the run.
        seed: u64,
        /// Counted from 0.
        epoch: u64,
    },
}

impl Order {
    /// The records of an epoch; `None`: as the data has them.
    pub fn rows(self, len: usize) -> Option<Vec<usize>> {
        match self {
            Order::Data => None,
            Order::Shuffled { seed, epoch } => {
                let mut rows: Vec<usize> = (0..len).collect();
                Philox::at_block(seed, SHUFFLE_STREAM, epoch.wrapping_mul(EPOCH_BLOCKS)).shuffle(&mut rows);
                Some(rows)
            }
        }
    }
}

/// Targets of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TargetSlice<'a> {
    /// The index of a class.
    Classes(&'a [i64]),
    /// Numbers.
    Values {
        /// Those of all samples, sample after sample.
        data: &'a [f32],
        /// Extents of one sample's.
        shape: &'a [usize],
    },
}

/// Some records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch<'a> {
    /// How many.
    pub len: usize,
    /// Their samples, one after another.
    pub inputs: &'a [f32],
    /// Extents of one sample.
    pub shape: &'a [usize],
    /// What a network should say of them.
    pub targets: TargetSlice<'a>,
}

/// How many batches `len` records make.
pub fn count(len: usize, batch: usize) -> usize {
    len.div_ceil(batch.max(1))
}

/// Calls `work` with the index and content of each batch, from batch `first` on, until it breaks.
///
/// # Errors
/// What `work` returns.
pub fn for_each<E>(
    data: &Dataset,
    batch: usize,
    order: Order,
    first: usize,
    mut work: impl FnMut(usize, Batch<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let batch = batch.max(1);
    let indices = first..count(data.len(), batch);
    let rows = order.rows(data.len());
    if rows.is_none() && !data.is_packed() {
        for index in indices {
            if work(index, slice(data, index * batch, batch))?.is_break() {
                break;
            }
        }
        return Ok(());
    }
    let part = |index: usize| {
        let records = index * batch..(index * batch).saturating_add(batch).min(data.len());
        (index, rows.as_ref().map_or(Rows::Run(records.clone()), |rows| Rows::List(&rows[records])))
    };
    let parts = indices.map(part);
    let ahead: std::io::Result<Result<(), E>> = std::thread::scope(|scope| {
        let (ready, filled) = sync_channel::<(usize, Gathered)>(1);
        let (back, empty) = sync_channel::<Gathered>(2);
        for _ in 0..2 {
            // Neither end is gone, and there is room for both.
            let _ = back.send(Gathered::of(data));
        }
        let gather = parts.clone();
        let helper = std::thread::Builder::new().name("batches".to_owned());
        helper.spawn_scoped(scope, move || fill(data, gather, &empty, &ready))?;
        Ok(drain(data, &filled, &back, &mut work))
    });
    if let Ok(done) = ahead {
        return done;
    }
    // The system gives no thread: gather between steps.
    let mut buffer = Gathered::of(data);
    for (index, rows) in parts {
        buffer.gather(data, &rows);
        if work(index, buffer.batch(data))?.is_break() {
            break;
        }
    }
    Ok(())
}

/// The helper: gathers into each buffer that comes back, until nobody wants more.
fn fill<'a>(
    data: &Dataset,
    parts: impl Iterator<Item = (usize, Rows<'a>)>,
    empty: &Receiver<Gathered>,
    ready: &SyncSender<(usize, Gathered)>,
) {
    for (index, rows) in parts {
        let Ok(mut buffer) = empty.recv() else { return };
        buffer.gather(data, &rows);
        if ready.send((index, buffer)).is_err() {
            return;
        }
    }
}

/// Works on each batch that is gathered, and hands its buffer back.
fn drain<E>(
    data: &Dataset,
    filled: &Receiver<(usize, Gathered)>,
    back: &SyncSender<Gathered>,
    work: &mut impl FnMut(usize, Batch<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    while let Ok((index, buffer)) = filled.recv() {
        if work(index, buffer.batch(data))?.is_break() {
            break;
        }
        // The helper is gone after the last batch.
        let _ = back.send(buffer);
    }
    Ok(())
}

/// Which records make a batch.
enum Rows<'a> {
    /// These, in this order.
    List(&'a [usize]),
    /// Those that follow each other.
    Run(Range<usize>),
}

/// Records that lie next to each other.
fn slice(data: &Dataset, start: usize, batch: usize) -> Batch<'_> {
    let end = start.saturating_add(batch).min(data.len());
    let part = |width: usize| start * width..end * width;
    let targets = match &data.targets {
        Targets::Classes(classes) => TargetSlice::Classes(classes.get(part(1)).unwrap_or_default()),
        Targets::Values { data, shape } => {
            let width = shape.iter().product();
            TargetSlice::Values { data: data.get(part(width)).unwrap_or_default(), shape }
        }
    };
    let inputs = data.inputs.floats().and_then(|all| all.get(part(data.width()))).unwrap_or_default();
    Batch { len: end - start, inputs, shape: &data.shape, targets }
}

/// A buffer of records from anywhere.
struct Gathered {
    len: usize,
    inputs: Vec<f32>,
    targets: Targets,
}

impl Gathered {
    fn of(data: &Dataset) -> Gathered {
        Gathered { len: 0, inputs: Vec::new(), targets: data.shell().targets }
    }

    fn gather(&mut self, data: &Dataset, rows: &Rows<'_>) {
        match rows {
            Rows::List(list) => self.gather_all(data, list.iter().copied()),
            Rows::Run(run) => self.gather_all(data, run.clone()),
        }
    }

    fn gather_all(&mut self, data: &Dataset, rows: impl ExactSizeIterator<Item = usize> + Clone) {
        self.len = rows.len();
        self.inputs.clear();
        self.inputs.reserve_exact(rows.len() * data.width());
        data.inputs.gather(rows.clone(), data.width(), &mut self.inputs);
        match (&mut self.targets, &data.targets) {
            (Targets::Classes(to), Targets::Classes(from)) => {
                to.clear();
                to.extend(rows.filter_map(|i| from.get(i)));
            }
            (Targets::Values { data: to, shape }, Targets::Values { data: from, .. }) => {
                to.clear();
                let width = shape.iter().product();
                rows.for_each(|i| to.extend_from_slice(row(from, i, width)));
            }
            (Targets::Classes(_), Targets::Values { .. }) | (Targets::Values { .. }, Targets::Classes(_)) => {}
        }
    }

    fn batch<'a>(&'a self, data: &'a Dataset) -> Batch<'a> {
        let targets = match &self.targets {
            Targets::Classes(classes) => TargetSlice::Classes(classes),
            Targets::Values { data, shape } => TargetSlice::Values { data, shape },
        };
        Batch { len: self.len, inputs: &self.inputs, shape: &data.shape, targets }
    }
}
