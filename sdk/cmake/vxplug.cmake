# CMake toolchain file for plugins:  cmake -DCMAKE_TOOLCHAIN_FILE="$(vxplug cmake-toolchain)" …
#
# Compiles for the sandbox with the programs vxplug-cc, vxplug-c++, vxplug-ar and vxplug-ranlib, which must be
# on PATH, and adds
#
#     vxplug_add_plugin(NAME SOURCE… [LIBRARIES TARGET…])
#
# a target NAME_vxm that builds NAME.vxm from sources and static libraries.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR i686)

foreach(VXPLUG_tool IN ITEMS cc c++ ar ranlib)
    find_program(VXPLUG_PROGRAM_${VXPLUG_tool} vxplug-${VXPLUG_tool} REQUIRED)
endforeach()
find_program(VXPLUG_PROGRAM vxplug REQUIRED)
set(CMAKE_C_COMPILER "${VXPLUG_PROGRAM_cc}")
set(CMAKE_CXX_COMPILER "${VXPLUG_PROGRAM_c++}")
set(CMAKE_ASM_COMPILER "${VXPLUG_PROGRAM_cc}")
set(CMAKE_AR "${VXPLUG_PROGRAM_ar}" CACHE FILEPATH "" FORCE)
set(CMAKE_RANLIB "${VXPLUG_PROGRAM_ranlib}" CACHE FILEPATH "" FORCE)

# What the sandbox has is static, and the machine's own headers and libraries are of another machine.
set(BUILD_SHARED_LIBS OFF CACHE BOOL "" FORCE)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(CMAKE_FIND_ROOT_PATH "${CMAKE_CURRENT_LIST_DIR}/..")

# A plugin includes what its libraries say their users include.
function(vxplug_add_plugin name)
    cmake_parse_arguments(PARSE_ARGV 1 PLUGIN "" "" "LIBRARIES")
    set(sources)
    foreach(source IN LISTS PLUGIN_UNPARSED_ARGUMENTS)
        get_filename_component(path "${source}" ABSOLUTE)
        list(APPEND sources "${path}")
    endforeach()
    set(archives)
    set(includes)
    foreach(library IN LISTS PLUGIN_LIBRARIES)
        list(APPEND archives "$<TARGET_FILE:${library}>")
        set(folders "$<TARGET_PROPERTY:${library},INTERFACE_INCLUDE_DIRECTORIES>")
        list(APPEND includes "$<$<BOOL:${folders}>:-I$<JOIN:${folders},$<SEMICOLON>-I>>")
    endforeach()
    get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
    if("CXX" IN_LIST languages)
        set(standard_library "--c++")
    endif()
    add_custom_command(
        OUTPUT "${name}.vxm"
        COMMAND "${VXPLUG_PROGRAM}" build ${standard_library} -o "${name}.vxm" ${includes} ${sources} ${archives}
        DEPENDS ${sources} ${PLUGIN_LIBRARIES}
        COMMAND_EXPAND_LISTS VERBATIM)
    add_custom_target(${name}_vxm ALL DEPENDS "${name}.vxm")
endfunction()
