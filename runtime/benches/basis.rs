//! Speed of AF-KAN's basis sum: what frit makes of the graph, beside the same loop written by hand.
//!
//! `cargo bench -p frit-runtime --bench basis [-- --rounds N]`, at 128, 256 and 512 bits, on one thread. One pass over
//! x[64, 784]: phi_j = (silu(x - low_j) silu(high_j - x))^2 for six j, their sum and weighted sum stored, the minimum
//! and maximum of all of them kept.
//!
//! Three programs take turns:
//! - frit: the graph as an exporter writes it, `silu` for `silu`; all else is the work of -O3. A whole run of the
//!   model is timed.
//! - hand: intrinsics. e^x and e^-x once each, one division a basis, one guard a vector, behind which the direct form
//!   stands apart; no clamps, since the guard bounds x.
//! - joint: the same, but e^x and e^-x share range reduction and the even and odd parts of their polynomial.
//!
//! All three are checked against f64 first, also where the guard leads to the direct form, and with a NaN.
#![allow(unsafe_code, reason = "vector intrinsics, and calls of functions that need them")]

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use frit_compiler::cpu::{Target, VectorBits, Vectors};
use frit_ir::text::{NoConstants, from_text};
use frit_ir::{DType, Module};
use frit_runtime::pool::Pool;
use frit_runtime::{CompileOptions, Context, InputRef, Model, TensorView};

/// Extents of x.
const SHAPE: [usize; 2] = [64, 784];
/// Bases.
const N: usize = 6;
/// Beyond this the products of exponentials lose too much; the same limit as frit's.
const FAR: f32 = 64.0;
/// Differences that do not count: below f32's normal numbers.
const SMALL: f64 = 1e-37;
/// Seconds of a sample.
const SAMPLE: f64 = 3e-4;

/// What a layer with grid 3 and order 3 begins with.
struct Layer {
    low: [f32; N],
    high: [f32; N],
    /// e^low
    low_factor: [f32; N],
    /// e^-high
    high_factor: [f32; N],
    weights: [f32; N],
}

impl Layer {
    fn new() -> Layer {
        let low: [f32; N] = std::array::from_fn(|j| (j as f32 - 3.0) / 3.0);
        let high = low.map(|low| low + 4.0 / 3.0);
        Layer {
            low,
            high,
            low_factor: low.map(|low| f64::from(low).exp() as f32),
            high_factor: high.map(|high| (-f64::from(high)).exp() as f32),
            weights: [0.35, 0.05, -0.24, 0.23, -0.03, -0.28],
        }
    }

