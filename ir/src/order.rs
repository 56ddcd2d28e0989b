//! The order of sums and products: one fixed tree, so that every vector width and thread count gives the same bits.
//!
//! n elements, in row-major order of the reduced axes:
//! - up to [`TILE`] elements: [`LANES`] lanes, element k goes to lane k mod 16. Each lane starts from the neutral element
//!   and combines in ascending k. Then pairwise: lane i with lane i + 8 for i < 8, with i + 4, i + 2, i + 1.
//! - more: ceil(n / 4096) tiles of consecutive elements (the last shorter), each reduced as above; the partial results
//!   are reduced by the same rule.
//!
//! The code generator follows this in strict mode bit for bit; the reference evaluator calls [`tree_reduce`].

/// Lanes of one tile.
pub const LANES: usize = 16;

/// Elements of one tile.
pub const TILE: usize = 4096;

/// Reduces `values` in the order of this module. `neutral` is 0 for sums, 1 for products; of no values it is the
/// result.
pub fn tree_reduce<T: Copy>(values: &[T], neutral: T, combine: &impl Fn(T, T) -> T) -> T {
    if values.len() > TILE {
        let partials: Vec<T> = values.chunks(TILE).map(|tile| tree_reduce(tile, neutral, combine)).collect();
        return tree_reduce(&partials, neutral, combine);
    }
    let mut lanes = [neutral; LANES];
    for group in values.chunks(LANES) {
        for (lane, value) in lanes.iter_mut().zip(group) {
            *lane = combine(*lane, *value);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = combine(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order as a text, so that every association shows.
    fn spelled(n: usize) -> String {
        let names: Vec<usize> = (0..n).collect();
        let texts = std::cell::RefCell::new(Vec::<String>::new());
        // Indices stand for texts, because the elements must be Copy.
        let combine = |a: usize, b: usize| {
            let mut texts = texts.borrow_mut();
            let text = |i: usize| if i < n || i == usize::MAX { format!("{}", i as i64) } else { texts[i - n].clone() };
            let (a, b) = (text(a), text(b));
            let joined = match (a.as_str(), b.as_str()) {
                ("-1", _) => b,
                (_, "-1") => a,
                _ => format!("({a} {b})"),
            };
            texts.push(joined);
            n + texts.len() - 1
        };
        let last = tree_reduce(&names, usize::MAX, &combine);
        if last == usize::MAX { "-1".to_owned() } else { texts.borrow()[last - n].clone() }
    }

    #[test]
    fn the_tree_is_as_written() {
        assert_eq!(spelled(1), "0");
        assert_eq!(spelled(3), "((0 2) 1)");
        assert_eq!(spelled(9), "((((0 8) 4) (2 6)) ((1 5) (3 7)))");
        assert!(spelled(33).starts_with("((((((0 16) 32) (8 24))"), "{}", spelled(33));
    }

    #[test]
    fn tiles_reduce_apart_and_then_together() {
        let values: Vec<f32> = (0..3 * TILE + 5).map(|i| 1.0 / (i as f32 + 1.0)).collect();
        let add = |a: f32, b: f32| a + b;
        let tiles: Vec<f32> = values.chunks(TILE).map(|t| tree_reduce(t, 0.0, &add)).collect();
        let expected = tree_reduce(&tiles, 0.0, &add);
        assert_eq!(tree_reduce(&values, 0.0, &add).to_bits(), expected.to_bits());
        assert_eq!(tree_reduce(&[1i64; 10_000], 0, &|a, b| a + b), 10_000);
        assert_eq!(tree_reduce(&[] as &[i64], 0, &|a, b| a + b), 0);
    }
}
