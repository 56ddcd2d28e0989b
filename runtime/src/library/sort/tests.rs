//! Sorting against the standard library's stable sort.

use super::*;
use proptest::prelude::*;

/// Sorts with ours on several pools, and line by line with a stable sort.
fn check<T: SortKey + std::fmt::Debug>(shape: &[usize], axis: usize, k: usize, direction: Direction, input: &[T]) {
    let lines = Lines::new(shape, axis).unwrap();
    let len = lines.outer * k * lines.inner;
    let results = [1, 3].map(|threads| {
        let mut values = input[..0].to_vec();
        values.extend(input.iter().cycle().take(len));
        let mut indices = vec![-1; len];
        let mut scratch = vec![9; lines.scratch_len(threads)];
        let pool = Pool::new(threads);
        top_k(&pool, lines, k, direction, input, &mut values, &mut indices, &mut scratch).unwrap();
        (values, indices)
    });
    for outer in 0..lines.outer {
        for inner in 0..lines.inner {
            let at = |position: usize| input[(outer * lines.extent + position) * lines.inner + inner];
            let mut expected: Vec<usize> = (0..lines.extent).collect();
            expected.sort_by(|a, b| match direction {
                Direction::Ascending => at(*a).order(at(*b)),
                Direction::Descending => at(*b).order(at(*a)),
            });
            for (rank, from) in expected.into_iter().take(k).enumerate() {
                let place = (outer * k + rank) * lines.inner + inner;
                for (values, indices) in &results {
                    assert_eq!(indices[place], from as i64);
                    assert!(values[place].order(at(from)).is_eq());
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn lines_are_in_stable_order(
        shape in prop::collection::vec(0_usize..7, 1..4), axis in 0_usize..3, part in 0_usize..7,
        descending: bool, seed in any::<u64>(),
    ) {
        let axis = axis % shape.len();
        let k = part.min(shape[axis]);
        let direction = if descending { Direction::Descending } else { Direction::Ascending };
        let special = [f32::NAN, -f32::NAN, 0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1.0, -1.0, 2.5];
        let floats: Vec<f32> = (0..shape.iter().product())
            .map(|at: usize| special[(seed.rotate_left(at as u32 * 7) % 9) as usize]).collect();
        check(&shape, axis, k, direction, &floats);
        check(&shape, axis, k, direction, &floats.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>());
        check(&shape, axis, k, direction, &floats.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
        check(&shape, axis, k, direction, &floats.iter().map(|v| *v as i8).collect::<Vec<_>>());
        check(&shape, axis, k, direction, &floats.iter().map(|v| *v > 0.0).collect::<Vec<_>>());
    }
}

#[test]
fn long_lines() {
    let input: Vec<u32> = (0..30_000_u32).map(|at| at.wrapping_mul(2_654_435_761) >> 20).collect();
    for (shape, axis) in [([1, 30_000, 1], 1), ([30, 100, 10], 1), ([100, 300, 1], 0)] {
        let extent = shape[axis];
        for k in [0, 1, extent / 7, extent] {
            check(&shape, axis, k, Direction::Descending, &input);
        }
    }
}

#[test]
fn nan_is_the_greatest() {
    let lines = Lines::new(&[4], 0).unwrap();
    let (mut values, mut indices, mut scratch) = ([0.0; 4], [0; 4], [0; 4]);
    let input = [1.0, f64::NAN, 3.0, -f64::NAN];
    let pool = Pool::new(1);
    sort(&pool, lines, Direction::Ascending, &input, &mut values, &mut indices, &mut scratch).unwrap();
    assert_eq!(indices, [0, 2, 1, 3]);
    sort(&pool, lines, Direction::Descending, &input, &mut values, &mut indices, &mut scratch).unwrap();
    assert_eq!(indices, [1, 3, 2, 0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(Lines::new(&[2, 3], 2).is_err());
    assert!(Lines::new(&[usize::MAX, 3], 0).is_err());
    let lines = Lines::new(&[2, 3], 1).unwrap();
    let pool = Pool::new(1);
    let call = |k: usize, input: usize, output: usize, scratch: usize| {
        let (input, mut values) = (vec![0_u8; input], vec![0; output]);
        let (mut indices, mut scratch) = (vec![0; output], vec![0; scratch]);
        top_k(&pool, lines, k, Direction::Ascending, &input, &mut values, &mut indices, &mut scratch)
    };
    assert!(call(2, 6, 4, 3).is_ok());
    assert!(matches!(call(4, 6, 8, 3), Err(LibraryError::Invalid { .. })));
    assert!(matches!(call(2, 5, 4, 3), Err(LibraryError::Mismatch { operand: "X", .. })));
    assert!(matches!(call(2, 6, 5, 3), Err(LibraryError::Mismatch { .. })));
    assert!(matches!(call(2, 6, 4, 2), Err(LibraryError::Mismatch { operand: "scratch", .. })));
}
