// Reads a model's configuration with checks: a key that is missing or out of range is a LoadError
// that names it. Used while a model is built.
#pragma once

#include <optional>
#include <string>

#include "backend/op_args.h"
#include "base/json.h"

namespace octavo {

class ConfigReader {
 public:
  explicit ConfigReader(const Json& config) : config_(config) {}

  const Json& json() const { return config_; }
  bool has(const char* key) const;  // present and not null

  // Integers in [1, 2^31); counts of anything a model is made of.
  int64_t count(const char* key) const;
  int64_t count_or(const char* key, int64_t fallback) const;
  double positive_or(const char* key, double fallback) const;
  bool flag_or(const char* key, bool fallback) const;
  // The activation named by `key`. Throws NotSupported for one that no kernel has.
  Activation activation_or(const char* key, const char* fallback) const;

 private:
  const Json& config_;
};

// LoadError unless `total` is a multiple of `parts`.
void check_divides(const char* total_key, int64_t total, const char* parts_key, int64_t parts);

}  // namespace octavo
