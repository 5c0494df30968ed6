#pragma once

#include <algorithm>

#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/linear.hpp"

/// How grouped products are cut into tiles.
namespace moe_mamba::cuda::detail {

/// Tiles of the rows of all groups, those of a group after those of the one before, the columns of some rows together.
/// How many there are, the device alone knows: a block asks for every gridDim.x-th until there is none.
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

/// Tiles of the gradients of all groups' matrices, those of a group after those of the one before, the columns of some
/// rows together. Groups without rows among those that are looked at have none.
struct WeightTileWalk {
  Groups groups;
  Index first_of_all, end_of_all;  // rows that are looked at
  Index tile_rows, tile_columns, column_tiles, group_tiles;
  Index group = 0, tiles_before = 0;                   // where the search goes on
  Index first_row = 0, rows = 0, row = 0, column = 0;  // what it found: a tile's place, for rows from first_row on

  __device__ WeightTileWalk(Groups groups_, Index first, Index count, Index tile_rows_, Index tile_columns_,
                            Index matrix_rows, Index matrix_columns)
      : groups(groups_),
        first_of_all(first),
        end_of_all(first + count),
        tile_rows(tile_rows_),
        tile_columns(tile_columns_),
        column_tiles(ceiling_divide(matrix_columns, tile_columns_)),
        group_tiles(column_tiles * ceiling_divide(matrix_rows, tile_rows_)) {}

  /// Whether there is a tile of this number; numbers must grow from call to call.
  __device__ bool find(Index tile) {
    for (; group < groups.count; ++group) {
      first_row = max(groups.offsets[group], first_of_all);
      rows = min(groups.offsets[group + 1], end_of_all) - first_row;
      if (rows <= 0) continue;
      if (tile - tiles_before < group_tiles) {
        row = (tile - tiles_before) / column_tiles * tile_rows;
        column = (tile - tiles_before) % column_tiles * tile_columns;
        return true;
      }
      tiles_before += group_tiles;
    }
    return false;
  }

  /// Tiles of `groups` matrices over `rows` rows, at most.
  static Index most(Index rows, Index groups, Index matrix_rows, Index matrix_columns, Index tile_rows,
                    Index tile_columns) {
    return std::min(rows, groups) * ceiling_divide(matrix_rows, tile_rows) *
           ceiling_divide(matrix_columns, tile_columns);
  }
};

}  // namespace moe_mamba::cuda::detail
