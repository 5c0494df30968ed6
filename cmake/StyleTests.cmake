# Tests of how the code is written: tests/style/check.sh, one entry for each of its checks. A check whose tool is missing
# (or is another version, for clang-format) exits with 77 and counts as skipped.
foreach(check format words rooms)
  add_test(NAME style.${check} COMMAND sh ${PROJECT_SOURCE_DIR}/tests/style/check.sh ${check})
endforeach()
add_test(NAME style.tidy COMMAND sh ${PROJECT_SOURCE_DIR}/tests/style/check.sh tidy ${flags})
foreach(check format words rooms tidy)
  set_tests_properties(style.${check} PROPERTIES LABELS style SKIP_RETURN_CODE 77 TIMEOUT 600)
endforeach()
set_tests_properties(style.tidy PROPERTIES COST 20)
