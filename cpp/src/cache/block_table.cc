#include "cache/block_table.h"

#include <utility>

#include "cache/block_manager.h"
#include "octavo/error.h"

namespace octavo {

BlockTable::~BlockTable() {
  try {
    clear();
  } catch (const InternalError&) {
    // The counts are broken already, as every later check will say; the process goes on.
  }
}

BlockTable& BlockTable::operator=(BlockTable&& other) {
  if (this != &other) {
    clear();
    swap(other);
  }
  return *this;
}

void BlockTable::clear() {
  for (; !ids_.empty(); ids_.pop_back()) manager_->release(ids_.back());
  manager_ = nullptr;
  num_published_ = 0;
  last_published_ = {};
  epoch_ = 0;
}

void BlockTable::swap(BlockTable& other) noexcept {
  std::swap(manager_, other.manager_);
  std::swap(ids_, other.ids_);
  std::swap(num_published_, other.num_published_);
  std::swap(last_published_, other.last_published_);
  std::swap(epoch_, other.epoch_);
}

}  // namespace octavo
