// kernel "softmax 40", d0 = B
// check 0: "softmax: a row's largest element is NaN"
#ifndef FRIT_MAX_F32
#define FRIT_MAX_F32
static __device__ __forceinline__ float frit_max_f32(float a, float b) {
  if (a != a || b != b) return a != a ? a : b;
  return b < a ? a : a < b ? b : __uint_as_float(__float_as_uint(a) & __float_as_uint(b));
}
#endif

extern "C" __global__ void softmax_40_p0(const float* b0_x, const unsigned char* b1_keep, float* b2_y, long long* b3_place, long long d0, unsigned int* status) {
  const long long stride = (long long)gridDim.x * blockDim.x;
  const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  for (long long i0 = first; i0 < d0; i0 += stride) {
    float b4_powers[40];
    float r2 = __uint_as_float(0xff800000u);
    float r3_value = 0;
    long long r3 = 0;
    for (long long i1 = 0; i1 < 40; ++i1) {
      const float r0 = b0_x[40 * i0 + (i1 / 5) + 8 * (i1 % 5)];
      const long long r1 = (i1 / 5) + 8 * (i1 % 5);
      r2 = frit_max_f32(r2, r0);
      if (i1 == 0 || r0 > r3_value || (r0 != r0 && r3_value == r3_value) || (r1 < r3 && !(r3_value > r0) && (r0 != r0) == (r3_value != r3_value))) {
        r3_value = r0;
        r3 = r1;
      }
    }
    const bool r4 = r2 == r2;
    if (!r4) atomicMax(status, 1u);
    float r8_lanes[16];
    for (int lane = 0; lane < 16; ++lane) r8_lanes[lane] = 0.0f;
    for (long long i2 = 0; i2 < 40; ++i2) {
      const float r5 = b0_x[40 * i0 + i2];
      const float r6 = __fsub_rn(r5, r2);
      const float r13 = -87.3f;
      const bool r14 = r6 < r13;
      const float r15 = r14 ? r13 : r6;
      const float r16 = 89.0f;
      const bool r17 = r16 < r15;
      const float r18 = r17 ? r16 : r15;
      const float r19 = 1.442695f;
      const float r20 = 12583038.0f;
      const float r21 = __fmaf_rn(r18, r19, r20);
      const float r22 = __fsub_rn(r21, r20);
      const float r23 = 1.9046542e-9f;
      const float r24 = -0.6931472f;
      const float r25 = __fmaf_rn(r22, r24, r18);
      const float r26 = __fmaf_rn(r22, r23, r25);
      const int r27 = (int)__float_as_uint(r21);
      const float r28 = 0.017048875f;
      const float r29 = 0.08391037f;
      const float r30 = __fmaf_rn(r28, r26, r29);
      const float r31 = 0.33329314f;
      const float r32 = __fmaf_rn(r30, r26, r31);
      const float r33 = 0.9999696f;
      const float r34 = __fmaf_rn(r32, r26, r33);
      const float r35 = 2.0000007f;
      const float r36 = __fmaf_rn(r34, r26, r35);
      const float r37 = 2.0000002f;
      const float r38 = __fmaf_rn(r36, r26, r37);
      const int r39 = 23;
      const int r40 = (int)((unsigned int)r27 << r39);
      const float r41 = __uint_as_float((unsigned int)r40);
      const float r7 = __fmul_rn(r38, r41);
      b4_powers[i2] = r7;
      r8_lanes[i2 & 15] = __fadd_rn(r8_lanes[i2 & 15], r7);
    }
    for (int step = 8; step > 0; step /= 2)
      for (int lane = 0; lane < step; ++lane) r8_lanes[lane] = __fadd_rn(r8_lanes[lane], r8_lanes[lane + step]);
    const float r8 = r8_lanes[0];
    for (long long i3 = 0; i3 < 40; ++i3) {
      const float r9 = b4_powers[i3];
      const float r10 = __fdiv_rn(r9, r8);
      b2_y[40 * i0 + i3] = r10;
    }
    const bool r11 = b1_keep[i0] != 0;
    const long long r12 = -1;
    if (r11) {
      b3_place[i0] = r3;
    } else {
      b3_place[i0] = r12;
    }
  }
}
