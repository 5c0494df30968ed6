#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terminal.hpp"

/// The axes of charts.
namespace support {

enum class Scale { linear, logarithmic };

/// A value on an axis and how it is written.
using Tick = std::pair<double, std::string>;

/// An axis from `low` to `high` with a label such as "bits per byte". On a logarithmic one, both are above 0.
struct Axis {
  std::string label;
  double low = 0, high = 1;
  Scale scale = Scale::linear;
  std::vector<Tick> ticks = {};  ///< where and how it is labelled; empty: at round numbers

  /// Where a value is, from 0 at `low` to 1 at `high`.
  double share(double value) const {
    if (scale == Scale::linear) return (value - low) / (high - low);
    return std::log(value / low) / std::log(high / low);
  }
  /// Whether a value has a place on the axis, within its ends or beyond.
  bool has(double value) const { return std::isfinite(value) && (scale == Scale::linear || value > 0); }
};

/// 0.02, 250, 1.5k, 20k, 3M
inline std::string tick_label(double value) {
  constexpr std::pair<double, const char*> units[] = {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
  for (const auto& [unit, letter] : units) {
    if (value >= unit * (1 - 1e-9)) return format("%.4g", value / unit) + letter;
  }
  return format("%.4g", value);
}

namespace detail {

inline std::vector<double> linear_ticks(double low, double high, int count) {
  const double span = std::max(high - low, 1e-12), rough = span / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double distance = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= rough) distance = factor * power;
  }
  std::vector<double> values;
  for (double value = std::ceil(low / distance - 1e-9) * distance; value <= high + 1e-9 * span; value += distance) {
    values.push_back(std::abs(value) < 1e-9 * distance ? 0.0 : value);
  }
  return values;
}

/// Powers of ten, or with 1, 2 and 5 times those where there would be few.
inline std::vector<double> logarithmic_ticks(double low, double high, int count) {
  const int first = static_cast<int>(std::floor(std::log10(low))), last = static_cast<int>(std::ceil(std::log10(high)));
  const int stride = std::max(1, (last - first + count - 1) / count);
  std::vector<double> values;
  for (const std::vector<double>& factors :
       {std::vector<double>{1}, std::vector<double>{1, 3}, std::vector<double>{1, 2, 5}}) {
    values.clear();
    for (int power = first; power <= last; power += stride) {
      for (const double factor : factors) {
        const double value = factor * std::pow(10.0, power);
        if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) values.push_back(value);
      }
    }
    if (values.size() >= 4) return values;
  }
  return values.size() >= 3 ? values : linear_ticks(low, high, count);
}

}  // namespace detail

/// The labelled values of an axis: its own or about `count` round numbers.
inline std::vector<Tick> ticks(const Axis& axis, int count) {
  std::vector<Tick> result;
  for (const Tick& tick : axis.ticks) {
    const double share = axis.share(tick.first);
    if (share > -1e-9 && share < 1 + 1e-9) result.push_back(tick);
  }
  if (!axis.ticks.empty()) return result;
  const auto values = axis.scale == Scale::linear ? detail::linear_ticks(axis.low, axis.high, count)
                                                  : detail::logarithmic_ticks(axis.low, axis.high, count);
  for (const double value : values) result.emplace_back(value, tick_label(value));
  return result;
}

/// About how wide a text is in a sans-serif font, on the safe side: drawings are laid out without knowing the font.
inline double text_width(std::string_view text, double font_size = 14) {
  double width = 0;
  for (const char character : text) {
    if ((static_cast<unsigned char>(character) & 0xc0) == 0x80) continue;  // not the first byte of a character
    const auto among = [&](std::string_view set) { return set.find(character) != set.npos; };
    width += among("iljtfrI.,:;'|!() ")             ? 0.4
             : among("mwMW%@")                      ? 0.95
             : character >= 'A' && character <= 'Z' ? 0.72
                                                    : 0.63;
  }
  return width * font_size;
}

}  // namespace support
