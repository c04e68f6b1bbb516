// Buffering slots of Tiered rows: hands free slot extents out to them and takes them back, as
// elasticity.h decides. A buffer is what a row holds above its least; it is a loan: whoever needs
// slots takes it. Engine thread; nothing allocates after the constructor but the commands.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/admission.h"
#include "memory/elasticity.h"
#include "memory/row_table.h"

namespace spin {

class SlotBuffers {
 public:
  // Both outlive this.
  SlotBuffers(const Footprint* footprint, RowTable* table);

  // Extents of all buffers: all of them can be taken back.
  int64_t extents();
  // Extents that the buffers could have beside these.
  int64_t lacking();

  // Takes `extents` extents back, from the rows in proportion to their length. The pages in the
  // highest local slots are evicted. `growing` (a row or kAbsent) has its new reservation already, but
  // not all extents that it takes; what it has of them counts as no buffer. REQUIRES: there are so
  // many.
  void Reclaim(int64_t extents, int32_t growing = kAbsent);
  // Hands out at most `extents` free extents, to the rows in proportion to their length, and within
  // a row to all layers alike. REQUIRES: so many are free.
  void HandOut(int64_t extents);

  // Since the start, in extents.
  int64_t handed_out() const { return handed_out_; }
  int64_t reclaimed() const { return reclaimed_; }

 private:
  // Slot extents of all layers that a row with this reservation has as Tiered, at least and at most.
  struct Bounds {
    int64_t tokens = -1;
    int32_t budget_pages = 0;
    int64_t least = 0, most = 0;
  };
  const Bounds& BoundsOf(int32_t r);
  // Fills rows_ and row_holders_ with the rows that may have a buffer: Tiered, prefilled, not
  // suspended.
  void CollectRows(int32_t growing = kAbsent);
  // Fills layer_holders_ with the layers of a row. Returns what they hold together.
  int64_t CollectLayers(int32_t r);
  void Grow(int32_t r, int64_t extents);
  void Shrink(int32_t r, int64_t extents);

  const Footprint& footprint_;
  RowTable& table_;
  int64_t handed_out_ = 0, reclaimed_ = 0;
  std::vector<Bounds>
      bounds_;  // [max_rows], of the reservation that a row had when it was asked for
  std::vector<int32_t> rows_;  // scratch, as all that follows
  std::vector<BufferHolder> row_holders_, layer_holders_;
  std::vector<int32_t> heap_;
};

}  // namespace spin
