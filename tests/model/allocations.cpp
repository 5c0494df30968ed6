// Nothing allocates after construction: every kind of allocation is counted here.
#include <atomic>
#include <cstdlib>
#include <new>
#include <vector>

#include "model/definitions.hpp"
#include "support/catch.hpp"

namespace {
std::atomic<long> allocations{0};

void* counted(void* memory) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return memory;
}
}  // namespace

// With glibc, malloc and related functions are counted directly, and with them the operators new that call
// them. A sanitizer has its own malloc, which must not be replaced; then the operators are counted.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif

#if defined(__GLIBC__) && !defined(SANITIZED)

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) { return counted(__libc_malloc(bytes)); }
void* calloc(std::size_t count, std::size_t bytes) { return counted(__libc_calloc(count, bytes)); }
void* realloc(void* memory, std::size_t bytes) { return counted(__libc_realloc(memory, bytes)); }
void* memalign(std::size_t alignment, std::size_t bytes) { return counted(__libc_memalign(alignment, bytes)); }
void* aligned_alloc(std::size_t alignment, std::size_t bytes) { return counted(__libc_memalign(alignment, bytes)); }
int posix_memalign(void** memory, std::size_t alignment, std::size_t bytes) {
  *memory = counted(__libc_memalign(alignment, bytes));
  return *memory == nullptr ? 12 : 0;  // ENOMEM
}
}

#else

void* operator new(std::size_t bytes) {
  void* memory = counted(std::malloc(bytes == 0 ? 1 : bytes));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  const auto size = static_cast<std::size_t>(alignment);
  void* memory = counted(std::aligned_alloc(size, (bytes + size - 1) / size * size));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

#endif

using namespace moe_mamba;
using test::Bench;

namespace {

/// The number of allocations of `call`.
template <class Call>
long allocations_of(const Call& call) {
  const long before = allocations.load();
  call();
  return allocations.load() - before;
}

/// Every kind of layer, at sizes at which work is split.
using Net = LanguageModel<
    Vocabulary<131>, Width<40>, Head,
    Repeat<2, Mamba<>, Moe<Experts<4>, TopK<2>, Hidden<70>, SwiGlu, SharedExperts<1>, ZLoss<1, 100>>>, LayerNorm<>,
    Parallel<Mamba<State<5>, InputExperts<3>, GateExperts<3>, OutputExperts<3>, TopK<2>>, Moe<Experts<3>, Capacity<1>>>,
    Mlp<>, Attention<Heads<4>, KeyValueHeads<2>, Context<150>, Biases>>;
using Series = SequenceModel<Inputs<4>, Outputs<2>, Width<24>,
                             Mamba<State<8>, GateExperts<2>, OutputExperts<3>, SeparateRouters, Hidden<20>>, Mlp<>>;

template <class Definition, class S>
void check_nothing_allocates(int threads) {
  INFO(threads << " threads");
  using C = compute_t<S>;
  const Shape shape{2, 80};
  Cpu device(Threads{threads});
  const auto parameters = test::parameters<Definition>();
  Bench<Definition, S> inference(device, shape, parameters, Purpose::inference), training(device, shape, parameters);
  const auto data = test::data<Definition, C>(shape), steps = test::data<Definition, C>({2, 1});
  auto states = test::random_states<Definition, S>(2), dstates = states;
  const States<Definition, S> kept = states;
  std::vector<C> outputs(static_cast<std::size_t>(shape.tokens() * Definition::output_width));
  std::vector<C> last(static_cast<std::size_t>(2 * Definition::output_width));
  std::vector<C> gradients(static_cast<std::size_t>(Definition::parameters));
  const std::span<const typename Bench<Definition, S>::Input> inputs = data.inputs, targets = data.targets;

  // The first call already.
  CHECK(allocations_of([&] { inference.model.step(inference.workspace, states, steps.inputs, last); }) == 0);
  CHECK(allocations_of([&] { inference.model.forward(inference.workspace, inputs, shape, outputs, &states); }) == 0);
  CHECK(allocations_of([&] { inference.model.forward_last(inference.workspace, inputs, shape, last, &states); }) == 0);
  CHECK(allocations_of([&] { (void)inference.model.loss(inference.workspace, inputs, targets, shape, &states); }) == 0);
  CHECK(allocations_of([&] {
          (void)training.model.gradient(training.workspace, inputs, targets, shape, gradients, &states, &dstates);
        }) == 0);
  CHECK(allocations_of([&] { training.model.forward(training.workspace, inputs, shape, outputs); }) == 0);
  CHECK(allocations_of([&] { training.model.backward(training.workspace, outputs, gradients); }) == 0);
  CHECK(allocations_of([&] {
          states = kept;
          dstates.reset();
          states.reset(1);
        }) == 0);
  double load = 0;
  CHECK(allocations_of([&] {
          training.workspace.visit_routers([&](const RouterReport& report) { load += report.load[0]; });
        }) == 0);
  CHECK(load >= 0);
  // A smaller batch than the largest.
  CHECK(allocations_of([&] {
          inference.model.step(inference.workspace, states, steps.inputs, last);
          states.reset();
        }) == 0);
}

}  // namespace

TEST_CASE("The counter counts", "[model][allocations]") {
  CHECK(allocations_of([] {}) == 0);
  CHECK(allocations_of([] { delete new int(3); }) <= 1);  // may be left out
  CHECK(allocations_of([] { const std::vector<int> memory(100, 3); }) <= 1);
  void* volatile memory = nullptr;
  CHECK(allocations_of([&] { memory = ::operator new(100); }) == 1);
  ::operator delete(memory);
  CHECK(allocations_of([&] { memory = ::operator new (100, std::align_val_t{256}); }) == 1);
  ::operator delete (memory, std::align_val_t{256});
  CHECK(allocations_of([] { const States<Net> states(3); }) == 1);
}

TEST_CASE("No call on a model allocates", "[model][allocations]") {
  for (const int threads : {1, 2}) {
    check_nothing_allocates<Net, float>(threads);
    check_nothing_allocates<Net, double>(threads);
    check_nothing_allocates<Net, bfloat16>(threads);
    check_nothing_allocates<Series, float>(threads);
  }
}
