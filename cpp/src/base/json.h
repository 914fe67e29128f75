// JSON values of configuration files and headers. Parsing is stateless, callable from any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace octavo {

using Json = nlohmann::json;

// What two equal keys in one object mean: the last one counts (as Python reads configurations), or
// an error (where the second would hide the first from a check).
enum class DuplicateKeys : uint8_t { kLastCounts, kRefuse };

// Parses `text`; throws LoadError that begins with `what`. Nesting is limited to 64 levels.
Json parse_json(std::string_view text, std::string_view what,
                DuplicateKeys duplicates = DuplicateKeys::kLastCounts);

// The text of `value`, always valid UTF-8: strings from a GGUF file need not be.
std::string dump_json(const Json& value);

}  // namespace octavo
