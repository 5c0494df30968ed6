#pragma once

#include <cstddef>
#include <type_traits>

#include "moe_mamba/core/backend.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/optimizer.hpp"
#include "moe_mamba/ops/sampling.hpp"

namespace moe_mamba {

/// A definition whose inputs are token ids: a LanguageModel.
template <class T>
concept TokenDefinition = requires {
  T::vocabulary;
};

/// What goes into a model: token ids or numbers.
template <class Definition, StorageScalar S>
using InputOf = std::conditional_t<TokenDefinition<Definition>, Token, compute_t<S>>;

template <class Definition, StorageScalar S, class Backend>
class Workspace;

/// Everything of a model that runs operations, as a table of functions: the seam between models, trainers and decoders,
/// which any compiler takes, and kernels, which may need one of their own.
///
/// All pointers are to memory of the backend's. Nothing here checks, waits or allocates; on a device the work is put
/// into its stream. `shape` is at most the workspace's largest; a null state view stands for no states.
template <class Definition, StorageScalar S, class Backend>
struct Passes {
  using C = compute_t<S>;
  using Input = InputOf<Definition, S>;
  using WorkspaceType = Workspace<Definition, S, Backend>;
  using Update = AdamWUpdate<C, S>;

  /// Bytes that the passes need beside the workspace's own buffers.
  std::size_t (*scratch_bytes)(Backend& device, Shape largest, bool training);

  /// Everything but the head: leaves the output of the final norm in the workspace, and of a training workspace what the
  /// backward pass needs.
  void (*body)(WorkspaceType& workspace, Shape shape, const S* parameters, const Input* inputs, StateView<C> states);

  /// Outputs of some rows of the batch that body went through: row `first`, and each `step` rows further on.
  void (*outputs)(WorkspaceType& workspace, Shape shape, const S* parameters, Index first, Index step, Index rows,
                  C* outputs);

  /// body, and the sum of the losses and the number of targets into the workspace's report.
  void (*loss)(WorkspaceType& workspace, Shape shape, const S* parameters, const Input* inputs, const Input* targets,
               StateView<C> states);

  /// The same, and the gradient of the total loss, which is assigned or added.
  void (*gradient)(WorkspaceType& workspace, Shape shape, const S* parameters, const Input* inputs,
                   const Input* targets, C* gradients, Into into, StateView<C> states, StateView<C> dstates);

  /// From the gradients by the outputs of `rows` rows from `first` on, to that by the final norm's output and the
  /// head's parameters.
  void (*outputs_backward)(WorkspaceType& workspace, Shape shape, const S* parameters, Index first, Index rows,
                           const C* doutputs, C* gradients);

  /// From there to the inputs, once outputs_backward has been through all rows. `dinputs` may be null, or the inputs.
  void (*body_backward)(WorkspaceType& workspace, Shape shape, const S* parameters, const Input* inputs, C* gradients,
                        C* dinputs, StateView<C> dstates);

  /// *squares = Σ gradient², and AdamW's update.
  void (*update)(Backend& device, const Update& update, double* squares);

  /// Zeros.
  void (*clear)(Backend& device, C* values, Index count);

  /// values *= factor.
  void (*scale)(Backend& device, C factor, C* values, Index count);

  /// A token for each row of logits, and the bytes of scratch that takes; null for backends in the host's memory, which
  /// have the class Sampler.
  void (*sample)(Backend& device, const SampleTokens<C>& tokens);
  std::size_t (*sample_scratch)(Backend& device, Index rows, Index vocabulary);
};

/// Where a model finds its passes. Defined in model/passes_definition.hpp for backends that work in the host's memory, so
/// that the host's compiler makes them when it sees them used; for a device in cuda.cuh, which is another's to compile.
template <class Definition, StorageScalar S, class Backend>
struct PassesOf {
  static const Passes<Definition, S, Backend>& get();
};
template <class Definition, StorageScalar S>
struct PassesOf<Definition, S, Cuda> {
  static const Passes<Definition, S, Cuda>& get();
};

}  // namespace moe_mamba
