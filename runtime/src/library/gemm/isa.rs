//! What the kernels ask of a CPU's vector unit, for AVX-512 and for AVX2 with FMA.
//!
//! In: pointers that the caller vouches for. Out: one instruction each, so that a kernel is written once, over [`Isa`],
//! and compiled once for each vector unit. A missing feature would be an illegal instruction, so the kernels that hold
//! these calls are reached only through a table that exists where the features do.
#![allow(unsafe_code)] // Vector intrinsics.

use std::arch::x86_64::*;

/// A vector unit. All functions are unsafe for one reason more than the pointers they take: the CPU must have it.
pub(super) trait Isa {
    /// f32 in a vector.
    const LANES: usize;
    /// A vector.
    type Vector: Copy;
    /// Which lanes, from the first on, belong to a row.
    type Mask: Copy;

    /// The first `count` lanes; all of them from [`Isa::LANES`] on.
    unsafe fn mask(count: usize) -> Self::Mask;
    /// Zeros.
    unsafe fn zero() -> Self::Vector;
    /// One element in every lane.
    unsafe fn splat(from: *const f32) -> Self::Vector;
    /// Elements of B. Lanes outside the mask are not read where [`Isa::READS_MASKED`] says so, else they are.
    unsafe fn load(from: *const f32, mask: Self::Mask) -> Self::Vector;
    /// Elements of C; nothing outside the mask is touched.
    unsafe fn load_part(from: *const f32, mask: Self::Mask) -> Self::Vector;
    /// Elements of C; nothing outside the mask is touched.
    unsafe fn store_part(to: *mut f32, mask: Self::Mask, vector: Self::Vector);
    /// `a * b + c`, rounded once.
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a + b`.
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a where it is larger, else b: also where one is NaN, and where both are zero.
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a where it is smaller, else b: also where one is NaN, and where both are zero.
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Whether [`Isa::load`] keeps to its mask.
    const READS_MASKED: bool;

    /// All lanes to memory.
    unsafe fn store(to: *mut f32, vector: Self::Vector);
    /// Transposes a square of [`Isa::LANES`]: element (row, col) at `from + row * step + col` goes to
    /// `to + col * width + row`. Only `rows` by `cols` are read; the rest of the square becomes zero.
    unsafe fn transpose(from: *const f32, step: isize, to: *mut f32, width: usize, rows: usize, cols: usize);
}

/// AVX-512 F: 32 registers of 16 lanes, masked loads and stores.
pub(super) struct Avx512;

impl Isa for Avx512 {
    const LANES: usize = 16;
    type Vector = __m512;
    type Mask = __mmask16;

    #[inline(always)]
    unsafe fn mask(count: usize) -> __mmask16 {
        if count >= 16 { !0 } else { (1 << count) - 1 }
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: the CPU has AVX-512 F (the trait's contract). So in the others below.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> __m512 {
        // SAFETY: as above; the caller vouches for the element.
        unsafe { _mm512_set1_ps(*from) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32, mask: __mmask16) -> __m512 {
        // SAFETY: as above; masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, mask: __mmask16) -> __m512 {
        // SAFETY: as above; masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }

    #[inline(always)]
    unsafe fn store_part(to: *mut f32, mask: __mmask16, vector: __m512) {
        // SAFETY: as above; masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(to, mask, vector) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: __m512) {
        // SAFETY: as above; the caller vouches for the place.
        unsafe { _mm512_storeu_ps(to, vector) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_min_ps(a, b) }
    }

    const READS_MASKED: bool = true;

    #[inline(always)]
    unsafe fn transpose(from: *const f32, step: isize, to: *mut f32, width: usize, rows: usize, cols: usize) {
        // SAFETY: as above; only `rows` rows, and in them `cols` elements, are read; the caller gives 16 rows to write.
        unsafe {
            if rows >= 16 && cols >= 16 {
                // Four columns at a time, from 16 rows: parts of a vector are four rows apart, and put there by loads,
                // which leaves half of the shuffles below.
                let four = 4 * step;
                for i in 0..4 {
                    let mut r = [_mm512_setzero_ps(); 4];
                    let mut at = from.wrapping_add(4 * i);
                    for part in &mut r {
                        let all = _mm512_castps128_ps512(_mm_loadu_ps(at));
                        let all = _mm512_insertf32x4::<1>(all, _mm_loadu_ps(at.wrapping_offset(four)));
                        let all = _mm512_insertf32x4::<2>(all, _mm_loadu_ps(at.wrapping_offset(2 * four)));
                        *part = _mm512_insertf32x4::<3>(all, _mm_loadu_ps(at.wrapping_offset(3 * four)));
                        at = at.wrapping_offset(step);
                    }
                    let (a, b) = (_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpackhi_ps(r[0], r[1]));
                    let (c, d) = (_mm512_unpacklo_ps(r[2], r[3]), _mm512_unpackhi_ps(r[2], r[3]));
                    let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
                    let (c, d) = (_mm512_castps_pd(c), _mm512_castps_pd(d));
                    let to = to.add(4 * i * width);
                    _mm512_storeu_ps(to, _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)));
                    _mm512_storeu_ps(to.add(width), _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)));
                    _mm512_storeu_ps(to.add(2 * width), _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)));
                    _mm512_storeu_ps(to.add(3 * width), _mm512_castpd_ps(_mm512_unpackhi_pd(b, d)));
                }
                return;
            }
            let mask = Avx512::mask(cols);
            let mut r = [_mm512_setzero_ps(); 16];
            let mut t = r;
            // Rows that are not there have an empty mask: a loop of known length stays in registers.
            for (i, row) in r.iter_mut().enumerate() {
                let mask = if i < rows { mask } else { 0 };
                *row = _mm512_maskz_loadu_ps(mask, from.wrapping_offset(i as isize * step));
            }
            // Neighbours, then pairs of neighbours, within 128-bit parts; then the parts themselves, in two steps.
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            for i in 0..4 {
                for h in 0..2 {
                    let low = _mm512_castps_pd(t[4 * i + h]);
                    let high = _mm512_castps_pd(t[4 * i + 2 + h]);
                    r[4 * i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                    r[4 * i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
                }
            }
            for i in 0..4 {
                t[i] = _mm512_shuffle_f32x4::<0x88>(r[i], r[4 + i]);
                t[4 + i] = _mm512_shuffle_f32x4::<0xdd>(r[i], r[4 + i]);
                t[8 + i] = _mm512_shuffle_f32x4::<0x88>(r[8 + i], r[12 + i]);
                t[12 + i] = _mm512_shuffle_f32x4::<0xdd>(r[8 + i], r[12 + i]);
            }
            for i in 0..4 {
                for h in 0..2 {
                    let (low, high) = (t[4 * h + i], t[8 + 4 * h + i]);
                    _mm512_storeu_ps(to.add((4 * h + i) * width), _mm512_shuffle_f32x4::<0x88>(low, high));
                    _mm512_storeu_ps(to.add((8 + 4 * h + i) * width), _mm512_shuffle_f32x4::<0xdd>(low, high));
                }
            }
        }
    }
}

/// AVX2 and FMA: 16 registers of 8 lanes. Masked stores are slow on some CPUs, so whole vectors go without.
pub(super) struct Avx2;

/// `LANE_MASKS[8 - count..]` starts with `count` lanes that are on.
const LANE_MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

impl Avx2 {
    #[inline(always)]
    unsafe fn lanes(count: usize) -> __m256i {
        // SAFETY: eight masks follow each of the first nine; the CPU has AVX2.
        unsafe { _mm256_loadu_si256(LANE_MASKS.as_ptr().add(8 - count.min(8)).cast()) }
    }
}

impl Isa for Avx2 {
    const LANES: usize = 8;
    type Vector = __m256;
    type Mask = usize;

    #[inline(always)]
    unsafe fn mask(count: usize) -> usize {
        count.min(8)
    }

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: the CPU has AVX2 and FMA (the trait's contract). So in the others below.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> __m256 {
        // SAFETY: as above; the caller vouches for the element.
        unsafe { _mm256_broadcast_ss(&*from) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32, _mask: usize) -> __m256 {
        // SAFETY: as above; the caller vouches for all lanes.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, mask: usize) -> __m256 {
        // SAFETY: as above; lanes outside the mask are not read.
        unsafe { if mask == 8 { _mm256_loadu_ps(from) } else { _mm256_maskload_ps(from, Avx2::lanes(mask)) } }
    }

    #[inline(always)]
    unsafe fn store_part(to: *mut f32, mask: usize, vector: __m256) {
        // SAFETY: as above; lanes outside the mask are not written.
        unsafe {
            if mask == 8 {
                _mm256_storeu_ps(to, vector);
            } else {
                _mm256_maskstore_ps(to, Avx2::lanes(mask), vector);
            }
        }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: __m256) {
        // SAFETY: as above; the caller vouches for the place.
        unsafe { _mm256_storeu_ps(to, vector) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_min_ps(a, b) }
    }

    const READS_MASKED: bool = false;

    #[inline(always)]
    unsafe fn transpose(from: *const f32, step: isize, to: *mut f32, width: usize, rows: usize, cols: usize) {
        // SAFETY: as above; only `rows` rows, and in them `cols` elements, are read; the caller gives 8 rows to write.
        unsafe {
            let mut r = [_mm256_setzero_ps(); 8];
            // A loop of known length stays in registers.
            if rows >= 8 && cols >= 8 {
                for (i, row) in r.iter_mut().enumerate() {
                    *row = _mm256_loadu_ps(from.wrapping_offset(i as isize * step));
                }
            } else {
                for (i, row) in r.iter_mut().enumerate() {
                    let mask = Avx2::lanes(if i < rows { cols } else { 0 });
                    *row = _mm256_maskload_ps(from.wrapping_offset(i as isize * step), mask);
                }
            }
            let mut t = r;
            // Neighbours, then pairs, within 128-bit halves; then the halves.
            for i in 0..4 {
                t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            for i in 0..2 {
                for h in 0..2 {
                    let (low, high) = (t[4 * i + h], t[4 * i + 2 + h]);
                    r[4 * i + 2 * h] = _mm256_shuffle_ps::<0x44>(low, high);
                    r[4 * i + 2 * h + 1] = _mm256_shuffle_ps::<0xee>(low, high);
                }
            }
            for i in 0..4 {
                _mm256_storeu_ps(to.add(i * width), _mm256_permute2f128_ps::<0x20>(r[i], r[4 + i]));
                _mm256_storeu_ps(to.add((4 + i) * width), _mm256_permute2f128_ps::<0x31>(r[i], r[4 + i]));
            }
        }
    }
}
