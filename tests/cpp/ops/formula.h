// Formulas that several tests of the reference back end share; written apart from it.
#pragma once

#include <cmath>
#include <numbers>

#include "backend/op_args.h"

namespace octavo::test {

inline long double activation_by_formula(Activation activation, long double x) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return x > 0 ? x : 0;
    case Activation::kSilu: return x * (0.5L + 0.5L * std::tanh(x / 2));
    case Activation::kGelu: return x * 0.5L * std::erfc(-x * std::sqrt(0.5L));
    case Activation::kGeluTanh: {
      // 1 + tanh(a) = 2 / (1 + exp(-2a))
      const long double a =
          std::sqrt(2.0L / std::numbers::pi_v<long double>) * (x + 0.044715L * x * x * x);
      return x / (1 + std::exp(-2 * a));
    }
  }
  return NAN;
}

}  // namespace octavo::test
