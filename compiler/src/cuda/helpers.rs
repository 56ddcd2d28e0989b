//! Device functions that emitted text may call.
//!
//! Each is guarded, so that the texts of several kernels can be one program; a kernel's text holds only those that it
//! uses.

use std::fmt::Write;

/// A device function: its guard, its name, its text.
struct Helper {
    guard: &'static str,
    name: &'static str,
    text: &'static str,
}

/// Quotient and remainder are those of `Dim`: the remainder is never negative. By 0 gives 0: nothing traps.
const HELPERS: &[Helper] = &[
    Helper {
        guard: "FRIT_FLOORDIV",
        name: "frit_floordiv",
        text: "\
static __device__ __forceinline__ long long frit_floordiv(long long a, long long b) {
  if (b == 0) return 0;
  const long long q = a / b;
  return a % b < 0 ? (b > 0 ? q - 1 : q + 1) : q;
}
",
    },
    Helper {
        guard: "FRIT_MOD",
        name: "frit_mod",
        text: "\
static __device__ __forceinline__ long long frit_mod(long long a, long long b) {
  if (b == 0) return 0;
  const long long r = a % b;
  return r < 0 ? (b > 0 ? r + b : r - b) : r;
}
",
    },
    Helper {
        guard: "FRIT_LEAST",
        name: "frit_least",
        text: "\
static __device__ __forceinline__ long long frit_least(long long a, long long b) { return a < b ? a : b; }
",
    },
    Helper {
        guard: "FRIT_MOST",
        name: "frit_most",
        text: "\
static __device__ __forceinline__ long long frit_most(long long a, long long b) { return a < b ? b : a; }
",
    },
    // Equal values are equal bits but for zeros, whose sum has the sign that is wanted (of the negatives, for min).
    Helper {
        guard: "FRIT_MINIMUM",
        name: "frit_minimum",
        text: "\
template <typename T> static __device__ __forceinline__ T frit_minimum(T a, T b) {
  if (a < b) return a;
  if (b < a) return b;
  return a == b && a != 0 ? a : -(-a + -b);
}
",
    },
    Helper {
        guard: "FRIT_MAXIMUM",
        name: "frit_maximum",
        text: "\
template <typename T> static __device__ __forceinline__ T frit_maximum(T a, T b) {
  if (a < b) return b;
  if (b < a) return a;
  return a == b && a != 0 ? a : a + b;
}
",
    },
    Helper {
        guard: "FRIT_TO_I64",
        name: "frit_to_i64",
        text: "\
static __device__ __forceinline__ long long frit_to_i64(double x) {
  if (x >= 9223372036854775808.0) return 0x7fffffffffffffffLL;
  if (x >= -9223372036854775808.0) return (long long)x;
  return x != x ? 0 : -0x7fffffffffffffffLL - 1;
}
",
    },
    Helper {
        guard: "FRIT_TO_U64",
        name: "frit_to_u64",
        text: "\
static __device__ __forceinline__ unsigned long long frit_to_u64(double x) {
  if (x >= 18446744073709551616.0) return 0xffffffffffffffffULL;
  return x > 0.0 ? (unsigned long long)x : 0;
}
",
    },
    Helper {
        guard: "FRIT_UPOW",
        name: "frit_upow",
        text: "\
static __device__ unsigned long long frit_upow(unsigned long long a, unsigned long long n) {
  unsigned long long result = 1;
  for (; n > 0; n >>= 1) {
    if (n & 1) result *= a;
    a *= a;
  }
  return result;
}
",
    },
    // Uses the one above.
    Helper {
        guard: "FRIT_IPOW",
        name: "frit_ipow",
        text: "\
static __device__ long long frit_ipow(long long a, long long n) {
  if (a == 1) return 1;
  if (a == -1) return n & 1 ? -1 : 1;
  return n < 0 ? 0 : (long long)frit_upow((unsigned long long)a, (unsigned long long)n);
}
",
    },
    // NaN wins; equal numbers differ in the sign of zero only.
    Helper {
        guard: "FRIT_MIN_F32",
        name: "frit_min_f32",
        text: "\
static __device__ __forceinline__ float frit_min_f32(float a, float b) {
  if (a != a || b != b) return a != a ? a : b;
  return a < b ? a : b < a ? b : __uint_as_float(__float_as_uint(a) | __float_as_uint(b));
}
",
    },
    Helper {
        guard: "FRIT_MAX_F32",
        name: "frit_max_f32",
        text: "\
static __device__ __forceinline__ float frit_max_f32(float a, float b) {
  if (a != a || b != b) return a != a ? a : b;
  return b < a ? a : a < b ? b : __uint_as_float(__float_as_uint(a) & __float_as_uint(b));
}
",
    },
    Helper {
        guard: "FRIT_MIN_F64",
        name: "frit_min_f64",
        text: "\
static __device__ __forceinline__ double frit_min_f64(double a, double b) {
  if (a != a || b != b) return a != a ? a : b;
  return a < b ? a : b < a ? b : __longlong_as_double(__double_as_longlong(a) | __double_as_longlong(b));
}
",
    },
    Helper {
        guard: "FRIT_MAX_F64",
        name: "frit_max_f64",
        text: "\
static __device__ __forceinline__ double frit_max_f64(double a, double b) {
  if (a != a || b != b) return a != a ? a : b;
  return b < a ? a : a < b ? b : __longlong_as_double(__double_as_longlong(a) & __double_as_longlong(b));
}
",
    },
];

/// The functions that `body` calls, and those that they call, in an order that compiles.
pub(super) fn used_by(body: &str) -> String {
    let calls = |text: &str, name: &str| text.contains(&format!("{name}("));
    let mut chosen: Vec<&Helper> = Vec::new();
    // A helper calls earlier ones only.
    for helper in HELPERS.iter().rev() {
        if calls(body, helper.name) || chosen.iter().any(|c| calls(c.text, helper.name)) {
            chosen.push(helper);
        }
    }
    chosen.iter().rev().fold(String::new(), |mut text, Helper { guard, text: body, .. }| {
        // Writing to a string can't fail.
        let _ = write!(text, "#ifndef {guard}\n#define {guard}\n{body}#endif\n");
        text
    })
}
