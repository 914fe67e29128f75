// A queue of sequences, linked through them: every operation is O(1), also leaving from the middle.
// A sequence is in one list at most. Owned by the Scheduler; step thread.
#pragma once

#include <cstdint>

#include "sched/sequence.h"

namespace octavo {

class SequenceList {
 public:
  SequenceList() = default;
  SequenceList(const SequenceList&) = delete;
  SequenceList& operator=(const SequenceList&) = delete;

  int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  Sequence* front() const { return front_; }
  Sequence* back() const { return back_; }
  static Sequence* next(const Sequence* sequence) { return sequence->next_; }

  void push_front(Sequence* sequence) { link(nullptr, sequence, front_); }
  void push_back(Sequence* sequence) { link(back_, sequence, nullptr); }
  void insert_after(const Sequence& place, Sequence* sequence) {
    link(place.previous_ ? place.previous_->next_ : front_, sequence, place.next_);
  }

  void erase(Sequence* sequence) {
    (sequence->previous_ ? sequence->previous_->next_ : front_) = sequence->next_;
    (sequence->next_ ? sequence->next_->previous_ : back_) = sequence->previous_;
    sequence->previous_ = sequence->next_ = nullptr;
    --size_;
  }

 private:
  void link(Sequence* previous, Sequence* sequence, Sequence* next) {
    sequence->previous_ = previous;
    sequence->next_ = next;
    (previous ? previous->next_ : front_) = sequence;
    (next ? next->previous_ : back_) = sequence;
    ++size_;
  }

  Sequence* front_ = nullptr;
  Sequence* back_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace octavo
