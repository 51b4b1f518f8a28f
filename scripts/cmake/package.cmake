# `cpack -G DEB` in a build folder makes a package of the program with its manual pages and completions, and one more for each MPI
# whose module was built (moe-openmpi, moe-mpich): who runs one process needs none of them.
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
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL runtime)  # without headers and libraries
set(CPACK_COMPONENTS_GROUPING IGNORE)  # a package for each component
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME moe)
get_property(kinds GLOBAL PROPERTY moe_mpi_found)
foreach(kind ${kinds})
  string(TOUPPER ${kind} upper)
  list(APPEND CPACK_COMPONENTS_ALL ${kind})
  list(APPEND suggested moe-${kind})
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME moe-${kind})
  set(CPACK_DEBIAN_${upper}_PACKAGE_DEPENDS "moe (= ${version})")
  set(CPACK_COMPONENT_${upper}_DESCRIPTION "moe in several processes under ${kind}")
endforeach()
list(JOIN suggested ", " CPACK_DEBIAN_RUNTIME_PACKAGE_SUGGESTS)
include(CPack)
