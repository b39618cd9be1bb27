add_executable(data_driver data_driver.c)
set_target_properties(data_driver PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(data_driver PRIVATE dr_data)
