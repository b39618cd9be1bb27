# Helpers shared by all CMakeLists.txt: warnings, sanitizers, layers, tests.

add_library(dr_flags INTERFACE)
target_compile_features(dr_flags INTERFACE c_std_11)
target_compile_definitions(dr_flags INTERFACE _XOPEN_SOURCE=700 _DEFAULT_SOURCE)
set(dr_warnings -Wall -Wextra -Wshadow -Wconversion -Wvla -Wparentheses -Werror)
target_compile_options(dr_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:C>:${dr_warnings};-Wpedantic;-Wstrict-prototypes;-Wmissing-prototypes;-Wundef>"
  "$<$<COMPILE_LANGUAGE:CXX>:${dr_warnings}>"
  $<$<COMPILE_LANGUAGE:C,CXX>:-ffp-contract=off>)
target_include_directories(dr_flags INTERFACE ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src)
target_link_libraries(dr_flags INTERFACE m)
if(DR_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "DR_FUZZ needs libFuzzer: configure with -DCMAKE_C_COMPILER=clang")
  endif()
  target_compile_options(dr_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-fsanitize=fuzzer-no-link>)
endif()
if(DR_SANITIZE OR DR_FUZZ)
  target_compile_options(dr_flags INTERFACE
    "$<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=address,undefined;-fno-omit-frame-pointer;-g;-fno-sanitize-recover=all>")
  target_link_options(dr_flags INTERFACE -fsanitize=address,undefined)
endif()
if(DR_TSAN)
  target_compile_options(dr_flags INTERFACE "$<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=thread;-fno-omit-frame-pointer;-g>")
  target_link_options(dr_flags INTERFACE -fsanitize=thread)
endif()

# dr_layer(NAME [LIBS lib...] SOURCES file...): one layer of design §1 as static library dr_<NAME>.
function(dr_layer name)
  cmake_parse_arguments(L "" "" "SOURCES;LIBS;PRIVATE_LIBS" ${ARGN})
  add_library(dr_${name} STATIC ${L_SOURCES})
  target_link_libraries(dr_${name} PUBLIC dr_flags ${L_LIBS} PRIVATE ${L_PRIVATE_LIBS})
endfunction()

# dr_test(NAME SOURCES file... LIBS lib... [LABEL t1] [TIMEOUT 60]): a CMocka program.
# Exit 77 counts as skipped; see tests/support/dr_test.h.
function(dr_test name)
  cmake_parse_arguments(T "" "LABEL;TIMEOUT" "SOURCES;LIBS" ${ARGN})
  if(NOT T_LABEL)
    set(T_LABEL t1)
  endif()
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 60)
  endif()
  add_executable(test_${name} ${T_SOURCES})
  set_target_properties(test_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(test_${name} PRIVATE dr_test_support ${T_LIBS})
  add_test(NAME ${name} COMMAND test_${name})
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 LABELS ${T_LABEL} TIMEOUT ${T_TIMEOUT}
    ENVIRONMENT "DR_SHARED=$ENV{DR_SHARED};DR_SOURCE=${CMAKE_SOURCE_DIR};DR_BUILD=${CMAKE_BINARY_DIR}")
endfunction()
