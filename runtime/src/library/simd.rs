//! The vector units of the running CPU, as a token.
//!
//! In: a loop written plainly, as a [`Job`]. Out: the same loop compiled once for the baseline and
//! once for AVX2 with FMA, and the right one called. A token exists only on a CPU that has the
//! instructions, so loops that hold one are safe code. One algorithm serves all widths.
#![allow(unsafe_code)] // Calling a function with a target feature; the token proves the feature.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps};

/// What a job may use of the CPU it runs on.
pub(super) trait Simd: Copy {
    /// `a * b + c`: in one rounding where the CPU has a fused instruction, in two elsewhere.
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32;

    /// [`LANES`] f32, in a register where the CPU has such.
    type Vector: Copy;
    /// Every lane the same.
    fn splat(self, value: f32) -> Self::Vector;
    /// From memory.
    fn load(self, from: &[f32; LANES]) -> Self::Vector;
    /// To memory.
    fn store(self, vector: Self::Vector, to: &mut [f32; LANES]);
    /// [`Simd::mul_add`] in each lane.
    fn mul_add_lanes(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
}

/// Lanes of a vector.
pub(super) const LANES: usize = 8;

/// A loop to compile for each kind of CPU. `run` must be `#[inline(always)]`, so that it is
/// compiled inside a function that has the features.
pub(super) trait Job {
    /// What it returns.
    type Output;
    /// Runs it.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Every CPU.
#[derive(Clone, Copy)]
struct Baseline;

impl Simd for Baseline {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    type Vector = [f32; LANES];

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> [f32; LANES] {
        *from
    }

    #[inline(always)]
    fn store(self, vector: [f32; LANES], to: &mut [f32; LANES]) {
        *to = vector;
    }

    #[inline(always)]
    fn mul_add_lanes(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }
}

/// x86-64 with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    fn detect() -> Option<Avx2> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Simd for Avx2 {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    type Vector = __m256;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: the token exists, so the CPU has AVX2. So in the others below.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m256 {
        // SAFETY: as above; eight floats are there to read, at any alignment.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, vector: __m256, to: &mut [f32; LANES]) {
        // SAFETY: as above; eight floats are there to write, at any alignment.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    fn mul_add_lanes(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above, and FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<J: Job>(token: Avx2, job: J) -> J::Output {
    job.run(token)
}

/// Runs `job` with the best instructions of this CPU.
pub(super) fn dispatch<J: Job>(job: J) -> J::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(token) = Avx2::detect() {
        // SAFETY: the token exists, so the CPU has AVX2 and FMA.
        return unsafe { run_avx2(token, job) };
    }
    job.run(Baseline)
}

#[cfg(test)]
mod tests {
    //! The token's arithmetic.
    use super::*;

    struct Dot<'a>(&'a [f32], &'a [f32]);

    impl Job for Dot<'_> {
        type Output = f32;
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> f32 {
            self.0.iter().zip(self.1).fold(0.0, |sum, (a, b)| simd.mul_add(*a, *b, sum))
        }
    }

    struct Lanes;

    impl Job for Lanes {
        type Output = [f32; LANES];
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [f32; LANES] {
            let counted = simd.load(&std::array::from_fn(|lane| lane as f32));
            let mut out = [0.0; LANES];
            simd.store(simd.mul_add_lanes(counted, simd.splat(2.0), simd.splat(1.0)), &mut out);
            out
        }
    }

    #[test]
    fn every_token_has_eight_lanes() {
        let odd: [f32; LANES] = std::array::from_fn(|lane| 2.0 * lane as f32 + 1.0);
        assert_eq!(dispatch(Lanes), odd);
        assert_eq!(Lanes.run(Baseline), odd);
    }

    #[test]
    fn every_token_computes_a_product_sum() {
        let (a, b) = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]);
        assert_eq!(dispatch(Dot(&a, &b)), 32.0);
        assert_eq!(Dot(&a, &b).run(Baseline), 32.0);
    }
}
