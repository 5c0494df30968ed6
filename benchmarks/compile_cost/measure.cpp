// measure REPEATS COMMAND...: runs the command so many times and prints the median of its seconds and its peak memory
// in MiB. Exits with 1 where the command fails.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

int main(int count, char** words) {
  if (count < 3) return std::fprintf(stderr, "usage: measure REPEATS COMMAND...\n"), 2;
  std::vector<double> seconds;
  double mebibytes = 0;
  for (int left = std::max(1, std::atoi(words[1])); left > 0; --left) {
    const auto begin = std::chrono::steady_clock::now();
    const pid_t child = fork();
    if (child == 0) {
      execvp(words[2], words + 2);
      std::perror(words[2]);
      _exit(127);
    }
    int status = 0;
    rusage usage{};
    if (child < 0 || wait4(child, &status, 0, &usage) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      std::fprintf(stderr, "%s failed\n", words[2]);
      return 1;
    }
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
#if defined(__APPLE__)
    const double unit = 1024.0 * 1024.0;  // bytes
#else
    const double unit = 1024.0;  // KiB
#endif
    mebibytes = std::max(mebibytes, static_cast<double>(usage.ru_maxrss) / unit);
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2), seconds.end());
  std::printf("%.2f %.0f\n", seconds[seconds.size() / 2], mebibytes);
}
