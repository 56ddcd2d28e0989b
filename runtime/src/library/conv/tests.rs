//! Convolutions against plain loops in f64, over random shapes and attributes.

use super::*;
use proptest::prelude::*;

/// All indices of a shape, in row-major order.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |all, extent| {
        let extend = |index: Vec<usize>| (0..*extent).map(move |at| [&index[..], &[at]].concat());
        all.into_iter().flat_map(extend).collect()
    })
}

/// The number of an index in its shape.
fn flat(shape: &[usize], index: &[usize]) -> usize {
    shape.iter().zip(index).fold(0, |number, (extent, at)| number * extent + at)
}

fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32) / (1 << 23) as f32 - 1.0
        })
        .collect()
}

#[derive(Debug, Clone)]
struct Axes {
    input: Vec<usize>,
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads_begin: Vec<isize>,
    pads_end: Vec<isize>,
    output_padding: Vec<usize>,
}

impl Axes {
    fn window(&self) -> Window<'_> {
        Window {
            kernel: &self.kernel,
            strides: &self.strides,
            dilations: &self.dilations,
            pads_begin: &self.pads_begin,
            pads_end: &self.pads_end,
        }
    }
}

fn axes() -> impl Strategy<Value = Axes> {
    (1_usize..4).prop_flat_map(|rank| {
        let of = move |range: std::ops::Range<usize>| prop::collection::vec(range, rank);
        let pads = move || prop::collection::vec(-2_isize..4, rank);
        let extents = of(0..if rank == 3 { 6 } else { 9 });
        (extents, of(1..4), of(1..4), of(1..3), pads(), pads(), of(0..2)).prop_map(
            |(input, kernel, strides, dilations, pads_begin, pads_end, output_padding)| Axes {
                input,
                kernel,
                strides,
                dilations,
                pads_begin,
                pads_end,
                output_padding,
            },
        )
    })
}

