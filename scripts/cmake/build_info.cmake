# Writes apps/build_info.h with the git revision of the moment; only touched when something changed.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=8 --exclude=* OUTPUT_VARIABLE MOE_REVISION
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT MOE_REVISION)
  set(MOE_REVISION "no git revision")
endif()
configure_file(${SOURCE}/apps/build_info.h.in ${OUTPUT} @ONLY)
