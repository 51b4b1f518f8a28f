# `cpack -G DEB` in a build folder makes a package of the program with its manual pages and completions.
execute_process(COMMAND git -C ${PROJECT_SOURCE_DIR} describe --tags --match v* OUTPUT_VARIABLE described
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(described MATCHES "^v([0-9].*)$")
  string(REPLACE "-" "+" version ${CMAKE_MATCH_1})
else()  # no tag: the version of CMakeLists.txt, with the revision where there is one
  execute_process(COMMAND git -C ${PROJECT_SOURCE_DIR} rev-parse --short=8 HEAD OUTPUT_VARIABLE revision
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(version ${PROJECT_VERSION})
  if(revision)
    string(APPEND version "+git${revision}")
  endif()
endif()
set(CPACK_PACKAGE_NAME moe)
set(CPACK_PACKAGE_VERSION ${version})
set(CPACK_PACKAGE_CONTACT "the authors of moe <moe@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Mixture-of-Experts research: train, trace, report")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_CMAKE_PROJECTS "${PROJECT_BINARY_DIR};moe;runtime;/")  # without headers and libraries
include(CPack)
