// What NVRTC has built in, for a host compiler: enough to run emitted text one thread after another.
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline

struct Extent {
  unsigned x;
};
static Extent gridDim{2}, blockDim{3}, blockIdx{0}, threadIdx{0};

template <class To, class From>
static To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

static float __uint_as_float(unsigned int x) { return bits<float>(x); }
static unsigned int __float_as_uint(float x) { return bits<unsigned int>(x); }
static double __longlong_as_double(long long x) { return bits<double>(x); }
static long long __double_as_longlong(double x) { return bits<long long>(x); }

static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static float __fsqrt_rn(float a) { return sqrtf(a); }
static float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static double __dadd_rn(double a, double b) { return a + b; }
static double __dsub_rn(double a, double b) { return a - b; }
static double __dmul_rn(double a, double b) { return a * b; }
static double __ddiv_rn(double a, double b) { return a / b; }
static double __dsqrt_rn(double a) { return sqrt(a); }
static double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static int __float2int_rz(float x) { return x >= -2147483648.0f && x < 2147483648.0f ? (int)x : INT_MIN; }

static void atomicMax(unsigned int* place, unsigned int value) {
  if (*place < value) *place = value;
}

// Every thread of the grid, the last first: the order must not matter.
template <class Phase>
static void launch(Phase phase) {
  for (unsigned block = gridDim.x; block-- > 0;)
    for (unsigned thread = blockDim.x; thread-- > 0;) {
      blockIdx.x = block;
      threadIdx.x = thread;
      phase();
    }
}

// An argument: its bytes come from standard input and go to standard output. Never empty, so that it has an address.
struct Argument {
  size_t size;
  std::vector<long long> words;
  explicit Argument(size_t size) : size(size), words(size / 8 + 1) {
    if (fread(words.data(), 1, size, stdin) != size) exit(1);
  }
  template <class T>
  T* at() {
    return reinterpret_cast<T*>(words.data());
  }
  void write() const { fwrite(words.data(), 1, size, stdout); }
};
