#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "moe_mamba/families/pretrained.hpp"
#include "moe_mamba/generate/any_decoder.hpp"

namespace moe_mamba::inline v0_2 {

/// A model of one of several definitions, selected by the checkpoint that it is loaded from. Each definition is
/// compiled as usual, and every call is dispatched once.
///
///   using Sizes = AnyModel<float, Cpu, Mamba130M, Mamba370M>;
///   const Sizes model(Pretrained{"mamba-130m-hf"});
///   model.visit([](const auto& known) { … });          // a Model<Mamba130M, float, Cpu>
///   auto decoder = model.decoder();                    // or a type-erased decoder
template <StorageScalar S, class Backend, class... Definitions>
class AnyModel {
  static_assert(sizeof...(Definitions) >= 1,
                "AnyModel<storage, backend, definitions...> needs at least one definition");

 public:
  /// Loads a checkpoint as the first of the definitions that matches its config. Throws std::runtime_error if none does
  /// (the message shows the one that would), and as load() does.
  explicit AnyModel(const Pretrained& pretrained) : model_(open(pretrained)) {}

  /// call(model) with the model's actual type; the results for all definitions must have the same type.
  template <class Call>
  decltype(auto) visit(Call&& call) {
    return std::visit(std::forward<Call>(call), model_);
  }
  template <class Call>
  decltype(auto) visit(Call&& call) const {
    return std::visit(std::forward<Call>(call), model_);
  }

  /// Index of the model's definition among `Definitions`.
  std::size_t index() const { return model_.index(); }

  /// A decoder. This object must outlive it.
  std::unique_ptr<AnyDecoder<compute_t<S>>> decoder(DecoderOptions options = {}) const {
    return visit([&](const auto& model) { return make_decoder(model, options); });
  }
  /// On the caller's device, which must outlive the decoder.
  std::unique_ptr<AnyDecoder<compute_t<S>>> decoder(Backend& device, DecoderOptions options = {}) const {
    return visit([&](const auto& model) { return make_decoder(model, device, options); });
  }

 private:
  using Variant = std::variant<Model<Definitions, S, Backend>...>;

  static Variant open(const Pretrained& pretrained) {
    const families::CheckpointFolder checkpoint(pretrained.folder, pretrained.links);
    const families::Architecture theirs = checkpoint.architecture();
    std::optional<Variant> opened;
    std::string reasons;
    std::size_t number = 0;
    const auto try_definition = [&]<class Definition>(families::Of<Definition> definition) {
      if (opened) return;
      const auto found = families::difference(theirs, families::architecture_of(definition));
      if (found) {
        reasons += "; number " + std::to_string(number++) + " has " + found->field + " " + found->allowed +
                   ", the checkpoint " + found->given;
      } else {
        opened.emplace(load<Definition, S, Backend>(pretrained));
      }
    };
    (try_definition(families::Of<Definitions>{}), ...);
    if (!opened) {
      detail::throw_content_error(checkpoint.config().file(), "the model", theirs.spelling(),
                                  "the definitions of this program" + reasons);
    }
    return std::move(*opened);
  }

  Variant model_;
};

}  // namespace moe_mamba::inline v0_2
