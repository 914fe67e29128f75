#include "base/cpu_topology.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "octavo/engine.h"

namespace octavo {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  return text.str();
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

// The number, or 0 where `text` is not a positive one.
int64_t positive_number(std::string_view text) {
  text = trim(text);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && value > 0 ? value : 0;
}

// "/a/b" as {"/a/b", "/a", ""}.
std::vector<std::string> with_parents(std::string_view path) {
  std::vector<std::string> result;
  while (!path.empty() && path != "/") {
    result.emplace_back(path);
    const size_t slash = path.rfind('/');
    path = slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
  }
  result.emplace_back();
  return result;
}

bool lists_cpu(std::string_view controllers) {
  for (;;) {
    const size_t comma = controllers.find(',');
    if (controllers.substr(0, comma) == "cpu") return true;
    if (comma == std::string_view::npos) return false;
    controllers.remove_prefix(comma + 1);
  }
}

int32_t least_quota(int32_t a, int32_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

}  // namespace

std::vector<int32_t> affinity_cpus() {
  std::vector<int32_t> cpus;
  // The kernel refuses a mask that is shorter than its own.
  for (int max_cpus = 1024; max_cpus <= 1 << 18 && cpus.empty(); max_cpus *= 4) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(max_cpus));
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(max_cpus));
    CPU_ZERO_S(bytes, set);
    if (sched_getaffinity(0, bytes, set) == 0) {
      for (int cpu = 0; cpu < max_cpus; ++cpu) {
        if (CPU_ISSET_S(static_cast<size_t>(cpu), bytes, set)) cpus.push_back(cpu);
      }
    }
    CPU_FREE(set);
  }
  return cpus;
}

int32_t num_affinity_cpus() {
  const auto count = static_cast<int32_t>(affinity_cpus().size());
  return count > 0 ? count : std::max(1, static_cast<int32_t>(std::thread::hardware_concurrency()));
}

int32_t quota_of_cfs(std::string_view quota_us, std::string_view period_us) {
  const int64_t quota = positive_number(quota_us);
  const int64_t period = positive_number(period_us);
  if (quota == 0 || period == 0) return 0;
  const int64_t cpus = quota / period + (quota % period != 0 ? 1 : 0);
  return static_cast<int32_t>(std::min<int64_t>(cpus, INT32_MAX));
}

int32_t quota_of_cpu_max(std::string_view cpu_max) {
  cpu_max = trim(cpu_max);
  const size_t space = cpu_max.find(' ');
  if (space == std::string_view::npos) return quota_of_cfs(cpu_max, "100000");
  return quota_of_cfs(cpu_max.substr(0, space), cpu_max.substr(space + 1));
}

CgroupPaths parse_cgroup_paths(std::string_view text) {
  CgroupPaths paths;
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    const size_t first = line.find(':');  // hierarchy:controllers:path
    if (first == std::string_view::npos) continue;
    const size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string_view path = line.substr(second + 1);
    if (line.substr(0, first) == "0" && controllers.empty()) {
      paths.v2 = with_parents(path);
    } else if (lists_cpu(controllers)) {
      paths.v1 = with_parents(path);
    }
  }
  return paths;
}

int32_t cgroup_cpu_quota(const std::string& root) {
  const CgroupPaths paths = parse_cgroup_paths(read_file(root + "/proc/self/cgroup"));
  const std::string mount = root + "/sys/fs/cgroup";
  int32_t quota = 0;
  for (const std::string& path : paths.v2) {
    quota = least_quota(quota, quota_of_cpu_max(read_file(mount + path + "/cpu.max")));
  }
  for (const std::string& path : paths.v1) {
    for (const char* controller : {"/cpu", "/cpu,cpuacct"}) {
      const std::string group = mount + controller + path;
      quota = least_quota(quota, quota_of_cfs(read_file(group + "/cpu.cfs_quota_us"),
                                              read_file(group + "/cpu.cfs_period_us")));
    }
  }
  return quota;
}

int32_t num_physical_cores(std::span<const int32_t> cpus, const std::string& root) {
  std::set<std::string> cores;
  for (const int32_t cpu : cpus) {
    const std::string number = std::to_string(cpu);
    const std::string siblings =
        read_file(root + "/sys/devices/system/cpu/cpu" + number + "/topology/thread_siblings_list");
    cores.insert(siblings.empty() ? "cpu" + number : siblings);
  }
  return static_cast<int32_t>(cores.size());
}

int32_t choose_num_threads(int32_t affinity, int32_t quota, int32_t cores) {
  return std::max(1, least_quota(least_quota(affinity, quota), cores));
}

int32_t default_num_threads() {
  return choose_num_threads(num_affinity_cpus(), cgroup_cpu_quota(),
                            num_physical_cores(affinity_cpus()));
}

}  // namespace octavo
