// How many threads this process should compute with. Read from the kernel's files when asked;
// stateless, callable from any thread. `default_num_threads()` is declared in octavo/engine.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace octavo {

// The CPUs that this process may run on.
std::vector<int32_t> affinity_cpus();
int32_t num_affinity_cpus();

// The CPUs' worth of time that a cgroup may use, rounded up to whole CPUs, at least 1; 0: no limit,
// or a text that is not understood.
int32_t quota_of_cpu_max(std::string_view cpu_max);                           // v2: "150000 100000"
int32_t quota_of_cfs(std::string_view quota_us, std::string_view period_us);  // v1: "-1", "100000"

// The directories, relative to the cgroup mount, that limit a process whose /proc/self/cgroup is
// `text`: its own group and the groups above, for v2 and for v1's cpu controller.
struct CgroupPaths {
  std::vector<std::string> v2;
  std::vector<std::string> v1;
};
CgroupPaths parse_cgroup_paths(std::string_view text);

// The least quota of this process's cgroups, 0 where none is set. `root` stands for "/" in tests.
int32_t cgroup_cpu_quota(const std::string& root = "");

// Distinct physical cores among `cpus`; a CPU whose core is not known counts as one.
int32_t num_physical_cores(std::span<const int32_t> cpus, const std::string& root = "");

// The least of its arguments that is not 0, and at least 1.
int32_t choose_num_threads(int32_t affinity, int32_t quota, int32_t cores);

}  // namespace octavo
