// JSON values of configuration files and headers.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace octavo {

using Json = nlohmann::json;

// Parses `text`; throws LoadError that begins with `what`. Nesting is limited to 64 levels.
Json parse_json(std::string_view text, std::string_view what);

}  // namespace octavo