/// Runs on 1, 2 and 3 threads and against loops over (image, position, tap) triples.
fn check(axes: &Axes, channels: Channels, transposed: bool, with_bias: bool, seed: u64) {
    let conv = if transposed {
        Conv::transposed(channels, &axes.input, &axes.window(), &axes.output_padding).unwrap()
    } else {
        Conv::new(channels, &axes.input, &axes.window()).unwrap()
    };
    let output: Vec<usize> = conv.output().collect();
    for (axis, extent) in output.iter().enumerate() {
        let reach = ((axes.kernel[axis] - 1) * axes.dilations[axis]) as isize + 1;
        let pads = axes.pads_begin[axis] + axes.pads_end[axis];
        let (input, stride) = (axes.input[axis] as isize, axes.strides[axis] as isize);
        let expected = if transposed {
            (input - 1) * stride + axes.output_padding[axis] as isize + reach - pads
        } else {
            (input + pads - reach).div_euclid(stride) + 1
        };
        assert_eq!(*extent as isize, expected.max(0));
    }
    let Channels { batch, input: c, output: m, groups } = channels;
    let (group_in, group_out) = (c / groups, m / groups);
    let x_shape = [&[batch, c], &axes.input[..]].concat();
    let y_shape = [&[batch, m], &output[..]].concat();
    let w_first = if transposed { [c, group_out] } else { [m, group_in] };
    let w_shape = [&w_first, &axes.kernel[..]].concat();
    let len = |shape: &[usize]| shape.iter().product::<usize>();
    let (x, w) = (values(len(&x_shape), seed), values(len(&w_shape), seed + 1));
    let bias = with_bias.then(|| values(m, seed + 2));
    let [y, two, three] = [1, 2, 3].map(|threads| {
        let mut y = vec![f32::NAN; len(&y_shape)];
        let mut scratch = vec![f32::NAN; conv.scratch_len(threads)];
        conv.run(&Pool::new(threads), &x, &w, bias.as_deref(), &mut y, &mut scratch).unwrap();
        y
    });
    let bits = |out: &[f32]| out.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert!(bits(&y) == bits(&two) && bits(&y) == bits(&three), "the same bits at any number of threads");

    let (image, positions) = if transposed { (&output, &axes.input) } else { (&axes.input, &output) };
    let mut sums = vec![(0.0_f64, 1.0_f64); y.len()];
    for position in indices(positions) {
        for tap in indices(&axes.kernel) {
            let place: Vec<isize> = (0..position.len())
                .map(|axis| {
                    (position[axis] * axes.strides[axis] + tap[axis] * axes.dilations[axis]) as isize
                        - axes.pads_begin[axis]
                })
                .collect();
            if place.iter().zip(image).any(|(at, extent)| *at < 0 || *at >= *extent as isize) {
                continue;
            }
            let place: Vec<usize> = place.iter().map(|at| *at as usize).collect();
            let (from, to) = if transposed { (&position, &place) } else { (&place, &position) };
            for n in 0..batch {
                for out in 0..m {
                    for inner in 0..group_in {
                        let from_channel = out / group_out * group_in + inner;
                        let value = x[flat(&x_shape, &[&[n, from_channel], &from[..]].concat())];
                        let pair = if transposed { [from_channel, out % group_out] } else { [out, inner] };
                        let term = f64::from(value) * f64::from(w[flat(&w_shape, &[&pair, &tap[..]].concat())]);
                        let (sum, size) = &mut sums[flat(&y_shape, &[&[n, out], &to[..]].concat())];
                        *sum += term;
                        *size += term.abs();
                    }
                }
            }
        }
    }
    let terms = group_in * len(&axes.kernel) + 2;
    for (number, (sum, size)) in sums.into_iter().enumerate() {
        let channel = number / len(&output) % m;
        let expected = sum + bias.as_ref().map_or(0.0, |bias| f64::from(bias[channel]));
        // Each addition rounds a partial sum that is at most `size`, plus the bias.
        let bound = terms as f64 * f64::from(f32::EPSILON) * (size + 1.0);
        assert!((f64::from(y[number]) - expected).abs() <= bound, "{number}: {} for {expected}", y[number]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn convolutions_agree_with_loops(
        axes in axes(), transposed: bool, with_bias: bool, seed in 0_u64..1000,
        (batch, group_in, group_out, groups) in (0_usize..3, 0_usize..4, 0_usize..7, 1_usize..4),
    ) {
        let channels = Channels { batch, input: group_in * groups, output: group_out * groups, groups };
        check(&axes, channels, transposed, with_bias, seed);
    }
}

fn square(extent: usize, kernel: usize, stride: usize, pad: isize) -> Axes {
    Axes {
        input: vec![extent; 2],
        kernel: vec![kernel; 2],
        strides: vec![stride; 2],
        dilations: vec![1; 2],
        pads_begin: vec![pad; 2],
        pads_end: vec![pad; 2],
        output_padding: vec![0; 2],
    }
}

#[test]
fn usual_layers_agree_with_loops() {
    let channels = |batch, input, output, groups| Channels { batch, input, output, groups };
    for transposed in [false, true] {
        check(&square(12, 3, 1, 1), channels(1, 24, 130, 1), transposed, true, 1);
        check(&square(24, 1, 1, 0), channels(2, 16, 24, 1), transposed, true, 2);
        check(&square(33, 3, 2, 1), channels(1, 32, 32, 32), transposed, true, 3);
        check(&square(9, 1, 2, 0), channels(1, 8, 8, 2), transposed, false, 4);
        check(&square(40, 7, 2, 3), channels(1, 3, 8, 1), transposed, false, 5);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let channels = Channels { batch: 1, input: 4, output: 4, groups: 1 };
    let axes = square(8, 3, 1, 1);
    let refused = |channels, axes: &Axes, part: &str| {
        let message = Conv::new(channels, &axes.input, &axes.window()).expect_err(part).to_string();
        assert!(message.contains(part), "{message}");
    };
    refused(Channels { groups: 3, ..channels }, &axes, "3 groups do not divide");
    refused(Channels { groups: 0, ..channels }, &axes, "0 groups");
    refused(channels, &Axes { strides: vec![0, 1], ..axes.clone() }, "at least 1");
    refused(channels, &Axes { strides: vec![1], ..axes.clone() }, "strides has 1 where 2");
    refused(channels, &Axes { input: vec![], ..axes.clone() }, "0 spatial axes");
    refused(channels, &Axes { pads_end: vec![0, isize::MIN], ..axes.clone() }, "at most");
    refused(Channels { batch: usize::MAX, ..channels }, &axes, "more elements than memory can hold");
    let conv = Conv::new(channels, &axes.input, &axes.window()).unwrap();
    let (x, w, mut y) = (vec![0.0; 256], vec![0.0; 144], vec![0.0; 256]);
    let pool = Pool::new(1);
    let mut scratch = vec![0.0; conv.scratch_len(1)];
    assert!(conv.run(&pool, &x, &w, None, &mut y, &mut scratch).is_ok());
    assert!(conv.run(&pool, &x[1..], &w, None, &mut y, &mut scratch).is_err());
    assert!(conv.run(&pool, &x, &w[1..], None, &mut y, &mut scratch).is_err());
    assert!(conv.run(&pool, &x, &w, Some(&x), &mut y, &mut scratch).is_err());
    assert!(conv.run(&pool, &x, &w, None, &mut y[1..], &mut scratch).is_err());
    assert!(conv.run(&pool, &x, &w, None, &mut y, &mut scratch[1..]).is_err());
}
