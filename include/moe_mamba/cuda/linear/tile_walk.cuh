#pragma once

#include <algorithm>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/ops/linear.hpp"

/// How grouped products are cut into tiles.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Which dimension of a factor is contiguous: the inner one, over which a product sums, or the outer one.
enum class Along { inner, outer };

/// Tiles of the rows of all groups, those of a group after those of the one before, the columns of some rows together.
/// Only the device knows how many there are: a block takes every gridDim.x-th until there is none.
struct TileWalk {
  Groups groups;
  Index first_of_all, end_of_all;  // rows that are looked at
  Index tile_rows, tile_columns, column_tiles;
  Index group = 0, tiles_before = 0;          // where the search goes on
  Index first_row = 0, rows = 0, column = 0;  // what it found: rows from first_row on, in `group`

  __device__ TileWalk(Groups groups_, Index first, Index count, Index tile_rows_, Index tile_columns_, Index columns)
      : groups(groups_),
        first_of_all(first),
        end_of_all(first + count),
        tile_rows(tile_rows_),
        tile_columns(tile_columns_),
        column_tiles(ceiling_divide(columns, tile_columns_)) {}

  /// Whether there is a tile of this number; numbers must grow from call to call.
  __device__ bool find(Index tile) {
    for (; group < groups.count; ++group) {
      const Index first = max(groups.offsets[group], first_of_all);
      const Index count = min(groups.offsets[group + 1], end_of_all) - first;
      const Index tiles = count > 0 ? ceiling_divide(count, tile_rows) * column_tiles : 0;
      if (tile - tiles_before < tiles) {
        const Index row = (tile - tiles_before) / column_tiles * tile_rows;
        first_row = first + row;
        rows = min(tile_rows, count - row);
        column = (tile - tiles_before) % column_tiles * tile_columns;
        return true;
      }
      tiles_before += tiles;
    }
    return false;
  }

  /// Tiles of `rows` rows in any `groups` groups, at most.
  static Index most(Index rows, Index groups, Index columns, Index tile_rows, Index tile_columns) {
    return (rows / tile_rows + std::min(rows, groups)) * ceiling_divide(columns, tile_columns);
  }
};

/// How the rows of a group are split among sums that are added up afterwards: into `splits` chunks or fewer, all but
/// the last of as many rows, whole steps of them.
struct RowSplit {
  static constexpr Index step = 64;
  Index rows, chunk;

  __device__ RowSplit(Index rows_, Index splits)
      : rows(rows_), chunk(splits == 1 ? rows_ : ceiling_divide(ceiling_divide(rows_, splits), step) * step) {}
  __device__ Index chunks() const { return ceiling_divide(rows, chunk); }
};

/// Tiles of the gradients of all groups' matrices, those of a group after those of the one before, and of these those
/// over a chunk of its rows after those over the chunk before, the columns of some rows together. Groups without rows
/// among those that are looked at have none, or as others do where `all` have some.
struct WeightTileWalk {
  Groups groups;
  Index first_of_all, end_of_all;  // rows that are looked at
  Index splits;                    // of a group's rows
  bool all;
  Index tile_rows, tile_columns, column_tiles, matrix_tiles;
  Index group = 0, tiles_before = 0;         // where the search goes on
  Index first_row = 0, rows = 0, chunk = 0;  // what it found: rows from first_row on, in a chunk of `group`,
  Index row = 0, column = 0;                 // and a tile's place in the matrix

  __device__ WeightTileWalk(Groups groups_, Index first, Index count, Index splits_, bool all_, Index tile_rows_,
                            Index tile_columns_, Index matrix_rows, Index matrix_columns)
      : groups(groups_),
        first_of_all(first),
        end_of_all(first + count),
        splits(splits_),
        all(all_),
        tile_rows(tile_rows_),
        tile_columns(tile_columns_),
        column_tiles(ceiling_divide(matrix_columns, tile_columns_)),
        matrix_tiles(column_tiles * ceiling_divide(matrix_rows, tile_rows_)) {}

  /// Whether there is a tile of this number; numbers must grow from call to call.
  __device__ bool find(Index tile) {
    for (; group < groups.count; ++group) {
      const Index first = max(groups.offsets[group], first_of_all);
      const Index count = max(Index{0}, min(groups.offsets[group + 1], end_of_all) - first);
      if (count == 0 && !all) continue;
      const RowSplit split(count, splits);
      const Index tiles = matrix_tiles * (count == 0 ? 1 : split.chunks());
      if (tile - tiles_before < tiles) {
        const Index of_chunk = (tile - tiles_before) % matrix_tiles;
        chunk = (tile - tiles_before) / matrix_tiles;
        first_row = min(first, end_of_all) + chunk * split.chunk;
        rows = min(split.chunk, count - chunk * split.chunk);
        row = of_chunk / column_tiles * tile_rows;
        column = of_chunk % column_tiles * tile_columns;
        return true;
      }
      tiles_before += tiles;
    }
    return false;
  }

  /// Tiles of `groups` matrices at most, for one chunk of each group's rows.
  static Index most(Index groups, Index matrix_rows, Index matrix_columns, Index tile_rows, Index tile_columns) {
    return groups * ceiling_divide(matrix_rows, tile_rows) * ceiling_divide(matrix_columns, tile_columns);
  }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
