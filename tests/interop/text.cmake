add_executable(text_driver text_driver.c)
set_target_properties(text_driver PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(text_driver PRIVATE dr_text)
