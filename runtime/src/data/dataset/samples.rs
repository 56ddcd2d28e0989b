//! Numbers of samples, as they lie in memory: each a f32 to whoever trains, but stored as the file had them.
//!
//! Pixels stay bytes, a quarter of what their numbers would take; a batch of them is made when it is gathered. Floats of
//! an array stay the bytes that were read.

/// Numbers of samples.
#[derive(Clone, Debug)]
pub(super) enum Samples {
    /// As they are.
    Floats(Vec<f32>),
    /// Bytes of f32, as this machine has them; aligned.
    Bytes(Vec<u8>),
    /// Bytes of pictures: p stands for (p/255 - 0.5)/0.5.
    Pixels(Vec<u8>),
}

/// The number of each pixel.
fn table() -> [f32; 256] {
    std::array::from_fn(|p| (p as f32 / 255.0 - 0.5) / 0.5)
}

/// Numbers that are converted at once where all are looked at.
const PART: usize = 4096;

impl Samples {
    /// From bytes of little-endian f32.
    pub(super) fn of_bytes(bytes: Vec<u8>) -> Samples {
        if cfg!(target_endian = "little") && bytemuck::try_cast_slice::<u8, f32>(&bytes).is_ok() {
            return Samples::Bytes(bytes);
        }
        Samples::Floats(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Samples::Floats(values) => values.len(),
            Samples::Bytes(bytes) => bytes.len() / size_of::<f32>(),
            Samples::Pixels(bytes) => bytes.len(),
        }
    }

    /// Bytes that one takes.
    pub(super) fn size(&self) -> usize {
        match self {
            Samples::Floats(_) | Samples::Bytes(_) => size_of::<f32>(),
            Samples::Pixels(_) => 1,
        }
    }

    /// All of them where they lie; `None`: they have to be made.
    pub(super) fn floats(&self) -> Option<&[f32]> {
        match self {
            Samples::Floats(values) => Some(values),
            Samples::Bytes(bytes) => bytemuck::try_cast_slice(bytes).ok(),
            Samples::Pixels(_) => None,
        }
    }

    /// Calls `look` with some of them after another, in order.
    pub(super) fn for_each_part(&self, mut look: impl FnMut(&[f32])) {
        match self {
            Samples::Floats(_) | Samples::Bytes(_) => look(self.floats().unwrap_or_default()),
            Samples::Pixels(bytes) => {
                let (table, mut part) = (table(), Vec::with_capacity(PART));
                for some in bytes.chunks(PART) {
                    part.clear();
                    part.extend(some.iter().map(|p| table[usize::from(*p)]));
                    look(&part);
                }
            }
        }
    }

    /// Appends rows of `width` numbers to a list.
    pub(super) fn gather(&self, rows: impl Iterator<Item = usize>, width: usize, to: &mut Vec<f32>) {
        match self {
            Samples::Floats(_) | Samples::Bytes(_) => {
                let all = self.floats().unwrap_or_default();
                rows.for_each(|i| to.extend_from_slice(row(all, i, width)));
            }
            Samples::Pixels(bytes) => {
                let table = table();
                rows.for_each(|i| to.extend(row(bytes, i, width).iter().map(|p| table[usize::from(*p)])));
            }
        }
    }

    /// Moves rows out: those that are `chosen`; the others stay, both in their order.
    pub(super) fn take(&mut self, chosen: &[bool], width: usize) -> Samples {
        match self {
            Samples::Floats(values) => Samples::Floats(take(values, chosen, width)),
            Samples::Bytes(bytes) => match take(bytes, chosen, width * size_of::<f32>()) {
                taken if bytemuck::try_cast_slice::<u8, f32>(&taken).is_ok() => Samples::Bytes(taken),
                taken => Samples::of_bytes(taken),
            },
            Samples::Pixels(bytes) => Samples::Pixels(take(bytes, chosen, width)),
        }
    }
}

/// Row `index` of rows of `width` elements.
pub(super) fn row<T>(all: &[T], index: usize, width: usize) -> &[T] {
    all.get(index * width..(index + 1) * width).unwrap_or_default()
}

/// Moves the rows that are `chosen` out of a list.
pub(super) fn take<T: Copy>(all: &mut Vec<T>, chosen: &[bool], width: usize) -> Vec<T> {
    let is_chosen = |i: &usize| chosen.get(*i).copied().unwrap_or(false);
    let count = all.len().checked_div(width).unwrap_or(0);
    let mut taken = Vec::new();
    taken.reserve_exact((0..count).filter(is_chosen).count() * width);
    let mut kept = 0;
    for i in 0..count {
        if is_chosen(&i) {
            taken.extend_from_slice(row(all, i, width));
        } else {
            all.copy_within(i * width..(i + 1) * width, kept * width);
            kept += 1;
        }
    }
    all.truncate(kept * width);
    all.shrink_to_fit();
    taken
}

impl PartialEq for Samples {
    fn eq(&self, other: &Samples) -> bool {
        let all = |samples: &Samples| {
            let mut all = Vec::with_capacity(samples.len());
            samples.for_each_part(|part| all.extend_from_slice(part));
            all
        };
        all(self) == all(other)
    }
}
