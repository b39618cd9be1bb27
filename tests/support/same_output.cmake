# cmake -DPROGRAM=... -DPAGE=... -P same_output.cmake: fails unless PROGRAM prints exactly PAGE.
execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE now RESULT_VARIABLE rc)
if(NOT rc EQUAL 0)
  message(FATAL_ERROR "${PROGRAM} ended with ${rc}")
endif()
file(READ ${PAGE} committed)
if(NOT now STREQUAL committed)
  message(FATAL_ERROR "${PAGE} is out of date; write it again: ${PROGRAM} > ${PAGE}")
endif()
