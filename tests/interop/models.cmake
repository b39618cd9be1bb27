add_executable(model_driver model_driver.c)
set_target_properties(model_driver PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(model_driver PRIVATE dr_train)
