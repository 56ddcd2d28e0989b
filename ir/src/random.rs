//! Random numbers that are the same on every machine: Philox 4x32-10.
//!
//! A counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): block `i` of
//! stream `s` under key `k` is a function of the three, so a run that is resumed, or split over threads, draws what an
//! uninterrupted one would.

/// Multipliers and key increments of Philox 4x32 (section 3.3 of the paper).
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Philox {
    key: [u32; 2],
    stream: u64,
    /// The next block.
    block: u64,
    drawn: [u32; 4],
    /// How many of `drawn` are used.
    used: usize,
}

fn low(x: u64) -> u32 {
    (x & u64::from(u32::MAX)) as u32
}

fn high(x: u64) -> u32 {
    (x >> 32) as u32
}

/// The block of numbers for a key and a counter.
fn philox(mut key: [u32; 2], mut counter: [u32; 4]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [high(b) ^ counter[1] ^ key[0], low(b), high(a) ^ counter[3] ^ key[1], low(a)];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

impl Philox {
    /// The stream `stream` under a seed, from its start.
    pub fn new(seed: u64, stream: u64) -> Philox {
        Philox { key: [low(seed), high(seed)], stream, block: 0, drawn: [0; 4], used: 4 }
    }

    /// The stream from block `block` on (a block is four numbers of 32 bits).
    pub fn at_block(seed: u64, stream: u64, block: u64) -> Philox {
        Philox { block, ..Philox::new(seed, stream) }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == self.drawn.len() {
            let counter = [low(self.block), high(self.block), low(self.stream), high(self.stream)];
            self.drawn = philox(self.key, counter);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        let bits = self.drawn[self.used];
        self.used += 1;
        bits
    }

    /// A number in [0, 1), a multiple of 2^-24: exact in f32.
    pub fn unit(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// A number in [low, high).
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        let drawn = low + (high - low) * self.unit();
        // Rounding may reach the upper end.
        if drawn < high { drawn } else { low }
    }

    /// A number of the standard normal distribution (Box and Muller).
    pub fn normal(&mut self) -> f32 {
        // In (0, 1]: its logarithm is finite.
        let radius = (-2.0 * f64::from(1.0 - self.unit()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * f64::from(self.unit())).cos()) as f32
    }

    /// A number below `bound`, each equally likely; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        // Lemire's method: the high half of a product, rejecting the few low halves that would favour some numbers.
        let mut product = u64::from(self.next_u32()) * u64::from(bound);
        if low(product) < bound {
            let reject = bound.wrapping_neg() % bound;
            while low(product) < reject {
                product = u64::from(self.next_u32()) * u64::from(bound);
            }
        }
        high(product)
    }

    /// Puts elements into a random order (Fisher and Yates). Of more than 2^32 the last stay.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let Some(bound) = u32::try_from(i).ok().and_then(|i| i.checked_add(1)) else { continue };
            items.swap(i, self.below(bound) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the paper's library (Random123).
    #[test]
    fn philox_gives_the_known_answers() {
        let all = u32::MAX;
        let cases = [
            ([0; 2], [0; 4], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([all; 2], [all; 4], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0xa409_3822, 0x299f_31d0],
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (key, counter, expected) in cases {
            assert_eq!(philox(key, counter), expected);
        }
    }

    #[test]
    fn a_stream_begins_at_any_block() {
        let mut whole = Philox::new(3, 1);
        let all: Vec<u32> = (0..20).map(|_| whole.next_u32()).collect();
        let mut late = Philox::at_block(3, 1, 2);
        assert_eq!((8..20).map(|_| late.next_u32()).collect::<Vec<_>>(), all[8..]);
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut random = Philox::new(7, 1);
        let n = 100_000;
        let (mut sum, mut squares, mut normal) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let (u, z) = (f64::from(random.uniform(-1.0, 3.0)), f64::from(random.normal()));
            assert!((-1.0..3.0).contains(&u));
            (sum, squares, normal) = (sum + u, squares + z * z, normal + z);
        }
        let n = f64::from(n);
        assert!((sum / n - 1.0).abs() < 0.02 && (squares / n - 1.0).abs() < 0.02 && (normal / n).abs() < 0.02);
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_below_is_even() {
        let mut random = Philox::new(1, 2);
        let mut items: Vec<u32> = (0..1000).collect();
        random.shuffle(&mut items);
        assert_ne!(items, (0..1000).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
        let mut counts = [0; 3];
        (0..30_000).for_each(|_| counts[random.below(3) as usize] += 1);
        assert!(counts.iter().all(|c| (9_500..10_500).contains(c)), "{counts:?}");
        assert_eq!(random.below(0), 0);
    }
}
