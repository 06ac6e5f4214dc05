"""The Linux personality: i386 system calls served for a guest, as far as its policy allows.

``csrc/core/linuxcalls.def`` lists every call and who serves it.  What touches memory and CPU state is
done in the core; the rest comes here as numbers (``personality``), is looked up by name (``calls``) and
served by one function a call (``files``, ``opening``, ``names``, ``status``, ``attributes``, ``clocks``,
``waiting``, ``system``).
"""
