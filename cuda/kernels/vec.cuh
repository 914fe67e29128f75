// Elements of float32, float16 and bfloat16 as floats: one at a time, and 16 bytes at a time. Used
// by every kernel of activations.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace octavo::cuda {

// Elements in 16 bytes: 4 of float32, 8 of the others.
template <typename T>
inline constexpr int kVector = 16 / static_cast<int>(sizeof(T));

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

// To nearest, ties to even.
template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// Two neighbours packed in a word, the lower index in the lower half.
__device__ __forceinline__ float2 unpack_pair(uint32_t word, __half /*tag*/) {
  return __half22float2(*reinterpret_cast<const __half2*>(&word));
}
__device__ __forceinline__ float2 unpack_pair(uint32_t word, __nv_bfloat16 /*tag*/) {
  // bfloat16 is the upper half of a float32.
  return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u));
}
template <typename T>
__device__ __forceinline__ uint32_t pack_pair(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack_pair<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
template <>
__device__ __forceinline__ uint32_t pack_pair<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// 16 bytes as they lie in memory, and as floats.
__device__ __forceinline__ void unpack(const uint4& bits, float (&out)[4], float /*tag*/) {
  out[0] = __uint_as_float(bits.x);
  out[1] = __uint_as_float(bits.y);
  out[2] = __uint_as_float(bits.z);
  out[3] = __uint_as_float(bits.w);
}
template <typename T>
__device__ __forceinline__ void unpack(const uint4& bits, float (&out)[8], T tag) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack_pair(words[i], tag);
    out[2 * i] = pair.x;
    out[2 * i + 1] = pair.y;
  }
}

// `source` is aligned to 16 bytes.
template <typename T>
__device__ __forceinline__ void load_vector(const T* source, float (&out)[kVector<T>]) {
  const uint4 bits = *reinterpret_cast<const uint4*>(source);
  unpack(bits, out, T{});
}

// `target` is global memory, aligned to 16 bytes. The intrinsic keeps the store in one piece.
__device__ __forceinline__ void store_vector(float* target, const float (&values)[4]) {
  __stwb(reinterpret_cast<float4*>(target),
         make_float4(values[0], values[1], values[2], values[3]));
}
template <typename T>
__device__ __forceinline__ void store_vector(T* target, const float (&values)[8]) {
  __stwb(reinterpret_cast<uint4*>(target),
         make_uint4(pack_pair<T>(values[0], values[1]), pack_pair<T>(values[2], values[3]),
                    pack_pair<T>(values[4], values[5]), pack_pair<T>(values[6], values[7])));
}

}  // namespace octavo::cuda
