#pragma once

#include <cstddef>
#include <type_traits>

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/optimizer.hpp"
#include "moe_mamba/ops/router.hpp"
#include "moe_mamba/ops/sampling.hpp"
#include "moe_mamba/runtime/backend.hpp"

namespace moe_mamba::inline v0_2 {

/// A definition whose inputs are token ids: a LanguageModel.
template <class T>
concept TokenDefinition = requires {
  T::vocabulary;
};

/// The inputs of a model: token ids or numbers.
template <class Definition, StorageScalar S>
using InputOf = std::conditional_t<TokenDefinition<Definition>, Token, compute_t<S>>;

/// The operands of a pass through a model. All pointers are to the backend's memory, and `shape` is at most the
/// workspace's largest.
template <class Definition, StorageScalar S, class Backend>
struct PassCall {
  using C = compute_t<S>;
  using Input = InputOf<Definition, S>;

  Backend& device;
  Shape shape;
  bool training;              ///< whether the workspace keeps what a backward pass needs
  Arena memory;               ///< the workspace's block, which model/pass_buffers.hpp divides
  std::byte* thread_scratch;  ///< at the end of the block: scratch memory of all threads of the device together
  std::size_t thread_scratch_bytes;
  const S* parameters;             ///< (Definition::parameters)
  const Input* inputs = nullptr;   ///< (T) tokens or (T, I)
  const Input* targets = nullptr;  ///< (T) tokens or masked_target, or (T, O); null: without a loss
  Index normaliser = 0;    ///< the number of targets that a loss's gradient is the mean over; 0: the batch's own
  StateView<C> states{};   ///< running states, read and updated; null: none
  StateView<C> dstates{};  ///< gradient w.r.t. the final states on entry, w.r.t. the initial ones on return
  C* gradients = nullptr;  ///< (Definition::parameters), added to
  C* dinputs = nullptr;    ///< (T, I), overwritten; may be the inputs, or null
  /// Whether this batch is the first of a sum of gradients: then clear_gradients() has skipped those that a layer's
  /// backward pass overwrites.
  bool begins = false;
  GradientReady ready = {};  ///< called as gradients are completed; see blocks/layer.hpp
};

/// Rows of the outputs: `count` of them, from `first` on at a stride of `step`.
struct OutputRows {
  Index first, step, count;
};

/// All functions of a model that run operations, as a table: the interface between sessions, which any compiler can
/// compile, and kernels, which may need a particular one. Only Session and the optimizer call them.
///
/// None of them checks, waits or allocates; on a CUDA device they enqueue their work in its stream.
template <class Definition, StorageScalar S, class Backend>
struct Passes {
  using C = compute_t<S>;
  using Call = PassCall<Definition, S, Backend>;
  using Update = AdamWUpdate<C, S>;

  /// Bytes that a workspace needs for batches up to this shape, and how many of them, at its end, are for all threads
  /// of the device together.
  std::size_t (*workspace_bytes)(Backend& device, Shape largest, bool training) = nullptr;
  std::size_t (*thread_scratch_bytes)(Backend& device, Shape largest, bool training) = nullptr;

  /// Everything except the head: leaves the output of the final norm in the workspace and, in a training workspace, the
  /// saved activations. With token targets, masked ones are not counted in the routers' reports.
  void (*body)(const Call& call) = nullptr;

  /// Outputs of some rows of the batch of the last body().
  void (*outputs)(const Call& call, OutputRows rows, C* outputs) = nullptr;

  /// After body(): writes the sum of the losses and the number of targets to the report and, with gradients, computes
  /// those w.r.t. the final norm's output and the head's parameters.
  void (*loss)(const Call& call) = nullptr;

  /// From the gradients w.r.t. the outputs of consecutive rows, computes those w.r.t. the final norm's output and the
  /// head's parameters.
  void (*outputs_backward)(const Call& call, OutputRows rows, const C* doutputs) = nullptr;

  /// The rest of the backward pass, down to the inputs: after loss(), or after outputs_backward() for all rows.
  void (*body_backward)(const Call& call) = nullptr;

  /// Clears gradients, except for those that the next backward pass overwrites if it is called with `begins`.
  void (*clear_gradients)(Backend& device, C* gradients) = nullptr;

  /// *sum = Σ value².
  void (*sum_of_squares)(Backend& device, const C* values, Index count, double* sum) = nullptr;

  /// AdamW's update.
  void (*update)(Backend& device, const Update& update) = nullptr;

  /// Moves selection biases.
  void (*update_selection_biases)(Backend& device, const SelectionBiasUpdate<S>& update) = nullptr;

  /// Starts a sum of reports with that of one workspace, or adds another one; null: zeros.
  void (*sum_reports)(Backend& device, const double* report, double* sum, Into into) = nullptr;

  /// Zeros.
  void (*clear)(Backend& device, C* values, Index count) = nullptr;

  /// values *= factor.
  void (*scale)(Backend& device, C factor, C* values, Index count) = nullptr;

  /// Samples a token for each row of logits, and the bytes of scratch for that; null for backends that work in host
  /// memory, which use the class Sampler.
  void (*sample)(Backend& device, const SampleTokens<C>& tokens) = nullptr;
  std::size_t (*sample_scratch)(Backend& device, Index rows, Index vocabulary) = nullptr;
};

/// The passes of a model. Defined in model/passes_definition.hpp for backends that work in host memory, so that the
/// host compiler instantiates them on use; for a CUDA device in cuda.cuh, which nvcc compiles.
template <class Definition, StorageScalar S, class Backend>
struct PassesOf {
  static const Passes<Definition, S, Backend>& get();
};
template <class Definition, StorageScalar S>
struct PassesOf<Definition, S, Cuda> {
  static const Passes<Definition, S, Cuda>& get();
};

}  // namespace moe_mamba::inline v0_2
