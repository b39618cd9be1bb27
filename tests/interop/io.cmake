add_executable(io_driver io_driver.c)
set_target_properties(io_driver PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(io_driver PRIVATE dr_io)
