// Ids, reference counts and exhaustion of one pool.
#include "memory/extent_pool.h"

#include <catch2/catch.hpp>

namespace spin {
namespace {

TEST_CASE("a fresh pool grants ascending extents, then none") {
  ExtentPool pool(3);
  for (int32_t i = 0; i < 3; ++i) CHECK(pool.Allocate() == ExtentId{i});
  CHECK_FALSE(pool.Allocate().has_value());
  CHECK(pool.num_free() == 0);
  CHECK(pool.num_used() == 3);
  pool.CheckInvariants();
}

TEST_CASE("what was given back last is granted first") {
  ExtentPool pool(4);
  for (int i = 0; i < 4; ++i) pool.Allocate();
  CHECK(pool.Release(ExtentId{1}));
  CHECK(pool.Release(ExtentId{3}));
  CHECK(pool.Allocate() == ExtentId{3});
  CHECK(pool.Allocate() == ExtentId{1});
}

TEST_CASE("a shared extent is free when its last reference goes") {
  ExtentPool pool(1);
  const ExtentId extent = pool.Allocate().value();
  pool.Share(extent);
  pool.Share(extent);
  CHECK(pool.references(extent) == 3);
  CHECK_FALSE(pool.Release(extent));
  CHECK_FALSE(pool.Release(extent));
  CHECK_FALSE(pool.Allocate().has_value());
  CHECK(pool.Release(extent));
  CHECK(pool.Allocate() == extent);
  pool.CheckInvariants();
}

TEST_CASE("an empty pool is exhausted from the start") {
  ExtentPool pool(0);
  CHECK_FALSE(pool.Allocate().has_value());
  pool.CheckInvariants();
}

}  // namespace
}  // namespace spin
