# CMake toolchain file for plugins:  cmake -DCMAKE_TOOLCHAIN_FILE="$(vxplug cmake-toolchain)" …
#
# Compiles for the sandbox with the programs vxplug-cc, vxplug-c++, vxplug-ar and vxplug-ranlib, which must be
# on PATH, and adds
#
#     vxplug_add_plugin(NAME SOURCE… [LIBRARIES TARGET…])
#
# a target NAME_vxm that builds NAME.vxm: like an executable, with all that target_compile_definitions,
# target_link_libraries and their like say of it and of its libraries, and of theirs.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR i686)

foreach(VXPLUG_tool IN ITEMS cc c++ ar ranlib)
    find_program(VXPLUG_PROGRAM_${VXPLUG_tool} vxplug-${VXPLUG_tool} REQUIRED)
endforeach()
find_program(VXPLUG_PROGRAM vxplug REQUIRED)
set(CMAKE_C_COMPILER "${VXPLUG_PROGRAM_cc}")
set(CMAKE_CXX_COMPILER "${VXPLUG_PROGRAM_c++}")
set(CMAKE_ASM_COMPILER "${VXPLUG_PROGRAM_cc}")
# What a project builds to run at once, as check_c_source_runs does, runs in the sandbox: it can print, and end.
set(CMAKE_CROSSCOMPILING_EMULATOR "${VXPLUG_PROGRAM};run")
set(CMAKE_AR "${VXPLUG_PROGRAM_ar}" CACHE FILEPATH "" FORCE)
set(CMAKE_RANLIB "${VXPLUG_PROGRAM_ranlib}" CACHE FILEPATH "" FORCE)

# What the sandbox has is static, and the machine's own headers and libraries are of another machine.
set(BUILD_SHARED_LIBS OFF CACHE BOOL "" FORCE)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
# What is looked for is looked for below these alone: the prefixes that -DCMAKE_PREFIX_PATH=… says are of the sandbox's.
list(APPEND CMAKE_FIND_ROOT_PATH ${CMAKE_PREFIX_PATH} "${CMAKE_CURRENT_LIST_DIR}/..")
list(REMOVE_DUPLICATES CMAKE_FIND_ROOT_PATH)

# Languages whose linker is `vxplug build`: so the link line, libraries of libraries included, is CMake's own.
set(CMAKE_VXPLUG_LINK_EXECUTABLE
    "\"${VXPLUG_PROGRAM}\" build -o <TARGET> <OBJECTS> --link <LINK_FLAGS> <LINK_LIBRARIES>")
set(CMAKE_VXPLUGXX_LINK_EXECUTABLE
    "\"${VXPLUG_PROGRAM}\" build --c++ -o <TARGET> <OBJECTS> --link <LINK_FLAGS> <LINK_LIBRARIES>")

# Compiled as `vxplug build` does, which reads the interface from debug information; optimised where no build type says how.
function(vxplug_add_plugin name)
    cmake_parse_arguments(PARSE_ARGV 1 PLUGIN "" "" "LIBRARIES")
    set(language VXPLUG)
    get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
    if("CXX" IN_LIST languages)
        set(language VXPLUGXX)
    endif()
    # What the compilers link by themselves `vxplug build` does too; CMake would name it, by its place in a cache.
    foreach(part IN ITEMS LIBRARIES DIRECTORIES)
        set(CMAKE_${language}_IMPLICIT_LINK_${part}
            "${CMAKE_C_IMPLICIT_LINK_${part}};${CMAKE_CXX_IMPLICIT_LINK_${part}}" CACHE INTERNAL "")
    endforeach()
    add_executable(${name}_vxm ${PLUGIN_UNPARSED_ARGUMENTS})
    set_target_properties(${name}_vxm PROPERTIES OUTPUT_NAME "${name}" SUFFIX .vxm LINKER_LANGUAGE ${language})
    target_compile_options(${name}_vxm PRIVATE -g "$<$<CONFIG:>:-O2;-UNDEBUG>")
    target_link_libraries(${name}_vxm PRIVATE ${PLUGIN_LIBRARIES})
endfunction()
