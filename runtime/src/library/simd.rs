//! The vector units of the running CPU, as a token.
//!
//! In: a loop written plainly, as a [`Job`]. Out: the same loop compiled once for the baseline and
//! once for AVX2 with FMA, and the right one called. A token exists only on a CPU that has the
//! instructions, so loops that hold one are safe code. One algorithm serves all widths.
#![allow(unsafe_code)] // Calling a function with a target feature; the token proves the feature.

/// What a job may use of the CPU it runs on.
pub(super) trait Simd: Copy {
    /// `a * b + c`: in one rounding where the CPU has a fused instruction, in two elsewhere.
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32;
}

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

    #[test]
    fn every_token_computes_a_product_sum() {
        let (a, b) = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]);
        assert_eq!(dispatch(Dot(&a, &b)), 32.0);
        assert_eq!(Dot(&a, &b).run(Baseline), 32.0);
    }
}
