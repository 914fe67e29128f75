#include "grammar/json_formats.h"

#include <limits>
#include <map>

namespace octavo {
namespace {

std::string date() {
  const std::string thirty_one = "(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])";
  const std::string thirty = "(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)";
  const std::string leap_year =
      "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][48]|[13579][26]|[2468]0)00)";
  return "(?:\\d{4}-(?:" + thirty_one + "|" + thirty + "|02-(?:0[1-9]|1\\d|2[0-8]))|" + leap_year +
         "-02-29)";
}

// Without leap seconds, which are valid in some minutes only.
std::string time() {
  return "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?"
         "(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)";
}

std::string duration() {
  const std::string hours = "T(?:\\d+S|\\d+M(?:\\d+S)?|\\d+H(?:\\d+M(?:\\d+S)?)?)";
  return "P(?:(?:\\d+D|\\d+M(?:\\d+D)?|\\d+Y(?:\\d+M(?:\\d+D)?)?)(?:" + hours + ")?|" + hours +
         "|\\d+W)";
}

// Up to 4 labels of up to 32 letters: below every limit of RFC 1123, and quick to compile.
std::string hostname() {
  const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?";
  return label + "(?:\\." + label + "){0,3}";
}

// The local part without quotes, up to 50 letters.
std::string email() {
  const std::string atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,16}";
  return atom + "(?:\\." + atom + "){0,2}@" + hostname();
}

std::string ipv4() {
  const std::string byte = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  return "(?:" + byte + "\\.){3}" + byte;
}

std::string ipv6() {
  const std::string h = "[0-9A-Fa-f]{1,4}", ch = "(?::" + h + ")", hc = "(?:" + h + ":)";
  return "(?:" + hc + "{7}" + h + "|" + hc + "{1,7}:|" + hc + "{1,6}" + ch + "|" + hc + "{1,5}" +
         ch + "{1,2}|" + hc + "{1,4}" + ch + "{1,3}|" + hc + "{1,3}" + ch + "{1,4}|" + hc +
         "{1,2}" + ch + "{1,5}|" + hc + ch + "{1,6}|:(?:" + ch + "{1,7}|:))";
}

std::string uuid() {
  const std::string h = "[0-9A-Fa-f]";
  return h + "{8}(?:-" + h + "{4}){3}-" + h + "{12}";
}

const std::string kUriLetter = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";

std::string authority_and_path() {
  const std::string user = "(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*@";
  const std::string host = "(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*";
  return "//(?:" + user + ")?" + host + "(?::\\d*)?(?:/" + kUriLetter + "*)*";
}

std::string query_and_fragment() {
  const std::string letters = "(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*";
  return "(?:\\?" + letters + ")?(?:#" + letters + ")?";
}

std::string uri() {
  const std::string rootless = kUriLetter + "+(?:/" + kUriLetter + "*)*";
  return "[A-Za-z][A-Za-z0-9+.-]*:(?:" + authority_and_path() + "|/(?:" + rootless + ")?|" +
         rootless + "|)" + query_and_fragment();
}

std::string uri_reference() {
  const std::string rest = "(?:/" + kUriLetter + "*)*";
  const std::string no_colon = "(?:[A-Za-z0-9._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})+";
  return "(?:" + uri() + "|(?:" + authority_and_path() + "|/(?:" + kUriLetter + "+" + rest + ")?|" +
         no_colon + rest + "|)" + query_and_fragment() + ")";
}

}  // namespace

const std::string* format_regex(std::string_view format) {
  const std::string pointer = "(?:/(?:[^~/]|~[01])*)*";
  static const std::map<std::string_view, std::string> all = {
      {"date", date()},
      {"time", time()},
      {"date-time", date() + "T" + time()},
      {"duration", duration()},
      {"email", email()},
      {"hostname", hostname()},
      {"ipv4", ipv4()},
      {"ipv6", ipv6()},
      {"uuid", uuid()},
      {"uri", uri()},
      {"uri-reference", uri_reference()},
      {"json-pointer", pointer},
      {"relative-json-pointer", "(?:0|[1-9]\\d*)(?:#|" + pointer + ")"},
  };
  const auto found = all.find(format);
  return found == all.end() ? nullptr : &found->second;
}

std::optional<IntegerRange> format_range(std::string_view format) {
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min() + 1;
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  if (format == "int32") return IntegerRange{-2147483648, 2147483647};
  if (format == "int64") return IntegerRange{kMin, kMax};
  if (format == "uint32") return IntegerRange{0, 4294967295};
  if (format == "uint64") return IntegerRange{0, kMax};
  return std::nullopt;
}

}  // namespace octavo
