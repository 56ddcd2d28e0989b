//! The data that the demo trains on: digits of 8 by 8 pixels, drawn by code.
//!
//! In: nothing but a seed. Out: [`TrainingData`], the same on every machine. A digit is the strokes of a seven-segment
//! display, set somewhere in the picture, in a strength of its own, under noise: what tells an 8 from a 6 is one stroke.

use frit_ir::random::Philox;
use frit_runtime::data::dataset::{Dataset, DatasetError, Targets, TrainingData};

/// Pixels of a side.
const SIDE: usize = 8;
/// Pixels of a picture: what the network takes.
pub(super) const PIXELS: usize = SIDE * SIDE;
/// Digits: what the network tells apart.
pub(super) const CLASSES: usize = 10;
/// Pictures that are trained on, and others that it is judged by.
const TRAIN: usize = 2000;
const VALIDATION: usize = 500;

const SEED: u64 = 8;
/// Streams of random numbers of the two sets.
const TRAIN_STREAM: u64 = 0;
const VALIDATION_STREAM: u64 = 1;

/// Extents of a digit.
const WIDTH: usize = 4;
const HEIGHT: usize = 7;
/// Strength of the weakest strokes; the strongest have 1.
const WEAKEST: f32 = 0.6;
/// Standard deviation of the noise.
const NOISE: f32 = 0.2;

/// A stroke: rows and columns, both ends included.
type Stroke = ([usize; 2], [usize; 2]);

const TOP: Stroke = ([0, 0], [0, 3]);
const MIDDLE: Stroke = ([3, 3], [0, 3]);
const BOTTOM: Stroke = ([6, 6], [0, 3]);
const UPPER_LEFT: Stroke = ([0, 3], [0, 0]);
const UPPER_RIGHT: Stroke = ([0, 3], [3, 3]);
const LOWER_LEFT: Stroke = ([3, 6], [0, 0]);
const LOWER_RIGHT: Stroke = ([3, 6], [3, 3]);

/// The strokes of each digit.
const DIGITS: [&[Stroke]; CLASSES] = [
    &[TOP, UPPER_LEFT, UPPER_RIGHT, LOWER_LEFT, LOWER_RIGHT, BOTTOM],
    &[UPPER_RIGHT, LOWER_RIGHT],
    &[TOP, UPPER_RIGHT, MIDDLE, LOWER_LEFT, BOTTOM],
    &[TOP, UPPER_RIGHT, MIDDLE, LOWER_RIGHT, BOTTOM],
    &[UPPER_LEFT, UPPER_RIGHT, MIDDLE, LOWER_RIGHT],
    &[TOP, UPPER_LEFT, MIDDLE, LOWER_RIGHT, BOTTOM],
    &[TOP, UPPER_LEFT, MIDDLE, LOWER_LEFT, LOWER_RIGHT, BOTTOM],
    &[TOP, UPPER_RIGHT, LOWER_RIGHT],
    &[TOP, UPPER_LEFT, UPPER_RIGHT, MIDDLE, LOWER_LEFT, LOWER_RIGHT, BOTTOM],
    &[TOP, UPPER_LEFT, UPPER_RIGHT, MIDDLE, LOWER_RIGHT, BOTTOM],
];

/// Both sets.
pub(super) fn data() -> Result<TrainingData, DatasetError> {
    TrainingData::new(pictures(TRAIN, TRAIN_STREAM)?, pictures(VALIDATION, VALIDATION_STREAM)?)
}

/// So many pictures, the digits in turn.
fn pictures(count: usize, stream: u64) -> Result<Dataset, DatasetError> {
    let mut random = Philox::new(SEED, stream);
    let mut pixels = Vec::with_capacity(count * PIXELS);
    let mut labels = Vec::with_capacity(count);
    for (label, strokes) in (0_i64..).zip(DIGITS).cycle().take(count) {
        draw(strokes, &mut random, &mut pixels);
        labels.push(label);
    }
    Dataset::new("digits drawn by code", vec![PIXELS], pixels, Targets::Classes(labels))
}

/// Adds a picture.
fn draw(strokes: &[Stroke], random: &mut Philox, pixels: &mut Vec<f32>) {
    let mut place = |free: usize| random.below(free as u32 + 1) as usize;
    let (top, left) = (place(SIDE - HEIGHT), place(SIDE - WIDTH));
    let strength = random.uniform(WEAKEST, 1.0);
    let inked = |row: usize, column: usize| {
        let inside =
            |[first, last]: [usize; 2], origin: usize, at: usize| (origin + first..=origin + last).contains(&at);
        strokes.iter().any(|(rows, columns)| inside(*rows, top, row) && inside(*columns, left, column))
    };
    for at in 0..PIXELS {
        let ink = if inked(at / SIDE, at % SIDE) { strength } else { 0.0 };
        pixels.push(ink + NOISE * random.normal());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_told_apart_by_their_strokes_alone() {
        let mut seen = std::collections::HashSet::new();
        for strokes in DIGITS {
            // The strokes at one place: without random numbers there is neither noise nor another place.
            let inked = |at: usize| {
                let on = |[first, last]: [usize; 2], at: usize| (first..=last).contains(&at);
                strokes.iter().any(|(rows, columns)| on(*rows, at / SIDE) && on(*columns, at % SIDE))
            };
            assert!(seen.insert((0..PIXELS).map(inked).collect::<Vec<bool>>()));
        }
    }

    #[test]
    fn sets_are_balanced_and_share_no_picture() {
        let data = data().unwrap();
        for set in [&data.train, &data.validation] {
            let Targets::Classes(labels) = set.targets() else { panic!("no labels") };
            for digit in 0..CLASSES as i64 {
                assert_eq!(labels.iter().filter(|label| **label == digit).count(), set.len() / CLASSES);
            }
        }
        let bits = |picture: &[f32]| picture.iter().map(|p| p.to_bits()).collect::<Vec<u32>>();
        let trained: std::collections::HashSet<_> = data.train.inputs().chunks(PIXELS).map(bits).collect();
        assert_eq!(trained.len(), TRAIN);
        assert!(data.validation.inputs().chunks(PIXELS).all(|picture| !trained.contains(&bits(picture))));
    }
}
