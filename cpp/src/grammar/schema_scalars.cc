// How SchemaRewriter writes strings, numbers, and arrays.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/check.h"
#include "base/printable.h"
#include "grammar/json_formats.h"
#include "grammar/regex_expression.h"
#include "grammar/schema_rewriter.h"

namespace octavo {
namespace {

constexpr int64_t kMaxLength = 100'000;  // of strings
constexpr int64_t kMaxItems = 100'000;   // of arrays
// The library writes the multiples in a range one by one, and those without a range as a machine of
// as many states.
constexpr int64_t kMaxMultiple = 1024, kMaxRange = 9'999;
// Bounds of numbers: the library works with 6 digits after the point.
constexpr double kMaxBound = 1e15;
constexpr int64_t kMaxInteger = std::numeric_limits<int64_t>::max();
constexpr int64_t kMinInteger = -kMaxInteger;

std::optional<int64_t> count(const Schema& schema, const char* keyword, int64_t most,
                             const std::string& path) {
  const auto found = schema.find(keyword);
  if (found == schema.end()) return std::nullopt;
  const auto value = static_cast<int64_t>(found->get<double>());
  if (value > most)
    refuse_schema(child_path(path, keyword), str_cat("at most ", most, " is possible"));
  return value;
}

// The least whole number from `bound` on (after it, if exclusive), within int64.
int64_t least_integer(const Schema& bound, bool exclusive, const std::string& path) {
  if (bound.is_number_integer() && !bound.is_number_unsigned()) {
    const auto value = bound.get<int64_t>();
    return exclusive ? value + 1 : value;  // negative: no overflow
  }
  const double value = bound.get<double>();
  if (value >= 9.2e18) refuse_schema(path, "no integer of 64 bits is above it");
  if (value <= static_cast<double>(kMinInteger)) return kMinInteger;
  if (bound.is_number_unsigned()) return bound.get<int64_t>() + (exclusive ? 1 : 0);
  const double least = exclusive ? std::floor(value) + 1 : std::ceil(value);
  return static_cast<int64_t>(least);
}

Schema negated(const Schema& bound) {
  if (bound.is_number_integer() && std::abs(bound.get<double>()) < 9.2e18)
    return -bound.get<int64_t>();
  return -bound.get<double>();
}

int64_t greatest_integer(const Schema& bound, bool exclusive, const std::string& path) {
  return -least_integer(negated(bound), exclusive, path);
}

struct Bounds {
  std::optional<int64_t> min, max;
  void at_least(int64_t value) { min = std::max(min.value_or(kMinInteger), value); }
  void at_most(int64_t value) { max = std::min(max.value_or(kMaxInteger), value); }
};

Bounds integer_bounds(const Schema& schema, const std::string& path) {
  Bounds bounds;
  for (const char* key : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
    const auto found = schema.find(key);
    if (found == schema.end()) continue;
    const bool exclusive = key[0] == 'e';
    const std::string where = child_path(path, key);
    if (std::string_view(key).ends_with("inimum")) {
      bounds.at_least(least_integer(*found, exclusive, where));
    } else {
      bounds.at_most(greatest_integer(*found, exclusive, where));
    }
  }
  if (const auto format = schema.find("format"); format != schema.end()) {
    const auto range = format_range(format->get<std::string>());
    if (!range) {
      refuse_schema(
          child_path(path, "format"),
          str_cat("the format \"", printable(format->get<std::string>()), "\" is not supported"));
    }
    bounds.at_least(range->min);
    bounds.at_most(range->max);
  }
  if (bounds.min && bounds.max && *bounds.min > *bounds.max) {
    refuse_schema(path, "no integer is within the bounds");
  }
  return bounds;
}

// Nothing: not a whole number that matters.
std::optional<int64_t> multiple_of(const Schema& schema, const std::string& path) {
  const auto found = schema.find("multipleOf");
  if (found == schema.end()) return std::nullopt;
  const std::string where = child_path(path, "multipleOf");
  const double value = found->get<double>();
  if (value <= 0) refuse_schema(where, "expected a number above 0");
  if (std::floor(value) != value) refuse_schema(where, "only whole numbers are supported");
  if (value > kMaxMultiple)
    refuse_schema(where, str_cat("at most ", kMaxMultiple, " is supported"));
  return value == 1 ? std::nullopt : std::optional(static_cast<int64_t>(value));
}

void check_multiple(int64_t multiple, const Bounds& bounds, const std::string& path) {
  if (bounds.min.has_value() != bounds.max.has_value()) {
    refuse_schema(path, "\"multipleOf\" with a bound on one side only is not supported");
  }
  if (!bounds.min) return;
  if (*bounds.min < -kMaxBound || *bounds.max > kMaxBound ||
      *bounds.max - *bounds.min > kMaxRange) {
    refuse_schema(path, str_cat("\"multipleOf\" with bounds more than ", kMaxRange,
                                " apart is not supported"));
  }
  const int64_t first = *bounds.min + ((-*bounds.min % multiple) + multiple) % multiple;
  if (first > *bounds.max) refuse_schema(path, "no multiple is within the bounds");
}

}  // namespace

Schema SchemaRewriter::string(const Schema& schema, const Place& place) {
  const auto min = count(schema, "minLength", kMaxLength, place.path);
  const auto max = count(schema, "maxLength", kMaxLength, place.path);
  const bool has_length = min.value_or(0) > 0 || max;
  const bool has_pattern = schema.contains("pattern"), has_format = schema.contains("format");
  if (has_length + has_pattern + has_format > 1) {
    refuse_schema(place.path,
                  "\"pattern\", \"format\" and \"minLength\" or \"maxLength\" are supported alone, "
                  "not together");
  }
  Schema result = {{"type", "string"}};
  ExtraRules& rules = result_.rules;
  if (has_pattern) {
    const std::string what = str_cat("json: ", printable(child_path(place.path, "pattern")));
    result["pattern"] = pattern(regex_expression(schema["pattern"].get<std::string>(),
                                                 RegexText::kJsonString, what, rules));
  } else if (has_format) {
    const auto format = schema["format"].get<std::string>();
    const std::string what = str_cat("json: ", printable(child_path(place.path, "format")));
    const std::string* regex = format_regex(format);
    if (regex == nullptr) {
      refuse_schema(child_path(place.path, "format"),
                    str_cat("the format \"", printable(format), "\" is not supported"));
    }
    result["pattern"] = pattern(regex_expression(*regex, RegexText::kJsonString, what, rules));
  } else if (has_length) {
    if (max && *max < min.value_or(0)) refuse_schema(place.path, "minLength is above maxLength");
    const std::string what =
        str_cat("json: ", printable(child_path(place.path, max ? "maxLength" : "minLength")));
    result["pattern"] = pattern(length_expression(min.value_or(0), max.value_or(-1), what, rules));
  }
  return result;
}

Schema SchemaRewriter::number(const Schema& schema, const Place& place) {
  if (schema.contains("multipleOf")) {
    // A multiple of a whole number is one.
    multiple_of(schema, place.path);
    return integer(schema, place);
  }
  if (const auto format = schema.find("format"); format != schema.end()) {
    if (*format != "float" && *format != "double") {
      refuse_schema(child_path(place.path, "format"), "only float and double are supported here");
    }
  }
  Schema result = {{"type", "number"}};
  for (const char* key : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
    const auto found = schema.find(key);
    if (found == schema.end()) continue;
    const double value = found->get<double>();
    if (std::abs(value) > kMaxBound) {
      refuse_schema(child_path(place.path, key), "bounds of numbers are supported up to 1e15");
    }
    result[key] = value;
  }
  return result;
}

Schema SchemaRewriter::integer(const Schema& schema, const Place& place) {
  const Bounds bounds = integer_bounds(schema, place.path);
  const auto multiple = multiple_of(schema, place.path);
  if (multiple) check_multiple(*multiple, bounds, place.path);
  Schema result = {{"type", "integer"}};
  if (bounds.min) result["minimum"] = *bounds.min;
  if (bounds.max) result["maximum"] = *bounds.max;
  if (multiple) result["multipleOf"] = *multiple;
  return result;
}

Schema SchemaRewriter::array(const Schema& schema, const Place& place) {
  const auto min = count(schema, "minItems", kMaxItems, place.path);
  const auto max = count(schema, "maxItems", int64_t{1} << 50, place.path);
  if (schema.value("uniqueItems", false) && max.value_or(2) > 1) {
    refuse_schema(place.path, "the keyword \"uniqueItems\" is not supported");
  }
  if (max && *max < min.value_or(0)) refuse_schema(place.path, "minItems is above maxItems");
  if (schema.contains("items") && schema["items"].is_array()) {
    refuse_schema(child_path(place.path, "items"), "a list is not supported, use \"prefixItems\"");
  }
  Schema result = {{"type", "array"}};
  int64_t num_prefix = 0;
  if (const auto prefix = schema.find("prefixItems"); prefix != schema.end()) {
    const Place list = place.inside("prefixItems");
    Schema written = Schema::array();
    for (size_t i = 0; i < prefix->size() && static_cast<int64_t>(i) < max.value_or(kMaxItems);
         ++i) {
      written.push_back(any((*prefix)[i], list.inside(std::to_string(i))));
    }
    num_prefix = static_cast<int64_t>(written.size());
    if (num_prefix > 0) result["prefixItems"] = std::move(written);
  }
  const Schema others_schema = others(schema, "items", "unevaluatedItems");
  const bool closed = others_schema == false || (max && *max <= num_prefix);
  if (closed && min.value_or(0) > num_prefix) {
    refuse_schema(place.path, "minItems is above the number of possible items");
  }
  result["items"] = closed ? Schema(false) : any(others_schema, place.inside("items"));
  if (min.value_or(0) > 0) result["minItems"] = *min;
  // What nobody generates: as good as no limit, at most.
  if (max && !closed && *max <= kMaxItems) result["maxItems"] = *max;
  if (max && !closed && *max > kMaxItems) result["maxItems"] = kMaxItems;
  return result;
}

}  // namespace octavo
