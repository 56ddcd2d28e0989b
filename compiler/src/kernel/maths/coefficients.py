"""Computes the tables of coefficients.rs: minimax polynomials by Remez exchange on a grid (numpy and mpmath).

Each row: name, g, powers, interval, fixed. The polynomial sum of c_k x^k over `powers` approximates g(x) - fixed(x);
the error is taken relative to `scale(x)` (g itself when None). Coefficients are rounded to f32 one by one from the
lowest power, the rest refitted after each, so that rounding errors of leading terms are made good by later ones.
"""
import mpmath as mp
import numpy as np

mp.mp.dps = 40


def remez(target, weight, basis):
    """Coefficients that minimise max |weight * (basis c - target)| on the grid."""
    n = basis.shape[1]
    points = len(target)
    nodes = np.unique(np.round((1 - np.cos(np.linspace(0, np.pi, n + 1))) / 2 * (points - 1)).astype(int))
    c = None
    for _ in range(60):
        m = np.hstack([basis[nodes], ((-1.0) ** np.arange(n + 1) / weight[nodes])[:, None]])
        c = np.linalg.solve(m, target[nodes])[:n]
        error = weight * (basis @ c - target)
        # One extremum per run of equal sign, then the n + 1 consecutive ones that are largest.
        cuts = np.flatnonzero(np.sign(error[1:]) != np.sign(error[:-1])) + 1
        runs = np.split(np.arange(points), cuts)
        peaks = [r[np.argmax(np.abs(error[r]))] for r in runs]
        if len(peaks) < n + 1:
            break
        while len(peaks) > n + 1:
            peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
        if list(peaks) == list(nodes):
            break
        nodes = np.array(peaks)
    return c


def table(name, g, powers, interval, fixed=lambda x: 0, scale=None, points=4000):
    lo, hi = map(mp.mpf, interval)
    xs = [lo + (hi - lo) * (1 - mp.cos(mp.pi * (k + mp.mpf(1) / 2) / points)) / 2 for k in range(points)]
    x = np.array([float(v) for v in xs])
    goal = np.array([float(g(v) - fixed(v)) for v in xs])
    weight = np.array([1 / float(abs((scale or g)(v))) for v in xs])
    unit = max(abs(x[0]), abs(x[-1]))
    rest, rounded = list(powers), []
    remaining = goal.copy()
    for p in powers:
        basis = np.stack([(x / unit) ** q for q in rest], axis=1)
        c = np.float32(remez(remaining, weight, basis)[0] / unit ** p)
        rounded.append(c)
        remaining -= float(c) * x ** p
        rest.pop(0)
    worst = np.max(np.abs(remaining * weight))
    print(f"/// {name}: powers {powers[0]}..={powers[-1]} on [{float(lo):.4g}, {float(hi):.4g}], "
          f"relative error 2^{np.log2(worst):.1f}.")
    print(f"pub(super) const {name}: [f32; {len(rounded)}] = [")
    for c in rounded:
        print(f"    {np.format_float_scientific(c, unique=True, trim='0', exp_digits=1)},")
    print("];\n")


def split(name, value, parts):
    """A constant as a sum of f32, each the nearest to what is left."""
    left, out = mp.mpf(value), []
    for _ in range(parts):
        c = np.float32(float(left))
        out.append(c)
        left -= mp.mpf(float(c))
    print(f"/// {name}, as a sum.")
    print(f"pub(super) const {name}: [f32; {parts}] = "
          f"[{', '.join(np.format_float_scientific(c, unique=True, trim='0', exp_digits=1) for c in out)}];\n")


if __name__ == "__main__":
    r = range
    ln2 = mp.log(2)
    table("EXP_FAST", lambda u: 2 * mp.exp(u), list(r(0, 6)), (-ln2 / 2 * mp.mpf("1.0005"), ln2 / 2 * mp.mpf("1.0005")))
    table("EXP", lambda u: mp.exp(u) - 1, list(r(1, 8)), (-ln2 * 1.0005, ln2 * 1.0005), scale=mp.exp)
    half = ln2 / 2 * mp.mpf("1.0005")
    table("EXPM1", lambda u: mp.expm1(u) - u, list(r(2, 7)), (-half, half),
          scale=lambda u: mp.expm1(u) if u else mp.mpf(1))
    table("EXP2", lambda u: mp.power(2, u) - 1, list(r(1, 8)), (-0.5005, 0.5005), scale=lambda u: mp.power(2, u))
    table("LOG", lambda f: mp.log1p(f) - f, list(r(2, 11)), (mp.sqrt(0.5) - 1, mp.sqrt(2) - 1),
          scale=lambda f: mp.log1p(f))
    table("ATANH", lambda z: mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 1 - z / 3, list(r(2, 6)), (mp.mpf("1e-12"), 0.0296),
          scale=lambda z: z)
    table("SIN", lambda z: mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1, list(r(1, 4)), (mp.mpf("1e-12"), mp.mpf("0.6173")),
          scale=lambda z: mp.sin(mp.sqrt(z)) / mp.sqrt(z))
    table("COS", lambda z: mp.cos(mp.sqrt(z)) - 1 + z / 2, list(r(2, 5)), (mp.mpf("1e-12"), mp.mpf("0.6173")),
          scale=lambda z: mp.cos(mp.sqrt(z)))
    table("TAN", lambda z: mp.tan(mp.sqrt(z)) / mp.sqrt(z) - 1, list(r(1, 7)), (mp.mpf("1e-12"), mp.mpf("0.6173")),
          scale=lambda z: mp.tan(mp.sqrt(z)) / mp.sqrt(z))
    table("ASIN", lambda z: mp.asin(mp.sqrt(z)) / mp.sqrt(z) - 1, list(r(1, 6)), (mp.mpf("1e-12"), 0.25),
          scale=lambda z: mp.asin(mp.sqrt(z)) / mp.sqrt(z))
    table("ATAN", lambda z: mp.atan(mp.sqrt(z)) / mp.sqrt(z) - 1, list(r(1, 6)), (mp.mpf("1e-12"), 0.2501),
          scale=lambda z: mp.atan(mp.sqrt(z)) / mp.sqrt(z))
    table("TANH", lambda z: mp.tanh(mp.sqrt(z)) / mp.sqrt(z) - 1, list(r(1, 8)), (mp.mpf("1e-12"), 0.64),
          scale=lambda z: mp.tanh(mp.sqrt(z)) / mp.sqrt(z))
    table("ERF_SMALL", lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, list(r(0, 7)), (mp.mpf("1e-12"), 0.8464),
          scale=lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z))
    # ln erfc(a): an error e of it is e erfc(a) of the result.
    table("ERF_TAIL", lambda a: mp.log(mp.erfc(a)), list(r(0, 9)), (0.92, 3.95),
          scale=lambda a: mp.erf(a) / mp.erfc(a))
    split("LN2", ln2, 2)
    split("LN2_TWICE", 2 * ln2, 2)
    split("LOG2E", 1 / ln2, 2)
    split("PI_HALF", mp.pi / 2, 3)
    split("PI_QUARTER", mp.pi / 4, 2)
    split("THIRD", mp.mpf(1) / 3, 2)
