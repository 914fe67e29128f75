#include "base/cpu_topology.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "octavo/engine.h"

namespace octavo {
namespace {

TEST_CASE("cpu.max of cgroup v2") {
  CHECK(quota_of_cpu_max("max 100000\n") == 0);
  CHECK(quota_of_cpu_max("max") == 0);
  CHECK(quota_of_cpu_max("200000 100000\n") == 2);
  CHECK(quota_of_cpu_max("150000 100000") == 2);
  CHECK(quota_of_cpu_max("1000 100000") == 1);
  CHECK(quota_of_cpu_max("50000") == 1);
  CHECK(quota_of_cpu_max("") == 0);
  CHECK(quota_of_cpu_max("abc def") == 0);
  CHECK(quota_of_cpu_max("100000 0") == 0);
  CHECK(quota_of_cpu_max("9223372036854775807 1") == INT32_MAX);
}

TEST_CASE("the quota files of cgroup v1") {
  CHECK(quota_of_cfs("-1\n", "100000\n") == 0);
  CHECK(quota_of_cfs("250000\n", "100000\n") == 3);
  CHECK(quota_of_cfs("300000\n", "100000\n") == 3);
  CHECK(quota_of_cfs("", "") == 0);
}

TEST_CASE("/proc/self/cgroup") {
  const CgroupPaths v2 = parse_cgroup_paths("0::/system.slice/app.service\n");
  CHECK(v2.v2 == std::vector<std::string>{"/system.slice/app.service", "/system.slice", ""});
  CHECK(v2.v1.empty());

  const CgroupPaths hybrid =
      parse_cgroup_paths("12:cpuset:/a\n4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n0::/\n");
  CHECK(hybrid.v1 == std::vector<std::string>{"/docker/abc", "/docker", ""});
  CHECK(hybrid.v2 == std::vector<std::string>{""});

  CHECK(parse_cgroup_paths("nonsense").v2.empty());
  CHECK(parse_cgroup_paths("").v1.empty());
}

TEST_CASE("the least of affinity, quota and cores") {
  CHECK(choose_num_threads(8, 0, 4) == 4);
  CHECK(choose_num_threads(8, 2, 4) == 2);
  CHECK(choose_num_threads(1, 2, 4) == 1);
  CHECK(choose_num_threads(8, 0, 0) == 8);
  CHECK(choose_num_threads(0, 0, 0) == 1);
}

class FakeRoot {
 public:
  FakeRoot() {
    std::string name = std::filesystem::temp_directory_path() / "octavo_topology_XXXXXX";
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~FakeRoot() { std::filesystem::remove_all(path_); }
  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = path_.string() + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST_CASE("the least quota of a group and those above it") {
  const FakeRoot root;
  CHECK(cgroup_cpu_quota(root.path()) == 0);
  root.write("/proc/self/cgroup", "0::/pod/container\n");
  root.write("/sys/fs/cgroup/pod/container/cpu.max", "max 100000\n");
  CHECK(cgroup_cpu_quota(root.path()) == 0);
  root.write("/sys/fs/cgroup/pod/cpu.max", "350000 100000\n");
  CHECK(cgroup_cpu_quota(root.path()) == 4);
  root.write("/sys/fs/cgroup/pod/container/cpu.max", "100000 50000\n");
  CHECK(cgroup_cpu_quota(root.path()) == 2);
}

TEST_CASE("a v1 group that is not mounted falls back to the root of the mount") {
  const FakeRoot root;
  root.write("/proc/self/cgroup", "4:cpu,cpuacct:/docker/abc\n");
  root.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "120000\n");
  root.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  CHECK(cgroup_cpu_quota(root.path()) == 2);
}

TEST_CASE("hyper-threads of one core count once") {
  const FakeRoot root;
  const auto siblings = [](int cpu) {
    return "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list";
  };
  for (const int cpu : {0, 4}) root.write(siblings(cpu), "0,4\n");
  for (const int cpu : {1, 5}) root.write(siblings(cpu), "1,5\n");
  CHECK(num_physical_cores(std::vector<int32_t>{0, 1, 4, 5}, root.path()) == 2);
  CHECK(num_physical_cores(std::vector<int32_t>{0, 4}, root.path()) == 1);
  CHECK(num_physical_cores(std::vector<int32_t>{0, 7, 8}, root.path()) == 3);
}

TEST_CASE("this machine") {
  CHECK(num_affinity_cpus() >= 1);
  CHECK(num_affinity_cpus() == static_cast<int32_t>(affinity_cpus().size()));
  CHECK(default_num_threads() >= 1);
  CHECK(default_num_threads() <= num_affinity_cpus());
}

}  // namespace
}  // namespace octavo
