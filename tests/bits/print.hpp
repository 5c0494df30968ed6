#pragma once

#include <cinttypes>
#include <cstdio>

#include "bits/definitions.hpp"
#include "bits/quantities.hpp"

/// The programs of tests/bits.sh.
namespace test::bits {

template <class Definition, class S>
bool print_for(const char* definition, const char* scalar, Shape shape) {
  const auto one = Quantities<Definition, S>(shape, 1).lines(), two = Quantities<Definition, S>(shape, 2).lines();
  bool same = true;
  for (std::size_t i = 0; i < one.size(); ++i) {
    std::printf("%s, %s, %s: %016" PRIx64 "\n", definition, scalar, one[i].quantity.c_str(), one[i].hash);
    if (one[i].hash == two[i].hash) continue;
    std::fprintf(stderr, "%s, %s, %s: %016" PRIx64 " the second time, on two threads\n", definition, scalar,
                 two[i].quantity.c_str(), two[i].hash);
    same = false;
  }
  return same;
}

/// Prints a line for each type of parameters and quantity: definition, type, quantity and hash. Everything is computed
/// twice, on the Cpu with one thread and then with two; returns false if the results differ.
template <class Definition>
bool print(const char* definition, Shape shape = {3, 41}) {
  const bool same[] = {print_for<Definition, float>(definition, "float", shape),
                       print_for<Definition, double>(definition, "double", shape),
                       print_for<Definition, bfloat16>(definition, "bfloat16", shape)};
  return same[0] && same[1] && same[2];
}

}  // namespace test::bits
