/* Lua 5.4, from upstream's source in the lupa package: the input is a script, its first result the output. */
#include <lauxlib.h>
#include <lualib.h>
#include <string.h>
#include "bench.h"

static const luaL_Reg libraries[] = {{LUA_GNAME, luaopen_base},       {LUA_TABLIBNAME, luaopen_table},
                                     {LUA_STRLIBNAME, luaopen_string},
                                     {NULL, NULL}};

static bytes copied(lua_State *state) {
    size_t len;
    const char *text = lua_tolstring(state, -1, &len);
    bench_check(text != NULL, "lua: no result");
    return (bytes){memcpy(bench_room(len), text, len), len};
}

static bytes script(bytes input, uint32_t size) {
    lua_State *state = luaL_newstate();
    bench_check(state != NULL, "lua: no memory");
    for (const luaL_Reg *library = libraries; library->func; library++) {
        luaL_requiref(state, library->name, library->func, 1);
        lua_pop(state, 1);
    }
    bench_check(luaL_loadbufferx(state, (const char *)input.ptr, input.len, "=script", "t") == LUA_OK, "lua: load");
    lua_pushinteger(state, (lua_Integer)size);
    bench_check(lua_pcallk(state, 1, 1, 0, 0, NULL) == LUA_OK, lua_tostring(state, -1));
    bytes result = copied(state);
    lua_close(state);
    return result;
}

const bench_task bench_tasks[] = {{"script", NULL, script, NULL}, {0}};
