// Mamba blocks with experts in their projections.
#include "bits/print.hpp"

int main() {
  const bool routed = test::bits::print<test::kept::RoutedMamba>("RoutedMamba");
  const bool separately = test::bits::print<test::kept::SeparatelyRoutedMamba>("SeparatelyRoutedMamba");
  return routed && separately ? 0 : 1;
}