    /// The pass as a graph.
    fn module(&self) -> Result<Module, Box<dyn Error>> {
        let [rows, columns] = SHAPE;
        let cube = format!("{{dims = [{rows}, {columns}, {N}]");
        let list = |values: &[f32; N]| {
            let values: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
            format!("constant {{value = f32[{N}] dense({})}}", values.join(", "))
        };
        let (low, high, weights) = (list(&self.low), list(&self.high), list(&self.weights));
        let silu = |x: &str| {
            format!(
                "%{x}_neg = neg(%{x})
                 %{x}_exp = exp(%{x}_neg)
                 %{x}_sum = add(%{x}_exp, %ones)
                 %{x}_sigmoid = div(%ones, %{x}_sum)
                 %{x}_silu = mul(%{x}, %{x}_sigmoid)"
            )
        };
        let text = format!(
            "frit 1
             func @infer(%x \"x\": f32[{rows}, {columns}]) {{
                 %wide = broadcast(%x) {cube}, axes = [0, 1]}}
                 %low = {low}
                 %lows = broadcast(%low) {cube}, axes = [2]}}
                 %high = {high}
                 %highs = broadcast(%high) {cube}, axes = [2]}}
                 %weight = {weights}
                 %weights = broadcast(%weight) {cube}, axes = [2]}}
                 %one = constant {{value = f32[] dense(1.0)}}
                 %ones = broadcast(%one) {cube}, axes = []}}
                 %a = sub(%wide, %lows)
                 {}
                 %b = sub(%highs, %wide)
                 {}
                 %product = mul(%a_silu, %b_silu)
                 %phi = mul(%product, %product)
                 %least = reduce(%phi) {{axes = [0, 1, 2], kind = #min}}
                 %most = reduce(%phi) {{axes = [0, 1, 2], kind = #max}}
                 %scaled = mul(%phi, %weights)
                 %weighted = reduce(%scaled) {{axes = [2], kind = #sum}}
                 %sum = reduce(%phi) {{axes = [2], kind = #sum}}
                 return \"least\" = %least, \"most\" = %most, \"weighted\" = %weighted, \"sum\" = %sum
             }}",
            silu("a"),
            silu("b"),
        );
        Ok(from_text(&text, &NoConstants)?)
    }

    /// A basis at one place, in f64.
    fn phi(&self, x: f64, j: usize) -> f64 {
        let silu = |x: f64| x / (1.0 + (-x).exp());
        (silu(x - f64::from(self.low[j])) * silu(f64::from(self.high[j]) - x)).powi(2)
    }
}

/// What one pass gives.
struct Sums {
    sum: Vec<f32>,
    weighted: Vec<f32>,
    least: f32,
    most: f32,
}

/// Values from the start of a cache line on, as in a session.
struct Aligned {
    memory: Vec<f32>,
    start: usize,
}

impl Aligned {
    fn new(values: &[f32]) -> Aligned {
        let mut memory = vec![0.0; values.len() + 16];
        let start = memory.as_ptr().align_offset(64).min(16);
        memory[start..start + values.len()].copy_from_slice(values);
        Aligned { memory, start }
    }

    fn get(&self) -> &[f32] {
        &self.memory[self.start..][..self.memory.len() - 16]
    }

    fn get_mut(&mut self) -> &mut [f32] {
        let len = self.memory.len() - 16;
        &mut self.memory[self.start..][..len]
    }
}

/// A pass by hand: x, the layer, where sums and weighted sums go; the extremes.
type Pass = fn(&[f32], &Layer, &mut [f32], &mut [f32]) -> (f32, f32);

/// Passes by hand of some width: separate and joint exponentials.
fn by_hand(bits: VectorBits) -> Option<[Pass; 2]> {
    #[cfg(target_arch = "x86_64")]
    return hand::passes(bits);
    #[cfg(not(target_arch = "x86_64"))]
    return None;
}

#[cfg(target_arch = "x86_64")]
mod hand {
    //! The loop in intrinsics: one text, three instruction sets.

    use super::{FAR, Layer, N, Pass};
    use frit_compiler::cpu::VectorBits;

    const LOG2E: f32 = std::f32::consts::LOG2_E;
    /// ln 2 in two parts: the first has few bits, so that its product with a small integer is exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// Added to a small float, it rounds it to an integer that stands in the low bits of the sum.
    const ROUNDER: f32 = 12_582_912.0;
    /// e^r on |r| <= ln 2 / 2, by powers; relative error 1.3 * 2^-24, fitted by least maximum.
    const EXP: [f32; 6] = [1.000_000_1, 0.999_999_7, 0.499_988_94, 0.166_675_75, 0.041_915_43, 0.008_297_65];
    /// cosh r - 1 over r^2, and sinh r / r - 1 over r^2, by powers of r^2: at most 1.6 * 2^-24 of e^r.
    const COSH: [f32; 2] = [0.499_991_33, 0.041_899_56];
    const SINH: [f32; 2] = [0.166_665_18, 0.008_368_89];

    /// The pass for vectors of one kind, from operations of that kind by plain names.
    macro_rules! pass {
        ($features:literal) => {
            #[inline]
            #[target_feature(enable = $features)]
            fn load(from: &[f32]) -> V {
                assert!(from.len() >= LANES);
                // SAFETY: as many elements as a vector holds.
                unsafe { read(from.as_ptr()) }
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn store(to: &mut [f32], v: V) {
                assert!(to.len() >= LANES);
                // SAFETY: as many elements as a vector holds.
                unsafe { write(to.as_mut_ptr(), v) }
            }

            /// e^r 2^n: n stands in the low bits of `shifted`.
            #[inline]
            #[target_feature(enable = $features)]
            fn scaled(p: V, shifted: V) -> V {
                floats(add_i32(ints(p), shift::<23>(ints(shifted))))
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn polynomial(r: V) -> V {
                let mut p = splat(EXP[5]);
                for k in (0..5).rev() {
                    p = fma(p, r, splat(EXP[k]));
                }
                p
            }

            /// e^x and e^-x for |x| <= FAR.
            #[inline]
            #[target_feature(enable = $features)]
            fn separate(x: V) -> (V, V) {
                let (log2e, rounder) = (splat(LOG2E), splat(ROUNDER));
                let up = fma(x, log2e, rounder);
                let n = sub(up, rounder);
                let r = fnmadd(n, splat(LN2[1]), fnmadd(n, splat(LN2[0]), x));
                let down = fnmadd(x, log2e, rounder);
                let m = sub(down, rounder);
                let s = fnmadd(m, splat(LN2[1]), fnmsub(m, splat(LN2[0]), x));
                (scaled(polynomial(r), up), scaled(polynomial(s), down))
            }

            /// The same by e^r = cosh r + sinh r, e^-r = cosh r - sinh r.
            #[inline]
            #[target_feature(enable = $features)]
            fn joint(x: V) -> (V, V) {
                let rounder = splat(ROUNDER);
                let up = fma(x, splat(LOG2E), rounder);
                let n = sub(up, rounder);
                let r = fnmadd(n, splat(LN2[1]), fnmadd(n, splat(LN2[0]), x));
                let (square, one) = (mul(r, r), splat(1.0));
                let even = fma(fma(splat(COSH[1]), square, splat(COSH[0])), square, one);
                let odd = fma(fma(splat(SINH[1]), square, splat(SINH[0])), square, one);
                let power = shift::<23>(ints(up));
                let (plus, minus) = (fma(r, odd, even), fnmadd(r, odd, even));
                (floats(add_i32(ints(plus), power)), floats(sub_i32(ints(minus), power)))
            }

            /// The bases where a lane is out of range or NaN: the direct form, lane by lane.
            #[cold]
            #[inline(never)]
            #[target_feature(enable = $features)]
            fn far(x: V, layer: &Layer) -> [V; N] {
                let mut lanes = [0.0; LANES];
                store(&mut lanes, x);
                let mut phi = [x; N];
                for (j, phi) in phi.iter_mut().enumerate() {
                    let mut values = [0.0; LANES];
                    for (value, x) in values.iter_mut().zip(lanes) {
                        let (a, b) = (x - layer.low[j], layer.high[j] - x);
                        let quotient = a * b / ((1.0 + (-a).exp()) * (1.0 + (-b).exp()));
                        *value = quotient * quotient;
                    }
                    *phi = load(&values);
                }
                phi
            }

            #[target_feature(enable = $features)]
            fn pass<const JOINT: bool>(x: &[f32], layer: &Layer, sum: &mut [f32], weighted: &mut [f32]) -> (f32, f32) {
                assert!(x.len() % LANES == 0 && sum.len() == x.len() && weighted.len() == x.len());
                let (mut least, mut most) = (splat(f32::INFINITY), splat(f32::NEG_INFINITY));
                // Lanes that met no NaN.
                let mut good = ordered(least, least);
                let one = splat(1.0);
                let places = sum.chunks_exact_mut(LANES).zip(weighted.chunks_exact_mut(LANES));
                for (x, (sum, weighted)) in x.chunks_exact(LANES).zip(places) {
                    let x = load(x);
                    let phi = if all_within(x, FAR) {
                        let (up, down) = if JOINT { joint(x) } else { separate(x) };
                        let mut phi = [x; N];
                        for (j, phi) in phi.iter_mut().enumerate() {
                            let (a, b) = (sub(x, splat(layer.low[j])), sub(splat(layer.high[j]), x));
                            let left = fma(down, splat(layer.low_factor[j]), one);
                            let right = fma(up, splat(layer.high_factor[j]), one);
                            let quotient = div(mul(a, b), mul(left, right));
                            *phi = mul(quotient, quotient);
                        }
                        phi
                    } else {
                        far(x, layer)
                    };
                    let [a, b, c, d, e, f] = phi;
                    let w = layer.weights;
                    let left = fma(e, splat(w[4]), fma(c, splat(w[2]), mul(a, splat(w[0]))));
                    let right = fma(f, splat(w[5]), fma(d, splat(w[3]), mul(b, splat(w[1]))));
                    store(weighted, add(left, right));
                    store(sum, add(add(add(a, b), add(c, d)), add(e, f)));
                    least = min(least, min(min(min(a, b), min(c, d)), min(e, f)));
                    most = max(most, max(max(max(a, b), max(c, d)), max(e, f)));
                    good = both(good, both(both(ordered(a, b), ordered(c, d)), ordered(e, f)));
                }
                if !all(good) {
                    return (f32::NAN, f32::NAN);
                }
                let mut lanes = [[0.0; LANES]; 2];
                store(&mut lanes[0], least);
                store(&mut lanes[1], most);
                (lanes[0].into_iter().fold(f32::INFINITY, f32::min), lanes[1].into_iter().fold(0.0, f32::max))
            }

            pub(super) fn separate_pass(x: &[f32], layer: &Layer, s: &mut [f32], w: &mut [f32]) -> (f32, f32) {
                assert!(available());
                // SAFETY: the CPU has the instructions.
                unsafe { pass::<false>(x, layer, s, w) }
            }

            pub(super) fn joint_pass(x: &[f32], layer: &Layer, s: &mut [f32], w: &mut [f32]) -> (f32, f32) {
                assert!(available());
                // SAFETY: the CPU has the instructions.
                unsafe { pass::<true>(x, layer, s, w) }
            }
        };
    }

    mod w128 {
        use super::*;
        use std::arch::x86_64::{
            __m128 as V, _CMP_LE_OQ, _CMP_ORD_Q, _mm_add_epi32 as add_i32, _mm_add_ps as add, _mm_and_ps as both,
            _mm_andnot_ps, _mm_castps_si128 as ints, _mm_castsi128_ps as floats, _mm_cmp_ps, _mm_div_ps as div,
            _mm_fmadd_ps as fma, _mm_fnmadd_ps as fnmadd, _mm_fnmsub_ps as fnmsub, _mm_loadu_ps as read,
            _mm_max_ps as max, _mm_min_ps as min, _mm_movemask_ps, _mm_mul_ps as mul, _mm_set1_ps as splat,
            _mm_slli_epi32 as shift, _mm_storeu_ps as write, _mm_sub_epi32 as sub_i32, _mm_sub_ps as sub,
        };

        const LANES: usize = 4;

        pub(super) fn available() -> bool {
            is_x86_feature_detected!("avx") && is_x86_feature_detected!("fma")
        }

        #[inline]
        #[target_feature(enable = "avx,fma")]
        fn ordered(a: V, b: V) -> V {
            _mm_cmp_ps::<_CMP_ORD_Q>(a, b)
        }

        #[inline]
        #[target_feature(enable = "avx,fma")]
        fn all(lanes: V) -> bool {
            _mm_movemask_ps(lanes) == 0xf
        }

        #[inline]
        #[target_feature(enable = "avx,fma")]
        fn all_within(x: V, limit: f32) -> bool {
            all(_mm_cmp_ps::<_CMP_LE_OQ>(_mm_andnot_ps(splat(-0.0), x), splat(limit)))
        }

        pass!("avx,fma");
    }

    mod w256 {
        use super::*;
        use std::arch::x86_64::{
            __m256 as V, _CMP_LE_OQ, _CMP_ORD_Q, _mm256_add_epi32 as add_i32, _mm256_add_ps as add,
            _mm256_and_ps as both, _mm256_andnot_ps, _mm256_castps_si256 as ints, _mm256_castsi256_ps as floats,
            _mm256_cmp_ps, _mm256_div_ps as div, _mm256_fmadd_ps as fma, _mm256_fnmadd_ps as fnmadd,
            _mm256_fnmsub_ps as fnmsub, _mm256_loadu_ps as read, _mm256_max_ps as max, _mm256_min_ps as min,
            _mm256_movemask_ps, _mm256_mul_ps as mul, _mm256_set1_ps as splat, _mm256_slli_epi32 as shift,
            _mm256_storeu_ps as write, _mm256_sub_epi32 as sub_i32, _mm256_sub_ps as sub,
        };

        const LANES: usize = 8;

        pub(super) fn available() -> bool {
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
        }

        #[inline]
        #[target_feature(enable = "avx2,fma")]
        fn ordered(a: V, b: V) -> V {
            _mm256_cmp_ps::<_CMP_ORD_Q>(a, b)
        }

        #[inline]
        #[target_feature(enable = "avx2,fma")]
        fn all(lanes: V) -> bool {
            _mm256_movemask_ps(lanes) == 0xff
        }

        #[inline]
        #[target_feature(enable = "avx2,fma")]
        fn all_within(x: V, limit: f32) -> bool {
            all(_mm256_cmp_ps::<_CMP_LE_OQ>(_mm256_andnot_ps(splat(-0.0), x), splat(limit)))
        }

        pass!("avx2,fma");
    }

    mod w512 {
        use super::*;
        use std::arch::x86_64::{
            __m512 as V, __mmask16, _CMP_LE_OQ, _CMP_ORD_Q, _mm512_abs_ps, _mm512_add_epi32 as add_i32,
            _mm512_add_ps as add, _mm512_castps_si512 as ints, _mm512_castsi512_ps as floats, _mm512_cmp_ps_mask,
            _mm512_div_ps as div, _mm512_fmadd_ps as fma, _mm512_fnmadd_ps as fnmadd, _mm512_fnmsub_ps as fnmsub,
            _mm512_loadu_ps as read, _mm512_max_ps as max, _mm512_min_ps as min, _mm512_mul_ps as mul,
            _mm512_set1_ps as splat, _mm512_slli_epi32 as shift, _mm512_storeu_ps as write,
            _mm512_sub_epi32 as sub_i32, _mm512_sub_ps as sub,
        };

        const LANES: usize = 16;

        pub(super) fn available() -> bool {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
        fn ordered(a: V, b: V) -> __mmask16 {
            _mm512_cmp_ps_mask::<_CMP_ORD_Q>(a, b)
        }

        fn both(a: __mmask16, b: __mmask16) -> __mmask16 {
            a & b
        }

        fn all(lanes: __mmask16) -> bool {
            lanes == __mmask16::MAX
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
        fn all_within(x: V, limit: f32) -> bool {
            all(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(_mm512_abs_ps(x), splat(limit)))
        }

        pass!("avx512f,avx512dq,avx512vl");
    }

    pub(super) fn passes(bits: VectorBits) -> Option<[Pass; 2]> {
        match bits {
            VectorBits::B128 => w128::available().then_some([w128::separate_pass, w128::joint_pass]),
            VectorBits::B256 => w256::available().then_some([w256::separate_pass, w256::joint_pass]),
            VectorBits::B512 => w512::available().then_some([w512::separate_pass, w512::joint_pass]),
        }
    }
}

/// A program to time: frit's, or one by hand.
enum Form {
    Frit(Box<Context>),
    Hand(Pass, Aligned, Aligned),
}

impl Form {
    fn run(&mut self, x: &[f32], layer: &Layer) -> Result<(), Box<dyn Error>> {
        match self {
            Form::Frit(context) => {
                // SAFETY: any bytes of floats are bytes.
                let (_, data, _) = unsafe { x.align_to::<u8>() };
                let view = TensorView { dtype: DType::F32, shape: &SHAPE, data };
                context.run(&[InputRef::Tensor(view)])?;
            }
            Form::Hand(pass, sum, weighted) => {
                black_box(pass(black_box(x), layer, sum.get_mut(), weighted.get_mut()));
            }
        }
        Ok(())
    }

    fn sums(&mut self, x: &[f32], layer: &Layer) -> Result<Sums, Box<dyn Error>> {
        self.run(x, layer)?;
        Ok(match self {
            Form::Frit(context) => {
                let output = |name: &str| -> Result<Vec<f32>, Box<dyn Error>> {
                    Ok(context.output_tensor(name)?.to_vec::<f32>())
                };
                let (least, most) = (output("least")?[0], output("most")?[0]);
                Sums { sum: output("sum")?, weighted: output("weighted")?, least, most }
            }
            Form::Hand(pass, sum, weighted) => {
                let (least, most) = pass(x, layer, sum.get_mut(), weighted.get_mut());
                Sums { sum: sum.get().to_vec(), weighted: weighted.get().to_vec(), least, most }
            }
        })
    }
}

/// Refuses results that are not those of f64 within 1e-5 of the terms of each sum.
fn check(name: &str, found: &Sums, x: &[f32], layer: &Layer) -> Result<(), Box<dyn Error>> {
    let near = |what: &str, found: f32, exact: f64, scale: f64| {
        if exact.is_nan() && found.is_nan() || (f64::from(found) - exact).abs() <= 1e-5 * scale + SMALL {
            return Ok(());
        }
        Err(format!("{name}: {what} is {found}, it should be {exact}"))
    };
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    let extreme =
        |a: f64, b: f64, best: fn(f64, f64) -> f64| if a.is_nan() || b.is_nan() { f64::NAN } else { best(a, b) };
    for (i, x) in x.iter().enumerate() {
        let (mut sum, mut weighted, mut scale) = (0.0, 0.0, 0.0);
        for (j, weight) in layer.weights.iter().enumerate() {
            let phi = layer.phi(f64::from(*x), j);
            sum += phi;
            weighted += phi * f64::from(*weight);
            scale += (phi * f64::from(*weight)).abs();
            least = extreme(least, phi, f64::min);
            most = extreme(most, phi, f64::max);
        }
        near(&format!("the sum at x = {x}"), found.sum[i], sum, sum)?;
        near(&format!("the weighted sum at x = {x}"), found.weighted[i], weighted, scale)?;
    }
    near("the minimum", found.least, least, least)?;
    Ok(near("the maximum", found.most, most, most)?)
}

/// Values in -limit..limit.
fn values(len: usize, limit: f32) -> Vec<f32> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * limit
    };
    (0..len).map(|_| next()).collect()
}

/// What /proc/cpuinfo says of the machine.
fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split(':').nth(1)).map_or("unknown", str::trim)
    };
    format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rounds: usize = match words.iter().position(|word| word == "--rounds") {
        Some(at) => words.get(at + 1).ok_or("a number is missing")?.parse()?,
        None => 200,
    };
    let layer = Layer::new();
    let count = SHAPE[0] * SHAPE[1];
    let usual = Aligned::new(&values(count, 3.0));
    let mut far = values(count, 100.0);
    far.iter_mut().step_by(3).for_each(|x| *x /= 50.0);
    let mut unordered = values(count, 3.0);
    unordered[count / 2] = f32::NAN;
    let widest = Target::host()?.vector_bits();
    let pool = Arc::new(Pool::new(1));

    println!("{}, one thread, {rounds} rounds; nanoseconds an element of x: median (minimum)", cpu());
    println!("{:>5} {:>15} {:>15} {:>15} {:>10} {:>10}", "bits", "frit", "hand", "joint", "hand/frit", "joint/frit");
    for bits in VectorBits::ALL {
        let Some(hand) = by_hand(bits).filter(|_| bits <= widest) else {
            println!("{:>5} skipped: this CPU does not have them", bits.bits());
            continue;
        };
        let options = CompileOptions { vectors: Vectors::AtMost(bits), ..CompileOptions::default() };
        let model = Model::compile(layer.module()?, &options)?.model.with_pool(pool.clone());
        let mut forms = vec![("frit", Form::Frit(Box::new(model.context())))];
        for (name, pass) in ["hand", "joint"].into_iter().zip(hand) {
            let [sum, weighted] = [(); 2].map(|()| Aligned::new(&vec![0.0; count]));
            forms.push((name, Form::Hand(pass, sum, weighted)));
        }
        for x in [usual.get(), Aligned::new(&far).get(), Aligned::new(&unordered).get()] {
            for (name, form) in &mut forms {
                check(&format!("{name}, {} bits", bits.bits()), &form.sums(x, &layer)?, x, &layer)?;
            }
        }
        let mut times = vec![Vec::with_capacity(rounds); forms.len()];
        let mut batches = vec![1_u32; forms.len()];
        for round in 0..rounds + 1 {
            for (((_, form), times), batch) in forms.iter_mut().zip(&mut times).zip(&mut batches) {
                let start = Instant::now();
                for _ in 0..*batch {
                    form.run(usual.get(), &layer)?;
                }
                let seconds = start.elapsed().as_secs_f64() / f64::from(*batch);
                if round == 0 {
                    *batch = (SAMPLE / seconds).clamp(1.0, 1000.0) as u32;
                } else {
                    times.push(seconds * 1e9 / count as f64);
                }
            }
        }
        print!("{:>5}", bits.bits());
        times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
        let median = |times: &[f64]| times[times.len() / 2];
        times.iter().for_each(|times| print!(" {:>7.3} ({:.3})", median(times), times[0]));
        for hand in &times[1..] {
            print!(" {:>10.2}", median(hand) / median(&times[0]));
        }
        println!();
    }
    Ok(())
}
