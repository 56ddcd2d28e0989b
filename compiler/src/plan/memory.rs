//! Where arena slots lie: offsets from sizes and lives.
//!
//! Greedy by size: the largest slot first, each at the lowest offset that is free for its whole life. The result
//! depends on sizes and lives alone; values that lie over each other ([`super::Place::Over`]) are one slot. It runs when a
//! run's extents differ from those of the run before, so it allocates nothing when its lists have room.

/// Alignment of every slot, bytes: a full vector and a cache line.
pub const ALIGN: usize = 64;

/// Bytes of a page: what is this far apart shares a set of the first cache.
const PAGE: usize = 4096;
/// Bytes by which large slots lie further apart.
const APART: usize = 5 * ALIGN;

/// A slot to place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Bytes.
    pub bytes: usize,
    /// First step that needs it.
    pub first: u32,
    /// Last step that needs it.
    pub last: u32,
}

/// Places of slots, and lists that are used again by the next [`Packing::pack`].
#[derive(Clone, Debug, Default)]
pub struct Packing {
    /// The offset of each slot.
    pub offsets: Vec<usize>,
    order: Vec<usize>,
    placed: Vec<usize>,
    busy: Vec<(usize, usize)>,
}

/// Bytes that a slot takes. Large ones lie a few lines further apart: arrays of whole pages, walked side by side, would
/// all want the same few places of the first cache.
fn taken(bytes: usize) -> Option<usize> {
    let size = bytes.checked_next_multiple_of(ALIGN)?;
    if size < PAGE { Some(size) } else { size.checked_add(APART) }
}

impl Packing {
    /// Places slots; returns the arena's size, or `None` when sizes overflow.
    pub fn pack(&mut self, lives: &[Life]) -> Option<usize> {
        let Packing { offsets, order, placed, busy } = self;
        offsets.clear();
        offsets.resize(lives.len(), 0);
        order.clear();
        order.extend(0..lives.len());
        order.sort_unstable_by_key(|&i| (std::cmp::Reverse(lives[i].bytes), lives[i].first, i));
        placed.clear();
        let mut total = 0usize;
        for &i in order.iter() {
            let life = lives[i];
            let size = taken(life.bytes)?;
            // Neighbours in time, by offset: the first gap that is wide enough.
            busy.clear();
            let near = placed.iter().filter(|&&j| lives[j].first <= life.last && life.first <= lives[j].last);
            busy.extend(near.map(|&j| (offsets[j], taken(lives[j].bytes).unwrap_or(usize::MAX))));
            busy.sort_unstable();
            let mut at = 0usize;
            for &(start, len) in busy.iter() {
                if start >= at.checked_add(size)? {
                    break;
                }
                at = at.max(start + len);
            }
            offsets[i] = at;
            total = total.max(at.checked_add(size)?);
            placed.push(i);
        }
        Some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_that_overlap_do_not_share_and_others_do() {
        let life = |bytes, first, last| Life { bytes, first, last };
        let lives = [life(100, 0, 1), life(100, 1, 2), life(100, 2, 3), life(1, 0, 3)];
        let mut packing = Packing::default();
        let total = packing.pack(&lives).unwrap();
        let offsets = &packing.offsets;
        for (i, a) in lives.iter().enumerate() {
            for (j, b) in lives.iter().enumerate().skip(i + 1) {
                if a.first <= b.last && b.first <= a.last {
                    let (x, y) = (offsets[i], offsets[j]);
                    assert!(x + a.bytes <= y || y + b.bytes <= x, "{i} and {j} overlap");
                }
            }
        }
        assert_eq!(total, 2 * 128 + 64);
        assert_eq!(offsets[0], offsets[2]);
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let lives = [Life { bytes: usize::MAX - 3, first: 0, last: 0 }];
        assert_eq!(Packing::default().pack(&lives), None);
    }
}
